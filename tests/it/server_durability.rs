//! What the server has acknowledged survives its death; what it cannot store stops it with the reason.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server_world::{Client, Program, multipart};

/// What one writer was told is stored.
#[derive(Default)]
struct Stored {
    tasks: Vec<String>,
    queued: Vec<String>,
    lines: Vec<(String, String)>,
    files: Vec<String>,
}

/// Creates, enqueues, logs and uploads until the server is gone.
async fn write(client: Client, queue: String, writer: usize, done: Arc<AtomicUsize>) -> Stored {
    let mut stored = Stored::default();
    for round in 0.. {
        let name = format!("writer {writer} round {round}");
        let ask = json!({"name": name, "type": "training"});
        let Some(task) = client.acknowledged("tasks.create", ask).await else {
            break;
        };
        let task = task["id"].as_str().unwrap().to_owned();
        stored.tasks.push(task.clone());
        let ask = json!({"task": task, "queue": queue});
        if client.acknowledged("tasks.enqueue", ask).await.is_none() {
            break;
        }
        stored.queued.push(task.clone());
        let line = format!("line of {name}");
        let ask = json!({"type": "log", "task": task, "msg": line});
        if client.acknowledged("events.add", ask).await.is_none() {
            break;
        }
        stored.lines.push((task.clone(), line));
        let file = format!("p/{task}/artifact.bin");
        let (kind, body) = multipart(&file, &contents(&file));
        let upload = client
            .request(reqwest::Method::POST, "files")
            .header("Content-Type", kind);
        let upload = upload.body(body).send().await;
        if upload.is_ok_and(|answer| answer.status().is_success()) {
            stored.files.push(file);
            done.fetch_add(1, Ordering::Relaxed);
        } else {
            break;
        }
    }
    stored
}

fn contents(file: &str) -> Vec<u8> {
    file.bytes().cycle().take(300_000).collect()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut all = Stored::default();
    for round in 0..5 {
        let mut server = Program::start(data.path());
        let client = server.client();
        let queue = runtime.block_on(client.call("queues.get_default", json!({})))["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let done = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                runtime.spawn(write(
                    client.clone(),
                    queue.clone(),
                    writer,
                    Arc::clone(&done),
                ))
            })
            .collect();
        // In the middle of the writers' work, a little later each time.
        let deadline = Instant::now() + Duration::from_mins(2);
        while done.load(Ordering::Relaxed) < 5 + 3 * round && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(7));
        }
        server.kill();
        for writer in writers {
            let stored = runtime.block_on(writer).unwrap();
            all.tasks.extend(stored.tasks);
            all.queued.extend(stored.queued);
            all.lines.extend(stored.lines);
            all.files.extend(stored.files);
        }
        let server = Program::start(data.path());
        runtime.block_on(check(&server.client(), &queue, &all));
    }
    assert!(
        all.files.len() >= 50,
        "only {} rounds were acknowledged",
        all.files.len()
    );
}

async fn check(client: &Client, queue: &str, all: &Stored) {
    let queue = client
        .call("queues.get_by_id", json!({"queue": queue}))
        .await;
    let entries: Vec<&Value> = queue["queue"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["task"])
        .collect();
    for task in &all.tasks {
        let found = client.call("tasks.get_by_id", json!({"task": task})).await;
        assert_eq!(found["task"]["id"], task.as_str());
        if all.queued.contains(task) {
            assert_eq!(found["task"]["status"], "queued");
            assert!(
                entries.contains(&&json!(task)),
                "the entry of {task} is lost"
            );
        }
    }
    for (task, line) in &all.lines {
        let log = client
            .call("events.get_task_log", json!({"task": task}))
            .await;
        assert_eq!(log["events"][0]["msg"], line.as_str());
    }
    for file in &all.files {
        let answer = client
            .request(reqwest::Method::GET, &format!("files/{file}"))
            .send()
            .await
            .unwrap();
        assert!(
            answer.bytes().await.unwrap() == contents(file),
            "{file} is not what was sent"
        );
    }
}

#[test]
fn keys_and_configuration_are_for_their_owner_alone_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, conf) = (
        folder.path().join("data"),
        folder.path().join("clearml.conf"),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.env("TRAINYARD_SERVER_WRITE_CONF", &conf);
    let server = Program::start_by(&mut command, &data);
    let (key, secret) = crate::server_world::keys(&data);
    let text = fs::read_to_string(&conf).unwrap();
    assert!(
        text.contains(&key)
            && text.contains(&secret)
            && text.contains(&format!("{}/files", server.url))
    );
    for (path, mode) in [
        (data.join("keys.json"), 0o600),
        (conf, 0o600),
        (data, 0o700),
    ] {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
}

/// Starts the program on a folder it must refuse: exit code and message.
fn refused(data: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(["server", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(output.stdout.is_empty(), "it must not announce itself");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_corrupt_database_keeps_the_server_from_starting_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    Program::start(data.path()).kill();
    let database = data.path().join("trainyard.sqlite");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(data.path().join(format!("trainyard.sqlite{suffix}")));
    }
    fs::write(&database, "this is not a database ".repeat(1000)).unwrap();
    let (code, text) = refused(data.path());
    assert_eq!(code, Some(1));
    assert!(
        text.contains("is corrupt") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let _first = Program::start(data.path());
    let (code, text) = refused(data.path());
    assert_eq!(code, Some(1));
    assert!(text.contains("another trainyard server"), "{text}");
}

#[test]
fn a_full_disk_stops_the_server_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    // Files may not grow beyond 2 MiB: for the database the disk is then full.
    let mut shell = Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"";
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_trainyard")]);
    let server = Program::start_by(&mut shell, data.path());
    let client = server.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let task = client
            .call("tasks.create", json!({"name": "large", "type": "training"}))
            .await;
        for _ in 0..100 {
            let ask = json!({"type": "log", "task": task["id"], "msg": "x".repeat(100_000)});
            let (status, answer) = client.raw("events.add", ask).await;
            if status != 200 {
                assert!(status == 500 || status == 0, "{answer}");
                return;
            }
        }
        panic!("the disk never became full");
    });
    let (code, text) = server.ended();
    assert_eq!(code, Some(1));
    assert!(text.contains("the database failed: the disk"), "{text}");
}
