//! Why the run must stop: looks at the task slowly, and once at every SIGTERM.
//!
//! An abort is pushed: the controller deletes the Job, Kubernetes sends SIGTERM, and the one question asked then tells
//! an abort from an interruption. The slow poll covers a controller that is down.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::outcome::Interrupt;
use super::settings::Settings;
use crate::api::{Client, Error, Facts};
use crate::task::{STOPPING, Status, WorkerId};

/// How often the task is looked at.
pub const POLL: Duration = Duration::from_secs(15);
/// How long the question after a SIGTERM may take; the user's process is waiting for its signal.
const QUESTION: Duration = Duration::from_secs(2);
/// How often an abort callback of the SDK is looked at (`protocol.md` §7.9).
const CALLBACK_POLL: Duration = Duration::from_secs(1);
/// How often it is asked in vain whether there is one.
const CALLBACK_QUESTIONS: u32 = 3;
/// Longest time that an abort callback may take.
const CALLBACK_MOST: Duration = Duration::from_mins(30);

/// Watches until there is an interrupt, and sends it.
pub async fn watch(
    client: &Client,
    settings: &Settings,
    terminated: &CancellationToken,
    interrupts: &watch::Sender<Option<Interrupt>>,
) {
    let interrupt = loop {
        let told = timeout(POLL, terminated.cancelled()).await.is_ok();
        match look(client, settings, if told { QUESTION } else { POLL }).await {
            Ok(Some(interrupt)) => break interrupt,
            _ if told => break Interrupt::Shutdown,
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "could not look at the task"),
        }
    };
    if interrupt == Interrupt::Abort {
        wait_for_callback(client, settings, terminated).await;
    }
    interrupts.send_replace(Some(interrupt));
}

/// One look at the task: whether the run must stop, or has become somebody else's.
pub async fn look(
    client: &Client,
    settings: &Settings,
    most: Duration,
) -> Result<Option<Interrupt>, Error> {
    let ids = [settings.task.clone()];
    let Ok(found) = timeout(most, client.task_facts(&ids)).await else {
        return Ok(None);
    };
    let found = found?;
    Ok(match found.tasks.first() {
        Some(Facts {
            status,
            status_message,
            mark,
            ..
        }) => judge(*status, status_message, mark.as_ref(), &settings.worker),
        // A document that cannot be read is no reason to end a run.
        None if !found.unreadable.is_empty() => None,
        None => Some(Interrupt::Deleted),
    })
}

/// What the task itself says of a run that may have been told to end by another signal than SIGTERM.
pub async fn behind(client: &Client, settings: &Settings) -> Option<Interrupt> {
    look(client, settings, QUESTION).await.ok().flatten()
}

/// What a task's state means for its run by `worker`.
fn judge(
    status: Status,
    message: &str,
    mark: Option<&WorkerId>,
    worker: &WorkerId,
) -> Option<Interrupt> {
    if status != Status::InProgress {
        return Some(Interrupt::Ended(status));
    }
    match mark {
        // User code may drop the mark by writing `runtime` as a whole; only another's is a reason.
        Some(mark) if mark != worker => Some(Interrupt::Foreign(mark.0.clone())),
        _ if message == STOPPING => Some(Interrupt::Abort),
        _ => None,
    }
}

/// Gives an SDK abort callback its time: it runs while the status still says `stopping`.
async fn wait_for_callback(client: &Client, settings: &Settings, terminated: &CancellationToken) {
    let start = Instant::now();
    // A server that is away for a moment says nothing about the callback: what it said before holds.
    let (mut asked, mut unanswered) = (None, 0);
    loop {
        match timeout(QUESTION, client.task(&settings.task)).await {
            Ok(Ok(Some(task))) if task.status == Status::InProgress => {
                asked = callback_time(&task.runtime);
                if asked.is_none() {
                    return;
                }
            }
            Ok(Ok(_)) => return,
            Ok(Err(_)) | Err(_) => unanswered += 1,
        }
        // The pod may be told to end meanwhile.
        let most = if terminated.is_cancelled() {
            settings.grace
        } else {
            settings.callback_most
        };
        match asked {
            Some(asked) if start.elapsed() >= asked.min(most) => return,
            None if unanswered >= CALLBACK_QUESTIONS || start.elapsed() >= most => return,
            Some(_) | None => sleep(CALLBACK_POLL).await,
        }
    }
}

/// How long a registered callback that has not completed may take.
fn callback_time(runtime: &Map<String, Value>) -> Option<Duration> {
    let number = |key: &str| match runtime.get(key) {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let completed = match runtime.get("_abort_callback_completed") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(_) => true,
    };
    let timeout = number("_abort_callback_timeout").filter(|seconds| *seconds > 0.0)?;
    let seconds = timeout + number("_abort_poll_freq").unwrap_or(0.0).max(0.0);
    (!completed).then(|| Duration::from_secs_f64(seconds.min(CALLBACK_MOST.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_task_in_progress_that_is_ours_goes_on() {
        let (ours, theirs) = (WorkerId("ours".to_owned()), WorkerId("theirs".to_owned()));
        let judge = |status, message, mark| judge(status, message, mark, &ours);
        assert_eq!(judge(Status::InProgress, "", Some(&ours)), None);
        assert_eq!(judge(Status::InProgress, "", None), None);
        assert_eq!(
            judge(Status::InProgress, STOPPING, Some(&ours)),
            Some(Interrupt::Abort)
        );
        let foreign = Some(Interrupt::Foreign("theirs".to_owned()));
        assert_eq!(judge(Status::InProgress, STOPPING, Some(&theirs)), foreign);
        for status in [
            Status::Created,
            Status::Queued,
            Status::Stopped,
            Status::Completed,
            Status::Failed,
            Status::Closed,
            Status::Publishing,
            Status::Published,
        ] {
            let ended = Some(Interrupt::Ended(status));
            assert_eq!(judge(status, "", Some(&ours)), ended, "{status}");
            // An abort of a task that has ended asks for nothing more.
            assert_eq!(judge(status, STOPPING, None), ended, "{status}");
        }
    }

    #[test]
    fn a_task_that_somebody_has_ended_or_published_keeps_its_log() {
        for (status, disowned) in [
            (Status::Created, true),
            (Status::Queued, true),
            (Status::Stopped, false),
            (Status::Completed, false),
            (Status::Failed, false),
            (Status::Closed, false),
            (Status::Published, false),
        ] {
            assert_eq!(Interrupt::Ended(status).disowns(), disowned, "{status}");
        }
    }

    #[test]
    fn an_abort_callback_is_waited_for_until_it_has_completed() {
        let time = |value: Value| callback_time(value.as_object().unwrap());
        assert_eq!(time(json!({})), None);
        assert_eq!(time(json!({"_abort_callback_timeout": 0})), None);
        assert_eq!(
            time(json!({"_abort_callback_timeout": 30, "_abort_poll_freq": 5})),
            Some(Duration::from_secs(35))
        );
        assert_eq!(
            time(json!({"_abort_callback_timeout": 30, "_abort_callback_completed": 1})),
            None
        );
        assert_eq!(
            time(json!({"_abort_callback_timeout": 1e300})),
            Some(CALLBACK_MOST)
        );
    }
}
