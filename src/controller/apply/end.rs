//! Ends: withdrawing Jobs, settling what a pod could not report, taking leftovers away.

use jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::json;

use super::{Case, Fault, Hands, Next, in_time};
use crate::claim::{JobsFact, OnInterruption, Settlement, Step, TaskFact, TaskState};
use crate::controller::cluster::{self, call};
use crate::controller::row::{JobObject, JobRow};
use crate::controller::status::FIELD_MANAGER;
use crate::controller::verdict::{self, Ended};
use crate::controller::{Context, fault, phases};
use crate::crd::Period;
use crate::diagnose::{Diagnosis, Outcome};
use crate::pod::{annotation, label, outcome, state};
use crate::task::{Attempt, QueueId, Status};

impl Hands<'_> {
    /// Deletes a Job that must not, or need not, run on; its processes get their grace.
    ///
    /// Death after the delete: an entry may be left in the pending queue; `Leftover` takes it out.
    pub(super) async fn withdraw(
        &self,
        attempt: Attempt,
        step: &Step,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        if !self.still(step, case).await? {
            return Ok(Next::Done);
        }
        self.delete_job(attempt, case).await?;
        // A late removal would lose a task that is queued.
        let queued = matches!(&case.observed.facts.task, TaskFact::Found(task) if task.status == Status::Queued);
        if !queued {
            self.take_pending(case).await?;
        }
        Ok(Next::Done)
    }

    /// Deletes the Job that was observed, and no other.
    pub(super) async fn delete_job(&self, attempt: Attempt, case: &Case) -> Result<(), Fault> {
        let Some(job) = Self::known_job(case, attempt) else {
            return Ok(());
        };
        in_time(case)?;
        delete_observed(self.context, self.namespace, job).await?;
        Ok(())
    }

    /// Writes the end of a task whose pod could not, then marks the Job as settled.
    ///
    /// Death between the two: the task has ended, the Job is not marked: `Reported`, the mark alone.
    pub(super) async fn settle(
        &self,
        attempt: Attempt,
        how: Settlement,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        if how == Settlement::Lost && self.has_live_job(case).await? {
            return Ok(Next::Done);
        }
        let job = self.live_job(case, attempt).await?;
        if job
            .as_ref()
            .is_some_and(|job| !job.has_ended() && !job.is_evicted())
        {
            return Ok(Next::Done);
        }
        let (mut end, mut stored) = (None, None);
        let (live, unwritten) = self.read(case).await?;
        match live {
            TaskFact::Unknown => return Ok(Next::Done),
            TaskFact::Gone => {}
            TaskFact::Found(task) => match task.status {
                Status::InProgress if unwritten && task.names(attempt) => {
                    let ended = self.end_of(attempt, how, &task, case);
                    // Reading log and Events takes its time; the write rests on what was read just before it.
                    if self.tell_rest(attempt, case).await && !self.read(case).await?.1 {
                        return Ok(Next::Done);
                    }
                    in_time(case)?;
                    self.write_end(&ended, case).await?;
                    stored = Some(Timestamp::now());
                    self.tell_evidence(&ended.evidence, case).await;
                    end = Some(ended.outcome);
                }
                // Somebody else's run, or on its way to one: the next look tells what this Job's end means then.
                Status::InProgress | Status::Queued | Status::Unknown => return Ok(Next::Done),
                Status::Completed => end = Some(Outcome::Completed),
                Status::Created
                | Status::Stopped
                | Status::Publishing
                | Status::Published
                | Status::Closed
                | Status::Failed => {}
            },
        }
        if let Some(job) = job {
            let (outcome, ttl) = self.kept_as(end == Some(Outcome::Completed));
            let ttl = stored.map_or(ttl, |stored| counted_from(stored, &job, ttl));
            self.mark_settled(&job, Some(outcome), ttl, case).await?;
        }
        Ok(Next::Done)
    }

    /// What the task's log lacks of its dead pod. Whether that was tried, which takes time.
    async fn tell_rest(&self, attempt: Attempt, case: &Case) -> bool {
        let tail = self.send_tail(attempt, case);
        let (sent, told) = tokio::join!(tail, self.tell_last_events(attempt, case));
        sent || told
    }

    /// How the run ended, in the words that are written into the task.
    fn end_of(&self, attempt: Attempt, how: Settlement, task: &TaskState, case: &Case) -> Ended {
        let mut ended = match Self::known_job(case, attempt) {
            Some(job) => self.ended(job, case),
            None => verdict::lost(),
        };
        match how {
            Settlement::AsEnded => {}
            Settlement::Failed => {
                ended.outcome = Outcome::Failed;
                if Self::is_spent(attempt, case) {
                    let budget = self.spec.lifecycle.max_interruptions;
                    ended.tell_as_spent(budget);
                }
            }
            Settlement::Lost => ended.outcome = Outcome::Failed,
            Settlement::Stopped => ended.outcome = Outcome::Stopped,
        }
        if task.stopping {
            ended.outcome = Outcome::Stopped;
        }
        ended
    }

    /// Whether this attempt was interrupted, and would have been followed by another but for the budget.
    fn is_spent(attempt: Attempt, case: &Case) -> bool {
        let JobsFact::Known(jobs) = &case.observed.facts.jobs else {
            return false;
        };
        case.policy.on_interruption == OnInterruption::Requeue
            && jobs
                .iter()
                .any(|job| job.attempt == attempt && job.requeues >= case.policy.max_interruptions)
    }

    /// How the run of an ended Job ended.
    pub(super) fn ended(&self, job: &JobRow, case: &Case) -> Ended {
        verdict::ended(job, &self.lore.pods_or_remains(job, &case.objects.pods))
    }

    /// The same with all that is known of it.
    pub(super) fn diagnosis(&self, job: &JobRow, case: &Case) -> Diagnosis {
        verdict::diagnosis(job, &self.lore.pods_or_remains(job, &case.objects.pods))
    }

    /// Never forced: a refusal means that somebody else has ended the task.
    async fn write_end(&self, ended: &Ended, case: &Case) -> Result<(), Fault> {
        let (task, reason, message) = (&case.task, &ended.reason, &ended.message);
        let answer = match ended.outcome {
            Outcome::Completed => self.client.completed(task, reason, message).await,
            Outcome::Failed => self.client.failed(task, reason, message).await,
            Outcome::Stopped => self.client.stopped(task, reason, message).await,
        };
        fault::point!("settle/written");
        match answer {
            Err(error) if error.is(400, 110) || error.is(400, 121) || error.is_unknown_task() => {
                Ok(())
            }
            answer => Ok(answer?),
        }
    }

    /// The last patch of `settle` alone.
    pub(super) async fn patch_settled(
        &self,
        attempt: Attempt,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        let Some(job) = Self::known_job(case, attempt) else {
            return Ok(Next::Done);
        };
        in_time(case)?;
        let completed = matches!(&case.observed.facts.task,
            TaskFact::Found(task) if matches!(task.status, Status::Completed | Status::Published | Status::Publishing));
        let (outcome, ttl) = self.kept_as(completed);
        self.mark_settled(job, Some(outcome), ttl, case).await?;
        Ok(Next::Done)
    }

    /// As what the Job of an ended task is kept, and for how long.
    fn kept_as(&self, completed: bool) -> (&'static str, Period) {
        let lifecycle = &self.spec.lifecycle;
        if completed {
            (outcome::SUCCESS, lifecycle.ttl_after_success)
        } else {
            (outcome::FAILURE, lifecycle.ttl_after_failure)
        }
    }

    /// The end is stored in the task: from now on the Job may be removed. The UID keeps a successor of the same name
    /// from being marked. Without an outcome the task stands in its queue again.
    pub(super) async fn mark_settled(
        &self,
        job: &JobRow,
        outcome: Option<&'static str>,
        ttl: Period,
        case: &Case,
    ) -> Result<(), Fault> {
        let pods = self.lore.pods_or_remains(job, &case.objects.pods);
        let diagnosis = verdict::diagnosis(job, &pods);
        let category = diagnosis.category;
        let mut notes = verdict::notes(&diagnosis);
        let first_line = diagnosis.first_line.and_then(|line| {
            let pod = verdict::last_pod(&job.uid, &pods)?;
            phases::first_line(job, pod, line)
        });
        // The next attempt may be meant to avoid it, when the pod is long gone.
        let node = pods.iter().find_map(|pod| pod.node());
        notes[annotation::NODE] = json!(node);
        notes[annotation::OUTCOME] = json!(outcome);
        let seconds = i32::try_from(ttl.whole_seconds()).unwrap_or(i32::MAX);
        let patch = json!({
            "metadata": {"uid": job.uid, "labels": {label::STATE: state::SETTLED}, "annotations": notes},
            "spec": {"ttlSecondsAfterFinished": seconds},
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        match call(self.jobs().patch(&job.name, &params, &Patch::Merge(&patch))).await {
            Ok(settled) => {
                fault::point!("step/job-settled");
                self.context.metrics.ended(&self.label(), category.as_str());
                if let Some(seconds) = first_line {
                    self.context
                        .metrics
                        .phase(&self.label(), "first-line", seconds);
                }
                self.context.jobs.note(settled);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Completes a user's dequeue that left the task queued, in no queue.
    ///
    /// Death after it: nothing is left to do.
    pub(super) async fn dequeue(&self, step: &Step, case: &mut Case) -> Result<Next, Fault> {
        if self.still(step, case).await? {
            in_time(case)?;
            self.client
                .dequeue(&case.task, None, "dequeued", "")
                .await?;
            fault::point!("dequeue/dequeued");
        }
        Ok(Next::Done)
    }

    /// Takes out an entry whose task is not queued, or is gone.
    ///
    /// Death after it: nothing is left to do.
    pub(super) async fn take_entry(
        &self,
        queue: Option<&QueueId>,
        step: &Step,
        case: &mut Case,
    ) -> Result<Next, Fault> {
        if self.still(step, case).await? {
            in_time(case)?;
            self.client
                .remove_from_queue(queue.unwrap_or(&self.resolved.pending), &case.task)
                .await?;
            fault::point!("take-entry/taken");
        }
        Ok(Next::Done)
    }
}

/// Deletes a Job as it was observed, and no other: by UID and resourceVersion, its pods first.
pub(in crate::controller) async fn delete_observed(
    context: &Context,
    namespace: &str,
    job: &JobRow,
) -> Result<(), cluster::Error> {
    let api: Api<JobObject> = Api::namespaced(context.kube.clone(), namespace);
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        preconditions: Some(Preconditions {
            uid: Some(job.uid.to_string()),
            resource_version: Some(job.resource_version.to_string()),
        }),
        ..DeleteParams::default()
    };
    match call(api.delete(&job.name, &params)).await {
        Ok(answer) => {
            fault::point!("step/job-deleted");
            if let Some(deleting) = answer.left() {
                context.jobs.note(deleting);
            }
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        // It has changed since it was observed: the next look decides anew.
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Kubernetes counts the time to live from the Job's end. Where its outcome is stored later than that, people get the
/// whole time from then on.
fn counted_from(stored: Timestamp, job: &JobRow, ttl: Period) -> Period {
    let late = job
        .ended()
        .and_then(|ended| u64::try_from(stored.duration_since(ended).as_secs()).ok());
    // A second that has begun counts as a whole one: it never goes too early.
    late.map_or(ttl, |late| Period::seconds(ttl.whole_seconds() + late + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::row::Row;

    #[test]
    fn a_job_whose_outcome_is_stored_late_is_kept_so_much_longer() {
        let job = |status: serde_json::Value| {
            JobRow::of(serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap())
        };
        let stored: Timestamp = "2026-01-01T00:00:21.5Z".parse().unwrap();
        let kept = |job: JobRow| counted_from(stored, &job, Period::seconds(40)).whole_seconds();
        let ended = |type_: &str, at: &str| {
            job(json!({"conditions": [
                {"type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
                {"type": type_, "status": "True", "lastTransitionTime": at},
            ]}))
        };
        assert_eq!(kept(ended("Failed", "2026-01-01T00:00:00Z")), 62);
        assert_eq!(kept(ended("Complete", "2026-01-01T00:00:21Z")), 41);
        assert_eq!(kept(job(json!({}))), 40, "no end is known");
        let later = ended("Failed", "2026-01-01T00:10:00Z");
        assert_eq!(kept(later), 40, "a clock that differs shortens nothing");
    }
}
