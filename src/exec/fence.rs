//! The start fence (`architecture.md` §6.4): the pod's proof that it alone may run the task.
//!
//! ```text
//! queues.remove_task = 1 ─▶ tasks.get_by_id: queued ─▶ mark ─▶ workers.status_report ─▶ tasks.started ─▶ passed
//!          └───────────────────────┴─────── anything else, or too late ───────┴──────────────┴─────────▶ lost
//! ```
//!
//! A request is repeated only if it certainly was not processed. After a lost race nothing is run and nothing more is
//! written: the controller reads from entry, status and Job what is to be done.

use std::fs;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout_at};

use super::settings::{Layout, Settings};
use super::spool::write_shared;
use crate::api::{Client, Error, StatusReport};
use crate::pod::FENCE_DEADLINE;
use crate::task::{Attempt, MARK, Status, Task, TaskId};

/// Wait before a request is repeated that was not processed.
const AGAIN: Duration = Duration::from_millis(200);
/// From this version on a server knows `tasks.edit_runtime`.
const EDIT_RUNTIME_SINCE: (u32, u32) = (2, 34);

/// What process 1 tells the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The task is ours: its log may be sent.
    Passed,
    /// It is not, or no longer.
    Lost,
}

/// Why the task was not started here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the task is no longer in the pending queue: somebody else has taken it")]
    Taken,
    #[error("the task is gone from the server")]
    Deleted,
    #[error("the task is {0}, not queued")]
    Status(Status),
    #[error("the task was dequeued while it waited for this pod")]
    Dequeued,
    #[error("the attempt's mark was refused: the task is no longer queued")]
    Unmarked,
    #[error("{0}")]
    Server(Error),
    #[error("the fence took longer than {} s", FENCE_DEADLINE.as_secs())]
    Late,
}

/// Takes the pending entry and makes the task ours; five requests.
pub async fn pass(client: &Client, settings: &Settings) -> Result<Task, Lost> {
    let deadline = Instant::now() + FENCE_DEADLINE;
    timeout_at(deadline, steps(client, settings))
        .await
        .unwrap_or(Err(Lost::Late))
}

async fn steps(client: &Client, settings: &Settings) -> Result<Task, Lost> {
    let id = &settings.task;
    if !undelivered_again(|| client.remove_from_queue(&settings.pending_queue, id)).await? {
        return Err(Lost::Taken);
    }
    let task = undelivered_again(|| client.task(id))
        .await?
        .ok_or(Lost::Deleted)?;
    if task.status != Status::Queued {
        return Err(Lost::Status(task.status));
    }
    if settings.attempt > Attempt::FIRST {
        still_wanted(client, id).await?;
    }
    mark(client, settings, &task).await?;
    let report = StatusReport {
        worker: settings.worker.clone(),
        timestamp: Timestamp::now().as_millisecond(),
        queues: Vec::new(),
        queue: None,
        task: Some(id.clone()),
        machine_stats: None,
    };
    undelivered_again(|| client.report_worker(&report)).await?;
    let message = format!("started by {}", settings.worker);
    undelivered_again(|| client.started(id, "worker started execution", &message)).await?;
    Ok(task)
}

/// Whether the user of a task that was requeued still wants it; `tasks.get_by_id` does not show what tells that (§3.1).
async fn still_wanted(client: &Client, id: &TaskId) -> Result<(), Lost> {
    let found = undelivered_again(|| client.task_facts(std::slice::from_ref(id))).await?;
    match found.tasks.first() {
        Some(facts) if facts.dequeued_while_parked() => Err(Lost::Dequeued),
        Some(facts) if facts.status != Status::Queued => Err(Lost::Status(facts.status)),
        Some(_) => Ok(()),
        None => Err(Lost::Deleted),
    }
}

/// Writes the attempt's mark into the task's `runtime`.
async fn mark(client: &Client, settings: &Settings, task: &Task) -> Result<(), Lost> {
    let value = Value::from(settings.worker.0.clone());
    let version = undelivered_again(|| client.api_version()).await?;
    let marked = if version.is_none_or(|version| version >= EDIT_RUNTIME_SINCE) {
        let mark = Map::from_iter([(MARK.to_owned(), value)]);
        undelivered_again(|| client.edit_runtime(&task.id, &mark, &[])).await?
    } else {
        let mut runtime = task.runtime.clone();
        runtime.insert(MARK.to_owned(), value);
        undelivered_again(|| client.replace_runtime(&task.id, &runtime)).await?
    };
    if marked { Ok(()) } else { Err(Lost::Unmarked) }
}

/// Repeats a call only as long as it certainly had no effect; the deadline is the caller's.
async fn undelivered_again<T, F, C>(mut call: C) -> Result<T, Lost>
where
    F: Future<Output = Result<T, Error>>,
    C: FnMut() -> F,
{
    loop {
        match call().await {
            Err(error) if error.is_undelivered() => {
                sleep(error.retry_after().unwrap_or(AGAIN)).await;
            }
            Err(error) => return Err(Lost::Server(error)),
            Ok(answer) => return Ok(answer),
        }
    }
}

/// Tells the uplink how the fence went.
pub fn tell(layout: &Layout, verdict: Verdict) -> io::Result<()> {
    let word: &[u8] = match verdict {
        Verdict::Passed => b"passed",
        Verdict::Lost => b"lost",
    };
    write_shared(&layout.fence(), word)
}

/// What process 1 has told, if it has.
pub fn verdict(layout: &Layout) -> Option<Verdict> {
    match fs::read(layout.fence()).ok()?.as_slice() {
        b"passed" => Some(Verdict::Passed),
        b"lost" => Some(Verdict::Lost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uplink_reads_what_process_1_tells() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        assert_eq!(verdict(&layout), None);
        tell(&layout, Verdict::Passed).unwrap();
        assert_eq!(verdict(&layout), Some(Verdict::Passed));
        tell(&layout, Verdict::Lost).unwrap();
        assert_eq!(verdict(&layout), Some(Verdict::Lost));
    }
}
