//! The offer: which heads of the served queues are read, rendered and admitted in a pass.
//!
//! ```text
//! entries ──hold, room──▶ candidates ──bodies──▶ render ──requests──▶ admit ──▶ the Jobs to create
//! ```

mod image;

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use self::image::{OfImage, Stays};
use super::admit::{self, Admitted, Head, Room, Waiting};
use super::hours;
use super::images::{self, Refusal};
use super::live::Live;
use super::look::{CANDIDATES, Queues};
use super::memory::{Known, Memory};
use super::observe::Objects;
use super::scene::Scene;
use crate::api::{self, Client, QueueEntries};
use crate::capacity::{Ask, Placement};
use crate::claim::order;
use crate::claim::{Admission, Entry, Observed, Policy, Step, decide};
use crate::crd::{Capacity, Strategy};
use crate::pod::annotation;
use crate::render::{self, Rendered};
use crate::task::{QueueId, TaskId, WorkerId};

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
    if scene.binding.spec.suspend {
        return Some(Waiting::new(
            "Suspended",
            "the binding is suspended (spec.suspend)",
        ));
    }
    match hours::open(&scene.binding.spec.schedule, Timestamp::now()) {
        Ok(()) => {}
        Err(closed) => return Some(closed),
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
    // A project that is gone has no name; it is not asked for again.
    memory
        .project_names
        .extend(ids.into_iter().map(|id| (id, String::new())));
    memory.project_names.extend(names);
    Ok(())
}

/// What was read of the candidates.
pub(super) struct Readings<'a> {
    pub observed: &'a HashMap<TaskId, Observed>,
    pub bodies: &'a HashMap<TaskId, api::Body>,
    pub live: &'a Live,
    pub policy: &'a Policy,
}

/// Who goes, their Jobs, and who is refused because of its image.
pub(super) struct Selection {
    pub admitted: Admitted,
    pub jobs: HashMap<TaskId, Rendered>,
    pub refused: Vec<(TaskId, Refusal)>,
}

/// Renders and admits candidates while there is room.
pub(super) fn admit(
    scene: &Scene<'_>,
    memory: &mut Memory,
    (candidates, aged): (
        HashMap<QueueId, VecDeque<TaskId>>,
        &HashMap<TaskId, Timestamp>,
    ),
    readings: &Readings<'_>,
    room: &mut Room,
) -> Selection {
    let (mut jobs, mut refused) = (HashMap::new(), Vec::new());
    let policy = readings.policy.admitting(Admission::Yes);
    let strategy = match scene.binding.spec.strategy {
        Strategy::Priority => order::Strategy::Priority,
        Strategy::RoundRobin => order::Strategy::RoundRobin,
        Strategy::Weighted => order::Strategy::Weighted,
    };
    let Memory {
        asks,
        project_names,
        turns,
        ..
    } = memory;
    let head = |task: &TaskId| {
        let overtaken = asks.get(task).map_or(0, |known| known.overtaken);
        let Some(body) = readings.bodies.get(task) else {
            // Not read: it is known and did not fit before.
            return asks.get(task).map_or(Head::Skip, |known| Head::Ready {
                ask: known.ask.clone(),
                overtaken,
            });
        };
        let rendered =
            |image: OfImage<'_>| render(scene, project_names, readings, &policy, body, image);
        let Some((queue, mut job)) = rendered(OfImage::default()) else {
            return Head::Skip;
        };
        match image::look(scene, queue, &mut job, rendered) {
            Ok(()) => {}
            Err(Stays::Skip) => return Head::Skip,
            Err(Stays::Hold) => return Head::Hold,
            Err(Stays::Waits(reason)) => return Head::Waits(reason),
            Err(Stays::Refused(refusal)) => {
                refused.push((task.clone(), refusal));
                return Head::Skip;
            }
        }
        let ask = ask(scene, body, &job);
        let added = readings
            .observed
            .get(task)
            .and_then(|observed| observed.facts.stamps.entry_added.clone());
        let known = Known {
            overtaken: asks
                .get(task)
                .filter(|known| known.added == added)
                .map_or(0, |known| known.overtaken),
            added,
            made_from: made_from(scene, queue).unwrap_or_default(),
            ask: ask.clone(),
        };
        let overtaken = known.overtaken;
        asks.insert(task.clone(), known);
        jobs.insert(task.clone(), job);
        Head::Ready { ask, overtaken }
    };
    let rules = admit::Rules {
        strategy,
        lanes: &scene.resolved.lanes,
        lookahead: scene.lookahead(),
        aged,
    };
    let admitted = admit::admit(&rules, turns, candidates, room, head);
    for (task, times) in &admitted.overtaken {
        if let Some(known) = asks.get_mut(task) {
            known.overtaken = *times;
        }
    }
    Selection {
        admitted,
        jobs,
        refused,
    }
}

/// What a task asks for, and whose it is.
fn ask(scene: &Scene<'_>, body: &api::Body, job: &Rendered) -> Ask {
    let label = |id: &str| render::LabelValue::of(id).as_str().to_owned();
    let spec = &job.job["spec"]["template"]["spec"];
    Ask {
        need: job.requests.clone(),
        user: label(&body.task.user),
        project: label(&body.task.project),
        placement: (scene.binding.spec.capacity == Capacity::FreeResources)
            .then(|| Placement::of(spec)),
    }
}

/// The Job of a task that is on offer, and its queue; nothing if something else has to happen to it first.
fn render<'a>(
    scene: &Scene<'_>,
    project_names: &HashMap<String, String>,
    readings: &Readings<'a>,
    policy: &Policy,
    body: &api::Body,
    image: OfImage<'_>,
) -> Option<(&'a QueueId, Rendered)> {
    let task = &body.task.id;
    let observed = readings.observed.get(task)?;
    let Step::Intend {
        attempt,
        returned,
        failures,
        ..
    } = decide(observed, policy, Timestamp::now())
    else {
        return None;
    };
    let Entry::Served { queue } = &observed.facts.entry else {
        return None;
    };
    let rendered = render::render(&render::Inputs {
        binding: &super::rendered_binding(scene.binding),
        spec: &scene.binding.spec,
        template: scene.template(queue)?,
        task: &body.task,
        attempt,
        queue: scene.resolved.queue(queue)?,
        pending_queue: &scene.resolved.pending,
        project_name: project_names
            .get(&body.task.project)
            .map_or("", String::as_str),
        worker: &WorkerId::of_attempt(&scene.identity.worker, task, attempt),
        server: scene.server,
        settings: &scene.context.settings.images,
        returned,
        failures,
        avoid_nodes: &nodes_of(readings.live.objects.get(task)),
        remark: image.remark,
        runs: images::runs(scene.uses_entrypoint(queue), image.own),
    });
    Some((queue, rendered))
}

/// Nodes on which earlier attempts ran.
pub(super) fn nodes_of(objects: Option<&Objects>) -> Vec<String> {
    let Some(Objects { jobs, pods }) = objects else {
        return Vec::new();
    };
    // A pod that was taken away is gone; where it was stands on its Job.
    let noted = jobs
        .iter()
        .filter_map(|job| job.annotation(annotation::NODE));
    let known = pods.iter().filter_map(|pod| pod.node());
    let mut nodes: Vec<String> = noted.chain(known).map(str::to_owned).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}
