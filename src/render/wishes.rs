//! What one task changes of its pod, and what of it the binding allows.
//!
//! ```text
//! docker arguments (docker) ─┐
//! hyper-parameters ──────────┼──allow-list of the binding──▶ Wishes ──overlay──▶ pod fields
//! user properties ───────────┘            └──▶ a note for each that is refused or not understood
//! ```
//!
//! Where several ask for the same, the later of these three wins. Values of variables and paths are never repeated in
//! notes: they may be secrets.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::notes::Notes;
use crate::crd::{OverridesSpec, Quantity};
use crate::task::Task;

/// Section of hyper-parameters in which a task asks for fields of its pod.
pub const SECTION: &str = "Kubernetes";
/// Section of the user properties, and how names begin there.
const PROPERTIES: &str = "properties";
const PREFIX: &str = "kubernetes/";

/// What is granted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wishes {
    /// `--env`: name and value, in order.
    pub(super) env: Vec<(String, String)>,
    /// `--shm-size` in bytes.
    pub(super) shm_size: Option<u64>,
    /// Amounts for the task's container, by resource; zero: none of it.
    pub(super) resources: BTreeMap<String, Quantity>,
    pub(super) volumes: Vec<Extra>,
    /// Fields of the pod, as they are.
    pub(super) pod: Map<String, Value>,
    pub(super) host_aliases: Vec<Value>,
    pub(super) nameservers: Vec<String>,
    pub(super) searches: Vec<String>,
    /// Fields of the container's security context, as they are.
    pub(super) security: Map<String, Value>,
    pub(super) capabilities_added: Vec<String>,
    pub(super) capabilities_dropped: Vec<String>,
    pub(super) working_dir: Option<String>,
    pub(super) node_selector: BTreeMap<String, String>,
    pub(super) tolerations: Vec<Value>,
    pub(super) priority_class: Option<String>,
}

/// A volume that the task mounts into its container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extra {
    /// Without its name.
    pub(super) source: Value,
    pub(super) path: String,
    pub(super) read_only: bool,
}

impl Wishes {
    /// Reads hyper-parameters and user properties of the task.
    pub(super) fn read_parameters(
        &mut self,
        task: &Task,
        overrides: &OverridesSpec,
        notes: &mut Notes,
    ) {
        for (name, value) in parameters(task.hyperparams.get(SECTION), "") {
            self.parameter(
                &name,
                &value,
                &format!("hyper-parameter {SECTION}/{name}"),
                overrides,
                notes,
            );
        }
        for (name, value) in parameters(task.hyperparams.get(PROPERTIES), PREFIX) {
            self.parameter(
                &name,
                &value,
                &format!("user property {PREFIX}{name}"),
                overrides,
                notes,
            );
        }
    }

    fn parameter(
        &mut self,
        name: &str,
        value: &str,
        wish: &str,
        overrides: &OverridesSpec,
        notes: &mut Notes,
    ) {
        let (kind, key) = name.split_once('/').unwrap_or((name, ""));
        match (kind, key) {
            ("resources", resource) if !resource.is_empty() => match value.parse::<Quantity>() {
                Ok(amount) => self.ask(resource, amount, wish, overrides, notes),
                Err(error) => notes.add(format!("{wish} is not honoured: {error}")),
            },
            ("nodeSelector", label) if !label.is_empty() => {
                if !overrides.node_selector.iter().any(|allowed| allowed == label) {
                    notes.add(refused(wish, "nodeSelector"));
                } else if is_label_value(value) {
                    self.node_selector.insert(label.to_owned(), value.to_owned());
                } else {
                    notes.add(format!("{wish} is not honoured: its value is no label's value"));
                }
            }
            ("tolerations", taint) if !taint.is_empty() => {
                if !overrides.tolerations.iter().any(|allowed| allowed == taint) {
                    notes.add(refused(wish, "tolerations"));
                } else if let Some(toleration) = toleration(taint, value) {
                    self.tolerations.push(toleration);
                } else {
                    notes.add(format!(
                        "{wish} is not honoured: its value is not of the form value, value:Effect or :Effect, \
                         with NoSchedule, PreferNoSchedule or NoExecute as effect"
                    ));
                }
            }
            ("priorityClass", "") => {
                if overrides.priority_class.iter().any(|allowed| allowed == value) {
                    self.priority_class = Some(value.to_owned());
                } else {
                    notes.add(refused(wish, "priorityClass"));
                }
            }
            _ => notes.add(format!(
                "{wish} is not understood; a task may ask for resources/NAME, nodeSelector/LABEL, tolerations/KEY and priorityClass"
            )),
        }
    }

    /// Grants an amount of a resource if the binding's maximum allows it.
    pub(super) fn ask(
        &mut self,
        resource: &str,
        amount: Quantity,
        wish: &str,
        overrides: &OverridesSpec,
        notes: &mut Notes,
    ) {
        let max = overrides
            .resources
            .as_ref()
            .and_then(|resources| resources.max.get(resource));
        let Some(max) = max.and_then(|max| max.0.parse::<Quantity>().ok()) else {
            notes.add(format!(
                "{wish} is refused: {resource} may not be asked for \
                 (hint: the binding's overrides.resources.max lists what a task may ask for)"
            ));
            return;
        };
        // Devices are counted; the API server refuses a part of one.
        let whole = resource.contains('/') || resource.starts_with("hugepages-");
        if amount < Quantity::default() || (whole && !amount.is_whole()) {
            notes.add(format!(
                "{wish} is not honoured: {amount} is no amount of {resource}"
            ));
        } else if amount > max {
            notes.add(format!(
                "{wish} is refused: {amount} of {resource} is more than {max} (overrides.resources.max)"
            ));
        } else {
            self.resources.insert(resource.to_owned(), amount);
        }
    }
}

fn refused(wish: &str, list: &str) -> String {
    format!(
        "{wish} is refused (hint: the binding's overrides.{list} lists what a task may ask for)"
    )
}

/// Names and values of a section's items, those that begin with `prefix`, without it.
fn parameters(section: Option<&Value>, prefix: &str) -> Vec<(String, String)> {
    let items = section.and_then(Value::as_object).into_iter().flatten();
    items
        .filter_map(|(key, item)| {
            let name = item.get("name").and_then(Value::as_str).unwrap_or(key);
            let value = match item.get("value") {
                Some(Value::String(text)) => text.trim().to_owned(),
                Some(Value::Number(number)) => number.to_string(),
                _ => String::new(),
            };
            Some((name.strip_prefix(prefix)?.to_owned(), value))
        })
        .collect()
}

/// What a text such as `ml`, `ml:NoSchedule` or `:NoExecute` tolerates of the taint `key`.
fn toleration(key: &str, text: &str) -> Option<Value> {
    let (value, effect) = text.split_once(':').unwrap_or((text, ""));
    if !["", "NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
        || !is_label_value(value)
    {
        return None;
    }
    let mut toleration = match value {
        "" => json!({ "key": key, "operator": "Exists" }),
        value => json!({ "key": key, "operator": "Equal", "value": value }),
    };
    if !effect.is_empty() {
        toleration["effect"] = json!(effect);
    }
    Some(toleration)
}

/// Whether Kubernetes takes `text` as the value of a label.
fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(inner)
        && edge(text.bytes().next())
        && edge(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hyperparams: &Value, overrides: &Value) -> (Wishes, Vec<String>) {
        let task: Task = serde_json::from_value(
            json!({ "id": "0123456789abcdef0123456789abcdef", "hyperparams": hyperparams }),
        )
        .unwrap();
        let overrides: OverridesSpec = serde_json::from_value(overrides.clone()).unwrap();
        let (mut wishes, mut notes) = (Wishes::default(), Notes::default());
        wishes.read_parameters(&task, &overrides, &mut notes);
        (wishes, notes.into_lines())
    }

    fn section(items: &[(&str, &str)]) -> Value {
        let items: Map<String, Value> = items
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!({ "name": name, "value": value })))
            .collect();
        Value::Object(items)
    }

    #[test]
    fn what_the_binding_allows_is_granted_from_both_places_and_the_property_wins() {
        let asked = json!({
            "Kubernetes": section(&[
                ("resources/nvidia.com/gpu", "2"), ("resources/memory", "32Gi"),
                ("nodeSelector/pool", "a100"), ("tolerations/dedicated", "ml:NoSchedule"),
                ("priorityClass", "high"),
            ]),
            "properties": section(&[("kubernetes/resources/memory", "16Gi"), ("mine", "own business")]),
            "Args": section(&[("resources/memory", "1Ti")]),
        });
        let allowed = json!({
            "resources": { "max": { "nvidia.com/gpu": 4, "memory": "64Gi" } },
            "nodeSelector": ["pool"], "tolerations": ["dedicated"], "priorityClass": ["high"],
        });
        let (wishes, notes) = read(&asked, &allowed);
        assert_eq!(notes, Vec::<String>::new());
        let amounts: Vec<String> = wishes
            .resources
            .iter()
            .map(|(name, amount)| format!("{name}={amount}"))
            .collect();
        assert_eq!(amounts, ["memory=16Gi", "nvidia.com/gpu=2"]);
        assert_eq!(wishes.node_selector["pool"], "a100");
        assert_eq!(
            wishes.tolerations,
            [
                json!({ "key": "dedicated", "operator": "Equal", "value": "ml", "effect": "NoSchedule" })
            ]
        );
        assert_eq!(wishes.priority_class.as_deref(), Some("high"));
    }

    #[test]
    fn nothing_is_allowed_by_default_and_each_refusal_is_one_sentence() {
        let asked = json!({ "Kubernetes": section(&[
            ("resources/nvidia.com/gpu", "2"), ("nodeSelector/pool", "a100"),
            ("tolerations/dedicated", ""), ("priorityClass", "high"), ("hostNetwork", "true"),
        ]) });
        let (wishes, notes) = read(&asked, &json!({}));
        assert_eq!(wishes, Wishes::default());
        assert_eq!(notes.len(), 5, "{notes:?}");
        assert!(notes[0].starts_with("hyper-parameter Kubernetes/resources/nvidia.com/gpu is refused: nvidia.com/gpu may not be asked for"), "{notes:?}");
        assert!(
            notes[4].contains("is not understood; a task may ask for"),
            "{notes:?}"
        );
    }

    #[test]
    fn more_than_the_maximum_and_no_amounts_are_told_apart() {
        let asked = json!({ "Kubernetes": section(&[
            ("resources/memory", "65Gi"), ("resources/nvidia.com/gpu", "0.5"), ("resources/cpu", "many"),
        ]) });
        let allowed =
            json!({ "resources": { "max": { "nvidia.com/gpu": 4, "memory": "64Gi", "cpu": 8 } } });
        let (wishes, notes) = read(&asked, &allowed);
        assert!(wishes.resources.is_empty());
        assert_eq!(
            notes,
            [
                "hyper-parameter Kubernetes/resources/memory is refused: 65Gi of memory is more than 64Gi (overrides.resources.max)",
                "hyper-parameter Kubernetes/resources/nvidia.com/gpu is not honoured: 500m is no amount of nvidia.com/gpu",
                "hyper-parameter Kubernetes/resources/cpu is not honoured: \"many\" is not a quantity such as 8, 500m or 64Gi",
            ]
        );
    }

    #[test]
    fn tolerations_say_value_and_effect() {
        assert_eq!(
            toleration("k", ""),
            Some(json!({ "key": "k", "operator": "Exists" }))
        );
        assert_eq!(
            toleration("k", ":NoExecute"),
            Some(json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }))
        );
        assert_eq!(toleration("k", "v:Sometimes"), None);
        assert_eq!(toleration("k", "v v"), None);
    }
}
