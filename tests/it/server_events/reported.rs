//! What a batch of events stores, line by line, and which errors it tells.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server_world::served;

#[test]
fn lines_that_are_wrong_each_in_a_way_of_its_own_hold_nobody_up() {
    const LINES: usize = 100_000;
    served(async |client| {
        let task = client.task("wrong").await;
        let wrong = |i: usize| json!({"type": format!("odd {i}"), "task": task}).to_string();
        let mut lines: Vec<String> = (0..LINES).map(wrong).collect();
        lines.push(wrong(7));
        lines.push(json!({"type": "log", "task": task, "msg": "right"}).to_string());
        let sent = client.batch(lines.join("\n")).send();
        let answer = tokio::time::timeout(Duration::from_secs(60), sent).await;
        let answer: Value = answer.unwrap().unwrap().json().await.unwrap();
        let data = &answer["data"];
        assert_eq!(
            (&data["added"], &data["errors"]),
            (&json!(1), &json!(LINES + 1))
        );
        let info = data["errors_info"].as_object().unwrap();
        assert_eq!(info.len(), LINES);
        assert_eq!(info["Invalid event type odd 7"], 2);
    });
}

#[test]
fn events_of_a_model_and_of_a_task_with_one_id_are_told_apart() {
    served(async |client| {
        let task = client.task("one id").await;
        let of_task = json!({"type": "log", "task": task, "msg": "of the task"});
        // There is no such model.
        let of_model =
            json!({"type": "log", "task": task, "msg": "of a model", "model_event": true});
        for lines in [
            [&of_model, &of_task, &of_task],
            [&of_task, &of_model, &of_task],
        ] {
            let lines = lines.map(Value::to_string).join("\n");
            let answer = client.batch(lines).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            let data = &answer["data"];
            assert_eq!(
                (&data["added"], &data["errors"]),
                (&json!(2), &json!(1)),
                "{answer}"
            );
        }
        let found = client
            .call("events.get_task_log", json!({"task": task}))
            .await;
        assert_eq!(found["total"], 4);
    });
}
