//! Whatever a client sends, to whatever endpoint: no panic, no internal error, no memory without bound.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};

use crate::server_world::{Client, Program};

/// Requests of one run.
const CASES: u32 = 4000;
/// What the server may occupy after all of them, in MiB.
const MEMORY: f64 = 250.0;

/// All endpoints, as the table of routes names them.
fn endpoints() -> Vec<String> {
    let table = include_str!("../../src/server/routes.rs");
    let names = table.lines().filter_map(|line| {
        let name = line.strip_prefix("    (\"")?.split('"').next()?;
        name.contains('.').then(|| name.to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() > 120, "{} endpoints", names.len());
    names.into_iter().collect()
}

/// Members that real clients send, and texts that stand in them.
fn vocabulary() -> (Vec<String>, Vec<String>) {
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

fn value(keys: Vec<String>, texts: Vec<String>) -> impl Strategy<Value = Value> + Clone {
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

#[derive(Debug, Clone)]
enum Body {
    Members(Value),
    Lines(Vec<Value>),
    Raw(Vec<u8>),
}

fn resident(server: &Program) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// Internal errors that the real server gives too, for the same requests (§1.2, §2.4, §3.4); `docs/compatibility.md`
/// names them.
fn is_recorded(answer: &Value) -> bool {
    let text = answer["meta"]["result_msg"].as_str().unwrap_or_default();
    [
        "Data should be a dict",
        "max_task_entries and a part",
        "stored status is unknown",
    ]
    .iter()
    .any(|known| text.contains(known))
}

#[test]
fn no_request_brings_the_server_into_trouble() {
    let data = tempfile::tempdir().unwrap();
    let server = Program::start(data.path());
    let client = server.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (keys, mut texts) = vocabulary();
    // Ids that exist are the way past the first check of most endpoints.
    let ids = runtime.block_on(objects(&client));
    for id in ids {
        texts.extend(std::iter::repeat_n(id, 20));
    }
    let value = value(keys.clone(), texts);
    let members = prop::collection::vec((prop::sample::select(keys), value.clone()), 0..8)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let body = prop_oneof![
        12 => members.clone().prop_map(Body::Members),
        3 => prop::collection::vec(members, 0..5).prop_map(Body::Lines),
        1 => value.prop_map(Body::Members),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Body::Raw),
    ];
    let version = prop::sample::select(vec!["", "v2.23/", "v2.5/", "v1.7/", "v999.0/"]);
    let asked = (prop::sample::select(endpoints()), version, body);
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let result = runner.run(&asked, |(endpoint, version, body)| {
        let (kind, bytes) = match body {
            Body::Members(value) => ("application/json", value.to_string().into_bytes()),
            Body::Raw(bytes) => ("application/json", bytes),
            Body::Lines(lines) => {
                let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
                ("application/json-lines", lines.join("\n").into_bytes())
            }
        };
        let request = client
            .request(reqwest::Method::POST, &format!("{version}{endpoint}"))
            .header("Content-Type", kind)
            .body(bytes);
        let (status, answer) = runtime.block_on(async {
            let answer = request
                .send()
                .await
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let status = answer.status().as_u16();
            let text = answer
                .text()
                .await
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            Ok::<_, TestCaseError>((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
        })?;
        prop_assert!(status < 500 || is_recorded(&answer), "{endpoint}: {answer}");
        Ok(())
    });
    let occupied = resident(&server);
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(occupied < MEMORY, "the server occupies {occupied} MiB");
    let pong = runtime.block_on(client.call("debug.ping", json!({})));
    assert_eq!(pong["msg"], "ClearML server");
}

/// Makes one of each kind; returns their ids.
async fn objects(client: &Client) -> Vec<String> {
    let id = |answer: Value| answer["id"].as_str().unwrap().to_owned();
    let project = id(client.call("projects.create", json!({"name": "a/b"})).await);
    let new = json!({"name": "a task", "type": "training", "project": project});
    let task = id(client.call("tasks.create", new).await);
    let new = json!({"name": "a model", "uri": "file:///m", "task": task, "project": project});
    let model = id(client.call("models.create", new).await);
    let queue = id(client
        .call("queues.create", json!({"name": "a queue"}))
        .await);
    client
        .call("tasks.enqueue", json!({"task": task, "queue": queue}))
        .await;
    for event in [
        json!({"type": "log", "task": task, "msg": "a line"}),
        json!({"type": "training_stats_scalar", "task": task, "metric": "a", "variant": "b", "iter": 1, "value": 0.5}),
        json!({"type": "plot", "task": task, "metric": "a", "variant": "b", "iter": 1, "plot_str": "{}"}),
        json!({"type": "training_debug_image", "task": task, "metric": "a", "variant": "b", "iter": 1, "url": "http://x/y"}),
    ] {
        client.call("events.add", event).await;
    }
    vec![project, task, model, queue]
}
