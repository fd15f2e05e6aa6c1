//! What a scenario runs in: a namespace of its own on the real cluster, a `trainyard server` and a
//! `trainyard controller` of its own, and short ways to speak to them. Everything started here ends with the value.

mod bindings;
mod log;
mod neighbour;
mod objects;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use trainyard::exec::spool::NOTE;

use super::foreign::Foreign;
use crate::git::servers::free_port;

/// Where the cluster and the prepared programs are; `cargo xtask test` sets it.
#[derive(Debug, Clone)]
pub struct Place {
    pub kubeconfig: String,
    /// Address of the host as pods see it.
    pub gateway: String,
    /// Our image, and one with Python for tasks.
    pub image: String,
    pub task_image: String,
    /// Image registry as the cluster names it.
    pub registry: String,
    pub index_url: String,
    /// Folder of `kubectl` and `helm`.
    pub bin: PathBuf,
    /// A Python interpreter that has the unmodified `clearml` package.
    pub sdk_python: String,
}

impl Place {
    pub fn find() -> Self {
        let get = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: scenarios need a real cluster; run them by `cargo xtask test`")
            })
        };
        Self {
            kubeconfig: get("TRAINYARD_E2E_KUBECONFIG"),
            gateway: get("TRAINYARD_E2E_GATEWAY"),
            image: get("TRAINYARD_E2E_IMAGE"),
            task_image: get("TRAINYARD_E2E_TASK_IMAGE"),
            registry: get("TRAINYARD_E2E_REGISTRY"),
            index_url: get("TRAINYARD_E2E_INDEX_URL"),
            bin: PathBuf::from(get("TRAINYARD_E2E_BIN")),
            sdk_python: get("TRAINYARD_E2E_SDK_PYTHON"),
        }
    }
}

/// A process that is killed when its value is dropped.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    pub log: PathBuf,
}

impl Proc {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("log file opens");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file is cloned"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} starts: {error}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; it may take its time.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status();
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How the chart sets the memory allocator of a controller.
pub const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Counts what user code reports from its pod: one line per run, outside of the cluster.
#[derive(Debug, Clone)]
pub struct Counter {
    pub address: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Counter {
    fn start(host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("counter binds");
        let address = listener
            .local_addr()
            .expect("counter has an address")
            .to_string();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || Self::take(stream, &kept));
            }
        });
        Self { address, lines }
    }

    fn take(mut stream: TcpStream, kept: &Mutex<Vec<String>>) {
        let mut line = String::new();
        let Ok(copy) = stream.try_clone() else { return };
        if BufReader::new(copy).read_line(&mut line).is_ok() && !line.trim().is_empty() {
            kept.lock()
                .expect("counter lock")
                .push(line.trim().to_owned());
            let _ = stream.write_all(b"ok\n");
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("counter lock").clone()
    }

    /// Python that reports `word` and goes on once it is counted.
    pub fn python(&self, word: &str) -> String {
        let (host, port) = self.address.rsplit_once(':').expect("address has a port");
        format!(
            "import os, socket\n\
             _c = socket.create_connection(('{host}', {port}), 30)\n\
             _c.sendall(('{word} ' + os.environ['CLEARML_TASK_ID'] + '\\n').encode())\n\
             assert _c.recv(3) == b'ok\\n'\n_c.close()\n"
        )
    }
}

/// Waits are written as on a quiet machine; one that others use too gets so many times as long. Where time itself is
/// what a test asserts, it measures it.
pub const PATIENCE: u32 = 3;

/// Polls until `probe` gives a value; fails with what `what` says when `seconds` have passed.
pub fn wait<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(seconds) * PATIENCE,
            "waited {} s in vain for: {what}",
            waited.as_secs()
        );
        thread::sleep(Duration::from_millis(200));
    }
}

pub struct World {
    pub place: Place,
    pub namespace: String,
    pub dir: TempDir,
    pub url: String,
    pub key: String,
    pub secret: String,
    pub counter: Counter,
    /// The program under test.
    program: PathBuf,
    server: Option<Proc>,
    /// The server in its place.
    foreign: Option<Foreign>,
    controller: Option<Proc>,
    /// Environment variables of controllers beside the usual ones.
    pub environment: Vec<(String, String)>,
    /// Where the controller answers probes and scrapes.
    pub probes: String,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    cluster: tokio::sync::OnceCell<kube::Client>,
    token: Mutex<String>,
}

impl World {
    /// A namespace, a server, and (unless the scenario installs its own) nothing else. Server and controller are the
    /// program that the image holds: what is shipped is what is tried.
    pub fn new(name: &str) -> Self {
        Self::of_image(name, None)
    }

    /// The same on the server that the caller of the bench named, if one was.
    pub fn compared(name: &str) -> Self {
        Self::of_image(name, Foreign::given())
    }

    /// The same on this server of somebody's.
    pub fn on(name: &str, foreign: Foreign) -> Self {
        Self::of_image(name, Some(foreign))
    }

    /// The same with the program that has fault points, which are compiled in for tests only.
    pub fn with_fault_points(name: &str) -> Self {
        Self::of_program(name, PathBuf::from(env!("CARGO_BIN_EXE_trainyard")), None)
    }

    fn of_image(name: &str, foreign: Option<Foreign>) -> Self {
        let program = std::env::var("TRAINYARD_E2E_PROGRAM").expect(
            "TRAINYARD_E2E_PROGRAM is not set: scenarios need the image's program; run them by `cargo xtask test`",
        );
        Self::of_program(name, PathBuf::from(program), foreign)
    }

    fn of_program(name: &str, program: PathBuf, foreign: Option<Foreign>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let place = Place::find();
        let dir = tempfile::tempdir().expect("temp folder");
        let namespace = format!("e2e-{name}-{}", std::process::id());
        let counter = Counter::start(&place.gateway);
        let port = free_port(&place.gateway);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let mut world = Self {
            url: format!("http://{}:{port}", place.gateway),
            place,
            namespace,
            dir,
            key: String::new(),
            secret: String::new(),
            counter,
            program,
            server: None,
            foreign,
            controller: None,
            environment: Vec::new(),
            probes: String::new(),
            runtime,
            // A kept connection would be a dead one after the server was killed.
            http: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .timeout(Duration::from_secs(60))
                .build()
                .expect("HTTP client"),
            cluster: tokio::sync::OnceCell::new(),
            token: Mutex::new(String::new()),
        };
        if let Some(foreign) = &world.foreign {
            world.url.clone_from(&foreign.url);
            world.key.clone_from(&foreign.key);
            world.secret.clone_from(&foreign.secret);
        } else {
            world.start_server();
        }
        world.settle_in();
        world
    }

    /// The same with a controller on the host and a binding `gpu` on the queue `gpu`.
    pub fn with_binding(name: &str) -> Self {
        let mut world = Self::new(name);
        world.start_controller();
        world.queue("gpu");
        world.bind("gpu", &["gpu"], &json!({}));
        world.until_ready("gpu");
        world
    }

    // ---- programs

    pub fn start_server(&mut self) {
        let (_, listen) = self.url.split_once("//").expect("url has a scheme");
        let conf = self.dir.path().join("clearml.conf");
        let mut command = Command::new(&self.program);
        command
            .args([
                "server",
                "--listen",
                listen,
                "--public-url",
                &self.url,
                "--data",
            ])
            .arg(self.dir.path().join("server"))
            .arg("--write-conf")
            .arg(&conf);
        let mut proc = Proc::start(&mut command, &self.dir.path().join("server.log"));
        wait("the server answers", 30, || {
            assert!(!proc.has_ended(), "the server ended: {}", proc.log());
            (conf.exists() && TcpStream::connect(listen).is_ok()).then_some(())
        });
        self.server = Some(proc);
        let text = fs::read_to_string(&conf).expect("clearml.conf is readable");
        let value = |key: &str| {
            let at = text
                .find(key)
                .unwrap_or_else(|| panic!("{key} in clearml.conf"));
            // The name itself is quoted too: its value is what the next pair of quotes holds.
            text[at + key.len()..]
                .split('"')
                .find(|part| part.len() > 8)
                .map(str::to_owned)
        };
        self.key = value("access_key").expect("access_key is quoted");
        self.secret = value("secret_key").expect("secret_key is quoted");
    }

    pub fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
        }
    }

    pub fn start_controller(&mut self) {
        self.probes = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let log = self.dir.path().join("controller.log");
        let mut command = self.controller_command(&self.probes);
        self.controller = Some(Proc::start(&mut command, &log));
    }

    /// Another replica under a name of its own; it ends with its value.
    pub fn replica(&self, identity: &str) -> Proc {
        let mut command = self.controller_command("127.0.0.1:0");
        command.env("TRAINYARD_IDENTITY", identity);
        Proc::start(
            &mut command,
            &self.dir.path().join(format!("{identity}.log")),
        )
    }

    fn controller_command(&self, probes: &str) -> Command {
        let mut command = self.command(&["controller"]);
        command
            .env("TRAINYARD_LISTEN", probes)
            .env("CLEARML_API_HOST", &self.url)
            .env("CLEARML_API_ACCESS_KEY", &self.key)
            .env("CLEARML_API_SECRET_KEY", &self.secret)
            .envs(ALLOCATOR)
            .envs(self.environment.iter().cloned());
        command
    }

    /// A command of ours as an administrator runs it: with a kubeconfig, on no controller's behalf.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("KUBECONFIG", &self.place.kubeconfig)
            .env("TRAINYARD_NAMESPACE", &self.namespace)
            .env("TRAINYARD_IMAGE", &self.place.image);
        command
    }

    /// What the controller answers to a GET on its port of probes: the status, and the text.
    pub fn probe(&self, path: &str) -> (u16, String) {
        self.fetch(&format!("http://{}{path}", self.probes))
    }

    /// What is answered to a GET: the status, and the text; 0 where nobody answers.
    pub fn fetch(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            match self.http.get(url).send().await {
                Ok(answer) => (
                    answer.status().as_u16(),
                    answer.text().await.unwrap_or_default(),
                ),
                Err(error) => (0, error.to_string()),
            }
        })
    }

    /// The sum of a metric's series that carry all of these words, such as `binding="ns/gpu"`.
    pub fn metric(&self, name: &str, words: &[&str]) -> f64 {
        let (status, text) = self.probe("/metrics");
        assert_eq!(status, 200, "{text}");
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && words.iter().all(|word| line.contains(word))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// SIGTERM, and how long it took to end.
    pub fn terminate_controller(&mut self) -> Duration {
        let mut controller = self.controller.take().expect("the controller runs");
        let begun = Instant::now();
        controller.terminate();
        wait("the controller ends on SIGTERM", 60, || {
            controller.has_ended().then_some(())
        });
        begun.elapsed()
    }

    pub fn kill_controller(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            controller.kill();
        }
    }

    pub fn controller(&mut self) -> &mut Proc {
        self.controller.as_mut().expect("the controller runs")
    }

    // ---- Kubernetes

    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.place.bin.join("kubectl"));
        command
            .env("KUBECONFIG", &self.place.kubeconfig)
            .args(["-n", &self.namespace])
            .args(args);
        command
    }

    /// Output of kubectl; fails the test when kubectl fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args)
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    /// Standard output, or standard error when kubectl fails.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        said(&self.kubectl_command(args).output().expect("kubectl runs"))
    }

    /// A kubeconfig of a service account of this namespace.
    pub fn kubeconfig_of(&self, account: &str) -> String {
        let token = self.kubectl(&["create", "token", account]);
        let config = self.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&config).expect("a kubeconfig");
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = self.dir.path().join(format!("{account}.kubeconfig"));
        fs::write(&path, config.to_string()).expect("kubeconfig is written");
        path.display().to_string()
    }

    pub fn try_apply(&self, object: &Value) -> Result<String, String> {
        let mut child = self
            .kubectl_command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(object.to_string().as_bytes())
            .expect("kubectl reads");
        said(&child.wait_with_output().expect("kubectl ends"))
    }

    /// Evicts a pod by the API server, as draining a node does.
    pub fn evict(&self, pod: &str) {
        self.post(
            &format!("/api/v1/namespaces/{}/pods/{pod}/eviction", self.namespace),
            &json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod, "namespace": self.namespace},
            }),
        );
    }

    pub fn jobs(&self) -> Vec<Value> {
        self.get(&["jobs"])["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    pub fn job_of(&self, task: &str) -> Value {
        self.get(&["jobs", "-l", &format!("trainyard.dev/task={task}")])["items"][0].clone()
    }

    pub fn job_of_attempt(&self, task: &str, attempt: u32) -> Value {
        let label = format!("trainyard.dev/task={task},trainyard.dev/attempt={attempt}");
        self.get(&["jobs", "-l", &label])["items"][0].clone()
    }

    pub fn pod_of(&self, task: &str) -> Value {
        self.get(&["pods", "-l", &format!("trainyard.dev/task={task}")])["items"][0].clone()
    }

    /// The task's pod once the kubelet has told that its container runs, which may be later than the task itself.
    pub fn running_pod(&self, task: &str) -> Value {
        wait("the kubelet tells of the container", 30, || {
            let pod = self.pod_of(task);
            let all = pod["status"]["containerStatuses"].as_array()?.clone();
            let started =
                |status: &Value| status["name"] == "task" && !status["state"]["running"].is_null();
            all.iter().any(started).then_some(pod)
        })
    }

    // ---- the server

    /// One call; its `data`. Fails the test when the server refuses.
    pub fn call(&self, name: &str, body: &Value) -> Value {
        let (status, answer) = self.try_call(name, body);
        assert_eq!(status, 200, "{name} {body}: {answer}");
        answer["data"].clone()
    }

    pub fn try_call(&self, name: &str, body: &Value) -> (u16, Value) {
        self.runtime.block_on(async {
            let known = self.token.lock().expect("token lock").clone();
            let token = if known.is_empty() {
                let answer: Value = self
                    .http
                    .post(format!("{}/auth.login", self.url))
                    .basic_auth(&self.key, Some(&self.secret))
                    .json(&json!({}))
                    .send()
                    .await
                    .expect("login is sent")
                    .json()
                    .await
                    .expect("login answers JSON");
                let token = answer["data"]["token"]
                    .as_str()
                    .expect("login gives a token")
                    .to_owned();
                token.clone_into(&mut self.token.lock().expect("token lock"));
                token
            } else {
                known
            };
            let sent = self
                .http
                .post(format!("{}/{name}", self.url))
                .bearer_auth(token)
                .json(body)
                .send()
                .await;
            match sent {
                Ok(response) => {
                    let status = response.status().as_u16();
                    (status, response.json().await.unwrap_or(Value::Null))
                }
                Err(error) => (0, Value::String(error.to_string())),
            }
        })
    }

    /// Addresses of page and file server that belong to the server at `url`.
    pub fn web_and_files(&self, url: &str) -> (String, String) {
        match &self.foreign {
            Some(foreign) => (foreign.web.clone(), foreign.files.clone()),
            None => (url.to_owned(), format!("{url}/files")),
        }
    }

    /// What a queue is called on the server: on one that others use too, by a name of our own.
    pub fn named(&self, queue: &str) -> String {
        if self.foreign.is_some() {
            format!("{queue}-{}", self.namespace)
        } else {
            queue.to_owned()
        }
    }

    pub fn queue(&self, name: &str) -> String {
        self.call("queues.create", &json!({"name": self.named(name)}))["id"]
            .as_str()
            .expect("queue id")
            .to_owned()
    }

    pub fn queue_id(&self, name: &str) -> String {
        let found = self.call(
            "queues.get_all",
            &json!({"name": format!("^{}$", self.named(name)), "only_fields": ["id"]}),
        );
        found["queues"][0]["id"]
            .as_str()
            .expect("queue exists")
            .to_owned()
    }

    pub fn entries(&self, queue: &str) -> Vec<String> {
        self.entries_of(&self.queue_id(queue))
    }

    /// The same by the id of the queue.
    pub fn entries_of(&self, queue: &str) -> Vec<String> {
        let queue = self.call("queues.get_by_id", &json!({"queue": queue}));
        queue["queue"]["entries"]
            .as_array()
            .map(|all| {
                all.iter()
                    .filter_map(|entry| entry["task"].as_str().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default()
    }

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

    /// The task's console log, line by line, oldest first.
    pub fn log(&self, task: &str) -> Vec<String> {
        let answer = self.call(
            "events.get_task_log",
            &json!({"task": task, "batch_size": 10000, "navigate_earlier": false, "order": "asc"}),
        );
        let mut lines = Vec::new();
        for event in answer["events"].as_array().expect("log has events") {
            lines.extend(
                event["msg"]
                    .as_str()
                    .unwrap_or_default()
                    .lines()
                    .map(str::to_owned),
            );
        }
        lines
    }

    /// All that the task's pods have sent, as it is; without what the controller and clients elsewhere told.
    pub fn text(&self, task: &str) -> String {
        let answer = self.call(
            "events.get_task_log",
            &json!({"task": task, "batch_size": 10000, "navigate_earlier": false, "order": "asc"}),
        );
        let events = answer["events"].as_array().expect("log has events");
        let of_pods = events.iter().filter(|event| {
            let worker = event["worker"].as_str().unwrap_or_default();
            worker.contains(task)
        });
        of_pods.filter_map(|event| event["msg"].as_str()).collect()
    }

    /// The same without the executor's own remarks: what the task itself has written.
    pub fn output(&self, task: &str) -> String {
        self.text(task)
            .split_inclusive('\n')
            .filter(|line| !line.starts_with(NOTE))
            .collect()
    }

    /// Runs a Python script on the host with the real SDK, against this server; gives its output.
    pub fn sdk(&self, script: &str, args: &[&str]) -> String {
        let path = self.dir.path().join("sdk.py");
        fs::write(&path, script).expect("script is written");
        let output = Command::new(&self.place.sdk_python)
            .arg(&path)
            .args(args)
            .current_dir(self.dir.path())
            .env("CLEARML_CONFIG_FILE", self.dir.path().join("clearml.conf"))
            .env_remove("CLEARML_TASK_ID")
            .output()
            .expect("Python runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "SDK script failed:\n{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let log = fs::read_to_string(self.dir.path().join("controller.log")).unwrap_or_default();
        if thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!(
                "controller:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // On somebody's own server the controller gives back what it has taken, by the finalizers of its bindings.
        if let Some(foreign) = &self.foreign {
            let _ = self.try_kubectl(&["delete", "queuebinding", "--all", "--timeout=60s"]);
            if let Some(mut controller) = self.controller.take() {
                controller.kill();
            }
            foreign.clear(self);
        }
        self.kill_controller();
        self.clear();
        let told = !self.secret.is_empty() && log.contains(&self.secret);
        assert!(
            thread::panicking() || !told,
            "the controller's log names the server's secret key"
        );
    }
}

/// Standard output, or standard error of a program that has failed.
fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// Merges objects deeply; everything else is replaced.
pub fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
