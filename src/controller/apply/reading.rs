//! What a step reads live of its task and its Jobs before it acts, beside what the look has seen.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Api;

use super::{Case, Fault, Hands, in_time};
use crate::claim::{Observed, Step, TaskFact, UserQueue, decide};
use crate::controller::cluster::find;
use crate::controller::row::{JobObject, JobRow, Row as _};
use crate::controller::{fault, observe};
use crate::render::JobName;
use crate::task::Attempt;

/// Whether the task's user queue was found gone.
pub(super) fn queue_is_gone(observed: &Observed) -> bool {
    matches!(&observed.facts.task, TaskFact::Found(task) if task.user_queue == UserQueue::Gone)
}

impl Hands<'_> {
    /// The task as the server has it now.
    pub(super) async fn live(&self, case: &Case) -> Result<TaskFact, Fault> {
        Ok(self.read(case).await?.0)
    }

    /// The same, and whether it is *unwritten*: nobody has written its status since the look.
    ///
    /// Mark and last worker alone do not tell a run of ours from one that a plain agent began after it and that has not
    /// reported yet (`docs/claim.md`). What ends or undoes a run rests on this.
    pub(super) async fn read(&self, case: &Case) -> Result<(TaskFact, bool), Fault> {
        in_time(case)?;
        let found = self
            .client
            .task_facts(std::slice::from_ref(&case.task))
            .await?;
        fault::point!("step/task-read");
        if !found.unreadable.is_empty() {
            return Ok((TaskFact::Unknown, false));
        }
        let Some(facts) = found.tasks.first() else {
            return Ok((TaskFact::Gone, true));
        };
        // Whether the user's queue exists was found out by the look.
        let gone = queue_is_gone(&case.observed);
        let state = observe::task_state(self.identity, &case.task, facts, |_| !gone);
        let unwritten = facts.status_changed == case.observed.facts.stamps.status_changed;
        Ok((TaskFact::Found(state), unwritten))
    }

    /// Reads the task live and decides again: whether it is still this step, on a task that nobody has written since.
    pub(super) async fn still(&self, step: &Step, case: &mut Case) -> Result<bool, Fault> {
        let (live, unwritten) = self.read(case).await?;
        if !unwritten {
            return Ok(false);
        }
        if live != case.observed.facts.task {
            case.observed.facts.task = live;
            case.observed.unchanged_since = case.observed.read_at;
            case.observed.task_unchanged_since = case.observed.read_at;
        }
        Ok(decide(&case.observed, &case.policy, Timestamp::now()) == *step)
    }

    pub(super) fn jobs(&self) -> Api<JobObject> {
        Api::namespaced(self.context.kube.clone(), self.namespace)
    }

    /// The Job of an attempt as the API server has it now, if it is ours.
    pub(super) async fn live_job(
        &self,
        case: &Case,
        attempt: Attempt,
    ) -> Result<Option<JobRow>, Fault> {
        in_time(case)?;
        let name = JobName::of(&case.task, attempt);
        let job = find(self.jobs().get_opt(name.as_str())).await?;
        fault::point!("step/job-read");
        let job = job.map(JobRow::of);
        Ok(job.filter(|job| observe::is_ours(self.identity, job)))
    }

    /// The Job of an attempt as it was observed.
    pub(super) fn known_job(case: &Case, attempt: Attempt) -> Option<&Arc<JobRow>> {
        let name = JobName::of(&case.task, attempt);
        case.objects
            .jobs
            .iter()
            .find(|job| *job.name == *name.as_str())
    }
}
