//! One pass over a binding: look, observe, admit, apply.
//!
//! What it costs does not grow with the length of the queues: one request for entries, one for live tasks if there are
//! any, one for the bodies of tasks that may go if there is room for them.

mod cases;
mod counters;
mod laps;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use self::laps::Laps;
use super::admit::{self, Admitted, Room, Waiting};
use super::apply::{Fault, Hands, Lines, Report};
use super::foresee::Foreseen;
use super::kueue;
use super::live::{self, Live};
use super::look::{self, Index, Queues};
use super::memory::Memory;
use super::observe::Sight;
use super::offer::{self, Offer, Readings, Selection};
use super::refusal;
use super::refuse;
use super::scene::Scene;
use super::verdict;
use crate::api;
use crate::capacity::Free;
use crate::claim::{Observed, Policy, decide};
use crate::crd::{Capacity, QueueBindingSpec, QueueStatus};
use crate::pod::label;
use crate::render;
use crate::task::TaskId;

/// Tasks that are worked on at once.
const HANDS: usize = 32;
/// A Job that the API server refused is not tried again for this long.
const REFUSED: Duration = Duration::from_mins(1);

/// What a pass leads to.
#[derive(Default)]
pub(super) struct Passed {
    /// Something was done, so that more may follow from it: look again soon. What the cluster does meanwhile wakes the
    /// loop by itself.
    pub busy: bool,
    /// How many tasks were admitted.
    pub admitted: usize,
    /// Why the first of those who wait is not taken.
    pub waiting: Option<Waiting>,
    pub queues: Vec<QueueStatus>,
    /// Tasks whose Job the API server refused, and its words.
    pub refused: Vec<(TaskId, String)>,
    /// Tasks that were failed because of their image, and why.
    pub rejected: Vec<(TaskId, String)>,
    /// A call to the server failed in a step.
    pub fault: Option<api::Error>,
    /// A queue is gone: resolve again.
    pub queues_gone: bool,
    /// No entry is pending and nothing is claimed that has not started.
    pub nothing_claimed: bool,
    /// Tasks of the served queues that have stood queued, in no queue, for the quiet time: somebody popped and dropped
    /// them.
    pub stranded: Vec<TaskId>,
    /// What would have been done, of a pass with tied hands.
    pub foreseen: Vec<Foreseen>,
    /// How long the first entry of each served queue has stood there, by the queue's name.
    pub heads: HashMap<String, Duration>,
}

/// One pass.
pub(super) async fn pass(scene: &Scene<'_>, memory: &mut Memory) -> Result<Passed, api::Error> {
    let (context, identity, client) = (scene.context, scene.identity, scene.client);
    let (spec, namespace) = (
        &scene.binding.spec,
        scene.binding.namespace().unwrap_or_default(),
    );

    // Look: entries first, then statuses, then Jobs. What was done since the entries were read is in the latter.
    let mut laps = Laps::start();
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
    let before = Live::of(context, identity, &namespace);
    let entered: HashSet<&TaskId> = queues
        .served
        .iter()
        .chain([&queues.pending])
        .flat_map(|queue| queue.entries.iter().map(|entry| &entry.task))
        .collect();
    memory
        .sweep
        .sweep(scene.seat, identity, &served, |task| {
            entered.contains(task) || before.own_unsettled.contains(task)
        })
        .await?;
    memory.kueue_hold = memory.kueue.judge(scene).await.err();
    if scene.dry.is_none() {
        kueue::clear_evicted(context, &namespace, &before.own_unended).await;
    }
    let held_back = kueue::held_back(&before.own_unended);
    let words = &mut memory.lore.kueue;
    memory.kueue.explain(scene, &held_back, words).await;
    refusal::ask(scene, memory).await;
    laps.end("sweep");
    let nodes = (spec.capacity == Capacity::FreeResources).then(|| free_nodes(scene, &before));
    let mut room = Room::of(&spec.limits, before.own_unended.iter()).on(nodes);
    let mut offer = Offer::of(scene, memory, &queues, &room);
    let mut asked = live_tasks(memory, &queues, &before);
    asked.extend(about.cloned());
    let tasks = look::tasks(client, scene.seat, &asked, &offer.tasks()).await?;
    let projects = tasks.bodies.values().map(|body| body.task.project.as_str());
    offer::learn_project_names(client, memory, projects).await?;
    laps.end("tasks");
    let live = Live::of(context, identity, &namespace);
    let binding_label = render::LabelValue::of(&scene.binding.name_any());
    let whose = (namespace.as_str(), binding_label.as_str());
    live::learn(context, memory, whose, &live, scene.dry.is_some()).await;
    laps.end("live");

    // Observe.
    let index = Index::of(&queues);
    let sight = Sight {
        identity,
        queues: &queues,
        index: &index,
        tasks: &tasks.read,
        objects: &live.objects,
        sound: context.jobs.sound() && context.pods.sound(),
        lore: &memory.lore,
        cause: &|job, pods| verdict::cause(job, &memory.lore.pods_or_remains(job, pods)),
    };
    let facts: Vec<_> = tasks
        .read
        .keys()
        .map(|task| (task.clone(), sight.facts(task)))
        .collect();
    let observed: HashMap<TaskId, Observed> = facts
        .into_iter()
        .map(|(task, facts)| {
            let observed = memory.tracker.observe(&task, facts, queues.read_at);
            (task, observed)
        })
        .collect();
    let known: HashSet<TaskId> = observed.keys().cloned().collect();
    memory.tracker.keep(&known);
    memory.told.keep(&known);
    memory.returned.keep(&queues.served);

    // Admit.
    let policy = Policy {
        restore_orphans: scene.binding.restores_stranded() && !scene.retiring,
        ..cases::policy(spec, scene.retiring)
    };
    let readings = Readings {
        observed: &observed,
        bodies: &tasks.bodies,
        live: &live,
        policy: &policy,
    };
    let candidates = std::mem::take(&mut offer.candidates);
    let Selection {
        admitted,
        jobs,
        refused,
    } = offer::admit(
        scene,
        memory,
        (candidates, &offer.aged),
        &readings,
        &mut room,
    );
    let rejected = match &scene.dry {
        Some(_) => refused
            .into_iter()
            .map(|(task, refusal)| (task, refusal.why))
            .collect(),
        None => refuse::refuse(scene, &observed, refused).await?,
    };
    reserve(scene, memory, &admitted);
    let cases = cases::cases(
        observed,
        &live,
        spec,
        &policy,
        &admitted,
        offer.hold.as_ref(),
        jobs,
        (&memory.troubles, &memory.lore),
    );
    laps.end("admit");

    // Apply.
    let mut passed = Passed {
        waiting: first_of(offer.waiting, admitted.waiting.clone()),
        queues_gone: !queues.gone.is_empty(),
        nothing_claimed: cases::nothing_claimed(&queues, &cases),
        stranded: cases::stranded(&cases),
        heads: counters::heads(scene, &queues),
        busy: !rejected.is_empty(),
        admitted: admitted.tasks.len(),
        rejected,
        ..Passed::default()
    };
    if scene.dry.is_some() {
        let now = Timestamp::now();
        passed.foreseen = cases
            .into_iter()
            .map(|case| Foreseen {
                step: decide(&case.observed, &case.policy, now),
                case,
            })
            .collect();
        return Ok(passed);
    }
    let wants_all = cases.iter().any(cases::needs_every_queue);
    let binding = scene.binding.name_any();
    let hands = Hands {
        context,
        client,
        identity,
        spec,
        namespace: &namespace,
        binding: &binding,
        resolved: scene.resolved,
        lore: &memory.lore,
        all_queues_read: all,
        told: &memory.told,
        returned: &memory.returned,
        lines: Lines::default(),
    };
    let reports: Vec<(TaskId, Report)> = futures::stream::iter(cases)
        .map(|case| hands.carry_out(case))
        .buffer_unordered(if scene.retiring { 1 } else { HANDS })
        .collect()
        .await;
    laps.end("steps");
    hands.send_lines().await;
    laps.end("lines");
    laps.tell(&binding, live.own_unended.len(), passed.admitted);
    take_in(memory, reports, wants_all, &mut passed);
    counters::learn_lengths(client, memory, &queues).await?;
    passed.queues = counters::counters(
        scene,
        &queues,
        &Live::of(context, identity, &namespace),
        memory,
    );
    Ok(passed)
}

/// Entries to read of each queue: as many as may be looked past, and some.
fn entries_wanted(spec: &QueueBindingSpec) -> u32 {
    let limits = &spec.limits;
    let grouped = limits.per_user.is_some() || limits.per_project.is_some();
    let most = limits
        .max_concurrent
        .and_then(|most| u32::try_from(most).ok());
    let lookahead = u32::try_from(spec.lookahead.unwrap_or(0)).unwrap_or(0);
    look::entries(most.filter(|_| !grouped), lookahead)
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

/// Keeps the room of admitted tasks until their pods are seen.
fn reserve(scene: &Scene<'_>, memory: &Memory, admitted: &Admitted) {
    for task in &admitted.tasks {
        let placement = memory
            .asks
            .get(task)
            .and_then(|known| known.ask.placement.clone());
        if let Some(placement) = placement {
            scene.context.nodes.reserve(task, placement);
        }
    }
}

/// Of two reasons to wait the one that holds up more than one user's tasks, else the first.
fn first_of(one: Option<Waiting>, other: Option<Waiting>) -> Option<Waiting> {
    match (one, other) {
        (Some(one), Some(other)) if one.own && !other.own => Some(other),
        (one, other) => one.or(other),
    }
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

/// What the steps have led to, for the next pass and for the status.
fn take_in(
    memory: &mut Memory,
    reports: Vec<(TaskId, Report)>,
    wants_all: bool,
    passed: &mut Passed,
) {
    let now = Instant::now();
    let mut at_once = false;
    let (mut released, mut release_failed) = (false, false);
    for (task, report) in reports {
        passed.busy |= !report.done.is_empty();
        at_once |= report.wants_every_queue;
        passed.queues_gone |= report.pending_gone;
        released |= report.released;
        if let Some((queue, words)) = report.pod_refused {
            memory.refusals.note(queue, words, now);
        }
        if report.created {
            memory.last_dispatch = Some(Timestamp::now());
        }
        match report.fault {
            None | Some(Fault::Late) => {}
            Some(Fault::Server(error)) => passed.fault = Some(error),
            Some(Fault::Cluster(_)) => passed.busy = true,
            Some(Fault::Release(_)) => release_failed = true,
            Some(Fault::JobRefused(message)) => {
                memory.refused.insert(task.clone(), now + REFUSED);
                passed.refused.push((task, message));
            }
        }
    }
    // None new while releases fail; one that succeeds, or nobody left to release, ends that.
    memory.release_failed = release_failed || (memory.release_failed && !released && passed.busy);
    memory.every_queue.note(wants_all || at_once, at_once, now);
}
