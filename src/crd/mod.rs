//! Vocabulary: the `QueueBinding`, the one object that people write.
//!
//! ```text
//! QueueBinding ── spec: which queues, which template, which limits (this file and its neighbours)
//!              ├─ status: what the controller last saw (`status`)
//!              └─ schema: what the API server refuses by itself (`schema`, committed as crds/queuebindings.yaml)
//! ```
//!
//! Doc comments of fields are what `kubectl explain` shows, so they speak to the person who types YAML: the name,
//! its meaning, its values, its default. State of single tasks is not here but on their Jobs.

mod environment;
mod lifecycle;
mod limits;
mod overrides;
mod quantity;
mod reference;
mod schema;
mod status;
mod supported;
mod values;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use environment::{Cache, EnvironmentSpec, Git, Manager};
pub use lifecycle::{DeletionPolicy, LifecycleSpec, OnInterruption, OnPendingTimeout};
pub use limits::{Capacity, Limits, LimitsSpec};
pub use overrides::{ImageCheck, ImageOverrides, OverridesSpec, ResourceOverrides};
pub use quantity::{BadQuantity, Quantity, Resources};
pub use reference::reference;
pub use schema::{crd, crd_yaml};
pub use status::{QueueBindingStatus, QueueStatus, condition};
pub use supported::{CONTAINER_ARGUMENTS, FieldNote, unsupported};
pub use values::{
    Amount, BadPeriod, ConfigMapKeyRef, FileKind, FileRef, Period, SecretKeyRef, SecretRef,
};

/// The API group of our objects.
pub const GROUP: &str = "trainyard.dev";

/// Service account of task pods if neither template nor binding name one; the chart makes it.
pub const TASK_SERVICE_ACCOUNT: &str = "trainyard-task";

/// What is asked for: these queues of a ClearML server, run by this template, within these limits.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "trainyard.dev",
    version = "v1alpha1",
    kind = "QueueBinding",
    plural = "queuebindings",
    namespaced,
    status = "QueueBindingStatus",
    shortname = "qb",
    category = "clearml",
    derive = "PartialEq",
    doc = "QueueBinding runs the tasks of ClearML queues as Jobs in its namespace."
)]
#[serde(rename_all = "camelCase")]
pub struct QueueBindingSpec {
    /// server is the ClearML server that the queues are on. Default: the controller's own server and credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSpec>,

    /// queues are the queues to take tasks from, in order of their priority. At least one.
    #[schemars(length(min = 1, max = 64))]
    pub queues: Vec<QueueSpec>,

    /// strategy says which queue is served next: Priority (the first in the list that has a task), RoundRobin, or
    /// Weighted (in proportion to the weights). Default: Priority.
    #[serde(default)]
    pub strategy: Strategy,

    /// lookahead is how many tasks past a first one that cannot fit may be tried, and how many may overtake it in all
    /// before it goes; 0 keeps strict order. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub lookahead: Option<i32>,

    /// aging is the longest that the first task of a queue waits while others go before it: after that it is next,
    /// whatever the strategy, and the room that its limits need is kept for it. Default: no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aging: Option<Period>,

    /// suspend stops new tasks from being taken and gives back what has not started; running tasks go on. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// schedule is a list of weekly hours in which tasks are taken; outside them it is as with suspend. Default: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub schedule: Vec<Hours>,

    /// limits bound what runs at the same time. What does not fit stays in its queue, untouched.
    #[serde(default)]
    pub limits: LimitsSpec,

    /// capacity says how room on the nodes is looked at before a task is taken: None (not at all, the scheduler
    /// decides), FreeResources (sums up nodes and pods, needs the right to read them), or Kueue. Default: None.
    #[serde(default)]
    pub capacity: Capacity,

    /// kueueQueueName is the LocalQueue that Jobs are handed to once their task is taken; with capacity Kueue only. Kueue
    /// must not take Jobs without a queue in this namespace, else nothing is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub kueue_queue_name: Option<String>,

    /// template is the pod template of the tasks, with metadata and spec as in a Job, kept as written. The container
    /// named "task", or the only one, runs the experiment. Default: one container with the controller's default
    /// image. A change applies to tasks that are taken after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_template")]
    pub template: Option<Value>,

    /// templateRef names a key of a ConfigMap that holds the template as YAML; instead of template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<ConfigMapKeyRef>,

    /// job sets fields of the Job itself.
    #[serde(default)]
    pub job: JobSpec,

    /// overrides say what a single task may change; everything else it asks for is refused, and its user told.
    #[serde(default)]
    pub overrides: OverridesSpec,

    /// imageCheck says whether the registry is asked for the image before a task is taken: Off, Warn (what is wrong is
    /// told in the task's log) or Enforce (a task whose image is missing, not allowed, not readable with the pod's pull
    /// secrets, or for other platforms than the nodes' is failed at once). A registry that does not answer holds up
    /// nobody. Default: Off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_check: Option<ImageCheck>,

    /// environment says how the Python environment of a task is made.
    #[serde(default)]
    pub environment: EnvironmentSpec,

    /// lifecycle says what happens to tasks that wait, fail, are interrupted or end.
    #[serde(default)]
    pub lifecycle: LifecycleSpec,

    /// identity is what the pods of tasks run as.
    #[serde(default)]
    pub identity: IdentitySpec,

    /// monitoring sets the statistics that are reported for each task.
    #[serde(default)]
    pub monitoring: MonitoringSpec,

    /// deletionPolicy says what becomes of running tasks when this binding is deleted: Orphan (they go on) or
    /// Delete. Tasks that are taken but not started always go back to their queue. Default: Orphan.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// A ClearML server and how to reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "fieldPath": ".credentialsSecretRef",
    "rule": "!has(self.apiUrl) || has(self.credentialsSecretRef)",
    "message": "credentialsSecretRef must be given with apiUrl: the controller's own keys are not sent to another server"
}]))]
pub struct ServerSpec {
    /// apiUrl is the address of the API server, such as https://api.clear.example. Default: the controller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/ ]+"))]
    pub api_url: Option<String>,

    /// webUrl is the address of the web interface. Default: asked of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/ ]+"))]
    pub web_url: Option<String>,

    /// filesUrl is the address that artifacts are uploaded to. Default: asked of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/ ]+"))]
    pub files_url: Option<String>,

    /// credentialsSecretRef names the Secret with the keys access_key and secret_key. A rotated Secret is taken up
    /// without a restart. Default: the controller's own credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,

    /// caBundleRef names certificates (PEM) to trust beside the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<FileRef>,

    /// proxyUrl is the HTTP proxy on the way to the server, for the controller and the pods; of a task's own traffic only
    /// what goes to the server takes it. It must not carry a password, which would stand in every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/@ ]+/?$"))]
    pub proxy_url: Option<String>,
}

/// One queue that tasks are taken from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// name is the queue's name, or its id.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// weight is the queue's share with strategy Weighted, at least 1. Default: 1.
    #[serde(default = "QueueSpec::default_weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: i32,

    /// createIfMissing makes the queue on the server if there is none of that name. Default: false.
    #[serde(default)]
    pub create_if_missing: bool,

    /// templatePatch is merged over the template (strategic merge) for tasks of this queue: containers,
    /// volumes, variables and the like by name, other lists as a whole, null removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pod_template")]
    pub template_patch: Option<Value>,

    /// useEntrypoint runs the image's own ENTRYPOINT and CMD instead of the task's code; command and args of the template
    /// take their place as in any pod. They are read from the image's registry before a task is taken. Default: false.
    #[serde(default)]
    pub use_entrypoint: bool,
}

impl QueueSpec {
    fn default_weight() -> i32 {
        1
    }
}

/// Which queue is served next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    #[default]
    Priority,
    RoundRobin,
    Weighted,
}

/// Weekly hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hours {
    /// days are the days of the week, Mon to Sun. Default: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// from is the time of day at which it begins, such as 20:00.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// to is the time of day at which it ends; not later than from means the next day.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub to: String,
    /// timeZone is the IANA name of the time zone, such as Europe/Berlin. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Fields of the Job itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// activeDeadlineSeconds ends a task that runs for longer, as failed. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,

    /// annotations are added to each Job.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(key, !key.startsWith('trainyard.dev/'))",
        "message": "keys that begin with trainyard.dev/ are the controller's own"
    }], "maxProperties" = 64))]
    pub annotations: std::collections::BTreeMap<String, String>,

    /// labels are added to each Job.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(key, !key.startsWith('trainyard.dev/'))",
        "message": "keys that begin with trainyard.dev/ are the controller's own"
    }], "maxProperties" = 64))]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// What the pods of tasks run as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentitySpec {
    /// serviceAccountName of task pods; no API token is mounted. Default: the template's, else trainyard-task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

/// Statistics of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MonitoringSpec {
    /// reportPeriod is the time between two reports of host and GPU statistics, at least 1s. Default: 30s.
    pub report_period: Period,
    /// gpu says whether GPUs are sampled: auto (if there are any), on or off. Default: auto.
    pub gpu: GpuMonitoring,
}

impl Default for MonitoringSpec {
    fn default() -> Self {
        Self {
            report_period: Period::seconds(30),
            gpu: GpuMonitoring::Auto,
        }
    }
}

/// Whether GPUs are sampled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GpuMonitoring {
    #[default]
    Auto,
    On,
    Off,
}

impl GpuMonitoring {
    /// The word as people type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// Annotation of a binding: with `"true"` tasks of its queues that others took and dropped are put back after a while.
pub const RESTORE_STRANDED: &str = "trainyard.dev/restore-stranded";

impl QueueBinding {
    /// Whether tasks that others took and dropped are put back.
    pub fn restores_stranded(&self) -> bool {
        let asked = self.metadata.annotations.as_ref();
        asked
            .and_then(|all| all.get(RESTORE_STRANDED))
            .map(String::as_str)
            == Some("true")
    }
}

#[cfg(test)]
mod tests;
