//! One batch to the server, exactly once.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::batch::Batch;
use crate::api::{Backoff, Client, Error, Event};
use crate::task::{TaskId, WorkerId};

/// What a request may still do after its answer was lost, and what a server needs to make a new event readable.
const SETTLE: Duration = Duration::from_millis(1500);
/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Most pages of the log that are read back at once.
const MAX_PAGES: usize = 50;

/// To which task, and as whom.
#[derive(Debug)]
pub struct Sender {
    pub client: Client,
    pub task: TaskId,
    pub worker: WorkerId,
}

/// What is known about a batch before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It was never sent.
    Fresh,
    /// A sender that is gone may have sent it.
    Uncertain,
}

impl Sender {
    /// Sends until all of `batch` is on the server, or the server has refused it for good.
    pub async fn send(&self, batch: Batch, before: Before) {
        let mut events = self.events(batch);
        let mut uncertain = before == Before::Uncertain;
        let mut backoff = Backoff::new(LONGEST_WAIT);
        while !events.is_empty() {
            let result = if uncertain {
                sleep(SETTLE).await;
                self.stored(&events).await.map(|stored| {
                    events.retain(|event| !stored.contains(&time_of(event)));
                    uncertain = false;
                })
            } else {
                self.client.add_events(&events).await.map(|added| {
                    if added.errors > 0 {
                        let reasons = added.reasons.join("; ");
                        tracing::warn!(
                            errors = added.errors,
                            reasons,
                            "the server did not store some log events"
                        );
                    }
                    events.clear();
                })
            };
            let Err(error) = result else { continue };
            match judge(&error) {
                Verdict::NotSent => {}
                Verdict::Unknown => uncertain = true,
                Verdict::Refused => {
                    tracing::error!(%error, events = events.len(), "the server refuses the log; these events are dropped");
                    return;
                }
            }
            let wait = backoff.next(error.retry_after());
            tracing::warn!(%error, "log not sent yet");
            sleep(wait).await;
        }
    }

    fn events(&self, batch: Batch) -> Vec<Event> {
        let timed = batch.pieces.iter().map(|piece| piece.time).zip(batch.texts);
        timed
            .filter(|(_, text)| !text.is_empty())
            .map(|(timestamp, msg)| Event::Log {
                task: self.task.clone(),
                worker: self.worker.clone(),
                level: "DEBUG",
                msg,
                timestamp,
            })
            .collect()
    }

    /// The times of those `events` that the server has: its log is read back from the newest of them to the oldest.
    async fn stored(&self, events: &[Event]) -> Result<BTreeSet<i64>, Error> {
        let times: BTreeSet<i64> = events.iter().map(time_of).collect();
        let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else {
            return Ok(BTreeSet::new());
        };
        let page_size = u32::try_from(events.len())
            .unwrap_or(u32::MAX)
            .saturating_add(10);
        let mut stored = BTreeSet::new();
        let mut before = last + 1;
        for _ in 0..MAX_PAGES {
            let page = self
                .client
                .log_before(&self.task, before, page_size)
                .await?;
            let Some(oldest) = page.iter().map(|line| line.timestamp).min() else {
                break;
            };
            let ours = page.iter().filter(|line| line.worker == self.worker.0);
            stored.extend(
                ours.map(|line| line.timestamp)
                    .filter(|time| times.contains(time)),
            );
            if oldest <= first || oldest >= before {
                break;
            }
            before = oldest;
        }
        Ok(stored)
    }
}

/// What a failed request means for its events.
enum Verdict {
    NotSent,
    Unknown,
    Refused,
}

fn judge(error: &Error) -> Verdict {
    match error {
        _ if error.is_undelivered() => Verdict::NotSent,
        // Keys are rotated, rights come back: nothing was stored, and the spool is patient.
        Error::Refused {
            http: 401 | 403, ..
        } => Verdict::NotSent,
        Error::Refused { .. } => Verdict::Refused,
        Error::Transient { .. } | Error::Protocol { .. } => Verdict::Unknown,
    }
}

fn time_of(event: &Event) -> i64 {
    match event {
        Event::Log { timestamp, .. } | Event::Scalar { timestamp, .. } => *timestamp,
    }
}
