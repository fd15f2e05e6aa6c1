//! What a binding's loop remembers from pass to pass. All of it may be lost: waits only start again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::admit::Waiting;
use super::adopt::Adoption;
use super::ahead::Ahead;
use super::apply::Told;
use super::environments::Environments;
use super::history::History;
use super::inquiry::Inquiry;
use super::kueue::Kueue;
use super::observe::{Deleted, Lore, Stranded, Tracker};
use super::patience::Troubles;
use super::phases::Phases;
use super::refusal::Refusals;
use super::sweep::Sweep;
use super::turn::Returned;
use crate::capacity::Ask;
use crate::claim::order::Turns;
use crate::task::{QueueId, TaskId};

/// A task that is in no ordinary place for this long is worth a look into every queue: most of them are just between
/// the fence and `in_progress`.
const PATIENCE: Duration = Duration::from_millis(500);

/// The memory of one binding's loop.
#[derive(Default)]
pub(super) struct Memory {
    pub tracker: Tracker,
    pub deleted: Deleted,
    pub stranded: Stranded,
    pub turns: Turns,
    pub lore: Lore,
    pub told: Told,
    pub returned: Returned,
    pub sweep: Sweep,
    pub inquiry: Inquiry,
    pub troubles: Troubles,
    pub phases: Phases,
    pub environments: Environments,
    pub ahead: Ahead,
    pub adoption: Adoption,
    pub history: History,
    pub every_queue: EveryQueue,
    /// What tasks ask for that were read and did not go: they are not read again before they fit. No more than stand
    /// among the entries of a look.
    pub asks: HashMap<TaskId, Known>,
    pub refused: HashMap<TaskId, Instant>,
    /// Lengths of queues that are longer than what a look reads, and when they were asked for.
    pub lengths: HashMap<QueueId, (u64, Instant)>,
    pub project_names: HashMap<String, String>,
    pub kueue: Kueue,
    /// Why Kueue keeps anything from being taken, if so.
    pub kueue_hold: Option<Waiting>,
    pub release_failed: bool,
    pub refusals: Refusals,
    pub last_dispatch: Option<Timestamp>,
}

/// What was learnt of a task that waits.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// When its entry was added: another entry is another wish.
    pub added: Option<String>,
    /// What it was rendered from: generation of the binding and hash of the template.
    pub made_from: String,
    /// Nothing if it would be made from something else by now.
    pub ask: Option<Arc<Ask>>,
    /// How often tasks behind it went before it.
    pub overtaken: usize,
}

/// When the next look has to read every queue of the server.
#[derive(Debug, Default)]
pub(super) struct EveryQueue {
    wanted_since: Option<Instant>,
    pub last: Option<Instant>,
}

impl EveryQueue {
    pub fn due(&self, now: Instant) -> bool {
        let Some(since) = self.wanted_since else {
            return false;
        };
        let wanted_for = now.duration_since(since);
        // What stands for long is read less often.
        let interval = (wanted_for / 4).clamp(Duration::from_millis(500), Duration::from_secs(10));
        wanted_for >= PATIENCE
            && self
                .last
                .is_none_or(|last| now.duration_since(last) >= interval)
    }

    pub fn note(&mut self, wanted: bool, at_once: bool, now: Instant) {
        if !wanted {
            self.wanted_since = None;
        } else if at_once {
            self.wanted_since
                .get_or_insert(now.checked_sub(PATIENCE).unwrap_or(now));
        } else {
            self.wanted_since.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_is_read_only_for_what_stays_out_of_place_and_less_often_with_time() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut every = EveryQueue::default();
        assert!(!every.due(start));
        every.note(true, false, start);
        assert!(!every.due(after(100)));
        assert!(every.due(after(600)));
        every.last = Some(after(40_000));
        assert!(!every.due(after(45_000)));
        assert!(every.due(after(52_000)));
        every.note(false, false, after(52_000));
        assert!(!every.due(after(60_000)));
        every.note(true, true, after(60_000));
        assert!(every.due(after(60_000)) || start.elapsed() < PATIENCE);
    }
}
