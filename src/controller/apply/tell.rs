//! What people are told about a task: why its pod waits, and that it was taken.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Case, Fault, Hands, Next, in_time};
use crate::api::Event;
use crate::claim::{TaskFact, Why};
use crate::controller::verdict;
use crate::pod::label;
use crate::render::JobName;
use crate::task::{Attempt, QueueId, Status, TaskId};

/// A pod that starts as fast as usual is not worth a word.
const WORTH_A_WORD_S: i64 = 5;

/// The status messages that were written, so that each is written once.
#[derive(Debug, Default)]
pub(in crate::controller) struct Told {
    messages: Mutex<HashMap<TaskId, String>>,
}

impl Told {
    /// Forgets every task but these.
    pub fn keep(&self, tasks: &HashSet<TaskId>) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|task, _| tasks.contains(task));
    }

    fn is_new(&self, task: &TaskId, message: &str) -> bool {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.get(task).is_none_or(|known| known != message)
    }

    fn note(&self, task: &TaskId, message: String) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(task.clone(), message);
    }
}

impl Hands<'_> {
    /// Tells in the status message why a claimed task's pod waits. A task that is not admitted is left untouched.
    ///
    /// Death after it: nothing is left to do.
    pub(super) async fn explain(&self, why: &Why, case: &mut Case) -> Result<Next, Fault> {
        let Why::PodWaits { attempt } = why else {
            return Ok(Next::Done);
        };
        let Some(job) = Self::known_job(case, *attempt) else {
            return Ok(Next::Done);
        };
        let created = job
            .creation_timestamp()
            .map_or(Timestamp::now(), |time| time.0);
        if Timestamp::now().duration_since(created).as_secs() < WORTH_A_WORD_S {
            return Ok(Next::Done);
        }
        let Some(message) = verdict::waiting(job, &case.objects.pods, self.lore) else {
            return Ok(Next::Done);
        };
        if !self.told.is_new(&case.task, &message) {
            return Ok(Next::Done);
        }
        // A message may be a server's word to a running task: only one that still waits gets ours.
        if !matches!(self.live(case).await?, TaskFact::Found(task) if task.status == Status::Queued)
        {
            return Ok(Next::Done);
        }
        in_time(case)?;
        self.client.set_status_message(&case.task, &message).await?;
        self.told.note(&case.task, message);
        Ok(Next::Done)
    }

    /// One line in the task's own log. What it asked for and does not get, the pod tells.
    pub(super) async fn tell_taken(&self, attempt: Attempt, case: &Case) {
        let job = JobName::of(&case.task, attempt);
        let queue_id: Option<QueueId> = Self::known_job(case, attempt)
            .and_then(|job| job.labels().get(label::QUEUE)?.parse().ok());
        let queue = queue_id
            .as_ref()
            .map_or("(unknown)", |id| self.queue_name(id));
        let msg = format!(
            "task taken from queue {queue} by binding {}/{}, Job {job}\n",
            self.namespace, self.binding
        );
        tracing::info!(task = %case.task, namespace = self.namespace, binding = self.binding, queue, %job, "task taken");
        self.tell("INFO", msg, case).await;
    }

    /// What the cluster said of a run that could not speak for itself, in the task's own log.
    pub(super) async fn tell_evidence(&self, evidence: &[String], case: &Case) {
        if !evidence.is_empty() {
            self.tell("ERROR", evidence.join("\n") + "\n", case).await;
        }
    }

    /// That its Job was refused, once for each reason; the task stays where it is.
    pub(super) async fn tell_refused(&self, words: &str, case: &Case) {
        let msg = format!("the task stays in its queue, the API server refuses its Job: {words}\n");
        if self.told.is_new(&case.task, &msg) {
            self.tell("ERROR", msg.clone(), case).await;
            self.told.note(&case.task, msg);
        }
    }

    /// Nothing rests on a line of the log: one that is lost is lost.
    async fn tell(&self, level: &'static str, msg: String, case: &Case) {
        let line = Event::Log {
            task: case.task.clone(),
            worker: self.identity.worker.clone(),
            level,
            msg,
            timestamp: Timestamp::now().as_millisecond(),
        };
        if let Err(error) = self.client.add_events(&[line]).await {
            tracing::debug!(task = %case.task, %error, "line was not added to the task's log");
        }
    }
}
