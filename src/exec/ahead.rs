//! The environment of a task that still waits, made in the cache by a pod of its own, so that the task finds it.
//!
//! It reads the task and writes nothing to it: there is no fence, no log and no status. What it has to say stands in the
//! output of its container, and where it fails the task's own pod tells why.

use std::time::Duration;

use tokio::time::Instant;

use super::environment;
use super::settings::Settings;
use super::task::prepared;
use crate::api::{self, Client};
use crate::pod;

/// How long an unreachable server is waited for.
const SERVER_PATIENCE: Duration = Duration::from_secs(90);

/// Makes the environment; the answer is the container's exit code.
pub async fn run(settings: &Settings, client: &Client, token: Option<&str>) -> Result<i32, String> {
    let secrets = settings.secrets(token);
    let mut log = |line: &str| tracing::info!("{}", secrets.mask(line.to_owned()));
    let prepared = prepared(settings)?;
    if let Some(sentence) = &prepared.failure {
        log(sentence);
        return Ok(pod::exit::PREPARE_FAILED);
    }
    let until = Instant::now() + SERVER_PATIENCE;
    let task = api::retry(until, || client.task(&settings.task))
        .await
        .map_err(|error| format!("could not read the task: {error}"))?
        .ok_or("the task is gone from the server")?;
    let made = environment::ahead(&task, &prepared, settings, &mut log).await;
    Ok(match made {
        Ok(()) => 0,
        Err(failure) => {
            log(&failure.to_string());
            pod::exit::PREPARE_FAILED
        }
    })
}
