//! One pass over a binding: look, observe, admit, apply.
//!
//! What it costs does not grow with the length of the queues: one request for entries, one for live tasks if there are
//! any, one for the bodies of tasks that may go if there is room for them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use tokio::time::Instant;

use super::admit::{self, Admitted, Room, Waiting};
use super::apply::{Case, Fault, Hands, Report};
use super::live::{self, Live};
use super::look::{self, Index, Queues};
use super::memory::Memory;
use super::observe::{Identity, Objects, Sight};
use super::offer::{self, Offer, Readings};
use super::resolve::Resolved;
use super::{Context, verdict};
use crate::api::{self, Client};
use crate::claim::{
    Admission, Entry, JobsFact, Observed, OnInterruption, OnPendingTimeout, Phase, Policy, TaskFact,
};
use crate::crd::{self, QueueBinding, QueueBindingSpec, QueueStatus};
use crate::pod::label;
use crate::render::{self, Rendered, Template};
use crate::task::{QueueId, Status, TaskId};

/// Tasks that are worked on at once.
const HANDS: usize = 8;
/// A Job that the API server refused is not tried again for this long.
const REFUSED: Duration = Duration::from_mins(1);
/// Lengths of long queues are asked for no more often than this.
const LENGTHS: Duration = Duration::from_secs(10);

/// What a pass needs beside its memory.
pub(super) struct Scene<'a> {
    pub context: &'a Context,
    pub binding: &'a QueueBinding,
    pub identity: &'a Identity,
    pub client: &'a Client,
    pub server: &'a render::Server,
    pub resolved: &'a Resolved,
    /// Absent: the template was refused, nothing new is taken.
    pub template: Option<&'a Arc<Template>>,
    /// The binding is being deleted.
    pub retiring: bool,
}

/// What a pass leads to.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// Something was done, so that more may follow from it: look again soon. What the cluster does meanwhile wakes the
    /// loop by itself.
    pub busy: bool,
    /// Why the first of those who wait is not taken.
    pub waiting: Option<Waiting>,
    pub queues: Vec<QueueStatus>,
    /// Tasks whose Job the API server refused, and its words.
    pub refused: Vec<(TaskId, String)>,
    /// A call to the server failed in a step.
    pub fault: Option<api::Error>,
    /// A queue is gone: resolve again.
    pub queues_gone: bool,
    /// No entry is pending and nothing is claimed that has not started.
    pub nothing_claimed: bool,
}

/// One pass.
pub(super) async fn pass(scene: &Scene<'_>, memory: &mut Memory) -> Result<Passed, api::Error> {
    let (context, identity, client) = (scene.context, scene.identity, scene.client);
    let (spec, namespace) = (
        &scene.binding.spec,
        scene.binding.namespace().unwrap_or_default(),
    );

    // Look: entries first, then statuses, then Jobs. What was done since the entries were read is in the latter.
    let all = memory.every_queue.due(Instant::now());
    let max_concurrent = spec
        .limits
        .max_concurrent
        .and_then(|most| u32::try_from(most).ok());
    let served = scene.resolved.ids();
    let queues = look::queues(
        client,
        &served,
        &scene.resolved.pending,
        max_concurrent,
        all,
    )
    .await?;
    if all {
        memory.every_queue.last = Some(Instant::now());
    }
    let before = Live::of(context, identity, &namespace);
    memory
        .sweep
        .sweep(client, identity, &served, |task| {
            before.objects.contains_key(task)
        })
        .await?;
    let mut room = Room::of(&spec.limits, before.own_unended.iter());
    let mut offer = Offer::of(scene, memory, &queues, &room);
    let asked = live_tasks(memory, &queues, &before);
    let tasks = look::tasks(client, &asked, &offer.tasks()).await?;
    let projects = tasks.bodies.values().map(|body| body.task.project.as_str());
    offer::learn_project_names(client, memory, projects).await?;
    let live = Live::of(context, identity, &namespace);
    live::learn(context, memory, &namespace, &live).await;

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
        cause: &verdict::cause,
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

    // Admit.
    let policy = policy(spec, scene.retiring);
    let readings = Readings {
        observed: &observed,
        bodies: &tasks.bodies,
        live: &live,
        policy: &policy,
    };
    let candidates = std::mem::take(&mut offer.candidates);
    let (admitted, jobs) = offer::admit(scene, memory, candidates, &readings, &mut room);
    let cases = cases(
        observed,
        &live,
        spec,
        &policy,
        &admitted,
        offer.hold.as_ref(),
        jobs,
    );

    // Apply.
    let mut passed = Passed {
        waiting: offer.waiting.or_else(|| admitted.waiting.clone()),
        queues_gone: !queues.gone.is_empty(),
        nothing_claimed: nothing_claimed(&queues, &cases),
        ..Passed::default()
    };
    let wants_all = cases.iter().any(needs_every_queue);
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
    };
    let reports: Vec<(TaskId, Report)> = futures::stream::iter(cases)
        .map(|case| hands.carry_out(case))
        .buffer_unordered(if scene.retiring { 1 } else { HANDS })
        .collect()
        .await;
    take_in(memory, reports, wants_all, &mut passed);
    learn_lengths(client, memory, &queues).await?;
    passed.queues = counters(
        scene,
        &queues,
        &Live::of(context, identity, &namespace),
        memory,
    );
    Ok(passed)
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

/// Policy of the binding; admission is each task's own.
fn policy(spec: &QueueBindingSpec, retiring: bool) -> Policy {
    let lifecycle = &spec.lifecycle;
    let signed = |period: crd::Period| {
        SignedDuration::try_from(period.duration()).unwrap_or(SignedDuration::MAX)
    };
    Policy {
        pending_timeout: signed(lifecycle.pending_timeout),
        on_pending_timeout: match lifecycle.on_pending_timeout {
            crd::OnPendingTimeout::Requeue => OnPendingTimeout::Requeue,
            crd::OnPendingTimeout::Fail => OnPendingTimeout::Fail,
        },
        on_interruption: match lifecycle.on_interruption {
            crd::OnInterruption::Requeue => OnInterruption::Requeue,
            crd::OnInterruption::Fail => OnInterruption::Fail,
            crd::OnInterruption::Stop => OnInterruption::Stop,
        },
        max_interruptions: u32::try_from(lifecycle.max_interruptions).unwrap_or(0),
        grace: signed(lifecycle.abort_grace_period),
        restore_orphans: false,
        retiring,
        admission: Admission::No("not looked at".into()),
    }
}

/// Every task with its own admission, those that were admitted first and in their order.
fn cases(
    observed: HashMap<TaskId, Observed>,
    live: &Live,
    spec: &QueueBindingSpec,
    policy: &Policy,
    admitted: &Admitted,
    hold: Option<&Waiting>,
    mut jobs: HashMap<TaskId, Rendered>,
) -> Vec<Case> {
    let place: HashMap<&TaskId, usize> = admitted
        .tasks
        .iter()
        .enumerate()
        .map(|(place, task)| (task, place))
        .collect();
    let mut cases: Vec<Case> = observed
        .into_iter()
        .map(|(task, observed)| {
            let admission = match hold {
                Some(waiting) => Admission::No(waiting.message.clone()),
                None if place.contains_key(&task) => Admission::Yes,
                None if matches!(Phase::of(&observed.facts), Phase::Intended(..)) => {
                    still_fits(spec, live, &task)
                }
                None => Admission::No("there is no room".into()),
            };
            Case {
                observed,
                policy: policy.admitting(admission),
                objects: live.objects.get(&task).cloned().unwrap_or_default(),
                rendered: jobs.remove(&task),
                task,
            }
        })
        .collect();
    // Admitted ones in their order; the others with the youngest claim first, so that of several that go back to the
    // front of their queue the oldest comes to stand before the others.
    cases.sort_by_key(|case| {
        let place = place.get(&case.task).copied().unwrap_or(usize::MAX);
        let added = case.observed.facts.stamps.entry_added.clone();
        (place, Reverse((youngest_claim(&case.objects), added)))
    });
    cases
}

/// An intent that is there already was admitted when it was written; limits may have been lowered since.
fn still_fits(spec: &QueueBindingSpec, live: &Live, task: &TaskId) -> Admission {
    let of_task =
        |job: &&Arc<Job>| job.labels().get(label::TASK).map(String::as_str) == Some(task.as_str());
    let room = Room::of(
        &spec.limits,
        live.own_unended.iter().filter(|job| !of_task(job)),
    );
    let need = live
        .own_unended
        .iter()
        .find(of_task)
        .map(|job| admit::requests(job))
        .unwrap_or_default();
    match room.fits(&need) {
        Ok(()) => Admission::Yes,
        Err(waiting) => Admission::No(waiting.message),
    }
}

fn youngest_claim(objects: &Objects) -> Option<Timestamp> {
    objects
        .jobs
        .iter()
        .filter_map(|job| job.creation_timestamp())
        .map(|time| time.0)
        .max()
}

/// A queued task that is in none of the binding's queues.
fn needs_every_queue(case: &Case) -> bool {
    let queued =
        matches!(&case.observed.facts.task, TaskFact::Found(task) if task.status == Status::Queued);
    queued
        && matches!(
            case.observed.facts.entry,
            Entry::Unknown | Entry::Nowhere | Entry::Elsewhere
        )
}

/// Whether a binding that goes has nothing left to give back.
fn nothing_claimed(queues: &Queues, cases: &[Case]) -> bool {
    let waits = |case: &Case| match &case.observed.facts.jobs {
        JobsFact::Known(jobs) => jobs.iter().any(|job| job.waits() && !job.other_binding),
        JobsFact::Unknown => true,
    };
    queues.pending.entries.is_empty() && !cases.iter().any(waits)
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
        if let Some(words) = report.pod_refused {
            memory.pods_refused = Some((now + REFUSED, words));
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

/// Asks for the lengths of queues that the look has cut off, from time to time: only the status shows them.
async fn learn_lengths(
    client: &Client,
    memory: &mut Memory,
    queues: &Queues,
) -> Result<(), api::Error> {
    let cut: Vec<&QueueId> = queues
        .served
        .iter()
        .filter(|queue| queue.cut)
        .map(|queue| &queue.id)
        .collect();
    memory.lengths.retain(|id, _| cut.contains(&id));
    for id in cut {
        let fresh = memory
            .lengths
            .get(id)
            .is_some_and(|(_, asked)| asked.elapsed() < LENGTHS);
        if !fresh {
            let length = client.queue_length(id).await?;
            memory.lengths.insert(id.clone(), (length, Instant::now()));
        }
    }
    Ok(())
}

/// Tasks of each served queue by what their Jobs do.
fn counters(scene: &Scene<'_>, queues: &Queues, live: &Live, memory: &Memory) -> Vec<QueueStatus> {
    let one = |queue: &api::QueueEntries| {
        let of_queue = |job: &&Arc<Job>| {
            job.labels().get(label::QUEUE).map(String::as_str) == Some(queue.id.as_str())
        };
        let started = |job: &&Arc<Job>| {
            job.metadata
                .uid
                .as_ref()
                .is_some_and(|uid| memory.lore.started.contains(uid))
        };
        let all = live.own_unended.iter().filter(of_queue).count();
        let running = live
            .own_unended
            .iter()
            .filter(of_queue)
            .filter(started)
            .count();
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        QueueStatus {
            name: scene
                .resolved
                .queue(&queue.id)
                .map(|known| known.name.clone())
                .unwrap_or_default(),
            id: Some(queue.id.to_string()),
            queued: memory.lengths.get(&queue.id).map_or_else(
                || signed(queue.entries.len()),
                |(length, _)| i64::try_from(*length).unwrap_or(i64::MAX),
            ),
            claimed: signed(all - running),
            running: signed(running),
        }
    };
    queues.served.iter().map(one).collect()
}
