//! `trainyard controller`: flags, settings, signals.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::conf::Document;
use crate::config::env::{self, Environment};
use crate::config::{LogFormat, Raw, Settings};
use crate::controller;
use crate::telemetry::logs;

/// Flags of the controller. Each has an environment variable, see the reference.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Address of the ClearML API server of bindings that name none.
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// Address of its web interface.
    #[arg(long, value_name = "URL")]
    web_url: Option<String>,
    /// Address that artifacts are uploaded to.
    #[arg(long, value_name = "URL")]
    files_url: Option<String>,
    /// Secret with the keys access_key and secret_key, in the namespace of each binding.
    #[arg(long, value_name = "NAME")]
    credentials_secret: Option<String>,
    /// ConfigMap with ca.crt, certificates to trust, in the namespace of each binding.
    #[arg(long, value_name = "NAME")]
    server_ca_config_map: Option<String>,
    /// Namespace of the controller.
    #[arg(long)]
    namespace: Option<String>,
    /// Which bindings are served: namespace or cluster.
    #[arg(long)]
    scope: Option<String>,
    /// An id of the cluster, part of worker ids.
    #[arg(long, value_name = "ID")]
    cluster_id: Option<String>,
    /// What worker ids begin with.
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    /// Name of this replica, for Leases.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Address of probes and metrics.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Image of trainyard, for the init container and the sidecar of task pods.
    #[arg(long)]
    image: Option<String>,
    /// Pull policy of that image.
    #[arg(long, value_name = "POLICY")]
    image_pull_policy: Option<String>,
    /// Pull secrets that are added to each task pod, with commas between them.
    #[arg(long, value_name = "NAMES")]
    image_pull_secrets: Option<String>,
    /// Image of tasks where neither template nor task names one.
    #[arg(long, value_name = "IMAGE")]
    default_image: Option<String>,
    /// File with certificates to trust when an image registry is asked.
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<String>,
    /// Image registries that are asked without TLS, with commas between them.
    #[arg(long, value_name = "HOSTS")]
    plain_http_registries: Option<String>,
    /// What is logged, such as info or info,trainyard=debug.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Form of log lines: text or json.
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
}

impl From<Flags> for Raw {
    fn from(flags: Flags) -> Self {
        let Flags {
            api_url,
            web_url,
            files_url,
            credentials_secret,
            server_ca_config_map,
            namespace,
            scope,
            cluster_id,
            worker_id,
            identity,
            listen,
            image,
            image_pull_policy,
            image_pull_secrets,
            default_image,
            registry_ca,
            plain_http_registries,
            log,
            log_format,
        } = flags;
        Self {
            api_url,
            web_url,
            files_url,
            credentials_secret,
            server_ca_config_map,
            namespace,
            scope,
            cluster_id,
            worker_id,
            identity,
            listen,
            image,
            image_pull_policy,
            image_pull_secrets,
            default_image,
            registry_ca,
            plain_http_registries,
            log,
            log_format,
        }
    }
}

/// Runs the controller until SIGTERM or SIGINT.
pub(super) fn main(flags: Flags) -> ExitCode {
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    with_signals(flags, controller::run)
}

/// Runs a program with these settings until it ends by itself or SIGTERM or SIGINT come.
pub(super) fn with_signals<F>(
    flags: Flags,
    program: impl FnOnce(Settings, CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), controller::Error>>,
{
    let settings = settings(&flags.into())?;
    let format = match settings.log_format.value {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::init(format, Some(&settings.log.value))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let asked = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
        });
        program(settings, shutdown).await?;
        Ok(())
    })
}

impl Flags {
    /// The same for a program that makes no Jobs: it needs no image.
    pub(super) fn without_image(mut self) -> Self {
        if self.image.is_none() && Environment::read().get(env::IMAGE).is_none() {
            self.image = Some("trainyard".to_owned());
        }
        self
    }
}

/// Settings of a question that changes nothing.
pub(super) fn settings_for_a_question(flags: Flags) -> Result<Settings, String> {
    settings(&flags.into()).map_err(|error| format!("{error:#}"))
}

fn settings(raw: &Raw) -> anyhow::Result<Settings> {
    let environment = Environment::read();
    let path = environment.get(env::CONFIG_FILE);
    let document = match path {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("could not read {path:?}"))?;
            Some(
                Document::read(&text, &|name| environment.get(name).map(str::to_owned))
                    .with_context(|| format!("could not read {path:?}"))?,
            )
        }
    };
    let conf = path.zip(document.as_ref());
    Settings::resolve(raw, &environment, conf).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(lines.join("\n"))
    })
}
