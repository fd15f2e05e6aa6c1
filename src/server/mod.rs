//! `trainyard server`: a small server that the unmodified ClearML clients can talk to (`protocol.md` §9).
//!
//! ```text
//! HTTP ─▶ front.rs ─▶ wire.rs (path, body) ──▶ auth.rs (who) ──▶ routes.rs (what) ──▶ a handler, one file per service
//!            │                                                                          │        │
//!            ├──▶ files.rs  /files/...                              rules.rs, query.rs, doc.rs   store.rs
//!            └──▶ page.rs   /                                       (pure: what follows)         (SQLite)
//! ```
//!
//! API, files and page share one port. A write is answered after it is on the disk.

mod auth;
mod call;
mod doc;
mod events;
mod files;
mod front;
mod models;
mod page;
mod projects;
mod query;
mod queues;
mod routes;
mod rules;
mod schema;
mod setup;
mod store;
mod tasks;
mod users;
mod versions;
mod watchdog;
mod wire;
mod workers;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::serve::ListenerExt as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use auth::Auth;
use store::Store;

/// How long requests in progress may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What [`serve`] has to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder for the database, the keys and the files; made if it is not there.
    pub data: PathBuf,
    /// Address under which clients reach the server; default: the address listened on.
    pub public_url: Option<Url>,
    /// Where to write a `clearml.conf`, if anywhere.
    pub write_conf: Option<PathBuf>,
}

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    SetUp(#[from] setup::Error),
    #[error("could not make the folder {path:?}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the database failed: {0}")]
    Database(String),
    #[error("the public address {0} cannot be used: it must be http:// or https:// with a host")]
    PublicUrl(Url),
    #[error("could not serve requests")]
    Serve(#[source] std::io::Error),
}

/// What all requests share.
pub(crate) struct App {
    store: Store,
    auth: Auth,
    /// Folder of the uploaded files, and of those on their way.
    files: PathBuf,
    uploads: PathBuf,
    bodies: Semaphore,
}

/// Path of the file that holds the first key pair: JSON with `access_key` and `secret_key`.
pub fn keys_file(data: &Path) -> PathBuf {
    setup::keys_path(data)
}

/// Runs the server as a program, until SIGTERM or SIGINT.
pub fn run(listen: SocketAddr, options: Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Serve)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|source| Error::Listen {
                address: listen,
                source,
            })?;
        let shutdown = CancellationToken::new();
        let signalled = tokio::spawn(cancel_on_signal(shutdown.clone()));
        let result = serve(listener, options, shutdown).await;
        signalled.abort();
        result
    })
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("signals cannot be received; the server ends without a last answer");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
}

/// Serves API, files and page until `shutdown`, or until the database fails.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Serve)?;
    let public = public_url(options.public_url.clone(), address)?;
    let app = Arc::new(open(&options, &public).await?);
    announce(&public, &options);

    let stop = CancellationToken::new();
    let watchdog = tokio::spawn(watchdog::run(Arc::clone(&app), stop.clone()));
    let router = Router::new()
        .fallback(front::entry)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&app));
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let stopping = stop.clone().cancelled_owned();
    let server = axum::serve(listener, service)
        .with_graceful_shutdown(stopping)
        .into_future();
    let mut server = std::pin::pin!(server);

    let result = tokio::select! {
        result = &mut server => result.map_err(Error::Serve),
        () = shutdown.cancelled() => Ok(()),
        reason = app.store.failure() => Err(Error::Database(reason)),
    };
    stop.cancel();
    // What still runs after this ends with the process: nothing of it has been answered.
    let _ = tokio::time::timeout(LAST_ANSWERS, &mut server).await;
    let _ = watchdog.await;
    result
}

fn public_url(given: Option<Url>, address: SocketAddr) -> Result<Url, Error> {
    let url = if let Some(url) = given {
        url
    } else {
        let host = if address.ip().is_unspecified() {
            [127, 0, 0, 1].into()
        } else {
            address.ip()
        };
        let text = format!("http://{}", SocketAddr::new(host, address.port()));
        Url::parse(&text).map_err(|error| Error::Serve(std::io::Error::other(error)))?
    };
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(Error::PublicUrl(url))
    }
}

/// Database, user, keys, `default` queue, folders, `clearml.conf`.
async fn open(options: &Options, public: &Url) -> Result<App, Error> {
    let Options {
        data,
        public_url: _,
        write_conf,
    } = options;
    let store = Store::open(data)?;
    let keys = match setup::read_keys(data)? {
        Some(keys) => keys,
        None => setup::make_keys(data)?,
    };
    let accepted = keys.clone();
    let prepared = store.write(move |db| {
        setup::ensure_basics(db)?;
        setup::accept_keys(db, &accepted)?;
        Ok(Value::Null)
    });
    prepared.await.map_err(setup::Error::from)?;
    let auth = load_auth(&store).await?;
    let (files, uploads) = (data.join("files"), data.join("uploads"));
    // Uploads that were cut off have no name yet and nobody was told of them.
    let _ = std::fs::remove_dir_all(&uploads);
    for path in [&files, &uploads] {
        std::fs::create_dir_all(path).map_err(|source| Error::Folder {
            path: path.clone(),
            source,
        })?;
    }
    if let Some(path) = write_conf {
        setup::write_conf(path, public, &keys)?;
    }
    Ok(App {
        store,
        auth,
        files,
        uploads,
        bodies: Semaphore::new(front::BODIES_KIB as usize),
    })
}

async fn load_auth(store: &Store) -> Result<Auth, Error> {
    let (send, receive) = std::sync::mpsc::channel();
    let loaded = store.read(move |db| {
        let _ = send.send(Auth::load(db)?);
        Ok(Value::Null)
    });
    loaded.await.map_err(setup::Error::from)?;
    receive
        .recv()
        .map_err(|_| Error::Database("the keys could not be loaded".into()))
}

/// Says on standard output where the server is and where its keys are, never the keys themselves.
fn announce(public: &Url, options: &Options) {
    let mut out = std::io::stdout().lock();
    let base = public.as_str().trim_end_matches('/');
    let _ = writeln!(out, "server: {base}");
    let _ = writeln!(out, "keys: {}", keys_file(&options.data).display());
    if let Some(path) = &options.write_conf {
        let _ = writeln!(out, "clearml.conf: {}", path.display());
    }
}
