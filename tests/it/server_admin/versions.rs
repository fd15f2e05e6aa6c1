//! A server that plays an older one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use serde_json::{Value, json};
use trainyard::server::{Options, Version};

use crate::server_world::InProcess;

/// A server that plays an older one.
fn playing(version: Version) -> InProcess {
    InProcess::with(|data| Options {
        api_version: version,
        ..Options::new(data)
    })
}

#[test]
fn an_older_server_has_not_what_came_later() {
    let server = playing(Version(2, 13));
    let client = server.client();
    server.block_on(async {
        let token = client.call("auth.login", json!({})).await;
        let claims = claims(token["token"].as_str().unwrap());
        assert_eq!(claims["api_version"], "2.13");
        let info = client.call("server.info", json!({})).await;
        assert_eq!(info["api_version"], "2.13");
        for call in [
            "queues.peek_task",
            "v2.34/tasks.edit_runtime",
            "queues.get_num_entries",
        ] {
            let (status, answer) = client.raw(call, json!({})).await;
            assert_eq!(
                (status, &answer["meta"]["result_subcode"]),
                (404, &json!(0)),
                "{call}"
            );
        }
        let (_, answer) = client.raw("debug.ping", json!({})).await;
        assert_eq!(answer["meta"]["endpoint"]["requested_version"], "2.13");

        // `task` of a pop came with 2.21, `update_execution_queue` with 2.31: unknown members, so they do nothing.
        let (mut tasks, mut queues) = (Vec::new(), Vec::new());
        for i in 0..2 {
            let new = json!({"name": format!("task {i}"), "type": "training"});
            tasks.push(client.call("tasks.create", new).await["id"].clone());
            let new = json!({"name": format!("queue {i}")});
            queues.push(client.call("queues.create", new).await["id"].clone());
        }
        for task in &tasks {
            client
                .call("tasks.enqueue", json!({"task": task, "queue": queues[0]}))
                .await;
        }
        let popped = client
            .call(
                "queues.get_next_task",
                json!({"queue": queues[0], "task": tasks[1]}),
            )
            .await;
        assert_eq!(popped["entry"]["task"], tasks[0]);
        let moved = json!({"task": tasks[1], "queue": queues[1], "update_execution_queue": false});
        client.call("tasks.enqueue", moved).await;
        let task = client
            .call("tasks.get_by_id", json!({"task": tasks[1]}))
            .await;
        assert_eq!(task["task"]["execution"]["queue"], queues[1]);
    });
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .unwrap();
    serde_json::from_slice(&text).unwrap()
}
