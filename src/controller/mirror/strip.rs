//! What of Jobs and pods is kept in memory: there may be ten thousand of them.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controller::kueue::QUEUE_LABEL;
use crate::pod::annotation;

/// What of an object is kept.
pub(in crate::controller) trait Strip {
    fn strip(&mut self);
}

impl Strip for Job {
    /// Keeps of the spec what it says of the Job itself; the template's requests are an annotation.
    fn strip(&mut self) {
        const NOTES: [&str; 6] = [
            annotation::RETURNED,
            annotation::TURN,
            annotation::REQUEUES,
            annotation::FAILURES,
            annotation::NODE,
            annotation::REQUESTS,
        ];
        strip_metadata(&mut self.metadata, &NOTES);
        if let Some(status) = &mut self.status {
            status.uncounted_terminated_pods = None;
        }
        self.spec = self.spec.take().map(|spec| JobSpec {
            suspend: spec.suspend,
            active_deadline_seconds: spec.active_deadline_seconds,
            ..JobSpec::default()
        });
    }
}

impl Strip for Pod {
    /// Keeps of the spec where the pod runs, and what a diagnosis speaks of: images and limits. One that simply runs has
    /// nothing to diagnose; the event that changes this brings the whole pod again.
    fn strip(&mut self) {
        let runs = simply_runs(self);
        let named = |container: Container| Container {
            name: container.name,
            image: container.image,
            resources: container.resources,
            ..Container::default()
        };
        strip_metadata(
            &mut self.metadata,
            &["kubectl.kubernetes.io/default-container"],
        );
        if let Some(status) = &mut self.status {
            strip_status(status);
        }
        let named = |all: Vec<Container>| -> Vec<Container> {
            let kept = all.into_iter().filter(|_| !runs);
            kept.map(named).collect()
        };
        self.spec = self.spec.take().map(|spec| PodSpec {
            node_name: spec.node_name,
            init_containers: spec.init_containers.map(&named),
            containers: named(spec.containers),
            ..PodSpec::default()
        });
    }
}

/// Whether every container of the pod that is no init container runs, for the first time, and nobody has asked for its
/// end.
fn simply_runs(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    status.phase.as_deref() == Some("Running")
        && pod.metadata.deletion_timestamp.is_none()
        && !containers.is_empty()
        && containers.iter().all(|container| {
            container.restart_count == 0
                && container
                    .state
                    .as_ref()
                    .is_some_and(|state| state.running.is_some())
        })
}

/// There may be ten thousand of them: what nobody reads is not kept.
fn strip_metadata(metadata: &mut ObjectMeta, annotations: &[&str]) {
    metadata.managed_fields = None;
    metadata.finalizers = None;
    metadata.generate_name = None;
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|name, _| name.starts_with("trainyard.dev/") || name == QUEUE_LABEL);
    }
    if let Some(notes) = &mut metadata.annotations {
        notes.retain(|name, _| annotations.contains(&name.as_str()));
    }
}

fn strip_status(status: &mut PodStatus) {
    status.host_ip = None;
    status.host_ips = None;
    status.pod_ip = None;
    status.pod_ips = None;
    // That all is well needs no words.
    let well = [
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodReadyToStartContainers",
    ];
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|known| known.status != "True" || !well.contains(&known.type_.as_str()));
    }
    let inits = status.init_container_statuses.iter_mut().flatten();
    for container in inits.chain(status.container_statuses.iter_mut().flatten()) {
        container.image = String::new();
        container.image_id = String::new();
        container.container_id = None;
        container.allocated_resources = None;
        container.resources = None;
        container.volume_mounts = None;
    }
}
