//! What a diagnosis rests on, in the words of Kubernetes.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use crate::diagnose::facts::{condition, node, task_container, task_end};
use crate::diagnose::{one_line, quoting};

/// The words of Kubernetes, as they are.
pub(super) fn evidence(job: &Job, pod: Option<&Pod>) -> Vec<String> {
    let mut lines = Vec::new();
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    for condition in conditions
        .iter()
        .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
    {
        let reason = condition.reason.as_deref().unwrap_or("no reason");
        let message = condition.message.as_deref().unwrap_or_default();
        lines.push(one_line(&quoting(format!("Job failed: {reason}"), message)));
    }
    let Some(pod) = pod else {
        return lines;
    };
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("unknown");
    let node = node(pod).unwrap_or("none");
    lines.push(format!(
        "pod {}: phase {phase}, node {node}",
        pod.metadata.name.as_deref().unwrap_or("?")
    ));
    if let Some(reason) = status.and_then(|status| status.reason.as_deref()) {
        let message = status
            .and_then(|status| status.message.as_deref())
            .unwrap_or_default();
        lines.push(one_line(&quoting(format!("pod reason: {reason}"), message)));
    }
    if let Some(target) =
        condition(pod, "DisruptionTarget").filter(|condition| condition.status == "True")
    {
        let (reason, message) = (
            target.reason.as_deref().unwrap_or("?"),
            target.message.as_deref().unwrap_or_default(),
        );
        lines.push(one_line(&quoting(
            format!("DisruptionTarget: {reason}"),
            message,
        )));
    }
    if let Some(end) = task_end(pod) {
        let reason = end.reason.as_deref().unwrap_or("no reason");
        lines.push(format!(
            "container {}: {reason}, exit code {}",
            task_container(pod),
            end.exit_code
        ));
    }
    lines
}
