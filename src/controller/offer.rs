//! The offer: who stands in the served queues, and who of them is read in a pass; and the selection of those that go.
//!
//! ```text
//! Offer       entries, what earlier passes know ──wanted──▶ bodies ◀──────────┐
//! Selection                                      ┌────────────┘               │
//!                                                └──▶ render ──▶ admit ──wanted, a few times
//!                                                                  └──▶ the Jobs to create
//! ```

mod image;
mod selection;

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::admit::{Admitted, Course, Head, Room, Rules, Waiting};
use super::fault;
use super::hours;
use super::look::Queues;
use super::memory::{Known, Memory};
use super::scene::Scene;
use crate::api::{self, Client, QueueEntries};
use crate::claim::order;
use crate::crd::Strategy;
use crate::task::{QueueId, TaskId};

pub(super) use selection::{Judged, Readings, admit, nodes_of, remember};

/// Who may go, who of them has to be read, and why the others wait.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Tasks by served queue, in their order.
    lines: HashMap<QueueId, Vec<TaskId>>,
    /// Those of them that have to be read before more can be decided.
    unread: Vec<TaskId>,
    /// Those that were read in this pass, and in how many rounds.
    read: HashSet<TaskId>,
    rounds: u32,
    /// Those that have waited beyond `spec.aging`, and since when.
    aged: HashMap<TaskId, Timestamp>,
    /// Why nothing at all is taken, not even what is intended already.
    pub hold: Option<Waiting>,
    /// Why nobody new is taken.
    pub waiting: Option<Waiting>,
}

impl Offer {
    /// The tasks of the served queues, and those of them that have to be read by what is known of them before.
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
        let made_from: Vec<(&QueueEntries, Option<String>)> = queues
            .served
            .iter()
            .map(|queue| (queue, made_from(scene, &queue.id)))
            .collect();
        forget(&mut memory.asks, &made_from);
        let lines = made_from
            .iter()
            .filter(|(_, made_from)| made_from.is_some())
            .map(|(queue, _)| (queue.id.clone(), line(queue, &memory.refused)))
            .collect();
        let mut offer = Self {
            lines,
            aged: aged(scene, queues),
            ..Self::default()
        };
        let rules = rules(scene, &offer.aged);
        let course = Course::of(rules, &offer.lines, memory.turns.clone(), room.clone());
        let nobody = Admitted::default();
        offer.unread = course.wanted(&nobody, 0, |task| remembered(&memory.asks, task));
        offer
    }

    /// Whether more have to be read before all is decided.
    pub fn wants_more(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Those that are read now.
    pub fn next_round(&mut self) -> HashSet<TaskId> {
        let unread: HashSet<TaskId> = std::mem::take(&mut self.unread).into_iter().collect();
        self.read.extend(unread.iter().cloned());
        self.rounds += 1;
        unread
    }
}

/// The tasks of a queue that may go, in their order.
fn line(queue: &QueueEntries, refused: &HashMap<TaskId, Instant>) -> Vec<TaskId> {
    let tasks = queue.entries.iter().map(|entry| &entry.task);
    tasks
        .filter(|task| !refused.contains_key(*task))
        .cloned()
        .collect()
}

/// Forgets entries that are gone, and what tasks ask for whose Jobs would be made from something else by now.
fn forget(asks: &mut HashMap<TaskId, Known>, queues: &[(&QueueEntries, Option<String>)]) {
    if asks.is_empty() {
        return;
    }
    let mut standing = HashMap::new();
    for (queue, made_from) in queues {
        for entry in &queue.entries {
            // Of several entries the first is the one that is observed.
            let place = (entry.added.as_deref(), made_from.as_deref());
            standing.entry(&entry.task).or_insert(place);
        }
    }
    asks.retain(|task, known| {
        let Some((added, made_from)) = standing.get(task) else {
            return false;
        };
        if *made_from != Some(known.made_from.as_str()) {
            known.ask = None;
        }
        known.added.as_deref() == *added
    });
}

/// What earlier passes know of a task.
fn remembered(asks: &HashMap<TaskId, Known>, task: &TaskId) -> Head {
    let known = asks
        .get(task)
        .and_then(|known| Some((known.ask.clone()?, known.overtaken)));
    known.map_or(Head::Unread, |(ask, overtaken)| Head::Known {
        ask,
        overtaken,
    })
}

/// By what the tasks of a binding are picked.
fn rules<'a>(scene: &Scene<'a>, aged: &'a HashMap<TaskId, Timestamp>) -> Rules<'a> {
    Rules {
        strategy: match scene.binding.spec.strategy {
            Strategy::Priority => order::Strategy::Priority,
            Strategy::RoundRobin => order::Strategy::RoundRobin,
            Strategy::Weighted => order::Strategy::Weighted,
        },
        lanes: &scene.resolved.lanes,
        lookahead: scene.lookahead(),
        aged,
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_task_asks_for_is_forgotten_with_its_template_and_all_of_it_with_its_entry() {
        let task: TaskId = "a".repeat(32).parse().unwrap();
        let after = |added: &str, made_from: &str| {
            let entry = api::Entry {
                task: task.clone(),
                added: Some(added.to_owned()),
            };
            let queue = QueueEntries {
                id: "b".repeat(32).parse().unwrap(),
                entries: vec![entry],
                cut: false,
            };
            let known = Known {
                added: Some("noon".to_owned()),
                made_from: "1/template".to_owned(),
                ask: Some(Arc::default()),
                overtaken: 2,
            };
            let mut asks = HashMap::from([(task.clone(), known)]);
            forget(&mut asks, &[(&queue, Some(made_from.to_owned()))]);
            asks
        };
        let same = remembered(&after("noon", "1/template"), &task);
        assert!(matches!(same, Head::Known { overtaken: 2, .. }), "{same:?}");
        let edited = after("noon", "2/template");
        assert_eq!(remembered(&edited, &task), Head::Unread);
        assert_eq!(edited[&task].overtaken, 2);
        assert!(after("night", "1/template").is_empty());
    }
}
