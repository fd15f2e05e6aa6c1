//! What people are told about a task: why its pod waits, and that it was taken.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{Case, Fault, Hands, Next, in_time};
use crate::api::Event;
use crate::claim::{TaskFact, Why};
use crate::controller::row::JobRow;
use crate::controller::{fault, verdict};
use crate::pod::label;
use crate::render::JobName;
use crate::task::{Attempt, QueueId, Status, TaskId};

/// A pod that starts as fast as usual is not worth a word.
const WORTH_A_WORD_S: i64 = 2;
/// Lines of Kubernetes that one waiting task's log gets; a scheduler may count nodes anew each time.
const LINES: usize = 20;

/// The status messages and lines that were written, so that each is written once.
#[derive(Debug, Default)]
pub(in crate::controller) struct Told {
    messages: Mutex<HashMap<TaskId, String>>,
    /// Words of Kubernetes in a task's log.
    lines: Mutex<HashMap<TaskId, HashSet<String>>>,
    /// Jobs whose pod's log was read to its end.
    tails: Mutex<HashSet<String>>,
}

/// Lines that wait to be sent together.
#[derive(Debug, Default)]
pub(in crate::controller) struct Lines {
    waiting: Mutex<Vec<Event>>,
}

impl Lines {
    fn add(&self, line: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(line);
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Told {
    /// Forgets every task but these.
    pub fn keep(&self, tasks: &HashSet<TaskId>) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|task, _| tasks.contains(task));
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|task, _| tasks.contains(task));
    }

    /// Whether this Job's pod was not asked for the end of its log before.
    pub fn is_new_tail(&self, job_uid: &str) -> bool {
        const MOST: usize = 10_000;
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        if tails.len() >= MOST {
            tails.clear();
        }
        tails.insert(job_uid.to_owned())
    }

    /// Those of these lines that the task's log did not get yet, as far as it may have more.
    fn new_lines(&self, task: &TaskId, lines: impl Iterator<Item = String>) -> Vec<String> {
        let mut known = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(task.clone()).or_default();
        lines
            .filter(|line| known.len() < LINES && known.insert(line.clone()))
            .collect()
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
        let created = job.created.unwrap_or_else(Timestamp::now);
        if Timestamp::now().duration_since(created).as_secs() < WORTH_A_WORD_S {
            return Ok(Next::Done);
        }
        self.tell_events(job, case).await;
        let of_kueue = self.lore.kueue.get(&*job.uid).cloned();
        let Some(message) = of_kueue.or_else(|| {
            verdict::waiting(job, &case.objects.pods, self.lore).map(|waiting| waiting.message())
        }) else {
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
        fault::point!("explain/written");
        self.told.note(&case.task, message);
        Ok(Next::Done)
    }

    /// What Kubernetes warns of while the pod waits, in the task's own log.
    async fn tell_events(&self, job: &JobRow, case: &Case) {
        let events = self.lore.events.get(&*job.uid).into_iter().flatten();
        let lines = events
            .filter(|event| event.warning)
            .map(|event| format!("Kubernetes: {}: {}\n", event.reason, event.message));
        let new = self.told.new_lines(&case.task, lines);
        if !new.is_empty() {
            self.tell("WARNING", new.concat(), case).await;
        }
    }

    /// One line in the task's own log. What it asked for and does not get, the pod tells.
    pub(super) fn tell_taken(&self, attempt: Attempt, case: &Case) {
        let job = JobName::of(&case.task, attempt);
        let queue_id: Option<QueueId> =
            Self::known_job(case, attempt).and_then(|job| job.label(label::QUEUE)?.parse().ok());
        let queue = queue_id
            .as_ref()
            .map_or("(unknown)", |id| self.queue_name(id));
        let msg = format!(
            "task taken from queue {queue} by binding {}/{}, Job {job}\n",
            self.namespace, self.binding
        );
        tracing::info!(task = %case.task, namespace = self.namespace, binding = self.binding, queue, %job, "task taken");
        self.lines.add(self.line("INFO", msg, case));
    }

    /// Sends the lines that were kept for the end of the pass, in one request for all tasks. Nothing rests on them.
    pub async fn send_lines(&self) {
        let lines = self.lines.take();
        if !lines.is_empty() {
            self.send(&lines).await;
        }
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
        self.send(&[self.line(level, msg, case)]).await;
    }

    async fn send(&self, lines: &[Event]) {
        if let Err(error) = self.client.add_events(lines).await {
            tracing::debug!(binding = self.binding, %error, "lines were not added to the logs of tasks");
        }
        fault::point!("step/told");
    }

    fn line(&self, level: &'static str, msg: String, case: &Case) -> Event {
        Event::Log {
            task: case.task.clone(),
            worker: self.identity.worker.clone(),
            level,
            msg,
            timestamp: Timestamp::now().as_millisecond(),
        }
    }
}
