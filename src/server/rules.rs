//! The status machine: what each call makes of a task in each status (`protocol.md` §2.3, §3.4, §4). Pure.
//!
//! ```text
//! task document + what the call says + now ──▶ StatusChange, or a refusal
//! ```
//!
//! Nothing is written here; `StatusChange::apply` changes the document in hand and returns what the answer shows.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::doc;
use super::wire::{Doc, Refusal};
use crate::task::{STOPPING, Status};

/// How long after its last update a task counts as run by its worker (§2.3, `tasks.stop`).
const WORKER_ALIVE_SECONDS: i64 = 600;

/// What every status call may say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) force: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Which queue entries of the task a change takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakeOut {
    Nothing,
    /// The entry in the queue that `execution.queue` names.
    OwnQueue,
    EveryQueue,
}

/// One write of a status, not yet carried out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StatusChange {
    pub(crate) status: Status,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Further members by dotted path; shown in the answer under that literal path.
    pub(crate) set: Vec<(&'static str, Value)>,
    /// Members taken away, not shown.
    pub(crate) unset: Vec<&'static str>,
    /// Members taken away and shown as null.
    pub(crate) cleared: Vec<&'static str>,
    pub(crate) take_out: TakeOut,
}

impl StatusChange {
    fn to(status: Status, ask: &Ask) -> Self {
        Self {
            status,
            reason: ask.reason.clone(),
            message: ask.message.clone(),
            set: Vec::new(),
            unset: Vec::new(),
            cleared: Vec::new(),
            take_out: TakeOut::Nothing,
        }
    }

    /// Changes the document; returns `fields` of the answer (§2.3).
    pub(crate) fn apply(&self, task: &mut Doc, now: &str, user: &str) -> Doc {
        let mut fields = Doc::new();
        fields.insert("status".into(), self.status.as_str().into());
        fields.insert("status_reason".into(), self.reason.clone().into());
        fields.insert("status_message".into(), self.message.clone().into());
        for date in ["status_changed", "last_update", "last_change"] {
            fields.insert(date.into(), now.into());
        }
        fields.insert("last_changed_by".into(), user.into());
        task.extend(fields.clone());
        if self.status == Status::Queued {
            drop_tag(task, "development");
        }
        for (path, value) in &self.set {
            doc::set(task, path, value.clone());
            fields.insert((*path).to_owned(), value.clone());
        }
        for path in &self.unset {
            doc::unset(task, path);
        }
        for path in &self.cleared {
            doc::unset(task, path);
            fields.insert((*path).to_owned(), Value::Null);
        }
        fields
    }
}

fn drop_tag(task: &mut Doc, tag: &str) {
    if let Some(Value::Array(tags)) = task.get_mut("system_tags") {
        tags.retain(|have| have != tag);
    }
}

/// The status a document carries.
pub(crate) fn status(task: &Doc) -> Status {
    parse_status(doc::text(task, "status")).unwrap_or_default()
}

/// A status by its word, if it is one.
pub(crate) fn parse_status(word: &str) -> Option<Status> {
    const ALL: [Status; 10] = [
        Status::Created,
        Status::Queued,
        Status::InProgress,
        Status::Stopped,
        Status::Publishing,
        Status::Published,
        Status::Closed,
        Status::Failed,
        Status::Completed,
        Status::Unknown,
    ];
    ALL.into_iter().find(|status| status.as_str() == word)
}

/// The statuses that may follow without force, the same one aside (§3.4).
fn successors(from: Status) -> &'static [Status] {
    use Status::{
        Closed, Completed, Created, Failed, InProgress, Published, Publishing, Queued, Stopped,
    };
    match from {
        Created => &[Queued, InProgress],
        Queued => &[Created, InProgress, Stopped],
        InProgress => &[Stopped, Failed, Completed, Created],
        Stopped => &[
            Closed, Created, Failed, Queued, InProgress, Published, Publishing, Completed,
        ],
        Closed => &[Created, Failed, Published, Publishing, Stopped],
        Failed => &[Created, Stopped, Published, Queued],
        Completed => &[Published, InProgress, Created],
        Publishing => &[Published],
        Published | Status::Unknown => &[],
    }
}

/// Refuses a transition that needs force (400/110).
fn check(from: Status, to: Status, force: bool) -> Result<(), Refusal> {
    if force || successors(from).contains(&to) || (from == to && to != Status::Published) {
        return Ok(());
    }
    if from == Status::Unknown {
        return Err(Refusal::internal("The task's stored status is unknown"));
    }
    let text = format!(
        "Invalid task status (Invalid status change): current_status={from}, new_status={to}"
    );
    Err(Refusal::bad(110, text))
}

/// The status that a dequeue goes back to: the remembered one, else `created`.
pub(crate) fn status_before_enqueue(task: &Doc) -> Status {
    parse_status(doc::text(task, "enqueue_status")).unwrap_or(Status::Created)
}

/// `tasks.enqueue`, first half: to `queued`, before the entry is added.
pub(crate) fn enqueue(task: &Doc, queue: Option<&str>, ask: &Ask) -> Result<StatusChange, Refusal> {
    let from = status(task);
    if queue.is_none() && (from != Status::Queued || doc::text(task, "execution.queue").is_empty())
    {
        return Err(Refusal::invalid(
            "Cannot skip setting execution queue for a task that is not enqueued or does not have execution queue set",
        ));
    }
    check(from, Status::Queued, ask.force)?;
    let remembered = match doc::text(task, "enqueue_status") {
        before if from == Status::Queued && !before.is_empty() => before.to_owned(),
        _ => from.as_str().to_owned(),
    };
    let mut change = StatusChange::to(Status::Queued, ask);
    change.set.push(("enqueue_status", remembered.into()));
    if let Some(queue) = queue {
        change.set.push(("execution.queue", queue.into()));
    }
    Ok(change)
}

/// What a `tasks.enqueue` whose entry could not be added leaves behind (§4, the roll-back).
pub(crate) fn failed_enqueue(task: &Doc) -> StatusChange {
    let ask = Ask {
        reason: "failed enqueueing".into(),
        ..Ask::default()
    };
    let mut change = StatusChange::to(status(task), &ask);
    change.unset.push("enqueue_status");
    change
}

/// `tasks.dequeue`: acts on `queued` and `in_progress` alone; `None` means nothing changes.
pub(crate) fn dequeue(task: &Doc, new_status: Option<Status>, ask: &Ask) -> Option<StatusChange> {
    if !matches!(status(task), Status::Queued | Status::InProgress) {
        return None;
    }
    let mut change = StatusChange::to(
        new_status.unwrap_or_else(|| status_before_enqueue(task)),
        ask,
    );
    change.cleared.push("enqueue_status");
    Some(change)
}

/// Takes a task back because its entry went away on the queue's side (§4; only if `execution.queue` names that queue).
pub(crate) fn back_from_queue(task: &Doc, queue: &str, reason: String) -> Option<StatusChange> {
    if status(task) != Status::Queued || doc::text(task, "execution.queue") != queue {
        return None;
    }
    let mut change = dequeue(
        task,
        None,
        &Ask {
            reason,
            ..Ask::default()
        },
    )?;
    change.unset.push("execution.queue");
    Some(change)
}

/// `tasks.started`: a running task keeps `started`, `completed` and `active_duration`, also those of an earlier run.
pub(crate) fn started(task: &Doc, ask: &Ask, now: &str) -> Result<StatusChange, Refusal> {
    let from = status(task);
    check(from, Status::InProgress, ask.force)?;
    let mut change = StatusChange::to(Status::InProgress, ask);
    if from != Status::InProgress || doc::text(task, "started").is_empty() {
        change.set.push(("started", now.into()));
        change.unset.extend(["completed", "active_duration"]);
    }
    Ok(change)
}

/// `tasks.stop`: at once when nobody runs the task, else only the message [`STOPPING`], which its worker must notice.
pub(crate) fn stop(
    task: &Doc,
    ask: &Ask,
    user_name: &str,
    now: Timestamp,
) -> Result<StatusChange, Refusal> {
    let from = status(task);
    let queued = from == Status::Queued;
    let local = doc::strings(task, "system_tags").contains(&"development");
    let (to, message) = if queued || local || !run_by_a_worker(task, now) {
        (Status::Stopped, format!("Stopped by {user_name}"))
    } else {
        (from, STOPPING.to_owned())
    };
    check(from, to, ask.force)?;
    let mut change = StatusChange::to(
        to,
        &Ask {
            message,
            ..ask.clone()
        },
    );
    if queued {
        change.take_out = TakeOut::OwnQueue;
    }
    Ok(change)
}

fn run_by_a_worker(task: &Doc, now: Timestamp) -> bool {
    !doc::text(task, "last_worker").is_empty()
        && silent_for(task, now).is_some_and(|s| s < WORKER_ALIVE_SECONDS)
}

/// Seconds since the task's last update.
fn silent_for(task: &Doc, now: Timestamp) -> Option<i64> {
    let last: Timestamp = doc::text(task, "last_update").parse().ok()?;
    Some(now.as_second() - last.as_second())
}

/// `tasks.stopped`, `tasks.failed`, `tasks.completed`: the end of a run; the entry stays.
pub(crate) fn ended(task: &Doc, to: Status, ask: &Ask, now: &str) -> Result<StatusChange, Refusal> {
    check(status(task), to, ask.force)?;
    let mut change = StatusChange::to(to, ask);
    change.set.push(("completed", now.into()));
    Ok(change)
}

/// `tasks.close` (legacy).
pub(crate) fn close(task: &Doc, ask: &Ask) -> Result<StatusChange, Refusal> {
    check(status(task), Status::Closed, ask.force)?;
    Ok(StatusChange::to(Status::Closed, ask))
}

/// `tasks.publish`.
pub(crate) fn publish(task: &Doc, ask: &Ask, now: &str) -> Result<StatusChange, Refusal> {
    check(status(task), Status::Published, ask.force)?;
    let mut change = StatusChange::to(Status::Published, ask);
    change.set.push(("published", now.into()));
    change.set.push((
        "output",
        task.get("output").cloned().unwrap_or_else(|| json!({})),
    ));
    Ok(change)
}

/// `tasks.reset`, as far as the status goes; `clear` takes the rest away.
pub(crate) fn reset(task: &Doc, ask: &Ask) -> Result<StatusChange, Refusal> {
    let from = status(task);
    if from == Status::Published && !ask.force {
        let text = format!(
            "Invalid task status: task_id={}, status={from}",
            doc::text(task, "id")
        );
        return Err(Refusal::bad(110, text));
    }
    check(from, Status::Created, ask.force)?;
    let texts = Ask {
        force: ask.force,
        reason: "reset".into(),
        message: "reset".into(),
    };
    let mut change = StatusChange::to(Status::Created, &texts);
    change.take_out = TakeOut::EveryQueue;
    Ok(change)
}

/// What a reset clears in the document; `script.requirements` survives unless `all` (§2.3).
pub(crate) fn clear(task: &mut Doc, all: bool) {
    for path in [
        "enqueue_status",
        "execution.queue",
        "last_worker",
        "last_worker_report",
        "started",
        "completed",
        "published",
        "active_duration",
        "output.result",
        "output.error",
    ] {
        doc::unset(task, path);
    }
    for (path, empty) in [
        ("last_iteration", json!(0)),
        ("metric_stats", json!({})),
        ("unique_metrics", json!([])),
        ("runtime", json!({})),
        ("models.output", json!([])),
    ] {
        doc::set(task, path, empty);
    }
    if let Some(Value::Array(artifacts)) = doc::object_at(task, "execution").get_mut("artifacts") {
        artifacts.retain(|artifact| artifact.get("mode").and_then(Value::as_str) == Some("input"));
    }
    if all {
        task.insert("script".into(), new_script());
        task.insert("execution".into(), new_execution());
    }
}

/// The `script` of a task that names none (§3.2).
pub(crate) fn new_script() -> Value {
    json!({"binary": "python", "repository": "", "entry_point": "", "requirements": {}})
}

/// The `execution` of a task that names none (§3.1).
pub(crate) fn new_execution() -> Value {
    json!({"test_split": 0, "parameters": {}, "model_desc": {}, "model_labels": {}, "artifacts": []})
}

/// `tasks.delete`: without force only what is `created` or archived.
pub(crate) fn delete(task: &Doc, force: bool) -> Result<(), Refusal> {
    let status = status(task);
    let archived = doc::strings(task, "system_tags").contains(&"archived");
    if force || archived || status == Status::Created {
        return Ok(());
    }
    let id = doc::text(task, "id");
    let text = format!(
        "Task cannot be deleted (due to status, use force=True): task={id}, expected=created, current={status}"
    );
    Err(Refusal::bad(123, text))
}

/// `tasks.archive`: both texts are written in every status; `queued` goes back, `in_progress` stops.
pub(crate) fn archive(task: &Doc, ask: &Ask) -> StatusChange {
    let from = status(task);
    let to = match from {
        Status::Queued => status_before_enqueue(task),
        Status::InProgress => Status::Stopped,
        other => other,
    };
    let mut change = StatusChange::to(to, ask);
    if from == Status::Queued {
        change.unset.push("enqueue_status");
    }
    change.take_out = TakeOut::EveryQueue;
    change
}

/// Statuses in which a part of the task may be edited: `created` always, others as the call says (§2.3).
pub(crate) fn editable(task: &Doc, also: &[Status], force: bool) -> Result<(), Refusal> {
    let status = status(task);
    if force || status == Status::Created || also.contains(&status) {
        return Ok(());
    }
    Err(Refusal::bad(
        110,
        format!("Invalid task status: expected=created, status={status}"),
    ))
}

/// The watchdog's verdict (§3.4): a running task that has been silent for longer than `silence` is stopped.
pub(crate) fn watchdog(task: &Doc, now: Timestamp, silence: Duration) -> Option<StatusChange> {
    let silence = i64::try_from(silence.as_secs()).unwrap_or(i64::MAX);
    if status(task) != Status::InProgress || silent_for(task, now).is_some_and(|s| s <= silence) {
        return None;
    }
    let text = "Forced stop (non-responsive)";
    let ask = Ask {
        force: true,
        reason: text.into(),
        message: text.into(),
    };
    Some(StatusChange::to(Status::Stopped, &ask))
}

/// Seconds a running task has run, for `active_duration` (§3.1).
pub(crate) fn active_duration(task: &Doc, now: Timestamp) -> Option<i64> {
    if status(task) != Status::InProgress {
        return None;
    }
    let started: Timestamp = doc::text(task, "started").parse().ok()?;
    Some((now.as_second() - started.as_second()).max(0))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
