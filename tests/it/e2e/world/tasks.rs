//! Tasks at the server: made, enqueued, watched.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, World, merge};

impl World {
    /// A task that runs this Python source, not yet enqueued; `patch` is merged into `tasks.create`.
    pub fn create(&self, name: &str, source: &str, patch: &Value) -> String {
        let mut body = json!({
            "name": name, "type": "training",
            "script": {"binary": "python3", "repository": "", "entry_point": "job.py", "working_dir": ".",
                       "diff": source, "requirements": {}},
        });
        merge(&mut body, patch);
        let created = self.call("tasks.create", &body);
        let task = created["id"].as_str().expect("task id").to_owned();
        if let Some(foreign) = &self.foreign {
            foreign.note(&task);
        }
        task
    }

    pub fn enqueue(&self, task: &str, queue: &str) {
        self.call(
            "tasks.enqueue",
            &json!({"task": task, "queue": self.queue_id(queue)}),
        );
    }

    /// Creates and enqueues.
    pub fn run(&self, name: &str, source: &str, queue: &str) -> String {
        let task = self.create(name, source, &json!({}));
        self.enqueue(&task, queue);
        task
    }

    pub fn task(&self, task: &str) -> Value {
        self.call("tasks.get_by_id", &json!({"task": task}))["task"].clone()
    }

    /// Tasks by id, in one call; of each only these fields.
    pub fn tasks(&self, ids: &[&str], fields: &[&str]) -> HashMap<String, Value> {
        let fields = [&["id"], fields].concat();
        let body = json!({"id": ids, "only_fields": fields, "page_size": 500});
        let mut answer = self.call("tasks.get_all", &body);
        let tasks = answer["tasks"].as_array_mut().map(std::mem::take);
        let id = |task: &Value| task["id"].as_str().unwrap_or_default().to_owned();
        tasks
            .into_iter()
            .flatten()
            .map(|task| (id(&task), task))
            .collect()
    }

    pub fn status(&self, task: &str) -> String {
        let body = json!({"id": [task], "only_fields": ["id", "status"]});
        let answer = self.call("tasks.get_all", &body);
        answer["tasks"][0]["status"]
            .as_str()
            .unwrap_or("gone")
            .to_owned()
    }

    /// Waits for one of the final statuses; gives the task.
    pub fn until_ended(&self, task: &str, seconds: u64) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds) * PATIENCE;
        loop {
            let status = self.status(task);
            if ["completed", "failed", "stopped"].contains(&status.as_str()) {
                return self.task(task);
            }
            if Instant::now() > deadline {
                self.tell(task);
                panic!("task {task} is still {status} after {PATIENCE} times {seconds} s");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Prints what is known of a task, for a failing test.
    pub fn tell(&self, task: &str) {
        eprintln!("task: {:#}", self.task(task));
        eprintln!("log: {:#?}", self.log(task));
        let label = format!("trainyard.dev/task={task}");
        for args in [
            ["get", "jobs,pods", "-o", "yaml", "-l", &label].as_slice(),
            ["logs", "--all-containers", "--tail=30", "-l", &label].as_slice(),
            ["get", "events"].as_slice(),
        ] {
            eprintln!(
                "kubectl {args:?}:\n{}",
                self.try_kubectl(args).unwrap_or_else(|error| error)
            );
        }
        let log = fs::read_to_string(self.dir.path().join("controller.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        eprintln!(
            "controller:\n{}",
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
}
