//! The look: what a pass reads from the server. It changes nothing.
//!
//! ```text
//! queues.get_all (served and pending, first entries) ─▶ every queue, if a task is missing ─▶ tasks.get_all (live, candidates)
//! ```
//!
//! Entries are read before statuses, statuses before Jobs: a task on its way through a claim is then never taken for
//! one that nobody holds. The cost of an idle pass is one request, whatever waits in the queues, and the bindings of a
//! server share it ([`together`](super::together)).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::fault;
use super::together::{Seat, Wanted};
use crate::api::{Body, Client, Error, Facts, QueueEntries};
use crate::task::{QueueId, TaskId};

/// Entries read of each queue in an ordinary look, at least; a binding without limits starts this many in a pass.
const ENTRIES: u32 = 100;
/// Tasks whose bodies are read at once: about as many as can be claimed before it is time to look again.
pub(super) const CANDIDATES: usize = 256;

/// What was read of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Found(Arc<Facts>),
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
    pub every: Option<Arc<Vec<QueueEntries>>>,
}

/// What was read of tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub read: HashMap<TaskId, Read>,
    /// Bodies of the candidates that could be read.
    pub bodies: HashMap<TaskId, Body>,
}

impl Tasks {
    /// The same with what was read after it.
    pub fn extend(&mut self, more: Self) {
        self.read.extend(more.read);
        self.bodies.extend(more.bodies);
    }
}

/// How many entries of each queue an ordinary look reads, where so many tasks may run at the same time and so many be
/// looked past. The pending queue holds at most what the limit allows, and leftovers.
pub(super) fn entries(max_concurrent: Option<u32>, lookahead: u32) -> u32 {
    let limit = max_concurrent.map_or(ENTRIES * 5, |most| {
        most.saturating_mul(2).clamp(ENTRIES, ENTRIES * 50)
    });
    limit.max(lookahead.saturating_add(ENTRIES))
}

/// Reads the first `limit` entries of the binding's queues; with `all`, every queue of the server too.
pub(super) async fn queues(
    seat: &Seat,
    served: &[QueueId],
    pending: &QueueId,
    limit: u32,
    all: bool,
) -> Result<Queues, Error> {
    let ids: Vec<QueueId> = served.iter().chain([pending]).cloned().collect();
    let wanted = Wanted {
        queues: ids.clone(),
        limit,
        all,
    };
    let found = seat.entries(wanted).await?;
    let gone = ids
        .iter()
        .filter(|id| !found.queues.contains_key(id))
        .cloned()
        .collect();
    let of = |id: &QueueId| match found.queues.get(id) {
        // Others may have asked for more of it.
        Some(queue) if queue.entries.len() > limit as usize => QueueEntries {
            id: id.clone(),
            entries: queue.entries[..limit as usize].to_vec(),
            cut: true,
        },
        Some(queue) => queue.clone(),
        None => QueueEntries {
            id: id.clone(),
            entries: Vec::new(),
            cut: false,
        },
    };
    Ok(Queues {
        read_at: found.read_at,
        served: served.iter().map(of).collect(),
        pending: of(pending),
        gone,
        every: found.every.clone().filter(|_| all),
    })
}

/// Reads the facts of `live` and the bodies of `candidates`, with the packages that they list if those matter. Neither is
/// asked for if there are none.
pub(super) async fn tasks(
    client: &Client,
    seat: &Seat,
    live: &HashSet<TaskId>,
    candidates: &HashSet<TaskId>,
    packages: bool,
) -> Result<Tasks, Error> {
    let live: Vec<TaskId> = live.difference(candidates).cloned().collect();
    let bodies: Vec<TaskId> = candidates.iter().cloned().collect();
    let (facts, bodies) = futures::try_join!(
        seat.facts(live.clone()),
        client.task_bodies(&bodies, packages)
    )?;
    fault::point!("look/tasks-read");
    let mut tasks = Tasks::default();
    for id in candidates {
        tasks.read.insert(id.clone(), Read::Gone);
    }
    for id in live {
        let read = match (facts.known.get(&id), facts.unreadable.get(&id)) {
            (Some(facts), _) => Read::Found(facts.clone()),
            (None, Some(why)) => unreadable(&id, why),
            (None, None) => Read::Gone,
        };
        tasks.read.insert(id, read);
    }
    for one in bodies.unreadable {
        let read = unreadable(&one.id, &one.why);
        tasks.read.insert(one.id, read);
    }
    for body in bodies.tasks {
        let facts = Arc::new(body.facts.clone());
        tasks.read.insert(body.facts.id.clone(), Read::Found(facts));
        tasks.bodies.insert(body.facts.id.clone(), body);
    }
    Ok(tasks)
}

fn unreadable(task: &TaskId, why: &str) -> Read {
    tracing::warn!(%task, why, "task document is not readable");
    Read::Unreadable
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
            for queue in every.iter() {
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
            .flat_map(|every| every.iter())
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
