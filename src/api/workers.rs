//! Workers: who is able to run tasks, and what runs where (`protocol.md` §2.5, §5).

use std::time::Duration;

use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Client, Error};
use crate::task::{QueueId, TaskId, WorkerId};

/// One report of a worker (§5.2).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusReport {
    pub worker: WorkerId,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Queues that the worker serves; empty changes nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueId>,
    /// The task that it runs: the server writes `last_worker` on it. Absent: idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// §5.2; null in reports that an event triggers.
    pub machine_stats: Option<Value>,
}

impl Client {
    /// Registers a worker for `timeout`; a repeat replaces everything. 400/701 names an unknown queue.
    pub async fn register_worker(
        &self,
        worker: &WorkerId,
        queues: &[QueueId],
        timeout: Duration,
    ) -> Result<(), Error> {
        let body = json!({"worker": worker, "queues": queues, "timeout": timeout.as_secs()});
        let _: IgnoredAny = self.call("workers.register", &body).await?;
        Ok(())
    }

    /// Takes a worker off the list; an unknown one is no error.
    pub async fn unregister_worker(
        &self,
        worker: &WorkerId,
        queues: &[QueueId],
    ) -> Result<(), Error> {
        let _: IgnoredAny = self
            .call(
                "workers.unregister",
                &json!({"worker": worker, "queues": queues}),
            )
            .await?;
        Ok(())
    }

    /// Sends one report; it also renews the registration.
    pub async fn report_worker(&self, report: &StatusReport) -> Result<(), Error> {
        let _: IgnoredAny = self.call("workers.status_report", report).await?;
        Ok(())
    }
}
