//! What people are told about a task: why its pod waits, and that it was taken.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::{Case, Fault, Hands, Next, in_time};
use crate::api::Event;
use crate::claim::{TaskFact, Why};
use crate::controller::row::JobRow;
use crate::controller::{fault, verdict};
use crate::diagnose;
use crate::pod::label;
use crate::render::JobName;
use crate::task::{Attempt, QueueId, Status, TaskId};

/// A pod that starts as fast as usual is not worth a word.
const WORTH_A_WORD_S: i64 = 2;
/// Lines of Kubernetes that one waiting task's log gets; a scheduler may count nodes anew each time.
const LINES: usize = 20;
/// The same with what is told before the task is ended.
const LINES_AT_THE_END: usize = 70;

/// The status messages and lines that were written, so that each is written once.
#[derive(Debug, Default)]
pub(in crate::controller) struct Told {
    messages: Mutex<HashMap<TaskId, String>>,
    /// Words of Kubernetes in a task's log.
    lines: Mutex<HashMap<TaskId, HashSet<String>>>,
    /// Jobs whose pod's log was read to its end.
    tails: Jobs,
    /// Jobs whose last Events were waited for.
    ends: Jobs,
}

/// UIDs of Jobs that something was done for once.
#[derive(Debug, Default)]
struct Jobs(Mutex<HashSet<String>>);

impl Jobs {
    /// Notes a Job; whether it was not noted before.
    fn is_new(&self, job_uid: &str) -> bool {
        const MOST: usize = 10_000;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(job_uid.to_owned())
    }
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
    /// Forgets every task but those that are known.
    pub fn keep(&self, is_known: impl Fn(&TaskId) -> bool) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|task, _| is_known(task));
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|task, _| is_known(task));
    }

    /// Whether this Job's pod was not asked for the end of its log before.
    pub fn is_new_tail(&self, job_uid: &str) -> bool {
        self.tails.is_new(job_uid)
    }

    /// Whether the last Events of this Job's pod were not waited for before.
    pub fn is_new_end(&self, job_uid: &str) -> bool {
        self.ends.is_new(job_uid)
    }

    /// The warnings among these Events that the task's log did not get yet, as far as it may have more.
    fn new_warnings<'e>(
        &self,
        task: &TaskId,
        events: impl IntoIterator<Item = &'e diagnose::Event>,
        most: usize,
    ) -> Vec<String> {
        let mut known = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(task.clone()).or_default();
        events
            .into_iter()
            .filter(|event| event.warning)
            .map(|event| format!("Kubernetes: {}: {}\n", event.reason, event.message))
            .filter(|line| known.len() < most && known.insert(line.clone()))
            .collect()
    }

    /// These lines did not come to the task's log.
    fn forget(&self, task: &TaskId, lines: &[String]) {
        let mut known = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(task) {
            known.retain(|line| !lines.contains(line));
        }
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
        let Some(waiting) = verdict::waiting(job, &case.objects.pods, self.lore) else {
            return Ok(Next::Done);
        };
        let message = waiting.message();
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
        let new = self.told.new_warnings(&case.task, events, LINES);
        if !new.is_empty() && !self.tell("WARNING", new.concat(), case).await {
            self.told.forget(&case.task, &new);
        }
    }

    /// What Kubernetes warned of and the log lacks, just before the task is ended. What the server has not taken by then
    /// comes with the lines of the pass, after that end: better late, or twice, than not at all.
    pub(super) async fn tell_warnings_by(
        &self,
        until: Instant,
        events: &[diagnose::Event],
        case: &Case,
    ) {
        let new = self.told.new_warnings(&case.task, events, LINES_AT_THE_END);
        if new.is_empty() {
            return;
        }
        let told = timeout_at(until, self.tell("WARNING", new.concat(), case)).await;
        if !matches!(told, Ok(true)) {
            self.lines.add(self.line("WARNING", new.concat(), case));
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

    /// Nothing rests on a line of the log: one that is lost is lost. Whether the server has it.
    async fn tell(&self, level: &'static str, msg: String, case: &Case) -> bool {
        self.send(&[self.line(level, msg, case)]).await
    }

    async fn send(&self, lines: &[Event]) -> bool {
        let sent = self.client.add_events(lines).await;
        fault::point!("step/told");
        if let Err(error) = &sent {
            tracing::debug!(binding = self.binding, %error, "lines were not added to the logs of tasks");
        }
        sent.is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_told_once_unless_the_server_did_not_take_it() {
        let task: TaskId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let event = |reason: &str, warning| diagnose::Event {
            reason: reason.into(),
            message: "m".into(),
            warning,
            container: None,
        };
        let told = Told::default();
        let events = [event("Failed", true), event("Pulling", false)];
        let new = |most| told.new_warnings(&task, &events, most);
        assert_eq!(new(0), [""; 0], "its log is full");
        let first = new(1);
        assert_eq!(first, ["Kubernetes: Failed: m\n"]);
        assert_eq!(new(2), [""; 0]);
        told.forget(&task, &first);
        assert_eq!(new(1), first);
    }
}
