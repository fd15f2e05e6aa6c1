//! What the tests of the embedded server share: one in this process, or the real program as a child.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trainyard::server::{self, Options};

/// A server in this process on a free port; it ends with the value.
pub struct InProcess {
    pub url: String,
    pub data: TempDir,
    runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
}

impl InProcess {
    pub fn start() -> Self {
        Self::with(Options::new)
    }

    /// The options are made from the data folder.
    pub fn with(options: impl FnOnce(PathBuf) -> Options) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let data = tempfile::tempdir().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let options = options(data.path().to_owned());
        runtime.spawn(server::serve(listener, options, shutdown.clone()));
        let server = Self {
            url,
            data,
            runtime,
            shutdown,
        };
        // The port accepts from the start; the first answer comes once the server is set up.
        let ping = server.block_on(Client::without_keys(&server.url).raw("debug.ping", json!({})));
        assert_eq!(ping.0, 200);
        server
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url, self.data.path())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Runs a test of a server of its own in this process.
pub fn served(test: impl AsyncFnOnce(Client)) {
    let server = InProcess::start();
    server.block_on(test(server.client()));
}

/// The program itself, killed when the value goes.
pub struct Program {
    pub url: String,
    pub data: PathBuf,
    child: Child,
    /// What it says after its first line.
    out: BufReader<ChildStdout>,
}

impl Program {
    pub fn start(data: &Path) -> Self {
        Self::start_by(&mut Command::new(env!("CARGO_BIN_EXE_trainyard")), data)
    }

    /// `command` is the program, or what starts it.
    pub fn start_by(command: &mut Command, data: &Path) -> Self {
        Self::start_at(command, data, "127.0.0.1:0")
    }

    /// The same at this address.
    pub fn start_at(command: &mut Command, data: &Path, listen: &str) -> Self {
        let mut child = command
            .args(["server", "--listen", listen, "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("server: ").map(str::to_owned);
        let url = url.unwrap_or_else(|| panic!("the server said {line:?}: {}", errors(&mut child)));
        Self {
            url,
            data: data.to_owned(),
            child,
            out,
        }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url, &self.data)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL, and the same again at the same address.
    pub fn start_again(&mut self) {
        self.kill();
        let listen = self.url.trim_start_matches("http://").to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        *self = Self::start_at(&mut command, &self.data.clone(), &listen);
    }

    /// SIGTERM, and gone: what it said on both streams, its first line aside.
    pub fn stopped(mut self) -> String {
        let pid = Pid::from_raw(self.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        text += &errors(&mut self.child);
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }

    /// Waits for its own end: exit code and what it said.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let text = errors(&mut self.child);
        (self.child.wait().unwrap().code(), text)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program on a folder of its own, and what asks it.
pub struct Alone {
    pub server: Program,
    pub client: Client,
    runtime: tokio::runtime::Runtime,
    _data: TempDir,
}

impl Alone {
    pub fn start() -> Self {
        Self::by(Program::start)
    }

    /// `start` gets the data folder.
    pub fn by(start: impl FnOnce(&Path) -> Program) -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = start(data.path());
        Self {
            client: server.client(),
            server,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            _data: data,
        }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

fn errors(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stream) = child.stderr.take() {
        stream.read_to_string(&mut text).unwrap();
    }
    text
}

/// An upload as the SDK sends it: the field's name is the file's path. Content type and body.
pub fn multipart(path: &str, contents: &[u8]) -> (&'static str, Vec<u8>) {
    let head = format!(
        "--edge\r\nContent-Disposition: form-data; name=\"{path}\"; filename=\"{path}\"\r\n\r\n"
    );
    let mut body = head.into_bytes();
    body.extend_from_slice(contents);
    body.extend_from_slice(b"\r\n--edge--\r\n");
    ("multipart/form-data; boundary=edge", body)
}

/// The first key pair of a data folder: access key and secret.
pub fn keys(data: &Path) -> (String, String) {
    keys_in(&std::fs::read(server::keys_file(data)).unwrap())
}

/// The same as it is written.
pub fn keys_in(written: &[u8]) -> (String, String) {
    let keys: Value = serde_json::from_slice(written).unwrap();
    let text = |key: &str| keys[key].as_str().unwrap().to_owned();
    (text("access_key"), text("secret_key"))
}

/// Calls the API with the first key pair.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
    pub url: String,
    pub keys: Option<(String, String)>,
}

impl Client {
    pub fn new(url: &str, data: &Path) -> Self {
        Self {
            keys: Some(keys(data)),
            ..Self::without_keys(url)
        }
    }

    pub fn by_keys(url: &str, keys: (String, String)) -> Self {
        Self {
            keys: Some(keys),
            ..Self::without_keys(url)
        }
    }

    pub fn without_keys(url: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            keys: None,
        }
    }

    /// A request with the keys, if there are any.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/{path}", self.url));
        match &self.keys {
            Some((key, secret)) => request.basic_auth(key, Some(secret)),
            None => request,
        }
    }

    /// A request that uploads a file.
    pub fn upload(&self, path: &str, contents: &[u8]) -> reqwest::RequestBuilder {
        let (kind, body) = multipart(path, contents);
        self.request(reqwest::Method::POST, "files")
            .header("Content-Type", kind)
            .body(body)
    }

    /// A request that reports events, one a line.
    pub fn batch(&self, lines: String) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, "events.add_batch")
            .header("Content-Type", "application/json-lines")
            .body(lines)
    }

    /// Reports events, each of which must be stored.
    pub async fn report(&self, events: &[Value]) {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        let answer = self.batch(lines.join("\n")).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["data"]["errors"], 0, "{answer}");
    }

    /// The id of a new task.
    pub async fn task(&self, name: &str) -> String {
        let new = json!({"name": name, "type": "training"});
        let made = self.call("tasks.create", new).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// One call: HTTP status and body; status 0 if no answer came.
    pub async fn raw(&self, call: &str, body: Value) -> (u16, Value) {
        let request = self.request(reqwest::Method::POST, call).json(&body);
        let Ok(answer) = request.send().await else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        match answer.json().await {
            Ok(body) => (status, body),
            Err(_) => (0, Value::Null),
        }
    }

    /// `data` of a call that must succeed.
    pub async fn call(&self, call: &str, body: Value) -> Value {
        let (status, mut answer) = self.raw(call, body).await;
        assert_eq!(status, 200, "{call}: {answer}");
        answer["data"].take()
    }

    /// `data` of a call that was acknowledged, nothing if the server went away.
    pub async fn acknowledged(&self, call: &str, body: Value) -> Option<Value> {
        let (status, mut answer) = self.raw(call, body).await;
        (status == 200).then(|| answer["data"].take())
    }
}
