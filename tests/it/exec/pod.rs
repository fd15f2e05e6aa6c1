//! The three containers of a pod as processes of this host.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use trainyard::diagnose::{self, Diagnosis};

use super::s22::judge::folded;
use super::server::{Proc, Server, wait};
use crate::python::fixture::uv;
use crate::whole::assert_same;

/// The pod of the first attempt of one task, parked in a pending queue of its own.
pub struct Pod<'a> {
    pub server: &'a Server,
    pub task: String,
    pub queue: String,
    /// Where the pod finds the server; a proxy perhaps.
    pub api: String,
    pub grace: u32,
    /// The program as the image of init container and sidecar has it.
    pub program: PathBuf,
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl<'a> Pod<'a> {
    /// Parks `task` as the controller does: enqueued by its user, moved to the pending queue.
    pub fn parked(server: &'a Server, task: &str) -> Self {
        let user = server.queue(&format!("user of {task}"));
        let pending = server.queue(&format!("pending of {task}"));
        server.call("tasks.enqueue", &json!({"task": task, "queue": user}));
        server.call(
            "tasks.enqueue",
            &json!({"task": task, "queue": pending, "update_execution_queue": false}),
        );
        Self {
            server,
            task: task.to_owned(),
            queue: pending,
            api: server.url.clone(),
            // Longer than a busy machine takes for what ends by itself.
            grace: 30,
            program: env!("CARGO_BIN_EXE_trainyard").into(),
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        }
    }

    /// A second pod of the same Job.
    pub fn twin(&self) -> Self {
        Self {
            server: self.server,
            task: self.task.clone(),
            queue: self.queue.clone(),
            api: self.api.clone(),
            grace: self.grace,
            program: self.program.clone(),
            folder: tempfile::tempdir().unwrap(),
            variables: self.variables.clone(),
        }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub fn worker(&self) -> String {
        format!("controller:test/binding:{}:1", self.task)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of its containers, not yet started; by another program if `by` is not empty.
    fn command(&self, role: &str, by: &[&str]) -> Command {
        let stream = |name: &str| {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path(&format!("{role}.{name}")))
                .unwrap()
        };
        // The task's container has nothing but what the init container brought.
        let brought = self.path("root/bin/trainyard");
        let program = if role == "task" {
            &brought
        } else {
            &self.program
        };
        let mut command = match by.split_first() {
            Some((first, arguments)) => {
                let mut command = Command::new(first);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .args(["--in-pod", role])
            .env("TRAINYARD_ROOT", self.path("root"))
            .env("TRAINYARD_TERMINATION_LOG", self.path("termination"))
            .env("TRAINYARD_TASK_ID", &self.task)
            .env("TRAINYARD_ATTEMPT", "1")
            .env("TRAINYARD_PENDING_QUEUE", &self.queue)
            .env("TRAINYARD_WORKER", self.worker())
            .env("TRAINYARD_GRACE_SECONDS", self.grace.to_string())
            .env("TRAINYARD_ENVIRONMENT_MANAGER", "none")
            .env("CLEARML_API_HOST", &self.api)
            .env("CLEARML_API_ACCESS_KEY", &self.server.access_key)
            .env("CLEARML_API_SECRET_KEY", &self.server.secret_key)
            .envs(self.variables.iter().cloned())
            .stdout(stream("stdout"))
            .stderr(stream("stderr"));
        command
    }

    /// What a container has written to its own standard output or error.
    pub fn stream(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The init container, begun and not waited for.
    pub fn start_prepare(&self) -> Proc {
        Proc::spawn(&mut self.command("prepare", &[]))
    }

    /// Runs the init container to its end.
    pub fn prepare(&self) {
        let code = self.start_prepare().end(60);
        assert_eq!(code, 0, "prepare: {}", self.stream("prepare.stderr"));
    }

    /// Puts uv beside what the init container brought, as its image has it: a link, for a copy takes long.
    pub fn bring_uv(&self) {
        std::os::unix::fs::symlink(uv(), self.path("root/bin/uv")).unwrap();
    }

    pub fn uplink(&self) -> Proc {
        Proc::spawn(&mut self.command("uplink", &[]))
    }

    /// Process 1 of the task's container.
    pub fn start(&self) -> Proc {
        self.start_by(&[])
    }

    /// The same, started by another program.
    pub fn start_by(&self, by: &[&str]) -> Proc {
        Proc::spawn(&mut self.command("task", by))
    }

    /// All three started, and waited for until the script has created these files: sidecar, and process 1 of the task's
    /// container.
    pub fn begun(&self, files: &[&str]) -> (Proc, Proc) {
        self.prepare();
        let both = (self.uplink(), self.start());
        for name in files {
            self.wait_for_file(name);
        }
        both
    }

    /// All three to their end, the way Kubernetes does it; the exit code of the task's container.
    pub fn run(&self) -> i32 {
        self.prepare();
        self.run_prepared()
    }

    /// The two that follow the init container.
    pub fn run_prepared(&self) -> i32 {
        let mut uplink = self.uplink();
        let code = self.start().end(120);
        self.drain(&mut uplink);
        code
    }

    /// Ends the sidecar as Kubernetes does once the task's container has ended, of a run whose task was its own until
    /// then; after that the server has all of its log.
    pub fn drain(&self, uplink: &mut Proc) {
        uplink.signal(Signal::SIGTERM);
        assert_eq!(
            uplink.end(30),
            0,
            "uplink: {}",
            self.stream("uplink.stderr")
        );
        self.has_sent_all();
    }

    /// Of a run that came to its end, by itself, by an abort or by an interruption, the server has what the container has
    /// printed, byte for byte after the rule for carriage returns. Left out: output that was opened anew, and what a busy
    /// machine has printed too late.
    fn has_sent_all(&self) {
        let ended: Value = serde_json::from_str(&self.stream("termination")).unwrap_or_default();
        let has_run = ["completed", "failed", "stopped", "interrupted"]
            .iter()
            .any(|outcome| ended["outcome"] == *outcome);
        let printed = folded(&fs::read(self.path("task.stdout")).unwrap());
        let is_cut = self
            .stream("task.stderr")
            .contains("does not take the rest");
        if !has_run || is_cut || printed.contains("overwritten its own output") {
            return;
        }
        let events = self.server.events(&self.task);
        let own = events.iter().filter(|event| event.worker == self.worker());
        let log: String = own.map(|event| event.text.as_str()).collect();
        assert_same(&log, &printed);
    }

    pub fn termination(&self) -> Value {
        serde_json::from_str(&self.stream("termination")).expect("a termination message")
    }

    /// What the controller makes of a task's container that has ended with this code.
    pub fn category(&self, code: i32) -> &'static str {
        let diagnosis = self.diagnosis(code, &json!({"name": "pod"}));
        diagnosis.category.as_str()
    }

    /// The same with its words, of a pod with this metadata.
    pub fn diagnosis(&self, code: i32, metadata: &Value) -> Diagnosis {
        let ended = json!({"terminated": {"reason": "Error", "exitCode": code, "message": self.stream("termination")}});
        let pod = serde_json::from_value(json!({
            "metadata": metadata, "spec": {"containers": [{"name": "task"}]},
            "status": {"phase": "Failed", "containerStatuses": [{
                "name": "task", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": ended,
            }]},
        }));
        let job = serde_json::from_value(json!({
            "metadata": {"name": "job"}, "spec": {"template": {}},
            "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]},
        }));
        diagnose::ended(&job.unwrap(), Some(&pod.unwrap()))
    }

    /// Waits until the script has created this file in its working directory.
    pub fn wait_for_file(&self, name: &str) {
        let path = self.path("root/code").join(name);
        wait(
            &format!("the script makes {name}: {}", self.stream("task.stderr")),
            60,
            || path.exists().then_some(()),
        );
    }
}

/// Every living process below `root`, itself included.
pub fn family(root: i32) -> Vec<Pid> {
    let mut known = vec![root];
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let state = fields.next()?.to_owned();
            (state != "Z").then_some((pid, fields.next()?.parse().ok()?))
        })
        .collect();
    let mut index = 0;
    while index < known.len() {
        let parent = known[index];
        known.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        index += 1;
    }
    known.into_iter().map(Pid::from_raw).collect()
}
