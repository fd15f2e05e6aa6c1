//! The world of the model: one task on the server, its Jobs and pods, and who is inside which step. Small and copied.
//!
//! The server's calls follow the recorded facts (protocol.md §3.4, §4): each method is one call, or the part of one
//! that happens at once.

use std::hash::{Hash, Hasher};

use trainyard::claim::Reason;

/// Status of the task on the model's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum S {
    Created,
    Queued,
    InProgress,
    Stopped,
    Failed,
    Completed,
    Gone,
}

/// `execution.queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exec {
    Unset,
    User,
    /// Only a plain enqueue into the pending queue writes this.
    Pending,
}

/// Queues that can hold an entry, as bits.
pub const USER: u8 = 1;
/// Pending queue of a cluster.
pub const fn pending(cluster: usize) -> u8 {
    2 << cluster
}

/// Who wrote mark or last worker: nobody, a Job's attempt (index + 1), or a plain agent.
pub const NOBODY: u8 = 0;
pub const AGENT: u8 = 9;

/// Jobs: index is `2 * cluster + attempt - 1`.
pub const JOBS: usize = 4;

/// One Job, packed: three bits of state, then flags.
pub mod job {
    pub const NONE: u8 = 0;
    pub const INTENT: u8 = 1;
    pub const HELD: u8 = 2;
    /// Ended by the task's own fault or success.
    pub const ENDED_TASK: u8 = 3;
    /// Ended by an interruption.
    pub const ENDED_LOST: u8 = 4;
    pub const STATE: u8 = 7;
    pub const DELETING: u8 = 8;
    pub const SETTLED: u8 = 16;
    pub const RETURNED: u8 = 32;
    pub const REQUEUED: u8 = 64;
    /// Turned at each creation: stands for the UID.
    pub const UID: u8 = 128;

    pub fn ended(job: u8) -> bool {
        matches!(job & STATE, ENDED_TASK | ENDED_LOST)
    }

    pub fn there(job: u8) -> bool {
        job & STATE != NONE
    }
}

/// Life of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Pod {
    None,
    /// Scheduled, its init container at work.
    Created,
    /// Never gets further.
    Stuck,
    /// The task container has started; nothing asked of the server yet.
    Started,
    /// Took the entry out of the pending queue.
    Took,
    /// Read `queued`.
    Read,
    /// Wrote the mark.
    Marked,
    /// Named itself as worker.
    Named,
    /// `tasks.started` was accepted: user code runs.
    Running,
    /// Reported its end.
    Reported,
    /// Ended; the Job still has another pod.
    Dead,
    /// Ended, while a call of its fence is still on its way to the server.
    LateTake,
    LateMark,
    LateReport,
    LateStart,
}

impl Pod {
    /// How far its fence has come, if it is inside it (a late call still is): the calls after the first.
    pub fn in_fence(self) -> Option<Pod> {
        match self {
            Self::Took | Self::Read | Self::Marked | Self::Named => Some(self),
            Self::LateMark => Some(Self::Read),
            Self::LateReport => Some(Self::Marked),
            Self::LateStart => Some(Self::Named),
            // The first call: it is also the first read, so nothing is older.
            Self::LateTake => Some(Self::Took),
            _ => None,
        }
    }

    /// The same pod, dead, with its next call still to arrive.
    pub fn late(self) -> Option<Pod> {
        match self {
            Self::Started => Some(Self::LateTake),
            Self::Read => Some(Self::LateMark),
            Self::Marked => Some(Self::LateReport),
            Self::Named => Some(Self::LateStart),
            _ => None,
        }
    }
}

/// Where a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Pc {
    Idle,
    /// Entries are read; status and Jobs come next.
    Looked,
    Intend,
    TakeRemove,
    TakeRead,
    ParkAdd,
    ParkRest,
    Release,
    WithdrawRead,
    WithdrawDelete,
    WithdrawRemove,
    ReturnRemove,
    ReturnRead,
    ReturnDequeue,
    ReturnPatch,
    ReturnAdd,
    ReturnRest,
    PullBackDelete,
    GiveUpRemove,
    GiveUpRead,
    GiveUpDequeue,
    GiveUpDelete,
    SettleRead,
    SettleWrite,
    SettlePatch,
    DequeueRead,
    Dequeue,
    TakeEntry,
    /// Only without intent first: create the Job after the take.
    LateIntend,
}

/// Bits of an actor inside a step.
pub mod bit {
    /// Something in cluster 0's (1's) facts changed since the actor's first read.
    pub const STALE: u16 = 1;
    pub const STALE_OTHER: u16 = 2;
    /// A user's enqueue fell into the step.
    pub const USER_ENQUEUED: u16 = 4;
    /// A user's abort, reset or dequeue fell into the window in which a known limit allows it to be undone.
    pub const TAKEN_BACK: u16 = 8;
    /// A Job ended since the actor's first read (for one faulty variant).
    pub const STALE_END: u16 = 16;
    /// A pod or agent that runs: the user took the run back.
    pub const REVOKED: u16 = 32;
    /// A step: somebody wrote the task's status since the look (`Stamps::status_changed`).
    pub const WRITTEN: u16 = 32;
    /// A look: nobody is in a step whose first read is older than the facts.
    pub const QUIET: u16 = 64;
    /// A step: it begins with the pending entry.
    pub const PENDING: u16 = 128;
    /// A step: its live read said queued.
    pub const READ_QUEUED: u16 = 256;
    /// A settlement: the status to write is `stopped`.
    pub const WRITE_STOPPED: u16 = 512;
    /// A return: the reason is `Restored`.
    pub const RESTORE: u16 = 1024;
    /// A return: pull back, delete the Job at the end.
    pub const PULL_BACK: u16 = 2048;
    /// An intent of a returned task, and one that counts as requeued.
    pub const RETURNED: u16 = 4096;
    pub const REQUEUED: u16 = 8192;
    /// A look of one faulty variant: quiet since a Job ended.
    pub const QUIET_END: u16 = 16384;
    /// A plain agent's run started between a step's live read and its write.
    pub const FOREIGN_START: u16 = 32768;
    /// A requeue of a task that was in progress.
    pub const RUNNING: u16 = 8192;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodSlot {
    pub life: Pod,
    pub bits: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controller {
    pub pc: Pc,
    /// Job index that the step is about.
    pub job: u8,
    /// Entries as looked at; later the Job as looked at.
    pub seen: u8,
    pub bits: u16,
}

/// What the user is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum User {
    Idle,
    /// Has reset, will enqueue.
    Enqueue,
    /// The server has added the entry and not yet removed the others.
    Rest,
}

/// A plain agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Agent {
    Idle,
    Popped,
    /// Started the task with force; user code runs, no report yet.
    Started,
    Running,
}

pub const IDLE: Controller = Controller {
    pc: Pc::Idle,
    job: 0,
    seen: 0,
    bits: 0,
};
pub const NO_POD: PodSlot = PodSlot {
    life: Pod::None,
    bits: 0,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one bit of the server or of what the checks remember"
)]
pub struct State {
    pub status: S,
    pub stopping: bool,
    pub reason: Reason,
    /// Status before the enqueue.
    pub enqueue_status: Option<S>,
    pub exec: Exec,
    pub queue_deleted: bool,
    pub mark: u8,
    pub last_worker: u8,
    pub entries: u8,
    pub jobs: [u8; JOBS],
    /// Pod of the Job of the same index; with two pods to a Job the second is at `index + 2` (one cluster only).
    pub pods: [PodSlot; JOBS],
    pub controllers: [Controller; 2],
    pub agent: Agent,
    pub agent_bits: u16,
    pub user: User,
    pub user_bits: u16,
    pub actions_left: u8,
    /// The user took the task back and has not enqueued it since.
    pub taken_back: bool,
    /// A known limit made a double run possible: not asserted from here on.
    pub limit_double: bool,
    /// A known limit left the run without a name: the server's watchdog may end it.
    pub limit_watchdog: bool,
    /// A status was written by this transition, maybe the same again. Cleared before the state is stored.
    pub touched: bool,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let flags = [
            self.stopping,
            self.queue_deleted,
            self.taken_back,
            self.limit_double,
            self.limit_watchdog,
            self.touched,
        ];
        let mut word = 0u64;
        for flag in flags {
            word = word << 1 | u64::from(flag);
        }
        word = word << 3 | self.status as u64;
        word = word << 2 | self.reason as u64;
        word = word << 3 | self.enqueue_status.map_or(7, |s| s as u64);
        word = word << 2 | self.exec as u64;
        word = word << 4 | u64::from(self.mark);
        word = word << 4 | u64::from(self.last_worker);
        word = word << 3 | u64::from(self.entries);
        word = word << 2 | self.agent as u64;
        word = word << 2 | self.user as u64;
        word = word << 3 | u64::from(self.actions_left);
        to.write_u64(word);
        to.write_u64(
            u64::from(u32::from_le_bytes(self.jobs)) << 32
                | u64::from(self.agent_bits) << 16
                | u64::from(self.user_bits),
        );
        let pod = |slot: &PodSlot| (slot.life as u64) << 12 ^ u64::from(slot.bits);
        to.write_u64(
            pod(&self.pods[0]) << 32
                ^ pod(&self.pods[1])
                ^ pod(&self.pods[2]) << 48
                ^ pod(&self.pods[3]) << 16,
        );
        let controller = |c: &Controller| {
            (c.pc as u64) << 27
                | u64::from(c.job) << 24
                | u64::from(c.seen) << 16
                | u64::from(c.bits)
        };
        to.write_u64(controller(&self.controllers[0]) << 32 | controller(&self.controllers[1]));
    }
}

impl State {
    /// A task that its user has just enqueued.
    pub fn enqueued(actions: u8) -> Self {
        Self {
            status: S::Queued,
            stopping: false,
            reason: Reason::Other,
            enqueue_status: Some(S::Created),
            exec: Exec::User,
            queue_deleted: false,
            mark: NOBODY,
            last_worker: NOBODY,
            entries: USER,
            jobs: [0; JOBS],
            pods: [NO_POD; JOBS],
            controllers: [IDLE; 2],
            agent: Agent::Idle,
            agent_bits: 0,
            user: User::Idle,
            user_bits: 0,
            actions_left: actions,
            taken_back: false,
            limit_double: false,
            limit_watchdog: false,
            touched: false,
        }
    }

    /// A status call that went through: texts are rewritten, `stopping` with them.
    fn write(&mut self, status: S, reason: Reason) {
        self.status = status;
        self.reason = reason;
        self.stopping = false;
        self.touched = true;
        if status != S::Queued {
            self.enqueue_status = None;
        }
    }

    fn exec_bit(&self) -> u8 {
        match self.exec {
            Exec::Unset => 0,
            Exec::User => USER,
            Exec::Pending => pending(0),
        }
    }

    /// First half of `tasks.enqueue`: status and entry. True: the second half, [`State::leave_others`], follows.
    /// `keep` is `update_execution_queue: false`: only of a task that is still queued and has a queue on record.
    pub fn enqueue(&mut self, queue: u8, keep: bool, reason: Reason) -> bool {
        if keep && (self.status != S::Queued || self.exec == Exec::Unset) {
            return false;
        }
        if !matches!(self.status, S::Created | S::Queued | S::Stopped | S::Failed) {
            return false;
        }
        if self.entries & queue != 0 || (queue == USER && self.queue_deleted) {
            self.touched = true;
            self.reason = Reason::FailedEnqueueing;
            self.enqueue_status = None;
            return false;
        }
        let before = if self.status == S::Queued {
            self.enqueue_status.or(Some(S::Queued))
        } else {
            Some(self.status)
        };
        self.write(S::Queued, reason);
        self.enqueue_status = before;
        self.entries |= queue;
        if !keep {
            self.exec = if queue == USER {
                Exec::User
            } else {
                Exec::Pending
            };
        }
        true
    }

    /// Second half of `tasks.enqueue`: the entries elsewhere go.
    pub fn leave_others(&mut self, queue: u8) {
        self.entries &= queue;
    }

    /// `queues.remove_task`: whether it was there.
    pub fn remove(&mut self, queue: u8) -> bool {
        let there = self.entries & queue != 0;
        self.entries &= !queue;
        there
    }

    /// `tasks.dequeue`; `None`: back to the status before the enqueue. False: `updated: 0`.
    pub fn dequeue(&mut self, new: Option<S>, reason: Reason) -> bool {
        match self.status {
            S::Queued | S::InProgress => {
                let status = new.or(self.enqueue_status).unwrap_or(S::Created);
                self.entries &= !self.exec_bit();
                self.write(status, reason);
                self.enqueue_status = None;
                true
            }
            S::Gone => {
                self.entries = 0;
                false
            }
            S::Created | S::Stopped | S::Failed | S::Completed => false,
        }
    }

    /// `tasks.stop`: at once, or as a message to the worker that runs it.
    pub fn stop(&mut self) {
        match self.status {
            S::Queued | S::Failed => {
                self.entries &= !self.exec_bit();
                self.write(S::Stopped, Reason::Other);
            }
            S::InProgress if self.last_worker == NOBODY => {
                self.entries &= !self.exec_bit();
                self.write(S::Stopped, Reason::Other);
            }
            S::InProgress => {
                self.stopping = true;
                self.touched = true;
            }
            S::Created | S::Stopped | S::Completed | S::Gone => {}
        }
    }

    /// `tasks.reset`.
    pub fn reset(&mut self) {
        if self.status != S::Gone {
            self.write(S::Created, Reason::Other);
            self.enqueue_status = None;
            self.entries = 0;
            self.exec = Exec::Unset;
            self.mark = NOBODY;
            self.last_worker = NOBODY;
        }
    }

    /// `tasks.delete`, forced.
    pub fn delete(&mut self) {
        self.reset();
        self.status = S::Gone;
    }

    /// `tasks.started`: whether it was accepted.
    pub fn started(&mut self, force: bool) -> bool {
        let accepted = match self.status {
            S::Created | S::Queued | S::InProgress | S::Stopped | S::Completed => true,
            S::Failed => force,
            S::Gone => false,
        };
        if accepted {
            self.write(S::InProgress, Reason::Other);
        }
        accepted
    }

    /// `tasks.failed`, `tasks.completed` or `tasks.stopped`, unforced.
    pub fn end(&mut self, status: S) -> bool {
        let accepted = match status {
            S::Stopped => matches!(
                self.status,
                S::Queued | S::InProgress | S::Failed | S::Stopped
            ),
            _ => self.status == status || matches!(self.status, S::InProgress | S::Stopped),
        };
        if accepted {
            self.write(status, Reason::Other);
        }
        accepted
    }

    /// `tasks.edit_runtime`.
    pub fn write_mark(&mut self, who: u8) -> bool {
        let accepted = matches!(self.status, S::Created | S::Queued | S::InProgress);
        if accepted {
            self.mark = who;
        }
        accepted
    }

    /// `workers.status_report` that names the task.
    pub fn report(&mut self, who: u8) {
        if self.status != S::Gone {
            self.last_worker = who;
        }
    }
}
