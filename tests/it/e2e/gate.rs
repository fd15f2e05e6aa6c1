//! A gate before the real API server: passes requests on, or slows, throttles, refuses and cuts them as a rule says.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use kube::config::Kubeconfig;
use serde_json::json;
use tokio::sync::{oneshot, watch};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// Passes after so long.
    Late(Duration),
    /// Passes; what is sent back ends after so long, as when the API server ends a watch.
    CutAfter(Duration),
    /// Passes; every watch that was asked for before it is ended first.
    CloseWatches,
    /// A watch is told that the events after its place are not kept any more (410): it has to list anew.
    Gone,
    /// 429 with `Retry-After`, in seconds.
    Throttle(u64),
    /// 500 without asking the API server.
    Fail,
    /// The API server does it, and the answer is a 500.
    DoneButFail,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Instant,
    pub method: Method,
    pub path: String,
    pub is_watch: bool,
    pub fate: Fate,
}

type Rule = dyn FnMut(&Asked) -> Fate + Send;

struct Inner {
    http: reqwest::Client,
    upstream: String,
    rule: Mutex<Box<Rule>>,
    asked: Mutex<Vec<Asked>>,
    /// How often all watches were closed.
    closings: watch::Sender<u32>,
}

/// Stands until the value goes.
pub struct Gate {
    /// Leads to the gate; it carries no keys, the gate has them.
    pub kubeconfig: PathBuf,
    inner: Arc<Inner>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Gate {
    /// `rule` is asked with each request, whose own fate is still open.
    pub fn start(
        kubeconfig: &str,
        folder: &Path,
        rule: impl FnMut(&Asked) -> Fate + Send + 'static,
    ) -> Self {
        let (http, upstream) = upstream(kubeconfig);
        let inner = Arc::new(Inner {
            http,
            upstream,
            rule: Mutex::new(Box::new(rule)),
            asked: Mutex::default(),
            closings: watch::Sender::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("the gate binds");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().fallback(pass).with_state(Arc::clone(&inner));
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let serve = axum::serve(listener, router);
                tokio::select! { _ = serve => {}, _ = stopped => {} }
            });
            runtime.shutdown_background();
        });
        let path = folder.join("gate.kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gate",
            "clusters": [{"name": "gate", "cluster": {"server": url}}],
            "users": [{"name": "gate", "user": {}}],
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
        });
        fs::write(&path, text.to_string()).expect("kubeconfig is written");
        Self {
            kubeconfig: path,
            inner,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// What is done from now on.
    pub fn set(&self, rule: impl FnMut(&Asked) -> Fate + Send + 'static) {
        *self.inner.rule.lock().expect("rule lock") = Box::new(rule);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().expect("asked lock").clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client with the administrator's keys, and the API server's address.
fn upstream(kubeconfig: &str) -> (reqwest::Client, String) {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("kubeconfig");
    let cluster = kubeconfig.clusters[0].cluster.as_ref().expect("cluster");
    let user = kubeconfig.auth_infos[0].auth_info.as_ref().expect("user");
    let decoded = |text: &str| STANDARD.decode(text).expect("base64");
    let authority = decoded(cluster.certificate_authority_data.as_ref().expect("CA"));
    let mut identity = decoded(user.client_certificate_data.as_ref().expect("certificate"));
    let key = user.client_key_data.as_ref().expect("key");
    identity.extend(decoded(secrecy::ExposeSecret::expose_secret(key)));
    let http = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(&authority).expect("CA"))
        .identity(reqwest::Identity::from_pem(&identity).expect("identity"))
        .no_gzip()
        .build()
        .expect("client");
    (http, cluster.server.clone().expect("server"))
}

async fn pass(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    // From before the rule on: a watch that passes is closed by whatever closes all after it.
    let mut closings = inner.closings.subscribe();
    let mut asked = Asked {
        at: Instant::now(),
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        is_watch: query.split('&').any(|part| part.starts_with("watch=")),
        fate: Fate::Pass,
    };
    asked.fate = inner.rule.lock().expect("rule lock")(&asked);
    let (fate, is_watch) = (asked.fate, asked.is_watch);
    inner.asked.lock().expect("asked lock").push(asked);
    match fate {
        Fate::Throttle(seconds) => return throttled(seconds),
        Fate::Fail => return failed(),
        Fate::Gone => return gone(),
        Fate::CloseWatches => inner.closings.send_modify(|times| *times += 1),
        Fate::Late(time) => tokio::time::sleep(time).await,
        Fate::Pass | Fate::CutAfter(_) | Fate::DoneButFail => {}
    }
    let Ok(body) = to_bytes(body, 16 << 20).await else {
        return failed();
    };
    let target = head.uri.path_and_query().map_or("/", |all| all.as_str());
    let mut headers = head.headers;
    for name in [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION] {
        headers.remove(name);
    }
    let sent = inner
        .http
        .request(head.method, format!("{}{target}", inner.upstream))
        .headers(headers)
        .body(body)
        .send()
        .await;
    let answer = match sent {
        Ok(answer) if fate != Fate::DoneButFail => answer,
        _ => return failed(),
    };
    let status = answer.status();
    let mut headers = answer.headers().clone();
    headers.remove(header::TRANSFER_ENCODING);
    let stream = answer.bytes_stream();
    let body = match fate {
        Fate::CutAfter(time) => {
            headers.remove(header::CONTENT_LENGTH);
            Body::from_stream(stream.take_until(tokio::time::sleep(time)))
        }
        _ if is_watch => Body::from_stream(stream.take_until(async move {
            let _ = closings.changed().await;
        })),
        _ => Body::from_stream(stream),
    };
    (status, headers, body).into_response()
}

fn status(code: u16, reason: &str, details: &serde_json::Value) -> String {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("{reason}, says the gate"), "details": details,
    })
    .to_string()
}

fn throttled(seconds: u64) -> Response {
    let body = status(
        429,
        "TooManyRequests",
        &json!({"retryAfterSeconds": seconds}),
    );
    let json = "application/json".to_owned();
    let headers = [
        (header::RETRY_AFTER, seconds.to_string()),
        (header::CONTENT_TYPE, json),
    ];
    (StatusCode::TOO_MANY_REQUESTS, headers, body).into_response()
}

/// What the API server sends on a watch whose place is gone: one message, and its end.
fn gone() -> Response {
    let told = status(410, "Expired", &json!({}));
    let message = format!("{{\"type\":\"ERROR\",\"object\":{told}}}\n");
    ([(header::CONTENT_TYPE, "application/json")], message).into_response()
}

fn failed() -> Response {
    let body = status(500, "InternalError", &json!({}));
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::INTERNAL_SERVER_ERROR, headers, body).into_response()
}
