//! `spec.overrides` and `spec.imageCheck`: what one task may ask for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Amount;

/// What a single task may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverridesSpec {
    /// image says which images a task may ask for. Default: none, the template's image is used.
    #[serde(default)]
    pub image: ImageOverrides,

    /// containerArguments are the docker arguments that are honoured, by long name without dashes, such as env and
    /// shm-size. cpus, memory and gpus need resources.max as well; volume, mount, network, ipc, pid, privileged, user
    /// and cap-add reach beyond the container. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = "^[a-z][a-z0-9-]*$"))
    )]
    pub container_arguments: Vec<String>,

    /// resources bound the resources that a task may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceOverrides>,

    /// nodeSelector lists the labels of nodes that a task may select by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 317)))]
    pub node_selector: Vec<String>,

    /// tolerations lists the keys of taints that a task may tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 317)))]
    pub tolerations: Vec<String>,

    /// priorityClass lists the priority classes that a task may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub priority_class: Vec<String>,

    /// setupScript allows a task to bring a shell script that runs before its environment is made. Default: false.
    #[serde(default)]
    pub setup_script: bool,
}

/// Which images a task may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageOverrides {
    /// allow lists patterns of image names, compared as written; * stands for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    pub allow: Vec<String>,
}

/// The most a task may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceOverrides {
    /// max is the highest amount of each resource; a resource that is not named may not be asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub max: BTreeMap<String, Amount>,
}

/// Whether the registry is asked for an image before a task is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImageCheck {
    Off,
    Warn,
    Enforce,
}
