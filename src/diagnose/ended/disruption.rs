//! A pod that was taken away from its task: by whom, as far as Kubernetes says.

use k8s_openapi::api::core::v1::Pod;

use super::Diagnosis;
use crate::diagnose::facts::{condition, node};
use crate::diagnose::{Category, one_line, quoting};

/// Kubernetes took the pod away, and says why.
pub(super) fn disruption(pod: &Pod) -> Option<Diagnosis> {
    let node = node(pod)
        .map(|node| format!(" on node {node:?}"))
        .unwrap_or_default();
    let status = pod.status.as_ref()?;
    if let Some(target) =
        condition(pod, "DisruptionTarget").filter(|condition| condition.status == "True")
    {
        let message = one_line(target.message.as_deref().unwrap_or_default());
        let (category, what) = match target.reason.as_deref() {
            Some("PreemptionByScheduler") => (
                Category::Preempted,
                "the pod was preempted by one of higher priority",
            ),
            Some("EvictionByEvictionAPI") => {
                (Category::Evicted, "the pod was evicted, as by a drain")
            }
            Some("DeletionByTaintManager") => (
                Category::NodeLost,
                "the pod was removed from a node that is tainted or unreachable",
            ),
            Some("DeletionByPodGC") => (Category::NodeLost, "the pod's node is gone"),
            Some("TerminationByKubelet") if status.reason.as_deref() == Some("Evicted") => (
                Category::Evicted,
                "the node evicted the pod because it ran out of a resource",
            ),
            Some("TerminationByKubelet") if status.reason.as_deref() == Some("Preempting") => (
                Category::Preempted,
                "the pod was preempted by one that the node needs more",
            ),
            Some("TerminationByKubelet") => (
                Category::NodeShutdown,
                "the node ended the pod, as when it shuts down",
            ),
            _ => (Category::Evicted, "the pod was taken away"),
        };
        return Some(Diagnosis::interrupted(
            category,
            quoting(format!("{what}{node}"), &message),
        ));
    }
    let message = one_line(status.message.as_deref().unwrap_or_default());
    let (category, what) = match status.reason.as_deref()? {
        "Evicted" => (
            Category::Evicted,
            "the node evicted the pod because it ran out of a resource",
        ),
        "Preempting" => (
            Category::Preempted,
            "the pod was preempted by one that the node needs more",
        ),
        "NodeLost" => (Category::NodeLost, "the pod's node is lost"),
        "Terminated" | "Shutdown" | "NodeShutdown" => {
            (Category::NodeShutdown, "the node was shut down")
        }
        _ => return None,
    };
    Some(Diagnosis::interrupted(
        category,
        quoting(format!("{what}{node}"), &message),
    ))
}

/// The node that the pod was given to did not take it.
pub(super) fn refused_by_node(pod: &Pod) -> Option<Diagnosis> {
    let status = pod.status.as_ref()?;
    let reason = status.reason.as_deref()?;
    let refusal = reason.starts_with("OutOf")
        || [
            "UnexpectedAdmissionError",
            "NodeAffinity",
            "NodePorts",
            "Topology",
            "TopologyAffinityError",
        ]
        .contains(&reason);
    let message = one_line(status.message.as_deref().unwrap_or_default());
    refusal.then(|| {
        Diagnosis::interrupted(
            Category::NodeRefused,
            quoting(format!("the node refused the pod ({reason})"), &message),
        )
    })
}

/// The pod was deleted, and no controller of Kubernetes says that it was the one.
pub(super) fn deleted(pod: &Pod) -> Option<Diagnosis> {
    pod.metadata.deletion_timestamp.as_ref()?;
    Some(Diagnosis::interrupted(
        Category::PodDeleted,
        "the pod was deleted while the task ran",
    ))
}
