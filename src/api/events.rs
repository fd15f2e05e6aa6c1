//! Events: log lines and statistics to the server, the end of a log back (`protocol.md` §1.9, §2.6).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Client, Error};
use crate::task::{TaskId, WorkerId};

/// One event of a batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type")]
pub enum Event {
    /// Console output; `msg` may hold several lines.
    #[serde(rename = "log")]
    Log {
        task: TaskId,
        worker: WorkerId,
        /// `DEBUG` is process output, `INFO` a note of ours, `ERROR` an abort (§2.6).
        level: &'static str,
        msg: String,
        /// Milliseconds since the epoch.
        timestamp: i64,
    },
    /// One point of a curve.
    #[serde(rename = "training_stats_scalar")]
    Scalar {
        task: TaskId,
        worker: WorkerId,
        metric: String,
        variant: String,
        iter: i64,
        value: f64,
        timestamp: i64,
    },
}

/// An event as it is sent.
#[derive(Serialize)]
struct Sent<'a> {
    #[serde(flatten)]
    event: &'a Event,
    /// A task that was published under its script still gets the whole log of it (§2.6).
    allow_locked: bool,
}

impl<'a> From<&'a Event> for Sent<'a> {
    fn from(event: &'a Event) -> Self {
        let allow_locked = matches!(event, Event::Log { .. });
        Self {
            event,
            allow_locked,
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub added: u64,
    pub errors: u64,
    /// The server's words for what it did not store.
    pub reasons: Vec<String>,
}

/// A line of a task's log as the server gives it back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    #[serde(default)]
    pub msg: String,
    #[serde(default)]
    pub level: String,
    #[serde(default)]
    pub worker: String,
    /// Milliseconds since the epoch.
    #[serde(default)]
    pub timestamp: i64,
}

#[derive(Deserialize)]
struct RawAdded {
    #[serde(default)]
    added: f64,
    #[serde(default)]
    errors: f64,
    #[serde(default)]
    errors_info: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    events: Vec<LogLine>,
}

impl Client {
    /// Sends one batch as NDJSON; an empty one is not sent. Log events are appended even if they were sent before. The
    /// caller keeps batches below 1 MiB. That nothing at all was stored (400/131) is not an error here.
    pub async fn add_events(&self, events: &[Event]) -> Result<Added, Error> {
        if events.is_empty() {
            return Ok(Added {
                added: 0,
                errors: 0,
                reasons: Vec::new(),
            });
        }
        let mut body = String::new();
        for event in events {
            let line = serde_json::to_string(&Sent::from(event))
                .map_err(|error| super::answer::protocol("events.add_batch", error))?;
            body.push_str(&line);
            body.push('\n');
        }
        body.pop();
        match self
            .authorized::<RawAdded>("events.add_batch", "application/json-lines", body)
            .await
        {
            Ok(answer) => Ok(Added {
                added: count(answer.added),
                errors: count(answer.errors),
                reasons: answer
                    .errors_info
                    .unwrap_or_default()
                    .into_iter()
                    .take(10)
                    .map(|(text, _)| text)
                    .collect(),
            }),
            Err(Error::Refused {
                http: 400,
                subcode: 131,
                msg,
                ..
            }) => Ok(Added {
                added: 0,
                errors: events.len() as u64,
                reasons: vec![msg],
            }),
            Err(error) => Err(error),
        }
    }

    /// The last lines of a task's log, oldest first; at least `lines` if there are so many.
    pub async fn log_tail(&self, task: &TaskId, lines: u32) -> Result<Vec<LogLine>, Error> {
        let body =
            json!({"task": task, "batch_size": lines, "navigate_earlier": true, "order": "asc"});
        Ok(self.call::<Log>("events.get_task_log", &body).await?.events)
    }

    /// The page of a task's log before `timestamp_ms` (milliseconds), oldest first.
    pub async fn log_before(
        &self,
        task: &TaskId,
        timestamp_ms: i64,
        lines: u32,
    ) -> Result<Vec<LogLine>, Error> {
        let body = json!({
            "task": task, "batch_size": lines, "navigate_earlier": true, "order": "asc", "from_timestamp": timestamp_ms,
        });
        Ok(self.call::<Log>("events.get_task_log", &body).await?.events)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count; a float cast saturates"
)]
fn count(value: f64) -> u64 {
    value as u64
}
