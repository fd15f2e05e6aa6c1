//! Why a Job ended or waits, as the claim, the task and people are told it.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;

use super::observe::{Lore, owned_by};
use crate::claim::Cause;
use crate::pod::{self, Termination};

/// The status that an ended run leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Failed,
    Stopped,
}

/// How a run ended, in words for the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub end: End,
    pub reason: String,
    pub message: String,
}

/// Whose fault the end was.
pub(super) fn cause(job: &Job, pods: &[Arc<Pod>]) -> Cause {
    let Some(end) = terminated(job, pods) else {
        return Cause::Interruption;
    };
    match termination(end) {
        Some(message) if matches!(message.outcome.as_str(), "lost-race" | "interrupted") => {
            Cause::Interruption
        }
        _ => Cause::Task,
    }
}

/// How the run of an ended Job ended.
pub(super) fn ended(job: &Job, pods: &[Arc<Pod>]) -> Ended {
    let failed = |message: String| Ended {
        end: End::Failed,
        reason: "trainyard: pod ended".into(),
        message,
    };
    let Some(end) = terminated(job, pods) else {
        return failed(
            pod_words(job, pods)
                .unwrap_or_else(|| "its pod was lost before it could report".into()),
        );
    };
    match termination(end) {
        Some(said) if said.outcome == "completed" => Ended {
            end: End::Completed,
            reason: "trainyard: completed".into(),
            message: said.message,
        },
        Some(said) if said.outcome == "stopped" => Ended {
            end: End::Stopped,
            reason: "trainyard: stopped".into(),
            message: said.message,
        },
        Some(said) => failed(said.message),
        None => failed(match end.signal {
            Some(signal) => format!("its process 1 was killed by signal {signal}"),
            None => format!(
                "its process 1 ended with exit code {} without a word",
                end.exit_code
            ),
        }),
    }
}

/// A run whose Job is gone.
pub(super) fn lost() -> Ended {
    Ended {
        end: End::Failed,
        reason: "trainyard: lost".into(),
        message: "its Job was deleted while it ran, and its pod could not report".into(),
    }
}

/// Why a released Job's task container has not started.
pub(super) fn waiting(job: &Job, pods: &[Arc<Pod>], lore: &Lore) -> String {
    let uid = job.uid().unwrap_or_default();
    if let Some(words) = lore.refused.get(&uid) {
        return format!("the cluster refuses its pod: {words}");
    }
    pod_words(job, pods).unwrap_or_else(|| "waits for its pod".into())
}

fn pod_words(job: &Job, pods: &[Arc<Pod>]) -> Option<String> {
    let uid = job.uid().unwrap_or_default();
    let pod = pods.iter().find(|pod| owned_by(pod, &uid))?;
    let status = pod.status.as_ref()?;
    let waiting = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .find_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?)));
    if let Some((container, state)) = waiting {
        let words = [state.reason.as_deref(), state.message.as_deref()];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        return Some(format!(
            "container {}: {}",
            container.name,
            words.join(": ")
        ));
    }
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        return Some(format!(
            "not scheduled: {}",
            condition.message.as_deref().unwrap_or("no reason given")
        ));
    }
    status.message.clone().or_else(|| status.reason.clone())
}

fn terminated<'a>(job: &Job, pods: &'a [Arc<Pod>]) -> Option<&'a ContainerStateTerminated> {
    let uid = job.uid().unwrap_or_default();
    let pod = pods.iter().find(|pod| owned_by(pod, &uid))?;
    main_status(pod)?.state.as_ref()?.terminated.as_ref()
}

fn main_status(pod: &Pod) -> Option<&ContainerStatus> {
    let main = pod
        .annotations()
        .get("kubectl.kubernetes.io/default-container")
        .map_or(pod::TASK, String::as_str);
    pod.status
        .as_ref()?
        .container_statuses
        .iter()
        .flatten()
        .find(|container| container.name == main)
}

fn termination(end: &ContainerStateTerminated) -> Option<Termination> {
    serde_json::from_str(end.message.as_deref()?).ok()
}
