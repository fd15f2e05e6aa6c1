//! Queues: entries, names, and the conditional take (`protocol.md` §2.4, §4).

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::{Client, Error};
use crate::task::{QueueId, TaskId};

/// System tag that hides a queue from lists and pages (§1.13, §4.1).
const HIDDEN_TAG: &str = "k8s-glue";
/// Answers of the server are cut at this many objects (§1.13).
const PAGE: usize = 500;
/// Nobody has more pages of queues than this; it bounds the loop against a server that repeats itself.
const MAX_PAGES: usize = 100;

/// Name and id of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QueueInfo {
    pub id: QueueId,
    pub name: String,
}

/// A task's place in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub task: TaskId,
    /// When it was added, verbatim.
    pub added: Option<String>,
}

/// The first entries of one queue, head first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEntries {
    pub id: QueueId,
    pub entries: Vec<Entry>,
    /// Whether the queue may hold more than was asked for.
    pub cut: bool,
}

#[derive(Deserialize)]
struct Queues<T> {
    #[serde(default = "Vec::new")]
    queues: Vec<T>,
}

#[derive(Deserialize)]
struct RawQueue {
    id: QueueId,
    #[serde(default)]
    entries: Option<Vec<RawEntry>>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    added: Option<String>,
}

#[derive(Deserialize)]
struct Created {
    id: QueueId,
}

#[derive(Deserialize)]
struct Removed {
    #[serde(default)]
    removed: f64,
}

#[derive(Deserialize)]
struct Num {
    num: f64,
}

impl RawQueue {
    /// Entries that name no task cannot be acted on and are left out; they still count against `limit`.
    fn into_entries(self, limit: u32) -> QueueEntries {
        let raw = self.entries.unwrap_or_default();
        let cut = limit > 0 && raw.len() >= limit as usize;
        let entries = raw
            .into_iter()
            .filter_map(|entry| {
                Some(Entry {
                    task: entry.task?.parse().ok()?,
                    added: entry.added,
                })
            })
            .collect();
        QueueEntries {
            id: self.id,
            entries,
            cut,
        }
    }
}

impl Client {
    /// The first `limit` entries (0: all) of the named queues, hidden ones too. A queue that is gone is not in the answer.
    pub async fn queue_entries(
        &self,
        ids: &[QueueId],
        limit: u32,
    ) -> Result<Vec<QueueEntries>, Error> {
        let mut found = Vec::new();
        // An empty list of ids means "all queues" to the server: `chunks` sends nothing for it.
        for ids in ids.chunks(PAGE) {
            let body = json!({
                "id": ids, "only_fields": ["id", "entries"], "max_task_entries": limit, "search_hidden": true,
            });
            let page: Queues<RawQueue> = self.call("queues.get_all", &body).await?;
            found.extend(
                page.queues
                    .into_iter()
                    .map(|queue| queue.into_entries(limit)),
            );
        }
        Ok(found)
    }

    /// All entries of every queue that there is, hidden ones too: the only proof of "in no queue".
    pub async fn every_queue_entries(&self) -> Result<Vec<QueueEntries>, Error> {
        self.every_queue(["id", "entries"], |queue: RawQueue| queue.into_entries(0))
            .await
    }

    /// Ids and names of every queue, hidden ones too.
    pub async fn every_queue_name(&self) -> Result<Vec<QueueInfo>, Error> {
        self.every_queue(["id", "name"], |queue: QueueInfo| queue)
            .await
    }

    /// These fields of every queue, page by page.
    async fn every_queue<T: DeserializeOwned, U>(
        &self,
        fields: [&str; 2],
        of: fn(T) -> U,
    ) -> Result<Vec<U>, Error> {
        let mut found = Vec::new();
        for page in 0..MAX_PAGES {
            let body = json!({
                "only_fields": fields, "search_hidden": true, "order_by": ["id"],
                "page": page, "page_size": PAGE,
            });
            let answer: Queues<T> = self.call("queues.get_all", &body).await?;
            let last = answer.queues.len() < PAGE;
            found.extend(answer.queues.into_iter().map(of));
            if last {
                return Ok(found);
            }
        }
        Err(super::answer::protocol(
            "queues.get_all",
            format!("more than {MAX_PAGES} pages of queues"),
        ))
    }

    /// The queue of this id or exact name, hidden ones too. Names are asked for as an anchored, escaped expression.
    pub async fn find_queue(&self, name_or_id: &str) -> Result<Option<QueueInfo>, Error> {
        let mut body = json!({"only_fields": ["id", "name"], "search_hidden": true});
        if crate::task::is_object_id(name_or_id) {
            body["id"] = json!([name_or_id]);
        } else {
            body["name"] = json!(format!("^{}$", regex::escape(name_or_id)));
        }
        let found: Queues<QueueInfo> = self.call("queues.get_all", &body).await?;
        Ok(found
            .queues
            .into_iter()
            .find(|queue| queue.name == name_or_id || queue.id.as_str() == name_or_id))
    }

    /// Creates a queue; 400/801 if the name is taken.
    pub async fn create_queue(&self, name: &str) -> Result<QueueId, Error> {
        self.create(json!({"name": name})).await
    }

    /// Creates a queue that neither pages nor clients list: a pending queue.
    pub async fn create_hidden_queue(&self, name: &str) -> Result<QueueId, Error> {
        self.create(json!({"name": name, "system_tags": [HIDDEN_TAG]}))
            .await
    }

    async fn create(&self, body: Value) -> Result<QueueId, Error> {
        Ok(self.call::<Created>("queues.create", &body).await?.id)
    }

    /// Deletes a queue unless it has entries (400/702) or is gone already (400/701).
    pub async fn delete_queue(&self, queue: &QueueId) -> Result<(), Error> {
        let _: IgnoredAny = self
            .call("queues.delete", &json!({"queue": queue, "force": false}))
            .await?;
        Ok(())
    }

    /// Takes the task's entry out of this queue, wherever it stands. Of several callers one gets `true`; everybody else,
    /// and whoever asks for an entry or queue that is not there (400/703), gets `false`. The status stays as it is.
    pub async fn remove_from_queue(&self, queue: &QueueId, task: &TaskId) -> Result<bool, Error> {
        let answer: Result<Removed, Error> = self
            .call("queues.remove_task", &json!({"queue": queue, "task": task}))
            .await;
        match answer {
            Ok(removed) => Ok(removed.removed >= 1.0),
            Err(error) if error.is(400, 703) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves the task's entry to the head; `false` if it is not in this queue.
    pub async fn move_to_front(&self, queue: &QueueId, task: &TaskId) -> Result<bool, Error> {
        let body = json!({"queue": queue, "task": task});
        self.moved("queues.move_task_to_front", &body).await
    }

    /// Moves the task's entry so many places away from the head; `false` if it is not in this queue.
    pub async fn move_backward(
        &self,
        queue: &QueueId,
        task: &TaskId,
        count: usize,
    ) -> Result<bool, Error> {
        let body = json!({"queue": queue, "task": task, "count": count});
        self.moved("queues.move_task_backward", &body).await
    }

    async fn moved(&self, action: &str, body: &Value) -> Result<bool, Error> {
        match self.call::<IgnoredAny>(action, body).await {
            Ok(_) => Ok(true),
            Err(error) if error.is(400, 703) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How many entries the queue holds (API 2.15).
    pub async fn queue_length(&self, queue: &QueueId) -> Result<u64, Error> {
        let answer: Num = self
            .call("queues.get_num_entries", &json!({"queue": queue}))
            .await?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count; a float cast saturates"
        )]
        Ok(answer.num as u64)
    }
}
