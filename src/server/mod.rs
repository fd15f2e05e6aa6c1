//! `trainyard server`: a small server that the unmodified ClearML clients can talk to (`protocol.md` §9).
//!
//! ```text
//! HTTP ─▶ front.rs ─▶ wire.rs (path, body) ──▶ auth.rs (who) ──▶ routes.rs (what) ──▶ a handler, one file per service
//!   ▲        │                                                                          │        │
//! listener   ├──▶ files.rs  /files/...                              rules.rs, query.rs, doc.rs   store.rs
//! (TLS)      └──▶ page.rs   /                                       (pure: what follows)         (SQLite)
//!
//! beside it, on the same folder: accounts.rs (users and their keys), backup.rs (copy and restore)
//! ```
//!
//! API, files and page share one port; files may have a second. A write is answered after it is on the disk.

pub mod accounts;
mod auth;
pub mod backup;
mod call;
mod disk;
mod doc;
mod events;
mod files;
mod front;
mod line;
mod listener;
mod models;
mod pack;
mod page;
mod pipelines;
mod projects;
mod query;
mod queues;
mod routes;
mod rules;
mod schema;
mod setup;
mod store;
mod tags;
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
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use auth::Auth;
pub use listener::{TlsError, TlsFiles};
use store::Store;
pub use wire::Version;

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
    /// Which server to play: what a newer one has, this one then has not (§1.7).
    pub api_version: Version,
    /// Certificate and key; without them connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// A further address, for files alone: clients of 2020 send their keys to a file server only if its address has
    /// no path.
    pub files_listen: Option<SocketAddr>,
    /// A running task of which nothing was heard for so long is stopped (§3.4).
    pub silence: Duration,
    /// How often that is looked at.
    pub watch: Duration,
    /// Log lines older than so many days are thrown away; `None`: never.
    pub keep_logs: Option<u32>,
    /// Scalars, plots and debug samples of tasks that have not changed for so many days are thrown away; `None`: never.
    pub keep_metrics: Option<u32>,
    /// The largest file that is taken, in bytes.
    pub largest_file: u64,
    /// System tags that hide a queue from lists (§1.13).
    pub hidden_queue_tags: Vec<String>,
    /// How long the files of a deleted or reset task stay: the SDK deletes them itself, right afterwards.
    pub linger: Duration,
}

impl Options {
    /// What a server does when nothing but its folder is said.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            public_url: None,
            write_conf: None,
            api_version: Version::NEWEST,
            tls: None,
            files_listen: None,
            silence: Duration::from_secs(7200),
            watch: Duration::from_secs(900),
            keep_logs: None,
            keep_metrics: None,
            largest_file: 64 << 30,
            hidden_queue_tags: vec!["k8s-glue".to_owned()],
            linger: Duration::from_secs(30),
        }
    }
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
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What all requests share.
pub(crate) struct App {
    store: Store,
    auth: Auth,
    /// Folder of the uploaded files, and of those on their way.
    files: PathBuf,
    uploads: PathBuf,
    /// Which of its folders are on the disk.
    folders: Arc<files::Folders>,
    bodies: Semaphore,
    entries: queues::cache::Entries,
    /// The version that is played.
    newest: Version,
    /// Whether connections are encrypted, here or by a proxy in front.
    secure: bool,
    silence: Duration,
    keep_logs: Option<u32>,
    keep_metrics: Option<u32>,
    largest_file: u64,
    linger: Duration,
    /// The port for files alone.
    files_port: Option<u16>,
}

/// Path of the file that holds the first key pair: JSON with `access_key` and `secret_key`.
pub fn keys_file(data: &Path) -> PathBuf {
    setup::keys_path(data)
}

/// Runs the server as a program, until SIGTERM or SIGINT.
pub fn run(listen: SocketAddr, options: Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Serve)?;
    runtime.block_on(async {
        let listener = bind(listen).await?;
        let shutdown = CancellationToken::new();
        let signalled = tokio::spawn(cancel_on_signal(shutdown.clone()));
        let result = serve(listener, options, shutdown).await;
        signalled.abort();
        result
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
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
    let files = match options.files_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let files_address = files.as_ref().map(TcpListener::local_addr).transpose();
    let files_port = files_address.map_err(Error::Serve)?.map(|at| at.port());
    let public = public_url(&options, address)?;
    let tls = options.tls.as_ref();
    let listener = listener::Listener::start(listener, tls)?;
    let files = files
        .map(|files| listener::Listener::start(files, tls))
        .transpose()?;
    let app = Arc::new(open(&options, &public, files_port).await?);
    announce(&public, &options, files_port);

    let stop = CancellationToken::new();
    let watchdog = tokio::spawn(watchdog::run(Arc::clone(&app), options.watch, stop.clone()));
    let tidy = tokio::spawn(watchdog::tidy(Arc::clone(&app), stop.clone()));
    let api = Router::new().fallback(front::entry);
    let api = answering(listener, api, &app, &stop);
    let files = files.map(|listener| {
        let files = Router::new().fallback(files::entry);
        answering(listener, files, &app, &stop)
    });
    let files = async {
        match files {
            Some(files) => files.await,
            None => Ok(()),
        }
    };
    let mut server = std::pin::pin!(futures::future::try_join(api, files));

    let result = tokio::select! {
        result = &mut server => result.map(drop).map_err(Error::Serve),
        () = shutdown.cancelled() => Ok(()),
        reason = app.store.failure() => Err(Error::Database(reason)),
    };
    stop.cancel();
    // What still runs after this ends with the process: nothing of it has been answered.
    let _ = tokio::time::timeout(LAST_ANSWERS, &mut server).await;
    let _ = (watchdog.await, tidy.await);
    result
}

/// Answers what comes in at one address, until `stop`.
fn answering(
    listener: listener::Listener,
    router: Router<Arc<App>>,
    app: &Arc<App>,
    stop: &CancellationToken,
) -> impl Future<Output = std::io::Result<()>> + use<> {
    let router = router
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(app));
    let service = router.into_make_service_with_connect_info::<listener::Peer>();
    axum::serve(listener, service)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future()
}

fn public_url(options: &Options, address: SocketAddr) -> Result<Url, Error> {
    let url = if let Some(url) = &options.public_url {
        url.clone()
    } else {
        let host = if address.ip().is_unspecified() {
            [127, 0, 0, 1].into()
        } else {
            address.ip()
        };
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let text = format!("{scheme}://{}", SocketAddr::new(host, address.port()));
        Url::parse(&text).map_err(|error| Error::Serve(std::io::Error::other(error)))?
    };
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(Error::PublicUrl(url))
    }
}

/// Database, user, keys, `default` queue, folders, `clearml.conf`.
async fn open(options: &Options, public: &Url, files_port: Option<u16>) -> Result<App, Error> {
    let data = &options.data;
    let store = Store::open(data)?;
    let keys = match setup::read_keys(data)? {
        Some(keys) => keys,
        None => setup::make_keys(data)?,
    };
    let accepted = keys.clone();
    let hidden = options.hidden_queue_tags.clone();
    let prepared = store.write(move |db| {
        setup::ensure_basics(db)?;
        queues::hide_by(db, &hidden)?;
        setup::accept_keys(db, &accepted)?;
        Ok(Value::Null)
    });
    prepared.await.map_err(setup::Error::from)?;
    let auth = load_auth(&store, options.api_version).await?;
    let (files, uploads) = (data.join("files"), data.join("uploads"));
    // Uploads that were cut off have no name yet and nobody was told of them.
    let _ = std::fs::remove_dir_all(&uploads);
    // An upload makes what is below `files` last; the folder itself has to be on the disk before the first.
    for path in [&files, &uploads] {
        disk::make(path).map_err(|source| Error::Folder {
            path: path.clone(),
            source,
        })?;
    }
    if let Some(path) = &options.write_conf {
        setup::write_conf(path, public, &keys)?;
    }
    Ok(App {
        store,
        auth,
        folders: Arc::new(files::Folders::of(files.clone())),
        files,
        uploads,
        bodies: Semaphore::new(front::BODIES_KIB as usize),
        entries: queues::cache::Entries::default(),
        newest: options.api_version,
        secure: public.scheme() == "https",
        silence: options.silence,
        keep_logs: options.keep_logs,
        keep_metrics: options.keep_metrics,
        largest_file: options.largest_file,
        linger: options.linger,
        files_port,
    })
}

async fn load_auth(store: &Store, newest: Version) -> Result<Auth, Error> {
    let (send, receive) = std::sync::mpsc::channel();
    let loaded = store.read(move |db| {
        let _ = send.send(Auth::load(db, newest)?);
        Ok(Value::Null)
    });
    loaded.await.map_err(setup::Error::from)?;
    receive
        .recv()
        .map_err(|_| Error::Database("the keys could not be loaded".into()))
}

/// Says on standard output where the server is and where its keys are, never the keys themselves.
fn announce(public: &Url, options: &Options, files_port: Option<u16>) {
    let mut out = std::io::stdout().lock();
    let base = public.as_str().trim_end_matches('/');
    let _ = writeln!(out, "server: {base}");
    let _ = writeln!(out, "keys: {}", keys_file(&options.data).display());
    if let Some(path) = &options.write_conf {
        let _ = writeln!(out, "clearml.conf: {}", path.display());
    }
    if let (Some(port), Some(host)) = (files_port, public.host_str()) {
        let _ = writeln!(out, "files: {}://{host}:{port}", public.scheme());
    }
}
