//! Getting at fields of a template that was checked: what is absent is made, what is there is kept.
//!
//! `Template::check` has seen to it that these fields have the right type, so a field of the wrong type cannot occur;
//! if it did, it would be replaced, never a panic.

use serde_json::{Map, Value};

/// The object `parent[name]`, made if absent.
pub(super) fn object<'v>(
    parent: &'v mut Map<String, Value>,
    name: &str,
) -> &'v mut Map<String, Value> {
    let value = parent
        .entry(name)
        .or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("the value was made an object"),
    }
}

/// The list `parent[name]`, made if absent.
pub(super) fn list<'v>(parent: &'v mut Map<String, Value>, name: &str) -> &'v mut Vec<Value> {
    let value = parent
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("the value was made a list"),
    }
}

/// The text at `path`, if there is one.
pub(super) fn text<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    at(value, path)?.as_str()
}

/// The value at `path`, if there is one.
pub(super) fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter()
        .try_fold(value, |value, name| value.get(name))
        .filter(|value| !value.is_null())
}

/// The items of the list at `path`; none if there is no list.
pub(super) fn items<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
