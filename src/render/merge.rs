//! Strategic merge of a queue's patch over the template, as the API server and kubectl do it for pod templates.
//!
//! Source: Kubernetes, "Strategic merge patch", and the patch strategies of the pod's fields: objects are merged, lists
//! of the table below by their key, every other list is replaced; null removes; `$patch: replace` and `$patch: delete`
//! replace or remove an object or an item, and `$retainKeys` names the fields that stay (a volume's source of another
//! kind has to be removed by one of them). In a merged list the patch's items stand in the patch's order, those that
//! only the template has keep theirs.

use serde_json::{Map, Value};

/// Lists that are merged, by the name of their field, with the key by which an item is known. No other list of a pod
/// has one of these names.
const KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("ephemeralContainers", "name"),
    ("env", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ports", "containerPort"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeDevices", "devicePath"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];
const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// The key by which items of the list with this name are known, if it is one that is merged.
pub(super) fn key_of(list: &str) -> Option<&'static str> {
    let known = KEYS.iter().find(|(field, _)| *field == list);
    known.map(|(_, key)| *key)
}

/// `patch` merged over `original`, or what is wrong with the patch: where, and what.
pub(super) fn merge(
    original: &Value,
    patch: &Value,
    path: &str,
) -> Result<Value, (String, String)> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            Ok(Value::Object(objects(original.clone(), patch, path)?))
        }
        // Nothing to merge into: the patch alone, without its directives and nulls.
        (_, Value::Object(patch)) => Ok(Value::Object(objects(Map::new(), patch, path)?)),
        (_, patch) => Ok(patch.clone()),
    }
}

fn objects(
    mut into: Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
) -> Result<Map<String, Value>, (String, String)> {
    match patch
        .get(DIRECTIVE)
        .map(|word| word.as_str().unwrap_or_default())
    {
        None | Some("merge") => {}
        Some("replace") => {
            into.clone_from(patch);
            into.remove(DIRECTIVE);
            return Ok(into);
        }
        Some("delete") => return Ok(Map::new()),
        Some(_) => {
            return Err((
                format!("{path}.{DIRECTIVE}"),
                "must be replace, merge or delete".into(),
            ));
        }
    }
    if let Some(kept) = patch.get(RETAIN) {
        let kept = kept
            .as_array()
            .ok_or_else(|| (format!("{path}.{RETAIN}"), "must be a list".to_owned()))?;
        into.retain(|name, _| kept.iter().any(|keep| keep == name));
    }
    for (name, value) in patch {
        let path = format!("{path}.{name}");
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_PRIMITIVES) {
            if let (Some(Value::Array(items)), Some(gone)) = (into.get_mut(field), value.as_array())
            {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let merged = match (into.get(name), value) {
            (_, Value::Null) => None,
            (before, Value::Array(items)) => Some(Value::Array(match key_of(name) {
                Some(key) => lists(before.and_then(Value::as_array), items, key, &path)?,
                None => items.clone(),
            })),
            (before, value) => Some(merge(before.unwrap_or(&Value::Null), value, &path)?),
        };
        match merged {
            None => into.shift_remove(name),
            Some(value) => into.insert(name.clone(), value),
        };
    }
    Ok(into)
}

/// Merges lists of objects by `key`.
fn lists(
    original: Option<&Vec<Value>>,
    patch: &[Value],
    key: &str,
    path: &str,
) -> Result<Vec<Value>, (String, String)> {
    let original = original.map_or(&[][..], Vec::as_slice);
    let whole = patch
        .iter()
        .any(|item| item == &serde_json::json!({ DIRECTIVE: "replace" }))
        || patch
            .iter()
            .any(|item| item[DIRECTIVE] == "replace" && item.get(key).is_none());
    if whole {
        return Ok(patch
            .iter()
            .filter(|item| item.get(DIRECTIVE).is_none())
            .cloned()
            .collect());
    }
    let mut merged: Vec<Value> = original.to_vec();
    let mut order: Vec<Value> = Vec::new();
    for (index, item) in patch.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(name) = item.get(key) else {
            return Err((
                path,
                format!("must name its item by {key:?}: the list is merged by it"),
            ));
        };
        let place = merged.iter().position(|known| known.get(key) == Some(name));
        match (item[DIRECTIVE].as_str(), place) {
            (Some("delete"), _) => merged.retain(|known| known.get(key) != Some(name)),
            (_, Some(place)) => {
                merged[place] = merge(&merged[place], item, &path)?;
                order.push(name.clone());
            }
            (_, None) => {
                merged.push(merge(&Value::Null, item, &path)?);
                order.push(name.clone());
            }
        }
    }
    Ok(ordered(merged, original, &order, key))
}

/// The patch's items in its order, woven with those that only the template has, in theirs.
fn ordered(merged: Vec<Value>, original: &[Value], order: &[Value], key: &str) -> Vec<Value> {
    let of_patch = |item: &Value| order.iter().position(|name| Some(name) == item.get(key));
    let (mut right, left): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| of_patch(item).is_some());
    right.sort_by_key(of_patch);
    let place = |item: &Value| {
        original
            .iter()
            .position(|known| known.get(key) == item.get(key))
    };
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut all = Vec::new();
    loop {
        let first_is_left = match (left.peek(), right.peek()) {
            (Some(left), Some(right)) => match (place(left), place(right)) {
                (Some(left), Some(right)) => left < right,
                _ => false,
            },
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return all,
        };
        all.extend(if first_is_left {
            left.next()
        } else {
            right.next()
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(original: &Value, patch: &Value) -> Value {
        merge(original, patch, "patch").unwrap()
    }

    #[test]
    fn containers_are_merged_by_name_and_their_variables_too() {
        let template = json!({ "spec": { "containers": [
            { "name": "proxy", "image": "proxy:1" },
            { "name": "task", "image": "a", "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
              "resources": { "limits": { "cpu": "1", "memory": "1Gi" } }, "args": ["x", "y"] },
        ] } });
        let patch = json!({ "spec": { "priorityClassName": "high", "containers": [
            { "name": "task", "env": [{ "name": "B", "value": "3" }], "args": ["z"],
              "resources": { "limits": { "memory": null, "nvidia.com/gpu": 2 } } },
        ] } });
        let expected = json!({ "spec": { "containers": [
            { "name": "proxy", "image": "proxy:1" },
            { "name": "task", "image": "a", "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "3" }],
              "resources": { "limits": { "cpu": "1", "nvidia.com/gpu": 2 } }, "args": ["z"] },
        ], "priorityClassName": "high" } });
        assert_eq!(merged(&template, &patch), expected);
    }

    #[test]
    fn other_lists_are_replaced_as_a_whole() {
        let template = json!({ "tolerations": [{ "key": "a" }], "nodeSelector": { "a": "1" } });
        let patch = json!({ "tolerations": [{ "key": "b" }], "nodeSelector": { "b": "2" } });
        assert_eq!(
            merged(&template, &patch),
            json!({ "tolerations": [{ "key": "b" }], "nodeSelector": { "a": "1", "b": "2" } })
        );
    }

    #[test]
    fn directives_replace_and_delete() {
        let template = json!({
            "nodeSelector": { "a": "1" },
            "containers": [{ "name": "task" }, { "name": "old" }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "imagePullSecrets": [{ "name": "a" }],
        });
        let patch = json!({
            "nodeSelector": { "$patch": "replace", "b": "2" },
            "containers": [{ "name": "old", "$patch": "delete" }],
            "volumes": [{ "$patch": "replace" }, { "name": "new", "emptyDir": {} }],
            "imagePullSecrets": [{ "name": "b" }],
        });
        let expected = json!({
            "nodeSelector": { "b": "2" },
            "containers": [{ "name": "task" }],
            "volumes": [{ "name": "new", "emptyDir": {} }],
            "imagePullSecrets": [{ "name": "b" }, { "name": "a" }],
        });
        assert_eq!(merged(&template, &patch), expected);
    }

    #[test]
    fn fields_that_are_not_to_be_retained_go() {
        let template =
            json!({ "volumes": [{ "name": "data", "emptyDir": { "sizeLimit": "1Gi" } }] });
        let by_key = json!({ "volumes": [
            { "name": "data", "$retainKeys": ["name", "hostPath"], "hostPath": { "path": "/data" } },
        ] });
        let by_null = json!({ "volumes": [{ "name": "data", "emptyDir": null, "hostPath": { "path": "/data" } }] });
        let expected = json!({ "volumes": [{ "name": "data", "hostPath": { "path": "/data" } }] });
        assert_eq!(merged(&template, &by_key), expected);
        assert_eq!(merged(&template, &by_null), expected);
    }

    #[test]
    fn an_item_without_its_key_is_told_with_its_path() {
        let patch = json!({ "spec": { "containers": [{ "image": "a" }] } });
        let (path, message) =
            merge(&json!({}), &patch, "spec.queues[1].templatePatch").unwrap_err();
        assert_eq!(path, "spec.queues[1].templatePatch.spec.containers[0]");
        assert!(message.contains("\"name\""), "{message}");
    }
}
