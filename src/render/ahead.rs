//! The Job that makes a task's environment in the cache while the task waits for room.
//!
//! ```text
//! the task's own Job ──less GPUs, priority, labels, sidecars, the executor's uplink──▶ prepare ──▶ --in-pod ahead
//! ```
//!
//! It runs where the task may run, in the task's image, and is no attempt of it: it carries no label of the task, so that
//! nothing that looks after attempts sees it, and its pod none of the template, so that nothing takes it for one of the
//! template's pods: Services, and pods that keep away from each other.

use serde_json::{Map, Value, json};

use super::environment;
use super::fields::{list, object, text};
use super::job::{Inputs, app_labels, own_labels, render};
use crate::crd::Quantity;
use crate::pod::{self, annotation, component, label};

/// Prefix of labels and annotations that are ours.
const OWN: &str = "trainyard.dev/";
/// Those of a task's Job that say something of this one too.
const KEPT: [&str; 5] = [
    label::BINDING,
    annotation::TASK_NAME,
    annotation::QUEUE_NAME,
    annotation::PROJECT_NAME,
    annotation::ENVIRONMENT,
];
/// Seconds that it is kept after its end.
const KEPT_SECONDS: u64 = 600;
/// Seconds that it may take, with the wait for a node and for its image.
const LONGEST_SECONDS: u64 = 1800;
/// Seconds that it has to end when it is told to.
const GRACE_SECONDS: u64 = 30;
/// What the container that makes the environment requests at most: the room is the tasks'.
const REQUESTS: [(&str, &str); 3] = [
    ("cpu", "100m"),
    ("memory", "256Mi"),
    ("ephemeral-storage", "128Mi"),
];
/// What of a pod is for the run of the task alone.
const OF_THE_RUN: [&str; 6] = [
    "priority",
    "priorityClassName",
    "preemptionPolicy",
    "resourceClaims",
    "resources",
    "schedulingGates",
];
/// What of a container is.
const OF_THE_RUNNING: [&str; 5] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "startupProbe",
];

/// A Job that makes an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Ahead {
    /// A function of the task and its environment, so that nobody makes the same twice.
    pub name: String,
    pub job: Value,
}

/// The Job for the environment of this task; nothing if it runs with none of ours, or if a setup script comes before it,
/// which is part of the run.
pub fn ahead(inputs: &Inputs<'_>) -> Option<Ahead> {
    let spec = inputs.spec;
    let script = &inputs.task.container.setup_shell_script;
    let set_up = spec.environment.setup_script.is_some()
        || (spec.overrides.setup_script && !script.trim().is_empty());
    if set_up {
        return None;
    }
    let key = inputs.environment()?;
    let name = format!("ty-ahead-{}-{}", inputs.task.id, key.exact);
    let mut job = render(inputs).job;
    let of_task = job["spec"]["template"].take();
    let mut metadata = of_task["metadata"].as_object().cloned()?;
    let labels: Map<String, Value> = app_labels(inputs)
        .into_iter()
        .chain(own_labels(inputs))
        .collect();
    metadata.insert("labels".into(), Value::Object(labels));
    mark(&mut metadata, inputs);
    let pod = maker(of_task["spec"].as_object().cloned()?, inputs)?;
    let own = job["metadata"].as_object_mut()?;
    mark(own, inputs);
    own.insert("name".into(), json!(name));
    job["spec"] = json!({
        "activeDeadlineSeconds": LONGEST_SECONDS,
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": { "metadata": metadata, "spec": pod },
    });
    Some(Ahead { name, job })
}

/// Labels and annotations that say what this is.
fn mark(metadata: &mut Map<String, Value>, inputs: &Inputs<'_>) {
    for field in ["labels", "annotations"] {
        object(metadata, field)
            .retain(|name, _| !name.starts_with(OWN) || KEPT.contains(&name.as_str()));
    }
    let labels = object(metadata, "labels");
    labels.insert(component::LABEL.into(), json!(component::AHEAD));
    labels.insert(label::AHEAD.into(), json!(inputs.task.id.as_str()));
}

/// The pod of the task, as far as it makes the environment.
fn maker(mut spec: Map<String, Value>, inputs: &Inputs<'_>) -> Option<Value> {
    for field in OF_THE_RUN {
        spec.remove(field);
    }
    // It holds in both directions: the task would be kept off the node of a pod that keeps away from its like.
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("podAntiAffinity");
    }
    spec.insert("terminationGracePeriodSeconds".into(), json!(GRACE_SECONDS));
    let containers = list(&mut spec, "containers");
    let mut container = containers.get(inputs.template.task)?.as_object().cloned()?;
    for field in OF_THE_RUNNING {
        container.remove(field);
    }
    container.insert(
        "command".into(),
        json!([format!("{}/trainyard", pod::BIN), "--in-pod", "ahead"]),
    );
    if without_devices(&mut container) {
        list(&mut container, "env").push(environment::plain(pod::env::DEVICES, "left-out"));
    }
    request_little(&mut container);
    *containers = vec![Value::Object(container)];
    let before = list(&mut spec, "initContainers");
    before.retain(|container| text(container, &["name"]) != Some(pod::UPLINK));
    for container in before.iter_mut().filter_map(Value::as_object_mut) {
        without_devices(container);
    }
    Some(Value::Object(spec))
}

/// Leaves of the resources those that every node has; whether there were others.
fn without_devices(container: &mut Map<String, Value>) -> bool {
    let resources = object(container, "resources");
    let mut left_out = resources.remove("claims").is_some();
    for kind in ["limits", "requests"] {
        if let Some(amounts) = resources.get_mut(kind).and_then(Value::as_object_mut) {
            let before = amounts.len();
            amounts.retain(|name, _| REQUESTS.iter().any(|(known, _)| known == name));
            left_out |= amounts.len() < before;
        }
    }
    left_out
}

/// Requests little, and no more than what the container had. Its limits stay.
fn request_little(container: &mut Map<String, Value>) {
    let resources = object(container, "resources");
    for (name, most) in REQUESTS {
        let given = ["limits", "requests"]
            .into_iter()
            .filter_map(|kind| resources.get(kind)?.get(name));
        let least = given
            .filter_map(quantity)
            .chain(most.parse::<Quantity>())
            .min()
            .map(|least| least.to_string());
        object(resources, "requests").insert(name.to_owned(), json!(least));
    }
}

fn quantity(amount: &Value) -> Option<Quantity> {
    let text = amount
        .as_str()
        .map_or_else(|| amount.to_string(), str::to_owned);
    text.parse().ok()
}
