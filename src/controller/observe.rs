//! Observe: join each task's entry, status, Jobs and pods into its facts. Pure; what is not known stays `Unknown`.

mod deleted;
mod stranded;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::look::{Anywhere, Index, Queues, Read};
use super::row::{JobRow, PodRow};
use super::verdict;
use crate::api;
use crate::claim::{
    By, Cause, Entry, Facts, Job, JobState, JobsFact, Observed, Presence, Reason, Stamps, TaskFact,
    TaskState, ThisPass, UserQueue,
};
use crate::diagnose;
use crate::pod::{annotation, label, state};
use crate::task::{Attempt, QueueId, STOPPING, Status, TaskId, WorkerId};

pub(super) use deleted::Deleted;
pub(super) use stranded::Stranded;

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
    pub fn pods_or_remains(&self, job: &JobRow, pods: &[Arc<PodRow>]) -> Vec<Arc<PodRow>> {
        let own: Vec<Arc<PodRow>> = pods
            .iter()
            .filter(|pod| pod.is_owned_by(&job.uid))
            .cloned()
            .collect();
        if own.is_empty() {
            self.remains.get(&*job.uid).cloned().into_iter().collect()
        } else {
            own
        }
    }
}

/// Jobs and pods of one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub jobs: Vec<Arc<JobRow>>,
    pub pods: Vec<Arc<PodRow>>,
}

/// What is known of Jobs beyond the objects themselves.
#[derive(Debug, Default)]
pub(super) struct Lore {
    /// UIDs of Jobs whose task container was seen to run, now or earlier.
    pub started: HashSet<String>,
    /// Last states of pods that were deleted while their Job is not done with, by the Job's UID: who took them away.
    pub remains: HashMap<String, Arc<PodRow>>,
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
    /// Queues that were found deleted, by this look or an earlier one.
    pub deleted: &'a Deleted,
    pub tasks: &'a HashMap<TaskId, Read>,
    pub objects: &'a HashMap<TaskId, Objects>,
    /// Whether the mirrors of Jobs and pods can be believed.
    pub sound: bool,
    pub lore: &'a Lore,
    /// Why a Job ended.
    pub cause: &'a (dyn Fn(&JobRow, &[Arc<PodRow>]) -> Cause + Sync),
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
            let foreign_matters = match read {
                Some(Read::Found(facts)) => facts.status == Status::Queued,
                Some(Read::Gone) => false,
                Some(Read::Unreadable) | None => true,
            };
            return self.entry_anywhere(places, foreign_matters);
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

    /// Several entries are possible: the place from which others can take it counts. Where foreign ones do not
    /// matter the answer is that of an ordinary look: facts that change with its kind would never stand unchanged.
    fn entry_anywhere(
        &self,
        places: &[Anywhere<'_>],
        foreign_matters: bool,
    ) -> (Entry, Option<String>) {
        let served = |id: &QueueId| self.queues.served.iter().any(|queue| queue.id == *id);
        let pending = |id: &QueueId| self.queues.pending.id == *id;
        let owned = |added: Option<&str>| added.map(str::to_owned);
        let foreign = places.iter().find(|(id, _)| !served(id) && !pending(id));
        if let Some((_, added)) = foreign.filter(|_| foreign_matters) {
            return (Entry::Elsewhere, owned(*added));
        }
        // Of several the first in the binding's order, as in an ordinary look.
        let first = self.queues.served.iter().find_map(|queue| {
            let (_, added) = places.iter().find(|(id, _)| **id == queue.id)?;
            Some((queue, *added))
        });
        if let Some((queue, added)) = first {
            let queue = queue.id.clone();
            return (Entry::Served { queue }, owned(added));
        }
        match places.iter().find(|(id, _)| pending(id)) {
            Some((_, added)) => (Entry::Pending, owned(*added)),
            None => (Entry::Nowhere, None),
        }
    }

    fn task_state(&self, task: &TaskId, facts: &api::Facts) -> TaskState {
        task_state(self.identity, task, facts, |queue| {
            !self.deleted.contains(queue)
        })
    }

    /// `running`: the attempt that the task says it runs as.
    fn jobs(&self, task: &TaskId, running: Option<Attempt>) -> Vec<Job> {
        let Some(objects) = self.objects.get(task) else {
            return Vec::new();
        };
        let fact = |job: &Arc<JobRow>| {
            let mut known = job_fact(self.identity, job, &objects.pods, self.lore, self.cause)?;
            let has_pods = objects.pods.iter().any(|pod| pod.is_owned_by(&job.uid));
            // Nobody may have seen the pod that ran: a controller that starts after the eviction knows it by the task.
            if running == Some(known.attempt) && known.held() && job.is_evicted() && !has_pods {
                known.state = JobState::Ended(Cause::Interruption);
            }
            Some(known)
        };
        let mut jobs: Vec<Job> = objects.jobs.iter().filter_map(fact).collect();
        for pod in &objects.pods {
            let Some(attempt) = attempt_of(pod.attempt()) else {
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
pub(super) fn is_ours(identity: &Identity, job: &JobRow) -> bool {
    job.is_owned_by(&identity.uid)
}

/// The fact that a Job object states; `None` if it carries no attempt.
pub(super) fn job_fact(
    identity: &Identity,
    job: &JobRow,
    pods: &[Arc<PodRow>],
    lore: &Lore,
    cause: &(dyn Fn(&JobRow, &[Arc<PodRow>]) -> Cause + Sync),
) -> Option<Job> {
    let attempt = attempt_of(job.label(label::ATTEMPT))?;
    let label_state = job.label(label::STATE);
    let number = |name| {
        let text = job.annotation(name);
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let own_pods: Vec<Arc<PodRow>> = pods
        .iter()
        .filter(|pod| pod.is_owned_by(&job.uid))
        .cloned()
        .collect();
    let job_state = if job.has_ended() {
        JobState::Ended(cause(job, &own_pods))
    } else if job.is_suspended() && label_state == Some(state::INTENT) {
        JobState::Intent
    } else if job.is_evicted()
        && own_pods.is_empty()
        && (lore.started.contains(&*job.uid) || label_state == Some(state::SETTLED))
    {
        // Suspended while it ran, by Kueue or by hand: its pod is gone, and the next attempt is a Job of its own.
        JobState::Ended(Cause::Interruption)
    } else {
        JobState::Held
    };
    let started = lore.started.contains(&*job.uid) || own_pods.iter().any(|pod| pod.has_started());
    Some(Job {
        attempt,
        state: job_state,
        presence: if job.is_deleting() {
            Presence::Deleting
        } else {
            Presence::Present
        },
        other_binding: !is_ours(identity, job),
        started,
        refused: own_pods.is_empty()
            && lore
                .events
                .get(&*job.uid)
                .is_some_and(|events| verdict::is_refused(events)),
        settled: label_state == Some(state::SETTLED),
        returned: job.annotation(annotation::RETURNED).is_some(),
        requeues: number(annotation::REQUEUES),
        failures: number(annotation::FAILURES),
        created_at: job.created.unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

/// A pod that has outlived its Job object: it counts as the Job until it is gone too.
fn pod_without_job(attempt: Attempt, pod: &PodRow) -> Job {
    Job {
        attempt,
        state: JobState::Held,
        presence: Presence::PodOnly,
        other_binding: false,
        started: pod.has_started(),
        refused: false,
        settled: false,
        returned: false,
        requeues: 0,
        failures: 0,
        created_at: pod.created.unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

fn attempt_of(text: Option<&str>) -> Option<Attempt> {
    text?.parse().ok().map(Attempt)
}

/// Since when facts have been the same: all of them, the task's alone, the Jobs'.
#[derive(Debug, Clone, Copy)]
struct Since {
    facts: Timestamp,
    task: Timestamp,
    jobs: Timestamp,
}

impl Since {
    /// The same for the facts that follow: what has changed has stood since `anew`.
    fn followed(self, before: &Facts, facts: &Facts, anew: Self) -> Self {
        let (task, jobs) = (before.same_task(facts), before.jobs == facts.jobs);
        Self {
            facts: if task && jobs { self.facts } else { anew.facts },
            task: if task { self.task } else { anew.task },
            jobs: if jobs { self.jobs } else { anew.jobs },
        }
    }
}

/// Since when each task's facts have been the same, by our own clock. In memory: a restart starts the waits again.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    known: HashMap<TaskId, (Facts, Since)>,
}

impl Tracker {
    /// The task as `decide` wants it, by a look that began at `read_at` and was over at `seen_at`. Facts that are unknown
    /// neither confirm nor end what was seen before.
    pub fn observe(
        &mut self,
        task: &TaskId,
        facts: Facts,
        read_at: Timestamp,
        seen_at: Timestamp,
    ) -> Observed {
        let unknown = facts.entry == Entry::Unknown
            || facts.task == TaskFact::Unknown
            || facts.jobs == JobsFact::Unknown;
        let anew = Since {
            facts: read_at,
            task: read_at,
            jobs: seen_at,
        };
        let since = match self.known.get(task) {
            Some((before, since)) if *before == facts => *since,
            _ if unknown => anew,
            known => {
                let since =
                    known.map_or(anew, |(before, since)| since.followed(before, &facts, anew));
                self.known.insert(task.clone(), (facts.clone(), since));
                since
            }
        };
        Observed {
            facts,
            read_at,
            unchanged_since: since.facts,
            task_unchanged_since: since.task,
            jobs_unchanged_since: since.jobs,
            this_pass: ThisPass::Nothing,
        }
    }

    /// Forgets every task but those that are known.
    pub fn keep(&mut self, is_known: impl Fn(&TaskId) -> bool) {
        self.known.retain(|task, _| is_known(task));
    }
}

#[cfg(test)]
mod tests;
