//! What serves a repository over a network in a test; ends with its value.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;

/// Serves the folder over HTTP by git's own CGI program; a password is asked for if one is set.
pub struct Server {
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Served {
    root: PathBuf,
    /// User and password, with a colon between.
    login: Option<String>,
}

impl Server {
    pub async fn start(root: &Path, password: Option<&'static str>) -> Self {
        Self::start_on("127.0.0.1", root, password).await
    }

    /// The same on another address of this machine.
    pub async fn start_on(host: &str, root: &Path, password: Option<&'static str>) -> Self {
        let login = password.map(|password| format!("git:{password}"));
        Self::serve(host, root, login).await
    }

    /// The same for one user alone.
    pub async fn start_for(root: &Path, username: &str, password: &str) -> Self {
        Self::serve("127.0.0.1", root, Some(format!("{username}:{password}"))).await
    }

    async fn serve(host: &str, root: &Path, login: Option<String>) -> Self {
        let listener = tokio::net::TcpListener::bind((host, 0))
            .await
            .expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = Served {
            root: root.to_owned(),
            login,
        };
        let router = axum::Router::new().fallback(answer).with_state(served);
        let task =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(served): State<Served>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let text = |name: header::HeaderName| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let expected = served
        .login
        .map(|login| format!("Basic {}", STANDARD.encode(login)));
    if expected.is_some_and(|expected| expected != text(header::AUTHORIZATION)) {
        let answer = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header("WWW-Authenticate", "Basic realm=\"git\"");
        return answer.body(Body::from("no")).expect("an answer");
    }
    let body = to_bytes(body, 64 << 20).await.expect("a body");
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &served.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env(
            "GIT_PROTOCOL",
            text(header::HeaderName::from_static("git-protocol")),
        )
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git http-backend runs");
    let mut stdin = child.stdin.take().expect("stdin");
    tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.expect("an answer").stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("headers end");
    let mut answer = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        answer = match name {
            "Status" => answer.status(value[..3].parse::<u16>().expect("a status")),
            _ => answer.header(name, value),
        };
    }
    answer
        .body(Body::from(output[end + 4..].to_vec()))
        .expect("an answer")
}

/// git's own daemon; ends with this value.
pub struct Daemon {
    child: Child,
    pub url: String,
}

impl Daemon {
    pub fn start(root: &Path) -> Self {
        let port = free_port("127.0.0.1");
        let child = Command::new("git")
            .args([
                "daemon",
                "--export-all",
                "--reuseaddr",
                "--listen=127.0.0.1",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", root.display()))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon runs");
        let until = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "git daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            url: format!("git://127.0.0.1:{port}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon is a child of `git` itself, which hands SIGTERM on.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// A port on which nothing listens, for a program that is started later, and perhaps again after it was killed.
///
/// The kernel gives none of these away by itself, neither to who asks for any port nor to a connection; and each is
/// given away here once, by a process of tests from a place of its own.
pub fn free_port(address: &str) -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = std::process::id().wrapping_mul(397) % u32::from(COUNT);
    let place = u16::try_from(place).expect("less than the ports that there are");
    (0..COUNT)
        .map(|_| FIRST + (place + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .expect("a port is free")
}
