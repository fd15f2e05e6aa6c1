//! Tasks: reading them, and every change of status that controller and executor make (`protocol.md` §2.3, §3.4).

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Client, Error, Nothing};
use crate::task::{
    Execution, FAILED_ENQUEUEING, MARK, QueueId, Status, Task, TaskId, WorkerId, null_as_default,
};

/// Answers are cut at this many tasks, however many ids are asked for (§1.13).
const PAGE: usize = 500;

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
const FACT_FIELDS: &[&str] = &[
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

/// What of a task document rendering needs: all of [`Task`] but the source text, and of the
/// parameters the sections that speak to us.
const BODY_FIELDS: &[&str] = &[
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
struct Tasks {
    #[serde(default)]
    tasks: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct One {
    task: Task,
}

/// Number of changed tasks; the server sometimes writes it as a float (§1.3).
#[derive(Deserialize)]
struct Updated {
    #[serde(default)]
    updated: f64,
}

impl Client {
    /// Status, message, mark and the like of these tasks, 500 to a request. None asked for: nothing is sent.
    pub async fn task_facts(&self, ids: &[TaskId]) -> Result<Found<Facts>, Error> {
        self.tasks_by_id(ids, FACT_FIELDS, facts).await
    }

    /// These tasks as rendering needs them: without source text and parameters.
    pub async fn task_bodies(&self, ids: &[TaskId]) -> Result<Found<Body>, Error> {
        self.tasks_by_id(ids, BODY_FIELDS, body).await
    }

    async fn tasks_by_id<T>(
        &self,
        ids: &[TaskId],
        fields: &[&str],
        read: fn(&str) -> Result<T, String>,
    ) -> Result<Found<T>, Error> {
        let mut found = Found {
            tasks: Vec::new(),
            unreadable: Vec::new(),
        };
        // An empty list of ids means "all tasks" to the server: `chunks` sends nothing for it.
        let pages: Vec<_> = ids.chunks(PAGE).map(|ids| self.page(ids, fields)).collect();
        // The server reads one while the one before it is taken in.
        let mut pages = stream::iter(pages).buffered(2);
        while let Some(page) = pages.next().await {
            read_page(page?, read, &mut found);
        }
        Ok(found)
    }

    async fn page(&self, ids: &[TaskId], fields: &[&str]) -> Result<Tasks, Error> {
        let body = json!({"id": ids, "only_fields": fields, "page": 0, "page_size": PAGE, "search_hidden": true});
        self.call("tasks.get_all", &body).await
    }

    /// The facts of all tasks in this status, at most `pages` pages of 500: for the slow sweep.
    pub async fn task_facts_in(&self, status: Status, pages: usize) -> Result<Found<Facts>, Error> {
        let mut found = Found {
            tasks: Vec::new(),
            unreadable: Vec::new(),
        };
        for page in 0..pages {
            let body = json!({
                "status": [status.as_str()], "only_fields": FACT_FIELDS, "search_hidden": true,
                "order_by": ["id"], "page": page, "page_size": PAGE,
            });
            let answer: Tasks = self.call("tasks.get_all", &body).await?;
            let last = answer.tasks.len() < PAGE;
            read_page(answer, facts, &mut found);
            if last {
                break;
            }
        }
        Ok(found)
    }

    /// The whole task, `None` if there is none of this id (400/101).
    pub async fn task(&self, id: &TaskId) -> Result<Option<Task>, Error> {
        match self
            .call::<One>("tasks.get_by_id", &json!({"task": id}))
            .await
        {
            Ok(answer) => Ok(Some(answer.task)),
            Err(error) if error.is_unknown_task() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a queued task into `queue` and takes it out of all others; the user's queue stays on record (API 2.31).
    /// Refused with 400/12 unless still queued, with 400/706 if already there, with 400/701 if the queue is gone.
    pub async fn move_queued_task(
        &self,
        id: &TaskId,
        queue: &QueueId,
        reason: &str,
    ) -> Result<(), Error> {
        let body = json!({
            "task": id, "queue": queue, "update_execution_queue": false, "status_reason": reason,
        });
        let _: IgnoredAny = self.call("tasks.enqueue", &body).await?;
        Ok(())
    }

    /// [`Client::move_queued_task`] with a status message beside the reason.
    pub async fn move_queued_task_telling(
        &self,
        id: &TaskId,
        queue: &QueueId,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let body = json!({
            "task": id, "queue": queue, "update_execution_queue": false, "status_reason": reason,
            "status_message": message,
        });
        let _: IgnoredAny = self.call("tasks.enqueue", &body).await?;
        Ok(())
    }

    /// Enqueues the task as a user does, whatever its status allows.
    pub async fn enqueue(&self, id: &TaskId, queue: &QueueId, reason: &str) -> Result<(), Error> {
        let body = json!({"task": id, "queue": queue, "status_reason": reason});
        let _: IgnoredAny = self.call("tasks.enqueue", &body).await?;
        Ok(())
    }

    /// Takes a queued or running task out of its queue; `false` if it was neither, or is gone. Without `new_status` it
    /// returns to the status before the enqueue.
    pub async fn dequeue(
        &self,
        id: &TaskId,
        new_status: Option<Status>,
        reason: &str,
        message: &str,
    ) -> Result<bool, Error> {
        let mut body = json!({"task": id, "status_reason": reason, "status_message": message});
        if let Some(status) = new_status {
            body["new_status"] = json!(status.as_str());
        }
        self.updated("tasks.dequeue", &body).await
    }

    /// `tasks.started`, unforced.
    pub async fn started(&self, id: &TaskId, reason: &str, message: &str) -> Result<(), Error> {
        self.set_status("tasks.started", id, reason, message).await
    }

    /// `tasks.stopped`, unforced.
    pub async fn stopped(&self, id: &TaskId, reason: &str, message: &str) -> Result<(), Error> {
        self.set_status("tasks.stopped", id, reason, message).await
    }

    /// `tasks.failed`, unforced.
    pub async fn failed(&self, id: &TaskId, reason: &str, message: &str) -> Result<(), Error> {
        self.set_status("tasks.failed", id, reason, message).await
    }

    /// `tasks.completed`, unforced.
    pub async fn completed(&self, id: &TaskId, reason: &str, message: &str) -> Result<(), Error> {
        self.set_status("tasks.completed", id, reason, message)
            .await
    }

    async fn set_status(
        &self,
        action: &str,
        id: &TaskId,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        let body = json!({"task": id, "status_reason": reason, "status_message": message});
        let _: IgnoredAny = self.call(action, &body).await?;
        Ok(())
    }

    /// Writes the status message alone, in any status (`tasks.update`).
    pub async fn set_status_message(&self, id: &TaskId, message: &str) -> Result<bool, Error> {
        self.updated(
            "tasks.update",
            &json!({"task": id, "status_message": message}),
        )
        .await
    }

    /// Adds or removes single runtime keys; allowed while created, queued or in progress (API 2.34).
    pub async fn edit_runtime(
        &self,
        id: &TaskId,
        add_or_update: &Map<String, Value>,
        remove: &[&str],
    ) -> Result<bool, Error> {
        let body = json!({"task": id, "add_or_update": add_or_update, "remove": remove});
        self.updated("tasks.edit_runtime", &body).await
    }

    /// Replaces the task's whole `runtime`, for servers without `tasks.edit_runtime`.
    pub async fn replace_runtime(
        &self,
        id: &TaskId,
        runtime: &Map<String, Value>,
    ) -> Result<bool, Error> {
        self.updated(
            "tasks.edit",
            &json!({"task": id, "runtime": runtime, "force": true}),
        )
        .await
    }

    /// Replaces `script.requirements`.
    pub async fn set_requirements(
        &self,
        id: &TaskId,
        requirements: &Map<String, Value>,
    ) -> Result<bool, Error> {
        self.updated(
            "tasks.set_requirements",
            &json!({"task": id, "requirements": requirements}),
        )
        .await
    }

    /// Writes members of `script` (merged one level deep), such as the commit that was checked out.
    pub async fn edit_script(
        &self,
        id: &TaskId,
        members: &Map<String, Value>,
    ) -> Result<bool, Error> {
        self.updated(
            "tasks.edit",
            &json!({"task": id, "script": members, "force": true}),
        )
        .await
    }

    /// `tasks.ping`: tells the server that the run is alive.
    pub async fn ping(&self, id: &TaskId) -> Result<(), Error> {
        let _: Nothing = self.call("tasks.ping", &json!({"task": id})).await?;
        Ok(())
    }

    async fn updated(&self, action: &str, body: &Value) -> Result<bool, Error> {
        Ok(self.call::<Updated>(action, body).await?.updated >= 1.0)
    }
}

/// Reads each document by itself; what names no task cannot be told apart and is dropped.
fn read_page<T>(page: Tasks, read: fn(&str) -> Result<T, String>, found: &mut Found<T>) {
    for document in page.tasks {
        match read(document.get()) {
            Ok(task) => found.tasks.push(task),
            Err(why) => {
                if let Some(id) = id_of(document.get()) {
                    found.unreadable.push(Unreadable {
                        id,
                        why: super::printable(&why, 200),
                    });
                }
            }
        }
    }
}

fn facts(document: &str) -> Result<Facts, String> {
    Ok(parsed::<RawFacts>(document)?.into())
}

fn body(document: &str) -> Result<Body, String> {
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
