//! What is too much for one answer comes in several, each part of it once: plots, vectors, raw points.

use serde_json::{Value, json};

use crate::server_world::served;

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
