//! Tasks that somebody else popped and dropped. What one look has found out stays so for those after it that cannot tell.

use std::collections::BTreeSet;

use crate::claim::{Facts, Observed, Phase, QUIET_TIME, TaskFact};
use crate::task::{Status, TaskId};

/// Tasks of the served queues that have stood queued, in no queue and without a Job of ours, for longer than a plain agent
/// needs from its pop to its start.
///
/// Only a look at every queue can tell that a task stands in none. If the looks in between took it for found again, what is
/// told of it would change with the kind of the look, every few seconds.
#[derive(Debug, Default)]
pub(in crate::controller) struct Stranded(BTreeSet<TaskId>);

impl Stranded {
    /// Takes in what this look tells of the tasks that it observed; answers all that are stranded, as far as is known. A
    /// task that is observed no more is none of them.
    pub fn learn<'a>(
        &mut self,
        observed: impl Iterator<Item = (&'a TaskId, &'a Observed)>,
    ) -> Vec<TaskId> {
        let before = std::mem::take(&mut self.0);
        self.0 = observed
            .filter(|(task, observed)| {
                is_stranded(observed) || (before.contains(*task) && is_untold(&observed.facts))
            })
            .map(|(task, _)| task.clone())
            .collect();
        self.0.iter().cloned().collect()
    }
}

fn is_stranded(observed: &Observed) -> bool {
    let stood = observed.read_at.duration_since(observed.unchanged_since);
    matches!(Phase::of(&observed.facts), Phase::Orphan(_)) && stood >= QUIET_TIME
}

/// Whether this look could not tell: it may stand in a queue or not.
fn is_untold(facts: &Facts) -> bool {
    let may_be_queued = match &facts.task {
        TaskFact::Found(task) => task.status == Status::Queued,
        TaskFact::Unknown => true,
        TaskFact::Gone => false,
    };
    may_be_queued && Phase::of(facts) == Phase::Unclear
}
