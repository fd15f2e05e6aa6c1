//! Tasks: reading them, and every change of status that controller and executor make (`protocol.md` §2.3, §3.4).

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::documents::{BODY_FIELDS, FACT_FIELDS, PACKAGES, Page, body, facts};
use super::{Body, Client, Error, Facts, Found, Nothing};
use crate::task::{QueueId, Status, Task, TaskId};

/// Answers are cut at this many tasks, however many ids are asked for (§1.13).
const PAGE: usize = 500;
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

    /// These tasks as rendering needs them: without source text and parameters; what packages they list is long, and read
    /// where it is asked for.
    pub async fn task_bodies(&self, ids: &[TaskId], packages: bool) -> Result<Found<Body>, Error> {
        let more: &[&str] = if packages { &[PACKAGES] } else { &[] };
        self.tasks_by_id(ids, &[BODY_FIELDS, more].concat(), body)
            .await
    }

    async fn tasks_by_id<T>(
        &self,
        ids: &[TaskId],
        fields: &[&str],
        read: fn(&str) -> Result<T, String>,
    ) -> Result<Found<T>, Error> {
        let mut found = Found::none();
        // An empty list of ids means "all tasks" to the server: `chunks` sends nothing for it.
        let pages: Vec<_> = ids.chunks(PAGE).map(|ids| self.page(ids, fields)).collect();
        // The server reads one while the one before it is taken in.
        let mut pages = stream::iter(pages).buffered(2);
        while let Some(page) = pages.next().await {
            found.read(page?, read);
        }
        Ok(found)
    }

    async fn page(&self, ids: &[TaskId], fields: &[&str]) -> Result<Page, Error> {
        let body = json!({"id": ids, "only_fields": fields, "page": 0, "page_size": PAGE, "search_hidden": true});
        self.call("tasks.get_all", &body).await
    }

    /// The facts of all tasks in this status, at most `pages` pages of 500: for the slow sweep.
    pub async fn task_facts_in(&self, status: Status, pages: usize) -> Result<Found<Facts>, Error> {
        let mut found = Found::none();
        for page in 0..pages {
            let body = json!({
                "status": [status.as_str()], "only_fields": FACT_FIELDS, "search_hidden": true,
                "order_by": ["id"], "page": page, "page_size": PAGE,
            });
            let answer: Page = self.call("tasks.get_all", &body).await?;
            let last = answer.tasks.len() < PAGE;
            found.read(answer, facts);
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
