//! Free resources of the nodes: which node has the room for one more pod, as the scheduler would see it.
//!
//! Source: Kubernetes, "Assigning Pods to Nodes", "Taints and Tolerations". Looked at: allocatable less the requests of
//! pods that have not ended, node selector, required node affinity, taints, `nodeName`. Not looked at: spreading,
//! affinity between pods, volumes, ports and priorities; what they forbid, the scheduler tells after the claim.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1 as core;
use serde_json::Value;

use crate::crd::{Quantity, Resources};
use crate::render::pod_requests;

/// Taint of a node that was cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The resource by which the number of pods of a node is bounded.
const PODS: &str = "pods";

/// What the scheduler looks at of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    allocatable: Resources,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
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

/// Where a pod may run, and what it needs there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    requests: Resources,
    node_name: Option<String>,
    selector: BTreeMap<String, String>,
    /// Terms of the required node affinity, one of which has to hold; `None`: there is none.
    terms: Option<Vec<Vec<Expression>>>,
    tolerations: Vec<Toleration>,
}

#[derive(Debug, Clone, PartialEq)]
struct Expression {
    /// `None`: the name of the node.
    label: Option<String>,
    operator: String,
    values: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value[name].as_array().into_iter().flatten()
}

impl Placement {
    /// Of the pod with this `spec`.
    pub fn of(spec: &Value) -> Self {
        let mut requests = pod_requests(spec);
        requests.set(PODS, Quantity::whole(1));
        let required =
            &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let expression = |field: bool| {
            move |value: &Value| Expression {
                label: (!field).then(|| text(value, "key")),
                operator: text(value, "operator"),
                values: list(value, "values")
                    .filter_map(|v| v.as_str().map(str::to_owned))
                    .collect(),
            }
        };
        let term = |term: &Value| {
            list(term, "matchExpressions")
                .map(expression(false))
                .chain(list(term, "matchFields").map(expression(true)))
                .collect()
        };
        let selector = spec["nodeSelector"].as_object().into_iter().flatten();
        Self {
            requests,
            node_name: spec["nodeName"]
                .as_str()
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            selector: selector
                .map(|(label, value)| {
                    (label.clone(), value.as_str().unwrap_or_default().to_owned())
                })
                .collect(),
            terms: required
                .is_object()
                .then(|| list(required, "nodeSelectorTerms").map(term).collect()),
            tolerations: list(spec, "tolerations")
                .map(|value| Toleration {
                    key: text(value, "key"),
                    operator: text(value, "operator"),
                    value: text(value, "value"),
                    effect: text(value, "effect"),
                })
                .collect(),
        }
    }

    /// Of a pod of which only the requests are known.
    pub fn anywhere(requests: &Resources) -> Self {
        let mut requests = requests.clone();
        requests.set(PODS, Quantity::whole(1));
        Self {
            requests,
            // A pod that is there already is not kept off by taints that are only feared.
            tolerations: vec![Toleration {
                operator: "Exists".into(),
                ..Toleration::default()
            }],
            ..Self::default()
        }
    }

    fn refusal(&self, node: &Node) -> Option<Obstacle> {
        if self
            .node_name
            .as_ref()
            .is_some_and(|name| *name != node.name)
        {
            return Some(Obstacle::OtherNode);
        }
        let selected = self
            .selector
            .iter()
            .all(|(label, value)| node.labels.get(label) == Some(value));
        if !selected {
            return Some(Obstacle::Selector);
        }
        // A term without expressions matches nothing.
        let holds = |term: &Vec<Expression>| {
            !term.is_empty() && term.iter().all(|expression| expression.holds(node))
        };
        if self
            .terms
            .as_ref()
            .is_some_and(|terms| !terms.iter().any(holds))
        {
            return Some(Obstacle::Affinity);
        }
        let untolerated = node.taints.iter().find(|taint| {
            !self
                .tolerations
                .iter()
                .any(|toleration| toleration.covers(taint))
        });
        untolerated.map(|taint| Obstacle::Taint(taint.key.clone()))
    }
}

impl Expression {
    fn holds(&self, node: &Node) -> bool {
        let value = match &self.label {
            Some(label) => node.labels.get(label),
            None => Some(&node.name),
        };
        let number = |text: &String| text.parse::<i64>().ok();
        let compared = || Some((number(value?)?, number(self.values.first()?)?));
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => compared().is_some_and(|(value, bound)| value > bound),
            "Lt" => compared().is_some_and(|(value, bound)| value < bound),
            _ => false,
        }
    }
}

impl Toleration {
    fn covers(&self, taint: &Taint) -> bool {
        let key = self.key.is_empty() || self.key == taint.key;
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        let value = match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
            _ => false,
        };
        key && effect && value
    }
}

/// What keeps a pod off a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    Lacks(String),
    Taint(String),
    Selector,
    Affinity,
    OtherNode,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(resource) => write!(f, "not enough {resource}"),
            Self::Taint(key) => write!(f, "the taint {key}"),
            Self::Selector => f.write_str("other labels than its node selector asks for"),
            Self::Affinity => f.write_str("not what its node affinity requires"),
            Self::OtherNode => f.write_str("another name than its nodeName"),
        }
    }
}

/// Why no node has the room, by the number of nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    nodes: usize,
    obstacles: BTreeMap<Obstacle, usize>,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f
                .write_str("waiting for a node: the cluster has none (capacity FreeResources)");
        }
        write!(f, "waiting for room on a node: ")?;
        for (index, (obstacle, count)) in self.obstacles.iter().take(5).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{count} of {} have {obstacle}", self.nodes)?;
        }
        f.write_str(" (capacity FreeResources)")
    }
}

/// What is free on each node.
#[derive(Debug, Clone, Default)]
pub struct Free {
    nodes: Vec<(Node, Resources)>,
}

impl Free {
    /// All that the nodes have.
    pub fn of(nodes: impl Iterator<Item = Node>) -> Self {
        Self {
            nodes: nodes.map(|node| (node.clone(), node.allocatable)).collect(),
        }
    }

    /// Counts a pod that runs on this node.
    pub fn bind(&mut self, node: &str, requests: &Resources) {
        if let Some((_, free)) = self.nodes.iter_mut().find(|(known, _)| known.name == node) {
            take(free, requests);
            take(
                free,
                &Resources::from_iter([(PODS.to_owned(), Quantity::whole(1))]),
            );
        }
    }

    /// Counts pods on their nodes.
    pub fn bind_all<'a>(&mut self, pods: impl Iterator<Item = (&'a str, &'a Resources)>) {
        let mut by_node: BTreeMap<&str, (Resources, i64)> = BTreeMap::new();
        for (node, requests) in pods {
            let (sum, count) = by_node.entry(node).or_default();
            sum.add(requests);
            *count += 1;
        }
        for (node, free) in &mut self.nodes {
            if let Some((sum, count)) = by_node.get(node.name.as_str()) {
                take(free, sum);
                take(
                    free,
                    &Resources::from_iter([(PODS.to_owned(), Quantity::whole(*count))]),
                );
            }
        }
    }

    /// The node on which the pod would come to stand: of those that have the room, the one with the most left, as the
    /// scheduler chooses by default.
    fn choose(&self, pod: &Placement) -> Result<usize, Unplaced> {
        let mut obstacles = BTreeMap::new();
        let mut best: Option<(usize, Quantity)> = None;
        for (index, (node, free)) in self.nodes.iter().enumerate() {
            let lacking = || {
                let lacks =
                    |(name, asked): &(&str, Quantity)| !asked.is_zero() && free.get(name) < *asked;
                let found = pod
                    .requests
                    .iter()
                    .filter(|(name, _)| is_of_nodes(name))
                    .find(lacks);
                found.map(|(name, _)| Obstacle::Lacks(name.to_owned()))
            };
            if let Some(obstacle) = pod.refusal(node).or_else(lacking) {
                *obstacles.entry(obstacle).or_default() += 1;
                continue;
            }
            let left = scarcest(&pod.requests, free);
            if best.is_none_or(|(_, most)| left > most) {
                best = Some((index, left));
            }
        }
        best.map(|(index, _)| index).ok_or(Unplaced {
            nodes: self.nodes.len(),
            obstacles,
        })
    }

    /// Whether some node has the room; else why none has.
    pub fn fits(&self, pod: &Placement) -> Result<(), Unplaced> {
        self.choose(pod).map(|_| ())
    }

    /// Counts a pod where it would come to stand; `false`: nowhere, and it is not counted.
    pub fn occupy(&mut self, pod: &Placement) -> bool {
        let Ok(index) = self.choose(pod) else {
            return false;
        };
        if let Some((_, free)) = self.nodes.get_mut(index) {
            take(free, &pod.requests);
        }
        true
    }
}

/// Claims of devices are counted by limits, not by nodes.
fn is_of_nodes(resource: &str) -> bool {
    !resource.starts_with(crate::render::CLAIMS)
}

/// What is left of the rarest thing that the pod asks for: devices before the CPU that every node has.
fn scarcest(requests: &Resources, free: &Resources) -> Quantity {
    let device = requests
        .iter()
        .find(|(name, asked)| name.contains('/') && !asked.is_zero() && is_of_nodes(name));
    free.get(device.map_or("cpu", |(name, _)| name))
}

fn take(free: &mut Resources, requests: &Resources) {
    for (name, amount) in requests.iter() {
        let left = free.get(name).minus(amount);
        free.set(name, left);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node(name: &str, labels: &Value, taints: &Value, allocatable: &Value) -> Node {
        let object = json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "taints": taints },
            "status": { "allocatable": allocatable },
        });
        Node::of(&serde_json::from_value(object).unwrap())
    }

    fn plain(name: &str, gpus: u32) -> Node {
        node(
            name,
            &json!({}),
            &json!([]),
            &json!({ "cpu": "8", "nvidia.com/gpu": gpus.to_string(), "pods": "110" }),
        )
    }

    fn gpus(count: u32, spec: Value) -> Placement {
        let mut spec = spec;
        spec["containers"] = json!([{ "resources": { "limits": { "nvidia.com/gpu": count } } }]);
        Placement::of(&spec)
    }

    fn free(nodes: &[Node]) -> Free {
        Free::of(nodes.iter().cloned())
    }

    #[test]
    fn room_is_looked_for_node_by_node_not_in_the_sum() {
        let mut free = free(&[plain("a", 4), plain("b", 4)]);
        free.bind(
            "a",
            &Resources::from_annotation("nvidia.com/gpu=2").unwrap(),
        );
        assert_eq!(free.fits(&gpus(4, json!({}))), Ok(()));
        assert!(free.occupy(&gpus(4, json!({}))));
        let why = free.fits(&gpus(3, json!({}))).unwrap_err();
        assert_eq!(
            why.to_string(),
            "waiting for room on a node: 2 of 2 have not enough nvidia.com/gpu (capacity FreeResources)"
        );
        assert_eq!(free.fits(&gpus(2, json!({}))), Ok(()));
    }

    #[test]
    fn selectors_affinity_and_taints_keep_a_pod_off() {
        let gpu = node(
            "g",
            &json!({ "pool": "gpu", "size": "8" }),
            &json!([{ "key": "dedicated", "value": "ml", "effect": "NoSchedule" }]),
            &json!({ "cpu": "8", "nvidia.com/gpu": "4", "pods": "10" }),
        );
        let free = free(&[gpu, plain("p", 0)]);
        let tolerating = |rest: Value| {
            let mut spec = rest;
            spec["tolerations"] = json!([{ "key": "dedicated", "operator": "Exists" }]);
            gpus(1, spec)
        };
        let why = free.fits(&gpus(1, json!({}))).unwrap_err();
        assert_eq!(
            why.to_string(),
            "waiting for room on a node: 1 of 2 have not enough nvidia.com/gpu, 1 of 2 have the taint dedicated (capacity FreeResources)"
        );
        assert_eq!(
            free.fits(&tolerating(json!({ "nodeSelector": { "pool": "gpu" } }))),
            Ok(())
        );
        assert!(
            free.fits(&tolerating(json!({ "nodeSelector": { "pool": "cpu" } })))
                .is_err()
        );
        let required = |terms: Value| {
            json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
        };
        let term = |key: &str, operator: &str, values: Value| {
            json!([{ "matchExpressions": [
            { "key": key, "operator": operator, "values": values } ] }])
        };
        for (terms, fits) in [
            (term("pool", "In", json!(["gpu", "other"])), true),
            (term("pool", "NotIn", json!(["gpu"])), false),
            (term("missing", "NotIn", json!(["x"])), true),
            (term("pool", "Exists", json!(null)), true),
            (term("pool", "DoesNotExist", json!(null)), false),
            (term("size", "Gt", json!(["7"])), true),
            (term("size", "Lt", json!(["8"])), false),
            (term("size", "Around", json!(["8"])), false),
            (json!([{}]), false),
            (
                json!([{}, { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["g"] }] }]),
                true,
            ),
        ] {
            assert_eq!(
                free.fits(&tolerating(required(terms.clone()))).is_ok(),
                fits,
                "{terms}"
            );
        }
    }

    #[test]
    fn tolerations_are_matched_as_kubernetes_does() {
        let taint = Taint {
            key: "k".into(),
            value: "v".into(),
            effect: "NoExecute".into(),
        };
        for (toleration, covers) in [
            (json!({ "operator": "Exists" }), true),
            (
                json!({ "key": "k", "operator": "Exists", "effect": "NoSchedule" }),
                false,
            ),
            (json!({ "key": "k", "value": "v" }), true),
            (
                json!({ "key": "k", "operator": "Equal", "value": "w" }),
                false,
            ),
            (json!({ "operator": "Equal", "value": "v" }), false),
            (json!({ "key": "j", "operator": "Exists" }), false),
        ] {
            let placement = Placement::of(&json!({ "tolerations": [toleration.clone()] }));
            assert_eq!(
                placement.tolerations[0].covers(&taint),
                covers,
                "{toleration}"
            );
        }
    }

    #[test]
    fn a_cordoned_node_takes_nothing_new() {
        let object = json!({ "metadata": { "name": "a" }, "spec": { "unschedulable": true },
            "status": { "allocatable": { "cpu": "8", "pods": "10" } } });
        let free = free(&[Node::of(&serde_json::from_value(object).unwrap())]);
        assert!(free.fits(&Placement::of(&json!({}))).is_err());
    }

    #[test]
    fn the_number_of_pods_of_a_node_is_a_limit_too() {
        let mut free = free(&[node(
            "a",
            &json!({}),
            &json!([]),
            &json!({ "cpu": "8", "pods": "2" }),
        )]);
        free.bind("a", &Resources::default());
        assert!(free.occupy(&Placement::of(&json!({}))));
        assert!(
            free.fits(&Placement::of(&json!({})))
                .unwrap_err()
                .to_string()
                .contains("not enough pods")
        );
    }

    #[test]
    fn without_nodes_that_is_said() {
        assert!(
            free(&[])
                .fits(&Placement::default())
                .unwrap_err()
                .to_string()
                .contains("the cluster has none")
        );
    }

    proptest! {
        #[test]
        fn what_is_occupied_never_exceeds_a_node(
            nodes in proptest::collection::vec(0_u32..9, 1..5), pods in proptest::collection::vec(1_u32..5, 0..30),
        ) {
            let mut free = free(&nodes.iter().enumerate().map(|(i, n)| plain(&i.to_string(), *n)).collect::<Vec<_>>());
            let mut placed = 0;
            for pod in pods {
                let pod_placement = gpus(pod, json!({}));
                let fits = free.fits(&pod_placement).is_ok();
                prop_assert_eq!(fits, free.occupy(&pod_placement));
                placed += if fits { pod } else { 0 };
            }
            prop_assert!(placed <= nodes.iter().sum());
            for (_, left) in &free.nodes {
                prop_assert!(left.get("nvidia.com/gpu") >= Quantity::default());
            }
        }
    }
}
