//! Objects as they come from the API server, read as far as somebody here looks at them.
//!
//! Most of a Job's and a pod's text is its template and who wrote which field (`managedFields`). To make maps and lists
//! of that only to drop them is most of the work of a watch, and most of the memory of a list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// An object of which the rest was skipped.
#[derive(Debug, Clone)]
pub(in crate::controller) struct Lean<K>(pub K);

pub(in crate::controller) type JobObject = Lean<Job>;
pub(in crate::controller) type PodObject = Lean<Pod>;

impl<K: Resource<DynamicType = ()>> Resource for Lean<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(of: &()) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &()) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &()) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &()) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[derive(Deserialize)]
struct Read<Spec, Status> {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            labels: read.labels,
            annotations: read.annotations,
            owner_references: read.owner_references,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecOfJob {
    suspend: Option<bool>,
    active_deadline_seconds: Option<i64>,
}

impl<'de> Deserialize<'de> for Lean<Job> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read::<SpecOfJob, JobStatus>::deserialize(deserializer)?;
        Ok(Self(Job {
            metadata: read.metadata.into(),
            spec: read.spec.map(|spec| JobSpec {
                suspend: spec.suspend,
                active_deadline_seconds: spec.active_deadline_seconds,
                ..JobSpec::default()
            }),
            status: read.status,
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecOfPod {
    node_name: Option<String>,
    init_containers: Option<Vec<SpecOfContainer>>,
    containers: Option<Vec<SpecOfContainer>>,
}

#[derive(Deserialize)]
struct SpecOfContainer {
    #[serde(default)]
    name: String,
    image: Option<String>,
    resources: Option<ResourceRequirements>,
}

impl From<SpecOfContainer> for Container {
    fn from(read: SpecOfContainer) -> Self {
        Self {
            name: read.name,
            image: read.image,
            resources: read.resources,
            ..Self::default()
        }
    }
}

impl<'de> Deserialize<'de> for Lean<Pod> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read::<SpecOfPod, PodStatus>::deserialize(deserializer)?;
        let all = |containers: Vec<SpecOfContainer>| {
            let containers = containers.into_iter();
            containers.map(Container::from).collect::<Vec<_>>()
        };
        Ok(Self(Pod {
            metadata: read.metadata.into(),
            spec: read.spec.map(|spec| PodSpec {
                node_name: spec.node_name,
                init_containers: spec.init_containers.map(all),
                containers: spec.containers.map(all).unwrap_or_default(),
                ..PodSpec::default()
            }),
            status: read.status,
        }))
    }
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;
    use serde_json::{Value, json};

    use super::*;

    fn managed() -> Value {
        json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:suspend": {}}}}])
    }

    #[test]
    fn a_job_comes_without_its_template_and_its_managed_fields() {
        let event = json!({"type": "MODIFIED", "object": {
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": "j", "namespace": "ns", "uid": "u", "resourceVersion": "7", "managedFields": managed(),
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "labels": {"a": "1"}, "annotations": {"b": "2"},
                "ownerReferences": [{"apiVersion": "v", "kind": "QueueBinding", "name": "gpu", "uid": "o"}],
            },
            "spec": {"suspend": true, "activeDeadlineSeconds": 9, "template": {"spec": {"containers": [{"name": "task"}]}}},
            "status": {"active": 1, "startTime": "2026-01-01T00:00:01Z"},
        }});
        let WatchEvent::Modified(Lean(job)) =
            serde_json::from_str::<WatchEvent<JobObject>>(&event.to_string()).unwrap()
        else {
            panic!("a change");
        };
        let metadata = serde_json::to_value(&job.metadata).unwrap();
        let mut whole = event["object"]["metadata"].clone();
        whole.as_object_mut().unwrap().remove("managedFields");
        assert_eq!(metadata, whole);
        let spec = job.spec.unwrap();
        assert_eq!(
            (spec.suspend, spec.active_deadline_seconds),
            (Some(true), Some(9))
        );
        assert!(spec.template.spec.is_none());
        assert_eq!(job.status.unwrap().active, Some(1));
        assert_eq!(
            JobObject::url_path(&(), Some("ns")),
            Job::url_path(&(), Some("ns"))
        );
    }

    #[test]
    fn of_a_pods_spec_its_node_and_what_a_diagnosis_speaks_of_are_read() {
        let limits = json!({"limits": {"memory": "1Gi"}});
        let Lean(pod) = serde_json::from_value::<PodObject>(json!({
            "metadata": {"name": "p", "managedFields": managed()},
            "spec": {
                "nodeName": "a", "volumes": [{"name": "v", "emptyDir": {}}],
                "initContainers": [{"name": "prepare", "image": "i", "env": [{"name": "A", "value": "1"}]}],
                "containers": [{"name": "task", "image": "t", "resources": limits}],
            },
            "status": {"phase": "Running"},
        }))
        .unwrap();
        assert!(pod.metadata.managed_fields.is_none());
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        assert_eq!(
            spec,
            json!({
                "nodeName": "a", "initContainers": [{"name": "prepare", "image": "i"}],
                "containers": [{"name": "task", "image": "t", "resources": limits}],
            })
        );
        assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Running"));
    }
}
