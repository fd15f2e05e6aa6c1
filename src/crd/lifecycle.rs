//! `spec.lifecycle` and `spec.deletionPolicy`: patience, retries, and how long things are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Period;

/// What happens to tasks that wait, fail, are interrupted or end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LifecycleSpec {
    /// pendingTimeout is how long a claimed task may wait for its pod to start. Default: 1h.
    pub pending_timeout: Period,

    /// onPendingTimeout says what happens then: Requeue (back to its queue) or Fail. Default: Requeue.
    pub on_pending_timeout: OnPendingTimeout,

    /// onInterruption says what happens to a task whose pod is lost without its fault (drain, eviction, preemption,
    /// lost node, pod deleted by hand): Requeue, Fail or Stop. Default: Requeue.
    pub on_interruption: OnInterruption,

    /// maxInterruptions is how often in a row a task is started again after an interruption. Default: 3.
    #[schemars(range(min = 0, max = 1000))]
    pub max_interruptions: i32,

    /// maxFailures is how often in a row a task that fails by its own fault is started again, from the front of its
    /// queue; counted apart from interruptions. Its status shows the failure that is the last one. Default: 0.
    #[schemars(range(min = 0, max = 1000))]
    pub max_failures: i32,

    /// avoidSameNode lets another attempt prefer other nodes than those of the attempts before. Default: true.
    pub avoid_same_node: bool,

    /// abortGracePeriod is the time between SIGTERM and SIGKILL when a task is aborted. Default: 30s.
    pub abort_grace_period: Period,

    /// ttlAfterSuccess is how long the Job of a completed task is kept, from the moment its outcome is stored in
    /// the task. Default: 10m.
    pub ttl_after_success: Period,

    /// ttlAfterFailure is the same for a task that failed or was stopped. Default: 24h.
    pub ttl_after_failure: Period,

    /// successfulJobsHistoryLimit is how many Jobs of completed tasks are kept at most: the oldest beyond it go before
    /// ttlAfterSuccess is over. 0 keeps none whose outcome is stored in the task. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub successful_jobs_history_limit: Option<i32>,

    /// failedJobsHistoryLimit is the same for tasks that failed or were stopped, and for attempts that another one has
    /// followed, which go once their task has ended. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed_jobs_history_limit: Option<i32>,
}

impl Default for LifecycleSpec {
    fn default() -> Self {
        Self {
            pending_timeout: Period::seconds(3600),
            on_pending_timeout: OnPendingTimeout::Requeue,
            on_interruption: OnInterruption::Requeue,
            max_interruptions: 3,
            max_failures: 0,
            avoid_same_node: true,
            abort_grace_period: Period::seconds(30),
            ttl_after_success: Period::seconds(600),
            ttl_after_failure: Period::seconds(86400),
            successful_jobs_history_limit: None,
            failed_jobs_history_limit: None,
        }
    }
}

/// What happens to a task whose pod does not start in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnPendingTimeout {
    #[default]
    Requeue,
    Fail,
}

/// What happens to a task whose pod is lost without its fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInterruption {
    #[default]
    Requeue,
    Fail,
    Stop,
}

/// What becomes of running tasks when their binding is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Orphan,
    Delete,
}
