//! Nodes that are better than others for a task: those that hold its environment, and none that an earlier attempt ran
//! on. Only ever preferred, beside what the template prefers.

use serde_json::{Map, Value, json};

use super::entrypoint::Runs;
use super::fields::{list, object};
use super::job::Inputs;

/// The most nodes of earlier attempts that are avoided, and of those that are preferred.
const MOST: usize = 8;
/// What a node is worth for being none of an earlier attempt, in one term for all of them: with one for each a node that
/// was tried would have all but its own, and a scheduler, which measures nodes by the best, would see little difference.
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
    let tried: Vec<Value> = avoided
        .iter()
        .take(MOST)
        .map(|node| field("NotIn", node))
        .collect();
    let mut terms = Vec::new();
    if !tried.is_empty() {
        terms.push(term(UNTRIED, &tried));
    }
    let holding = holding.take(MOST).map(|node| field("In", node));
    terms.extend(holding.map(|node| term(HOLDING, &[node])));
    if terms.is_empty() {
        return;
    }
    let affinity = object(object(pod, "affinity"), "nodeAffinity");
    list(affinity, "preferredDuringSchedulingIgnoredDuringExecution").extend(terms);
}

/// So much for a node of which all of this holds.
fn term(weight: u32, fields: &[Value]) -> Value {
    json!({ "weight": weight, "preference": { "matchFields": fields } })
}

/// A node's own name, which its host name need not be; such a field takes one name each.
fn field(operator: &str, node: &str) -> Value {
    json!({ "key": "metadata.name", "operator": operator, "values": [node] })
}
