//! Workers, their statistics, logs from both ends, curves thinned out, samples: what UI and SDK read of large runs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use serde_json::{Value, json};

use crate::server_world::{Client, served};

async fn report(client: &Client, worker: &str, at: i64, task: Option<&str>, stats: Value) {
    let ask =
        json!({"worker": worker, "timestamp": at * 1000, "task": task, "machine_stats": stats});
    client.call("workers.status_report", ask).await;
}

#[test]
fn statistics_are_aggregated_by_worker_and_by_step() {
    served(async |client| {
        let task = client.task("busy").await;
        // Two steps of 100 s, and an unfinished third.
        let begin = (jiff::Timestamp::now().as_second() - 1000) / 100 * 100;
        for (at, usage) in [
            (0, [10.0, 30.0]),
            (50, [20.0, 40.0]),
            (110, [50.0, 0.0]),
            (205, [9.0, 9.0]),
        ] {
            let stats = json!({"gpu_usage": usage, "cpu_usage": [5.0], "memory_used": 100.0});
            report(
                &client,
                "host:gpu0,1",
                begin + at,
                (at == 110).then_some(task.as_str()),
                stats,
            )
            .await;
        }
        report(
            &client,
            "other:0",
            begin + 10,
            None,
            json!({"cpu_usage": [50.0]}),
        )
        .await;

        let ask = json!({
            "worker_ids": ["host:gpu0,1"], "from_date": begin, "to_date": begin + 210, "interval": 100,
            "items": [{"key": "gpu_usage", "aggregation": "avg"}, {"key": "gpu_usage", "aggregation": "max"}],
            "split_by_resource": true,
        });
        let stats = client.call("workers.get_stats", ask).await;
        let metrics = stats["workers"][0]["metrics"].as_array().unwrap();
        assert_eq!(metrics.len(), 1, "one metric, with both aggregations");
        assert_eq!(metrics[0]["stats"][1]["aggregation"], "max");
        let dates = json!([begin * 1000, (begin + 100) * 1000]);
        assert_eq!(
            metrics[0]["stats"][0]["dates"], dates,
            "the unfinished step is left away"
        );
        // Nought is not stored: the mean of the second step is that of one GPU.
        assert_eq!(metrics[0]["stats"][0]["values"], json!([25.0, 50.0]));
        assert_eq!(
            metrics[0]["stats"][0]["resource_series"],
            json!([{"name": "0", "values": [15.0, 50.0]}, {"name": "1", "values": [35.0, 0.0]}])
        );
        assert_eq!(metrics[0]["stats"][1]["values"], json!([40.0, 50.0]));

        let ask = json!({"from_date": begin, "to_date": begin + 210, "interval": 100});
        let activity = client.call("workers.get_activity_report", ask).await;
        assert_eq!(activity["total"]["counts"], json!([2, 1]));
        assert_eq!(activity["active"]["counts"], json!([1]));
        assert_eq!(activity["active"]["dates"], json!([(begin + 100) * 1000]));

        let keys = client.call("workers.get_metric_keys", json!({})).await;
        assert_eq!(
            keys["categories"],
            json!([
                {"name": "cpu", "metric_keys": ["cpu_usage"]},
                {"name": "gpu", "metric_keys": ["gpu_usage"]},
                {"name": "memory", "metric_keys": ["memory_used"]},
            ])
        );
    });
}

#[test]
fn a_report_stores_so_many_metrics_and_none_of_the_future() {
    served(async |client| {
        let now = jiff::Timestamp::now().as_second();
        let mut stats = serde_json::Map::new();
        stats.insert("x".repeat(201), json!(1.0));
        stats.extend((0..150).map(|i| (format!("gpu_{i:03}"), json!([1.0]))));
        report(
            &client,
            "ahead:0",
            now + 365 * 24 * 3600,
            None,
            stats.into(),
        )
        .await;
        let keys = client.call("workers.get_metric_keys", json!({})).await;
        let keys = keys["categories"].as_array().unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0]["metric_keys"].as_array().unwrap().len(), 100);
        // The sample stands where the report came.
        let ask = json!({"from_date": now - 100, "to_date": now + 1000, "interval": 100});
        let activity = client.call("workers.get_activity_report", ask).await;
        assert_eq!(activity["total"]["counts"], json!([1]));
    });
}

#[test]
fn a_registration_that_is_not_renewed_ends() {
    served(async |client| {
        let ask = json!({"worker": "short:0", "timeout": 1, "queues": []});
        client.call("workers.register", ask).await;
        let ask = json!({"worker": "long:0", "timeout": 600, "queues": []});
        client.call("workers.register", ask).await;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let all = client
                .call("workers.get_all", json!({"last_seen": 0}))
                .await;
            let names: Vec<&str> = all["workers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|worker| worker["id"].as_str().unwrap())
                .collect();
            if names == ["long:0"] {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{names:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
}

async fn page(client: &Client, task: &str, more: Value) -> Vec<i64> {
    let mut ask = json!({"task": task, "batch_size": 3});
    ask.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let page = client.call("events.get_task_log", ask).await;
    assert_eq!(page["total"], 12);
    let events = page["events"].as_array().unwrap();
    assert_eq!(page["returned"], events.len());
    events
        .iter()
        .map(|event| event["timestamp"].as_i64().unwrap())
        .collect()
}

#[test]
fn a_log_is_read_from_both_ends_whatever_the_order_of_its_arrival() {
    served(async |client| {
        let task = client.task("logged").await;
        // Batches overlap; the moment 50 has three lines in two of them.
        for batch in [
            vec![10, 50, 90, 50],
            vec![20, 50, 30],
            vec![100, 40, 80, 70, 60],
        ] {
            let lines: Vec<Value> = batch
                .iter()
                .map(|at| json!({"type": "log", "task": task, "msg": "x", "timestamp": at}))
                .collect();
            client.report(&lines).await;
        }
        assert_eq!(page(&client, &task, json!({})).await, [100, 90, 80]);
        assert_eq!(
            page(&client, &task, json!({"order": "asc"})).await,
            [80, 90, 100]
        );
        assert_eq!(
            page(&client, &task, json!({"from_timestamp": 80})).await,
            [70, 60, 50, 50, 50]
        );
        assert_eq!(
            page(&client, &task, json!({"from_timestamp": 50})).await,
            [40, 30, 20]
        );
        assert_eq!(
            page(&client, &task, json!({"navigate_earlier": false})).await,
            [10, 20, 30]
        );
        let on = json!({"navigate_earlier": false, "from_timestamp": 30});
        assert_eq!(page(&client, &task, on).await, [40, 50, 50, 50]);
        let on = json!({"navigate_earlier": false, "from_timestamp": 90, "order": "desc"});
        assert_eq!(page(&client, &task, on).await, [100]);

        let text = client
            .request(reqwest::Method::POST, "events.download_task_log")
            .json(&json!({"task": task, "line_type": "text", "line_format": "{timestamp} {msg}"}))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(text.starts_with("10 x\n20 x\n30 x\n40 x\n50 x\n"), "{text}");

        let cleared = client
            .call(
                "events.clear_task_log",
                json!({"task": task, "threshold_sec": 0}),
            )
            .await;
        assert_eq!(cleared["deleted"], 12);
    });
}

#[test]
fn a_long_curve_comes_as_means_and_as_all_its_points() {
    served(async |client| {
        let task = client.task("curved").await;
        let points: Vec<Value> = (0..1000)
            .map(|i| {
                json!({"type": "training_stats_scalar", "task": task, "metric": "loss", "variant": "train",
                       "iter": i, "value": i, "timestamp": 1_000_000 + i * 10})
            })
            .collect();
        client.report(&points).await;
        let curve = |answer: &Value| {
            let curve = &answer["loss"]["train"];
            (curve["x"].clone(), curve["y"].clone())
        };
        let ask = json!({"task": task, "samples": 4});
        let thin = client
            .call("events.scalar_metrics_iter_histogram", ask)
            .await;
        assert_eq!(
            curve(&thin),
            (
                json!([0, 250, 500, 750]),
                json!([124.5, 374.5, 624.5, 874.5])
            )
        );
        let whole = client
            .call(
                "events.scalar_metrics_iter_histogram",
                json!({"task": task, "key": "iso_time"}),
            )
            .await;
        let (x, y) = curve(&whole);
        assert_eq!(
            (x.as_array().unwrap().len(), y.as_array().unwrap().len()),
            (1000, 1000)
        );
        assert_eq!(x[0], "1970-01-01T00:16:40.000000+00:00");

        let mut ask = json!({"task": task, "metric": {"metric": "loss"}, "batch_size": 600, "count_total": true});
        let first = client
            .call("events.scalar_metrics_iter_raw", ask.clone())
            .await;
        ask["scroll_id"] = first["scroll_id"].clone();
        let second = client.call("events.scalar_metrics_iter_raw", ask).await;
        assert_eq!(
            (&first["returned"], &second["returned"], &second["total"]),
            (&json!(600), &json!(400), &json!(1000))
        );
        assert_eq!(second["variants"]["train"]["x"][0], 600);

        // The same iteration again overwrites: neither the number of points nor the mean counts it twice, and one without
        // a value takes it out of both.
        for (value, count, mean) in [
            (json!(1000), 1000, 500.5),
            (Value::Null, 999, 500.0),
            (Value::Null, 999, 500.0),
            (json!(1000), 1000, 500.5),
        ] {
            let again = json!({"type": "training_stats_scalar", "task": task, "metric": "loss", "variant": "train",
                               "iter": 0, "value": value});
            client.call("events.add", again).await;
            let found = client.call("tasks.get_by_id", json!({"task": task})).await;
            let metrics = found["task"]["last_metrics"].as_object().unwrap();
            let variants = metrics.values().next().unwrap().as_object().unwrap();
            let last = variants.values().next().unwrap();
            assert_eq!(
                (&last["count"], &last["mean_value"], &last["max_value"]),
                (&json!(count), &json!(mean), &json!(1000.0)),
                "{value}"
            );
        }
    });
}

#[test]
fn samples_and_plots_are_walked_one_by_one() {
    served(async |client| {
        let task = client.task("seen").await;
        for iter in 0..3 {
            for variant in ["a", "b"] {
                let image = json!({"type": "training_debug_image", "task": task, "metric": "m", "variant": variant,
                                   "iter": iter, "url": format!("http://x/{variant}{iter}.png")});
                client.call("events.add", image).await;
                let plot = json!({"type": "plot", "task": task, "metric": "p", "variant": variant, "iter": iter,
                                  "plot_str": format!("{{\"i\":{iter}}}")});
                client.call("events.add", plot).await;
            }
        }
        let ask = json!({"task": task, "metric": "m", "variant": "b"});
        let mut seen = client.call("events.get_debug_image_sample", ask).await;
        let mut urls = Vec::new();
        while seen["event"].is_object() {
            urls.push(seen["event"]["url"].as_str().unwrap().to_owned());
            let ask =
                json!({"task": task, "scroll_id": seen["scroll_id"], "navigate_earlier": true});
            seen = client.call("events.next_debug_image_sample", ask).await;
        }
        let wanted =
            ["b2", "a2", "b1", "a1", "b0", "a0"].map(|name| format!("http://x/{name}.png"));
        assert_eq!(urls, wanted);

        let ask = json!({"task": task, "metric": "p", "iteration": 1});
        let plot = client.call("events.get_plot_sample", ask).await;
        assert_eq!(
            plot["events"].as_array().unwrap().len(),
            2,
            "all variants of the iteration"
        );
        assert_eq!(
            (&plot["min_iteration"], &plot["max_iteration"]),
            (&json!(0), &json!(2))
        );
        let ask = json!({"task": task, "scroll_id": plot["scroll_id"], "navigate_earlier": false});
        let next = client.call("events.next_plot_sample", ask).await;
        assert_eq!(next["events"][0]["iter"], 2);

        let ask = json!({"metrics": [{"task": task, "metric": "p"}], "iters": 2});
        let plots = client.call("events.plots", ask).await;
        assert_eq!(
            plots["metrics"][0]["iterations"].as_array().unwrap().len(),
            2
        );
    });
}

#[test]
fn entries_move_inside_their_queue() {
    served(async |client| {
        let queue = client
            .call("queues.create", json!({"name": "ordered"}))
            .await["id"]
            .clone();
        let mut tasks = Vec::new();
        for i in 0..5 {
            let task = client.task(&format!("task {i}")).await;
            client
                .call("tasks.enqueue", json!({"task": task, "queue": queue}))
                .await;
            tasks.push(task);
        }
        for (call, task, count, position, order) in [
            ("queues.move_task_to_front", 3, 0, 0, [3, 0, 1, 2, 4]),
            ("queues.move_task_to_front", 4, 0, 0, [4, 3, 0, 1, 2]),
            ("queues.move_task_to_back", 3, 0, 4, [4, 0, 1, 2, 3]),
            ("queues.move_task_forward", 2, 2, 1, [4, 2, 0, 1, 3]),
            ("queues.move_task_backward", 4, 3, 3, [2, 0, 1, 4, 3]),
            ("queues.move_task_backward", 4, 99, 4, [2, 0, 1, 3, 4]),
            ("queues.move_task_forward", 0, 99, 0, [0, 2, 1, 3, 4]),
        ] {
            let ask = json!({"queue": queue, "task": tasks[task], "count": count});
            let moved = client.call(call, ask).await;
            assert_eq!(moved["position"], position, "{call} {task}");
            let found = client.call("queues.get_all", json!({"id": [queue]})).await;
            let entries: Vec<&Value> = found["queues"][0]["entries"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| &entry["task"])
                .collect();
            assert_eq!(entries, order.map(|i| &tasks[i]), "{call} {task}");
        }
    });
}

#[test]
fn a_queue_is_neither_made_nor_renamed_to_a_name_that_is_too_short() {
    served(async |client| {
        let queue = client.call("queues.create", json!({"name": "long"})).await["id"].clone();
        for (call, ask) in [
            ("queues.create", json!({"name": "ab"})),
            ("queues.update", json!({"queue": queue, "name": "ab"})),
        ] {
            let (status, answer) = client.raw(call, ask).await;
            assert_eq!(
                (status, &answer["meta"]["result_subcode"]),
                (400, &json!(800)),
                "{call}"
            );
        }
        client
            .call("queues.update", json!({"queue": queue, "name": "abc"}))
            .await;
    });
}

#[test]
fn queues_tell_lengths_and_waiting_times_each_and_all_together() {
    served(async |client| {
        let mut queues = Vec::new();
        for (name, entries) in [("first", 2), ("second", 1)] {
            let queue = client.call("queues.create", json!({"name": name})).await["id"].clone();
            for n in 0..entries {
                let task = client.task(&format!("{name} {n}")).await;
                client
                    .call("tasks.enqueue", json!({"task": task, "queue": queue}))
                    .await;
            }
            client
                .call("queues.get_next_task", json!({"queue": queue}))
                .await;
            queues.push(queue);
        }
        let now = jiff::Timestamp::now().as_second();
        let span = json!({"from_date": now - 3600, "to_date": now + 3600, "interval": 7200});
        let mut ask = span.clone();
        ask["queue_ids"] = json!(queues);
        let each = client.call("queues.get_queue_metrics", ask).await;
        let each = each["queues"].as_array().unwrap().clone();
        assert_eq!(each.len(), 2, "{each:?}");
        for queue in &each {
            assert!(queues.contains(&queue["queue"]), "{queue}");
            // In ms, as all moments of charts.
            let date = queue["dates"][0].as_i64().unwrap();
            assert!((now - 7200) * 1000 <= date && date <= now * 1000, "{queue}");
            assert!(
                queue["avg_waiting_times"][0].as_f64().unwrap() < 60.0,
                "{queue}"
            );
        }
        let all = client.call("queues.get_queue_metrics", span.clone()).await;
        assert_eq!(all["queues"].as_array().unwrap().len(), 1);
        assert_eq!(all["queues"][0]["queue"], "total");
        let mut ask = span;
        ask["to_date"] = ask["from_date"].clone();
        assert_eq!(client.raw("queues.get_queue_metrics", ask).await.0, 400);
    });
}
