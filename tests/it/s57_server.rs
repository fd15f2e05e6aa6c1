//! S57: the server under its clients' load, killed by SIGKILL: nothing acknowledged is lost, and it is back at once.
//!
//! The other parts of S57: equal answers to the recorded questions in `server_facts.rs` and `server_traffic.rs`, the
//! clients themselves in `clients/` (one of them over a kill: `clients::s57`), each single write in `server_kills.rs`,
//! differences in `docs/compatibility.md`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server_world::{Client, Program};
use crate::times;

/// Lines that a run reports at once, and the points of its curve.
pub const LINES: usize = 20;

/// The stated figure, in seconds: a server answers so soon after its start.
const STATED: f64 = 1.0;
/// Within which it does on a machine that others use too.
const SOON: Duration = Duration::from_secs(20);

/// What the clients were told is stored.
#[derive(Default)]
struct Stored {
    tasks: Vec<String>,
    queued: Vec<String>,
    files: Vec<String>,
    /// Handed out, in this order of arrival: to whom a task is given, it belongs.
    taken: Vec<String>,
    started: HashSet<String>,
    reported: HashSet<String>,
    completed: HashSet<String>,
}

impl Stored {
    fn add(&mut self, other: Stored) {
        self.tasks.extend(other.tasks);
        self.queued.extend(other.queued);
        self.files.extend(other.files);
        self.taken.extend(other.taken);
        self.started.extend(other.started);
        self.reported.extend(other.reported);
        self.completed.extend(other.completed);
    }
}

/// A researcher: creates, enqueues and uploads until the server is gone.
async fn submit(client: Client, queue: String, name: String, done: Arc<AtomicUsize>) -> Stored {
    let mut stored = Stored::default();
    for round in 0.. {
        let ask = json!({"name": format!("{name} {round}"), "type": "training"});
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
        let file = format!("p/{task}/artifact.bin");
        let upload = client.upload(&file, &contents(&file)).send().await;
        if upload.is_ok_and(|answer| answer.status().is_success()) {
            stored.files.push(file);
            done.fetch_add(1, Ordering::Relaxed);
        } else {
            break;
        }
    }
    stored
}

/// An agent: takes, starts, reports and completes until the server is gone.
async fn run(client: Client, queue: String, done: Arc<AtomicUsize>) -> Stored {
    let mut stored = Stored::default();
    loop {
        let ask = json!({"queue": queue});
        let Some(answer) = client.acknowledged("queues.get_next_task", ask).await else {
            break;
        };
        let Some(task) = answer["entry"]["task"].as_str().map(str::to_owned) else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        stored.taken.push(task.clone());
        let ask = json!({"task": task});
        if client.acknowledged("tasks.started", ask).await.is_none() {
            break;
        }
        stored.started.insert(task.clone());
        let batch = client.batch(report(&task));
        if !batch.send().await.is_ok_and(|sent| sent.status() == 200) {
            break;
        }
        stored.reported.insert(task.clone());
        let ask = json!({"task": task});
        if client.acknowledged("tasks.completed", ask).await.is_none() {
            break;
        }
        stored.completed.insert(task);
        done.fetch_add(1, Ordering::Relaxed);
    }
    stored
}

pub fn report(task: &str) -> String {
    let lines = (0..LINES).flat_map(|i| {
        [
            json!({"type": "log", "task": task, "msg": format!("line {i} of {task}"), "timestamp": 1000 + i}),
            json!({"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v", "iter": i, "value": i}),
        ]
    });
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    lines.join("\n")
}

pub fn contents(file: &str) -> Vec<u8> {
    file.bytes().cycle().take(300_000).collect()
}

/// Ids in the queue, in order.
async fn queued(client: &Client, queue: &str) -> Vec<String> {
    let answer = client
        .call("queues.get_by_id", json!({"queue": queue}))
        .await;
    let entries = answer["queue"]["entries"].as_array().unwrap();
    let id = |entry: &Value| entry["task"].as_str().unwrap().to_owned();
    entries.iter().map(id).collect()
}

/// Whether a task has its lines; some of them alone are none.
async fn has_lines(client: &Client, task: &str) -> bool {
    let ask = json!({"task": task, "navigate_earlier": false});
    let log = client.call("events.get_task_log", ask).await;
    let events = log["events"].as_array().unwrap();
    let said: Vec<&str> = events
        .iter()
        .filter_map(|line| line["msg"].as_str())
        .collect();
    if said.is_empty() {
        return false;
    }
    let wanted: Vec<String> = (0..LINES).map(|i| format!("line {i} of {task}")).collect();
    assert_eq!(said, wanted);
    true
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed_under_load() {
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
        let mut clients = Vec::new();
        for n in 0..6 {
            let (client, queue, done) = (client.clone(), queue.clone(), Arc::clone(&done));
            clients.push(if n % 2 == 0 {
                let name = format!("submitter {n} of round {round}");
                runtime.spawn(submit(client, queue, name, done))
            } else {
                runtime.spawn(run(client, queue, done))
            });
        }
        // In the middle of their work, a little later each time.
        let deadline = Instant::now() + Duration::from_mins(2);
        while done.load(Ordering::Relaxed) < 10 + 7 * round && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(7));
        }
        server.kill();
        for client in clients {
            all.add(runtime.block_on(client).unwrap());
        }
        let begun = Instant::now();
        let server = Program::start(data.path());
        let client = server.client();
        runtime.block_on(client.call("debug.ping", json!({})));
        let took = begun.elapsed();
        times::told(
            "S57",
            "start to first answer after a kill under load",
            took.as_secs_f64(),
            STATED,
        );
        assert!(took < SOON, "back after {took:?}");
        runtime.block_on(check(&client, &queue, &all));
    }
    let (files, completed) = (all.files.len(), all.completed.len());
    assert!(
        files >= 20 && completed >= 20,
        "only {files} submitted, {completed} completed"
    );
}

async fn check(client: &Client, queue: &str, all: &Stored) {
    let taken: HashSet<&str> = all.taken.iter().map(String::as_str).collect();
    assert_eq!(taken.len(), all.taken.len(), "a task was handed out twice");
    let entries = queued(client, queue).await;
    let entries: HashSet<&str> = entries.iter().map(String::as_str).collect();
    let handed_out_again: Vec<_> = taken.intersection(&entries).collect();
    assert!(handed_out_again.is_empty(), "{handed_out_again:?}");
    let found = client
        .call(
            "tasks.get_all",
            json!({"size": 10_000, "start": 0, "only_fields": ["id", "status", "last_iteration"]}),
        )
        .await;
    let found: HashMap<&str, &Value> = found["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| (task["id"].as_str().unwrap(), task))
        .collect();
    // A take that was under way when the server died may have been carried out: such a task is in nobody's list.
    let mut astray = 0;
    for task in &all.tasks {
        let known = found
            .get(task.as_str())
            .unwrap_or_else(|| panic!("{task} is lost"));
        let status = known["status"].as_str().unwrap();
        if all.completed.contains(task) {
            assert_eq!(status, "completed", "{task}");
        } else if all.started.contains(task) {
            assert!(["in_progress", "completed"].contains(&status), "{known}");
        } else if all.queued.contains(task) && !taken.contains(task.as_str()) {
            assert_eq!(status, "queued", "{task}");
            astray += usize::from(!entries.contains(task.as_str()));
        }
    }
    assert!(
        astray <= 3 * 5,
        "{astray} entries are lost: more than there were takers"
    );
    for task in &all.reported {
        assert_eq!(found[task.as_str()]["last_iteration"], LINES - 1, "{task}");
        assert!(
            has_lines(client, task).await,
            "the lines of {task} are lost"
        );
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
fn it_answers_soon_after_its_start() {
    let data = tempfile::tempdir().unwrap();
    drop(Program::start(data.path()));
    let begun = Instant::now();
    let server = Program::start(data.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(server.client().call("debug.ping", json!({})));
    let took = begun.elapsed();
    times::told("S57", "start to first answer", took.as_secs_f64(), STATED);
    assert!(took < SOON, "{took:?}");
}
