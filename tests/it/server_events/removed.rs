//! Events that are taken away: what is published keeps its own, and no odd one holds a reset up.

use serde_json::{Value, json};

use super::refused;
use crate::server_world::served;

#[test]
fn what_is_published_keeps_its_events_unless_the_request_says_otherwise() {
    served(async |client| {
        let task = client.task("published").await;
        let line = json!({"type": "log", "task": task, "msg": "kept"});
        client.report(&[line]).await;
        client
            .call("tasks.publish", json!({"task": task, "force": true}))
            .await;
        let model = json!({"uri": "http://x/m", "name": "model", "ready": true});
        let model = client.call("models.create", model).await["id"].clone();
        for (call, ask, subcode) in [
            ("events.delete_for_task", json!({"task": task}), 101),
            ("events.clear_task_log", json!({"task": task}), 101),
            ("events.delete_for_model", json!({"model": model}), 201),
        ] {
            assert_eq!(
                refused(&client, call, ask.clone()).await,
                (400, subcode),
                "{call}"
            );
            let mut ask = ask;
            ask["allow_locked"] = true.into();
            client.call(call, ask).await;
        }
    });
}

#[test]
fn a_sample_whose_address_is_no_text_keeps_no_task_from_being_reset() {
    served(async |client| {
        let task = client.task("odd addresses").await;
        let image = |variant: &str, url: Value| {
            json!({"type": "training_debug_image", "task": task, "metric": "m", "variant": variant, "iter": 1,
                   "url": url})
        };
        client
            .report(&[
                image("a", json!(5)),
                image("b", json!({"x": [1]})),
                image("c", Value::Null),
            ])
            .await;
        client.call("tasks.reset", json!({"task": task})).await;
        let left = client
            .call("events.debug_images", json!({"metrics": [{"task": task}]}))
            .await;
        assert_eq!(left["metrics"][0]["iterations"], json!([]));
    });
}
