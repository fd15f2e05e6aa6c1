//! A `trainyard server` of the test's own, and short ways to speak to it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use trainyard::server;

use crate::git::servers::free_port;

/// Polls until `probe` gives a value; fails with `what` when three times `seconds` have passed: a machine that others
/// use too is slower than the one that waits are written for.
pub fn wait<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds) * 3;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited three times {seconds} s in vain for: {what}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process that is killed when its value is dropped.
pub struct Proc(pub Child);

impl Proc {
    pub fn spawn(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?} starts: {error}")),
        )
    }

    pub fn id(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.id()), signal);
    }

    /// Exit code, or minus the signal.
    pub fn end(&mut self, seconds: u64) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let child = &mut self.0;
        let status = wait("the process ends", seconds, || child.try_wait().unwrap());
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One line of the log as the server has it.
#[derive(Debug, Clone)]
pub struct Event {
    pub worker: String,
    pub text: String,
    /// Milliseconds since 1970.
    pub time: i64,
}

/// Where the server runs.
enum Running {
    /// In this process.
    Thread(CancellationToken, Option<thread::JoinHandle<()>>),
    /// Another build's program.
    Program(Proc),
}

pub struct Server {
    pub url: String,
    pub access_key: String,
    pub secret_key: String,
    running: Running,
    _folder: TempDir,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    token: Mutex<Option<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Thread(shutdown, thread) => {
                shutdown.cancel();
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Running::Program(program) => program.signal(nix::sys::signal::Signal::SIGTERM),
        }
    }
}

impl Server {
    pub fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = server::Options::new(folder.path().join("data"));
        let keys = server::keys_file(&options.data);
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                server::serve(listener, options, stop).await.unwrap();
            });
        });
        Self::at(url, &keys, folder, Running::Thread(shutdown, Some(thread)))
    }

    /// The server of this program, as a process: for figures.
    pub fn of_program(program: &Path) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let data = folder.path().join("data");
        let log = fs::File::create(folder.path().join("server.log")).unwrap();
        let mut command = Command::new(program);
        command
            .args(["server", "--listen", &address, "--data"])
            .arg(&data)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let running = Running::Program(Proc::spawn(&mut command));
        wait("the server answers", 30, || {
            TcpStream::connect(&address).ok()
        });
        let keys = server::keys_file(&data);
        Self::at(format!("http://{address}"), &keys, folder, running)
    }

    /// The server at `url`, once it has written its keys.
    fn at(url: String, keys: &Path, folder: TempDir, running: Running) -> Self {
        let keys: Value = wait("the server has keys", 30, || {
            serde_json::from_str(&fs::read_to_string(keys).ok()?).ok()
        });
        Self {
            url,
            access_key: keys["access_key"].as_str().unwrap().to_owned(),
            secret_key: keys["secret_key"].as_str().unwrap().to_owned(),
            running,
            _folder: folder,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            http: reqwest::Client::new(),
            token: Mutex::new(None),
        }
    }

    /// One call; the data of its answer, or HTTP code and message.
    pub fn try_call(&self, action: &str, body: &Value) -> Result<Value, (u64, String)> {
        let token = self.token();
        let request = self
            .http
            .post(format!("{}/{action}", self.url))
            .bearer_auth(token)
            .json(body);
        let answer: Value = self
            .runtime
            .block_on(async { request.send().await.unwrap().json().await.unwrap() });
        match answer["meta"]["result_code"].as_u64() {
            Some(200) => Ok(answer["data"].clone()),
            code => Err((code.unwrap_or(0), answer["meta"]["result_msg"].to_string())),
        }
    }

    pub fn call(&self, action: &str, body: &Value) -> Value {
        self.try_call(action, body)
            .unwrap_or_else(|error| panic!("{action} {body}: {error:?}"))
    }

    fn token(&self) -> String {
        let mut token = self.token.lock().unwrap();
        token
            .get_or_insert_with(|| {
                let request = self.http.post(format!("{}/auth.login", self.url));
                let request = request
                    .basic_auth(&self.access_key, Some(&self.secret_key))
                    .json(&json!({}));
                let answer: Value = self
                    .runtime
                    .block_on(async { request.send().await.unwrap().json().await.unwrap() });
                answer["data"]["token"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{answer}"))
                    .to_owned()
            })
            .clone()
    }

    /// A queue of this name.
    pub fn queue(&self, name: &str) -> String {
        self.call("queues.create", &json!({"name": name}))["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A task that is a stand-alone Python script.
    pub fn script(&self, name: &str, source: &str) -> String {
        let script = json!({"binary": "python3", "entry_point": "script.py", "working_dir": ".", "diff": source});
        self.task(name, &script)
    }

    pub fn task(&self, name: &str, script: &Value) -> String {
        let body = json!({"name": name, "type": "training", "script": script});
        self.call("tasks.create", &body)["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn get(&self, task: &str) -> Value {
        self.call("tasks.get_by_id", &json!({"task": task}))["task"].clone()
    }

    /// All log events of a task, oldest first.
    pub fn events(&self, task: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let body = json!({"task": task, "batch_size": 100, "navigate_earlier": false, "from_timestamp": after});
            let page = self.call("events.get_task_log", &body);
            let page = page["events"].as_array().unwrap();
            let Some(last) = page
                .iter()
                .map(|event| event["timestamp"].as_i64().unwrap())
                .max()
            else {
                return events;
            };
            events.extend(page.iter().map(|event| Event {
                worker: event["worker"].as_str().unwrap().to_owned(),
                text: event["msg"].as_str().unwrap().to_owned(),
                time: event["timestamp"].as_i64().unwrap(),
            }));
            after = last;
        }
    }

    /// The whole log as one text.
    pub fn log(&self, task: &str) -> String {
        self.events(task)
            .into_iter()
            .map(|event| event.text)
            .collect()
    }

    /// The log without the executor's own remarks.
    pub fn output(&self, task: &str) -> String {
        self.log(task)
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("trainyard: "))
            .collect()
    }
}
