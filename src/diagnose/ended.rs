//! How a Job ended, whose fault it was, and what to say about it.

mod disruption;
mod evidence;
mod storage;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use self::disruption::{deleted, disruption, refused_by_node};
use self::evidence::evidence;
use self::storage::over_its_limit;
use super::facts::{init_containers, memory_limit, node, task_container, task_end};
use super::{Category, one_line, quoting, with_remedy};
use crate::pod::{self, Termination};

/// Whose fault an end was; only [`Fault::Interruption`] is requeued as `onInterruption` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The task came to its own end, well or badly, or its wishes could not be met.
    Task,
    /// The cluster or trainyard took its pod away from it.
    Interruption,
}

/// What the task should be set to if its status was not written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Failed,
    Stopped,
}

/// How a Job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    pub category: Category,
    pub fault: Fault,
    pub outcome: Outcome,
    /// One sentence for the task's status message.
    pub sentence: String,
    /// The words of Kubernetes and the last lines of the log.
    pub evidence: Vec<String>,
    pub remedy: Option<String>,
    /// Exit code of the task's container, or of the user's process where the executor has told it.
    pub exit_code: Option<i32>,
    /// Whether the executor has written the task's status itself.
    pub reported: bool,
    /// Last lines of the log, if the executor could leave them.
    pub last_lines: Vec<String>,
    /// When the first line of the task's own output was seen, if the executor has told it.
    pub first_line: Option<Timestamp>,
}

impl Diagnosis {
    fn new(
        category: Category,
        fault: Fault,
        outcome: Outcome,
        sentence: impl Into<String>,
    ) -> Self {
        Self {
            category,
            fault,
            outcome,
            sentence: sentence.into(),
            evidence: Vec::new(),
            remedy: None,
            exit_code: None,
            reported: false,
            last_lines: Vec::new(),
            first_line: None,
        }
    }

    fn failed(category: Category, sentence: impl Into<String>) -> Self {
        Self::new(category, Fault::Task, Outcome::Failed, sentence)
    }

    fn interrupted(category: Category, sentence: impl Into<String>) -> Self {
        Self::new(category, Fault::Interruption, Outcome::Failed, sentence)
    }

    fn remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }

    /// The sentence and, where there is one, the remedy: what people read in the task's status message.
    pub fn message(&self) -> String {
        with_remedy(&self.sentence, self.remedy.as_deref())
    }
}

/// How a Job ended, from the Job and the last of its pods.
pub fn ended(job: &Job, pod: Option<&Pod>) -> Diagnosis {
    let termination = pod.and_then(termination);
    let end = pod.and_then(task_end);
    let mut diagnosis = match &termination {
        Some(said) => told(job, pod, said, end),
        None => untold(job, pod, end),
    };
    diagnosis.evidence = evidence(job, pod);
    if let Some(said) = termination {
        diagnosis.reported = said.reported;
        diagnosis.exit_code = said
            .exit_code
            .or_else(|| said.signal.map(|signal| 128 + signal));
        diagnosis.last_lines = said.last_lines;
        diagnosis.first_line = said.first_line.and_then(|text| text.parse().ok());
    }
    diagnosis.exit_code = diagnosis.exit_code.or(end.map(|end| end.exit_code));
    diagnosis
}

/// What the executor left behind; nothing if its container ended without it.
fn termination(pod: &Pod) -> Option<Termination> {
    let message = task_end(pod)?.message.as_deref()?;
    let said: Termination = serde_json::from_str(message.trim()).ok()?;
    (said.version >= 1).then_some(said)
}

/// The executor has told how it ended.
fn told(
    job: &Job,
    pod: Option<&Pod>,
    said: &Termination,
    end: Option<&ContainerStateTerminated>,
) -> Diagnosis {
    let sentence = one_line(&said.message);
    // The signal was the image's own stop signal.
    if said.signalled
        && let Some(taken) = taken_away(job, pod)
    {
        return taken;
    }
    match said.outcome.as_str() {
        "completed" => Diagnosis::new(
            Category::Completed,
            Fault::Task,
            Outcome::Completed,
            sentence,
        ),
        "stopped" => Diagnosis::new(Category::Aborted, Fault::Task, Outcome::Stopped, sentence),
        "failed" => {
            // What the task says already is not said otherwise; else Kubernetes may know more.
            let killed = end.and_then(|end| end.reason.as_deref()) == Some("OOMKilled");
            let category = if killed && !said.reported {
                Category::OutOfMemory
            } else {
                said.failure()
            };
            Diagnosis::failed(category, sentence)
        }
        "lost-race" => Diagnosis::interrupted(Category::LostRace, sentence),
        "interrupted" => taken_away(job, pod)
            .unwrap_or_else(|| Diagnosis::interrupted(Category::TakenOver, sentence)),
        _ => Diagnosis::interrupted(Category::Executor, sentence),
    }
}

/// The pod was told to end, and by whom.
fn taken_away(job: &Job, pod: Option<&Pod>) -> Option<Diagnosis> {
    deadline(job)
        .or_else(|| pod.and_then(over_its_limit))
        .or_else(|| pod.and_then(disruption))
        .or_else(|| pod.and_then(deleted))
}

/// Nothing was told: what can be seen from outside.
fn untold(job: &Job, pod: Option<&Pod>, end: Option<&ContainerStateTerminated>) -> Diagnosis {
    if let Some(diagnosis) = deadline(job) {
        return diagnosis;
    }
    let Some(pod) = pod else {
        return if complete(job) {
            Diagnosis::new(
                Category::Completed,
                Fault::Task,
                Outcome::Completed,
                "the Job is complete; its pod is gone",
            )
        } else {
            Diagnosis::interrupted(
                Category::PodDeleted,
                "the pod is gone: it was deleted, or its node was",
            )
        };
    };
    over_its_limit(pod)
        .or_else(|| disruption(pod))
        .or_else(|| refused_by_node(pod))
        .or_else(|| end.map(|end| container(pod, end)))
        .or_else(|| init_container(pod))
        .or_else(|| deleted(pod))
        .unwrap_or_else(|| {
            Diagnosis::interrupted(Category::Unknown, "the pod ended without saying how")
        })
}

/// The Job was ended by its deadline.
fn deadline(job: &Job) -> Option<Diagnosis> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let failed = conditions
        .iter()
        .find(|condition| condition.type_ == "Failed" && condition.status == "True")?;
    if failed.reason.as_deref() != Some("DeadlineExceeded") {
        return None;
    }
    let limit = job
        .spec
        .as_ref()
        .and_then(|spec| spec.active_deadline_seconds);
    let limit = limit
        .map(|seconds| format!(" of {seconds} s"))
        .unwrap_or_default();
    let sentence = format!("the task ran for longer than its limit{limit}");
    Some(
        Diagnosis::failed(Category::Deadline, sentence)
            .remedy("the binding's job.activeDeadlineSeconds sets it"),
    )
}

fn complete(job: &Job) -> bool {
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Complete" && condition.status == "True")
}

/// The task's container ended, and process 1 could not tell how.
fn container(pod: &Pod, end: &ContainerStateTerminated) -> Diagnosis {
    let name = task_container(pod);
    let message = one_line(end.message.as_deref().unwrap_or_default());
    let on = node(pod)
        .map(|node| format!(" on node {node:?}"))
        .unwrap_or_default();
    match (end.reason.as_deref(), end.exit_code) {
        (Some("OOMKilled"), _) => out_of_memory(pod, name),
        (Some("ContainerStatusUnknown"), _) => Diagnosis::interrupted(
            Category::NodeLost,
            quoting(
                format!("the container was lost{on}, as after a restart of the node"),
                &message,
            ),
        ),
        (Some("StartError" | "ContainerCannotRun"), _) => {
            let sentence = quoting(format!("container {name:?} could not be started"), &message);
            let diagnosis = Diagnosis::failed(Category::NotStarted, sentence);
            if message.contains("exec format error") {
                diagnosis.remedy("the image is made for another processor than the node's")
            } else {
                diagnosis
            }
        }
        (_, 0) => Diagnosis::new(
            Category::Completed,
            Fault::Task,
            Outcome::Completed,
            "the container ended with exit code 0",
        ),
        (_, 137) => killed(pod, &on),
        // Where it is not process 1 of its container, an image's own stop signal ends it.
        (_, code) if (129..=192).contains(&code) => deleted(pod).unwrap_or_else(|| {
            let signal = code - 128;
            let sentence = format!("the container's first process was ended by signal {signal}");
            Diagnosis::failed(Category::Signal, sentence)
        }),
        (_, code) => Diagnosis::failed(
            Category::ExitCode,
            format!("the container ended with exit code {code}"),
        ),
    }
}

fn out_of_memory(pod: &Pod, container: &str) -> Diagnosis {
    let limit = memory_limit(pod, container).map(|limit| format!(" its limit of {limit}"));
    let limit = limit.unwrap_or_else(|| " the node's memory; it has no limit of its own".into());
    let node = node(pod)
        .map(|node| format!(" on node {node:?}"))
        .unwrap_or_default();
    Diagnosis::failed(
        Category::OutOfMemory,
        format!(
            "container {container:?} was killed because it used more than{limit}{node} (OOMKilled)"
        ),
    )
    .remedy("raise resources.limits.memory in the template, or use less memory")
}

/// SIGKILL to all of the container: a pod that was deleted and did not end in time, or somebody on the node.
fn killed(pod: &Pod, on: &str) -> Diagnosis {
    if let Some(diagnosis) = deleted(pod) {
        return diagnosis;
    }
    Diagnosis::failed(
        Category::Killed,
        format!(
            "all processes of the task's container were killed{on} (SIGKILL, exit code 137), not by Kubernetes and not for its memory limit"
        ),
    )
}

/// An init container failed, so that the task's container never started.
fn init_container(pod: &Pod) -> Option<Diagnosis> {
    for status in init_containers(pod) {
        let end = status
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let Some(end) = end.filter(|end| end.exit_code != 0) else {
            continue;
        };
        let name = &status.name;
        let ours = [pod::PREPARE, pod::UPLINK].contains(&name.as_str());
        let message = one_line(end.message.as_deref().unwrap_or_default());
        if end.reason.as_deref() == Some("OOMKilled") {
            let mut diagnosis = out_of_memory(pod, name);
            if ours {
                diagnosis.remedy = Some(
                    "the repository may be too large to be checked out within this limit".into(),
                );
            }
            return Some(diagnosis);
        }
        let sentence = format!(
            "init container {name:?} failed with exit code {}",
            end.exit_code
        );
        let sentence = quoting(sentence, &message);
        return Some(if ours {
            Diagnosis::interrupted(Category::Executor, sentence)
        } else {
            Diagnosis::failed(Category::NotPrepared, sentence)
        });
    }
    None
}

#[cfg(test)]
mod tests;
