//! The slow sweep: tasks that name our workers or queues and that no queue entry and no Job leads to.
//!
//! Once a minute all tasks in progress and all queued tasks are read, few fields of each, so many pages at most; and if
//! one of our queues' tasks is not where we look, every queue. What it finds is only suspected: the passes observe it until the quiet time has told.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::fault;
use super::observe::{self, Identity};
use super::together::{Seat, Wanted};
use crate::api::{Error, Facts};
use crate::task::{QueueId, TaskId};

const PERIOD: Duration = Duration::from_mins(1);
/// After the other things that are done once a minute.
const OFFSET: Duration = Duration::from_secs(30);
/// A suspect that sweeps do not find any more is dropped.
const SUSPECTED: Duration = Duration::from_mins(2);
/// Suspects that are observed at once.
const MOST: usize = 200;

/// Suspects and when they were last found.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: Option<Instant>,
    suspects: HashMap<TaskId, Instant>,
}

impl Sweep {
    /// Sweeps if it is due. `in_hand` tells whether passes observe the task anyway: by its entry, or by a Job that is not
    /// done with.
    pub async fn sweep(
        &mut self,
        seat: &Seat,
        identity: &Identity,
        served: &[QueueId],
        in_hand: impl Fn(&TaskId) -> bool,
    ) -> Result<(), Error> {
        let now = Instant::now();
        self.suspects
            .retain(|_, found| now.duration_since(*found) < SUSPECTED);
        if self.next.is_some_and(|next| now < next) {
            return Ok(());
        }
        self.next = Some(seat.next(PERIOD, OFFSET));
        let census = seat.census().await?;
        let (running, queued) = (&census.running, &census.queued);
        let lost = running
            .tasks
            .iter()
            .filter(|facts| runs_by_our_name(identity, facts));
        let mut suspected: Vec<&TaskId> = lost
            .map(|facts| &facts.id)
            .filter(|id| !in_hand(id))
            .collect();
        let mut missing: Vec<&TaskId> = queued
            .tasks
            .iter()
            .filter(|facts| is_for(served, facts))
            .map(|facts| &facts.id)
            .filter(|id| !in_hand(id))
            .collect();
        if !missing.is_empty() {
            // Most of them only stand far behind in a long queue, or wait for their pod in another cluster.
            let wanted = Wanted {
                queues: Vec::new(),
                limit: u32::MAX,
                all: true,
            };
            let everywhere = seat.entries(wanted).await?;
            fault::point!("sweep/queues-read");
            let entered: HashSet<&TaskId> = everywhere
                .every
                .iter()
                .flat_map(|every| every.iter())
                .flat_map(|queue| queue.entries.iter().map(|entry| &entry.task))
                .collect();
            missing.retain(|id| !entered.contains(id));
        }
        suspected.extend(missing);
        for id in suspected {
            if self.suspects.len() < MOST || self.suspects.contains_key(id) {
                self.suspects.insert(id.clone(), now);
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

/// Queued for one of our queues.
fn is_for(served: &[QueueId], facts: &Facts) -> bool {
    facts
        .queue
        .as_ref()
        .is_some_and(|queue| served.contains(queue))
}
