//! Reading events back in the less usual forms: names and vectors, several tasks, older versions, downloads.

use serde_json::{Value, json};

use super::refused;
use crate::server_world::served;

#[test]
fn names_and_vectors_come_as_the_schemas_of_the_clients_say() {
    served(async |client| {
        let task = client.task("named").await;
        let event = |kind: &str, metric: &str, variant: &str, iter: u64, more: Value| {
            let mut event = json!({"type": kind, "task": task, "metric": metric, "variant": variant, "iter": iter});
            event
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            event
        };
        let scalar = "training_stats_scalar";
        client
            .report(&[
                event(scalar, "loss", "train", 0, json!({"value": 1.0})),
                event(scalar, "loss", "test", 0, json!({"value": 2.0})),
                event(scalar, "loss", "test", 1, json!({"value": 3.0})),
                event(scalar, "accuracy", "test", 0, json!({"value": 0.5})),
                event(
                    "training_stats_vector",
                    "weights",
                    "layer",
                    2,
                    json!({"values": [1, 2]}),
                ),
                event(
                    "training_stats_vector",
                    "weights",
                    "layer",
                    1,
                    json!({"values": [3, 4]}),
                ),
            ])
            .await;
        let names = client
            .call(
                "events.get_scalar_metrics_and_variants",
                json!({"task": task}),
            )
            .await;
        assert_eq!(
            names,
            json!({"metrics": {"accuracy": ["test"], "loss": ["test", "train"]}})
        );
        let names = client
            .call(
                "events.get_vector_metrics_and_variants",
                json!({"task": task}),
            )
            .await;
        assert_eq!(names, json!({"metrics": {"weights": ["layer"]}}));
        let ask = json!({"task": task, "metric": "weights", "variant": "layer"});
        let vectors = client
            .call("events.vector_metrics_iter_histogram", ask)
            .await;
        let expected = json!({"metric": "weights", "variant": "layer", "iterations": [1, 2], "vectors": [[3, 4], [1, 2]]});
        assert_eq!(vectors, expected);
        let names = client
            .call(
                "events.get_multi_task_metrics",
                json!({"tasks": [task], "event_type": scalar}),
            )
            .await;
        assert_eq!(
            names["metrics"],
            json!([{"metric": "accuracy", "variants": ["test"]}, {"metric": "loss", "variants": ["test", "train"]}])
        );
        let names = client
            .call("events.get_multi_task_metrics", json!({"tasks": [task]}))
            .await;
        assert_eq!(names["metrics"].as_array().unwrap().len(), 3);
        let points = client
            .call(
                "events.get_scalar_metric_data",
                json!({"task": task, "metric": "loss"}),
            )
            .await;
        let iterations: Vec<&Value> = points["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| &point["iter"])
            .collect();
        assert_eq!(iterations, [1, 0, 0]);
    });
}

#[test]
fn several_tasks_are_named_by_a_list_or_with_commas_and_all_must_be_known() {
    served(async |client| {
        let (one, other) = (client.task("one").await, client.task("other").await);
        for task in [&one, &other] {
            let point = json!({"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v", "iter": 1, "value": 2});
            client.report(&[point]).await;
        }
        let call = "events.multi_task_scalar_metrics_iter_histogram";
        let curves = client
            .call(call, json!({"tasks": format!("{one}, {other}")}))
            .await;
        let named = |task: &str| curves["metrics"]["m"]["v"][task]["name"].clone();
        assert_eq!((named(&one), named(&other)), (json!("one"), json!("other")));
        for call in [
            call,
            "events.get_multi_task_plots",
            "events.get_task_single_value_metrics",
            "events.get_multi_task_metrics",
        ] {
            assert_eq!(
                refused(&client, call, json!({"tasks": [one, "nobody"]})).await,
                (400, 101),
                "{call}"
            );
        }
    });
}

#[test]
fn more_tasks_than_can_be_compared_are_refused() {
    served(async |client| {
        let task = client.task("one").await;
        let many = vec![task.as_str(); 1001];
        for call in [
            "events.multi_task_scalar_metrics_iter_histogram",
            "events.get_multi_task_plots",
        ] {
            for tasks in [json!(many), json!(many.join(","))] {
                assert_eq!(
                    refused(&client, call, json!({"tasks": tasks})).await,
                    (400, 12),
                    "{call}"
                );
            }
            client.call(call, json!({"tasks": many[..1000]})).await;
        }
    });
}

#[test]
fn old_versions_read_samples_and_logs_in_their_own_forms() {
    served(async |client| {
        let task = client.task("old").await;
        let mut lines: Vec<Value> = (0..3)
            .map(|i| json!({"type": "log", "task": task, "msg": format!("line {i}"), "timestamp": 1000 + i}))
            .collect();
        for (variant, iter) in [("a", 1), ("a", 2), ("b", 1)] {
            lines.push(json!({"type": "training_debug_image", "task": task, "metric": "m", "variant": variant,
                              "iter": iter, "key": "k", "url": format!("http://x/{variant}{iter}")}));
        }
        client.report(&lines).await;
        let urls = |answer: &Value| -> Vec<String> {
            let images = answer["images"].as_array().unwrap();
            images
                .iter()
                .map(|image| image["url"].as_str().unwrap().to_owned())
                .collect()
        };
        let newest = client
            .call("v2.4/events.debug_images", json!({"task": task}))
            .await;
        assert_eq!(urls(&newest), ["http://x/a2"]);
        assert_eq!(
            (&newest["task"], &newest["total"], &newest["returned"]),
            (&json!(task), &json!(3), &json!(1))
        );
        let of_each = client
            .call("v1.5/events.debug_images", json!({"task": task}))
            .await;
        assert_eq!(urls(&of_each), ["http://x/a2", "http://x/b1"]);
        let now = client
            .call("events.debug_images", json!({"metrics": [{"task": task}]}))
            .await;
        assert_eq!(now["metrics"][0]["iterations"][0]["iter"], 2);

        let said = |answer: &Value| -> Vec<String> {
            let events = answer["events"].as_array().unwrap();
            events
                .iter()
                .map(|event| event["msg"].as_str().unwrap().replace("line ", ""))
                .collect()
        };
        for (version, more, expected) in [
            ("v2.4", json!({}), ["1", "0"]),
            ("v2.4", json!({"order": "asc"}), ["0", "1"]),
            ("v2.4", json!({"from": "tail"}), ["2", "1"]),
            ("v2.4", json!({"from": "tail", "order": "asc"}), ["1", "2"]),
            ("v1.5", json!({}), ["2", "1"]),
            ("v1.5", json!({"order": "asc"}), ["0", "1"]),
        ] {
            let mut ask = json!({"task": task, "batch_size": 2});
            ask.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let page = client
                .call(&format!("{version}/events.get_task_log"), ask.clone())
                .await;
            assert_eq!(said(&page), expected, "{version} {ask}");
            ask["scroll_id"] = page["scroll_id"].clone();
            let rest = client
                .call(&format!("{version}/events.get_task_log"), ask.clone())
                .await;
            assert_eq!(said(&rest).len(), 1, "{version} {ask}: the last page");
        }
    });
}

#[test]
fn a_log_is_downloaded_as_json_or_in_the_form_asked_for() {
    served(async |client| {
        let task = client.task("downloaded").await;
        client.report(&[json!({"type": "log", "task": task, "msg": "a {b}\n", "level": "INFO", "worker": "w", "timestamp": 5})]).await;
        let download = async |more: Value| {
            let mut ask = json!({"task": task});
            ask.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let sent = client
                .request(reqwest::Method::POST, "events.download_task_log")
                .json(&ask)
                .send();
            sent.await.unwrap().text().await.unwrap()
        };
        let line: Value = serde_json::from_str(&download(json!({})).await).unwrap();
        assert_eq!(
            (&line["msg"], &line["asctime"], &line["level"]),
            (&json!("a {b}\n"), &json!(5), &json!("INFO"))
        );
        assert!(
            line.get("type").is_none()
                && line.get("task").is_none()
                && line.get("timestamp").is_none(),
            "{line}"
        );
        assert_eq!(
            download(json!({"line_type": "text"})).await,
            "5 w INFO a {b}\n"
        );
        let form = json!({"line_type": "text", "line_format": "{level}: {msg}\n"});
        assert_eq!(download(form).await, "INFO: a {b}\n");
        for format in ["{nothing}", "{msg"] {
            let ask = json!({"task": task, "line_type": "text", "line_format": format});
            assert_eq!(
                refused(&client, "events.download_task_log", ask).await,
                (400, 16),
                "{format}"
            );
        }
    });
}
