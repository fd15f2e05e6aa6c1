//! Queues that were found deleted. What one look has found out stays so for those after it that cannot tell.

use std::collections::{HashMap, HashSet};

use crate::controller::look::{Index, Queues, Read};
use crate::task::{QueueId, TaskId};

/// Queues that tasks name and that no longer exist.
///
/// Only a look at every queue can tell of any queue, and one that asks for a queue by its id of that one. If the looks in
/// between took it for one that exists, the facts would change with the kind of the look, and a task that names it would
/// never stand unchanged for the quiet time. No id is given out twice, so what is gone stays gone.
#[derive(Debug, Default)]
pub(in crate::controller) struct Deleted(HashSet<QueueId>);

impl Deleted {
    /// Takes in what this look tells of its own queues and, if it has read them all, of those that its tasks name.
    pub fn learn(&mut self, queues: &Queues, index: &Index<'_>, tasks: &HashMap<TaskId, Read>) {
        if queues.every.is_some() {
            self.0 = tasks
                .values()
                .filter_map(|read| match read {
                    Read::Found(facts) => facts.queue.as_ref(),
                    Read::Gone | Read::Unreadable => None,
                })
                .filter(|queue| index.exists(queue) == Some(false))
                .cloned()
                .collect();
        }
        // Asked for by their ids: those that have answered exist (a backup may have brought them back), the others do not.
        for queue in &queues.served {
            self.0.remove(&queue.id);
        }
        self.0.extend(queues.gone.iter().cloned());
    }

    /// Whether the queue was found deleted.
    pub fn contains(&self, queue: &QueueId) -> bool {
        self.0.contains(queue)
    }
}
