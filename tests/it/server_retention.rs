//! What `trainyard server --keep-metrics` throws away of old tasks, and what stays.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trainyard::server::Options;

use crate::server_world::{Client, InProcess, Program, keys_in};

/// Iteration of a value that was reported once for the whole run.
const SINGLE: i64 = -2_147_483_648;

/// Makes a task that has reported something of each kind; its id, and the places of a debug sample of its own and of an
/// artifact that is shown as one.
async fn reported(client: &Client, name: &str) -> (String, [String; 2]) {
    let task = client.task(name).await;
    let files = ["metrics/m/v/v_0.png", "artifacts/out/out.png"];
    let files = files.map(|file| format!("p/{name}.{task}/{file}"));
    for file in &files {
        let sent = client.upload(file, b"contents").send().await;
        assert!(sent.unwrap().status().is_success());
    }
    let scalar = |metric: &str, variant: &str, iter: i64, value: f64| {
        json!({"type": "training_stats_scalar", "task": task, "metric": metric, "variant": variant, "iter": iter,
               "value": value})
    };
    let image = |variant: &str, file: &str| {
        json!({"type": "training_debug_image", "task": task, "metric": "m", "variant": variant, "iter": 1,
               "url": format!("{}/files/{file}", client.url)})
    };
    client
        .report(&[
            scalar("m", "v", 0, 1.0),
            scalar("m", "v", 1, 3.0),
            scalar("Summary", "best", SINGLE, 0.5),
            json!({"type": "plot", "task": task, "metric": "m", "variant": "v", "iter": 1, "plot_str": "{}"}),
            image("v", &files[0]),
            image("w", &files[1]),
            json!({"type": "log", "task": task, "msg": "a line"}),
        ])
        .await;
    (task, files)
}

/// What there is to see of a task's metrics.
async fn shown(client: &Client, task: &str) -> Value {
    let ask = json!({"task": task});
    let curves = client
        .call("events.scalar_metrics_iter_histogram", ask.clone())
        .await;
    let names = client
        .call("events.get_scalar_metrics_and_variants", ask.clone())
        .await;
    let plots = client.call("events.get_task_plots", ask.clone()).await;
    let samples = client
        .call("events.debug_images", json!({"metrics": [ask]}))
        .await;
    let samples = samples["metrics"][0]["iterations"].as_array().unwrap();
    let samples: usize = samples
        .iter()
        .map(|iteration| iteration["events"].as_array().unwrap().len())
        .sum();
    json!({"curve": curves["m"]["v"]["y"], "names": names["metrics"], "plots": plots["total"], "samples": samples})
}

/// What a run came to, and stands on its task.
async fn results(client: &Client, task: &str) -> Value {
    let found = client.call("tasks.get_by_id", json!({"task": task})).await;
    let single = client
        .call(
            "events.get_task_single_value_metrics",
            json!({"tasks": [task]}),
        )
        .await;
    let log = client
        .call("events.get_task_log", json!({"task": task}))
        .await;
    let of_task = &found["task"];
    assert_eq!(single["tasks"][0]["values"][0]["value"], 0.5);
    assert_eq!(log["total"], 1);
    json!([
        of_task["last_metrics"],
        of_task["last_iteration"],
        single["tasks"]
    ])
}

/// Puts the last change of a task back by so many hours.
fn rested(server: &InProcess, task: &str, hours: i64) {
    let db = rusqlite::Connection::open(server.data.path().join("trainyard.sqlite")).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
    let then = then.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    let sql =
        "UPDATE tasks SET last_update = ?2, doc = json_set(doc, '$.last_update', ?2) WHERE id = ?1";
    assert_eq!(db.execute(sql, [task, then.as_str()]).unwrap(), 1);
}

/// Waits until nothing is left of a task but what stays.
async fn forgotten(client: &Client, task: &str) {
    let nothing = json!({"curve": null, "names": {"Summary": ["best"]}, "plots": 0, "samples": 0});
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = shown(client, task).await;
        if left == nothing {
            return;
        }
        assert!(Instant::now() < deadline, "{left}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn metrics_go_with_their_files_once_their_task_has_rested_and_results_stay() {
    let server = InProcess::with(|data| Options {
        // Longer than any task here is silent.
        silence: Duration::from_secs(30 * 24 * 3600),
        watch: Duration::from_millis(300),
        linger: Duration::ZERO,
        keep_metrics: Some(1),
        ..Options::new(data)
    });
    let client = server.client();
    let there = |file: &str| server.data.path().join("files").join(file).exists();
    server.block_on(async {
        let queue = client
            .call("queues.create", json!({"name": "a queue"}))
            .await["id"]
            .clone();
        let whole = json!({"curve": [1.0, 3.0], "names": {"Summary": ["best"], "m": ["v"]}, "plots": 1, "samples": 2});
        let mut tasks = Vec::new();
        for name in ["published", "running", "queued", "ended", "young"] {
            let (task, files) = reported(&client, name).await;
            let calls = match name {
                "published" => vec![("tasks.publish", json!({"task": task, "force": true}))],
                "running" => vec![("tasks.started", json!({"task": task}))],
                "queued" => vec![("tasks.enqueue", json!({"task": task, "queue": queue}))],
                _ => vec![
                    ("tasks.started", json!({"task": task})),
                    ("tasks.completed", json!({"task": task})),
                ],
            };
            for (call, ask) in calls {
                client.call(call, ask).await;
            }
            assert_eq!(shown(&client, &task).await, whole, "{name}");
            tasks.push((task, files));
        }
        let [published, running, queued, ended, young] = tasks.as_slice() else {
            panic!("{tasks:?}");
        };
        let came_to = results(&client, &ended.0).await;

        // They are looked through in the order of their last change: when the ended one goes, the first three were met.
        for ((task, _), hours) in [(published, 96), (running, 90), (queued, 80), (young, 12)] {
            rested(&server, task, hours);
        }
        rested(&server, &ended.0, 72);
        forgotten(&client, &ended.0).await;
        let deadline = Instant::now() + Duration::from_secs(60);
        while there(&ended.1[0]) {
            assert!(Instant::now() < deadline, "the sample's file is left");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(there(&ended.1[1]), "an artifact is gone");
        assert_eq!(results(&client, &ended.0).await, came_to);

        // One that comes of age later is met too.
        rested(&server, &young.0, 30);
        forgotten(&client, &young.0).await;
        for (task, files) in [published, running, queued] {
            assert_eq!(shown(&client, task).await, whole);
            assert!(files.iter().all(|file| there(file)));
        }
    });
}

/// What is set of a server, as an administrator made for it is told.
fn settings(server: &Program) -> Value {
    let made = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["server", "user", "add", "boss", "--role", "admin", "--data"])
        .arg(&server.data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let admin = Client::by_keys(&server.url, keys_in(&made.stdout));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, mut answer) = runtime.block_on(admin.raw("server.config", json!({})));
        if status == 200 {
            return answer["data"].take();
        }
        assert!(Instant::now() < deadline, "still {status}: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn metrics_are_kept_for_ever_unless_the_program_is_told_otherwise() {
    for (days, expected) in [(None, Value::Null), (Some("30"), json!(30))] {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.envs(days.map(|days| ("TRAINYARD_SERVER_KEEP_METRICS", days)));
        let server = Program::start_by(&mut command, data.path());
        let set = settings(&server);
        assert_eq!(set["events"]["keep_metrics_days"], expected);
    }
}
