//! Random bodies to every endpoint, in several versions.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use super::vocabulary::{endpoints, value, vocabulary};
use super::{MEMORY, runner};
use crate::process::peak;
use crate::server_world::{Alone, Client};

/// Requests of one run.
const CASES: u32 = 4000;

#[derive(Debug, Clone)]
enum Body {
    Members(Value),
    Lines(Vec<Value>),
    Raw(Vec<u8>),
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
    let alone = Alone::start();
    let client = &alone.client;
    let (keys, mut texts) = vocabulary();
    // Ids that exist are the way past the first check of most endpoints.
    let ids = alone.block_on(objects(client));
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
    let mut runner = runner(CASES);
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
        let (status, answer) = alone.block_on(async {
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
    let occupied = peak(alone.server.id());
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(occupied < MEMORY, "the server occupied {occupied} MiB");
    let pong = alone.block_on(client.call("debug.ping", json!({})));
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
