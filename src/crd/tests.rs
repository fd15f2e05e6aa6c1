use serde_json::{Value, json};

use super::*;

fn spec(value: Value) -> QueueBindingSpec {
    serde_json::from_value(value).unwrap()
}

/// The schema of a field of the spec, by its path.
fn schema_at(path: &[&str]) -> Value {
    let crd = serde_json::to_value(crd()).unwrap();
    let mut schema =
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    for name in path {
        schema = match schema.get("items") {
            Some(items) => items["properties"][name].clone(),
            None => schema["properties"][name].clone(),
        };
    }
    schema
}

#[test]
fn one_queue_is_all_that_must_be_given() {
    let spec = spec(json!({ "queues": [{ "name": "gpu" }] }));
    assert_eq!(spec.queues[0].weight, 1);
    assert_eq!(spec.lifecycle.pending_timeout.to_string(), "1h");
    assert_eq!(unsupported(&spec), []);
}

#[test]
fn every_field_has_a_description_that_begins_with_its_name() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let description = property["description"].as_str().unwrap_or_default();
            if !path.starts_with(".conditions.") && !description.starts_with(name.as_str()) {
                missing.push(path.clone());
            }
            walk(&path, property, missing);
            walk(&path, &property["items"], missing);
        }
    }
    let mut missing = Vec::new();
    walk("", &schema_at(&[]), &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn no_field_is_nullable_and_no_format_is_unknown_to_kubernetes() {
    let text = crd_yaml();
    assert!(!text.contains("nullable"), "{text}");
    assert!(!text.contains("uint"), "{text}");
}

#[test]
fn defaults_are_in_the_schema() {
    assert_eq!(schema_at(&["capacity"])["default"], "None");
    assert_eq!(schema_at(&["lifecycle", "pendingTimeout"])["default"], "1h");
    assert_eq!(
        schema_at(&["lifecycle", "ttlAfterFailure"])["default"],
        "24h"
    );
    assert_eq!(schema_at(&["queues", "weight"])["default"], 1);
    assert_eq!(schema_at(&["environment", "manager"])["default"], "auto");
}

#[test]
fn template_keeps_what_is_written_and_refuses_what_no_template_has() {
    let template = schema_at(&["template"]);
    assert_eq!(
        template["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"],
        true
    );
    assert_eq!(
        template["x-kubernetes-preserve-unknown-fields"],
        Value::Null
    );
}

#[test]
fn what_is_not_honoured_yet_is_told_by_its_path() {
    let spec = spec(json!({
        "queues": [{ "name": "gpu" }],
        "environment": { "cache": { "claimName": "cache", "sizeLimit": "1Gi" } },
        "overrides": { "containerArguments": ["env", "ulimit"] },
    }));
    let paths: Vec<String> = unsupported(&spec)
        .into_iter()
        .map(|note| note.path)
        .collect();
    assert_eq!(paths, ["spec.overrides.containerArguments[1]"]);
}

#[test]
fn what_is_made_ahead_needs_a_cache_that_is_kept() {
    let of = |cache: Value| {
        let spec =
            spec(json!({ "queues": [{ "name": "gpu" }], "environment": { "cache": cache } }));
        (
            spec.environment.cache.tasks_ahead(),
            unsupported(&spec).len(),
        )
    };
    assert_eq!(of(json!({ "claimName": "cache" })), (0, 0));
    assert_eq!(of(json!({ "claimName": "cache", "ahead": 2 })), (2, 0));
    assert_eq!(of(json!({ "hostPath": "/cache", "ahead": 1 })), (1, 0));
    assert_eq!(of(json!({ "ahead": 3 })), (0, 1));
    let ahead = schema_at(&["environment", "cache", "ahead"]);
    assert_eq!(
        (&ahead["minimum"], &ahead["maximum"]),
        (&json!(0.0), &json!(10.0))
    );
}

#[test]
fn the_number_of_ended_jobs_is_limited_only_where_it_is_asked_for() {
    let of = |lifecycle: Value| {
        let spec = spec(json!({ "queues": [{ "name": "gpu" }], "lifecycle": lifecycle }));
        let lifecycle = spec.lifecycle;
        (
            lifecycle.successful_jobs_history_limit,
            lifecycle.failed_jobs_history_limit,
        )
    };
    assert_eq!(of(json!({ "ttlAfterSuccess": "1m" })), (None, None));
    assert_eq!(
        of(json!({ "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 0 })),
        (Some(3), Some(0))
    );
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        let schema = schema_at(&["lifecycle", field]);
        assert_eq!(schema["minimum"], json!(0.0), "{field}");
        assert_eq!(schema["default"], Value::Null, "{field}");
    }
}

#[test]
fn the_normative_shape_is_read_in_full_and_nothing_of_it_is_unknown() {
    let text = include_str!("../../tests/fixtures/queuebinding.yaml");
    let written: Value = serde_saphyr::from_str(text).unwrap();
    let binding: QueueBinding = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(binding.spec.limits.max_concurrent, Some(8));
    let read: Value = serde_json::to_value(&binding).unwrap();
    let mut lost = Vec::new();
    lost_fields("", &written, &read, &mut lost);
    assert_eq!(lost, Vec::<String>::new());
}

/// Paths that `written` has and `read` has not, but for those that say "not given".
fn lost_fields(path: &str, written: &Value, read: &Value, lost: &mut Vec<String>) {
    match written {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                lost_fields(&format!("{path}.{name}"), value, &read[name], lost);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                lost_fields(&format!("{path}[{index}]"), item, &read[index], lost);
            }
        }
        _ if read.is_null() => lost.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn only_a_clear_yes_lets_dropped_tasks_be_put_back() {
    let binding = |annotations: Value| -> QueueBinding {
        serde_json::from_value(json!({
            "metadata": {"name": "gpu", "annotations": annotations}, "spec": {"queues": [{"name": "gpu"}]},
        }))
        .unwrap()
    };
    assert!(binding(json!({RESTORE_STRANDED: "true"})).restores_stranded());
    for no in [
        json!({RESTORE_STRANDED: "false"}),
        json!({RESTORE_STRANDED: ""}),
        json!({}),
    ] {
        assert!(!binding(no.clone()).restores_stranded(), "{no}");
    }
}
