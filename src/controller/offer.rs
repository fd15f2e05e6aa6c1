//! The offer: which heads of the served queues are read, rendered and admitted in a pass.
//!
//! ```text
//! entries ──hold, room──▶ candidates ──bodies──▶ render ──requests──▶ admit ──▶ the Jobs to create
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::admit::{self, Admitted, Head, Room, Waiting};
use super::live::Live;
use super::look::{CANDIDATES, Queues};
use super::memory::Memory;
use super::observe::Objects;
use super::pass::Scene;
use crate::api::{self, Client};
use crate::claim::order;
use crate::claim::{Admission, Entry, Observed, Policy, Step, decide};
use crate::crd::Strategy;
use crate::render::{self, Rendered, Template};
use crate::task::{QueueId, TaskId, WorkerId};

/// Heads that may go, and why the others wait.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// Tasks by served queue, in their order.
    pub candidates: HashMap<QueueId, VecDeque<TaskId>>,
    /// Why nothing at all is taken, not even what is intended already.
    pub hold: Option<Waiting>,
    /// Why the first of those who wait has to.
    pub waiting: Option<Waiting>,
}

impl Offer {
    /// Heads of the served queues, as many as there is room for.
    pub fn of(scene: &Scene<'_>, memory: &mut Memory, queues: &Queues, room: &Room) -> Self {
        let hold = hold(scene, memory);
        let Some(template) = scene.template.filter(|_| hold.is_none()) else {
            return Self {
                waiting: hold.clone(),
                hold,
                ..Self::default()
            };
        };
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
        let mut offer = Self::default();
        let mut heads = HashSet::new();
        for queue in &queues.served {
            let mut waiting = queue
                .entries
                .iter()
                .filter(|entry| !memory.refused.contains_key(&entry.task))
                .peekable();
            let Some(head) = waiting.peek() else { continue };
            heads.insert(head.task.clone());
            // A head that did not fit is not read again before there is room for it.
            let known = memory.needs.get(&head.task);
            let need =
                known.filter(|(added, hash, _)| *added == head.added && hash == template.hash());
            if let Some(Err(reason)) = need.map(|(_, _, need)| room.fits(need)) {
                offer.waiting.get_or_insert(reason);
                continue;
            }
            let candidates = waiting.take(each).map(|entry| entry.task.clone()).collect();
            offer.candidates.insert(queue.id.clone(), candidates);
        }
        memory.needs.retain(|task, _| heads.contains(task));
        offer
    }

    /// All candidates.
    pub fn tasks(&self) -> HashSet<TaskId> {
        self.candidates.values().flatten().cloned().collect()
    }
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
    if scene.template.is_none() {
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
    let refused = memory
        .pods_refused
        .as_ref()
        .filter(|(until, _)| Instant::now() < *until);
    refused.map(|(_, words)| Waiting::new("PodsRefused", words))
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

/// Renders and admits candidates while there is room; answers who goes, and their Jobs.
pub(super) fn admit(
    scene: &Scene<'_>,
    memory: &mut Memory,
    candidates: HashMap<QueueId, VecDeque<TaskId>>,
    readings: &Readings<'_>,
    room: &mut Room,
) -> (Admitted, HashMap<TaskId, Rendered>) {
    let mut jobs = HashMap::new();
    let Some(template) = scene.template else {
        return (Admitted::default(), jobs);
    };
    let policy = readings.policy.admitting(Admission::Yes);
    let strategy = match scene.binding.spec.strategy {
        Strategy::Priority => order::Strategy::Priority,
        Strategy::RoundRobin => order::Strategy::RoundRobin,
        Strategy::Weighted => order::Strategy::Weighted,
    };
    let Memory {
        needs,
        project_names,
        turns,
        ..
    } = memory;
    let admitted = admit::admit(
        strategy,
        &scene.resolved.lanes,
        turns,
        candidates,
        room,
        |task| {
            let Some(job) = render(scene, template, project_names, readings, &policy, task) else {
                return Head::Skip;
            };
            let added = readings
                .observed
                .get(task)
                .and_then(|observed| observed.facts.stamps.entry_added.clone());
            let need = job.requests.clone();
            needs.insert(
                task.clone(),
                (added, template.hash().to_owned(), need.clone()),
            );
            jobs.insert(task.clone(), job);
            Head::Ready(need)
        },
    );
    (admitted, jobs)
}

/// The Job of a task that is on offer; nothing if something else has to happen to it first.
fn render(
    scene: &Scene<'_>,
    template: &Template,
    project_names: &HashMap<String, String>,
    readings: &Readings<'_>,
    policy: &Policy,
    task: &TaskId,
) -> Option<Rendered> {
    let observed = readings.observed.get(task)?;
    let body = readings.bodies.get(task)?;
    let Step::Intend {
        attempt, returned, ..
    } = decide(observed, policy, Timestamp::now())
    else {
        return None;
    };
    let Entry::Served { queue } = &observed.facts.entry else {
        return None;
    };
    Some(render::render(&render::Inputs {
        binding: &super::rendered_binding(scene.binding),
        spec: &scene.binding.spec,
        template,
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
        avoid_nodes: &nodes_of(readings.live.objects.get(task)),
    }))
}

/// Nodes on which earlier attempts ran.
fn nodes_of(objects: Option<&Objects>) -> Vec<String> {
    let pods = objects
        .map(|objects| objects.pods.as_slice())
        .unwrap_or_default();
    let node = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let nodes: HashSet<String> = pods.iter().filter_map(node).collect();
    let mut nodes: Vec<String> = nodes.into_iter().collect();
    nodes.sort();
    nodes
}
