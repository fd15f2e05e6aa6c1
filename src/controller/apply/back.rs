//! Ways back to the user's queue, and giving up where there is none.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::{Case, Hands, Next, Report, in_time};
use crate::claim::observed::{REASON_REQUEUED, REASON_RESTORED, REASON_RETRIED};
use crate::claim::{GiveUpReason, JobsFact, TaskFact};
use crate::controller::cluster::call;
use crate::controller::row::{JobRow, Row as _, task_container_started};
use crate::controller::{fault, verdict};
use crate::diagnose::{Category, Fault, Patience, patience};
use crate::pod::{label, outcome};
use crate::task::{Attempt, QueueId, Status, TaskId};

/// From where a task is requeued, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requeue {
    /// Its entry stands in the pending queue.
    pub pending: bool,
    /// It was in progress at the look.
    pub running: bool,
    /// It failed by its own fault and is tried again.
    pub failed: bool,
}

impl Hands<'_> {
    /// Returns a task whose pod ended, or never came to run, to the front of its queue.
    ///
    /// Death after taking the entry, or after `dequeue`: queued, nowhere, beside an ended Job; again after the quiet
    /// time. Death after the enqueue: it stands at the end of its queue instead of the front.
    pub(super) async fn requeue(
        &self,
        attempt: Attempt,
        queue: &QueueId,
        how: Requeue,
        case: &mut Case,
    ) -> Result<Next, super::Fault> {
        let running = how.running;
        if how.pending && !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        let (category, why) = self.why_ended(attempt, case);
        let begin = if how.failed {
            REASON_RETRIED
        } else {
            REASON_REQUEUED
        };
        let reason = reason_of_return(begin, category, &why);
        let job = self.live_job(case, attempt).await?;
        let is_over = |job: &JobRow| job.has_ended() || job.is_evicted();
        let ended = job.as_ref().is_none_or(is_over);
        let (live, unwritten) = self.read(case).await?;
        match live {
            TaskFact::Found(task) if task.status == Status::Queued => {}
            // A run of ours is put back only if it has certainly ended.
            TaskFact::Found(task)
                if running
                    && unwritten
                    && ended
                    && task.status == Status::InProgress
                    && task.names(attempt)
                    && !task.stopping =>
            {
                // Reading a log takes its time; the dequeue rests on what was read just before it.
                if self.send_tail(attempt, case).await && !self.read(case).await?.1 {
                    return Ok(Next::Done);
                }
                in_time(case)?;
                if !self
                    .client
                    .dequeue(&case.task, Some(Status::Queued), &reason, &why)
                    .await?
                {
                    return Ok(Next::Done);
                }
                fault::point!("requeue/dequeued");
            }
            _ => return Ok(Next::Done),
        }
        // The Job is the record until the task stands in its queue again: a settled one goes when its time is over.
        let is_back = self.put_back(queue, &reason, case).await?;
        if let Some(job) = job.filter(|job| is_back && is_over(job)) {
            self.mark_settled(&job, None, self.spec.lifecycle.ttl_after_failure, case)
                .await?;
        }
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
    ) -> Result<Next, super::Fault> {
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
    ) -> Result<Next, super::Fault> {
        if !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        let (category, why) = self.why_it_waits(attempt, case);
        let reason = reason_of_return(REASON_RESTORED, category, &why);
        if let JobsFact::Known(jobs) = &case.observed.facts.jobs
            && jobs.iter().any(|job| job.attempt == attempt && job.refused)
        {
            report.pod_refused = Some((queue.clone(), why));
        }
        if self.put_back(queue, &reason, case).await? {
            self.delete_job(attempt, case).await?;
        }
        Ok(Next::Done)
    }

    /// Fails a waiting task: patience or budget is spent, or there is no queue to return it to.
    ///
    /// Death after taking the entry: queued, nowhere, beside a Job: the same phase again after the quiet time. Death
    /// after `dequeue`: failed beside a Job, which is withdrawn. Before the entry is taken nothing has changed, so what
    /// takes its time comes first.
    pub(super) async fn give_up(
        &self,
        attempt: Option<Attempt>,
        pending: bool,
        why: GiveUpReason,
        case: &mut Case,
    ) -> Result<Next, super::Fault> {
        if let Some(attempt) = attempt {
            self.tell_last_events(attempt, case).await;
        }
        if pending && !self.take_pending(case).await? {
            return Ok(Next::Done);
        }
        let (live, unwritten) = self.read(case).await?;
        let queued = matches!(live, TaskFact::Found(task) if task.status == Status::Queued);
        if !queued || !unwritten || (!pending && self.has_started_pod(case).await?) {
            return Ok(Next::Done);
        }
        let cause = attempt.and_then(|attempt| self.cause(why, attempt, case));
        let budget = self.spec.lifecycle.max_interruptions;
        let (reason, message) = give_up_texts(why, cause.as_ref(), budget);
        in_time(case)?;
        // `false`: somebody else has ended it, which is as good.
        self.client
            .dequeue(&case.task, Some(Status::Failed), &reason, &message)
            .await?;
        fault::point!("give-up/dequeued");
        let Some(attempt) = attempt else {
            return Ok(Next::Done);
        };
        if let Some(job) = Self::known_job(case, attempt).filter(|job| job.has_ended()) {
            let evidence = self.ended(job, case).evidence;
            self.tell_evidence(&evidence, case).await;
        }
        match self.live_job(case, attempt).await? {
            Some(job) if job.has_ended() => {
                let ttl = self.spec.lifecycle.ttl_after_failure;
                self.mark_settled(&job, Some(outcome::FAILURE), ttl, case)
                    .await?;
            }
            Some(_) => self.delete_job(attempt, case).await?,
            None => {}
        }
        Ok(Next::Done)
    }

    /// Why the attempt's pod ended, and what that is called if it can be told.
    fn why_ended(&self, attempt: Attempt, case: &Case) -> (Option<Category>, String) {
        let Some(job) = Self::known_job(case, attempt) else {
            return (None, "its Job is gone".to_owned());
        };
        let end = self.diagnosis(job, case);
        (Some(end.category), end.message())
    }

    /// Why the attempt's pod has not started, and what that is called if it can be told.
    fn why_it_waits(&self, attempt: Attempt, case: &Case) -> (Option<Category>, String) {
        if Self::known_job(case, attempt).is_none() {
            return (None, "its Job is gone".to_owned());
        }
        match self.wait(attempt, case) {
            Some((category, message)) => (Some(category), message),
            None => (None, "its pod has not started".to_owned()),
        }
    }

    /// What the attempt's pod waits for, if it can be told.
    fn wait(&self, attempt: Attempt, case: &Case) -> Option<(Category, String)> {
        let job = Self::known_job(case, attempt)?;
        let waiting = verdict::waiting(job, &case.objects.pods, self.lore)?;
        Some((waiting.category, waiting.message()))
    }

    /// What is behind giving up on this attempt, if it can be told.
    fn cause(&self, why: GiveUpReason, attempt: Attempt, case: &Case) -> Option<Cause> {
        if why == GiveUpReason::InterruptionsSpent {
            let job = Self::known_job(case, attempt)?;
            let end = self.diagnosis(job, case);
            return Some(Cause {
                category: end.category,
                message: end.message(),
                alone: end.fault == Fault::Task,
            });
        }
        let (category, message) = self.wait(attempt, case)?;
        Some(Cause {
            category,
            message,
            alone: why == GiveUpReason::PendingTimeout
                && matches!(patience(category), Patience::ThenFail(_)),
        })
    }

    /// Whether any Job of the task is alive, asked of the API server.
    pub(super) async fn has_live_job(&self, case: &Case) -> Result<bool, super::Fault> {
        in_time(case)?;
        let jobs = call(self.jobs().list(&of_task(&case.task))).await?;
        fault::point!("step/jobs-listed");
        Ok(jobs
            .items
            .into_iter()
            .any(|job| !JobRow::of(job).has_ended()))
    }

    /// Whether the experiment's container of any pod of the task has started and may still run, asked of the API server.
    async fn has_started_pod(&self, case: &Case) -> Result<bool, super::Fault> {
        in_time(case)?;
        let pods: Api<Pod> = Api::namespaced(self.context.kube.clone(), self.namespace);
        let pods = call(pods.list(&of_task(&case.task))).await?;
        fault::point!("step/pods-listed");
        Ok(pods
            .items
            .iter()
            .any(|pod| task_container_started(pod) && !is_over(pod)))
    }
}

/// A pod of ours is never started again.
fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn of_task(task: &TaskId) -> ListParams {
    ListParams::default().labels(&format!("{}={task}", label::TASK))
}

/// What kept a task from running.
struct Cause {
    category: Category,
    message: String,
    /// Nothing else was decisive, no patience and no budget: it is told as it is.
    alone: bool,
}

/// Status reason of a task that goes back to its queue: by its beginning the claim knows it again.
fn reason_of_return(begin: &str, category: Option<Category>, why: &str) -> String {
    match category {
        Some(category) => format!("{begin}, {}: {why}", category.as_str()),
        None => format!("{begin}, {why}"),
    }
}

/// Status reason and message of a task that is given up.
fn give_up_texts(why: GiveUpReason, cause: Option<&Cause>, budget: i32) -> (String, String) {
    let category = cause.map_or(Category::NotStarted, |cause| cause.category);
    if let Some(cause) = cause.filter(|cause| cause.alone) {
        return (category.reason(), cause.message.clone());
    }
    let detail = cause
        .map(|cause| format!(": {}", cause.message))
        .unwrap_or_default();
    match why {
        GiveUpReason::PendingTimeout => (
            category.reason(),
            format!("its pod did not start within pendingTimeout{detail}"),
        ),
        GiveUpReason::InterruptionsSpent => (
            verdict::spent_reason(category.as_str()),
            verdict::spent_message(budget, &detail),
        ),
        GiveUpReason::QueueGone => (
            "trainyard: queue is gone".to_owned(),
            format!(
                "it cannot go back, the queue that it was enqueued in is gone; enqueue it again{detail}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::claim::observed::Reason;

    /// Else a task whose end could not be written would stay queued, in no queue, beside its dead pod.
    #[test]
    fn a_dead_pod_is_in_nobodys_way() {
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {}, "status": {"phase": phase}})).unwrap()
        };
        for (phase, over) in [
            ("Pending", false),
            ("Running", false),
            ("Failed", true),
            ("Succeeded", true),
        ] {
            assert_eq!(is_over(&pod(phase)), over, "{phase}");
        }
    }

    #[test]
    fn a_task_that_goes_back_is_known_again_and_tells_what_its_trouble_is_called() {
        let told = reason_of_return(REASON_RESTORED, Some(Category::Quota), "no room");
        assert_eq!(told, "trainyard: restored, quota: no room");
        assert_eq!(Reason::of(&told), Reason::Restored);
        assert_eq!(
            reason_of_return(REASON_REQUEUED, None, "its Job is gone"),
            "trainyard: requeued, its Job is gone"
        );
    }

    #[test]
    fn a_task_that_is_given_up_tells_why_and_what_its_pod_said() {
        let cause = |category, message: &str, alone| Cause {
            category,
            message: message.to_owned(),
            alone,
        };
        let image = cause(Category::ImageMissing, "image not found", true);
        let (reason, message) = give_up_texts(GiveUpReason::PendingTimeout, Some(&image), 3);
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("trainyard: image-missing", "image not found")
        );
        let room = cause(Category::Unschedulable, "no room", false);
        let (reason, message) = give_up_texts(GiveUpReason::PendingTimeout, Some(&room), 3);
        assert_eq!(
            (reason.as_str(), message.as_str()),
            (
                "trainyard: unschedulable",
                "its pod did not start within pendingTimeout: no room"
            )
        );
        let (_, message) = give_up_texts(GiveUpReason::InterruptionsSpent, None, 3);
        assert!(message.contains("more than 3 times"));
    }
}
