//! `status`: what the controller last saw.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Types of conditions of a binding.
pub mod condition {
    pub const READY: &str = "Ready";
    pub const SERVER_REACHABLE: &str = "ServerReachable";
    pub const CREDENTIALS_VALID: &str = "CredentialsValid";
    pub const QUEUES_RESOLVED: &str = "QueuesResolved";
    pub const TEMPLATE_VALID: &str = "TemplateValid";
    pub const CAPACITY_AVAILABLE: &str = "CapacityAvailable";
    /// Not among those that the shape names; it does not count for `Ready`.
    pub const NOTHING_STRANDED: &str = "NothingStranded";
}

/// What the controller last saw of a binding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueBindingStatus {
    /// observedGeneration is the generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// conditions are Ready, ServerReachable, CredentialsValid, QueuesResolved, TemplateValid, CapacityAvailable and
    /// NothingStranded, each with reason and message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// queues are the queues that are served, with the number of tasks in each state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueStatus>,

    /// queueNames are the names of the queues in one text, for the table of kubectl.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_names: Option<String>,

    /// queued is the number of tasks that wait in these queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<i64>,

    /// running is the number of tasks whose pods run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<i64>,

    /// lastDispatchTime is when the last task was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_dispatch_time: Option<Time>,
}

/// One served queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueStatus {
    /// name of the queue, as the server has it now.
    pub name: String,
    /// id of the queue on the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// queued is the number of tasks that wait in it.
    pub queued: i64,
    /// claimed is the number of its tasks that are taken and not yet running.
    pub claimed: i64,
    /// running is the number of its tasks whose pods run.
    pub running: i64,
}
