//! Keeps cluster and queues in agreement: one loop for each `QueueBinding`, none of which waits for another.
//!
//! ```text
//! watch QueueBindings ─▶ a loop each ─▶ reconcile:
//!   lease ─▶ dereference ─▶ validate ─▶ resolve ─▶ look ─▶ observe ─▶ admit ─▶ apply ─▶ status, report
//!   (cluster)  (cluster)    (cluster)   (server)  (server)  (pure)    (pure)   (both)     (both)
//! watch Jobs, Pods ─▶ mirrors ──────────────────────────────▲
//! ```
//!
//! Nothing that matters lives in memory: queue entries and statuses are the server's, intent and attempt are the Job's,
//! what is wanted is the binding's. A process that starts anew only waits again where quiet time is asked for.

mod admit;
mod adopt;
mod ahead;
mod apply;
mod binding;
mod cluster;
mod count;
mod dereference;
mod environments;
mod explain;
mod fault;
mod finalize;
mod foresee;
mod history;
mod hours;
mod images;
mod inquiry;
mod kueue;
mod lease;
mod live;
mod look;
mod loops;
mod memory;
mod mirror;
mod nodes;
mod observe;
mod offer;
mod pass;
mod patience;
mod phases;
mod preview;
mod refusal;
mod refuse;
mod report;
mod resolve;
mod retire;
mod row;
mod scene;
mod shadow;
mod status;
mod sweep;
mod throttle;
mod together;
mod turn;
mod validate;
mod verdict;
mod warn;

pub use explain::{AskError, Explanation, Fact, explain, explain_offline};
pub use preview::{Preview, Which, preview, preview_offline};
pub use retire::{RetireError, retire};
pub use shadow::{Deed, shadow};

use std::sync::Arc;
use std::time::Duration;

use kube::client::Body;
use kube::client::retry::RetryPolicy;
use kube::core::NamespaceResourceScope;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use crate::claim;
use crate::config::{Credentials, Scope, ServerSettings, Setting, Settings, TaskPodSettings};
use crate::crd::QueueBinding;
use crate::render;
use crate::telemetry::admin::{self, Readiness};
use crate::telemetry::metrics::Metrics;
use loops::Loops;
use mirror::{Mirror, Wakers};
use row::{JobRow, PodRow};
use throttle::{Throttle, Throttling};

/// Jobs and pods of ours.
const OURS: &str = "app.kubernetes.io/managed-by=trainyard,app.kubernetes.io/component=task";
/// Requests to the API server that may wait for their connection at once.
const AT_ONCE: usize = 1024;
/// Writes of claims that the API server gets at once. More of them make it no faster, and each takes a connection.
const WRITES: usize = 32;

/// Why the controller could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection to a Kubernetes API server: {0}")]
    Cluster(String),
    #[error("could not listen for probes on {address}: {source}")]
    Listen {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    #[error("metrics could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What every loop uses.
struct Context {
    kube: Client,
    /// Turns of the writes of claims.
    writes: Semaphore,
    /// Turns of the questions about Events.
    askers: Arc<Semaphore>,
    jobs: Mirror<JobRow>,
    pods: Mirror<PodRow>,
    /// Nodes and what runs on them, for bindings that ask for it.
    nodes: nodes::Nodes,
    /// What image registries have said.
    images: images::Images,
    /// The servers that bindings are on.
    servers: together::Servers,
    /// How many bindings each replica works on.
    shares: lease::Shares,
    wakers: Wakers,
    metrics: Metrics,
    /// What the API server asks for.
    throttle: Throttle,
    recorder: Recorder,
    settings: Own,
}

/// The controller's settings as loops need them.
#[derive(Debug)]
struct Own {
    server: Option<DefaultServer>,
    default_image: Option<String>,
    images: render::Settings,
    /// What worker ids begin with.
    worker: String,
    /// Name of this replica.
    identity: String,
}

/// The server of bindings that name none. Its Secret and CA bundle are looked for in the binding's namespace, where
/// pods need them too.
#[derive(Debug, Clone)]
struct DefaultServer {
    api_url: String,
    web_url: Option<String>,
    files_url: Option<String>,
    credentials_secret: Option<String>,
    ca_config_map: Option<String>,
}

/// Runs the controller until `shutdown`.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    let (metrics, readiness) = (Metrics::new()?, Readiness::default());
    let (kube, throttle) = connect(&metrics).await?;
    let address = settings.listen.value;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let namespace = namespace_of(&settings, &kube);
    let images = images::Images::new(kube.clone(), &settings.registries);
    let own = Own::of(settings);
    tracing::info!(
        identity = own.identity,
        namespace = namespace.as_deref().unwrap_or("(all)"),
        "controller starts"
    );

    let (stop_mirrors, scope) = (CancellationToken::new(), namespace.as_deref());
    let client = (kube.clone(), throttle);
    let context = context(client, own, metrics.clone(), images, &stop_mirrors);
    let mut tasks = JoinSet::new();
    mirrors(&context, scope, &readiness, &stop_mirrors, &mut tasks);
    let probes = admin::serve(listener, readiness.clone(), metrics, stop_mirrors.clone());
    tasks.spawn(async move {
        if let Err(error) = probes.await {
            tracing::error!(%error, "probes are no longer answered");
        }
    });
    Loops::new(context)
        .follow(scoped(&kube, scope), &readiness, &shutdown)
        .await;
    stop_mirrors.cancel();
    while tasks.join_next().await.is_some() {}
    tracing::info!("controller ends");
    Ok(())
}

/// What looks are made from without a controller: for `explain`, `render` and `shadow`.
struct Stage {
    context: Arc<Context>,
    /// Absent: all of them.
    namespace: Option<String>,
    /// They keep Jobs and pods in view until `stop`.
    watches: JoinSet<()>,
    stop: CancellationToken,
}

impl Stage {
    async fn new(settings: Settings) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let metrics = Metrics::new()?;
        let (kube, throttle) = connect(&metrics).await?;
        let namespace = namespace_of(&settings, &kube);
        let images = images::Images::new(kube.clone(), &settings.registries);
        let context = context((kube, throttle), Own::of(settings), metrics, images, &stop);
        let (scope, readiness) = (namespace.as_deref(), Readiness::default());
        let mut watches = JoinSet::new();
        mirrors(&context, scope, &readiness, &stop, &mut watches);
        Ok(Self {
            context,
            namespace,
            watches,
            stop,
        })
    }

    /// Ends its watches.
    async fn end(mut self) {
        self.stop.cancel();
        while self.watches.join_next().await.is_some() {}
    }
}

/// The namespace of the bindings that are served; none: all of them.
fn namespace_of(settings: &Settings, kube: &Client) -> Option<String> {
    match settings.scope.value {
        Scope::Cluster => None,
        Scope::Namespace => {
            let given = settings
                .namespace
                .as_ref()
                .map(|setting| setting.value.clone());
            Some(given.unwrap_or_else(|| kube.default_namespace().to_owned()))
        }
    }
}

fn context(
    (kube, throttle): (Client, Throttle),
    own: Own,
    metrics: Metrics,
    images: images::Images,
    stop: &CancellationToken,
) -> Arc<Context> {
    let wakers = Wakers::default();
    let reporter = Reporter {
        controller: "trainyard".into(),
        instance: Some(own.identity.clone()),
    };
    Arc::new(Context {
        jobs: Mirror::new(wakers.clone()),
        pods: Mirror::new(wakers.clone()),
        nodes: nodes::Nodes::new(kube.clone(), stop.clone()),
        images,
        servers: together::Servers::default(),
        shares: lease::Shares::new(&own.identity),
        recorder: Recorder::new(kube.clone(), reporter),
        kube,
        writes: Semaphore::new(WRITES),
        askers: Arc::new(Semaphore::new(inquiry::ASKERS)),
        wakers,
        metrics,
        throttle,
        settings: own,
    })
}

/// Watches Jobs and pods until `stop`.
fn mirrors(
    context: &Context,
    scope: Option<&str>,
    readiness: &Readiness,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let ours = watcher::Config::default().labels(OURS);
    tasks.spawn(context.jobs.clone().run(
        scoped(&context.kube, scope),
        ours.clone(),
        "jobs",
        readiness.clone(),
        stop.clone(),
    ));
    tasks.spawn(context.pods.clone().run(
        scoped(&context.kube, scope),
        ours,
        "pods",
        readiness.clone(),
        stop.clone(),
    ));
}

/// A client for the cluster that this process runs in, or that the kubeconfig names; its requests are counted, and held
/// back while the API server asks for it.
async fn connect(metrics: &Metrics) -> Result<(Client, Throttle), Error> {
    let told = |error: &dyn std::error::Error| Error::Cluster(cluster::told(error));
    let mut config = kube::Config::infer().await.map_err(|error| told(&error))?;
    // The same repeats, above the throttle instead of below it.
    config.default_retry = false;
    let builder = kube::client::ClientBuilder::try_from(config).map_err(|error| told(&error))?;
    let throttle = Throttle::default();
    let client = builder
        // What is held back and repeated has to be cloned.
        .with_layer(&BufferLayer::<http::Request<Body>>::new(AT_ONCE))
        .with_layer(&Throttling(throttle.clone()))
        .with_layer(&count::Counting(metrics.clone(), warn::Warnings::default()))
        .with_layer(&RetryLayer::new(RetryPolicy::server_retry()))
        .build();
    Ok((client, throttle))
}

fn scoped<K>(kube: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    namespace.map_or_else(
        || Api::all(kube.clone()),
        |namespace| Api::namespaced(kube.clone(), namespace),
    )
}

impl Own {
    /// Every setting is used here, or this does not compile.
    fn of(settings: Settings) -> Self {
        let Settings {
            server,
            pods,
            registries: _,
            namespace: _,
            scope: _,
            cluster_id,
            worker_id,
            identity,
            listen: _,
            log: _,
            log_format: _,
        } = settings;
        let TaskPodSettings {
            image,
            image_pull_policy,
            image_pull_secrets,
            default_image,
        } = pods;
        let value = |setting: Option<Setting<String>>| setting.map(|setting| setting.value);
        let worker = value(worker_id).unwrap_or_else(|| match value(cluster_id) {
            Some(cluster) => format!("trainyard:{cluster}"),
            None => "trainyard".to_owned(),
        });
        Self {
            server: DefaultServer::of(server),
            default_image: value(default_image),
            images: render::Settings {
                image: image.value,
                image_pull_policy: value(image_pull_policy),
                image_pull_secrets: image_pull_secrets.value,
            },
            worker,
            identity: value(identity).unwrap_or_else(host_name),
        }
    }
}

impl DefaultServer {
    fn of(settings: ServerSettings) -> Option<Self> {
        let ServerSettings {
            api_url,
            web_url,
            files_url,
            credentials,
            ca_config_map,
        } = settings;
        let credentials_secret = match credentials.map(|setting| setting.value) {
            Some(Credentials::Secret(name)) => Some(name),
            // Pods can be given keys by a Secret alone.
            Some(Credentials::Keys { .. }) | None => None,
        };
        Some(Self {
            api_url: api_url?.value,
            web_url: web_url.map(|setting| setting.value),
            files_url: files_url.map(|setting| setting.value),
            credentials_secret,
            ca_config_map: ca_config_map.map(|setting| setting.value),
        })
    }
}

/// The host's name: in a pod, the pod's.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "trainyard".into(), |name| name.trim().to_owned())
}

/// Limit of one request to a ClearML server: the claim's quiet time covers it.
fn request_timeout() -> Duration {
    Duration::try_from(claim::REQUEST_TIMEOUT).unwrap_or(Duration::from_secs(7))
}

/// The binding as rendering wants it.
fn rendered_binding(binding: &QueueBinding) -> render::Binding {
    render::Binding {
        name: binding.name_any(),
        namespace: binding.namespace().unwrap_or_default(),
        uid: binding.uid().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
