//! What is kept of a pod.

use std::borrow::Cow;
use std::ops::Deref;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStatus, Pod, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::lean::{Lean, PodObject};
use super::{Head, Row};
use crate::pod::{self, label};

/// The annotation with the name of the container that runs the experiment.
const MAIN: &str = "kubectl.kubernetes.io/default-container";

/// A pod. Of one that simply runs, as nearly all do, there is nothing to diagnose; the event that changes this brings
/// the whole of it again.
#[derive(Debug, Clone)]
pub(in crate::controller) struct PodRow {
    head: Head,
    attempt: Option<Box<str>>,
    node: Option<Box<str>>,
    /// Name of the container that runs the experiment, where it is not the usual one.
    main: Option<Box<str>>,
    started: bool,
    times: Times,
    /// What a diagnosis reads, unless the pod simply runs.
    whole: Option<Box<Pod>>,
}

/// When the pod came as far as this.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::controller) struct Times {
    pub scheduled: Option<Timestamp>,
    pub prepared: Option<Timestamp>,
    pub began: Option<Timestamp>,
}

impl Row for PodRow {
    type Object = PodObject;

    fn of(Lean(pod): PodObject) -> Self {
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).map(String::as_str);
        let main = main_container(&pod);
        Self {
            head: Head::of(&pod.metadata),
            attempt: label(label::ATTEMPT).map(Into::into),
            node: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_deref())
                .map(Into::into),
            main: (main != pod::TASK).then(|| main.into()),
            started: task_container_started(&pod),
            times: Times::of(&pod),
            whole: (!simply_runs(&pod)).then(|| Box::new(stripped(pod))),
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

impl Deref for PodRow {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl PodRow {
    pub fn attempt(&self) -> Option<&str> {
        self.attempt.as_deref()
    }

    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Name of the container that runs the experiment.
    pub fn main(&self) -> &str {
        self.main.as_deref().unwrap_or(pod::TASK)
    }

    /// Whether the container that runs the experiment runs or has run; init containers and the sidecar do not count.
    pub fn has_started(&self) -> bool {
        self.started
    }

    pub fn times(&self) -> Times {
        self.times
    }

    pub fn phase(&self) -> Option<&str> {
        match &self.whole {
            None => Some("Running"),
            Some(pod) => pod.status.as_ref()?.phase.as_deref(),
        }
    }

    /// The pod with what a diagnosis reads of it.
    pub fn object(&self) -> Cow<'_, Pod> {
        match &self.whole {
            Some(pod) => Cow::Borrowed(pod),
            None => Cow::Owned(self.running()),
        }
    }

    fn running(&self) -> Pod {
        let text = |text: &str| Some(text.to_owned());
        let owner = |uid: &str| OwnerReference {
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        let state = ContainerState {
            running: Some(ContainerStateRunning {
                started_at: self.times.began.map(Time),
            }),
            ..ContainerState::default()
        };
        let container = ContainerStatus {
            name: self.main().to_owned(),
            ready: true,
            state: Some(state),
            ..ContainerStatus::default()
        };
        Pod {
            metadata: ObjectMeta {
                name: text(&self.head.name),
                uid: text(&self.head.uid),
                annotations: Some([(MAIN.to_owned(), self.main().to_owned())].into()),
                creation_timestamp: self.head.created.map(Time),
                owner_references: Some(self.head.owners.iter().map(|uid| owner(uid)).collect()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: self.node().map(str::to_owned),
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                phase: text("Running"),
                container_statuses: Some(vec![container]),
                ..PodStatus::default()
            }),
        }
    }
}

impl Times {
    fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else {
            return Self::default();
        };
        let scheduled = status
            .conditions
            .iter()
            .flatten()
            .find(|known| known.type_ == "PodScheduled" && known.status == "True")
            .and_then(|scheduled| scheduled.last_transition_time.as_ref());
        let prepared = status
            .init_container_statuses
            .iter()
            .flatten()
            .find(|known| known.name == pod::PREPARE)
            .and_then(|prepare| prepare.state.as_ref()?.terminated.as_ref())
            .and_then(|end| end.finished_at.as_ref());
        let began = |state: &ContainerState| {
            let running = state.running.as_ref();
            let running = running.and_then(|running| running.started_at.clone());
            running.or_else(|| state.terminated.as_ref()?.started_at.clone())
        };
        let main = main_container(pod);
        let task = status
            .container_statuses
            .iter()
            .flatten()
            .find(|known| known.name == main);
        Self {
            scheduled: scheduled.map(|time| time.0),
            prepared: prepared.map(|time| time.0),
            began: task
                .and_then(|task| began(task.state.as_ref()?))
                .map(|time| time.0),
        }
    }
}

fn main_container(pod: &Pod) -> &str {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(MAIN))
        .map_or(pod::TASK, String::as_str)
}

/// Whether the container that runs the experiment runs or has run; init containers and the sidecar do not count.
pub(in crate::controller) fn task_container_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let main = main_container(pod);
    let began = |state: &ContainerState| {
        let end = state.terminated.as_ref();
        state.running.is_some() || end.is_some_and(|end| end.started_at.is_some())
    };
    status
        .container_statuses
        .iter()
        .flatten()
        .filter(|container| container.name == main)
        .any(|container| {
            container.state.as_ref().is_some_and(began)
                || container.last_state.as_ref().is_some_and(began)
        })
}

/// Whether every container of the pod that is no init container runs, for the first time, and nobody has asked for its
/// end.
fn simply_runs(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let disturbed = |condition: &str| condition == "DisruptionTarget";
    let conditions = status.conditions.as_deref().unwrap_or_default();
    status.phase.as_deref() == Some("Running")
        && pod.metadata.deletion_timestamp.is_none()
        && !conditions.iter().any(|known| disturbed(&known.type_))
        && !containers.is_empty()
        && containers.iter().all(|container| {
            container.restart_count == 0
                && container
                    .state
                    .as_ref()
                    .is_some_and(|state| state.running.is_some())
        })
}

/// Keeps of the spec where the pod runs, and what a diagnosis speaks of: images and limits.
fn stripped(mut pod: Pod) -> Pod {
    let named = |container: Container| Container {
        name: container.name,
        image: container.image,
        resources: container.resources,
        ..Container::default()
    };
    let metadata = &mut pod.metadata;
    metadata.managed_fields = None;
    metadata.finalizers = None;
    metadata.generate_name = None;
    metadata.labels = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name == MAIN);
    }
    if let Some(status) = &mut pod.status {
        strip_status(status);
    }
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        node_name: spec.node_name,
        init_containers: spec
            .init_containers
            .map(|all| all.into_iter().map(named).collect()),
        containers: spec.containers.into_iter().map(named).collect(),
        ..PodSpec::default()
    });
    pod
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::tests::begun_pod;

    fn pod(pod: Value) -> PodObject {
        serde_json::from_value(pod).unwrap()
    }

    fn kept(of: Value) -> Option<Value> {
        let row = PodRow::of(pod(of));
        row.whole.map(|pod| serde_json::to_value(pod).unwrap())
    }

    #[test]
    fn of_metadata_and_status_only_what_somebody_reads_is_kept() {
        let kept = kept(json!({
            "metadata": {
                "labels": {"trainyard.dev/attempt": "1", "team": "vision"}, "finalizers": ["x"],
                "annotations": {MAIN: "main", "note": "long"},
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1",
                "conditions": [
                    {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"},
                    {"type": "PodScheduled", "status": "True"}, {"type": "DisruptionTarget", "status": "True"},
                ],
                "containerStatuses": [{"name": "main", "image": "i", "imageID": "sha256:1", "ready": true,
                    "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
            },
        }))
        .unwrap();
        assert_eq!(kept["metadata"], json!({"annotations": {MAIN: "main"}}));
        let types: Vec<&str> = kept["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|known| known["type"].as_str())
            .collect();
        assert_eq!(types, ["Initialized", "PodScheduled", "DisruptionTarget"]);
        let container = &kept["status"]["containerStatuses"][0];
        assert_eq!(container["imageID"], "");
        assert!(container["state"]["running"]["startedAt"].is_string());
    }

    #[test]
    fn images_and_limits_are_kept_unless_the_pod_simply_runs() {
        let runs = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let waits = json!({"waiting": {"reason": "CreateContainerConfigError"}});
        for (state, restarts, deleted, whole) in [
            (&runs, 0, false, false),
            (&runs, 1, false, true),
            (&runs, 0, true, true),
            (&killed, 0, false, true),
            (&waits, 0, false, true),
        ] {
            let of = json!({
                "metadata": {"deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
                "spec": {"nodeName": "a", "containers": [{
                    "name": "task", "image": "i", "command": ["x"], "resources": {"limits": {"memory": "1Gi"}}}]},
                "status": {"phase": "Running", "containerStatuses": [{"name": "task", "image": "i", "imageID": "",
                    "ready": true, "restartCount": restarts, "state": state}]},
            });
            assert_eq!(PodRow::of(pod(of.clone())).node(), Some("a"));
            let kept = kept(of);
            assert_eq!(kept.is_some(), whole, "{state} {restarts} {deleted}");
            if let Some(kept) = kept {
                let container = &kept["spec"]["containers"][0];
                assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
                assert!(container["command"].is_null());
            }
        }
    }

    #[test]
    fn of_a_pod_that_simply_runs_an_object_is_made_again() {
        let row = PodRow::of(pod(json!({
            "metadata": {
                "name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {MAIN: "main"},
                "labels": {"trainyard.dev/attempt": "2"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job"}],
            },
            "spec": {"nodeName": "a", "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": true,
                "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:15Z"}}}]},
        })));
        assert!(row.whole.is_none() && row.has_started() && row.is_owned_by("job"));
        assert_eq!(
            (row.attempt(), row.main(), row.phase()),
            (Some("2"), "main", Some("Running"))
        );
        let again = row.object().into_owned();
        assert!(task_container_started(&again) && simply_runs(&again));
        assert_eq!(again.metadata.uid.as_deref(), Some("u"));
        assert_eq!(again.spec.unwrap().node_name.as_deref(), Some("a"));
    }

    #[test]
    fn the_times_of_each_stage_are_read() {
        let times = PodRow::of(pod(begun_pod())).times();
        let at = |text: &str| Some(text.parse().unwrap());
        assert_eq!(times.scheduled, at("2026-01-01T00:00:03Z"));
        assert_eq!(times.prepared, at("2026-01-01T00:00:07Z"));
        assert_eq!(times.began, at("2026-01-01T00:00:15Z"));
    }
}
