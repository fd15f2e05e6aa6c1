//! Settings: when silent runs, old logs and the files of a reset run go, and how large a file may be.

use std::time::{Duration, Instant};

use serde_json::json;
use trainyard::server::Options;

use crate::server_world::InProcess;

#[test]
fn what_is_silent_or_old_goes_as_it_is_set() {
    let server = InProcess::with(|data| Options {
        silence: Duration::from_secs(15),
        watch: Duration::from_millis(300),
        keep_logs: Some(1),
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let task = client
            .call(
                "tasks.create",
                json!({"name": "silent", "type": "training"}),
            )
            .await["id"]
            .clone();
        let now = jiff::Timestamp::now().as_millisecond();
        for (text, at) in [("old", now - 2 * 24 * 3_600_000), ("new", now)] {
            let line = json!({"type": "log", "task": task, "msg": text, "timestamp": at});
            client.call("events.add", line).await;
        }
        client.call("tasks.started", json!({"task": task})).await;
        // One that tells nothing but that it is there, and one whose worker tells it.
        let (pings, worked) = (client.task("pings").await, client.task("worked").await);
        for alive in [&pings, &worked] {
            client.call("tasks.started", json!({"task": alive})).await;
        }
        let deadline = Instant::now() + Duration::from_secs(90);
        let ended = loop {
            client.call("tasks.ping", json!({"task": pings})).await;
            let status = json!({"worker": "w:0", "timestamp": 1, "task": worked});
            client.call("workers.status_report", status).await;
            let found = client.call("tasks.get_by_id", json!({"task": task})).await;
            if found["task"]["status"] != "in_progress" || Instant::now() > deadline {
                break found["task"].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(ended["status"], "stopped");
        assert_eq!(ended["status_reason"], "Forced stop (non-responsive)");
        for alive in [&pings, &worked] {
            let found = client.call("tasks.get_by_id", json!({"task": alive})).await;
            assert_eq!(
                found["task"]["status"], "in_progress",
                "{}",
                found["task"]["name"]
            );
        }
        let log = client
            .call("events.get_task_log", json!({"task": task}))
            .await;
        assert_eq!(log["total"], 1);
        assert_eq!(log["events"][0]["msg"], "new");
    });
}

#[test]
fn a_reset_takes_the_files_of_the_run_away_and_nothing_else() {
    let server = InProcess::with(|data| Options {
        linger: Duration::ZERO,
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let task = client
            .call("tasks.create", json!({"name": "again", "type": "training"}))
            .await["id"]
            .clone();
        let id = task.as_str().unwrap();
        let paths = [
            format!("p/again.{id}/artifacts/out/out.bin"),
            format!("p/again.{id}/metrics/m/v/1.png"),
            format!("p/again.{id}/artifacts/in/in.bin"),
            "p/another.0123456789abcdef0123456789abcdef/artifacts/out/out.bin".to_owned(),
        ];
        for path in &paths {
            let sent = client.upload(path, b"contents").send().await;
            assert!(sent.unwrap().status().is_success());
        }
        let uri = |i: usize| format!("http://some.name:8081/files/{}", paths[i]);
        let artifacts = json!([
            {"key": "out", "type": "custom", "uri": uri(0)},
            {"key": "in", "type": "custom", "mode": "input", "uri": uri(2)},
            {"key": "foreign", "type": "custom", "uri": uri(3)},
        ]);
        let add = json!({"task": task, "artifacts": artifacts});
        client.call("tasks.add_or_update_artifacts", add).await;
        let image = json!({"type": "training_debug_image", "task": task, "metric": "m", "variant": "v", "iter": 1, "url": uri(1)});
        client.call("events.add", image).await;
        client.call("tasks.reset", json!({"task": task})).await;
        let there = |i: usize| server.data.path().join("files").join(&paths[i]).exists();
        let deadline = Instant::now() + Duration::from_secs(30);
        while (there(0) || there(1)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!([0, 1, 2, 3].map(there), [false, false, true, true]);
    });
}

#[test]
fn a_file_that_is_too_large_is_refused_with_the_limit() {
    let server = InProcess::with(|data| Options {
        largest_file: 1000,
        ..Options::new(data)
    });
    let client = server.client();
    server.block_on(async {
        let upload = client.upload("p/a.bin", &[1; 1001]);
        let answer = upload.send().await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(
            answer.text().await.unwrap(),
            "the file is larger than 1000 bytes"
        );
    });
}
