//! The model's controllers: they look, ask the real `decide`, and carry out its step one call at a time.
#![expect(clippy::unwrap_used, reason = "numbers of attempts and Jobs are small")]

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use trainyard::claim::{
    Admission, By, Cause, Entry, Facts, Job, JobState, JobsFact, Observed, OnInterruption,
    OnPendingTimeout, Phase, Policy, Presence, Reason, Settlement, Stamps, Step, TaskFact,
    TaskState, ThisPass, UserQueue, decide,
};
use trainyard::task::{Attempt, QueueId, Status};

use super::explore::{Fault, Next, Setup, Variant};
use super::others::{delete_job, job_of};
use super::world::{
    AGENT, Agent, Controller, Exec, IDLE, NOBODY, Pc, Pod, S, State, USER, bit, job, pending,
};

/// A job index that means: the step has no Job.
const NO_JOB: u8 = 7;
/// The attempts that the model has room for; the next one is where exploration is cut.
const ATTEMPTS: usize = 2;

/// The first call of a decided step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    pc: Pc,
    job: u8,
    bits: u16,
}

/// What is open when a controller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Choice {
    admitted: bool,
    out_of_patience: bool,
    fail_pending: bool,
}

/// Answers of the real `decide`, by the facts they rest on.
#[derive(Default)]
pub struct Memo(HashMap<u64, Option<Begin>>);

/// Facts as one controller sees them.
#[derive(Clone, Copy)]
struct View<'a> {
    state: &'a State,
    cluster: usize,
    entries: u8,
    quiet: bool,
    quiet_end: bool,
    this_pass: ThisPass,
}

/// The cluster of a controller.
pub fn cluster_of(setup: &Setup, controller: usize) -> usize {
    if setup.clusters == 2 { controller } else { 0 }
}

/// Appends all that controller `me` can do next.
pub fn steps(setup: &Setup, memo: &mut Memo, state: &State, me: usize, out: &mut Vec<Next>) {
    let cluster = cluster_of(setup, me);
    let now = state.controllers[me];
    if setup.crashes && now.pc != Pc::Idle && now.pc != Pc::Looked {
        let mut next = *state;
        // The server goes on with a call that it has begun.
        match now.pc {
            Pc::ParkRest => next.leave_others(pending(cluster)),
            Pc::ReturnRest => next.leave_others(USER),
            _ => {}
        }
        next.controllers[me] = IDLE;
        out.push(Next {
            state: next,
            label: "controller drops its step",
            progress: false,
            fault: None,
        });
    }
    match now.pc {
        Pc::Idle => look(setup, state, me, cluster, out),
        Pc::Looked => begin(setup, memo, state, me, cluster, out),
        _ => call(setup, memo, state, me, cluster, out),
    }
}

/// First half of a look: the entries.
fn look(setup: &Setup, state: &State, me: usize, cluster: usize, out: &mut Vec<Next>) {
    let mut next = *state;
    let mut bits = 0;
    if setup.variant == Variant::NoQuietTime || nobody_inside(state, bit::STALE << cluster) {
        bits |= bit::QUIET;
    }
    if setup.variant == Variant::ReleaseAfterEnd && nobody_inside(state, bit::STALE_END) {
        bits |= bit::QUIET_END;
    }
    next.controllers[me] = Controller {
        pc: Pc::Looked,
        job: 0,
        seen: state.entries,
        bits,
    };
    out.push(Next {
        state: next,
        label: "controller reads the queues",
        progress: true,
        fault: None,
    });
}

/// Whether nobody is in a step whose first read is older than the facts.
fn nobody_inside(state: &State, stale: u16) -> bool {
    state.controllers.iter().all(|c| c.bits & stale == 0)
        && state.pods.iter().all(|p| p.bits & stale == 0)
        && (state.agent_bits | state.user_bits) & stale == 0
}

/// Second half of a look: status and Jobs; then the decision.
fn begin(
    setup: &Setup,
    memo: &mut Memo,
    state: &State,
    me: usize,
    cluster: usize,
    out: &mut Vec<Next>,
) {
    let now = state.controllers[me];
    let view = View {
        state,
        cluster,
        entries: now.seen,
        quiet: now.bits & bit::QUIET != 0,
        quiet_end: now.bits & bit::QUIET_END != 0,
        this_pass: ThisPass::Nothing,
    };
    let mut seen: Vec<Option<Begin>> = Vec::new();
    for choice in choices(setup) {
        let begin = memo.decide(setup, view, choice);
        if seen.contains(&begin) {
            continue;
        }
        seen.push(begin);
        let mut next = *state;
        next.controllers[me] = match begin {
            Some(begin) => entered(state, now, begin),
            None => IDLE,
        };
        out.push(Next {
            state: next,
            label: "controller reads status and Jobs, decides",
            progress: true,
            fault: None,
        });
    }
}

fn choices(setup: &Setup) -> Vec<Choice> {
    let mut all = vec![Choice {
        admitted: true,
        out_of_patience: false,
        fail_pending: false,
    }];
    if setup.not_admitted {
        all.push(Choice {
            admitted: false,
            out_of_patience: false,
            fail_pending: false,
        });
    }
    if setup.patience {
        all.push(Choice {
            admitted: true,
            out_of_patience: true,
            fail_pending: false,
        });
        all.push(Choice {
            admitted: true,
            out_of_patience: true,
            fail_pending: true,
        });
    }
    all
}

fn entered(state: &State, now: Controller, begin: Begin) -> Controller {
    let kept = now.bits
        & (bit::STALE | bit::STALE_OTHER | bit::STALE_END | bit::USER_ENQUEUED | bit::TAKEN_BACK);
    let seen = if begin.job == NO_JOB {
        0
    } else {
        state.jobs[usize::from(begin.job)]
    };
    Controller {
        pc: begin.pc,
        job: begin.job,
        seen,
        bits: kept | begin.bits,
    }
}

/// One call of the step that the controller is in.
fn call(
    setup: &Setup,
    memo: &mut Memo,
    state: &State,
    me: usize,
    cluster: usize,
    out: &mut Vec<Next>,
) {
    let mut next = *state;
    let mut fault = None;
    let now = state.controllers[me];
    let j = usize::from(now.job);
    let own_pending = pending(cluster);
    let has = |wanted: u16| now.bits & wanted != 0;
    // The live read finds the status as the look left it: nobody has written it since.
    let unwritten = !has(bit::WRITTEN);
    let same_job = now.job != NO_JOB && {
        let there = state.jobs[j];
        job::there(there) && there & job::UID == now.seen & job::UID
    };
    let (then, label) = match now.pc {
        Pc::Idle | Pc::Looked => return,
        Pc::Intend => {
            create(&mut next, j, now.bits);
            let mut stopped = next;
            stopped.controllers[me] = IDLE;
            let label = "intend: create the Job";
            out.push(Next {
                state: stopped,
                label,
                progress: true,
                fault: None,
            });
            // An intent that is there, new or not: the same pass goes on to the take.
            if next.jobs[j] & (job::STATE | job::DELETING) != job::INTENT {
                return;
            }
            next.controllers[me].seen = next.jobs[j];
            next.controllers[me].bits &= !(bit::RETURNED | bit::REQUEUED);
            (Pc::TakeRemove, label)
        }
        Pc::LateIntend => {
            create(&mut next, j, now.bits);
            next.controllers[me].seen = next.jobs[j];
            (Pc::ParkAdd, "create the Job after the take")
        }
        Pc::TakeRemove => (
            if next.remove(USER) {
                Pc::TakeRead
            } else {
                Pc::Idle
            },
            "take: remove the entry",
        ),
        Pc::TakeRead => {
            let then = if state.status != S::Queued {
                Pc::Idle
            } else if setup.variant == Variant::NoIntent {
                Pc::LateIntend
            } else {
                same_pass(setup, memo, state, now, cluster, ThisPass::Took)
            };
            (then, "take: read the status")
        }
        Pc::ParkAdd => {
            let plain = setup.variant == Variant::PlainPark;
            let there_already = state.status == S::Queued && state.entries & own_pending != 0;
            let added = next.enqueue(own_pending, !plain, Reason::Other);
            if added && has(bit::USER_ENQUEUED) {
                next.limit_double = true;
            }
            if has(bit::TAKEN_BACK) && (added || there_already) {
                next.taken_back = false;
            }
            let then = if added {
                Pc::ParkRest
            } else if there_already {
                same_pass(setup, memo, state, now, cluster, ThisPass::TookAndParked)
            } else {
                Pc::Idle
            };
            (then, "park: enqueue, entry added")
        }
        Pc::ParkRest => {
            next.leave_others(own_pending);
            let took = has(bit::READ_QUEUED);
            let then = if took {
                same_pass(setup, memo, state, now, cluster, ThisPass::TookAndParked)
            } else {
                Pc::Idle
            };
            (then, "park: enqueue, others removed")
        }
        Pc::Release => {
            if state.jobs[j] == now.seen {
                next.jobs[j] = now.seen & !job::STATE | job::HELD;
            }
            (Pc::Idle, "release: patch the Job")
        }
        Pc::WithdrawRead => (Pc::WithdrawDelete, "withdraw: read live"),
        Pc::WithdrawDelete => {
            let matches = state.jobs[j] == now.seen;
            if matches {
                delete_job(setup, &mut next, j);
            }
            (
                if matches {
                    Pc::WithdrawRemove
                } else {
                    Pc::Idle
                },
                "withdraw: delete the Job",
            )
        }
        Pc::WithdrawRemove => {
            if !has(bit::READ_QUEUED) || setup.variant == Variant::WithdrawTakesQueued {
                next.remove(own_pending);
            }
            (Pc::Idle, "withdraw: remove the pending entry")
        }
        Pc::ReturnRemove => (
            if next.remove(own_pending) {
                Pc::ReturnRead
            } else {
                Pc::Idle
            },
            "return: remove the pending entry",
        ),
        Pc::ReturnRead => {
            let ours = now.job != NO_JOB && run_of(state) == now.job + 1;
            let then = match state.status {
                S::Queued => after_dequeue(same_job && job::ended(state.jobs[j])),
                S::InProgress if has(bit::RUNNING) && ours && unwritten && !state.stopping => {
                    Pc::ReturnDequeue
                }
                _ => Pc::Idle,
            };
            (then, "return: read live")
        }
        Pc::ReturnDequeue => {
            fault = ends_foreign(setup, state, &mut next, now);
            let done = next.dequeue(Some(S::Queued), Reason::Requeued);
            if done && has(bit::TAKEN_BACK) {
                next.taken_back = false;
            }
            let then = if done {
                after_dequeue(same_job && job::ended(state.jobs[j]))
            } else {
                Pc::Idle
            };
            (then, "return: dequeue to queued")
        }
        Pc::ReturnPatch => {
            if same_job && job::ended(state.jobs[j]) {
                next.jobs[j] |= job::SETTLED;
            }
            (Pc::ReturnAdd, "return: patch the Job")
        }
        Pc::ReturnAdd => {
            let reason = if has(bit::RESTORE) {
                Reason::Restored
            } else {
                Reason::Requeued
            };
            let added = next.enqueue(USER, true, reason);
            if added && has(bit::TAKEN_BACK) {
                next.taken_back = false;
            }
            let there_already = state.status == S::Queued && state.entries & USER != 0;
            let then = match (added, there_already) {
                (true, _) => Pc::ReturnRest,
                (false, true) => after_return(now.bits),
                (false, false) => Pc::Idle,
            };
            (then, "return: enqueue, entry added")
        }
        Pc::ReturnRest => {
            next.leave_others(USER);
            (after_return(now.bits), "return: enqueue, others removed")
        }
        Pc::PullBackDelete => {
            if same_job {
                delete_job(setup, &mut next, j);
            }
            (Pc::Idle, "pull back: delete the Job")
        }
        Pc::GiveUpRemove => (
            if next.remove(own_pending) {
                Pc::GiveUpRead
            } else {
                Pc::Idle
            },
            "give up: remove the pending entry",
        ),
        Pc::GiveUpRead => {
            // Who took the pending entry knows that no pod can start any more.
            let started = !has(bit::PENDING) && same_job && started(state, setup, j);
            let then = if state.status == S::Queued && unwritten && !started {
                Pc::GiveUpDequeue
            } else {
                Pc::Idle
            };
            (then, "give up: read live")
        }
        Pc::GiveUpDequeue => {
            fault = ends_foreign(setup, state, &mut next, now);
            next.dequeue(Some(S::Failed), Reason::Other);
            (
                if now.job == NO_JOB {
                    Pc::Idle
                } else {
                    Pc::GiveUpDelete
                },
                "give up: dequeue to failed",
            )
        }
        Pc::GiveUpDelete => {
            if same_job {
                if job::ended(state.jobs[j]) {
                    next.jobs[j] |= job::SETTLED;
                } else {
                    delete_job(setup, &mut next, j);
                }
            }
            (Pc::Idle, "give up: delete or patch the Job")
        }
        Pc::SettleRead => {
            let mine = setup.variant == Variant::MarkAlone && state.mark == now.job + 1
                || run_of(state) == now.job + 1;
            let then = match state.status {
                S::InProgress if mine && unwritten => Pc::SettleWrite,
                S::InProgress | S::Queued => Pc::Idle,
                _ => Pc::SettlePatch,
            };
            (then, "settle: read live")
        }
        Pc::SettleWrite => {
            fault = ends_foreign(setup, state, &mut next, now);
            next.end(if has(bit::WRITE_STOPPED) {
                S::Stopped
            } else {
                S::Failed
            });
            (Pc::SettlePatch, "settle: write the status")
        }
        Pc::SettlePatch => {
            if same_job && job::ended(state.jobs[j]) {
                next.jobs[j] |= job::SETTLED;
            }
            (Pc::Idle, "settle: patch the Job")
        }
        Pc::DequeueRead => {
            let still = state.status == S::Queued && unwritten && state.enqueue_status.is_none();
            (
                if still { Pc::Dequeue } else { Pc::Idle },
                "dequeue once more: read live",
            )
        }
        Pc::Dequeue => {
            fault = ends_foreign(setup, state, &mut next, now);
            next.dequeue(None, Reason::Other);
            (Pc::Idle, "dequeue once more")
        }
        Pc::TakeEntry => {
            next.remove(if has(bit::PENDING) { own_pending } else { USER });
            (Pc::Idle, "take the leftover entry out")
        }
    };
    let controller = &mut next.controllers[me];
    if then == Pc::Idle {
        *controller = IDLE;
    } else {
        controller.pc = then;
        match now.pc {
            Pc::WithdrawRead if state.status == S::Queued => controller.bits |= bit::READ_QUEUED,
            Pc::TakeRead => controller.bits |= bit::READ_QUEUED,
            Pc::SettleRead if state.stopping => controller.bits |= bit::WRITE_STOPPED,
            _ => {}
        }
    }
    out.push(Next {
        state: next,
        label,
        progress: true,
        fault,
    });
}

fn create(next: &mut State, j: usize, bits: u16) {
    if job::there(next.jobs[j]) {
        return;
    }
    let mut new = job::INTENT | (next.jobs[j] & job::UID) ^ job::UID;
    if bits & bit::RETURNED != 0 {
        new |= job::RETURNED;
    }
    if bits & bit::REQUEUED != 0 {
        new |= job::REQUEUED;
    }
    next.jobs[j] = new;
}

fn after_dequeue(job_ended: bool) -> Pc {
    if job_ended {
        Pc::ReturnPatch
    } else {
        Pc::ReturnAdd
    }
}

fn after_return(bits: u16) -> Pc {
    if bits & bit::PULL_BACK != 0 {
        Pc::PullBackDelete
    } else {
        Pc::Idle
    }
}

/// The next call in the pass that took the entry, decided on the facts of its look brought up to date.
fn same_pass(
    setup: &Setup,
    memo: &mut Memo,
    state: &State,
    now: Controller,
    cluster: usize,
    done: ThisPass,
) -> Pc {
    if setup.variant == Variant::NoIntent {
        return Pc::Release;
    }
    let mut believed = *state;
    believed.status = S::Queued;
    believed.reason = Reason::Other;
    believed.enqueue_status = Some(S::Created);
    believed.jobs[usize::from(now.job)] = now.seen;
    let entries = if done == ThisPass::Took {
        0
    } else {
        pending(cluster)
    };
    let view = View {
        state: &believed,
        cluster,
        entries,
        quiet: false,
        quiet_end: false,
        this_pass: done,
    };
    let choice = Choice {
        admitted: true,
        out_of_patience: false,
        fail_pending: false,
    };
    match memo.decide(setup, view, choice) {
        Some(Begin {
            pc: pc @ (Pc::ParkAdd | Pc::Release),
            ..
        }) => pc,
        _ => Pc::Idle,
    }
}

/// Whom mark and last worker name together, as `TaskState::run_of`: attempt's number or nobody.
fn run_of(state: &State) -> u8 {
    match (state.mark, state.last_worker) {
        (_, AGENT) => NOBODY,
        (NOBODY, worker) => worker,
        (mark, NOBODY) => mark,
        (mark, worker) if (mark - 1) / 2 == (worker - 1) / 2 => mark,
        _ => NOBODY,
    }
}

/// A write of ours that ends a run which is not the step's own. A known limit is an agent's run that began between the
/// step's live read and this write, after a user's enqueue in the same step, or beside another replica.
fn ends_foreign(setup: &Setup, state: &State, next: &mut State, now: Controller) -> Option<Fault> {
    if state.status != S::InProgress || state.limit_double {
        return None;
    }
    let agent = state.agent >= Agent::Started && state.agent_bits & bit::REVOKED == 0;
    let pod = state.pods.iter().enumerate().any(|(slot, pod)| {
        let own = job_of(setup, slot) == usize::from(now.job);
        pod.life == Pod::Running && pod.bits & bit::REVOKED == 0 && !own
    });
    // What `Dequeue` ends in a pod of ours the user has dequeued.
    if !agent && (!pod || now.pc == Pc::Dequeue) {
        return None;
    }
    let replicas = setup.controllers > setup.clusters;
    if now.bits & bit::FOREIGN_START != 0 && (now.bits & bit::USER_ENQUEUED != 0 || replicas) {
        next.limit_double = true;
        return None;
    }
    Some(Fault::EndedForeignRun)
}

/// Whether the task container of a Job's pod has started.
pub fn started(state: &State, setup: &Setup, j: usize) -> bool {
    let begun = |slot: usize| (Pod::Started..=Pod::Dead).contains(&state.pods[slot].life);
    begun(j) || (setup.two_pods && begun(j + ATTEMPTS))
}

impl Memo {
    fn decide(&mut self, setup: &Setup, view: View, choice: Choice) -> Option<Begin> {
        let key = view.key(setup, choice);
        if let Some(begin) = self.0.get(&key) {
            return *begin;
        }
        let observed = view.observed(setup, choice);
        let policy = policy(setup, choice);
        let step = decide(&observed, &policy, observed.read_at);
        let step = faulty(setup, view, &observed, step);
        let begin = step.begin(setup, view);
        self.0.insert(key, begin);
        begin
    }

    /// How many different observations the real `decide` has answered.
    pub fn len(&self) -> usize {
        self.0.len()
    }
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
                ..
            } => on(
                from(pending, Pc::ReturnRemove, Pc::ReturnRead),
                attempt,
                flag(running, bit::RUNNING),
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

    fn key(&self, setup: &Setup, choice: Choice) -> u64 {
        let s = self.state;
        let mut key = u64::from(self.entries) << 2 | self.cluster as u64;
        key = key << 3 | s.status as u64;
        key = key << 2 | s.reason as u64;
        key = key << 2 | s.exec as u64;
        key = key << 4 | u64::from(s.mark);
        key = key << 4 | u64::from(s.last_worker);
        key = key << 2 | self.this_pass as u64;
        for flag in [
            s.stopping,
            s.enqueue_status.is_some(),
            s.queue_deleted,
            self.quiet,
            self.quiet_end,
            choice.admitted,
            choice.out_of_patience,
            choice.fail_pending,
        ] {
            key = key << 1 | u64::from(flag);
        }
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
        let mut jobs = Vec::new();
        for attempt in 0..ATTEMPTS {
            let j = self.cluster * ATTEMPTS + attempt;
            let packed = s.jobs[j];
            let state = match packed & job::STATE {
                job::NONE => continue,
                job::INTENT => JobState::Intent,
                job::HELD => JobState::Held,
                job::ENDED_TASK => JobState::Ended(Cause::Task),
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
                started: started(s, setup, j),
                refused: false,
                settled: packed & job::SETTLED != 0,
                returned: packed & job::RETURNED != 0,
                requeues: u32::from(packed & job::REQUEUED != 0),
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
            unchanged_since: if self.quiet { long_ago } else { read_at },
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
