//! Observe: join each task's entry, status, Jobs and pods into its facts. Pure; what is not known stays `Unknown`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job as JobObject;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::look::{Index, Queues, Read};
use super::verdict;
use crate::api;
use crate::claim::{
    By, Cause, Entry, Facts, Job, JobState, JobsFact, Observed, Presence, Reason, Stamps, TaskFact,
    TaskState, ThisPass, UserQueue,
};
use crate::diagnose;
use crate::pod::{annotation, label, state};
use crate::task::{Attempt, QueueId, STOPPING, Status, TaskId, WorkerId};

/// Who we are in labels and worker ids.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// UID of the binding: a Job is ours if the binding of this UID owns it.
    pub uid: String,
    /// Worker id that the attempts' ids begin with.
    pub worker: WorkerId,
}

impl Lore {
    /// The pods of a Job; where all are gone, what was last seen of one.
    pub fn pods_or_remains(&self, job: &JobObject, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let own: Vec<Arc<Pod>> = pods
            .iter()
            .filter(|pod| owned_by(pod, uid))
            .cloned()
            .collect();
        if own.is_empty() {
            self.remains.get(uid).cloned().into_iter().collect()
        } else {
            own
        }
    }
}

/// Jobs and pods of one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub jobs: Vec<Arc<JobObject>>,
    pub pods: Vec<Arc<Pod>>,
}

/// What is known of Jobs beyond the objects themselves.
#[derive(Debug, Default)]
pub(super) struct Lore {
    /// UIDs of Jobs whose task container was seen to run, now or earlier.
    pub started: HashSet<String>,
    /// Last states of pods that were deleted while their Job is not done with, by the Job's UID: who took them away.
    pub remains: HashMap<String, Arc<Pod>>,
    /// Events about Jobs that do not start and about their pods, by the Job's UID, oldest first.
    pub events: HashMap<String, Vec<diagnose::Event>>,
    /// What Kueue says of released Jobs that it holds back, by the Job's UID.
    pub kueue: HashMap<String, String>,
}

/// All that the facts of a pass are joined from.
pub(super) struct Sight<'a> {
    pub identity: &'a Identity,
    pub queues: &'a Queues,
    pub index: &'a Index<'a>,
    pub tasks: &'a HashMap<TaskId, Read>,
    pub objects: &'a HashMap<TaskId, Objects>,
    /// Whether the mirrors of Jobs and pods can be believed.
    pub sound: bool,
    pub lore: &'a Lore,
    /// Why a Job ended.
    pub cause: &'a (dyn Fn(&JobObject, &[Arc<Pod>]) -> Cause + Sync),
}

impl Sight<'_> {
    /// The facts of one task.
    pub fn facts(&self, task: &TaskId) -> Facts {
        let read = self.tasks.get(task);
        let (entry, entry_added) = self.entry(task, read);
        let (task_fact, status_changed) = match read {
            None | Some(Read::Unreadable) => (TaskFact::Unknown, None),
            Some(Read::Gone) => (TaskFact::Gone, None),
            Some(Read::Found(facts)) => (
                TaskFact::Found(self.task_state(task, facts)),
                facts.status_changed.clone(),
            ),
        };
        let running = match &task_fact {
            TaskFact::Found(state) if state.status == Status::InProgress => state.run_of(),
            _ => None,
        };
        let jobs = if self.sound {
            JobsFact::Known(self.jobs(task, running))
        } else {
            JobsFact::Unknown
        };
        Facts {
            entry,
            task: task_fact,
            jobs,
            stamps: Stamps {
                status_changed,
                entry_added,
            },
        }
    }

    /// Where the entry stands. What an ordinary look does not find may stand behind what it read, or in anybody's
    /// queue: that is unknown, unless the task is not queued, when a foreign queue is no matter of ours.
    fn entry(&self, task: &TaskId, read: Option<&Read>) -> (Entry, Option<String>) {
        if let Some(places) = self.index.every(task) {
            return self.entry_anywhere(places);
        }
        let owned = |added: Option<&str>| added.map(str::to_owned);
        match self.index.ordinary(task) {
            Some(place) if place.pending => (Entry::Pending, owned(place.added)),
            Some(place) => (
                Entry::Served {
                    queue: place.queue.clone(),
                },
                owned(place.added),
            ),
            None => match read {
                Some(Read::Found(facts)) if facts.status != Status::Queued => {
                    (Entry::Nowhere, None)
                }
                Some(Read::Gone) if !self.queues.pending.cut => (Entry::Nowhere, None),
                _ => (Entry::Unknown, None),
            },
        }
    }

    /// Several entries are possible: the place from which others can take it counts.
    fn entry_anywhere(&self, places: &[(&QueueId, Option<&str>)]) -> (Entry, Option<String>) {
        let served = |id: &QueueId| self.queues.served.iter().any(|queue| queue.id == *id);
        let pending = |id: &QueueId| self.queues.pending.id == *id;
        let owned = |added: Option<&str>| added.map(str::to_owned);
        if let Some((_, added)) = places.iter().find(|(id, _)| !served(id) && !pending(id)) {
            return (Entry::Elsewhere, owned(*added));
        }
        if let Some((id, added)) = places.iter().find(|(id, _)| served(id)) {
            return (
                Entry::Served {
                    queue: (*id).clone(),
                },
                owned(*added),
            );
        }
        match places.first() {
            Some((_, added)) => (Entry::Pending, owned(*added)),
            None => (Entry::Nowhere, None),
        }
    }

    fn task_state(&self, task: &TaskId, facts: &api::Facts) -> TaskState {
        task_state(self.identity, task, facts, |queue| {
            let served = self.queues.served.iter().any(|served| served.id == *queue);
            !self.queues.gone.contains(queue)
                && (served || self.index.exists(queue).unwrap_or(true))
        })
    }

    /// `running`: the attempt that the task says it runs as.
    fn jobs(&self, task: &TaskId, running: Option<Attempt>) -> Vec<Job> {
        let Some(objects) = self.objects.get(task) else {
            return Vec::new();
        };
        let fact = |job: &Arc<JobObject>| {
            let mut fact = job_fact(self.identity, job, &objects.pods, self.lore, self.cause)?;
            // Nobody may have seen the pod that ran: a controller that starts after the eviction knows it by the task.
            if running == Some(fact.attempt)
                && fact.held()
                && is_evicted(job)
                && !objects
                    .pods
                    .iter()
                    .any(|pod| owned_by(pod, job.metadata.uid.as_deref().unwrap_or_default()))
            {
                fact.state = JobState::Ended(Cause::Interruption);
            }
            Some(fact)
        };
        let mut jobs: Vec<Job> = objects.jobs.iter().filter_map(fact).collect();
        for pod in &objects.pods {
            let Some(attempt) = attempt_of(pod.labels().get(label::ATTEMPT)) else {
                continue;
            };
            if !jobs.iter().any(|job| job.attempt == attempt) {
                jobs.push(pod_without_job(attempt, pod));
            }
        }
        jobs
    }
}

/// The members of a task document that the claim rests on.
pub(super) fn task_state(
    identity: &Identity,
    task: &TaskId,
    facts: &api::Facts,
    exists: impl Fn(&QueueId) -> bool,
) -> TaskState {
    let user_queue = match &facts.queue {
        None => UserQueue::Unset,
        Some(queue) if exists(queue) => UserQueue::Known(queue.clone()),
        Some(_) => UserQueue::Gone,
    };
    TaskState {
        status: facts.status,
        stopping: facts.status_message == STOPPING,
        reason: Reason::of(&facts.status_reason),
        has_enqueue_status: facts.enqueue_status.is_some(),
        user_queue,
        mark: by(identity, task, facts.mark.as_ref()),
        last_worker: by(identity, task, facts.last_worker.as_ref()),
    }
}

/// Whose worker id it is. The binding's UID is part of ours, so another cluster's is never taken for it.
fn by(identity: &Identity, task: &TaskId, worker: Option<&WorkerId>) -> By {
    let Some(worker) = worker else {
        return By::Nobody;
    };
    match worker.attempt_of(task) {
        Some(attempt) if WorkerId::of_attempt(&identity.worker, task, attempt) == *worker => {
            By::Us(attempt)
        }
        _ => By::Other,
    }
}

/// Whether this binding owns the Job.
pub(super) fn is_ours(identity: &Identity, job: &JobObject) -> bool {
    job.owner_references()
        .iter()
        .any(|owner| owner.uid == identity.uid)
}

/// The fact that a Job object states; `None` if it carries no attempt.
pub(super) fn job_fact(
    identity: &Identity,
    job: &JobObject,
    pods: &[Arc<Pod>],
    lore: &Lore,
    cause: &(dyn Fn(&JobObject, &[Arc<Pod>]) -> Cause + Sync),
) -> Option<Job> {
    let attempt = attempt_of(job.labels().get(label::ATTEMPT))?;
    let uid = job.uid().unwrap_or_default();
    let label_state = job.labels().get(label::STATE).map(String::as_str);
    let suspended = job
        .spec
        .as_ref()
        .and_then(|spec| spec.suspend)
        .unwrap_or(false);
    let number = |name| {
        let text = job.annotations().get(name);
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let own_pods: Vec<Arc<Pod>> = pods
        .iter()
        .filter(|pod| owned_by(pod, &uid))
        .cloned()
        .collect();
    let job_state = if has_ended(job) {
        JobState::Ended(cause(job, &own_pods))
    } else if suspended && label_state == Some(state::INTENT) {
        JobState::Intent
    } else if is_evicted(job)
        && own_pods.is_empty()
        && (lore.started.contains(&uid) || label_state == Some(state::SETTLED))
    {
        // Suspended while it ran, by Kueue or by hand: its pod is gone, and the next attempt is a Job of its own.
        JobState::Ended(Cause::Interruption)
    } else {
        JobState::Held
    };
    let started =
        lore.started.contains(&uid) || own_pods.iter().any(|pod| task_container_started(pod));
    Some(Job {
        attempt,
        state: job_state,
        presence: if job.metadata.deletion_timestamp.is_some() {
            Presence::Deleting
        } else {
            Presence::Present
        },
        other_binding: !is_ours(identity, job),
        started,
        refused: own_pods.is_empty()
            && lore
                .events
                .get(&uid)
                .is_some_and(|events| verdict::is_refused(events)),
        settled: label_state == Some(state::SETTLED),
        returned: job.annotations().contains_key(annotation::RETURNED),
        requeues: number(annotation::REQUEUES),
        failures: number(annotation::FAILURES),
        created_at: job
            .creation_timestamp()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    })
}

/// A pod that has outlived its Job object: it counts as the Job until it is gone too.
fn pod_without_job(attempt: Attempt, pod: &Pod) -> Job {
    Job {
        attempt,
        state: JobState::Held,
        presence: Presence::PodOnly,
        other_binding: false,
        started: task_container_started(pod),
        refused: false,
        settled: false,
        returned: false,
        requeues: 0,
        failures: 0,
        created_at: pod
            .creation_timestamp()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    }
}

fn attempt_of(text: Option<&String>) -> Option<Attempt> {
    text?.parse().ok().map(Attempt)
}

/// Complete or failed; its pods have ended then.
pub(super) fn has_ended(job: &JobObject) -> bool {
    job.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| {
            matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
        })
}

/// Suspended after its release, by Kueue that evicts it or by hand, and no pod of it is left. Where the task says that this
/// attempt ran, the attempt is over: another pod of it would not pass the fence, since the entry is no longer pending.
pub(super) fn is_evicted(job: &JobObject) -> bool {
    let released = job.labels().get(label::STATE).map(String::as_str) != Some(state::INTENT);
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
    job.status.as_ref().is_some_and(|status| {
        let seen = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Suspended" && condition.status == "True");
        let pods = status.active.unwrap_or(0) + status.terminating.unwrap_or(0);
        released && suspended && seen && pods == 0
    })
}

pub(super) fn owned_by(pod: &Pod, job_uid: &str) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| owner.uid == job_uid)
}

/// Whether the container that runs the experiment runs or has run; init containers and the sidecar do not count.
pub(super) fn task_container_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let main = pod
        .annotations()
        .get("kubectl.kubernetes.io/default-container")
        .map_or(crate::pod::TASK, String::as_str);
    status
        .container_statuses
        .iter()
        .flatten()
        .filter(|container| container.name == main)
        .any(|container| {
            let began = |state: &k8s_openapi::api::core::v1::ContainerState| {
                state.running.is_some()
                    || state
                        .terminated
                        .as_ref()
                        .is_some_and(|end| end.started_at.is_some())
            };
            container.state.as_ref().is_some_and(began)
                || container.last_state.as_ref().is_some_and(began)
        })
}

/// Since when each task's facts have been the same, by our own clock. In memory: a restart starts the waits again.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    known: HashMap<TaskId, (Facts, Timestamp)>,
}

impl Tracker {
    /// The task as `decide` wants it. Facts that are unknown neither confirm nor end what was seen before.
    pub fn observe(&mut self, task: &TaskId, facts: Facts, read_at: Timestamp) -> Observed {
        let unknown = facts.entry == Entry::Unknown
            || facts.task == TaskFact::Unknown
            || facts.jobs == JobsFact::Unknown;
        let unchanged_since = match self.known.get(task) {
            Some((before, since)) if *before == facts => *since,
            _ if unknown => read_at,
            _ => {
                self.known.insert(task.clone(), (facts.clone(), read_at));
                read_at
            }
        };
        Observed {
            facts,
            read_at,
            unchanged_since,
            this_pass: ThisPass::Nothing,
        }
    }

    /// Forgets every task but these.
    pub fn keep(&mut self, tasks: &HashSet<TaskId>) {
        self.known.retain(|task, _| tasks.contains(task));
    }
}

#[cfg(test)]
mod tests;
