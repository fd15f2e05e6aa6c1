//! The offer: which heads of the served queues are read in a pass; and the selection of those that go.
//!
//! ```text
//! Offer       entries ──hold, room──▶ candidates ──bodies──┐
//! Selection      ┌─────────────────────────────────────────┘
//!                └──▶ render ──requests──▶ admit ──▶ the Jobs to create
//! ```

mod image;
mod selection;

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::admit::{Room, Waiting};
use super::fault;
use super::hours;
use super::look::{CANDIDATES, Queues};
use super::memory::Memory;
use super::scene::Scene;
use crate::api::{self, Client, QueueEntries};
use crate::task::{QueueId, TaskId};

pub(super) use selection::{Readings, Selection, admit, nodes_of};

/// Heads that may go, and why the others wait.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Tasks by served queue, in their order.
    pub candidates: HashMap<QueueId, VecDeque<TaskId>>,
    /// Those of them that have to be read.
    read: HashSet<TaskId>,
    /// Those that have waited beyond `spec.aging`, and since when.
    pub aged: HashMap<TaskId, Timestamp>,
    /// Why nothing at all is taken, not even what is intended already.
    pub hold: Option<Waiting>,
    /// Why the first of those who wait has to.
    pub waiting: Option<Waiting>,
}

impl Offer {
    /// Heads of the served queues, as many as there is room for.
    pub fn of(scene: &Scene<'_>, memory: &mut Memory, queues: &Queues, room: &Room) -> Self {
        let spec = &scene.binding.spec;
        let closed = hours::is_closed(spec.suspend, &spec.schedule, Timestamp::now());
        memory.troubles.close(closed);
        if let Some(hold) = hold(scene, memory) {
            return Self {
                waiting: Some(hold.clone()),
                hold: Some(hold),
                ..Self::default()
            };
        }
        if let Err(full) = room.full() {
            return Self {
                waiting: Some(full),
                ..Self::default()
            };
        }
        let now = Instant::now();
        memory.refused.retain(|_, until| now < *until);
        let free = room.free().unwrap_or(CANDIDATES);
        let each = free.min((CANDIDATES / queues.served.len().max(1)).max(1));
        let mut offer = Self {
            aged: aged(scene, queues),
            ..Self::default()
        };
        let mut standing = HashSet::new();
        for queue in &queues.served {
            standing.extend(queue.entries.iter().map(|entry| &entry.task));
            let Some(made_from) = made_from(scene, &queue.id) else {
                continue;
            };
            let within = Within {
                room,
                aged: &offer.aged,
                lookahead: scene.lookahead(),
                most: each,
            };
            let line = line(queue, &made_from, memory, &within);
            if let Some(reason) = line.holds_all {
                // The room that gets free is kept for it.
                return Self {
                    waiting: Some(reason),
                    ..Self::default()
                };
            }
            offer.read.extend(line.read);
            match offer.waiting.take() {
                // What holds up more than one user's tasks is told first.
                Some(known) if !known.own => offer.waiting = Some(known),
                known => offer.waiting = line.waiting.or(known),
            }
            offer.candidates.insert(queue.id.clone(), line.tasks);
        }
        memory.asks.retain(|task, _| standing.contains(task));
        if offer.read.is_empty() {
            // Nobody new to ask for: those that are known do not fit.
            offer.candidates.clear();
        }
        offer
    }

    /// All candidates that have to be read.
    pub fn tasks(&self) -> HashSet<TaskId> {
        self.read.clone()
    }
}

/// The candidates of one queue.
#[derive(Default)]
struct Line {
    /// In their order, those that are known not to fit among them.
    tasks: VecDeque<TaskId>,
    read: Vec<TaskId>,
    waiting: Option<Waiting>,
    /// Why its first task has to wait, which has waited so long that nobody goes before it.
    holds_all: Option<Waiting>,
}

/// Within what a queue is gone through.
struct Within<'a> {
    room: &'a Room,
    aged: &'a HashMap<TaskId, Timestamp>,
    lookahead: usize,
    most: usize,
}

/// Tasks at the queues' heads that have waited beyond `spec.aging`, by the server's clock at their entry and ours at the
/// look.
fn aged(scene: &Scene<'_>, queues: &Queues) -> HashMap<TaskId, Timestamp> {
    let Some(bound) = scene.binding.spec.aging else {
        return HashMap::new();
    };
    let bound = SignedDuration::try_from(bound.duration()).unwrap_or(SignedDuration::MAX);
    let entries = queues.served.iter().flat_map(|queue| &queue.entries);
    entries
        .filter_map(|entry| {
            let added: Timestamp = entry.added.as_deref()?.parse().ok()?;
            let waited = queues.read_at.duration_since(added);
            (waited >= bound).then(|| (entry.task.clone(), added))
        })
        .collect()
}

/// Goes through a queue until as many have to be read as may go, or nobody may overtake those who stay.
fn line(queue: &QueueEntries, made_from: &str, memory: &Memory, within: &Within<'_>) -> Line {
    let Within {
        room,
        aged,
        lookahead,
        most,
    } = *within;
    let mut line = Line::default();
    let mut behind_a_blocked = None;
    let offered = queue
        .entries
        .iter()
        .filter(|entry| !memory.refused.contains_key(&entry.task));
    for entry in offered {
        let known = memory
            .asks
            .get(&entry.task)
            .filter(|known| known.added == entry.added && known.made_from == made_from);
        let fits = known.map(|known| (known.overtaken, room.fits(&known.ask)));
        match fits {
            Some((_, Err(reason))) if reason.own => {
                line.waiting.get_or_insert(reason);
                continue;
            }
            Some((overtaken, Err(reason))) => {
                let aged = aged.contains_key(&entry.task);
                if aged && line.tasks.is_empty() && reason.is_of_limits() {
                    line.holds_all = Some(reason);
                    return line;
                }
                if line.waiting.as_ref().is_none_or(|known| known.own) {
                    line.waiting = Some(reason);
                }
                line.tasks.push_back(entry.task.clone());
                if aged || overtaken >= lookahead {
                    break;
                }
                behind_a_blocked = Some(behind_a_blocked.map_or(0, |tried: usize| tried + 1));
            }
            // What fits by now may have been edited meanwhile: it is read again.
            Some((_, Ok(()))) | None => {
                line.tasks.push_back(entry.task.clone());
                line.read.push(entry.task.clone());
                behind_a_blocked = behind_a_blocked.map(|tried| tried + 1);
            }
        }
        if line.read.len() >= most || behind_a_blocked.is_some_and(|tried| tried >= lookahead) {
            break;
        }
    }
    line
}

/// What tasks of a queue are rendered from; nothing if its template was refused.
fn made_from(scene: &Scene<'_>, queue: &QueueId) -> Option<String> {
    let template = scene.template(queue)?;
    let generation = scene.binding.metadata.generation.unwrap_or_default();
    Some(format!("{generation}/{}", template.hash()))
}

/// Why nothing at all is taken, if so.
fn hold(scene: &Scene<'_>, memory: &Memory) -> Option<Waiting> {
    if scene.retiring {
        return Some(Waiting::new("Deleting", "the binding is being deleted"));
    }
    let spec = &scene.binding.spec;
    if let Some(closed) = hours::hold(spec.suspend, &spec.schedule, Timestamp::now()) {
        return Some(closed);
    }
    if let Some(unsafe_for_claims) = &memory.kueue_hold {
        return Some(unsafe_for_claims.clone());
    }
    if scene.templates.none() {
        return Some(Waiting::new(
            "NoTemplate",
            "nothing is taken without a valid template",
        ));
    }
    if memory.release_failed {
        return Some(Waiting::new(
            "ReleaseFailed",
            "a Job could not be released; nothing is taken until one can",
        ));
    }
    memory.refusals.hold(Instant::now())
}

/// Names of projects that were not asked for yet.
pub(super) async fn learn_project_names<'a>(
    client: &Client,
    memory: &mut Memory,
    projects: impl Iterator<Item = &'a str>,
) -> Result<(), api::Error> {
    let unknown: HashSet<&str> = projects
        .filter(|id| !id.is_empty() && !memory.project_names.contains_key(*id))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    if memory.project_names.len() > 10_000 {
        memory.project_names.clear();
    }
    let ids: Vec<String> = unknown.into_iter().map(str::to_owned).collect();
    let names = client.project_names(&ids).await?;
    fault::point!("look/projects-read");
    // A project that is gone has no name; it is not asked for again.
    memory
        .project_names
        .extend(ids.into_iter().map(|id| (id, String::new())));
    memory.project_names.extend(names);
    Ok(())
}
