//! What a look at tasks reads of their documents: a few fields each, without making whole tasks of them, and each by
//! itself, so that one that cannot be read does not spoil the others (`protocol.md` §1.13, §2.3).

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::printable;
use crate::task::{
    Execution, FAILED_ENQUEUEING, MARK, QueueId, Status, Task, TaskId, WorkerId, null_as_default,
};

/// The facts of a live task that a look asks for, a few fields of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub id: TaskId,
    pub status: Status,
    pub status_reason: String,
    pub status_message: String,
    /// When the status was written last, verbatim; each status call rewrites it.
    pub status_changed: Option<String>,
    /// The attempt's mark in `runtime`.
    pub mark: Option<WorkerId>,
    pub last_worker: Option<WorkerId>,
    /// The status before the enqueue; gone after a roll-back.
    pub enqueue_status: Option<Status>,
    /// The user's queue on record.
    pub queue: Option<QueueId>,
}

impl Facts {
    /// Whether a user dequeued this task while it was parked, although it still says `queued`: a task that was
    /// requeued remembers `queued` as its status before the enqueue, and a dequeue goes back to that, once (§4).
    /// Only asked of attempts after the first.
    pub fn dequeued_while_parked(&self) -> bool {
        self.status == Status::Queued
            && self.enqueue_status.is_none()
            && self.status_reason != FAILED_ENQUEUEING
    }
}

/// What of a task document becomes [`Facts`].
pub(super) const FACT_FIELDS: &[&str] = &[
    "id",
    "status",
    "status_reason",
    "status_message",
    "status_changed",
    "last_worker",
    "enqueue_status",
    "execution.queue",
    "runtime._trainyard_attempt",
];

/// The packages that a task lists.
pub(super) const PACKAGES: &str = "script.requirements";

/// What of a task document rendering needs: all of [`Task`] but the source text and [`PACKAGES`], and of the
/// parameters the sections that speak to us.
pub(super) const BODY_FIELDS: &[&str] = &[
    "id",
    "name",
    "type",
    "status",
    "status_reason",
    "status_message",
    "status_changed",
    "project",
    "user",
    "parent",
    "script.binary",
    "script.repository",
    "script.branch",
    "script.tag",
    "script.version_num",
    "script.entry_point",
    "script.working_dir",
    "container",
    "execution.queue",
    "runtime",
    "hyperparams.properties",
    "hyperparams.Kubernetes",
    "last_worker",
    "enqueue_status",
];

/// A task whose document has a member of a wrong type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub id: TaskId,
    pub why: String,
}

/// Answer of a batched query: one unreadable document does not spoil the others. Tasks in neither list are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub tasks: Vec<T>,
    pub unreadable: Vec<Unreadable>,
}

/// A task as rendering needs it, and its facts from the same reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    pub task: Task,
    pub facts: Facts,
}

/// The members of [`FACT_FIELDS`], each as [`Task`] has it. A look may read thousands of them: they are not worth a whole
/// [`Task`] each.
#[derive(Deserialize)]
struct RawFacts {
    id: TaskId,
    #[serde(default, deserialize_with = "null_as_default")]
    status: Status,
    #[serde(default, deserialize_with = "null_as_default")]
    status_reason: String,
    #[serde(default, deserialize_with = "null_as_default")]
    status_message: String,
    #[serde(default)]
    status_changed: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    execution: Execution,
    #[serde(default, deserialize_with = "null_as_default")]
    runtime: Marked,
    #[serde(default)]
    last_worker: Option<WorkerId>,
    #[serde(default)]
    enqueue_status: Option<Status>,
}

/// Of the runtime the attempt's mark ([`MARK`]); what is no text is none.
#[derive(Default, Deserialize)]
struct Marked {
    #[serde(default, rename = "_trainyard_attempt")]
    mark: Value,
}

/// The one member of [`FACT_FIELDS`] that a [`Task`] lacks.
#[derive(Deserialize)]
struct Stamped {
    #[serde(default)]
    status_changed: Option<String>,
}

fn mark_of(value: &Value) -> Option<WorkerId> {
    value.as_str().map(|mark| WorkerId(mark.to_owned()))
}

impl From<RawFacts> for Facts {
    fn from(raw: RawFacts) -> Self {
        Self {
            id: raw.id,
            status: raw.status,
            status_reason: raw.status_reason,
            status_message: raw.status_message,
            status_changed: raw.status_changed,
            mark: mark_of(&raw.runtime.mark),
            last_worker: raw.last_worker.filter(|worker| !worker.0.is_empty()),
            enqueue_status: raw.enqueue_status,
            queue: raw.execution.queue.parse().ok(),
        }
    }
}

impl From<(Task, Stamped)> for Body {
    fn from((task, Stamped { status_changed }): (Task, Stamped)) -> Self {
        let facts = Facts {
            id: task.id.clone(),
            status: task.status,
            status_reason: task.status_reason.clone(),
            status_message: task.status_message.clone(),
            status_changed,
            mark: task.runtime.get(MARK).and_then(mark_of),
            last_worker: task
                .last_worker
                .clone()
                .filter(|worker| !worker.0.is_empty()),
            enqueue_status: task.enqueue_status,
            queue: task.execution.queue.parse().ok(),
        };
        Self { task, facts }
    }
}

/// Documents as they came: one that cannot be read does not spoil the others.
#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) tasks: Vec<Box<RawValue>>,
}

impl<T> Found<T> {
    pub(super) fn none() -> Self {
        Self {
            tasks: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Reads each document by itself; what names no task cannot be told apart and is dropped.
    pub(super) fn read(&mut self, page: Page, read: fn(&str) -> Result<T, String>) {
        for document in page.tasks {
            match read(document.get()) {
                Ok(task) => self.tasks.push(task),
                Err(why) => {
                    if let Some(id) = id_of(document.get()) {
                        let why = printable(&why, 200);
                        self.unreadable.push(Unreadable { id, why });
                    }
                }
            }
        }
    }
}

pub(super) fn facts(document: &str) -> Result<Facts, String> {
    Ok(parsed::<RawFacts>(document)?.into())
}

pub(super) fn body(document: &str) -> Result<Body, String> {
    let (task, stamped): (Task, Stamped) = (parsed(document)?, parsed(document)?);
    Ok((task, stamped).into())
}

fn parsed<T: DeserializeOwned>(document: &str) -> Result<T, String> {
    // The few that cannot be read are read again, to name the member.
    serde_json::from_str(document).map_err(|error| {
        let mut json = serde_json::Deserializer::from_str(document);
        let located = serde_path_to_error::deserialize::<_, T>(&mut json).err();
        located.map_or_else(|| error.to_string(), |located| located.to_string())
    })
}

fn id_of(document: &str) -> Option<TaskId> {
    let document: Value = serde_json::from_str(document).ok()?;
    document.get("id")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_the_same_whether_read_alone_or_with_the_body() {
        let id = "0123456789abcdef0123456789abcdef";
        let queue = "fedcba9876543210fedcba9876543210";
        for document in [
            json!({"id": id, "status": "queued", "status_reason": "r", "status_message": "m",
                "status_changed": "2026-01-01", "execution": {"queue": queue}, "last_worker": "w",
                "enqueue_status": "created", "runtime": {"_trainyard_attempt": "w:1", "other": 1}}),
            json!({"id": id}),
            json!({"id": id, "status": null, "status_reason": null, "status_message": null, "status_changed": null,
                "execution": null, "last_worker": "", "enqueue_status": null, "runtime": null}),
            json!({"id": id, "status": "odd", "execution": {"queue": null}, "enqueue_status": "odd",
                "runtime": {"_trainyard_attempt": 7}}),
        ] {
            let text = document.to_string();
            assert_eq!(facts(&text).unwrap(), body(&text).unwrap().facts, "{text}");
        }
        let all = json!({"id": id, "runtime": {"_trainyard_attempt": "w:1"}, "execution": {"queue": queue}});
        let read = facts(&all.to_string()).unwrap();
        assert_eq!(read.mark, Some(WorkerId("w:1".to_owned())));
        assert_eq!(read.queue, queue.parse().ok());
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_member() {
        let document = r#"{"id": "0123456789abcdef0123456789abcdef", "execution": {"queue": 7}}"#;
        for why in [facts(document).unwrap_err(), body(document).unwrap_err()] {
            assert!(why.starts_with("execution.queue: "), "{why}");
        }
        assert!(id_of(document).is_some() && id_of(r#"{"id": 7}"#).is_none());
    }
}
