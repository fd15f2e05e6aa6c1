//! The claim: intend, take, park, release.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Case, Fault, Hands, Next, Report, in_time};
use crate::claim::{Entry, JobState, JobsFact, TaskFact, ThisPass};
use crate::controller::cluster::{self, call, find, pointed};
use crate::controller::fault;
use crate::controller::kueue;
use crate::controller::observe::{self, Objects};
use crate::controller::row::{JobObject, JobRow, Row as _};
use crate::controller::status::FIELD_MANAGER;
use crate::controller::turn::Turn;
use crate::controller::verdict;
use crate::pod::{label, state};
use crate::render::JobName;
use crate::task::{Attempt, QueueId, Status};

/// No claim begins later in its pass. A claim is five calls, each of which has to begin within the step's deadline: one
/// that is cut off by it is found by the next look and waits for the quiet time, one that has not begun waits for nothing.
pub(super) const BEGINS: Duration = Duration::from_secs(2);
/// Reason that people see while a task waits for its pod; it proves nothing and is not read back.
const PARKED: &str = "taken by trainyard, waits for its pod";
/// A status message is a line of a table to people.
const LONGEST_MESSAGE: usize = 500;

impl Hands<'_> {
    /// Creates the suspended Job, from here on the record of the claim.
    ///
    /// Death after it: the entry still stands in its queue, beside a Job intent; the next look takes it.
    pub(super) async fn intend(
        &self,
        attempt: Attempt,
        requeues: u32,
        case: &mut Case,
        report: &mut Report,
    ) -> Result<Next, Fault> {
        in_time(case)?;
        self.may_begin()?;
        let name = JobName::of(&case.task, attempt);
        let Some(draft) = case.rendered.as_ref().filter(|draft| *draft.name() == name) else {
            // Not admitted in this pass: nothing was rendered.
            return Ok(Next::Done);
        };
        let unpacked = draft.unpacked();
        let mut job = unpacked.map_err(|error| cluster::Error::Transport(error.to_string()))?;
        let mut turn = case.turn.clone();
        if requeues > 0 {
            job = job.with_requeues(requeues);
            // It keeps the turn that it lost without fault of its own.
            turn = Turn::last(&case.objects.jobs).or(turn);
        }
        if let Some(turn) = turn {
            job = job.with_turn(turn.as_str());
        }
        let job = job.job.to_string();
        let path = format!(
            "/apis/batch/v1/namespaces/{}/jobs?fieldManager={FIELD_MANAGER}",
            self.namespace
        );
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(job.into_bytes())
            .map_err(|error| cluster::Error::Transport(error.to_string()))?;
        let permit = self.context.writes.acquire().await;
        in_time(case)?;
        self.may_begin()?;
        let created = call(self.context.kube.request::<JobObject>(request)).await;
        drop(permit);
        let job = match created {
            Ok(job) => {
                fault::point!("intend/created");
                report.created = true;
                self.measure_dispatch(case);
                job
            }
            // Information: an earlier pass, or another replica, was here. Whose it is and how far it has come counts.
            Err(error) if error.is_conflict() => {
                let found = find(self.jobs().get_opt(name.as_str())).await?;
                fault::point!("intend/job-read");
                match found {
                    Some(job) => job,
                    None => return Ok(Next::Done),
                }
            }
            Err(error) if error.is_verdict() => return Err(Fault::JobRefused(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        self.context.jobs.note(job.clone());
        let job = JobRow::of(job);
        if !observe::is_ours(self.identity, &job) || job.is_deleting() {
            return Ok(Next::Done);
        }
        if let (JobsFact::Known(jobs), Some(fact)) = (
            &mut case.observed.facts.jobs,
            observe::job_fact(self.identity, &job, &[], self.lore, &verdict::cause),
        ) {
            jobs.retain(|known| known.attempt != attempt);
            let intent = fact.state == JobState::Intent;
            jobs.push(fact);
            case.objects = Objects {
                jobs: vec![Arc::new(job)],
                pods: Vec::new(),
            };
            return Ok(if intent { Next::Again } else { Next::Done });
        }
        Ok(Next::Done)
    }

    /// How long the task has stood in its queue, by the server's clock at its entry and ours now.
    fn measure_dispatch(&self, case: &Case) {
        let added = case.observed.facts.stamps.entry_added.as_deref();
        let added = added.and_then(|text| text.parse::<Timestamp>().ok());
        if let Some(waited) =
            added.and_then(|added| Duration::try_from(Timestamp::now().duration_since(added)).ok())
        {
            self.context.metrics.dispatched(waited);
            self.context
                .metrics
                .phase(&self.label(), "queued", waited.as_secs_f64());
        }
    }

    /// Takes the entry that was looked at out of its queue. A "no" changes nothing: the next look tells why.
    ///
    /// Death after it: the task is queued, in no queue, beside a Job intent; it is parked after the quiet time.
    pub(super) async fn take(&self, queue: &QueueId, case: &mut Case) -> Result<Next, Fault> {
        in_time(case)?;
        if !self.client.remove_from_queue(queue, &case.task).await? {
            return Ok(Next::Done);
        }
        fault::point!("take/removed");
        case.observed.facts.entry = Entry::Nowhere;
        case.observed.facts.task = self.live(case).await?;
        if matches!(&case.observed.facts.task, TaskFact::Found(task) if task.status == Status::Queued)
        {
            case.observed.this_pass = ThisPass::Took;
        }
        Ok(Next::Again)
    }

    /// Puts the taken task into the binding's pending queue. Never by a plain enqueue, which would undo an abort.
    ///
    /// Death after it: the entry is pending beside a Job intent, which is released after the quiet time.
    pub(super) async fn park(&self, case: &mut Case, report: &mut Report) -> Result<Next, Fault> {
        in_time(case)?;
        let pending = &self.resolved.pending;
        let parked = match told(case) {
            None => {
                self.client
                    .move_queued_task(&case.task, pending, PARKED)
                    .await
            }
            Some(message) => {
                self.client
                    .move_queued_task_telling(&case.task, pending, PARKED, &message)
                    .await
            }
        };
        match parked {
            Ok(()) => {}
            // It is there already.
            Err(error) if error.is(400, 706) => {}
            Err(error) if error.is(400, 12) || error.is_unknown_task() => return Ok(Next::Done),
            Err(error) if error.is(400, 701) => {
                report.pending_gone = true;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        fault::point!("park/parked");
        case.observed.facts.entry = Entry::Pending;
        if case.observed.this_pass == ThisPass::Took {
            case.observed.this_pass = ThisPass::TookAndParked;
            return Ok(Next::Again);
        }
        Ok(Next::Done)
    }

    /// Lets the intent run, by one patch that holds for this intent alone. What else changes of the Job meanwhile, as its
    /// own controller writes its status once it sees it, is no matter and no reason to try again.
    ///
    /// Death after it: Kubernetes carries on without us.
    pub(super) async fn release(
        &self,
        attempt: Attempt,
        case: &mut Case,
        report: &mut Report,
    ) -> Result<Next, Fault> {
        let job = match Self::known_job(case, attempt) {
            Some(known) => known.clone(),
            None => match self.live_job(case, attempt).await? {
                Some(job) => Arc::new(job),
                None => return Ok(Next::Done),
            },
        };
        let path = format!(
            "/apis/batch/v1/namespaces/{}/jobs/{}?fieldManager={FIELD_MANAGER}",
            self.namespace, job.name
        );
        let patch = release_of(&job.uid, &kueue::release(self.spec)).to_string();
        let request = http::Request::patch(path)
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(patch.into_bytes())
            .map_err(|error| cluster::Error::Transport(error.to_string()))?;
        let permit = self.context.writes.acquire().await;
        in_time(case)?;
        let released = call(self.context.kube.request::<JobObject>(request)).await;
        drop(permit);
        match released {
            Ok(released) => {
                fault::point!("release/released");
                self.context.jobs.note(released);
                report.released = true;
                self.tell_taken(attempt, case);
                Ok(Next::Done)
            }
            Err(error) if error.is_not_found() => Ok(Next::Done),
            // Either it is not this intent any more, or the API server refuses the change itself.
            Err(error) if error.is_verdict() => match self.live_job(case, attempt).await? {
                Some(current) if is_same_intent(&current, &job.uid) => Err(Fault::Release(error)),
                _ => Ok(Next::Done),
            },
            Err(error) => Err(Fault::Release(error)),
        }
    }
}

impl Hands<'_> {
    /// Whether another claim may begin in this pass.
    fn may_begin(&self) -> Result<(), Fault> {
        if self.begun.elapsed() > BEGINS {
            Err(Fault::Left)
        } else {
            Ok(())
        }
    }
}

/// Operations that let the intent with this UID run, by `run`: the API server does all of them or, where one does not
/// hold of the Job as it is then, none (RFC 6902).
fn release_of(uid: &str, run: &Value) -> Value {
    let place = format!("/metadata/labels/{}", pointed(label::STATE));
    json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        // What is not there is null.
        {"op": "test", "path": "/metadata/deletionTimestamp", "value": null},
        {"op": "test", "path": place, "value": state::INTENT},
        {"op": "add", "path": place, "value": state::HELD},
        run,
    ])
}

/// What the task asked for and does not get, for its status message; its log tells it line by line.
fn told(case: &Case) -> Option<String> {
    let notes = case.rendered.as_ref()?.notes();
    let message = format!("not honoured: {}", notes.join("; "));
    (!notes.is_empty()).then(|| message.chars().take(LONGEST_MESSAGE).collect())
}

fn is_same_intent(job: &JobRow, uid: &str) -> bool {
    *job.uid == *uid && !job.is_deleting() && job.label(label::STATE) == Some(state::INTENT)
}
