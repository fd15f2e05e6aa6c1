//! What the binding wants, resolved; and the times on which the claim's safety rests.

use jiff::SignedDuration;

/// A step that has not begun this long after the first read it rests on is dropped; each of its calls has to begin
/// within it too.
pub const STEP_DEADLINE: SignedDuration = SignedDuration::from_secs(8);

/// Longest time that one call of a step may take; its answer is not waited for any longer.
pub const REQUEST_TIMEOUT: SignedDuration = SignedDuration::from_secs(7);

/// What a plain agent needs from its pop to `tasks.started` and its first status report (two or three calls in a row).
pub const AGENT_START: SignedDuration = SignedDuration::from_secs(15);

/// How long a request that its sender has given up may still be on its way. So long a Job's end has to be known before
/// the end of its run is written for its pod; with the quiet time of the task itself that is enough (`docs/claim.md`).
pub const LATE_DELIVERY: SignedDuration = SignedDuration::from_secs(5);

/// Quiet time, the rules' *G*: "queued, but in no queue" is acted on only after entry, status and Job were seen
/// unchanged for this long. It exceeds every window in which somebody is between two calls:
///
/// | window | s |
/// |---|---|
/// | a step: last call begun at `STEP_DEADLINE`, answered within `REQUEST_TIMEOUT` | 8 + 7 |
/// | the fence of a pod, `pod::FENCE_DEADLINE` | 10 |
/// | a plain agent: pop, started, first report | 15 |
/// | the longest of them, and a late delivery | 15 + 5 |
pub const QUIET_TIME: SignedDuration = SignedDuration::from_secs(20);

/// How many quiet times an orphan must stand before it is restored: nobody of ours has a record of it, so only time
/// tells it from a task that a slow neighbour is about to start.
pub const ORPHAN_QUIET_TIMES: i32 = 15;

/// Limits, patience and budgets of one binding, and the admission of the task in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `lifecycle.pendingTimeout`: patience with a claimed task whose pod does not start. Never taken below
    /// [`QUIET_TIME`].
    pub pending_timeout: SignedDuration,
    /// `lifecycle.onPendingTimeout`.
    pub on_pending_timeout: OnPendingTimeout,
    /// `lifecycle.onInterruption`.
    pub on_interruption: OnInterruption,
    /// `lifecycle.maxInterruptions`: so many attempts in a row may end without the user's fault and be requeued.
    pub max_interruptions: u32,
    /// `lifecycle.maxFailures`: so many attempts in a row may fail by their own fault and be requeued.
    pub max_failures: u32,
    /// How long an executor whose task has ended may take to end by itself: `lifecycle.abortGracePeriod` and all that it
    /// has to do before and after that (`pod::CLOSING`). Never taken below [`QUIET_TIME`].
    pub grace: SignedDuration,
    /// Restore tasks that others popped and dropped.
    pub restore_orphans: bool,
    /// The binding is being deleted: what has not started goes back to its queue.
    pub retiring: bool,
    /// Whether this task may be taken now.
    pub admission: Admission,
}

impl Policy {
    /// The same policy for a task with this admission.
    #[must_use]
    pub fn admitting(&self, admission: Admission) -> Self {
        Self {
            admission,
            ..self.clone()
        }
    }
}

/// Whether limits, capacity, order and image check let this task be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    Yes,
    /// The reason to wait, for people.
    No(String),
}

/// What becomes of a claimed task whose pod does not start in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPendingTimeout {
    Requeue,
    Fail,
}

/// What becomes of a task whose pod ended without the user's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterruption {
    Requeue,
    Fail,
    Stop,
}
