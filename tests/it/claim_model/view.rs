//! What a controller sees, as the facts that the real `decide` takes; and its answer, as the first call of a step.

#![expect(clippy::unwrap_used, reason = "numbers of attempts and Jobs are small")]

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use jiff::{SignedDuration, Timestamp};
use trainyard::claim::{
    Admission, By, Cause, Entry, Facts, Job, JobState, JobsFact, Observed, OnInterruption,
    OnPendingTimeout, Phase, Policy, Presence, Settlement, Stamps, Step, TaskFact, TaskState,
    ThisPass, UserQueue, decide,
};
use trainyard::task::{Attempt, QueueId, Status};

use super::index::Mix;
use super::setup::{Setup, Variant};
use super::world::{AGENT, Exec, NOBODY, Pc, S, State, USER, bit, job, pending};

/// A job index that means: the step has no Job.
pub const NO_JOB: u8 = 7;
/// The attempts that the model has room for; the next one is where exploration is cut.
pub const ATTEMPTS: usize = 2;

/// The first call of a decided step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    pub pc: Pc,
    pub job: u8,
    pub bits: u16,
}

/// What is open when a controller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a free choice of the explorer"
)]
pub struct Choice {
    pub admitted: bool,
    pub out_of_patience: bool,
    pub fail_pending: bool,
    /// The cluster has not told yet that a pod has started.
    pub unseen_start: bool,
    /// A failed task is not tried again any more.
    pub failures_spent: bool,
}

/// Answers of the real `decide`, by the facts they rest on.
#[derive(Default)]
pub struct Memo {
    answers: HashMap<u64, Vec<Option<Begin>>, BuildHasherDefault<Mix>>,
    /// How many different observations it has answered.
    pub asked: usize,
}

/// Facts as one controller sees them.
#[derive(Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is another question of time"
)]
pub struct View<'a> {
    pub state: &'a State,
    pub cluster: usize,
    pub entries: u8,
    pub quiet: bool,
    /// The same of the task's own facts.
    pub quiet_task: bool,
    /// All that dead pods of the cluster have sent has arrived.
    pub arrived: bool,
    pub quiet_end: bool,
    pub this_pass: ThisPass,
}

impl Choice {
    /// Nothing out of the ordinary.
    pub const PLAIN: Choice = Choice {
        admitted: true,
        out_of_patience: false,
        fail_pending: false,
        unseen_start: false,
        failures_spent: false,
    };
}

/// Whether the task container of a Job's pod has started.
pub fn started(state: &State, setup: &Setup, j: usize) -> bool {
    state.pods[j].life.started() || (setup.two_pods && state.pods[j + ATTEMPTS].life.started())
}

/// Whether it has started and may still run.
pub fn may_run(state: &State, setup: &Setup, j: usize) -> bool {
    state.pods[j].life.may_run() || (setup.two_pods && state.pods[j + ATTEMPTS].life.may_run())
}

impl Memo {
    /// The different answers to these facts, whatever is open; the first: when nothing is out of the ordinary.
    pub fn answers(&mut self, setup: &Setup, view: View) -> &[Option<Begin>] {
        let asked = &mut self.asked;
        self.answers.entry(view.key(setup)).or_insert_with(|| {
            let mut answers = Vec::new();
            for choice in choices(setup) {
                let observed = view.observed(setup, choice);
                let step = decide(&observed, &policy(setup, choice), observed.read_at);
                *asked += 1;
                let begin = faulty(setup, view, &observed, step).begin(setup, view);
                if !answers.contains(&begin) {
                    answers.push(begin);
                }
            }
            answers
        })
    }
}

/// All that may be open in this setup.
fn choices(setup: &Setup) -> Vec<Choice> {
    let mut all = vec![Choice::PLAIN];
    if setup.not_admitted {
        all.push(Choice {
            admitted: false,
            ..Choice::PLAIN
        });
    }
    if setup.patience {
        for fail_pending in [false, true] {
            all.push(Choice {
                out_of_patience: true,
                fail_pending,
                ..Choice::PLAIN
            });
        }
    }
    if setup.retries {
        all.push(Choice {
            failures_spent: true,
            ..Choice::PLAIN
        });
    }
    if setup.unseen_start {
        let seen = all.clone();
        all.extend(seen.iter().map(|choice| Choice {
            unseen_start: true,
            ..*choice
        }));
    }
    all
}

fn policy(setup: &Setup, choice: Choice) -> Policy {
    Policy {
        pending_timeout: SignedDuration::from_mins(30),
        on_pending_timeout: if choice.fail_pending {
            OnPendingTimeout::Fail
        } else {
            OnPendingTimeout::Requeue
        },
        on_interruption: OnInterruption::Requeue,
        max_interruptions: 3,
        max_failures: if setup.retries && !choice.failures_spent {
            3
        } else {
            0
        },
        grace: SignedDuration::from_secs(30),
        restore_orphans: setup.orphans,
        retiring: false,
        admission: if choice.admitted {
            Admission::Yes
        } else {
            Admission::No("full".into())
        },
    }
}

/// The faulty variants that differ in what is decided.
fn faulty(setup: &Setup, view: View, observed: &Observed, step: Step) -> Step {
    let wait = Step::Wait { until: None };
    match (setup.variant, &step) {
        (
            Variant::LostOnlyWithoutJobs,
            Step::Settle {
                how: Settlement::Lost,
                ..
            },
        ) if observed.facts.jobs != JobsFact::Known(Vec::new()) => wait,
        (Variant::StartingNoWayOut, Step::Requeue { .. } | Step::GiveUp { .. })
            if matches!(Phase::of(&observed.facts), Phase::Starting(..)) =>
        {
            wait
        }
        (
            Variant::NoGiveUp,
            Step::GiveUp {
                attempt: Some(attempt),
                pending,
                ..
            },
        ) => Step::Requeue {
            attempt: *attempt,
            queue: user_queue(),
            pending: *pending,
            running: false,
            failed: false,
        },
        (
            Variant::NoGiveUp,
            Step::GiveUp {
                attempt: None,
                pending,
                ..
            },
        ) => Step::Restore {
            queue: user_queue(),
            pending: *pending,
        },
        (Variant::ReleaseAfterEnd, Step::Wait { .. }) => match Phase::of(&observed.facts) {
            Phase::Parked(job) if job.attempt > Attempt::FIRST && view.quiet_end => Step::Release {
                attempt: job.attempt,
            },
            _ => step,
        },
        _ => step,
    }
}

trait First {
    fn begin(&self, setup: &Setup, view: View) -> Option<Begin>;
}

impl First for Step {
    /// The first call of the step; `None`: nothing to do, or an attempt beyond the model's room.
    fn begin(&self, setup: &Setup, view: View) -> Option<Begin> {
        let index = |attempt: Attempt| {
            u8::try_from(view.cluster * ATTEMPTS).unwrap() + u8::try_from(attempt.0 - 1).unwrap()
        };
        let on = |pc, attempt, bits| {
            Some(Begin {
                pc,
                job: index(attempt),
                bits,
            })
        };
        let flag = |on: bool, bits: u16| if on { bits } else { 0 };
        let from = |pending: bool, first, second| if pending { first } else { second };
        match *self {
            Step::Wait { .. } | Step::Explain(_) => None,
            Step::Intend {
                attempt,
                returned,
                requeues,
                failures: _,
            } => {
                if attempt.0 as usize > setup.attempts {
                    return None;
                }
                let bits = flag(returned, bit::RETURNED) | flag(requeues > 0, bit::REQUEUED);
                let pc = if setup.variant == Variant::NoIntent {
                    Pc::TakeRemove
                } else {
                    Pc::Intend
                };
                on(pc, attempt, bits)
            }
            Step::Take { attempt, .. } => on(Pc::TakeRemove, attempt, 0),
            Step::Park { attempt } => on(Pc::ParkAdd, attempt, 0),
            Step::Release { attempt } => on(Pc::Release, attempt, 0),
            Step::Withdraw { attempt } => on(Pc::WithdrawRead, attempt, 0),
            Step::Requeue {
                attempt,
                pending,
                running,
                failed,
                ..
            } => on(
                from(pending, Pc::ReturnRemove, Pc::ReturnRead),
                attempt,
                flag(running, bit::RUNNING) | flag(failed, bit::RETRY),
            ),
            Step::Restore { pending, .. } => Some(Begin {
                pc: from(pending, Pc::ReturnRemove, Pc::ReturnRead),
                job: NO_JOB,
                bits: bit::RESTORE,
            }),
            Step::PullBack { attempt, .. } => {
                on(Pc::ReturnRemove, attempt, bit::RESTORE | bit::PULL_BACK)
            }
            Step::GiveUp {
                attempt, pending, ..
            } => Some(Begin {
                pc: from(pending, Pc::GiveUpRemove, Pc::GiveUpRead),
                job: attempt.map_or(NO_JOB, index),
                bits: flag(pending, bit::PENDING),
            }),
            Step::Settle { attempt, how } => on(
                Pc::SettleRead,
                attempt,
                flag(how == Settlement::Stopped, bit::WRITE_STOPPED),
            ),
            Step::SettlePatchOnly { attempt } => on(Pc::SettlePatch, attempt, 0),
            Step::Dequeue => Some(Begin {
                pc: Pc::DequeueRead,
                job: NO_JOB,
                bits: 0,
            }),
            Step::TakeEntry { ref queue } => Some(Begin {
                pc: Pc::TakeEntry,
                job: NO_JOB,
                bits: flag(queue.is_none(), bit::PENDING),
            }),
        }
    }
}

impl View<'_> {
    fn entry(&self) -> Entry {
        let others = self.entries & !USER & !pending(self.cluster);
        if others != 0 {
            Entry::Elsewhere
        } else if self.entries & USER != 0 {
            Entry::Served {
                queue: user_queue(),
            }
        } else if self.entries & pending(self.cluster) != 0 {
            Entry::Pending
        } else {
            Entry::Nowhere
        }
    }

    fn by(&self, who: u8) -> By {
        match who {
            NOBODY => By::Nobody,
            AGENT => By::Other,
            run if usize::from(run - 1) / ATTEMPTS == self.cluster => {
                By::Us(Attempt(u32::from((run - 1) % 2) + 1))
            }
            _ => By::Other,
        }
    }

    fn key(&self, setup: &Setup) -> u64 {
        let s = self.state;
        let mut key = u64::from(self.entries) << 2 | self.cluster as u64;
        key = key << 3 | s.status as u64;
        key = key << 3 | s.reason as u64;
        key = key << 2 | s.exec as u64;
        key = key << 4 | u64::from(s.mark);
        key = key << 4 | u64::from(s.last_worker);
        key = key << 2 | self.this_pass as u64;
        key = key << 1 | u64::from(s.stopping);
        key = key << 1 | u64::from(s.enqueue_status.is_some());
        key = key << 1 | u64::from(s.queue_deleted);
        key = key << 1 | u64::from(self.quiet);
        key = key << 1 | u64::from(self.quiet_task);
        key = key << 1 | u64::from(self.arrived);
        key = key << 1 | u64::from(self.quiet_end);
        for attempt in 0..ATTEMPTS {
            let j = self.cluster * ATTEMPTS + attempt;
            key = key << 8 | u64::from(s.jobs[j] & !job::UID);
            key = key << 1 | u64::from(started(s, setup, j));
        }
        key
    }

    fn observed(&self, setup: &Setup, choice: Choice) -> Observed {
        let s = self.state;
        let read_at: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let long_ago = read_at - SignedDuration::from_hours(2);
        let since = |stands: bool| if stands { long_ago } else { read_at };
        let mut jobs = Vec::new();
        for attempt in 0..ATTEMPTS {
            let j = self.cluster * ATTEMPTS + attempt;
            let packed = s.jobs[j];
            let state = match packed & job::STATE {
                job::NONE => continue,
                job::INTENT => JobState::Intent,
                job::HELD => JobState::Held,
                job::ENDED_TASK => JobState::Ended(Cause::Task),
                job::ENDED_FAULT => JobState::Ended(Cause::Failure),
                _ => JobState::Ended(Cause::Interruption),
            };
            jobs.push(Job {
                attempt: Attempt(u32::try_from(attempt).unwrap() + 1),
                state,
                presence: if packed & job::DELETING == 0 {
                    Presence::Present
                } else {
                    Presence::Deleting
                },
                other_binding: false,
                started: started(s, setup, j) && !choice.unseen_start,
                refused: false,
                settled: packed & job::SETTLED != 0,
                returned: packed & job::RETURNED != 0,
                requeues: u32::from(packed & job::REQUEUED != 0),
                failures: 0,
                created_at: if choice.out_of_patience {
                    long_ago
                } else {
                    read_at
                },
            });
        }
        Observed {
            facts: Facts {
                entry: self.entry(),
                task: self.task(setup),
                jobs: JobsFact::Known(jobs),
                stamps: Stamps::default(),
            },
            read_at,
            unchanged_since: since(self.quiet),
            task_unchanged_since: since(self.quiet_task),
            jobs_unchanged_since: since(self.arrived),
            this_pass: self.this_pass,
        }
    }

    fn task(&self, setup: &Setup) -> TaskFact {
        let s = self.state;
        let status = match s.status {
            S::Created => Status::Created,
            S::Queued => Status::Queued,
            S::InProgress => Status::InProgress,
            S::Stopped => Status::Stopped,
            S::Failed => Status::Failed,
            S::Completed => Status::Completed,
            S::Gone => return TaskFact::Gone,
        };
        let mark = self.by(s.mark);
        let by_mark_alone = setup.variant == Variant::MarkAlone && mark != By::Nobody;
        TaskFact::Found(TaskState {
            status,
            stopping: s.stopping,
            reason: s.reason,
            has_enqueue_status: s.enqueue_status.is_some(),
            user_queue: match s.exec {
                Exec::Unset => UserQueue::Unset,
                _ if s.queue_deleted => UserQueue::Gone,
                Exec::User | Exec::Pending => UserQueue::Known(user_queue()),
            },
            mark,
            last_worker: if by_mark_alone {
                By::Nobody
            } else {
                self.by(s.last_worker)
            },
        })
    }
}

fn user_queue() -> QueueId {
    "00000000000000000000000000000001".parse().unwrap()
}
