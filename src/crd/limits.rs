//! `spec.limits` and `spec.capacity`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Amount;

/// Bounds of what runs at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// maxConcurrent is the highest number of tasks that are claimed or running. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_concurrent: Option<i32>,

    /// resources bound the sum of what those tasks' pods request, by any resource name. Claims of devices are counted
    /// as resourceclaims/NAME, with the name of the claim or its template. Default: no limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub resources: BTreeMap<String, Amount>,

    /// perUser are the same two limits for the tasks of each user. Tasks that they hold up are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_user: Option<Limits>,

    /// perProject are the same two limits for the tasks of each project. Tasks that they hold up are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_project: Option<Limits>,
}

impl LimitsSpec {
    /// Whether users or projects have limits of their own.
    pub fn has_groups(&self) -> bool {
        self.per_user.is_some() || self.per_project.is_some()
    }
}

/// A bound on number and resources of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// maxConcurrent is the highest number of tasks that are claimed or running. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_concurrent: Option<i32>,

    /// resources bound the sum of what those tasks' pods request, by any resource name. Default: no limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub resources: BTreeMap<String, Amount>,
}

/// How room on the nodes is looked at before a task is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Capacity {
    #[default]
    None,
    FreeResources,
    Kueue,
}
