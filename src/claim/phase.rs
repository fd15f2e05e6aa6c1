//! What the facts of one task mean. Total, first match from the top, never stored.
//!
//! Time is not part of a phase: where a row of the table asks for quiet time, the phase is there at once and its step
//! comes after it (`decide`). Rows that speak of a Job look at the task's Jobs from the highest attempt down.

use std::cmp::Reverse;

use super::observed::{By, Entry, Facts, Job, JobsFact, Reason, TaskFact, TaskState};
use crate::task::{Attempt, QueueId, Status};

/// What the facts of one task mean (`docs/claim.md`, the table of phases).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase<'a> {
    /// A fact is unknown.
    Unclear,
    /// A Job is being deleted, or gone while a pod of it remains; it counts as existing until both are gone.
    Deleting,
    /// A Job of another binding lives; that binding withdraws or ends it.
    Occupied,
    /// Not to be run any more, and nothing has started.
    Withdrawn(&'a Job),
    /// Running, and somebody asked it to stop, or took it away.
    Stopping(&'a Job),
    /// Its end was reported while its pod is still there.
    Closing(&'a Job),
    /// Somebody else has it, or a higher attempt of ours.
    Rival(&'a Job),
    /// The intent's entry is pending.
    Parked(&'a Job),
    /// The intent is written, the entry still stands in its served queue.
    Intended(&'a Job, &'a QueueId),
    /// The intent's entry was taken and is in no queue.
    Taken(&'a Job),
    /// Released; the pod has not come to the fence.
    Waiting(&'a Job, &'a TaskState),
    /// Reset and enqueued again while the old Job is there.
    Superseded(&'a Job),
    /// The pod is between its fence and `in_progress`, or its entry got lost.
    Starting(&'a Job, &'a TaskState),
    /// The pod runs the task.
    Running(&'a Job),
    /// A user's dequeue that left the task queued, in no queue.
    TakenOut,
    /// The pod ended before it could run the task, or between two calls of `Requeue`.
    EndedQueued(&'a Job, &'a TaskState),
    /// The pod ended without reporting it.
    EndedRunning(&'a Job, &'a TaskState),
    /// In a served queue, nothing of it here.
    Offered(&'a QueueId, &'a TaskState),
    /// Pending without a Job.
    Stranded(&'a TaskState),
    /// Running by name of an attempt whose Job is gone.
    Lost(Attempt),
    /// Queued, in no queue, without a Job.
    Orphan(&'a TaskState),
    /// An entry whose task is not queued, or is gone; `None`: in the pending queue.
    Leftover(Option<&'a QueueId>),
    /// Ended and reported; the Job is not marked as settled.
    Reported(&'a Job),
    /// Anything else.
    Closed,
}

/// The statuses that the table tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queued,
    InProgress,
    /// Stopped, or created by a reset or dequeue.
    TakenBack,
    /// Completed, failed, published and the like: the executor or a user ended it.
    Over,
    Gone,
}

/// The facts, once none of them is unknown.
struct Known<'a> {
    entry: &'a Entry,
    kind: Kind,
    /// `None`: the task is gone.
    task: Option<&'a TaskState>,
    /// Highest attempt first.
    jobs: Vec<&'a Job>,
}

impl<'a> Phase<'a> {
    /// The phase of these facts.
    pub fn of(facts: &'a Facts) -> Self {
        let Some(known) = Known::of(facts) else {
            return Self::Unclear;
        };
        known
            .occupied()
            .or_else(|| known.to_be_removed())
            .or_else(|| known.taken_out())
            .or_else(|| known.claimed())
            .or_else(|| known.without_live_job())
            .unwrap_or(Self::Closed)
    }
}

/// The attempt of the next intent: one more than the highest among the Jobs and the mark.
pub fn next_attempt(facts: &Facts) -> Attempt {
    let of_jobs = match &facts.jobs {
        JobsFact::Known(jobs) => jobs.iter().map(|job| job.attempt).max(),
        JobsFact::Unknown => None,
    };
    let named = |by: By| match by {
        By::Us(attempt) => Some(attempt),
        By::Nobody | By::Other => None,
    };
    let of_task = match &facts.task {
        TaskFact::Found(task) => named(task.mark).max(named(task.last_worker)),
        TaskFact::Unknown | TaskFact::Gone => None,
    };
    of_jobs.max(of_task).map_or(Attempt::FIRST, Attempt::next)
}

impl<'a> Known<'a> {
    fn of(facts: &'a Facts) -> Option<Self> {
        let (task, kind) = match &facts.task {
            TaskFact::Unknown => return None,
            TaskFact::Gone => (None, Kind::Gone),
            TaskFact::Found(task) => (Some(task), kind_of(task.status)?),
        };
        let JobsFact::Known(jobs) = &facts.jobs else {
            return None;
        };
        if facts.entry == Entry::Unknown {
            return None;
        }
        let mut jobs: Vec<&Job> = jobs.iter().collect();
        jobs.sort_by_key(|job| Reverse(job.attempt));
        Some(Self {
            entry: &facts.entry,
            kind,
            task,
            jobs,
        })
    }

    fn find(&self, wanted: impl Fn(&Job) -> bool) -> Option<&'a Job> {
        self.jobs.iter().copied().find(|job| wanted(job))
    }

    fn ours(&self, job: &Job) -> bool {
        self.task.is_some_and(|task| task.is_of(job))
    }

    fn over(&self) -> bool {
        match self.kind {
            Kind::TakenBack | Kind::Over | Kind::Gone => true,
            Kind::Queued | Kind::InProgress => false,
        }
    }

    /// Something is there that others have to finish first.
    fn occupied(&self) -> Option<Phase<'a>> {
        if self
            .find(|job| !job.other_binding && !job.present())
            .is_some()
        {
            return Some(Phase::Deleting);
        }
        self.find(|job| job.other_binding && (!job.ended() || !job.present()))
            .map(|_| Phase::Occupied)
    }

    /// Rows Withdrawn to Rival: a live Job that has to go.
    fn to_be_removed(&self) -> Option<Phase<'a>> {
        if self.over()
            && let Some(job) = self.find(|job| job.waits() && !self.ran(job))
        {
            return Some(Phase::Withdrawn(job));
        }
        if let Some(job) = self.find(|job| job.held() && (job.started || self.ran(job))) {
            let asked_to_stop =
                self.kind == Kind::InProgress && self.task.is_some_and(|task| task.stopping);
            match self.kind {
                Kind::InProgress if asked_to_stop && self.ours(job) => {
                    return Some(Phase::Stopping(job));
                }
                Kind::TakenBack | Kind::Gone => return Some(Phase::Stopping(job)),
                Kind::Over => return Some(Phase::Closing(job)),
                Kind::Queued | Kind::InProgress => {}
            }
        }
        self.rival().map(Phase::Rival)
    }

    /// The task came to its end by this Job's pod, whose start may not have been seen yet: only the pod of an attempt
    /// writes that attempt's mark, inside its fence. A short script ends before the kubelet tells of its start, and
    /// to withdraw its Job then would lose the pod's exit code and log.
    fn ran(&self, job: &Job) -> bool {
        self.kind == Kind::Over && job.held() && self.ours(job)
    }

    fn rival(&self) -> Option<&'a Job> {
        let highest = self.jobs.first()?.attempt;
        if self.kind == Kind::Queued
            && *self.entry == Entry::Elsewhere
            && let Some(job) = self.find(|job| !job.ended())
        {
            return Some(job);
        }
        if self.kind == Kind::InProgress
            && let Some(job) = self.find(|job| job.intent() || (job.held() && !self.ours(job)))
        {
            return Some(job);
        }
        self.find(|job| job.waits() && job.attempt < highest)
    }

    /// Row Taken out. Not once the task container has started: then the fence is on its way, or a run. Beside a Job
    /// that waits only of a later attempt or a returned task: only such a task is left queued by a user's dequeue.
    fn taken_out(&self) -> Option<Phase<'a>> {
        let in_reach = match self.entry {
            Entry::Nowhere | Entry::Pending => self.kind == Kind::Queued,
            Entry::Served { .. } | Entry::Elsewhere | Entry::Unknown => false,
        };
        let possible = self.jobs.iter().all(|job| {
            job.ended() || (job.waits() && (job.attempt > Attempt::FIRST || job.returned))
        });
        (in_reach && possible && self.task?.looks_taken_out()).then_some(Phase::TakenOut)
    }

    /// Rows Parked to Running: an intent or a held Job that may stay.
    fn claimed(&self) -> Option<Phase<'a>> {
        let job = self.find(|job| !job.ended())?;
        let task = self.task?;
        if self.kind == Kind::InProgress {
            return Some(Phase::Running(job));
        }
        Some(match self.entry {
            Entry::Pending if job.intent() => Phase::Parked(job),
            Entry::Pending if job.started => Phase::Starting(job, task),
            Entry::Pending => Phase::Waiting(job, task),
            Entry::Served { queue } if job.intent() => Phase::Intended(job, queue),
            Entry::Served { .. } => Phase::Superseded(job),
            Entry::Nowhere if job.intent() => Phase::Taken(job),
            Entry::Nowhere => Phase::Starting(job, task),
            Entry::Elsewhere => Phase::Rival(job),
            Entry::Unknown => Phase::Unclear,
        })
    }

    /// Rows Taken out to Reported: no Job, or ended ones alone.
    fn without_live_job(&self) -> Option<Phase<'a>> {
        match (self.kind, self.task) {
            (Kind::Queued, Some(task)) => self.queued_without_live_job(task),
            (Kind::InProgress, Some(task)) => self.running_without_live_job(task),
            (Kind::TakenBack | Kind::Over | Kind::Gone, _)
            | (Kind::Queued | Kind::InProgress, None) => self.over_without_live_job(),
        }
    }

    fn queued_without_live_job(&self, task: &'a TaskState) -> Option<Phase<'a>> {
        let ended = self.find(|job| !job.other_binding);
        match self.entry {
            Entry::Nowhere => {
                Some(ended.map_or(Phase::Orphan(task), |job| Phase::EndedQueued(job, task)))
            }
            Entry::Pending => {
                Some(ended.map_or(Phase::Stranded(task), |job| Phase::EndedQueued(job, task)))
            }
            Entry::Served { queue } => Some(Phase::Offered(queue, task)),
            Entry::Elsewhere => None,
            Entry::Unknown => Some(Phase::Unclear),
        }
    }

    fn running_without_live_job(&self, task: &'a TaskState) -> Option<Phase<'a>> {
        if let Some(job) = self.find(|job| task.is_of(job) && !job.other_binding) {
            return Some(Phase::EndedRunning(job, task));
        }
        if let Some(attempt) = task.run_of()
            && self.find(|job| job.attempt == attempt).is_none()
        {
            return Some(Phase::Lost(attempt));
        }
        self.leftover()
    }

    fn over_without_live_job(&self) -> Option<Phase<'a>> {
        self.leftover().or_else(|| {
            self.find(|job| !job.settled && !job.other_binding)
                .map(Phase::Reported)
        })
    }

    fn leftover(&self) -> Option<Phase<'a>> {
        match self.entry {
            Entry::Pending => Some(Phase::Leftover(None)),
            Entry::Served { queue } if self.kind == Kind::Gone => {
                Some(Phase::Leftover(Some(queue)))
            }
            Entry::Served { .. } | Entry::Nowhere | Entry::Elsewhere | Entry::Unknown => None,
        }
    }
}

impl TaskState {
    /// Row Taken out: no `enqueue_status`, and no step of ours left it like that.
    pub(super) fn looks_taken_out(&self) -> bool {
        !self.has_enqueue_status
            && match self.reason {
                Reason::Requeued | Reason::Retried | Reason::FailedEnqueueing => false,
                Reason::Restored | Reason::Other => true,
            }
    }
}

/// `None`: a status word that is not known means nothing.
fn kind_of(status: Status) -> Option<Kind> {
    match status {
        Status::Queued => Some(Kind::Queued),
        Status::InProgress => Some(Kind::InProgress),
        Status::Created | Status::Stopped => Some(Kind::TakenBack),
        Status::Publishing
        | Status::Published
        | Status::Closed
        | Status::Failed
        | Status::Completed => Some(Kind::Over),
        Status::Unknown => None,
    }
}
