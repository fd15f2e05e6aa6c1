//! The world of the model: one task on the server, its Jobs and pods, and who is inside which step. Small and copied.

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
    /// Ended after its end was reported.
    pub const ENDED_TASK: u8 = 3;
    /// Ended by an interruption.
    pub const ENDED_LOST: u8 = 4;
    /// Ended by the task's own fault, unreported.
    pub const ENDED_FAULT: u8 = 5;
    pub const STATE: u8 = 7;
    pub const DELETING: u8 = 8;
    pub const SETTLED: u8 = 16;
    pub const RETURNED: u8 = 32;
    pub const REQUEUED: u8 = 64;
    /// Turned at each creation: stands for the UID.
    pub const UID: u8 = 128;

    pub fn ended(job: u8) -> bool {
        matches!(job & STATE, ENDED_TASK | ENDED_LOST | ENDED_FAULT)
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
    /// Ended, while the report of its run's end is still on its way.
    LateEnd,
}

impl Pod {
    /// Whether it is there and has not ended.
    pub fn alive(self) -> bool {
        self as u8 >= Self::Created as u8 && (self as u8) < Self::Dead as u8
    }

    /// Whether its task container has started, and it may still run.
    pub fn may_run(self) -> bool {
        self as u8 >= Self::Started as u8 && self.alive()
    }

    /// Whether its task container has started.
    pub fn started(self) -> bool {
        self.may_run() || matches!(self, Self::Dead)
    }

    /// Ended, while a call is still on its way.
    pub fn is_late(self) -> bool {
        self as u8 > Self::Dead as u8
    }

    /// How far its fence has come, if it is inside it (a late call still is): the calls after the first.
    pub fn in_fence(self) -> Option<Pod> {
        match self {
            Self::Took | Self::Read | Self::Marked | Self::Named => Some(self),
            Self::LateMark => Some(Self::Read),
            Self::LateReport => Some(Self::Marked),
            Self::LateStart => Some(Self::Named),
            // The first call: it is also the first read, so nothing is older.
            Self::LateTake => Some(Self::Took),
            // Past all of it, and with a call to come.
            Self::LateEnd => Some(Self::Running),
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
    /// The task or its entries changed since the actor's first read, whatever the Jobs did.
    pub const STALE_TASK: u16 = 64;
    /// A step: it begins with the pending entry.
    pub const PENDING: u16 = 128;
    /// A step: its live read said queued.
    pub const READ_QUEUED: u16 = 256;
    /// A settlement: the status to write is `stopped`.
    pub const WRITE_STOPPED: u16 = 512;
    /// A return: the reason is `Retried`.
    pub const RETRY: u16 = 512;
    /// A return: the reason is `Restored`.
    pub const RESTORE: u16 = 1024;
    /// A look: nobody is in a step whose first read is older than the facts.
    pub const QUIET: u16 = 1024;
    /// A return: pull back, delete the Job at the end.
    pub const PULL_BACK: u16 = 2048;
    /// A look: the same of the task's own facts.
    pub const QUIET_TASK: u16 = 2048;
    /// An intent of a returned task, and one that counts as requeued.
    pub const RETURNED: u16 = 4096;
    pub const REQUEUED: u16 = 8192;
    /// A look: all that dead pods of the cluster have sent has arrived.
    pub const ARRIVED: u16 = 4096;
    /// A look of one faulty variant: quiet since a Job ended.
    pub const QUIET_END: u16 = 16384;
    /// A run of a plain agent, or of another cluster, started between a step's live read and its write.
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

/// A state in four words, of which nothing is lost.
pub type Packed = [u64; 4];

/// A status that may be absent, as a number of three bits.
pub fn bits_of(status: Option<S>) -> u8 {
    match status {
        Some(status) => status as u8,
        None => 7,
    }
}

fn packed_pod(slot: PodSlot) -> u64 {
    (slot.life as u64) << 12 | u64::from(slot.bits)
}

fn packed_controller(controller: Controller) -> u64 {
    (controller.pc as u64) << 27
        | u64::from(controller.job) << 24
        | u64::from(controller.seen) << 16
        | u64::from(controller.bits)
}

impl State {
    /// The form in which states are compared: field by field takes many times as long where nothing is optimised.
    pub fn packed(&self) -> Packed {
        let [first, second, third, fourth] = self.pods;
        let pod_bits = first.bits | second.bits | third.bits | fourth.bits;
        assert!(
            pod_bits < 1 << 12
                && self.mark < 16
                && self.last_worker < 16
                && self.entries < 8
                && self.actions_left < 8
                && (self.status as u64) < 7
                && (self.reason as u64) < 8
                && [self.exec as u64, self.agent as u64, self.user as u64]
                    .iter()
                    .all(|bits| *bits < 4)
                && self
                    .controllers
                    .iter()
                    .all(|controller| controller.job < 8 && (controller.pc as u64) < 32)
                && self.pods.iter().all(|slot| (slot.life as u64) < 16)
                && !self.touched,
            "a state does not fit into its words: {self:?}"
        );
        let mut word = u64::from(self.stopping);
        word = word << 1 | u64::from(self.queue_deleted);
        word = word << 1 | u64::from(self.taken_back);
        word = word << 1 | u64::from(self.limit_double);
        word = word << 1 | u64::from(self.limit_watchdog);
        word = word << 3 | self.status as u64;
        word = word << 3 | self.reason as u64;
        word = word << 3 | u64::from(bits_of(self.enqueue_status));
        word = word << 2 | self.exec as u64;
        word = word << 4 | u64::from(self.mark);
        word = word << 4 | u64::from(self.last_worker);
        word = word << 3 | u64::from(self.entries);
        word = word << 2 | self.agent as u64;
        word = word << 2 | self.user as u64;
        word = word << 3 | u64::from(self.actions_left);
        let [one, other] = self.controllers;
        [
            word,
            u64::from(u32::from_le_bytes(self.jobs)) << 32
                | u64::from(self.agent_bits) << 16
                | u64::from(self.user_bits),
            packed_pod(first) << 48
                | packed_pod(second) << 32
                | packed_pod(third) << 16
                | packed_pod(fourth),
            packed_controller(one) << 32 | packed_controller(other),
        ]
    }

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
}
