//! How many Jobs of ended tasks are kept. Each goes when its time is over (`ttlAfterSuccess`, `ttlAfterFailure`); where a
//! binding limits their number, the oldest of those that are too many go before it.
//!
//! ```text
//! own Jobs ─surplus─▶ outcome stored? ─yes──────────────────────────▶ deleted
//!                          └─no: another attempt follows─▶ ended by now? ─yes─▶ deleted
//! ```
//!
//! The Job of an attempt that another one follows is the record of how often its task was tried, until that task has
//! ended. Whether it has is asked of the server: one request for all of them, and only where they are too many. What is
//! known stands on the Jobs, so a process that starts anew goes on where the other was; and a Job is deleted only as it
//! was seen, so that two processes delete the same ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::apply::{Fault, delete_observed};
use super::cluster::{self, Once};
use super::fault;
use super::finalize;
use super::row::JobRow;
use super::scene::Scene;
use crate::api::{self, Client};
use crate::crd::LifecycleSpec;
use crate::pod::{annotation, label, outcome, state};
use crate::task::{Status, TaskId};

/// Jobs that are deleted in one pass at most: a limit that is new may find thousands.
const MOST: usize = 200;
/// Jobs that are deleted at once.
const HANDS: usize = 16;
/// Between two questions whether tasks that are tried again have ended.
const AGAIN: Duration = Duration::from_secs(30);

/// Jobs, and the task of each.
type Jobs = Vec<(TaskId, Arc<JobRow>)>;

/// What is remembered from pass to pass. All of it may be lost.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When the server may be asked again.
    next: Option<Instant>,
    failing: Once,
}

/// How many Jobs are kept of tasks that were completed, and of others; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    successful: Option<usize>,
    failed: Option<usize>,
}

impl Limits {
    fn of(lifecycle: &LifecycleSpec) -> Self {
        let most = |limit: Option<i32>| limit.and_then(|most| usize::try_from(most).ok());
        Self {
            successful: most(lifecycle.successful_jobs_history_limit),
            failed: most(lifecycle.failed_jobs_history_limit),
        }
    }
}

/// Deletes the binding's Jobs that are too many.
///
/// Death after a delete: the next pass counts those that are left.
pub(super) async fn trim(scene: &Scene<'_>, history: &mut History) {
    let limits = Limits::of(&scene.binding.spec.lifecycle);
    let is_limited = limits.successful.is_some() || limits.failed.is_some();
    if !is_limited || !scene.context.jobs.sound() {
        return;
    }
    let jobs = finalize::own_jobs(scene.context, scene.binding, scene.identity);
    match delete(scene, history, surplus(jobs, limits)).await {
        Ok(()) => history.failing.over(),
        Err(fault) => {
            let error = fault.to_string();
            if history.failing.is_new(&error) {
                let binding = scene.binding.name_any();
                tracing::warn!(
                    binding,
                    error,
                    "more Jobs of ended tasks are kept than the binding says"
                );
            }
        }
    }
}

/// The Jobs that are too many, the oldest first. Those that are on their way out count as gone.
fn surplus(mut jobs: Jobs, limits: Limits) -> Jobs {
    jobs.retain(|(_, job)| is_over(job));
    jobs.sort_by(|(_, one), (_, other)| end_of(other).cmp(&end_of(one)));
    let (mut successful, mut failed) = (0_usize, 0_usize);
    jobs.retain(|(_, job)| {
        let (count, limit) = if outcome_of(job) == Some(outcome::SUCCESS) {
            (&mut successful, limits.successful)
        } else {
            (&mut failed, limits.failed)
        };
        *count += 1;
        limit.is_some_and(|limit| *count > limit)
    });
    jobs.reverse();
    jobs
}

/// Ended and settled, and there to stay.
fn is_over(job: &JobRow) -> bool {
    job.has_ended() && job.label(label::STATE) == Some(state::SETTLED) && !job.is_deleting()
}

fn outcome_of(job: &JobRow) -> Option<&str> {
    job.annotation(annotation::OUTCOME)
}

/// What Jobs are ordered by. Kubernetes keeps whole seconds; of two that ended in one the older one was made first.
fn end_of(job: &JobRow) -> (Option<Timestamp>, Option<Timestamp>, &str) {
    (job.ended(), job.created, &job.name)
}

/// Deletes these Jobs, but for those whose tasks go on.
async fn delete(scene: &Scene<'_>, history: &mut History, surplus: Jobs) -> Result<(), Fault> {
    let has_outcome = |(_, job): &(TaskId, Arc<JobRow>)| outcome_of(job).is_some();
    let (stored, followed): (Jobs, Jobs) = surplus.into_iter().partition(has_outcome);
    delete_all(scene, stored).await?;
    let now = Instant::now();
    if followed.is_empty() || history.next.is_some_and(|next| now < next) {
        return Ok(());
    }
    history.next = Some(now + AGAIN);
    let ended = of_ended_tasks(scene.client, followed).await?;
    delete_all(scene, ended).await?;
    Ok(())
}

/// Those whose tasks have ended by now, or are gone: nothing counts their attempts any more.
async fn of_ended_tasks(client: &Client, mut jobs: Jobs) -> Result<Jobs, api::Error> {
    let tasks: HashSet<TaskId> = jobs.iter().map(|(task, _)| task.clone()).collect();
    let tasks: Vec<TaskId> = tasks.into_iter().collect();
    let found = client.task_facts(&tasks).await?;
    fault::point!("history/tasks-read");
    let unreadable = found.unreadable.into_iter().map(|task| task.id);
    let going_on = found.tasks.into_iter().filter(|task| goes_on(task.status));
    let going_on: HashSet<TaskId> = going_on.map(|task| task.id).chain(unreadable).collect();
    jobs.retain(|(task, _)| !going_on.contains(task));
    Ok(jobs)
}

/// Whether a task of this status may still be tried again by us.
fn goes_on(status: Status) -> bool {
    match status {
        Status::Queued | Status::InProgress | Status::Unknown => true,
        Status::Created
        | Status::Stopped
        | Status::Publishing
        | Status::Published
        | Status::Closed
        | Status::Failed
        | Status::Completed => false,
    }
}

/// Deletes the first of these Jobs; the next pass has the others. The first fault is told, and keeps none from going.
async fn delete_all(scene: &Scene<'_>, mut jobs: Jobs) -> Result<(), cluster::Error> {
    jobs.truncate(MOST);
    let namespace = scene.binding.namespace().unwrap_or_default();
    let (context, namespace) = (scene.context, namespace.as_str());
    let mut deletions = futures::stream::iter(jobs)
        .map(|(task, job)| async move {
            let deleted = delete_observed(context, namespace, &job).await;
            tracing::debug!(%task, job = %job.name, ?deleted, "Job beyond the limit of its binding");
            deleted
        })
        .buffer_unordered(HANDS);
    let mut all = Ok(());
    while let Some(deleted) = deletions.next().await {
        all = all.and(deleted);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::row::Row as _;

    /// A settled Job that ended in this second; `outcome` null: another attempt followed.
    fn job(name: &str, second: u32, outcome: Value) -> Value {
        let at = format!("2026-01-01T00:00:{second:02}Z");
        let mut annotations = json!({});
        if !outcome.is_null() {
            annotations["trainyard.dev/outcome"] = outcome;
        }
        json!({
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"trainyard.dev/state": "settled"}, "annotations": annotations,
            },
            "status": {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": at}]},
        })
    }

    /// Names of those that are too many of these, in their order.
    fn too_many(jobs: Vec<Value>, successful: Option<i32>, failed: Option<i32>) -> Vec<String> {
        let lifecycle = LifecycleSpec {
            successful_jobs_history_limit: successful,
            failed_jobs_history_limit: failed,
            ..LifecycleSpec::default()
        };
        let task: TaskId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let row = |job| Arc::new(JobRow::of(serde_json::from_value(job).unwrap()));
        let jobs = jobs.into_iter().map(|job| (task.clone(), row(job)));
        surplus(jobs.collect(), Limits::of(&lifecycle))
            .iter()
            .map(|(_, job)| job.name.to_string())
            .collect()
    }

    #[test]
    fn the_oldest_of_those_that_are_too_many_go_each_by_the_limit_of_its_outcome() {
        let jobs = || {
            vec![
                job("good-3", 30, json!("success")),
                job("bad-1", 5, json!("failure")),
                job("good-1", 10, json!("success")),
                job("bad-2", 40, json!("failure")),
                job("good-2", 20, json!("success")),
            ]
        };
        assert!(too_many(jobs(), None, None).is_empty());
        assert!(too_many(jobs(), Some(3), Some(2)).is_empty());
        assert_eq!(too_many(jobs(), Some(1), None), ["good-1", "good-2"]);
        assert_eq!(too_many(jobs(), None, Some(1)), ["bad-1"]);
        assert_eq!(
            too_many(jobs(), Some(2), Some(0)),
            ["bad-1", "good-1", "bad-2"]
        );
        assert_eq!(too_many(jobs(), Some(0), Some(9)).len(), 3, "none is kept");
    }

    #[test]
    fn of_one_second_that_goes_first_which_was_made_first() {
        let mut later = job("a", 10, json!("success"));
        later["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:07Z");
        let jobs = vec![later, job("b", 10, json!("success"))];
        assert_eq!(too_many(jobs, Some(1), None), ["b"]);
    }

    #[test]
    fn what_has_not_ended_is_not_settled_or_goes_already_neither_counts_nor_goes() {
        let of = |change: fn(&mut Value)| {
            let mut odd = job("odd", 10, json!("success"));
            change(&mut odd);
            let jobs = vec![odd, job("other", 20, json!("success"))];
            too_many(jobs, Some(1), Some(0))
        };
        assert_eq!(of(|_| ()), ["odd"]);
        assert!(of(|job| job["status"] = json!({})).is_empty());
        assert!(of(|job| job["metadata"]["labels"] = json!({})).is_empty());
        let held =
            |job: &mut Value| job["metadata"]["labels"]["trainyard.dev/state"] = json!("held");
        assert!(of(held).is_empty(), "its outcome may not be stored yet");
        let at = |job: &mut Value| {
            job["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
        };
        assert!(of(at).is_empty());
    }

    #[test]
    fn an_attempt_that_another_follows_counts_as_failed() {
        let jobs = vec![
            job("followed", 10, Value::Null),
            job("bad", 20, json!("failure")),
            job("good", 30, json!("success")),
        ];
        assert_eq!(
            too_many(jobs.clone(), Some(0), Some(1)),
            ["followed", "good"]
        );
        assert!(too_many(jobs, Some(1), Some(2)).is_empty());
    }

    #[test]
    fn a_task_that_may_be_tried_again_goes_on() {
        for status in [Status::Queued, Status::InProgress, Status::Unknown] {
            assert!(goes_on(status), "{status:?}");
        }
        for status in [Status::Completed, Status::Failed, Status::Stopped] {
            assert!(!goes_on(status), "{status:?}");
        }
    }
}
