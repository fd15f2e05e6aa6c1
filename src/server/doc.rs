//! Reading and changing documents by dotted path, and cutting them down to the fields asked for (§1.13). Pure.

use serde_json::{Map, Value};

use super::wire::Doc;

/// The value at a dotted path.
pub(crate) fn get<'a>(doc: &'a Doc, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let mut value = doc.get(parts.next()?)?;
    for part in parts {
        value = value.as_object()?.get(part)?;
    }
    Some(value)
}

/// The text at a dotted path, `""` when there is none.
pub(crate) fn text<'a>(doc: &'a Doc, path: &str) -> &'a str {
    get(doc, path).and_then(Value::as_str).unwrap_or_default()
}

/// The strings of the list at a dotted path.
pub(crate) fn strings<'a>(doc: &'a Doc, path: &str) -> Vec<&'a str> {
    let list = get(doc, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

/// Whether lists and objects of a value lie in each other on more levels than these.
pub(crate) fn is_deeper(value: &Value, levels: usize) -> bool {
    let deeper = |inner: &Value| is_deeper(inner, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(deeper),
        Value::Object(members) => levels == 0 || members.values().any(deeper),
        _ => false,
    }
}

/// Writes a value at a dotted path; objects on the way are made as needed.
pub(crate) fn set(doc: &mut Doc, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            doc.insert(path.to_owned(), value);
        }
        Some((first, rest)) => set(object_at(doc, first), rest, value),
    }
}

/// The object under a key, made (or put in place of something else) when there is none.
pub(crate) fn object_at<'a>(doc: &'a mut Doc, key: &str) -> &'a mut Doc {
    let slot = doc.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(object) => object,
        _ => unreachable!("an object was put there"),
    }
}

/// Takes the value at a dotted path away, if it is there.
pub(crate) fn unset(doc: &mut Doc, path: &str) {
    match path.split_once('.') {
        None => {
            doc.shift_remove(path);
        }
        Some((first, rest)) => {
            if let Some(Value::Object(object)) = doc.get_mut(first) {
                unset(object, rest);
            }
        }
    }
}

/// Metadata is stored by its key; an item is `{key, type, value}`.
pub(crate) fn add_metadata(metadata: &mut Doc, items: &[&Doc]) {
    for item in items {
        let key = text(item, "key");
        metadata.insert(
            key.to_owned(),
            project(item, &["key", "type", "value"]).into(),
        );
    }
}

/// The named fields alone. A path that is not set is left out, but its parents appear as `{}` (§1.13).
pub(crate) fn project(doc: &Doc, fields: &[&str]) -> Doc {
    let mut out = Doc::new();
    for field in fields {
        copy(doc, field, &mut out);
    }
    out
}

fn copy(doc: &Doc, path: &str, out: &mut Doc) {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    match (doc.get(first), rest) {
        (Some(value), None) => {
            out.insert(first.to_owned(), value.clone());
        }
        (Some(Value::Object(inner)), Some(rest)) => copy(inner, rest, object_at(out, first)),
        (Some(Value::Array(items)), Some(rest)) => {
            let cut = items
                .iter()
                .filter_map(Value::as_object)
                .map(|item| Value::Object(project(item, &[rest])));
            let cut: Vec<Value> = cut.collect();
            merge_lists(out, first, cut);
        }
        _ => {}
    }
}

/// Two fields of the items of one list end in the same items.
fn merge_lists(out: &mut Doc, key: &str, cut: Vec<Value>) {
    match out.get_mut(key) {
        Some(Value::Array(have)) if have.len() == cut.len() => {
            for (have, new) in have.iter_mut().zip(cut) {
                if let (Value::Object(have), Value::Object(new)) = (have, new) {
                    have.extend(new);
                }
            }
        }
        _ => {
            out.insert(key.to_owned(), Value::Array(cut));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn doc(value: &Value) -> Doc {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_projection_keeps_the_parents_of_an_unset_path() {
        let task = doc(&json!({"id": "1", "execution": {"parameters": {}}, "runtime": {}}));
        let cut = project(
            &task,
            &["execution.queue", "runtime._abort", "enqueue_status"],
        );
        assert_eq!(Value::Object(cut), json!({"execution": {}, "runtime": {}}));
    }

    #[test]
    fn a_projection_reaches_into_lists() {
        let queue =
            doc(&json!({"entries": [{"task": "a", "added": 1}, {"task": "b", "added": 2}]}));
        let cut = project(&queue, &["entries.task"]);
        assert_eq!(
            Value::Object(cut),
            json!({"entries": [{"task": "a"}, {"task": "b"}]})
        );
    }

    #[test]
    fn setting_makes_the_way_and_unsetting_leaves_it() {
        let mut task = Doc::new();
        set(&mut task, "execution.queue", json!("q"));
        assert_eq!(text(&task, "execution.queue"), "q");
        unset(&mut task, "execution.queue");
        assert_eq!(Value::Object(task), json!({"execution": {}}));
    }
}
