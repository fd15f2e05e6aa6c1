//! A node, as the scheduler looks at it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use crate::crd::Resources;

/// Taint of a node that was cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What the scheduler looks at of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) allocatable: Resources,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

impl Node {
    /// Of the object; an amount that cannot be read counts as none.
    pub fn of(node: &core::Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let mut taints: Vec<Taint> = spec
            .taints
            .unwrap_or_default()
            .into_iter()
            // The third effect, PreferNoSchedule, forbids nothing.
            .filter(|taint| ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()))
            .map(|taint| Taint {
                key: taint.key,
                value: taint.value.unwrap_or_default(),
                effect: taint.effect,
            })
            .collect();
        if spec.unschedulable == Some(true)
            && !taints.iter().any(|taint| taint.key == UNSCHEDULABLE)
        {
            taints.push(Taint {
                key: UNSCHEDULABLE.into(),
                value: String::new(),
                effect: "NoSchedule".into(),
            });
        }
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.clone());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints,
            allocatable: allocatable
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, amount)| Some((name, amount.0.parse().ok()?)))
                .collect(),
        }
    }
}
