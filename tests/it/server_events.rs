//! Reading events back in the less usual forms: older versions, several tasks, downloads, and what is published.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server_world::{Client, served};

async fn refused(client: &Client, call: &str, body: Value) -> (u16, u64) {
    let (status, answer) = client.raw(call, body).await;
    (
        status,
        answer["meta"]["result_subcode"].as_u64().unwrap_or(0),
    )
}

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

fn plot(task: &str, metric: &str, variant: &str, iter: u64, text: &str) -> Value {
    json!({"type": "plot", "task": task, "metric": metric, "variant": variant, "iter": iter, "plot_str": text})
}

#[test]
fn large_plots_come_in_several_answers_and_each_once() {
    served(async |client| {
        // Two of them fit into one answer.
        let text = "x".repeat(14 << 20);
        let (one, other) = (client.task("one").await, client.task("other").await);
        for (variant, iter) in [("a", 3), ("b", 2), ("d", 1)] {
            client
                .call("events.add", plot(&one, "m", variant, iter, &text))
                .await;
        }
        client
            .call("events.add", plot(&other, "m", "c", 1, "small"))
            .await;

        let mut ask = json!({"task": one});
        let mut pages: Vec<Vec<Value>> = Vec::new();
        while pages.iter().flatten().count() < 3 {
            let page = client.call("events.get_task_plots", ask.clone()).await;
            assert_eq!(page["total"], 3);
            ask["scroll_id"] = page["scroll_id"].clone();
            let plots = page["plots"].as_array().unwrap();
            assert!(page["returned"] == plots.len() && !plots.is_empty());
            let variants = plots.iter().map(|plot| plot["variant"].clone());
            pages.push(variants.collect());
        }
        assert_eq!(pages, [vec![json!("a"), json!("b")], vec![json!("d")]]);

        let mut ask = json!({"task": one, "event_type": "plot"});
        for (variants, next) in [(vec!["d", "b"], "2"), (vec!["a"], "3")] {
            let page = client.call("events.get_task_events", ask.clone()).await;
            let events = page["events"].as_array().unwrap();
            let shown: Vec<&Value> = events.iter().map(|event| &event["variant"]).collect();
            assert_eq!(shown, variants);
            assert_eq!(
                (&page["scroll_id"], &page["total"]),
                (&json!(next), &json!(3))
            );
            ask["scroll_id"] = page["scroll_id"].clone();
        }

        let mut ask = json!({"tasks": [one, other]});
        let first = client
            .call("events.get_multi_task_plots", ask.clone())
            .await;
        assert_eq!(
            (&first["returned"], &first["total"], &first["scroll_id"]),
            (&json!(2), &json!(4), &json!("2"))
        );
        assert!(first["plots"]["m"]["b"][&one]["2"]["plots"][0].is_object());
        ask["scroll_id"] = first["scroll_id"].clone();
        let second = client.call("events.get_multi_task_plots", ask).await;
        assert_eq!(
            (&second["returned"], &second["total"], &second["scroll_id"]),
            (&json!(2), &json!(4), &json!(""))
        );
        let variants = second["plots"]["m"].as_object().unwrap();
        assert_eq!(variants.keys().collect::<Vec<_>>(), ["d", "c"]);

        // Iterations stay whole, and the scroll goes on with the next one.
        client
            .call("events.add", plot(&one, "m", "e", 2, &text))
            .await;
        let mut ask = json!({"metrics": [{"task": one}], "iters": 5});
        let mut shown = Vec::new();
        for scroll in ["2", "7"] {
            let page = client.call("events.plots", ask.clone()).await;
            assert_eq!(page["scroll_id"], scroll);
            for iteration in page["metrics"][0]["iterations"].as_array().unwrap() {
                shown.push((
                    iteration["iter"].as_u64().unwrap(),
                    iteration["events"].as_array().unwrap().len(),
                ));
            }
            ask["scroll_id"] = page["scroll_id"].clone();
        }
        assert_eq!(shown, [(3, 1), (2, 2), (1, 1)]);
    });
}

#[test]
fn plots_that_are_asked_for_are_found_behind_any_number_of_others() {
    served(async |client| {
        let task = client.task("many").await;
        client.report(&[plot(&task, "asked", "v", 1, "{}")]).await;
        let others: Vec<Value> = (0..10_001)
            .map(|i| plot(&task, "other", &format!("v{i}"), 2, "{}"))
            .collect();
        client.report(&others).await;
        let ask = json!({"task": task, "metrics": [{"metric": "asked"}]});
        let found = client.call("events.get_task_plots", ask).await;
        assert_eq!(
            (&found["total"], &found["plots"][0]["metric"]),
            (&json!(1), &json!("asked"))
        );
    });
}

#[test]
fn vectors_of_many_numbers_come_in_several_answers() {
    served(async |client| {
        let task = client.task("vectors").await;
        // Of 3 MB each as text: one answer holds one.
        let values: Vec<u32> = (0..300_000).map(|i| 100_000_000 + i).collect();
        for iter in 0..3 {
            let event = json!({"type": "training_stats_vector", "task": task, "metric": "m", "variant": "v",
                               "iter": iter, "values": values});
            client.call("events.add", event).await;
        }
        let mut ask = json!({"task": task, "metric": "m", "variant": "v"});
        for iter in 0..3 {
            let page = client
                .call("events.vector_metrics_iter_histogram", ask.clone())
                .await;
            assert_eq!(page["iterations"], json!([iter]));
            assert_eq!(page["vectors"][0].as_array().unwrap().len(), values.len());
            let last = iter == 2;
            assert_eq!(page.get("scroll_id").is_none(), last, "{iter}");
            if !last {
                ask["scroll_id"] = page["scroll_id"].clone();
            }
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
fn raw_points_go_on_over_the_ends_of_curves() {
    served(async |client| {
        let task = client.task("raw").await;
        let mut points = Vec::new();
        for variant in ["a", "b", "c", "d"] {
            for iter in 0..4 {
                let value = if variant == "b" && iter == 1 {
                    Value::Null
                } else {
                    json!(iter)
                };
                points.push(json!({"type": "training_stats_scalar", "task": task, "metric": "m", "variant": variant,
                                   "iter": iter, "value": value}));
            }
        }
        client.report(&points).await;
        for counts in [true, false] {
            let mut ask = json!({"task": task, "metric": {"metric": "m"}, "batch_size": 6, "count_total": counts});
            let mut shown: Vec<(String, Value)> = Vec::new();
            for returned in [6, 6, 3, 0] {
                let page = client
                    .call("events.scalar_metrics_iter_raw", ask.clone())
                    .await;
                assert_eq!(page["returned"], returned);
                let total = if counts { json!(15) } else { Value::Null };
                assert_eq!(page["total"], total);
                for (variant, curve) in page["variants"].as_object().unwrap() {
                    for x in curve["x"].as_array().unwrap() {
                        shown.push((variant.clone(), x.clone()));
                    }
                }
                ask["scroll_id"] = page["scroll_id"].clone();
            }
            let expected: Vec<(String, Value)> = points
                .iter()
                .filter(|point| !point["value"].is_null())
                .map(|point| {
                    let variant = point["variant"].as_str().unwrap();
                    (variant.to_owned(), point["iter"].clone())
                })
                .collect();
            assert_eq!(shown, expected);
        }
    });
}
