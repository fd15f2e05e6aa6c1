//! What tasks reach with their secrets: a repository and a package index that ask for a password each.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::e2e::experiment;
use crate::e2e::world::World;
use crate::git::servers::Server;
use crate::python::fixture::wheel;

/// The one package of the index.
const WHEEL: &str = "alpha-1.0-py3-none-any.whl";

/// Both; they end with the value.
pub(super) struct Private {
    pub repository: String,
    pub commit: String,
    /// Host and port of the index.
    pub index: String,
    _git: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Private {
    /// `token` opens the repository, the index is for `user` with this password.
    pub(super) fn start(
        world: &World,
        files: &[(&str, String)],
        token: &'static str,
        password: &str,
    ) -> Self {
        let folder = world.dir.path().join("private");
        let served = folder.join("served");
        fs::create_dir_all(&served).expect("folder is made");
        let commit = experiment::commit(&folder, files);
        wheel(&folder, "alpha", "1.0", &[]);
        let host = world.place.gateway.as_str();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let git = runtime.block_on(Server::start_on(host, &served, Some(token)));
        let index = runtime.block_on(serve_index(host, &folder, password));
        Self {
            repository: format!("{}/train.git", git.url),
            commit,
            index,
            _git: git,
            _runtime: runtime,
        }
    }
}

struct Index {
    /// The header that opens it.
    login: String,
    wheel: Vec<u8>,
}

async fn serve_index(host: &str, folder: &Path, password: &str) -> String {
    let listener = tokio::net::TcpListener::bind((host, 0))
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("an address").to_string();
    let index = Index {
        login: format!("Basic {}", STANDARD.encode(format!("user:{password}"))),
        wheel: fs::read(folder.join(WHEEL)).expect("the wheel is there"),
    };
    let router = axum::Router::new()
        .fallback(answer)
        .with_state(Arc::new(index));
    tokio::spawn(async move {
        axum::serve(listener, router)
            .await
            .expect("the index serves");
    });
    address
}

async fn answer(State(index): State<Arc<Index>>, request: Request) -> Response<Body> {
    let login = request.headers().get(header::AUTHORIZATION);
    let is_open = login.is_some_and(|login| login.as_bytes() == index.login.as_bytes());
    let page = format!("<a href=\"/files/{WHEEL}\">{WHEEL}</a>");
    let (status, body) = match request.uri().path() {
        _ if !is_open => (StatusCode::UNAUTHORIZED, Vec::new()),
        "/simple/alpha/" => (StatusCode::OK, page.into_bytes()),
        path if path.ends_with(WHEEL) => (StatusCode::OK, index.wheel.clone()),
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    };
    Response::builder()
        .status(status)
        .header(header::WWW_AUTHENTICATE, "Basic realm=\"index\"")
        .header(header::CONTENT_TYPE, "text/html")
        .body(Body::from(body))
        .expect("an answer")
}
