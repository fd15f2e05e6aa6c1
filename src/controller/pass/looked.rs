//! The look of a pass: entries first, then statuses, then Jobs. What was done since the entries were read is in the
//! latter. Where more tasks have to be read, Jobs are looked at anew after them.

use std::collections::HashSet;

use kube::ResourceExt;
use tokio::time::Instant;

use super::laps::Laps;
use crate::api;
use crate::capacity::Free;
use crate::controller::admit::{self, Room, Waiting};
use crate::controller::kueue;
use crate::controller::live::{self, Live};
use crate::controller::look::{self, Queues, Tasks};
use crate::controller::memory::Memory;
use crate::controller::offer::{self, Offer};
use crate::controller::refusal;
use crate::controller::scene::Scene;
use crate::crd::{Capacity, QueueBindingSpec};
use crate::pod::label;
use crate::render;
use crate::task::{QueueId, TaskId};

/// What a pass knows before it decides about anybody.
pub(super) struct Looked {
    pub queues: Queues,
    /// Whether every queue of the server was read.
    pub all: bool,
    pub tasks: Tasks,
    pub live: Live,
    pub room: Room,
    pub offer: Offer,
}

/// Looks at the server and at the mirrors of the cluster.
pub(super) async fn look(
    scene: &Scene<'_>,
    memory: &mut Memory,
    namespace: &str,
    laps: &mut Laps,
) -> Result<Looked, api::Error> {
    let (context, identity) = (scene.context, scene.identity);
    let spec = &scene.binding.spec;
    let about = scene.dry.as_ref().and_then(|dry| dry.about.as_ref());
    let all = about.is_some() || memory.every_queue.due(Instant::now());
    let served = scene.resolved.ids();
    let queues = look::queues(
        scene.seat,
        &served,
        &scene.resolved.pending,
        entries_wanted(spec),
        all,
    )
    .await?;
    if all {
        memory.every_queue.last = Some(Instant::now());
    }
    laps.end("entries");
    let before = Live::of(context, identity, namespace);
    sweep(scene, memory, &served, &queues, &before).await?;
    ask_kueue(scene, memory, namespace, &before).await;
    refusal::ask(scene, memory).await;
    laps.end("sweep");
    let nodes = (spec.capacity == Capacity::FreeResources).then(|| free_nodes(scene, &before));
    let room = Room::of(&spec.limits, before.own_unended.iter()).on(nodes);
    let mut offer = Offer::of(scene, memory, &queues, &room);
    let mut asked = live_tasks(memory, &queues, &before);
    asked.extend(about.cloned());
    // The mirrors are looked at again below: with thousands of live Jobs two such views at once are much memory.
    drop(before);
    let tasks = read(scene, memory, &asked, &mut offer).await?;
    laps.end("tasks");
    let live = live_now(scene, memory, namespace).await;
    laps.end("live");
    Ok(Looked {
        queues,
        all,
        tasks,
        live,
        room,
        offer,
    })
}

impl Looked {
    /// Reads those that have to be read before more can be decided.
    pub async fn read_on(
        &mut self,
        scene: &Scene<'_>,
        memory: &mut Memory,
        namespace: &str,
    ) -> Result<(), api::Error> {
        self.live = Live::default();
        let more = read(scene, memory, &HashSet::new(), &mut self.offer).await?;
        self.tasks.extend(more);
        self.live = live_now(scene, memory, namespace).await;
        Ok(())
    }
}

/// The facts of these tasks, and the bodies of those on offer that have to be read.
async fn read(
    scene: &Scene<'_>,
    memory: &mut Memory,
    asked: &HashSet<TaskId>,
    offer: &mut Offer,
) -> Result<Tasks, api::Error> {
    let client = scene.client;
    let packages = scene
        .binding
        .spec
        .environment
        .cache
        .tells_environments_apart();
    let tasks = look::tasks(client, scene.seat, asked, &offer.next_round(), packages).await?;
    let projects = tasks.bodies.values().map(|body| body.task.project.as_str());
    offer::learn_project_names(client, memory, projects).await?;
    Ok(tasks)
}

/// Jobs and pods as the mirrors have them now, and what is learnt from them.
async fn live_now(scene: &Scene<'_>, memory: &mut Memory, namespace: &str) -> Live {
    let (context, identity) = (scene.context, scene.identity);
    let live = Live::of(context, identity, namespace);
    let binding_label = render::LabelValue::of(&scene.binding.name_any());
    let whose = (namespace, binding_label.as_str());
    live::learn(context, memory, whose, &live, scene.dry.is_some()).await;
    let cache = &scene.binding.spec.environment.cache;
    memory.environments.learn(cache, identity, &live);
    live
}

/// The slow sweep, if it is due, for tasks that neither an entry nor a Job leads to.
async fn sweep(
    scene: &Scene<'_>,
    memory: &mut Memory,
    served: &[QueueId],
    queues: &Queues,
    before: &Live,
) -> Result<(), api::Error> {
    let entered: HashSet<&TaskId> = queues
        .served
        .iter()
        .chain([&queues.pending])
        .flat_map(|queue| queue.entries.iter().map(|entry| &entry.task))
        .collect();
    memory
        .sweep
        .sweep(scene.seat, scene.identity, served, |task| {
            entered.contains(task) || before.own_unsettled.contains(task)
        })
        .await
}

/// Whether Kueue keeps anything from being taken; what it has evicted is cleared, and what it holds back explained.
async fn ask_kueue(scene: &Scene<'_>, memory: &mut Memory, namespace: &str, before: &Live) {
    memory.kueue_hold = memory.kueue.judge(scene).await.err();
    if scene.dry.is_none() {
        kueue::clear_evicted(scene.context, namespace, &before.own_unended).await;
    }
    let held_back = kueue::held_back(&before.own_unended);
    let words = &mut memory.lore.kueue;
    memory.kueue.explain(scene, &held_back, words).await;
}

/// Entries to read of each queue: as many as may be looked past, and some.
fn entries_wanted(spec: &QueueBindingSpec) -> u32 {
    let limits = &spec.limits;
    let most = limits
        .max_concurrent
        .and_then(|most| u32::try_from(most).ok());
    let lookahead = u32::try_from(spec.lookahead.unwrap_or(0)).unwrap_or(0);
    look::entries(most.filter(|_| !limits.has_groups()), lookahead)
}

/// What is free on the nodes, less what this binding's Jobs will take whose pods are not there yet.
fn free_nodes(scene: &Scene<'_>, live: &Live) -> Result<Free, Waiting> {
    let without_pod = live.own_unended.iter().filter_map(|job| {
        let task: TaskId = job.label(label::TASK)?.parse().ok()?;
        let pods = live
            .objects
            .get(&task)
            .map_or(0, |objects| objects.pods.len());
        (pods == 0).then(|| (task, admit::ask_of(job).need))
    });
    scene.context.nodes.free(without_pod)
}

/// Tasks whose facts are asked for: with a Job that is not done with, with a pending entry, or suspected.
fn live_tasks(memory: &Memory, queues: &Queues, before: &Live) -> HashSet<TaskId> {
    before
        .own_unsettled
        .iter()
        .chain(queues.pending.entries.iter().map(|entry| &entry.task))
        .chain(memory.sweep.suspects())
        .cloned()
        .collect()
}
