//! The calls of the model's steps, in the order of the doc comments of `claim::Step`: one call, one transition.

use trainyard::claim::{Reason, ThisPass};

use super::pods::{delete_job, job_of};
use super::setup::{Fault, Next, Setup, Variant};
use super::view::{Begin, Memo, NO_JOB, View, may_run};
use super::world::{
    AGENT, Agent, Controller, IDLE, NOBODY, Pc, Pod, S, State, USER, bit, job, pending,
};

/// One call, about to be made.
struct Call<'a> {
    setup: &'a Setup,
    memo: &'a mut Memo,
    /// The world before it.
    state: &'a State,
    cluster: usize,
    me: usize,
    now: Controller,
    /// The step's Job.
    j: usize,
    /// The world after it.
    next: State,
    fault: Option<Fault>,
}

/// The call that follows, and what this one is called in a way to a fault.
type Then = (Pc, &'static str);

/// One call of the step that the controller is in.
pub fn call(
    setup: &Setup,
    memo: &mut Memo,
    state: &State,
    me: usize,
    cluster: usize,
    out: &mut Vec<Next>,
) {
    let now = state.controllers[me];
    let j = usize::from(now.job);
    let mut call = Call {
        setup,
        memo,
        state,
        cluster,
        me,
        now,
        j,
        next: *state,
        fault: None,
    };
    let (then, label) = match now.pc {
        Pc::Idle | Pc::Looked => return,
        Pc::Intend
        | Pc::LateIntend
        | Pc::TakeRemove
        | Pc::TakeRead
        | Pc::ParkAdd
        | Pc::ParkRest
        | Pc::Release => call.claim(),
        Pc::WithdrawRead | Pc::WithdrawDelete | Pc::WithdrawRemove => call.withdraw(),
        Pc::ReturnRemove
        | Pc::ReturnRead
        | Pc::ReturnDequeue
        | Pc::ReturnPatch
        | Pc::ReturnAdd
        | Pc::ReturnRest
        | Pc::PullBackDelete => call.give_back(),
        Pc::GiveUpRemove | Pc::GiveUpRead | Pc::GiveUpDequeue | Pc::GiveUpDelete => call.give_up(),
        Pc::SettleRead | Pc::SettleWrite | Pc::SettlePatch => call.settle(),
        Pc::DequeueRead | Pc::Dequeue | Pc::TakeEntry => call.tidy(),
    };
    let Call {
        mut next, fault, ..
    } = call;
    if now.pc == Pc::Intend {
        // The pass may also end here.
        let mut stopped = next;
        stopped.controllers[me] = IDLE;
        out.push(Next::on(stopped, label));
    }
    let controller = &mut next.controllers[me];
    controller.pc = then;
    match now.pc {
        _ if then == Pc::Idle => *controller = IDLE,
        Pc::WithdrawRead if state.status == S::Queued => controller.bits |= bit::READ_QUEUED,
        Pc::TakeRead => controller.bits |= bit::READ_QUEUED,
        Pc::SettleRead if state.stopping => controller.bits |= bit::WRITE_STOPPED,
        _ => {}
    }
    out.push(Next {
        fault,
        ..Next::on(next, label)
    });
}

impl Call<'_> {
    fn has(&self, wanted: u16) -> bool {
        self.now.bits & wanted != 0
    }

    /// A live read finds the status as the look left it: nobody has written it since.
    fn unwritten(&self) -> bool {
        !self.has(bit::WRITTEN)
    }

    fn own_pending(&self) -> u8 {
        pending(self.cluster)
    }

    /// The Job that was looked at is still there, by its UID.
    fn same_job(&self) -> bool {
        self.now.job != NO_JOB && {
            let there = self.state.jobs[self.j];
            job::there(there) && there & job::UID == self.now.seen & job::UID
        }
    }

    fn job_ended(&self) -> bool {
        self.same_job() && job::ended(self.state.jobs[self.j])
    }

    fn ours(&self) -> bool {
        self.now.job != NO_JOB && run_of(self.state) == self.now.job + 1
    }

    /// Intend, Take, Park, Release.
    fn claim(&mut self) -> Then {
        let (state, own_pending) = (self.state, self.own_pending());
        match self.now.pc {
            Pc::Intend => {
                create(&mut self.next, self.j, self.now.bits);
                let there = self.next.jobs[self.j];
                let controller = &mut self.next.controllers[self.me];
                controller.seen = there;
                controller.bits &= !(bit::RETURNED | bit::REQUEUED);
                // An intent that is there, new or not: the same pass goes on to the take.
                let intent = there & (job::STATE | job::DELETING) == job::INTENT;
                (first_if(intent, Pc::TakeRemove), "intend: create the Job")
            }
            Pc::LateIntend => {
                create(&mut self.next, self.j, self.now.bits);
                self.next.controllers[self.me].seen = self.next.jobs[self.j];
                (Pc::ParkAdd, "create the Job after the take")
            }
            Pc::TakeRemove => {
                let took = self.next.remove(USER);
                (first_if(took, Pc::TakeRead), "take: remove the entry")
            }
            Pc::TakeRead => {
                let then = if state.status != S::Queued {
                    Pc::Idle
                } else if self.setup.variant == Variant::NoIntent {
                    Pc::LateIntend
                } else {
                    self.same_pass(ThisPass::Took)
                };
                (then, "take: read the status")
            }
            Pc::ParkAdd => {
                let plain = self.setup.variant == Variant::PlainPark;
                let there_already = state.status == S::Queued && state.entries & own_pending != 0;
                let added = self.next.enqueue(own_pending, !plain, Reason::Other);
                self.note_enqueue(added, added || there_already);
                let then = match (added, there_already) {
                    (true, _) => Pc::ParkRest,
                    (false, true) => self.same_pass(ThisPass::TookAndParked),
                    (false, false) => Pc::Idle,
                };
                (then, "park: enqueue, entry added")
            }
            Pc::ParkRest => {
                self.next.leave_others(own_pending);
                let then = if self.has(bit::READ_QUEUED) {
                    self.same_pass(ThisPass::TookAndParked)
                } else {
                    Pc::Idle
                };
                (then, "park: enqueue, others removed")
            }
            _ => {
                if state.jobs[self.j] == self.now.seen {
                    self.next.jobs[self.j] = self.now.seen & !job::STATE | job::HELD;
                }
                (Pc::Idle, "release: patch the Job")
            }
        }
    }

    /// An enqueue of ours beside one of the user's, or after the user's dequeue, inside the same step: known limits.
    fn note_enqueue(&mut self, added: bool, queued: bool) {
        if added && self.has(bit::USER_ENQUEUED) {
            self.next.limit_double = true;
        }
        if queued && self.has(bit::TAKEN_BACK) {
            self.next.taken_back = false;
        }
    }

    fn withdraw(&mut self) -> Then {
        match self.now.pc {
            Pc::WithdrawRead => (Pc::WithdrawDelete, "withdraw: read live"),
            Pc::WithdrawDelete => {
                let unchanged = self.state.jobs[self.j] == self.now.seen;
                if unchanged {
                    delete_job(self.setup, &mut self.next, self.j);
                }
                (
                    first_if(unchanged, Pc::WithdrawRemove),
                    "withdraw: delete the Job",
                )
            }
            _ => {
                let always = self.setup.variant == Variant::WithdrawTakesQueued;
                if always || !self.has(bit::READ_QUEUED) {
                    self.next.remove(self.own_pending());
                }
                (Pc::Idle, "withdraw: remove the pending entry")
            }
        }
    }

    /// Requeue, Restore, PullBack.
    fn give_back(&mut self) -> Then {
        let state = self.state;
        // The Job is the record until the task stands in its queue again: a settled one may go at any time.
        let at_the_end = match (self.has(bit::PULL_BACK), self.job_ended()) {
            (true, _) => Pc::PullBackDelete,
            (false, true) => Pc::ReturnPatch,
            (false, false) => Pc::Idle,
        };
        match self.now.pc {
            Pc::ReturnRemove => {
                let took = self.next.remove(self.own_pending());
                (
                    first_if(took, Pc::ReturnRead),
                    "return: remove the pending entry",
                )
            }
            Pc::ReturnRead => {
                let running = self.has(bit::RUNNING) && self.ours() && self.unwritten();
                let then = match state.status {
                    S::Queued => Pc::ReturnAdd,
                    S::InProgress if running && !state.stopping => Pc::ReturnDequeue,
                    _ => Pc::Idle,
                };
                (then, "return: read live")
            }
            Pc::ReturnDequeue => {
                self.check_foreign();
                let done = self.next.dequeue(Some(S::Queued), self.returns_as());
                self.note_enqueue(false, done);
                (first_if(done, Pc::ReturnAdd), "return: dequeue to queued")
            }
            Pc::ReturnPatch => {
                self.patch_settled();
                (Pc::Idle, "return: patch the Job")
            }
            Pc::ReturnAdd => {
                let reason = self.returns_as();
                let there_already = state.status == S::Queued && state.entries & USER != 0;
                let added = self.next.enqueue(USER, true, reason);
                self.note_enqueue(added, added);
                let then = match (added, there_already) {
                    (true, _) => Pc::ReturnRest,
                    (false, true) => at_the_end,
                    (false, false) => Pc::Idle,
                };
                (then, "return: enqueue, entry added")
            }
            Pc::ReturnRest => {
                self.next.leave_others(USER);
                (at_the_end, "return: enqueue, others removed")
            }
            _ => {
                if self.same_job() {
                    delete_job(self.setup, &mut self.next, self.j);
                }
                (Pc::Idle, "pull back: delete the Job")
            }
        }
    }

    /// The reason that a return leaves in the task.
    fn returns_as(&self) -> Reason {
        if self.has(bit::RESTORE) {
            Reason::Restored
        } else if self.has(bit::RETRY) {
            Reason::Retried
        } else {
            Reason::Requeued
        }
    }

    fn give_up(&mut self) -> Then {
        match self.now.pc {
            Pc::GiveUpRemove => {
                let took = self.next.remove(self.own_pending());
                (
                    first_if(took, Pc::GiveUpRead),
                    "give up: remove the pending entry",
                )
            }
            Pc::GiveUpRead => {
                // Who took the pending entry knows that no pod can start any more.
                let pod = !self.has(bit::PENDING)
                    && self.same_job()
                    && may_run(self.state, self.setup, self.j);
                let go_on = self.state.status == S::Queued && self.unwritten() && !pod;
                (first_if(go_on, Pc::GiveUpDequeue), "give up: read live")
            }
            Pc::GiveUpDequeue => {
                self.check_foreign();
                self.next.dequeue(Some(S::Failed), Reason::Other);
                let job = self.now.job != NO_JOB;
                (
                    first_if(job, Pc::GiveUpDelete),
                    "give up: dequeue to failed",
                )
            }
            _ => {
                if self.job_ended() {
                    self.patch_settled();
                } else if self.same_job() {
                    delete_job(self.setup, &mut self.next, self.j);
                }
                (Pc::Idle, "give up: delete or patch the Job")
            }
        }
    }

    fn settle(&mut self) -> Then {
        match self.now.pc {
            Pc::SettleRead => {
                let by_mark =
                    self.setup.variant == Variant::MarkAlone && self.state.mark == self.now.job + 1;
                let mine = (by_mark || self.ours()) && self.unwritten();
                let then = match self.state.status {
                    S::InProgress if mine => Pc::SettleWrite,
                    S::InProgress | S::Queued => Pc::Idle,
                    _ => Pc::SettlePatch,
                };
                (then, "settle: read live")
            }
            Pc::SettleWrite => {
                self.check_foreign();
                let status = if self.has(bit::WRITE_STOPPED) {
                    S::Stopped
                } else {
                    S::Failed
                };
                self.next.end(status);
                (Pc::SettlePatch, "settle: write the status")
            }
            _ => {
                self.patch_settled();
                (Pc::Idle, "settle: patch the Job")
            }
        }
    }

    /// Dequeue, TakeEntry.
    fn tidy(&mut self) -> Then {
        match self.now.pc {
            Pc::DequeueRead => {
                let still = self.state.status == S::Queued
                    && self.unwritten()
                    && self.state.enqueue_status.is_none();
                (first_if(still, Pc::Dequeue), "dequeue once more: read live")
            }
            Pc::Dequeue => {
                self.check_foreign();
                self.next.dequeue(None, Reason::Other);
                // The user's dequeue has come true; a run that got through meanwhile is told by its watch.
                for pod in &mut self.next.pods {
                    if pod.life == Pod::Running {
                        pod.bits |= bit::REVOKED;
                    }
                }
                (Pc::Idle, "dequeue once more")
            }
            _ => {
                let pending = self.has(bit::PENDING);
                self.next
                    .remove(if pending { self.own_pending() } else { USER });
                (Pc::Idle, "take the leftover entry out")
            }
        }
    }

    fn patch_settled(&mut self) {
        if self.job_ended() {
            self.next.jobs[self.j] |= job::SETTLED;
        }
    }

    /// The next call in the pass that took the entry, decided on the facts of its look brought up to date.
    fn same_pass(&mut self, done: ThisPass) -> Pc {
        if self.setup.variant == Variant::NoIntent {
            return Pc::Release;
        }
        let mut believed = *self.state;
        believed.status = S::Queued;
        believed.reason = Reason::Other;
        believed.enqueue_status = Some(S::Created);
        believed.jobs[self.j] = self.now.seen;
        let view = View {
            state: &believed,
            cluster: self.cluster,
            entries: if done == ThisPass::Took {
                0
            } else {
                self.own_pending()
            },
            quiet: false,
            quiet_task: false,
            arrived: false,
            quiet_end: false,
            this_pass: done,
        };
        match self.memo.answers(self.setup, view)[0] {
            Some(Begin {
                pc: pc @ (Pc::ParkAdd | Pc::Release),
                ..
            }) => pc,
            _ => Pc::Idle,
        }
    }

    /// A write of ours that ends a run which is not the step's own. A known limit is a run of an agent or another
    /// cluster that began between the step's live read and this write, after a user's enqueue in the same step, or an
    /// agent's beside another replica.
    fn check_foreign(&mut self) {
        let state = self.state;
        if state.status != S::InProgress || state.limit_double {
            return;
        }
        let agent = state.agent >= Agent::Started && state.agent_bits & bit::REVOKED == 0;
        let pod = state.pods.iter().enumerate().any(|(slot, pod)| {
            let own = job_of(self.setup, slot) == self.j;
            pod.life == Pod::Running && pod.bits & bit::REVOKED == 0 && !own
        });
        // What `Dequeue` ends in a pod of ours the user has dequeued.
        if !agent && (!pod || self.now.pc == Pc::Dequeue) {
            return;
        }
        let replicas = self.setup.controllers > self.setup.clusters;
        if self.has(bit::FOREIGN_START) && (self.has(bit::USER_ENQUEUED) || replicas) {
            self.next.limit_double = true;
        } else {
            self.fault = Some(Fault::EndedForeignRun);
        }
    }
}

fn first_if(condition: bool, pc: Pc) -> Pc {
    if condition { pc } else { Pc::Idle }
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
