//! Nodes that are better than others for a task: those that hold its environment, and none that an earlier attempt ran
//! on. Only ever preferred, beside what the template prefers.

use serde_json::{Map, Value, json};

use super::entrypoint::Runs;
use super::fields::{list, object};
use super::job::Inputs;

/// The most nodes of earlier attempts that are avoided, and of those that are preferred.
const MOST: usize = 8;
/// What a node is worth for not being one of an earlier attempt.
const UNTRIED: u32 = 100;
/// What it is worth for holding the environment: less, for a node that has failed is no gain however warm it is.
const HOLDING: u32 = 50;

/// Lays the preferences on the pod.
pub(super) fn lay(pod: &mut Map<String, Value>, inputs: &Inputs<'_>) {
    let avoided: &[String] = if inputs.spec.lifecycle.avoid_same_node {
        inputs.avoid_nodes
    } else {
        &[]
    };
    // The image's own command runs with no environment of ours.
    let holding: &[String] = if inputs.runs == Runs::Code {
        inputs.holding_nodes
    } else {
        &[]
    };
    let holding = holding.iter().filter(|node| !avoided.contains(node));
    let mut terms: Vec<Value> = avoided
        .iter()
        .take(MOST)
        .map(|node| term(UNTRIED, "NotIn", node))
        .collect();
    terms.extend(holding.take(MOST).map(|node| term(HOLDING, "In", node)));
    if terms.is_empty() {
        return;
    }
    let affinity = object(object(pod, "affinity"), "nodeAffinity");
    list(affinity, "preferredDuringSchedulingIgnoredDuringExecution").extend(terms);
}

/// A node's own name, which its host name need not be; such a field takes one name each.
fn term(weight: u32, operator: &str, node: &str) -> Value {
    json!({
        "weight": weight,
        "preference": {
            "matchFields": [{ "key": "metadata.name", "operator": operator, "values": [node] }],
        },
    })
}
