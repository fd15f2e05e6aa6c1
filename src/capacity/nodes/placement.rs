//! Where a pod may run, and what keeps it off a node.

use std::collections::BTreeMap;

use serde_json::Value;

use super::PODS;
use super::node::{Node, Taint};
use super::obstacle::Obstacle;
use crate::crd::{Quantity, Resources};
use crate::render::pod_requests;

/// Where a pod may run, and what it needs there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    pub(super) requests: Resources,
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

    /// What keeps this pod off the node, however much is free there.
    pub(super) fn refusal(&self, node: &Node) -> Option<Obstacle> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
