//! Granted wishes laid on the template's pod and its task container.
//!
//! Every value was checked when it was granted, so that no wish of one task makes a pod that the API server refuses.

use serde_json::{Map, Value, json};

use super::fields::{list, object};
use super::wishes::Wishes;

/// What a pod may have at most; the template's come first.
const NAMESERVERS: usize = 3;
pub(super) const SEARCHES: usize = 32;

/// Lays what concerns the container on it. Variables and volumes have places of their own.
pub(super) fn on_container(container: &mut Map<String, Value>, wishes: &Wishes) {
    for (name, amount) in &wishes.resources {
        set_amount(
            object(container, "resources"),
            name,
            amount.is_zero(),
            &amount.to_string(),
        );
    }
    if !wishes.security.is_empty()
        || !wishes.capabilities_added.is_empty()
        || !wishes.capabilities_dropped.is_empty()
    {
        let security = object(container, "securityContext");
        security.extend(wishes.security.clone());
        for (field, names) in [
            ("add", &wishes.capabilities_added),
            ("drop", &wishes.capabilities_dropped),
        ] {
            if !names.is_empty() {
                extend_new(
                    list(object(security, "capabilities"), field),
                    names.iter().map(|name| json!(name)),
                );
            }
        }
    }
    if let Some(folder) = &wishes.working_dir {
        container.insert("workingDir".into(), json!(folder));
    }
    for (index, extra) in wishes.volumes.iter().enumerate() {
        let mut mount = json!({ "name": volume_name(index), "mountPath": extra.path });
        if extra.read_only {
            mount["readOnly"] = json!(true);
        }
        list(container, "volumeMounts").push(mount);
    }
}

/// Lays what concerns the pod on it.
pub(super) fn on_pod(spec: &mut Map<String, Value>, wishes: &Wishes) {
    spec.extend(wishes.pod.clone());
    for (index, extra) in wishes.volumes.iter().enumerate() {
        let mut source = extra.source.clone();
        source["name"] = json!(volume_name(index));
        list(spec, "volumes").push(source);
    }
    if !wishes.host_aliases.is_empty() {
        list(spec, "hostAliases").extend(wishes.host_aliases.clone());
    }
    for (field, names, most) in [
        ("nameservers", &wishes.nameservers, NAMESERVERS),
        ("searches", &wishes.searches, SEARCHES),
    ] {
        if !names.is_empty() {
            let known = list(object(spec, "dnsConfig"), field);
            extend_new(known, names.iter().map(|name| json!(name)));
            known.truncate(most);
        }
    }
    if !wishes.node_selector.is_empty() {
        let selector = object(spec, "nodeSelector");
        for (label, value) in &wishes.node_selector {
            selector.insert(label.clone(), json!(value));
        }
    }
    if !wishes.tolerations.is_empty() {
        extend_new(
            list(spec, "tolerations"),
            wishes.tolerations.iter().cloned(),
        );
    }
    if let Some(class) = &wishes.priority_class {
        // Both follow from the class; the API server refuses others beside it.
        spec.remove("priority");
        spec.remove("preemptionPolicy");
        spec.insert("priorityClassName".into(), json!(class));
    }
}

/// The amount replaces the request and the limit that the template has; where it has neither, both are set.
fn set_amount(resources: &mut Map<String, Value>, name: &str, nothing: bool, amount: &str) {
    let has = |resources: &Map<String, Value>, kind: &str| {
        resources
            .get(kind)
            .is_some_and(|amounts| amounts.get(name).is_some())
    };
    let given: Vec<&str> = ["limits", "requests"]
        .into_iter()
        .filter(|kind| has(resources, kind))
        .collect();
    let kinds = if given.is_empty() {
        vec!["limits", "requests"]
    } else {
        given
    };
    for kind in kinds {
        let amounts = object(resources, kind);
        if nothing {
            amounts.remove(name);
        } else {
            amounts.insert(name.to_owned(), json!(amount));
        }
    }
}

fn extend_new(into: &mut Vec<Value>, items: impl Iterator<Item = Value>) {
    for item in items {
        if !into.contains(&item) {
            into.push(item);
        }
    }
}

fn volume_name(index: usize) -> String {
    format!("trainyard-asked-{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(template: &Value, name: &str, amount: &str) -> Value {
        let mut container = json!({ "resources": template })
            .as_object()
            .cloned()
            .unwrap();
        let mut wishes = Wishes::default();
        wishes
            .resources
            .insert(name.into(), amount.parse().unwrap());
        on_container(&mut container, &wishes);
        container["resources"].clone()
    }

    #[test]
    fn an_amount_replaces_what_the_template_has_of_it() {
        assert_eq!(
            amounts(&json!({ "requests": { "cpu": "1" } }), "cpu", "4"),
            json!({ "requests": { "cpu": "4" } })
        );
        assert_eq!(
            amounts(
                &json!({ "limits": { "nvidia.com/gpu": 1 } }),
                "nvidia.com/gpu",
                "0"
            ),
            json!({ "limits": {} })
        );
        assert_eq!(
            amounts(&json!({ "limits": { "cpu": "1" } }), "memory", "32Gi"),
            json!({ "limits": { "cpu": "1", "memory": "32Gi" }, "requests": { "memory": "32Gi" } })
        );
    }

    #[test]
    fn a_priority_class_takes_the_place_of_a_priority() {
        let mut spec = json!({ "priority": 7, "preemptionPolicy": "Never" })
            .as_object()
            .cloned()
            .unwrap();
        on_pod(
            &mut spec,
            &Wishes {
                priority_class: Some("high".into()),
                ..Wishes::default()
            },
        );
        assert_eq!(Value::Object(spec), json!({ "priorityClassName": "high" }));
    }

    #[test]
    fn lists_of_the_template_are_kept_and_not_repeated() {
        let mut spec =
            json!({ "tolerations": [{ "key": "a" }], "dnsConfig": { "nameservers": ["1.1.1.1"] } })
                .as_object()
                .cloned()
                .unwrap();
        let wishes = Wishes {
            tolerations: vec![json!({ "key": "a" }), json!({ "key": "b" })],
            nameservers: (2..9).map(|n| format!("1.1.1.{n}")).collect(),
            ..Wishes::default()
        };
        on_pod(&mut spec, &wishes);
        assert_eq!(spec["tolerations"], json!([{ "key": "a" }, { "key": "b" }]));
        assert_eq!(
            spec["dnsConfig"]["nameservers"],
            json!(["1.1.1.1", "1.1.1.2", "1.1.1.3"])
        );
    }
}
