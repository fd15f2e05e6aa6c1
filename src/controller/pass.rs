//! One pass over a binding: look, observe, admit, apply.
//!
//! What it costs does not grow with the length of the queues: one request for entries, one for live tasks if there are
//! any, one for the bodies of tasks that may go if there is room for them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;

use super::admit::{self, Admitted, Head, Room};
use super::apply::{Case, Fault, Hands, Report, Told};
use super::inquiry::Inquiry;
use super::look::{self, CANDIDATES, Index, Queues};
use super::observe::{self, Identity, Lore, Objects, Sight, Tracker};
use super::resolve::Resolved;
use super::sweep::Sweep;
use super::{Context, verdict};
use crate::api::{self, Client};
use crate::claim::order::{self, Turns};
use crate::claim::{
    Admission, Entry, JobsFact, Observed, OnInterruption, OnPendingTimeout, Phase, Policy, Step,
    TaskFact, decide,
};
use crate::crd::{self, QueueBinding, QueueBindingSpec, QueueStatus, Resources, Strategy};
use crate::pod::label;
use crate::render::{self, Rendered, Template};
use crate::task::{QueueId, Status, TaskId, WorkerId};

/// Tasks that are worked on at once.
const HANDS: usize = 8;
/// A Job that the API server refused is not tried again for this long.
const REFUSED: Duration = Duration::from_secs(60);
/// A task that is in no ordinary place for this long is worth a look into every queue: most of them are just between
/// the fence and `in_progress`.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a binding's loop remembers from pass to pass. A restart loses all of it, and only waits start again.
#[derive(Default)]
pub(super) struct Memory {
    tracker: Tracker,
    turns: Turns,
    lore: Lore,
    told: Told,
    sweep: Sweep,
    inquiry: Inquiry,
    every_queue: EveryQueue,
    /// What heads that did not fit need, by the time of their entry: they are not read again.
    needs: HashMap<TaskId, (Option<String>, String, Resources)>,
    refused: HashMap<TaskId, Instant>,
    project_names: HashMap<String, String>,
    release_failed: bool,
    pub last_dispatch: Option<Timestamp>,
}

/// When the next look has to read every queue of the server.
#[derive(Debug, Default)]
struct EveryQueue {
    wanted_since: Option<Instant>,
    last: Option<Instant>,
}

impl EveryQueue {
    fn due(&self, now: Instant) -> bool {
        let Some(since) = self.wanted_since else {
            return false;
        };
        let wanted_for = now.duration_since(since);
        // What stands for long is read less often.
        let interval = (wanted_for / 4).clamp(Duration::from_millis(500), Duration::from_secs(10));
        wanted_for >= PATIENCE
            && self
                .last
                .is_none_or(|last| now.duration_since(last) >= interval)
    }

    fn note(&mut self, wanted: bool, at_once: bool, now: Instant) {
        if !wanted {
            self.wanted_since = None;
        } else if at_once {
            self.wanted_since
                .get_or_insert(now.checked_sub(PATIENCE).unwrap_or(now));
        } else {
            self.wanted_since.get_or_insert(now);
        }
    }
}

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
    /// Something was done, or is on its way: look again soon.
    pub busy: bool,
    /// Why the first of those who wait is not taken.
    pub waiting: Option<String>,
    pub queues: Vec<QueueStatus>,
    /// Names of tasks' Jobs that the API server refused, and its words.
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
    let spec = &scene.binding.spec;
    let namespace = scene.binding.namespace().unwrap_or_default();
    let all = memory.every_queue.due(Instant::now());
    let max_concurrent = spec
        .limits
        .max_concurrent
        .and_then(|most| u32::try_from(most).ok());
    let served = scene.resolved.ids();
    let queues = look::queues(
        scene.client,
        &served,
        &scene.resolved.pending,
        max_concurrent,
        all,
    )
    .await?;
    if all {
        memory.every_queue.last = Some(Instant::now());
    }
    let index = Index::of(&queues);
    let before = Live::of(scene, &namespace);
    memory
        .sweep
        .sweep(scene.client, scene.identity, &served, |task| {
            before.objects.contains_key(task)
        })
        .await?;

    let mut room = Room::of(&spec.limits, before.own_unended.iter());
    let candidates = candidates(scene, memory, &queues, &room);
    let live = live_tasks(memory, &queues, &before);
    let wanted: HashSet<TaskId> = candidates.values().flatten().cloned().collect();
    let tasks = look::tasks(scene.client, &live, &wanted).await?;
    learn_project_names(
        scene.client,
        memory,
        tasks.bodies.values().map(|body| body.task.project.as_str()),
    )
    .await?;

    // Jobs are read last: what was done since the entries were read is in them.
    let now_live = Live::of(scene, &namespace);
    learn(scene, memory, &namespace, &now_live).await;
    let sound = scene.context.jobs.sound() && scene.context.pods.sound();
    let sight = Sight {
        identity: scene.identity,
        queues: &queues,
        index: &index,
        tasks: &tasks.read,
        objects: &now_live.objects,
        sound,
        lore: &memory.lore,
        cause: &verdict::cause,
    };
    let observed: HashMap<TaskId, Observed> = live
        .union(&wanted)
        .map(|task| {
            (
                task.clone(),
                memory
                    .tracker
                    .observe(task, sight.facts(task), queues.read_at),
            )
        })
        .collect();
    let asked: HashSet<TaskId> = observed.keys().cloned().collect();
    memory.tracker.keep(&asked);
    memory.told.keep(&asked);

    let policy = policy(spec, scene.retiring);
    let mut rendered = HashMap::new();
    let admitted = admit_offered(
        scene,
        memory,
        candidates,
        &observed,
        &tasks.bodies,
        &now_live,
        &policy,
        &mut room,
        &mut rendered,
    );
    let hold = hold(scene, memory, &room);
    let cases = cases(
        observed,
        &now_live,
        &policy,
        &admitted,
        hold.as_deref(),
        rendered,
    );
    let mut busy = !admitted.tasks.is_empty() || cases.iter().any(in_transition);
    let wants_all = cases.iter().any(|case| needs_every_queue(case));
    let names: HashMap<&QueueId, &str> = scene
        .resolved
        .served
        .iter()
        .map(|queue| (&queue.id, queue.name.as_str()))
        .collect();
    let hands = Hands {
        context: scene.context,
        client: scene.client,
        identity: scene.identity,
        spec,
        namespace: &namespace,
        binding: &scene.binding.name_any(),
        resolved: scene.resolved,
        lore: &memory.lore,
        all_queues_read: all,
        told: &memory.told,
    };
    let nothing_claimed = sound
        && queues.pending.entries.is_empty()
        && cases.iter().all(|case| !matches!(&case.observed.facts.jobs, JobsFact::Known(jobs) if jobs.iter().any(|job| job.waits() && !job.other_binding)));
    let reports: Vec<(TaskId, Report)> = futures::stream::iter(cases)
        .map(|case| hands.carry_out(case))
        .buffer_unordered(HANDS)
        .collect()
        .await;
    busy |= reports.iter().any(|(_, report)| !report.done.is_empty());

    let mut passed = Passed {
        busy,
        waiting: hold.or(admitted.waiting),
        queues_gone: !queues.gone.is_empty(),
        nothing_claimed,
        ..Passed::default()
    };
    passed.queues = counters(&queues, &Live::of(scene, &namespace), &names, &memory.lore);
    take_in(memory, reports, wants_all, &mut passed);
    Ok(passed)
}

/// Jobs and pods of the binding's namespace, as the mirrors have them now.
struct Live {
    objects: HashMap<TaskId, Objects>,
    /// This binding's Jobs that have not ended: what its limits are summed up from.
    own_unended: Vec<Arc<Job>>,
    /// Tasks of this binding's Jobs that something may still have to be done about.
    own_unsettled: HashSet<TaskId>,
}

impl Live {
    fn of(scene: &Scene<'_>, namespace: &str) -> Self {
        let mut objects: HashMap<TaskId, Objects> = HashMap::new();
        let mut own_unended = Vec::new();
        let mut own_unsettled = HashSet::new();
        for (task, job) in scene.context.jobs.in_namespace(namespace) {
            if observe::is_ours(scene.identity, &job) {
                let ended = observe::has_ended(&job);
                let settled = job.labels().get(label::STATE).map(String::as_str)
                    == Some(crate::pod::state::SETTLED);
                if !ended {
                    own_unended.push(job.clone());
                }
                if !(ended && settled) {
                    own_unsettled.insert(task.clone());
                }
            }
            objects.entry(task).or_default().jobs.push(job);
        }
        for (task, pod) in scene.context.pods.in_namespace(namespace) {
            objects.entry(task).or_default().pods.push(pod);
        }
        Self {
            objects,
            own_unended,
            own_unsettled,
        }
    }
}

/// Heads of the served queues that may go in this pass, as many as there is room for.
fn candidates(
    scene: &Scene<'_>,
    memory: &mut Memory,
    queues: &Queues,
    room: &Room,
) -> HashMap<QueueId, VecDeque<TaskId>> {
    let Some(template) = scene.template else {
        return HashMap::new();
    };
    let closed = scene.binding.spec.suspend
        || scene.retiring
        || memory.release_failed
        || room.overdrawn().is_some();
    let free = room.free().map_or(CANDIDATES, |free| free as usize);
    if closed || free == 0 {
        return HashMap::new();
    }
    let now = Instant::now();
    memory.refused.retain(|_, until| now < *until);
    let each = free.min((CANDIDATES / queues.served.len().max(1)).max(1));
    let heads: HashSet<&TaskId> = queues
        .served
        .iter()
        .filter_map(|queue| Some(&queue.entries.first()?.task))
        .collect();
    memory.needs.retain(|task, _| heads.contains(task));
    let mut candidates = HashMap::new();
    for queue in &queues.served {
        let mut waiting = queue
            .entries
            .iter()
            .filter(|entry| !memory.refused.contains_key(&entry.task))
            .peekable();
        let known = waiting.peek().and_then(|head| {
            let (added, hash, need) = memory.needs.get(&head.task)?;
            (*added == head.added && hash == template.hash()).then_some(need)
        });
        if known.is_some_and(|need| room.fits(need).is_err()) {
            continue;
        }
        candidates.insert(
            queue.id.clone(),
            waiting.take(each).map(|entry| entry.task.clone()).collect(),
        );
    }
    candidates
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

async fn learn_project_names<'a>(
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

/// Brings what is known beyond the objects up to date.
async fn learn(scene: &Scene<'_>, memory: &mut Memory, namespace: &str, live: &Live) {
    let lore = &mut memory.lore;
    let uids: HashSet<String> = live
        .own_unended
        .iter()
        .filter_map(|job| job.uid())
        .collect();
    lore.started.retain(|uid| uids.contains(uid));
    let mut pod_of: HashMap<&str, &Arc<Pod>> = HashMap::new();
    for pod in live.objects.values().flat_map(|objects| &objects.pods) {
        for owner in pod.owner_references() {
            pod_of.insert(&owner.uid, pod);
            if uids.contains(&owner.uid) && observe::task_container_started(pod) {
                lore.started.insert(owner.uid.clone());
            }
        }
    }
    let released = |job: &&Arc<Job>| job.spec.as_ref().and_then(|spec| spec.suspend) == Some(false);
    let waiting: Vec<(Arc<Job>, Option<Arc<Pod>>)> = live
        .own_unended
        .iter()
        .filter(released)
        .filter(|job| {
            job.metadata
                .uid
                .as_ref()
                .is_some_and(|uid| !lore.started.contains(uid))
        })
        .map(|job| {
            (
                job.clone(),
                pod_of
                    .get(job.metadata.uid.as_deref().unwrap_or_default())
                    .map(|pod| (*pod).clone()),
            )
        })
        .collect();
    memory
        .inquiry
        .ask(scene.context, namespace, &waiting, lore)
        .await;
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

/// Renders and admits offered tasks while there is room.
#[expect(
    clippy::too_many_arguments,
    reason = "the join of all that a pass has read"
)]
fn admit_offered(
    scene: &Scene<'_>,
    memory: &mut Memory,
    candidates: HashMap<QueueId, VecDeque<TaskId>>,
    observed: &HashMap<TaskId, Observed>,
    bodies: &HashMap<TaskId, api::Body>,
    live: &Live,
    policy: &Policy,
    room: &mut Room,
    rendered: &mut HashMap<TaskId, Rendered>,
) -> Admitted {
    let Some(template) = scene.template else {
        return Admitted::default();
    };
    let policy = policy.admitting(Admission::Yes);
    let strategy = match scene.binding.spec.strategy {
        Strategy::Priority => order::Strategy::Priority,
        Strategy::RoundRobin => order::Strategy::RoundRobin,
        Strategy::Weighted => order::Strategy::Weighted,
    };
    let (needs, project_names) = (&mut memory.needs, &memory.project_names);
    admit::admit(
        strategy,
        &scene.resolved.lanes,
        &mut memory.turns,
        candidates,
        room,
        |task| {
            let (Some(observed), Some(body)) = (observed.get(task), bodies.get(task)) else {
                return Head::Skip;
            };
            let Step::Intend {
                attempt, returned, ..
            } = decide(observed, &policy, Timestamp::now())
            else {
                return Head::Skip;
            };
            let Entry::Served { queue } = &observed.facts.entry else {
                return Head::Skip;
            };
            let Some(queue) = scene.resolved.queue(queue) else {
                return Head::Skip;
            };
            let job = render::render(&render::Inputs {
                binding: &super::rendered_binding(scene.binding),
                spec: &scene.binding.spec,
                template,
                task: &body.task,
                attempt,
                queue,
                pending_queue: &scene.resolved.pending,
                project_name: project_names
                    .get(&body.task.project)
                    .map_or("", String::as_str),
                worker: &WorkerId::of_attempt(&scene.identity.worker, task, attempt),
                server: scene.server,
                settings: &scene.context.settings.images,
                returned,
                avoid_nodes: &nodes_of(live.objects.get(task)),
            });
            let need = job.requests.clone();
            let added = observed.facts.stamps.entry_added.clone();
            needs.insert(
                task.clone(),
                (added, template.hash().to_owned(), need.clone()),
            );
            rendered.insert(task.clone(), job);
            Head::Ready(need)
        },
    )
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

/// Why nothing at all is taken, if so.
fn hold(scene: &Scene<'_>, memory: &Memory, room: &Room) -> Option<String> {
    if scene.retiring {
        return Some("the binding is being deleted".into());
    }
    if scene.binding.spec.suspend {
        return Some("the binding is suspended (spec.suspend)".into());
    }
    if scene.template.is_none() {
        return Some("the template is not valid".into());
    }
    if memory.release_failed {
        return Some("a Job could not be released; no task is taken until one can".into());
    }
    room.overdrawn()
}

fn cases(
    observed: HashMap<TaskId, Observed>,
    live: &Live,
    policy: &Policy,
    admitted: &Admitted,
    hold: Option<&str>,
    mut rendered: HashMap<TaskId, Rendered>,
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
            // An intent that is there already was admitted when it was written.
            let written = matches!(Phase::of(&observed.facts), Phase::Intended(..));
            let admission = match hold {
                None if written || place.contains_key(&task) => Admission::Yes,
                None => Admission::No("no room".into()),
                Some(reason) => Admission::No(reason.to_owned()),
            };
            Case {
                observed,
                policy: policy.admitting(admission),
                objects: live.objects.get(&task).cloned().unwrap_or_default(),
                rendered: rendered.remove(&task),
                task,
            }
        })
        .collect();
    // Who was admitted first goes first; all else is in no hurry over them.
    cases.sort_by_key(|case| place.get(&case.task).copied().unwrap_or(usize::MAX));
    cases
}

/// Something of this task is on its way, so that another look is worth it soon.
fn in_transition(case: &Case) -> bool {
    match Phase::of(&case.observed.facts) {
        Phase::Running(_)
        | Phase::Closed
        | Phase::Offered(..)
        | Phase::Orphan(_)
        | Phase::Occupied => false,
        Phase::Unclear
        | Phase::Deleting
        | Phase::Withdrawn(_)
        | Phase::Stopping(_)
        | Phase::Closing(_)
        | Phase::Rival(_)
        | Phase::Parked(_)
        | Phase::Intended(..)
        | Phase::Taken(_)
        | Phase::Waiting(..)
        | Phase::Superseded(_)
        | Phase::Starting(..)
        | Phase::TakenOut
        | Phase::EndedQueued(..)
        | Phase::EndedRunning(..)
        | Phase::Stranded(_)
        | Phase::Lost(_)
        | Phase::Leftover(_)
        | Phase::Reported(_) => true,
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
        at_once |= report.wants_every_queue;
        passed.queues_gone |= report.pending_gone;
        released |= report.released;
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

/// Tasks of each served queue by what their Jobs do.
fn counters(
    queues: &Queues,
    live: &Live,
    names: &HashMap<&QueueId, &str>,
    lore: &Lore,
) -> Vec<QueueStatus> {
    queues
        .served
        .iter()
        .map(|queue| {
            let of_queue = |job: &&Arc<Job>| {
                job.labels().get(label::QUEUE).map(String::as_str) == Some(queue.id.as_str())
            };
            let (mut claimed, mut running) = (0, 0);
            for job in live.own_unended.iter().filter(of_queue) {
                if job.uid().is_some_and(|uid| lore.started.contains(&uid)) {
                    running += 1;
                } else {
                    claimed += 1;
                }
            }
            QueueStatus {
                name: names.get(&queue.id).copied().unwrap_or_default().to_owned(),
                id: Some(queue.id.to_string()),
                queued: i64::try_from(queue.entries.len()).unwrap_or(i64::MAX),
                claimed,
                running,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_is_read_only_for_what_stays_out_of_place_and_less_often_with_time() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut every = EveryQueue::default();
        assert!(!every.due(start));
        every.note(true, false, start);
        assert!(!every.due(after(100)));
        assert!(every.due(after(600)));
        every.last = Some(after(40_000));
        assert!(!every.due(after(45_000)));
        assert!(every.due(after(52_000)));
        every.note(false, false, after(52_000));
        assert!(!every.due(after(60_000)));
        every.note(true, true, after(60_000));
        assert!(every.due(after(60_000)) || start.elapsed() < PATIENCE);
    }
}
