//! Ways back to the user's queue, and giving up where there is none.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::{Case, Fault, Hands, Next, Report, in_time};
use crate::claim::observed::{REASON_REQUEUED, REASON_RESTORED};
use crate::claim::{GiveUpReason, JobsFact, TaskFact};
use crate::controller::cluster::call;
use crate::controller::{observe, verdict};
use crate::pod::label;
use crate::task::{Attempt, QueueId, Status, TaskId};

impl Hands<'_> {
    /// Returns a task whose pod ended, or never came to run, to the front of its queue.
    ///
    /// Death after taking the entry, or after `dequeue`: queued, nowhere, beside an ended Job; again after the quiet
    /// time. Death after the enqueue: it stands at the end of its queue instead of the front.
    pub(super) async fn requeue(
        &self,
        attempt: Attempt,
        queue: &QueueId,
        pending: bool,
        running: bool,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        if pending && !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        let why = Self::sentence_of_end(attempt, case);
        let reason = format!("{REASON_REQUEUED}, {why}");
        let job = self.live_job(case, attempt).await?;
        let ended = job.as_ref().is_none_or(observe::has_ended);
        match self.live(case).await? {
            TaskFact::Found(task) if task.status == Status::Queued => {}
            // A run of ours is put back only if it has certainly ended.
            TaskFact::Found(task)
                if running
                    && ended
                    && task.status == Status::InProgress
                    && task.names(attempt)
                    && !task.stopping =>
            {
                in_time(case)?;
                if !self
                    .client
                    .dequeue(&case.task, Some(Status::Queued), &reason, &why)
                    .await?
                {
                    return Ok(Next::Done);
                }
            }
            _ => return Ok(Next::Done),
        }
        if let Some(job) = job.filter(observe::has_ended) {
            self.mark_settled(&job, self.spec.lifecycle.ttl_after_failure)
                .await?;
        }
        self.put_back(queue, &reason, case).await?;
        Ok(Next::Done)
    }

    /// Returns a task that stands pending without a Job (somebody deleted it) to its queue.
    ///
    /// Death after taking the entry: queued, nowhere, without a Job: an orphan, which only the binding's wish repairs;
    /// hence the enqueue follows at once.
    pub(super) async fn restore(
        &self,
        queue: &QueueId,
        pending: bool,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        // The watch may lag behind: a Job that is there is the record.
        if self.has_live_job(case).await? {
            return Ok(Next::Done);
        }
        if pending && !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        match self.live(case).await? {
            TaskFact::Found(task) if task.status == Status::Queued => {}
            _ => return Ok(Next::Done),
        }
        let reason = format!("{REASON_RESTORED}, its Job was deleted");
        self.put_back(queue, &reason, case).await?;
        Ok(Next::Done)
    }

    /// Returns a task that waits to its queue and deletes its Job: no pod of it can start any more once the entry is
    /// taken.
    ///
    /// Death after taking the entry: queued, nowhere, beside a held Job: `Starting`, which requeues after the quiet
    /// time. Death after the enqueue: `Superseded`, which withdraws the Job.
    pub(super) async fn pull_back(
        &self,
        attempt: Attempt,
        queue: &QueueId,
        case: &mut Case,
        report: &mut Report,
    ) -> Result<Next, Fault> {
        if !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        let why = self.sentence_of_wait(attempt, case);
        let reason = format!("{REASON_RESTORED}, {why}");
        if let JobsFact::Known(jobs) = &case.observed.facts.jobs
            && jobs.iter().any(|job| job.attempt == attempt && job.refused)
        {
            report.pod_refused = Some(why);
        }
        if self.put_back(queue, &reason, case).await? {
            self.delete_job(attempt, case).await?;
        }
        Ok(Next::Done)
    }

    /// Fails a waiting task: patience or budget is spent, or there is no queue to return it to.
    ///
    /// Death after taking the entry: queued, nowhere, beside a Job: the same phase again after the quiet time. Death
    /// after `dequeue`: failed beside a Job, which is withdrawn.
    pub(super) async fn give_up(
        &self,
        attempt: Option<Attempt>,
        pending: bool,
        why: GiveUpReason,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        if pending && !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        let queued = matches!(self.live(case).await?, TaskFact::Found(task) if task.status == Status::Queued);
        if !queued || (!pending && self.has_started_pod(case).await?) {
            return Ok(Next::Done);
        }
        let detail = attempt.map(|attempt| match why {
            GiveUpReason::PendingTimeout | GiveUpReason::QueueGone => {
                self.sentence_of_wait(attempt, case)
            }
            GiveUpReason::InterruptionsSpent => Self::sentence_of_end(attempt, case),
        });
        let (reason, message) = give_up_texts(
            why,
            detail.as_deref(),
            self.spec.lifecycle.max_interruptions,
        );
        in_time(case)?;
        // `false`: somebody else has ended it, which is as good.
        self.client
            .dequeue(&case.task, Some(Status::Failed), reason, &message)
            .await?;
        let Some(attempt) = attempt else {
            return Ok(Next::Done);
        };
        match self.live_job(case, attempt).await? {
            Some(job) if observe::has_ended(&job) => {
                self.mark_settled(&job, self.spec.lifecycle.ttl_after_failure)
                    .await?;
            }
            Some(_) => self.delete_job(attempt, case).await?,
            None => {}
        }
        Ok(Next::Done)
    }

    /// Why the attempt's pod ended, in one sentence.
    fn sentence_of_end(attempt: Attempt, case: &Case) -> String {
        match Self::known_job(case, attempt) {
            Some(job) => verdict::ended(job, &case.objects.pods).message,
            None => "its Job is gone".to_owned(),
        }
    }

    /// Why the attempt's pod has not started, in one sentence.
    fn sentence_of_wait(&self, attempt: Attempt, case: &Case) -> String {
        let Some(job) = Self::known_job(case, attempt) else {
            return "its Job is gone".to_owned();
        };
        verdict::waiting(job, &case.objects.pods, self.lore)
            .unwrap_or_else(|| "its pod has not started".to_owned())
    }

    /// Whether any Job of the task is alive, asked of the API server.
    pub(super) async fn has_live_job(&self, case: &Case) -> Result<bool, Fault> {
        in_time(case)?;
        let jobs = call(self.jobs().list(&of_task(&case.task))).await?;
        Ok(jobs.items.iter().any(|job| !observe::has_ended(job)))
    }

    /// Whether the experiment's container of any pod of the task has started, asked of the API server.
    async fn has_started_pod(&self, case: &Case) -> Result<bool, Fault> {
        in_time(case)?;
        let pods: Api<Pod> = Api::namespaced(self.context.kube.clone(), self.namespace);
        let pods = call(pods.list(&of_task(&case.task))).await?;
        Ok(pods.items.iter().any(observe::task_container_started))
    }
}

fn of_task(task: &TaskId) -> ListParams {
    ListParams::default().labels(&format!("{}={task}", label::TASK))
}

/// Status reason and message of a task that is given up.
fn give_up_texts(why: GiveUpReason, detail: Option<&str>, budget: i32) -> (&'static str, String) {
    let detail = detail
        .map(|detail| format!(": {detail}"))
        .unwrap_or_default();
    match why {
        GiveUpReason::PendingTimeout => (
            "trainyard: pod did not start",
            format!("its pod did not start within pendingTimeout{detail}"),
        ),
        GiveUpReason::InterruptionsSpent => (
            "trainyard: interrupted too often",
            format!("interrupted more than {budget} times (maxInterruptions){detail}"),
        ),
        GiveUpReason::QueueGone => (
            "trainyard: queue is gone",
            format!(
                "it cannot go back, the queue that it was enqueued in is gone; enqueue it again{detail}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_given_up_tells_why_and_what_its_pod_said() {
        let (_, message) = give_up_texts(GiveUpReason::PendingTimeout, Some("image not found"), 3);
        assert_eq!(
            message,
            "its pod did not start within pendingTimeout: image not found"
        );
        let (_, message) = give_up_texts(GiveUpReason::InterruptionsSpent, None, 3);
        assert!(message.contains("more than 3 times"));
    }
}
