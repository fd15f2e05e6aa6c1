//! What a random request is made of: all endpoints, members and texts of real clients, and odd ones beside them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// All endpoints, as the table of routes names them.
pub(super) fn endpoints() -> Vec<String> {
    let table = include_str!("../../../src/server/routes.rs");
    let names = table.lines().filter_map(|line| {
        let name = line.strip_prefix("    (\"")?.split('"').next()?;
        name.contains('.').then(|| name.to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() > 120, "{} endpoints", names.len());
    names.into_iter().collect()
}

/// Members that real clients send, and texts that stand in them.
pub(super) fn vocabulary() -> (Vec<String>, Vec<String>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire/server_answers.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut keys, mut texts) = (BTreeSet::new(), BTreeSet::new());
    let mut left: Vec<&Value> = recorded
        .pointer("/scenarios")
        .into_iter()
        .chain(recorded.pointer("/recipes"))
        .collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(members) => {
                if let Some(Value::Object(body)) = members.get("body") {
                    collect(body, &mut keys, &mut texts);
                }
                left.extend(members.values());
            }
            _ => {}
        }
    }
    keys.extend(
        [
            "ids",
            "tasks",
            "models",
            "metrics",
            "metric",
            "variant",
            "key",
            "samples",
            "iters",
            "scroll_id",
            "batch_size",
            "order",
            "order_by",
            "page",
            "page_size",
            "start",
            "size",
            "from_timestamp",
            "navigate_earlier",
            "_any_",
            "_all_",
            "created",
            "last_update",
            "status_changed",
            "from_date",
            "to_date",
            "interval",
            "items",
            "worker_ids",
            "queue_ids",
            "count",
            "new_location",
            "destination_project",
            "project_name",
            "projects",
            "metadata",
            "keys",
            "labels",
            "design",
            "uri",
            "iteration",
            "preferences",
            "role",
            "access_key",
            "user",
            "expiration_sec",
            "line_format",
            "line_type",
            "threshold_sec",
            "event_type",
            "tasks_state",
            "new_task_hyperparams",
            "execution_overrides",
            "machine_stats",
            "queues",
        ]
        .map(str::to_owned),
    );
    (keys.into_iter().collect(), texts.into_iter().collect())
}

fn collect(body: &Map<String, Value>, keys: &mut BTreeSet<String>, texts: &mut BTreeSet<String>) {
    for (key, value) in body {
        keys.insert(key.clone());
        match value {
            Value::String(text) if !text.contains("${") => {
                texts.insert(text.clone());
            }
            Value::Object(inner) => collect(inner, keys, texts),
            Value::Array(items) => {
                for inner in items.iter().filter_map(Value::as_object) {
                    collect(inner, keys, texts);
                }
            }
            _ => {}
        }
    }
}

fn text(texts: Vec<String>) -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        6 => prop::sample::select(texts),
        2 => prop::sample::select(vec![
            "", "(", "[a-", "-x", "__$not", "__$and", ">=2020-01-01", "<", "9223372036854775808", "\u{0}", "\u{1F980}é",
            "last_metrics.a.b", "execution.queue", "..", ".", "a.b.c.d.e", "%", "'; DROP TABLE tasks; --",
        ]).prop_map(str::to_owned),
        1 => ".{0,30}",
        1 => (1..20_000_usize).prop_map(|length| "x".repeat(length)),
    ]
}

pub(super) fn value(keys: Vec<String>, texts: Vec<String>) -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![
        5 => text(texts).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => prop::sample::select(vec![0_i64, 1, -1, 500, 10_000_000, i64::MAX, i64::MIN]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(keys.clone()), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
