//! The end of a run: nothing left running, the last line on the server, the status written, the pod told.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::echo::Echo;
use super::fence::{self, Verdict};
use super::outcome::{End, Memory, Outcome, Report, outcome};
use super::output::Secrets;
use super::process::sweep;
use super::settings::Settings;
use super::spool::Spool;
use crate::api::{self, Client, Error};
use crate::pod::{self, Termination};

/// How long the last line may take to the server before the status is written without it.
const LAST_LINE: Duration = Duration::from_secs(20);
const LAST_LINE_POLL: Duration = Duration::from_millis(20);
/// How long a stuck stdout is waited for.
const ECHO: Duration = Duration::from_secs(2);
/// How long an unreachable server is waited for with the status; less if the pod is being ended.
const STATUS: Duration = Duration::from_mins(5);
const STATUS_IN_A_HURRY: Duration = Duration::from_secs(5);
/// A status that took longer was waited for.
const AWAY: Duration = Duration::from_secs(1);
/// Courtesies: the worker's farewell (it expires by itself), and what was begun beside the run.
const FAREWELL: Duration = Duration::from_secs(3);

/// What is needed to end a run.
pub struct Closing<'a> {
    pub settings: &'a Settings,
    pub client: &'a Client,
    pub spool: &'a Spool,
    pub echo: &'a Echo,
    pub secrets: &'a Secrets,
    /// What was begun beside the run and is worth a moment.
    pub background: &'a TaskTracker,
}

impl Closing<'_> {
    /// Ends the run; the answer is our own exit code.
    pub async fn close(&self, end: &End, memory: Memory, stop: &CancellationToken) -> i32 {
        let left = sweep();
        let outcome = outcome(end, memory);
        let disowned = disowned(end);
        if disowned && let Err(error) = fence::tell(&self.settings.layout, Verdict::Lost) {
            tracing::error!(%error, "could not tell the uplink that the task is no longer ours");
        }
        if left > 0 {
            self.note(&format!("ended {left} processes that were left running"));
        }
        if outcome.report != Report::Completed {
            self.note(&outcome.message);
        }
        let length = self.spool.finish();
        let last_lines = self.echo.finish(ECHO);
        if !disowned && let Ok(length) = &length {
            self.wait_for_last_line(*length, stop).await;
        }
        self.background.close();
        let _ = tokio::time::timeout(FAREWELL, self.background.wait()).await;
        let asked = Instant::now();
        let reported = self.report(&outcome, &last_lines, stop).await;
        // The server was away until now; the sidecar ends soon after us.
        if reported
            && asked.elapsed() > AWAY
            && let Ok(length) = length
        {
            self.wait_for_last_line(length, stop).await;
        }
        let farewell = self.client.unregister_worker(&self.settings.worker, &[]);
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        let mut termination = outcome.termination(&last_lines, reported);
        termination.message = self.secrets.mask(termination.message);
        tell_kubernetes(self.settings, termination);
        outcome.code
    }

    fn note(&self, text: &str) {
        if let Err(error) = self.spool.note(text) {
            tracing::warn!(%error, "could not write to the spool");
        }
    }

    /// Waits until the uplink has acknowledged all that was written.
    async fn wait_for_last_line(&self, length: u64, stop: &CancellationToken) {
        let most = if stop.is_cancelled() {
            STATUS_IN_A_HURRY
        } else {
            LAST_LINE
        };
        let until = Instant::now() + most;
        while Instant::now() < until {
            if self
                .spool
                .acknowledged()
                .is_ok_and(|state| state.at.offset >= length)
            {
                return;
            }
            sleep(LAST_LINE_POLL).await;
        }
        tracing::warn!(
            "the last lines are not on the server yet; the sidecar goes on sending them"
        );
    }

    /// Writes the status, never forced: a refusal means that somebody else has ended the task. Whether it is written.
    async fn report(
        &self,
        outcome: &Outcome,
        last_lines: &[String],
        stop: &CancellationToken,
    ) -> bool {
        let id = &self.settings.task;
        let (client, reason) = (self.client, outcome.reason.as_str());
        let message = self.secrets.mask(outcome.status_message(last_lines));
        let patience = if stop.is_cancelled() {
            STATUS_IN_A_HURRY
        } else {
            STATUS
        };
        let until = Instant::now() + patience;
        let result = match outcome.report {
            Report::Completed => api::retry(until, || client.completed(id, reason, &message)).await,
            Report::Failed => api::retry(until, || client.failed(id, reason, &message)).await,
            Report::Stopped => api::retry(until, || client.stopped(id, reason, &message)).await,
            Report::Nothing => return false,
        };
        match result {
            Ok(()) => true,
            Err(error @ Error::Refused { http: 400, .. }) => {
                tracing::info!(%error, "the task's status was already changed by somebody else");
                true
            }
            Err(error) => {
                tracing::error!(%error, "could not report the task's end; the controller will");
                false
            }
        }
    }
}

/// Whether the task is no longer ours: nothing of it may be written any more.
pub fn disowned(end: &End) -> bool {
    match end {
        End::Exited {
            interrupt: Some(interrupt),
            ..
        }
        | End::Interrupted(interrupt) => interrupt.disowns(),
        End::Exited {
            interrupt: None, ..
        }
        | End::Unprepared(_)
        | End::Unstartable(_) => false,
    }
}

/// The end of a pod that failed by our own fault: what is to become of the task is the controller's to decide.
pub fn internal(settings: &Settings, message: &str) {
    tell_kubernetes(settings, unreported("internal", message));
}

/// The end of a pod whose task was not started here: nothing is written to the server.
pub fn before_the_fence(settings: &Settings, outcome: &str, message: &str, code: i32) -> i32 {
    if let Err(error) = fence::tell(&settings.layout, Verdict::Lost) {
        tracing::warn!(%error, "could not tell the uplink that the fence was lost");
    }
    tell_kubernetes(settings, unreported(outcome, message));
    code
}

fn unreported(outcome: &str, message: &str) -> Termination {
    Termination {
        version: pod::VERSION,
        outcome: outcome.to_owned(),
        message: message.to_owned(),
        exit_code: None,
        signal: None,
        reported: false,
        last_lines: Vec::new(),
    }
}

/// Most bytes that Kubernetes keeps of a termination message.
const TERMINATION_BYTES: usize = 4096;

/// Writes the termination message; if it is too long the oldest lines go first.
fn tell_kubernetes(settings: &Settings, mut termination: Termination) {
    let json = loop {
        match serde_json::to_string(&termination) {
            Ok(json) if json.len() <= TERMINATION_BYTES => break json,
            Ok(_) if !termination.last_lines.is_empty() => {
                termination.last_lines.remove(0);
            }
            Ok(_) => termination.message.clear(),
            Err(error) => return tracing::warn!(%error, "could not write the termination message"),
        }
    };
    if let Err(error) = fs::write(&settings.termination_log, json) {
        tracing::warn!(%error, "could not write the termination message");
    }
}
