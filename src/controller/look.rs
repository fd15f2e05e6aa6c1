//! The look: what a pass reads from the server. It changes nothing.
//!
//! ```text
//! queues.get_all (served and pending, first entries) ─▶ every queue, if a task is missing ─▶ tasks.get_all (live, candidates)
//! ```
//!
//! Entries are read before statuses, statuses before Jobs: a task on its way through a claim is then never taken for
//! one that nobody holds. The cost of an idle pass is one request, whatever waits in the queues.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::api::{Body, Client, Error, Facts, QueueEntries};
use crate::task::{QueueId, TaskId};

/// Entries read of each queue in an ordinary look, at least; a binding without limits starts this many in a pass.
const ENTRIES: u32 = 100;
/// Tasks whose bodies are read in one pass.
pub(super) const CANDIDATES: usize = 64;

/// What was read of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Found(Facts),
    /// The server was asked and does not know it.
    Gone,
    /// Its document could not be read.
    Unreadable,
}

/// The entries of the binding's queues.
#[derive(Debug)]
pub(super) struct Queues {
    /// When the first request was begun.
    pub read_at: Timestamp,
    /// Served queues in the binding's order; a queue that is gone has none.
    pub served: Vec<QueueEntries>,
    pub pending: QueueEntries,
    /// Queues that did not answer: deleted since they were resolved.
    pub gone: Vec<QueueId>,
    /// Every queue of the server, if this look read them all.
    pub every: Option<Vec<QueueEntries>>,
}

/// What was read of tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub read: HashMap<TaskId, Read>,
    /// Bodies of the candidates that could be read.
    pub bodies: HashMap<TaskId, Body>,
}

/// Reads the first entries of the binding's queues; with `all`, every queue of the server too.
pub(super) async fn queues(
    client: &Client,
    served: &[QueueId],
    pending: &QueueId,
    max_concurrent: Option<u32>,
    all: bool,
) -> Result<Queues, Error> {
    let read_at = Timestamp::now();
    let ids: Vec<QueueId> = served.iter().chain([pending]).cloned().collect();
    // The pending queue holds at most what the limit allows, and leftovers.
    let limit = max_concurrent.map_or(ENTRIES * 5, |most| {
        most.saturating_mul(2).clamp(ENTRIES, ENTRIES * 50)
    });
    let mut found: HashMap<QueueId, QueueEntries> = client
        .queue_entries(&ids, limit)
        .await?
        .into_iter()
        .map(|queue| (queue.id.clone(), queue))
        .collect();
    let every = if all {
        Some(client.every_queue_entries().await?)
    } else {
        None
    };
    let gone = ids
        .iter()
        .filter(|id| !found.contains_key(id))
        .cloned()
        .collect();
    let mut of = |id: &QueueId| {
        found.remove(id).unwrap_or_else(|| QueueEntries {
            id: id.clone(),
            entries: Vec::new(),
            cut: false,
        })
    };
    Ok(Queues {
        read_at,
        served: served.iter().map(&mut of).collect(),
        pending: of(pending),
        gone,
        every,
    })
}

/// Reads the facts of `live` and the bodies of `candidates`. Neither is asked for if there are none.
pub(super) async fn tasks(
    client: &Client,
    live: &HashSet<TaskId>,
    candidates: &HashSet<TaskId>,
) -> Result<Tasks, Error> {
    let live: Vec<TaskId> = live.difference(candidates).cloned().collect();
    let bodies: Vec<TaskId> = candidates.iter().cloned().collect();
    let (facts, bodies) =
        futures::try_join!(client.task_facts(&live), client.task_bodies(&bodies))?;
    let mut tasks = Tasks::default();
    for id in live.into_iter().chain(candidates.iter().cloned()) {
        tasks.read.insert(id, Read::Gone);
    }
    for unreadable in facts.unreadable.into_iter().chain(bodies.unreadable) {
        tracing::warn!(task = %unreadable.id, why = unreadable.why, "task document is not readable");
        tasks.read.insert(unreadable.id, Read::Unreadable);
    }
    for facts in facts.tasks {
        tasks.read.insert(facts.id.clone(), Read::Found(facts));
    }
    for body in bodies.tasks {
        tasks
            .read
            .insert(body.facts.id.clone(), Read::Found(body.facts.clone()));
        tasks.bodies.insert(body.facts.id.clone(), body);
    }
    Ok(tasks)
}

/// An entry of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub queue: &'a QueueId,
    pub added: Option<&'a str>,
    pub pending: bool,
}

/// A queue and when the entry was added to it.
pub(super) type Anywhere<'a> = (&'a QueueId, Option<&'a str>);

/// Every entry of a look by its task: built once a pass, so that finding one costs the same however long queues are.
#[derive(Debug)]
pub(super) struct Index<'a> {
    ordinary: HashMap<&'a TaskId, Place<'a>>,
    every: Option<HashMap<&'a TaskId, Vec<Anywhere<'a>>>>,
    existing: HashSet<&'a QueueId>,
}

impl<'a> Index<'a> {
    pub fn of(queues: &'a Queues) -> Self {
        let mut ordinary = HashMap::new();
        // The served queues come last: they win.
        for entry in &queues.pending.entries {
            let place = Place {
                queue: &queues.pending.id,
                added: entry.added.as_deref(),
                pending: true,
            };
            ordinary.insert(&entry.task, place);
        }
        for queue in queues.served.iter().rev() {
            for entry in &queue.entries {
                let place = Place {
                    queue: &queue.id,
                    added: entry.added.as_deref(),
                    pending: false,
                };
                ordinary.insert(&entry.task, place);
            }
        }
        let every = queues.every.as_ref().map(|every| {
            let mut by_task: HashMap<_, Vec<_>> = HashMap::new();
            for queue in every {
                for entry in &queue.entries {
                    by_task
                        .entry(&entry.task)
                        .or_default()
                        .push((&queue.id, entry.added.as_deref()));
                }
            }
            by_task
        });
        let existing = queues
            .every
            .iter()
            .flatten()
            .map(|queue| &queue.id)
            .collect();
        Self {
            ordinary,
            every,
            existing,
        }
    }

    /// Where the task stands in the binding's own queues.
    pub fn ordinary(&self, task: &TaskId) -> Option<Place<'a>> {
        self.ordinary.get(task).copied()
    }

    /// All places of the task in the whole server; `None` if this look did not read every queue.
    pub fn every(&self, task: &TaskId) -> Option<&[Anywhere<'a>]> {
        Some(self.every.as_ref()?.get(task).map_or(&[], Vec::as_slice))
    }

    /// Whether the queue exists, as far as this look can tell.
    pub fn exists(&self, queue: &QueueId) -> Option<bool> {
        self.every.as_ref().map(|_| self.existing.contains(queue))
    }
}
