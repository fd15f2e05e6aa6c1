//! Tags: how they are put on many objects at once, and which of them hide a queue.

use serde_json::json;
use trainyard::server::Options;

use crate::server_world::{InProcess, served};

#[test]
fn tags_are_put_on_and_taken_off_many_at_once() {
    served(async |client| {
        let new = json!({"name": "tagged", "type": "training", "tags": ["a", "b"]});
        let task = client.call("tasks.create", new).await["id"].clone();
        let model = json!({"uri": "http://x/m", "name": "model", "tags": ["b"]});
        let model = client.call("models.create", model).await["id"].clone();
        for (call, id, get, kind) in [
            ("tasks.update_tags", &task, "tasks.get_by_id", "task"),
            ("models.update_tags", &model, "models.get_by_id", "model"),
        ] {
            let ask = json!({"ids": [id, "nobody"], "add_tags": ["c", "b"], "remove_tags": ["a"]});
            assert_eq!(client.call(call, ask).await["updated"], 2);
            let found = client.call(get, json!({kind: id})).await;
            assert_eq!(found[kind]["tags"], json!(["b", "c"]));
            let (status, answer) = client.raw(call, json!({"ids": [id]})).await;
            assert_eq!(
                (status, &answer["meta"]["result_subcode"]),
                (400, &json!(12))
            );
        }
    });
}

#[test]
fn queues_are_hidden_by_the_tags_that_are_set() {
    let server = InProcess::with(|data| Options {
        hidden_queue_tags: vec!["secret".to_owned()],
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        for tag in ["secret", "k8s-glue"] {
            let new = json!({"name": format!("queue {tag}"), "system_tags": [tag]});
            client.call("queues.create", new).await;
        }
        let shown = client
            .call("queues.get_all", json!({"only_fields": ["name"]}))
            .await;
        let names: Vec<&str> = shown["queues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|queue| queue["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["default", "queue k8s-glue"]);
        let all = client
            .call("queues.get_all", json!({"search_hidden": true}))
            .await;
        assert_eq!(all["queues"].as_array().unwrap().len(), 3);
    });
}
