//! The one next step: a total function of facts, policy and the time.

use jiff::{SignedDuration, Timestamp};

use super::observed::{Cause, JobState, Observed, TaskState, ThisPass, UserQueue};
use super::phase::{Phase, next_attempt};
use super::policy::{
    Admission, LATE_DELIVERY, ORPHAN_QUIET_TIMES, OnInterruption, OnPendingTimeout, Policy,
    QUIET_TIME, STEP_DEADLINE,
};
use super::step::{GiveUpReason, Settlement, Step, Why};
use super::{Entry, Job, Reason};
use crate::task::{Attempt, QueueId};

/// What to do next about the task with these facts.
///
/// Rests on nothing but its arguments. Facts older than [`STEP_DEADLINE`] lead to no step but to a new look.
pub fn decide(observed: &Observed, policy: &Policy, now: Timestamp) -> Step {
    if now.duration_since(observed.read_at) > STEP_DEADLINE {
        return Step::Wait { until: Some(now) };
    }
    let quiet = Quiet {
        since: observed.unchanged_since,
        task_since: observed.task_unchanged_since,
        jobs_since: observed.jobs_unchanged_since,
        read_at: observed.read_at,
    };
    let pending = observed.facts.entry == Entry::Pending;
    match Phase::of(&observed.facts) {
        Phase::Unclear | Phase::Deleting | Phase::Occupied | Phase::Running(_) | Phase::Closed => {
            Step::Wait { until: None }
        }
        Phase::Withdrawn(job)
        | Phase::Stopping(job)
        | Phase::Rival(job)
        | Phase::Superseded(job) => Step::Withdraw {
            attempt: job.attempt,
        },
        Phase::Closing(job) => quiet.for_longer(policy.grace, || Step::Withdraw {
            attempt: job.attempt,
        }),
        Phase::Parked(job) if policy.retiring => quiet.then(|| Step::Withdraw {
            attempt: job.attempt,
        }),
        Phase::Parked(job) => {
            let release = || Step::Release {
                attempt: job.attempt,
            };
            if may_release_at_once(observed.this_pass, job) {
                release()
            } else {
                quiet.then(release)
            }
        }
        Phase::Intended(job, queue) => match policy.admission {
            Admission::Yes => Step::Take {
                queue: queue.clone(),
                attempt: job.attempt,
            },
            Admission::No(_) => Step::Withdraw {
                attempt: job.attempt,
            },
        },
        Phase::Taken(job) => {
            let park = || Step::Park {
                attempt: job.attempt,
            };
            match observed.this_pass {
                ThisPass::Took => park(),
                ThisPass::Nothing | ThisPass::TookAndParked => quiet.then(park),
            }
        }
        Phase::Waiting(job, task) => waiting(job, task, &quiet, policy, now),
        Phase::Starting(job, _) if job.started => Step::Wait { until: None },
        Phase::Starting(job, task) => quiet.then(|| return_or_give_up(job, task, pending)),
        // Only a user's dequeue leaves a pending task like that; nowhere it may be somebody between two calls.
        Phase::TakenOut if pending => Step::Dequeue,
        Phase::TakenOut => quiet.then(|| Step::Dequeue),
        Phase::EndedQueued(job, task) => {
            let step = || {
                // Between two calls of a retry: it goes on as one, and is no interruption.
                if task.reason != Reason::Retried && job.requeues >= policy.max_interruptions {
                    Step::GiveUp {
                        attempt: Some(job.attempt),
                        pending,
                        reason: GiveUpReason::InterruptionsSpent,
                    }
                } else {
                    return_or_give_up(job, task, pending)
                }
            };
            if pending { step() } else { quiet.then(step) }
        }
        Phase::EndedRunning(job, task) => {
            quiet.after_the_pods(|| ended_running(job, task, policy, pending))
        }
        Phase::Offered(_, task) => match &policy.admission {
            // The entry may have been read before a user's dequeue, and the status after it.
            Admission::Yes if task.looks_taken_out() => quiet.then(|| intend(observed, task)),
            Admission::Yes => intend(observed, task),
            Admission::No(reason) => Step::Explain(Why::NotAdmitted(reason.clone())),
        },
        Phase::Stranded(task) => restore_or_give_up(task, true),
        Phase::Lost(attempt) => quiet.then(|| Step::Settle {
            attempt,
            how: Settlement::Lost,
        }),
        Phase::Orphan(task) if policy.restore_orphans => quiet
            .for_longer(QUIET_TIME * ORPHAN_QUIET_TIMES, || {
                restore_or_give_up(task, false)
            }),
        Phase::Orphan(_) => Step::Wait { until: None },
        Phase::Leftover(queue) => Step::TakeEntry {
            queue: queue.cloned(),
        },
        Phase::Reported(job) => Step::SettlePatchOnly {
            attempt: job.attempt,
        },
    }
}

/// For how long nothing has changed, up to the read that the step rests on.
struct Quiet {
    since: Timestamp,
    task_since: Timestamp,
    jobs_since: Timestamp,
    read_at: Timestamp,
}

impl Quiet {
    /// `step` once G has passed, otherwise the time to look again.
    fn then(&self, step: impl FnOnce() -> Step) -> Step {
        self.for_longer(QUIET_TIME, step)
    }

    fn for_longer(&self, time: SignedDuration, step: impl FnOnce() -> Step) -> Step {
        self.past(&[(self.since, time.max(QUIET_TIME))], step)
    }

    /// `step` once the task itself has stood for G, and all that the pods of its ended Jobs have sent has arrived.
    ///
    /// The end of a Job is none of these: it lets nobody begin a step but those who wait here too (`docs/claim.md`).
    fn after_the_pods(&self, step: impl FnOnce() -> Step) -> Step {
        let waits = [
            (self.task_since, QUIET_TIME),
            (self.jobs_since, LATE_DELIVERY),
        ];
        self.past(&waits, step)
    }

    /// `step` once so long has passed since each of these times, otherwise the time to look again.
    fn past(&self, waits: &[(Timestamp, SignedDuration)], step: impl FnOnce() -> Step) -> Step {
        // The look that ends a wait must itself have begun after it: what was read before may have changed since.
        let open: Vec<_> = waits
            .iter()
            .filter(|(since, time)| self.read_at.duration_since(*since) < *time)
            .collect();
        if open.is_empty() {
            return step();
        }
        let ends = open
            .iter()
            .filter_map(|(since, time)| since.checked_add(*time).ok());
        Step::Wait { until: ends.max() }
    }
}

/// Claim rule 5: at once only in the pass that took and parked the entry, as attempt 1, and only if no step of ours
/// may have brought the task back to its queue.
fn may_release_at_once(this_pass: ThisPass, job: &Job) -> bool {
    this_pass == ThisPass::TookAndParked && job.attempt == Attempt::FIRST && !job.returned
}

fn intend(observed: &Observed, task: &TaskState) -> Step {
    let attempt = next_attempt(&observed.facts);
    let before = match &observed.facts.jobs {
        super::JobsFact::Known(jobs) => jobs.iter().max_by_key(|job| job.attempt),
        super::JobsFact::Unknown => None,
    };
    let (interrupted, failed) = before.map_or((0, 0), |job| (job.requeues, job.failures));
    let (requeues, failures) = match task.reason {
        Reason::Requeued => (interrupted.saturating_add(1), failed),
        Reason::Retried => (interrupted, failed.saturating_add(1)),
        Reason::Restored | Reason::FailedEnqueueing => (interrupted, failed),
        Reason::Other => (0, 0),
    };
    Step::Intend {
        attempt,
        returned: task.reason.may_be_ours(),
        requeues,
        failures,
    }
}

fn waiting(job: &Job, task: &TaskState, quiet: &Quiet, policy: &Policy, now: Timestamp) -> Step {
    let patience = policy.pending_timeout.max(QUIET_TIME);
    let out_of_patience = now.duration_since(job.created_at) >= patience;
    let pull_back = |reason| match &task.user_queue {
        UserQueue::Known(queue) => Step::PullBack {
            attempt: job.attempt,
            queue: queue.clone(),
        },
        UserQueue::Unset | UserQueue::Gone => Step::GiveUp {
            attempt: Some(job.attempt),
            pending: true,
            reason,
        },
    };
    let step = if policy.retiring || job.refused {
        quiet.then(|| pull_back(GiveUpReason::QueueGone))
    } else if out_of_patience {
        quiet.then(|| match policy.on_pending_timeout {
            OnPendingTimeout::Requeue => pull_back(GiveUpReason::QueueGone),
            OnPendingTimeout::Fail => Step::GiveUp {
                attempt: Some(job.attempt),
                pending: true,
                reason: GiveUpReason::PendingTimeout,
            },
        })
    } else {
        Step::Wait { until: None }
    };
    match step {
        Step::Wait { .. } => Step::Explain(Why::PodWaits {
            attempt: job.attempt,
        }),
        step => step,
    }
}

fn return_or_give_up(job: &Job, task: &TaskState, pending: bool) -> Step {
    match known(&task.user_queue) {
        Some(queue) => Step::Requeue {
            attempt: job.attempt,
            queue: queue.clone(),
            pending,
            running: false,
            failed: task.reason == Reason::Retried,
        },
        None => Step::GiveUp {
            attempt: Some(job.attempt),
            pending,
            reason: GiveUpReason::QueueGone,
        },
    }
}

fn restore_or_give_up(task: &TaskState, pending: bool) -> Step {
    match known(&task.user_queue) {
        Some(queue) => Step::Restore {
            queue: queue.clone(),
            pending,
        },
        None => Step::GiveUp {
            attempt: None,
            pending,
            reason: GiveUpReason::QueueGone,
        },
    }
}

fn known(queue: &UserQueue) -> Option<&QueueId> {
    match queue {
        UserQueue::Known(queue) => Some(queue),
        UserQueue::Unset | UserQueue::Gone => None,
    }
}

fn ended_running(job: &Job, task: &TaskState, policy: &Policy, pending: bool) -> Step {
    let settle = |how| Step::Settle {
        attempt: job.attempt,
        how,
    };
    let requeue = |queue: &QueueId, failed| Step::Requeue {
        attempt: job.attempt,
        queue: queue.clone(),
        pending,
        running: true,
        failed,
    };
    match job.state {
        JobState::Ended(Cause::Failure) if !task.stopping => match known(&task.user_queue) {
            Some(queue) if job.failures < policy.max_failures => requeue(queue, true),
            Some(_) | None => settle(Settlement::AsEnded),
        },
        JobState::Ended(Cause::Interruption) if !task.stopping => {
            match (policy.on_interruption, known(&task.user_queue)) {
                (OnInterruption::Requeue, Some(queue))
                    if job.requeues < policy.max_interruptions =>
                {
                    requeue(queue, false)
                }
                (OnInterruption::Requeue | OnInterruption::Fail, _) => settle(Settlement::Failed),
                (OnInterruption::Stop, _) => settle(Settlement::Stopped),
            }
        }
        JobState::Ended(_) | JobState::Intent | JobState::Held => settle(Settlement::AsEnded),
    }
}
