//! The facts of one task: where its entry stands, what the server says of it, which Jobs it has.
//!
//! `Unknown` is a value everywhere: a failed or cut-off look never means "not there". [`Facts`] compares by value, so
//! the observer finds out by `==` since when nothing has changed.

use jiff::Timestamp;

use crate::task::{Attempt, FAILED_ENQUEUEING, QueueId, Status};

/// The facts of one task, and how fresh they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub facts: Facts,
    /// When the first read was begun that these facts rest on (a look is several reads). A step rests on it and has
    /// to begin within [`STEP_DEADLINE`](super::STEP_DEADLINE) of it.
    pub read_at: Timestamp,
    /// Since when this process has seen `facts` unchanged, by its own clock, with every queue read (hidden ones too).
    /// Equal to `read_at` or earlier; a process that just started begins with `read_at`.
    pub unchanged_since: Timestamp,
    /// The same of entry, task and stamps alone, whatever their Jobs have done meanwhile ([`Facts::same_task`]). Equal
    /// to `unchanged_since` or earlier.
    pub task_unchanged_since: Timestamp,
    /// Since when it has seen the Jobs as they are: when the look was over that found them so first. What that look found
    /// ended was over by then, not yet when the look began. May be later than `read_at`.
    pub jobs_unchanged_since: Timestamp,
    /// What this very pass has already done to the task's entry.
    pub this_pass: ThisPass,
}

/// What entry, status and Jobs were at the look.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    pub entry: Entry,
    pub task: TaskFact,
    pub jobs: JobsFact,
    pub stamps: Stamps,
}

impl Facts {
    /// Whether entry and task stand as in `other`, and nobody has written them in between; the Jobs may differ.
    pub fn same_task(&self, other: &Self) -> bool {
        let Self {
            entry,
            task,
            jobs: _,
            stamps,
        } = self;
        *entry == other.entry && *task == other.task && *stamps == other.stamps
    }
}

/// Times that the server wrote, verbatim. They decide nothing; they tell "unchanged" from "changed and changed back"
/// between two looks (a user's abort and new enqueue, a take and a park).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Stamps {
    /// `status_changed` of the task: each status call rewrites it, even to the same status.
    pub status_changed: Option<String>,
    /// `added` of the entry.
    pub entry_added: Option<String>,
}

/// Where the task's entry stands, seen from this binding.
///
/// `queues.add_task` can give one task several entries (protocol.md §2.4). Then the place from which others can take
/// it counts: elsewhere before served before pending. So [`Entry::Pending`] means pending *alone*.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The look failed or was cut off before it could tell.
    Unknown,
    /// In none of the server's queues.
    Nowhere,
    /// In a queue that this binding serves.
    Served { queue: QueueId },
    /// In this binding's own pending queue and in no other.
    Pending,
    /// In any other queue, another binding's or cluster's pending queue included.
    Elsewhere,
}

/// What the server says of the task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TaskFact {
    /// The look failed or was cut off.
    Unknown,
    /// Deleted: the server was asked and does not know it.
    Gone,
    Found(TaskState),
}

/// The members of a task document that the claim rests on (protocol.md §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskState {
    pub status: Status,
    /// `status_message` is [`STOPPING`](crate::task::STOPPING): somebody asked a running task to stop.
    pub stopping: bool,
    /// What `status_reason` says about who wrote the status last.
    pub reason: Reason,
    /// Whether `enqueue_status` is there; a user's dequeue and a failed enqueueing drop it.
    pub has_enqueue_status: bool,
    /// `execution.queue`: where the user put the task.
    pub user_queue: UserQueue,
    /// Who wrote the mark ([`MARK`](crate::task::MARK)) into `runtime`.
    pub mark: By,
    /// `last_worker`.
    pub last_worker: By,
}

/// Class of a `status_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Written by our `Requeue` ([`REASON_REQUEUED`]).
    Requeued,
    /// Written by our `Requeue` of a task that failed by its own fault ([`REASON_RETRIED`]).
    Retried,
    /// Written by our `Restore` or `PullBack` ([`REASON_RESTORED`]).
    Restored,
    /// `failed enqueueing`: what the server leaves behind an enqueue that it rolled back. It may hide one of ours.
    FailedEnqueueing,
    /// Anything else, or none.
    Other,
}

/// The status reason by which `Requeue` is known again.
pub const REASON_REQUEUED: &str = "trainyard: requeued";
/// The status reason by which `Requeue` of a task that failed by its own fault is known again.
pub const REASON_RETRIED: &str = "trainyard: retried";
/// The status reason by which `Restore` and `PullBack` are known again.
pub const REASON_RESTORED: &str = "trainyard: restored";

impl Reason {
    /// Classifies a `status_reason`; ours may be followed by a sentence for people.
    pub fn of(text: &str) -> Self {
        if text.starts_with(REASON_REQUEUED) {
            Self::Requeued
        } else if text.starts_with(REASON_RETRIED) {
            Self::Retried
        } else if text.starts_with(REASON_RESTORED) {
            Self::Restored
        } else if text == FAILED_ENQUEUEING {
            Self::FailedEnqueueing
        } else {
            Self::Other
        }
    }

    /// Whether a step of ours may have brought the task back to its queue: a late call of that step may still be on
    /// its way, so the next attempt is never released at once (claim rule 5).
    pub fn may_be_ours(self) -> bool {
        match self {
            Self::Requeued | Self::Retried | Self::Restored | Self::FailedEnqueueing => true,
            Self::Other => false,
        }
    }
}

/// Whose worker id a member of the task names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// It is not set.
    Nobody,
    /// [`WorkerId::of_attempt`](crate::task::WorkerId::of_attempt) of this binding, for this attempt of this task.
    Us(Attempt),
    /// Anything else: a plain agent, another cluster, the SDK on somebody's machine.
    Other,
}

/// The queue that the task's user chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserQueue {
    /// `execution.queue` is empty (a reset clears it).
    Unset,
    /// It names a queue that no longer exists.
    Gone,
    Known(QueueId),
}

/// The Jobs of the task in the binding's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobsFact {
    /// The Job store is not (or no longer) in step with the cluster.
    Unknown,
    /// All of them, in any order; a Job that is gone while a pod of it remains is listed too.
    Known(Vec<Job>),
}

/// One attempt's Job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, read from the cluster"
)]
pub struct Job {
    pub attempt: Attempt,
    pub state: JobState,
    pub presence: Presence,
    /// Belongs to another binding of the namespace (the task was enqueued into that one's queue before).
    pub other_binding: bool,
    /// The pod's *task* container has started, now or ever; the init container and the sidecar do not count.
    pub started: bool,
    /// The cluster accepted the Job and refuses its pod (quota, policy).
    pub refused: bool,
    /// Its end is stored in the task: the label [`state::SETTLED`](crate::pod::state::SETTLED).
    pub settled: bool,
    /// The task carried a reason of ours when the intent was written
    /// ([`annotation::RETURNED`](crate::pod::annotation::RETURNED)).
    pub returned: bool,
    /// How many attempts in a row before this one were interrupted and ended in `Requeue`
    /// ([`annotation::REQUEUES`](crate::pod::annotation::REQUEUES)).
    pub requeues: u32,
    /// How many of them failed by their own fault and ended in `Requeue`
    /// ([`annotation::FAILURES`](crate::pod::annotation::FAILURES)).
    pub failures: u32,
    /// The Job's `creationTimestamp`, by the cluster's clock: for the patience with a pod that does not start.
    pub created_at: Timestamp,
}

/// How far a Job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Suspended, with the intent label.
    Intent,
    /// Released, not ended.
    Held,
    /// Complete or failed. All its pods have ended.
    Ended(Cause),
}

/// Why a Job ended, as far as it can be told from exit code, termination message and pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The task came to its own end: well, or because it was asked to stop.
    Task,
    /// The task failed by its own fault: its code, its preparation, its memory, its deadline.
    Failure,
    /// Not the user's fault: eviction, drain, preemption, node lost, pod deleted, process 1 killed, lost race.
    Interruption,
}

/// Whether the Job object is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    Present,
    /// It has a deletion timestamp.
    Deleting,
    /// The object is gone, but a pod of it remains.
    PodOnly,
}

/// What this pass itself has done since its look; facts are brought up to date by the one who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThisPass {
    /// Nothing to the entry.
    Nothing,
    /// `Take` removed the entry (answer 1) and read `queued` after it.
    Took,
    /// `Took`, and then `Park` entered it into the pending queue (success or 400/706).
    TookAndParked,
}

impl Job {
    /// Whether the object is there and stays.
    pub fn present(&self) -> bool {
        match self.presence {
            Presence::Present => true,
            Presence::Deleting | Presence::PodOnly => false,
        }
    }

    /// Whether it has come to its end by itself.
    pub fn ended(&self) -> bool {
        match self.state {
            JobState::Ended(_) => true,
            JobState::Intent | JobState::Held => false,
        }
    }

    /// Released, not ended.
    pub fn held(&self) -> bool {
        self.state == JobState::Held
    }

    /// Suspended, not yet released.
    pub fn intent(&self) -> bool {
        self.state == JobState::Intent
    }

    /// No user code can have begun: intent, or held while the task container has not started.
    pub fn waits(&self) -> bool {
        self.intent() || (self.held() && !self.started)
    }
}

impl TaskState {
    /// Whether a running task's run is this Job's: it carries the attempt's mark or, where user code dropped the
    /// mark, names the attempt as its last worker; no foreign worker has reported since; and the end of this attempt
    /// is not settled yet. A mark alone proves nothing: it outlives its run until a reset.
    pub fn is_of(&self, job: &Job) -> bool {
        !job.settled && self.names(job.attempt)
    }

    /// [`TaskState::is_of`] for an attempt whose Job is not known.
    pub fn names(&self, attempt: Attempt) -> bool {
        self.run_of() == Some(attempt)
    }

    /// The attempt of ours that mark or last worker name, unless a foreign worker has reported since.
    pub fn run_of(&self) -> Option<Attempt> {
        match (self.mark, self.last_worker) {
            (By::Us(attempt), By::Nobody | By::Us(_)) | (By::Nobody, By::Us(attempt)) => {
                Some(attempt)
            }
            (_, By::Other) | (By::Other, _) | (By::Nobody, By::Nobody) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_ours_is_known_with_a_sentence_behind_it() {
        assert_eq!(
            Reason::of("trainyard: requeued, node lost"),
            Reason::Requeued
        );
        assert_eq!(
            Reason::of("trainyard: retried, exit code 3"),
            Reason::Retried
        );
        assert_eq!(Reason::of("trainyard: restored"), Reason::Restored);
        assert_eq!(Reason::of("failed enqueueing"), Reason::FailedEnqueueing);
        assert_eq!(Reason::of(""), Reason::Other);
    }
}
