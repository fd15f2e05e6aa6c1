//! Runs one task to its end, inside its pod (`architecture.md` §8).
//!
//! ```text
//! prepare (init)     uplink (sidecar)          task (process 1 of the user's image)
//! ──────────────     ────────────────          ────────────────────────────────────
//! programs, token,                             fence: is the task ours to run?
//! code, first lines   ◀─── "passed" ───        yes: watch, statistics, echo
//!        │            spool → server           environment → user's process group
//!        ▼                  ▲                  post scripts, sweep, last line acknowledged,
//!     volume ── spool ──────┘                  status, termination message, exit code
//! ```

mod ahead;
pub mod build;
mod certificates;
pub mod configuration;
pub mod diff;
mod digest;
pub mod echo;
mod environment;
pub mod failure;
pub mod fence;
mod finish;
pub mod git;
mod handed_on;
mod link;
mod memory;
pub mod notebook;
pub mod outcome;
pub mod output;
pub mod plan;
mod post;
pub mod prepare;
pub mod process;
pub mod python;
mod relay;
mod requirements;
mod script;
mod sections;
pub mod settings;
mod setup;
mod shelf;
mod small;
pub mod smi;
pub mod spool;
mod start;
mod statistics;
mod task;
pub mod tool;
pub mod uplink;
pub mod watch;
mod words;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::settings::Settings;
use crate::api::{self, Client, Credentials};
use crate::pod;
use crate::telemetry::logs;

/// Limit of one request; the fence has to send five of them within its deadline.
const REQUEST: Duration = Duration::from_secs(10);

/// Which of the pod's containers this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Task,
    Prepare,
    Uplink,
    /// The task's image in a pod that comes before the task: makes its environment.
    Ahead,
    /// No container: the end of a setup script's shell.
    Exports,
}

/// Runs one container of the pod to its end.
pub fn main(role: Role) -> ExitCode {
    let code = match run(role) {
        Ok(code) => code,
        Err(message) => {
            tracing::error!("{message}");
            pod::exit::INTERNAL
        }
    };
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

fn run(role: Role) -> Result<i32, String> {
    if role == Role::Exports {
        return setup::write_exports().map(|()| 0);
    }
    // Logging can only fail by being set up twice, and then it works.
    let _ = logs::init_small();
    let settings = Settings::from_environment().map_err(|error| error.to_string())?;
    if role == Role::Task {
        link::hand_over(&settings);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("could not start: {error}"))?;
    runtime.block_on(async {
        let stop =
            stop_signal().map_err(|error| format!("could not listen to signals: {error}"))?;
        match role {
            Role::Task => Box::pin(task::run(&settings, stop))
                .await
                .inspect_err(|message| finish::internal(&settings, message)),
            Role::Prepare => prepare(&settings, &stop).await,
            Role::Uplink => uplink(&settings, &stop).await,
            Role::Ahead => ahead(&settings, &stop).await,
            Role::Exports => Ok(0),
        }
    })
}

async fn prepare(settings: &Settings, stop: &CancellationToken) -> Result<i32, String> {
    let client = client(settings, None)?;
    tokio::select! {
        result = prepare::run(settings, &client) => result.map(|()| 0).map_err(|error| error.to_string()),
        () = stop.cancelled() => Ok(pod::exit::INTERRUPTED),
    }
}

async fn uplink(settings: &Settings, stop: &CancellationToken) -> Result<i32, String> {
    let token = token(settings);
    let secrets = settings.secrets(token.as_deref());
    let client = client(settings, token)?;
    uplink::run(settings, client, secrets, stop)
        .await
        .map_err(|error| format!("could not read the spool: {error}"))?;
    Ok(0)
}

async fn ahead(settings: &Settings, stop: &CancellationToken) -> Result<i32, String> {
    let token = token(settings);
    let client = client(settings, token.clone())?;
    tokio::select! {
        result = ahead::run(settings, &client, token.as_deref()) => result,
        () = stop.cancelled() => Ok(pod::exit::INTERRUPTED),
    }
}

/// SIGTERM, and SIGINT for whoever tries a role by hand.
fn stop_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        told.cancel();
    });
    Ok(stop)
}

/// The login that `prepare` has left.
fn token(settings: &Settings) -> Option<String> {
    let token = fs::read_to_string(settings.layout.token()).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

fn client(settings: &Settings, token: Option<String>) -> Result<Client, String> {
    let credentials = Credentials::Keys {
        access_key: settings.access_key.clone(),
        secret_key: settings.secret_key.clone(),
        token: token.map(SecretString::from),
    };
    let mut of_client = api::Settings::new(&settings.api_host, credentials, &settings.worker.0);
    of_client.timeout = REQUEST;
    of_client.ca = certificates::of_client(settings);
    of_client.proxy = settings.proxy.clone().map(SecretString::from);
    Client::new(of_client).map_err(|error| error.to_string())
}
