//! Getting at what a pod says of itself.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition,
};

use crate::pod;

/// Name of the container that runs the experiment: `render` leaves it in an annotation.
pub(super) fn task_container(pod: &Pod) -> &str {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get("kubectl.kubernetes.io/default-container"))
        .map_or(pod::TASK, String::as_str)
}

/// Status of the container that runs the experiment.
pub(super) fn task_status(pod: &Pod) -> Option<&ContainerStatus> {
    let name = task_container(pod);
    containers(pod).iter().find(|status| status.name == name)
}

/// How the task's container ended.
pub(super) fn task_end(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let status = task_status(pod)?;
    let ended = |state: &'_ Option<ContainerState>| {
        state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    };
    let state = if ended(&status.state) {
        &status.state
    } else {
        &status.last_state
    };
    state.as_ref()?.terminated.as_ref()
}

/// Statuses of containers that are no init containers.
pub(super) fn containers(pod: &Pod) -> &[ContainerStatus] {
    pod.status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default()
}

/// Statuses of init containers, in their order.
pub(super) fn init_containers(pod: &Pod) -> &[ContainerStatus] {
    pod.status
        .as_ref()
        .and_then(|status| status.init_container_statuses.as_deref())
        .unwrap_or_default()
}

/// A condition of the pod.
pub(super) fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Node that the pod is on, for people.
pub(super) fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Memory limit of a container as it was written.
pub(super) fn memory_limit<'p>(pod: &'p Pod, container: &str) -> Option<&'p str> {
    let limits = spec_of(pod, container)?
        .resources
        .as_ref()?
        .limits
        .as_ref()?;
    limits.get("memory").map(|quantity| quantity.0.as_str())
}

/// Image of a container as it was written.
pub(super) fn image<'p>(pod: &'p Pod, container: &str) -> Option<&'p str> {
    spec_of(pod, container)?.image.as_deref()
}

fn spec_of<'p>(pod: &'p Pod, container: &str) -> Option<&'p Container> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    init.iter()
        .chain(&spec.containers)
        .find(|spec| spec.name == container)
}
