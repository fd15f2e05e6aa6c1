//! The end of a run: nothing left running, the last line on the server, the status written, the pod told.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::echo::Echo;
use super::fence::{self, Verdict};
use super::outcome::{End, Interrupt, Memory, Outcome, Report, outcome};
use super::output::Secrets;
use super::process::sweep;
use super::settings::Settings;
use super::spool::Spool;
use super::watch::look;
use crate::api::{self, Client, Error};
use crate::pod::{self, Termination};
use crate::stats::gpu::Xid;

/// How long nothing of the log may arrive at the server before the status is written without the last line.
const LAST_LINE: Duration = Duration::from_secs(20);
const LAST_LINE_POLL: Duration = Duration::from_millis(20);
/// How long a stuck stdout is waited for.
const ECHO: Duration = Duration::from_secs(2);
/// How long an unreachable server is waited for with the status: it may be moved or brought up to date meanwhile.
const STATUS: Duration = Duration::from_mins(20);
/// The same, and the wait for the last line, once the pod is being ended.
const IN_A_HURRY: Duration = Duration::from_secs(5);
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
    /// What the driver has reported of the GPUs during the run.
    pub faults: &'a [Xid],
}

impl Closing<'_> {
    /// Ends the run; the answer is our own exit code.
    pub async fn close(&self, end: &End, memory: Memory, stop: &CancellationToken) -> i32 {
        let left = sweep();
        let outcome = outcome(end, memory, self.settings.node.as_deref()).with_faults(self.faults);
        let disowned = disowned(end);
        if disowned && let Err(error) = fence::tell(&self.settings.layout, Verdict::Lost) {
            tracing::error!(%error, "could not tell the uplink that the task is no longer ours");
        }
        if left > 0 {
            self.note(&format!("ended {left} processes that were left running"));
        }
        let tried_again = outcome.report == Report::Failed && self.settings.tried_again;
        if tried_again {
            self.note(&format!("{}; it is tried again", outcome.message));
        } else if outcome.signalled {
            self.note(&format!(
                "{}, after a signal to its container: an interruption if the pod was being ended",
                outcome.message
            ));
        } else if outcome.report != Report::Completed {
            self.note(&outcome.message);
        }
        let asked = Instant::now();
        let look = self.echo.look();
        while !self.echo.has_told(look) && asked.elapsed() < FAREWELL {
            sleep(LAST_LINE_POLL).await;
        }
        let length = self.spool.finish();
        let last_lines = self.echo.finish(ECHO);
        // Who has aborted a run waits for its end.
        let patient = outcome.report != Report::Stopped;
        if !disowned && let Ok(length) = &length {
            self.wait_for_last_line(*length, patient, stop).await;
        }
        self.background.close();
        let _ = tokio::time::timeout(FAREWELL, self.background.wait()).await;
        let asked = Instant::now();
        // The task stays in progress: the controller takes it back as it does after an interruption.
        let reported = !tried_again && self.report_in_time(&outcome, &last_lines, stop).await;
        // The server was away until now; the sidecar ends soon after us.
        if reported
            && asked.elapsed() > AWAY
            && let Ok(length) = length
        {
            self.wait_for_last_line(length, patient, stop).await;
        }
        let farewell = self.client.unregister_worker(&self.settings.worker, &[]);
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        let mut termination = outcome.termination(&last_lines, reported);
        termination.message = self.secrets.mask(termination.message);
        termination.first_line = self.echo.first_line().map(|time| time.to_string());
        tell_kubernetes(self.settings, termination);
        outcome.code
    }

    fn note(&self, text: &str) {
        if let Err(error) = self.spool.note(text) {
            tracing::warn!(%error, "could not write to the spool");
        }
    }

    /// Waits until the uplink has acknowledged all that was written. Who is `patient` waits as long as lines arrive.
    async fn wait_for_last_line(&self, length: u64, patient: bool, stop: &CancellationToken) {
        let mut wait = Wait::new(Instant::now(), patient);
        loop {
            let state = self.spool.acknowledged().ok();
            let acknowledged = state.map(|state| state.at.offset);
            if acknowledged.is_some_and(|offset| offset >= length) {
                return;
            }
            let now = Instant::now();
            if stop.is_cancelled() {
                wait.hurry(now);
            }
            if !wait.goes_on(acknowledged, now) {
                break;
            }
            sleep(LAST_LINE_POLL).await;
        }
        tracing::warn!(
            "the last lines are not on the server yet; the sidecar goes on sending them"
        );
    }

    /// [`Self::report`], given up soon after the pod is told to end. Whether the status is written.
    async fn report_in_time(
        &self,
        outcome: &Outcome,
        last_lines: &[String],
        stop: &CancellationToken,
    ) -> bool {
        if stop.is_cancelled() {
            return self.report(outcome, last_lines, IN_A_HURRY).await;
        }
        let hurry = async {
            stop.cancelled().await;
            sleep(IN_A_HURRY).await;
        };
        tokio::select! {
            reported = self.report(outcome, last_lines, STATUS) => reported,
            () = hurry => {
                tracing::error!("the pod ends before the server could be told of the task's end; the controller will report it");
                false
            }
        }
    }

    /// Writes the status of a task that is still ours, never forced: a refusal means that somebody else has ended it.
    /// Whether it is written.
    async fn report(&self, outcome: &Outcome, last_lines: &[String], patience: Duration) -> bool {
        let id = &self.settings.task;
        let reason = outcome.status_reason();
        let (client, reason) = (self.client, reason.as_str());
        let message = self.secrets.mask(outcome.status_message(last_lines));
        let until = Instant::now() + patience;
        if outcome.report == Report::Nothing {
            return false;
        }
        match api::retry(until, || look(client, self.settings, patience)).await {
            // A run that somebody else has begun meanwhile would take our word for its end.
            Ok(Some(
                change @ (Interrupt::Ended(_) | Interrupt::Foreign(_) | Interrupt::Deleted),
            )) => {
                tracing::info!(
                    change = change.describe(),
                    "the task's end is not ours to report"
                );
                return true;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "could not ask for the task before its end; the controller will report it");
                return false;
            }
        }
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

/// Until when the last line is waited for.
#[derive(Debug)]
struct Wait {
    until: Instant,
    /// Whether what arrives at the server gives it more time.
    patient: bool,
    /// What was there at the last look.
    acknowledged: u64,
}

impl Wait {
    fn new(now: Instant, patient: bool) -> Self {
        Self {
            until: now + LAST_LINE,
            patient,
            acknowledged: 0,
        }
    }

    /// The pod is being ended.
    fn hurry(&mut self, now: Instant) {
        self.patient = false;
        self.until = self.until.min(now + IN_A_HURRY);
    }

    /// Whether to look again. `acknowledged`: what is on the server now; absent if that is not known.
    fn goes_on(&mut self, acknowledged: Option<u64>, now: Instant) -> bool {
        // A task that begins its output anew sets it back.
        if let Some(acknowledged) = acknowledged.filter(|offset| *offset != self.acknowledged) {
            self.acknowledged = acknowledged;
            if self.patient {
                self.until = now + LAST_LINE;
            }
        }
        now < self.until
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
        | End::Signalled(_)
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
        first_line: None,
        xid: None,
        signalled: false,
        out_of_memory: false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{post, watch};

    const SECOND: Duration = Duration::from_secs(1);

    /// Else the controller would delete its Job while it still does what it is meant to do.
    #[test]
    fn an_executor_whose_task_was_ended_under_it_has_left_in_time_for_kubernetes_to_tell_of_it() {
        // A look may take as long as the time between two; each courtesy is begun after the other.
        let finds_out = watch::POLL * 2;
        let takes_leave = post::LEAST + LAST_LINE + ECHO + FAREWELL * 3;
        let tells = 30 * SECOND;
        assert!(finds_out + takes_leave + tells < pod::CLOSING);
    }

    #[test]
    fn the_last_line_is_waited_for_as_long_as_lines_arrive() {
        let begun = Instant::now();
        let mut wait = Wait::new(begun, true);
        // A slow server takes some of it every 19 s.
        for round in 1..=100 {
            let now = begun + 19 * SECOND * round;
            assert!(wait.goes_on(Some(u64::from(round)), now), "{round}");
        }
        let last = begun + 19 * SECOND * 100;
        assert!(wait.goes_on(Some(100), last + 19 * SECOND));
        assert!(wait.goes_on(None, last + 19 * SECOND));
        assert!(!wait.goes_on(Some(100), last + 20 * SECOND));
    }

    #[test]
    fn an_output_that_was_begun_anew_counts_as_one_that_arrives() {
        let begun = Instant::now();
        let mut wait = Wait::new(begun, true);
        assert!(wait.goes_on(Some(500), begun));
        assert!(wait.goes_on(Some(10), begun + 15 * SECOND));
        assert!(wait.goes_on(Some(20), begun + 30 * SECOND));
    }

    #[test]
    fn who_waits_for_the_end_of_an_aborted_run_waits_no_longer_than_before() {
        let begun = Instant::now();
        let mut wait = Wait::new(begun, false);
        assert!(wait.goes_on(Some(1), begun + 19 * SECOND));
        assert!(!wait.goes_on(Some(2), begun + 20 * SECOND));
    }

    #[test]
    fn a_pod_that_is_being_ended_waits_for_seconds_however_much_arrives() {
        let begun = Instant::now();
        let mut wait = Wait::new(begun, true);
        assert!(wait.goes_on(Some(1), begun + 10 * SECOND));
        wait.hurry(begun + 12 * SECOND);
        wait.hurry(begun + 16 * SECOND);
        assert!(wait.goes_on(Some(2), begun + 16 * SECOND));
        assert!(!wait.goes_on(Some(3), begun + 17 * SECOND));
        // What was nearly over is not made longer.
        let mut wait = Wait::new(begun, true);
        wait.hurry(begun + 19 * SECOND);
        assert!(!wait.goes_on(Some(1), begun + 20 * SECOND));
    }
}
