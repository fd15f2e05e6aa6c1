//! The task document: what counts as a change, what as a sign of life, and in which form its parts are kept.

use serde_json::{Value, json};

use crate::server_world::{Client, served};

async fn read(client: &Client, task: &str) -> Value {
    client.call("tasks.get_by_id", json!({"task": task})).await["task"].take()
}

/// Calls one endpoint; whether that moved `last_update`, and whether it moved `last_change`.
async fn moved(client: &Client, task: &str, call: &str, ask: Value) -> (bool, bool) {
    let before = read(client, task).await;
    client.call(call, ask).await;
    let after = read(client, task).await;
    let moved = |key: &str| {
        assert!(after[key].is_string(), "{call}: {after}");
        after[key] != before[key]
    };
    (moved("last_update"), moved("last_change"))
}

/// A glue tells by `last_change` whether a run is silent, the server by `last_update`.
#[test]
fn a_sign_of_life_is_a_change_and_a_new_name_is_no_sign_of_life() {
    served(async |client| {
        let id = client.task("alive").await;
        client.call("tasks.started", json!({"task": id})).await;
        let report = json!({"worker": "w:0", "timestamp": 1, "task": id});
        let line = json!({"type": "log", "task": id, "msg": "x"});
        let edit = |members: Value| {
            let mut ask = json!({"task": id, "force": true});
            ask.as_object_mut()
                .unwrap()
                .extend(members.as_object().unwrap().clone());
            ask
        };
        for (call, ask, alive) in [
            ("tasks.ping", json!({"task": id}), true),
            ("events.add", line, true),
            ("workers.status_report", report, true),
            ("tasks.edit", edit(json!({"runtime": {"a": 1}})), true),
            (
                "tasks.edit",
                edit(json!({"name": "other", "runtime": {}})),
                true,
            ),
            (
                "tasks.edit",
                edit(json!({"name": "another", "tags": ["a"]})),
                false,
            ),
            (
                "tasks.update",
                json!({"task": id, "status_message": "told"}),
                false,
            ),
            (
                "tasks.update_tags",
                json!({"ids": [id], "add_tags": ["b"]}),
                false,
            ),
            (
                "tasks.move",
                json!({"ids": [id], "project_name": "elsewhere"}),
                false,
            ),
            ("tasks.unarchive", json!({"tasks": [id]}), false),
        ] {
            let told = format!("{call} {ask}");
            let seen = moved(&client, &id, call, ask).await;
            assert_eq!(seen, (alive, true), "{told}");
        }
    });
}

#[test]
fn values_of_hyperparameters_are_kept_as_text_whichever_call_brings_them() {
    served(async |client| {
        let sections = json!({"Args": {"lr": {"value": 0.1}, "on": {"value": true}}});
        let new = json!({"name": "made", "type": "training", "hyperparams": sections});
        let made = client.call("tasks.create", new).await["id"].clone();
        let copy = json!({"task": made, "new_task_hyperparams": sections});
        let copy = client.call("tasks.clone", copy).await["id"].clone();
        let edited = client.task("edited").await;
        let edit = json!({"task": edited, "hyperparams": sections});
        client.call("tasks.edit", edit).await;
        for task in [
            made.as_str().unwrap(),
            copy.as_str().unwrap(),
            edited.as_str(),
        ] {
            let found = read(&client, task).await;
            let args = &found["hyperparams"]["Args"];
            assert_eq!(args["lr"]["value"], "0.1", "{args}");
            assert_eq!(args["on"]["value"], "true", "{args}");
        }
    });
}

#[test]
fn an_artifact_goes_in_or_comes_out() {
    served(async |client| {
        let task = client.task("artifacts").await;
        for (mode, wanted) in [("input", 200), ("output", 200), ("sideways", 400)] {
            let item = json!({"key": mode, "type": "custom", "mode": mode});
            let ask = json!({"task": task, "artifacts": [item]});
            let (status, answer) = client.raw("tasks.add_or_update_artifacts", ask).await;
            assert_eq!(status, wanted, "{answer}");
            if wanted == 400 {
                assert_eq!(answer["meta"]["result_subcode"], 12, "{answer}");
            }
        }
        let found = read(&client, &task).await;
        let kept = found["execution"]["artifacts"].as_array().unwrap();
        assert_eq!(kept.len(), 2, "{found}");
    });
}
