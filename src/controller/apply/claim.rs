//! The claim: intend, take, park, release.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Case, Fault, Hands, Next, Report, in_time};
use crate::claim::{Entry, JobState, JobsFact, TaskFact, ThisPass};
use crate::controller::cluster::{self, call, find};
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
/// How often a release is tried against a Job that changes meanwhile.
const RELEASE_TRIES: usize = 4;
/// How long the watch is waited for to tell of a change that the API server knows of, before it is asked: far longer
/// than it takes, and far shorter than the step's deadline.
const WATCH_TRIES: usize = 50;
const WATCH_PAUSE: Duration = Duration::from_millis(20);

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

    /// Lets the intent run, by one patch that carries the resourceVersion of an intent that was seen.
    ///
    /// Death after it: Kubernetes carries on without us.
    pub(super) async fn release(
        &self,
        attempt: Attempt,
        case: &mut Case,
        report: &mut Report,
    ) -> Result<Next, Fault> {
        let mut job = match Self::known_job(case, attempt) {
            Some(known) => known.clone(),
            None => match self.live_job(case, attempt).await? {
                Some(job) => Arc::new(job),
                None => return Ok(Next::Done),
            },
        };
        let (name, uid) = (job.name.clone(), job.uid.clone());
        // What was noted or seen since saves a patch that is out of date.
        if let Some(known) = self.context.jobs.named(self.namespace, &case.task, &name)
            && is_same_intent(&known, &uid)
        {
            job = known;
        }
        for _ in 0..RELEASE_TRIES {
            let permit = self.context.writes.acquire().await;
            in_time(case)?;
            let mut patch = json!({
                "metadata": {"resourceVersion": job.resource_version, "uid": uid, "labels": {label::STATE: state::HELD}},
            });
            kueue::release(self.spec, &mut patch);
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let patched = call(self.jobs().patch(&name, &params, &Patch::Merge(&patch))).await;
            drop(permit);
            match patched {
                Ok(released) => {
                    fault::point!("release/released");
                    self.context.jobs.note(released);
                    report.released = true;
                    self.tell_taken(attempt, case);
                    return Ok(Next::Done);
                }
                Err(error) if error.is_not_found() => return Ok(Next::Done),
                // The Job's own controller writes its status once it sees it: take what the watch tells of that, or
                // read again, and look that it still is the same intent.
                Err(error) if error.is_conflict() => {
                    let current = match self.newer_job(case, &job).await {
                        Some(current) => Some(current),
                        None => self.live_job(case, attempt).await?.map(Arc::new),
                    };
                    match current {
                        Some(current) if is_same_intent(&current, &uid) => job = current,
                        _ => return Ok(Next::Done),
                    }
                }
                Err(error) => return Err(Fault::Release(error)),
            }
        }
        Ok(Next::Done)
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

    /// A newer state of the Job than this one, as the watch tells of it within a moment.
    async fn newer_job(&self, case: &Case, job: &JobRow) -> Option<Arc<JobRow>> {
        for _ in 0..WATCH_TRIES {
            let known = self
                .context
                .jobs
                .named(self.namespace, &case.task, &job.name);
            if let Some(known) =
                known.filter(|known| known.resource_version != job.resource_version)
            {
                return Some(known);
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
        None
    }
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
