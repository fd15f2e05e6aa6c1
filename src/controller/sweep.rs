//! The slow sweep: tasks that name our workers or queues and that no queue entry and no Job leads to.
//!
//! Once a minute all tasks in progress and all queued tasks are read, few fields of each, so many pages at most. What
//! it finds is only suspected: the passes observe it until the quiet time has told.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::observe::{self, Identity};
use crate::api::{Client, Error, Facts};
use crate::claim::UserQueue;
use crate::task::{QueueId, Status, TaskId};

const PERIOD: Duration = Duration::from_mins(1);
/// Pages of 500 tasks that are read of each status.
const PAGES: usize = 20;
/// A suspect that nothing was to be done about is dropped; the next sweep finds it again if need be.
const SUSPECTED: Duration = Duration::from_mins(2);
/// Suspects that are observed at once.
const MOST: usize = 200;

/// Suspects and when they were found.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: Option<Instant>,
    suspects: HashMap<TaskId, Instant>,
}

impl Sweep {
    /// Sweeps if it is due. `has_job` tells whether a Job of the task is known.
    pub async fn sweep(
        &mut self,
        client: &Client,
        identity: &Identity,
        served: &[QueueId],
        has_job: impl Fn(&TaskId) -> bool,
    ) -> Result<(), Error> {
        let now = Instant::now();
        self.suspects
            .retain(|_, found| now.duration_since(*found) < SUSPECTED);
        if self.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        self.next = Some(now + PERIOD);
        let running = client.task_facts_in(Status::InProgress, PAGES).await?;
        let queued = client.task_facts_in(Status::Queued, PAGES).await?;
        let lost = running
            .tasks
            .iter()
            .filter(|facts| runs_by_our_name(identity, facts));
        let taken_out = queued
            .tasks
            .iter()
            .filter(|facts| was_taken_out(served, facts));
        for facts in lost.chain(taken_out).filter(|facts| !has_job(&facts.id)) {
            if self.suspects.len() < MOST {
                self.suspects.entry(facts.id.clone()).or_insert(now);
            }
        }
        Ok(())
    }

    /// Tasks to be observed beside those with Jobs and entries.
    pub fn suspects(&self) -> impl Iterator<Item = &TaskId> {
        self.suspects.keys()
    }
}

fn runs_by_our_name(identity: &Identity, facts: &Facts) -> bool {
    observe::task_state(identity, &facts.id, facts, |_| true)
        .run_of()
        .is_some()
}

/// Queued for one of our queues by a dequeue that remembered `queued` (protocol.md §4).
fn was_taken_out(served: &[QueueId], facts: &Facts) -> bool {
    let user_queue = facts
        .queue
        .clone()
        .map_or(UserQueue::Unset, UserQueue::Known);
    facts.enqueue_status.is_none()
        && matches!(user_queue, UserQueue::Known(queue) if served.contains(&queue))
}
