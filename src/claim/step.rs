//! The one next action on a task, with all that is needed to carry it out.

use jiff::Timestamp;

use crate::task::{Attempt, QueueId};

/// What to do next. Each is idempotent, and each that changes something reads live what its calls rest on.
///
/// The calls are given in order (`docs/claim.md` says what follows a death after each). *Unwritten* means: a live read
/// finds the same `status_changed` as the look ([`Stamps`](super::Stamps)), so nobody has written the status since; in
/// particular no other run has begun, which mark and last worker do not tell before its first report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing now; `until` is when the facts, if unchanged, will mean something else.
    Wait { until: Option<Timestamp> },
    /// Tell people why the task does not run (its status message).
    Explain(Why),
    /// Create the Job: suspended, labelled as intent, with `returned`, `requeues` and `failures` as annotations;
    /// `backoffLimit: 0`, one completion. "Already exists" is information.
    Intend {
        attempt: Attempt,
        returned: bool,
        requeues: u32,
        failures: u32,
    },
    /// `queues.remove_task` on the served queue; only after answer 1: the status again, live.
    /// Then [`ThisPass::Took`](super::ThisPass::Took) if it reads `queued`.
    Take { queue: QueueId, attempt: Attempt },
    /// `tasks.enqueue {pending queue, update_execution_queue: false}`; 400/706 is success. Never a plain enqueue: that
    /// would undo an abort.
    Park { attempt: Attempt },
    /// One patch of the Job, which holds for an intent of this UID alone: label held, `suspend: false`.
    Release { attempt: Attempt },
    /// Live read of the task; delete the Job with UID and resourceVersion preconditions, foreground, grace kept; then
    /// `queues.remove_task` on the pending queue, unless the read said queued (a late one would lose the task).
    Withdraw { attempt: Attempt },
    /// If `pending`: `remove_task` on the pending queue (not 1: stop here). Read live. Queued: go on. In progress and
    /// `running` (it was so at the look), unwritten, ours (by `attempt`) and not stopping: `tasks.dequeue {new_status:
    /// queued}` with [`REASON_REQUEUED`](super::observed::REASON_REQUEUED) (`updated: 0`: stop here). Anything else:
    /// stop here. The settled patch of the Job, if it has ended. `tasks.enqueue {queue, update_execution_queue: false}`
    /// with that reason; `move_task_to_front`. Of a task that `failed` by its own fault the reason is
    /// [`REASON_RETRIED`](super::observed::REASON_RETRIED): the two are counted apart.
    Requeue {
        attempt: Attempt,
        queue: QueueId,
        pending: bool,
        running: bool,
        failed: bool,
    },
    /// As `Requeue`, without a Job, with [`REASON_RESTORED`](super::observed::REASON_RESTORED).
    Restore { queue: QueueId, pending: bool },
    /// `remove_task` on the pending queue (not 1: stop here; 1: no pod can start any more). Read live: still queued, or
    /// stop here. `tasks.enqueue` and `move_task_to_front` as in `Restore`; refused for any other reason than 400/706:
    /// stop here, the Job is the record. Delete the Job as in `Withdraw`, without its `remove_task`.
    PullBack { attempt: Attempt, queue: QueueId },
    /// If `pending`: `remove_task` on the pending queue (not 1: stop here; 1: no pod can start any more). Read live:
    /// still queued, unwritten, and, if not `pending`, no task container of the Job started, or stop here.
    /// `tasks.dequeue {new_status: failed}` with the reason (`updated: 0`: somebody ended it). Delete the Job, if there
    /// is one and it has not ended; an ended one gets the settled patch.
    GiveUp {
        attempt: Option<Attempt>,
        pending: bool,
        reason: GiveUpReason,
    },
    /// Read live. In progress, unwritten and ours (by `attempt`): `tasks.failed`, `stopped` or `completed`, never
    /// forced (a refusal means that somebody else has ended it); `stopping` becomes `stopped`. In progress otherwise,
    /// or queued: stop here. Last, one patch of the Job, if it is there: settled, TTL.
    Settle { attempt: Attempt, how: Settlement },
    /// The last patch of `Settle` alone: settled, TTL.
    SettlePatchOnly { attempt: Attempt },
    /// Read live: still queued, unwritten, without `enqueue_status`. `tasks.dequeue` once more: completes the dequeue of a user
    /// whose task remembered `queued`.
    Dequeue,
    /// `queues.remove_task` of an entry whose task is not queued, or is gone; `None`: the pending queue.
    TakeEntry { queue: Option<QueueId> },
}

/// Why a task does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is not admitted, for this reason. Its entry and status are left untouched.
    NotAdmitted(String),
    /// It is claimed and its pod has not started: what the diagnosis says of the pod of this attempt.
    PodWaits { attempt: Attempt },
}

/// How `Settle` ends a running task that nobody asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// As the diagnosis says from exit code and termination message.
    AsEnded,
    /// Interrupted, and the binding wants such tasks failed, or the budget of interruptions is spent, or the user's
    /// queue is gone.
    Failed,
    /// Interrupted, and the binding wants such tasks stopped.
    Stopped,
    /// The attempt's Job is gone: failed, with that cause.
    Lost,
}

/// Why a waiting task is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUpReason {
    /// Its pod did not start within `pendingTimeout`.
    PendingTimeout,
    /// Its pods ended before it could run more than `maxInterruptions` times.
    InterruptionsSpent,
    /// It cannot go back: the user's queue is gone, or the task names none.
    QueueGone,
}
