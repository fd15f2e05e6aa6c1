//! One pass over a binding: look, observe, admit, apply.
//!
//! What it costs does not grow with the length of the queues: one request for entries, one for live tasks if there are
//! any, one for the bodies of tasks that may go if there is room for them; a few more for bodies where the order of those
//! that go rests on tasks that were not read.

mod cases;
mod counters;
mod laps;
mod looked;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tokio::time::Instant;

use self::laps::Laps;
use self::looked::Looked;
use super::admit::{Admitted, Waiting};
use super::ahead;
use super::apply::{Case, Fault, Hands, Lines, Readers, Report};
use super::foresee::Foreseen;
use super::history;
use super::live::Live;
use super::look::{Index, Tasks};
use super::memory::Memory;
use super::observe::Sight;
use super::offer::{self, Judged, Readings};
use super::refuse;
use super::scene::Scene;
use super::verdict;
use crate::api;
use crate::claim::{Admission, Observed, Policy, decide};
use crate::crd::QueueStatus;
use crate::task::TaskId;

/// Tasks that are worked on at once: enough for the API server to be busy with some while the server is with others.
const HANDS: usize = 96;
/// A Job that the API server refused is not tried again for this long.
const REFUSED: Duration = Duration::from_mins(1);

/// Once its look is so old a pass reads no more tasks: its steps have to begin within their deadline.
const READS: SignedDuration = SignedDuration::from_secs(3);

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
    let namespace = scene.binding.namespace().unwrap_or_default();
    let mut laps = Laps::start();
    let mut looked = looked::look(scene, memory, &namespace, &mut laps).await?;
    let Chosen {
        mut admitted,
        rejected,
        cases,
    } = admit(scene, memory, &namespace, &mut looked).await?;
    // What was read of them is in the Jobs now.
    looked.tasks = Tasks::default();
    laps.end("admit");
    let mut passed = Passed {
        waiting: first_of(looked.offer.waiting.take(), admitted.waiting.take()),
        queues_gone: !looked.queues.gone.is_empty(),
        nothing_claimed: cases::nothing_claimed(&looked.queues, &cases),
        stranded: memory
            .stranded
            .learn(cases.iter().map(|case| (&case.task, &case.observed))),
        heads: counters::heads(scene, &looked.queues),
        busy: !rejected.is_empty(),
        admitted: admitted.tasks.len(),
        rejected,
        ..Passed::default()
    };
    if scene.dry.is_some() {
        passed.foreseen = foresee(cases);
        return Ok(passed);
    }
    let wants_all = cases.iter().any(cases::needs_every_queue);
    let binding = scene.binding.name_any();
    let place = (namespace.as_str(), binding.as_str());
    let hands = hands(scene, memory, place, looked.all);
    let at_once = if scene.retiring { 1 } else { HANDS };
    let reports = apply(&hands, cases, at_once, &mut laps).await;
    laps.tell(&binding, looked.live.own_unended.len(), passed.admitted);
    note_order(memory, &admitted, &reports);
    take_in(memory, reports, wants_all, &mut passed);
    let short = looked.offer.hold.is_none() && passed.waiting.is_some();
    let seen = (&looked.queues, &looked.live);
    ahead::go_on(scene, memory, seen, &admitted.tasks, short).await;
    history::trim(scene, &mut memory.history).await;
    counters::learn_lengths(scene.client, memory, &looked.queues).await?;
    passed.queues = counters::counters(
        scene,
        &looked.queues,
        &Live::of(scene.context, scene.identity, &namespace),
        memory,
    );
    Ok(passed)
}

/// Observes: what is known of every task that was looked at, and since when that has stood unchanged.
fn observe(scene: &Scene<'_>, memory: &mut Memory, looked: &Looked) -> HashMap<TaskId, Observed> {
    let context = scene.context;
    let queues = &looked.queues;
    let index = Index::of(queues);
    memory.deleted.learn(queues, &index, &looked.tasks.read);
    let sight = Sight {
        identity: scene.identity,
        queues,
        index: &index,
        deleted: &memory.deleted,
        tasks: &looked.tasks.read,
        objects: &looked.live.objects,
        sound: context.jobs.sound() && context.pods.sound(),
        lore: &memory.lore,
        cause: &|job, pods| verdict::cause(job, &memory.lore.pods_or_remains(job, pods)),
    };
    // All that the facts are joined from has been read by now, Jobs last.
    let seen_at = Timestamp::now();
    let observed: HashMap<TaskId, Observed> = looked
        .tasks
        .read
        .keys()
        .map(|task| {
            let facts = sight.facts(task);
            let observed = memory.tracker.observe(task, facts, queues.read_at, seen_at);
            (task.clone(), observed)
        })
        .collect();
    memory.tracker.keep(|task| observed.contains_key(task));
    memory.told.keep(|task| observed.contains_key(task));
    memory.returned.keep(&queues.served);
    observed
}

/// Who goes, who does not because of its image, and what there is to work on.
struct Chosen {
    admitted: Admitted,
    rejected: Vec<(TaskId, String)>,
    cases: Vec<Case>,
}

/// Admits: those who go while there is room; and makes a case of every task.
async fn admit(
    scene: &Scene<'_>,
    memory: &mut Memory,
    namespace: &str,
    looked: &mut Looked,
) -> Result<Chosen, api::Error> {
    let spec = &scene.binding.spec;
    let policy = Policy {
        restore_orphans: scene.binding.restores_stranded() && !scene.retiring,
        ..cases::policy(spec, scene.retiring)
    };
    let admitting = policy.admitting(Admission::Yes);
    let mut judged = Judged::default();
    let (observed, admitted) = loop {
        let observed = observe(scene, memory, looked);
        let readings = Readings {
            observed: &observed,
            bodies: &looked.tasks.bodies,
            live: &looked.live,
            policy: &admitting,
        };
        let (offer, room) = (&mut looked.offer, &looked.room);
        let admitted = offer::admit(scene, memory, offer, &readings, room, &mut judged);
        let age = Timestamp::now().duration_since(looked.queues.read_at);
        if !looked.offer.wants_more() || age > READS {
            offer::remember(scene, memory, &looked.offer, &readings, &judged);
            break (observed, admitted);
        }
        looked.read_on(scene, memory, namespace).await?;
    };
    let Judged { jobs, refused, .. } = judged;
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
        &mut looked.live,
        spec,
        &policy,
        &admitted,
        looked.offer.hold.as_ref(),
        jobs,
        (&memory.troubles, &memory.lore),
    );
    Ok(Chosen {
        admitted,
        rejected,
        cases,
    })
}

/// What would be done next about each task.
fn foresee(cases: Vec<Case>) -> Vec<Foreseen> {
    let now = Timestamp::now();
    cases
        .into_iter()
        .map(|case| Foreseen {
            step: decide(&case.observed, &case.policy, now),
            case,
        })
        .collect()
}

/// What the steps of this pass are carried out with.
fn hands<'a>(
    scene: &Scene<'a>,
    memory: &'a Memory,
    (namespace, binding): (&'a str, &'a str),
    all_queues_read: bool,
) -> Hands<'a> {
    Hands {
        context: scene.context,
        client: scene.client,
        identity: scene.identity,
        spec: &scene.binding.spec,
        namespace,
        binding,
        resolved: scene.resolved,
        lore: &memory.lore,
        all_queues_read,
        told: &memory.told,
        returned: &memory.returned,
        lines: Lines::default(),
        readers: Readers::default(),
        begun: Instant::now(),
    }
}

/// Applies: works on so many cases at once, then sends the lines that wait. Answers what there is to tell.
async fn apply(
    hands: &Hands<'_>,
    cases: Vec<Case>,
    at_once: usize,
    laps: &mut Laps,
) -> Vec<(TaskId, Report)> {
    let mut ends = futures::stream::iter(cases)
        .map(|case| hands.carry_out(case))
        .buffer_unordered(at_once);
    let mut reports = Vec::new();
    while let Some((task, report)) = ends.next().await {
        // Nearly all tasks simply run.
        if !report.is_empty() {
            reports.push((task, report));
        }
    }
    laps.end("steps");
    hands.send_lines().await;
    laps.end("lines");
    reports
}

/// Keeps the room of admitted tasks until their pods are seen.
fn reserve(scene: &Scene<'_>, memory: &Memory, admitted: &Admitted) {
    for task in &admitted.tasks {
        let ask = memory.asks.get(task).and_then(|known| known.ask.as_ref());
        if let Some(placement) = ask.and_then(|ask| ask.placement.clone()) {
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

/// Whose turn it is now, and who was overtaken. Tasks that were admitted and did not begin count when they do.
fn note_order(memory: &mut Memory, admitted: &Admitted, reports: &[(TaskId, Report)]) {
    let left: HashSet<&TaskId> = reports
        .iter()
        .filter(|(_, report)| report.was_left())
        .map(|(task, _)| task)
        .collect();
    memory.turns = admitted.turns_after(|task| left.contains(task)).clone();
    for (task, times) in admitted.overtaken(|task| !left.contains(task)) {
        if let Some(known) = memory.asks.get_mut(task) {
            known.overtaken += times;
        }
    }
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
            None | Some(Fault::Late | Fault::Left) => {}
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
