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
use kube::ResourceExt;
use tokio::time::Instant;

use super::admit::{self, Admitted, Room, Waiting};
use super::apply::{Case, Fault, Hands, Lines, Report};
use super::foresee::Foreseen;
use super::kueue;
use super::live::{self, Live};
use super::look::{self, Index, Queues};
use super::memory::Memory;
use super::observe::{Identity, Lore, Sight};
use super::offer::{self, Offer, Readings, Selection};
use super::patience::Troubles;
use super::refusal;
use super::refuse;
use super::resolve::Resolved;
use super::row::JobRow;
use super::together::Seat;
use super::turn::Turn;
use super::validate::Templates;
use super::{Context, verdict};
use crate::api::{self, Client};
use crate::capacity::Free;
use crate::claim::{
    Admission, Entry, JobsFact, Observed, OnInterruption, OnPendingTimeout, Phase, Policy,
    QUIET_TIME, TaskFact, decide,
};
use crate::crd::{self, Capacity, QueueBinding, QueueBindingSpec, QueueStatus};
use crate::pod::label;
use crate::render::{self, Rendered, Template};
use crate::task::{QueueId, Status, TaskId};

/// Tasks that are worked on at once.
const HANDS: usize = 32;
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
    pub seat: &'a Seat,
    pub server: &'a render::Server,
    pub resolved: &'a Resolved,
    /// Of a queue whose template was refused nothing new is taken.
    pub templates: &'a Templates,
    /// The binding is being deleted.
    pub retiring: bool,
    /// Nothing is carried out, it is only foreseen.
    pub dry: Option<Dry>,
}

/// What a pass with tied hands is made for.
pub(super) struct Dry {
    /// This task is looked at wherever it stands.
    pub about: Option<TaskId>,
}

impl Scene<'_> {
    /// The template of a served queue; nothing if it was refused.
    pub fn template(&self, queue: &QueueId) -> Option<&Arc<Template>> {
        self.templates.of(self.resolved.place(queue)?)
    }

    /// How many tasks may be tried behind one that cannot fit.
    pub fn lookahead(&self) -> usize {
        usize::try_from(self.binding.spec.lookahead.unwrap_or(0)).unwrap_or(0)
    }
}

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
        ..policy(spec, scene.retiring)
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
        Some(_) => refused,
        None => refuse::refuse(scene, &observed, refused).await?,
    };
    reserve(scene, memory, &admitted);
    let cases = cases(
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
        nothing_claimed: nothing_claimed(&queues, &cases),
        stranded: stranded(&cases),
        heads: heads(scene, &queues),
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
    learn_lengths(client, memory, &queues).await?;
    passed.queues = counters(
        scene,
        &queues,
        &Live::of(context, identity, &namespace),
        memory,
    );
    Ok(passed)
}

/// How long the parts of a pass took, for who looks into a slow one (`--log-level debug`).
struct Laps {
    last: Instant,
    done: Vec<(&'static str, u128)>,
}

impl Laps {
    fn start() -> Self {
        Self {
            last: Instant::now(),
            done: Vec::new(),
        }
    }

    fn end(&mut self, part: &'static str) {
        self.done.push((part, self.last.elapsed().as_millis()));
        self.last = Instant::now();
    }

    fn tell(&self, binding: &str, live: usize, admitted: usize) {
        tracing::debug!(binding, live, admitted, milliseconds = ?self.done, "pass");
    }
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
        max_failures: u32::try_from(lifecycle.max_failures).unwrap_or(0),
        grace: signed(lifecycle.abort_grace_period),
        restore_orphans: false,
        retiring,
        admission: Admission::No("not looked at".into()),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one place joins all that a case is made of"
)]
/// Every task with its own admission, those that were admitted first and in their order.
fn cases(
    observed: HashMap<TaskId, Observed>,
    live: &Live,
    spec: &QueueBindingSpec,
    policy: &Policy,
    admitted: &Admitted,
    hold: Option<&Waiting>,
    mut jobs: HashMap<TaskId, Rendered>,
    (troubles, lore): (&Troubles, &Lore),
) -> Vec<Case> {
    let place: HashMap<&TaskId, usize> = admitted
        .tasks
        .iter()
        .enumerate()
        .map(|(place, task)| (task, place))
        .collect();
    let now = Timestamp::now();
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
            let objects = live.objects.get(&task).cloned().unwrap_or_default();
            let policy = policy.admitting(admission);
            Case {
                observed,
                policy: troubles.policy(&objects, lore, policy),
                objects,
                rendered: jobs.remove(&task),
                turn: place.get(&task).map(|place| Turn::new(now, *place)),
                task,
            }
        })
        .collect();
    // Admitted ones in their order; of the others, which may go back to the front of their queue, the last taken first.
    cases.sort_by_cached_key(|case| {
        let place = place.get(&case.task).copied().unwrap_or(usize::MAX);
        (place, Reverse(Turn::last(&case.objects.jobs)))
    });
    cases
}

/// An intent that is there already was admitted when it was written; limits may have been lowered since.
fn still_fits(spec: &QueueBindingSpec, live: &Live, task: &TaskId) -> Admission {
    let of_task = |job: &&Arc<JobRow>| job.label(label::TASK) == Some(task.as_str());
    let room = Room::of(
        &spec.limits,
        live.own_unended.iter().filter(|job| !of_task(job)),
    );
    let ask = live
        .own_unended
        .iter()
        .find(of_task)
        .map(|job| admit::ask_of(job))
        .unwrap_or_default();
    match room.fits(&ask) {
        Ok(()) => Admission::Yes,
        Err(waiting) => Admission::No(waiting.message),
    }
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

/// How long the first entry of each queue has stood there, by the server's clock at its entry and ours now.
fn heads(scene: &Scene<'_>, queues: &Queues) -> HashMap<String, Duration> {
    queues
        .served
        .iter()
        .filter_map(|queue| {
            let name = scene.resolved.queue(&queue.id)?.name.clone();
            let added: Timestamp = queue.entries.first()?.added.as_deref()?.parse().ok()?;
            let age = Duration::try_from(queues.read_at.duration_since(added)).ok()?;
            Some((name, age))
        })
        .collect()
}

/// Orphans of others: without a Job of ours, for longer than a plain agent needs from its pop to its start.
fn stranded(cases: &[Case]) -> Vec<TaskId> {
    let mut tasks: Vec<TaskId> = cases
        .iter()
        .filter(|case| {
            let Observed {
                facts,
                read_at,
                unchanged_since,
                ..
            } = &case.observed;
            matches!(Phase::of(facts), Phase::Orphan(_))
                && read_at.duration_since(*unchanged_since) >= QUIET_TIME
        })
        .map(|case| case.task.clone())
        .collect();
    tasks.sort();
    tasks
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
        let of_queue = |job: &&Arc<JobRow>| job.label(label::QUEUE) == Some(queue.id.as_str());
        let started = |job: &&Arc<JobRow>| memory.lore.started.contains(&*job.uid);
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
