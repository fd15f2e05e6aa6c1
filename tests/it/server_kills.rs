//! The server killed by SIGKILL at any instant of any write, again and again on one folder: what was acknowledged is
//! there, the one write that was under way is there whole or not at all.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::s57_server::{LINES, contents, has_lines, queued, report};
use crate::server_world::{Client, Program};

const KILLS: usize = 15;
/// Writes that are acknowledged before a kill: from one to this many, so that each kind is hit.
const WRITES: usize = 8;
/// The kill falls so soon after the last of them, in µs.
const WINDOW: u64 = 15_000;

/// A task as the server has to have it.
struct Task {
    id: String,
    name: String,
    status: &'static str,
    reported: bool,
    uploaded: bool,
}

impl Task {
    fn created(id: String, name: String) -> Self {
        Self {
            id,
            name,
            status: "created",
            reported: false,
            uploaded: false,
        }
    }
}

/// A write that no answer has come to; numbers are places in the list of tasks.
#[derive(Debug)]
enum Write {
    Create(String),
    Enqueue(usize),
    Report(usize),
    Upload(usize),
    Take,
    Dequeue(usize),
}

/// What the server has to hold.
#[derive(Default)]
struct Known {
    tasks: Vec<Task>,
    /// Ids in order.
    queue: Vec<String>,
    under_way: Option<Write>,
    /// Tasks whose making was begun.
    begun: usize,
}

fn new_task(name: &str) -> Value {
    // So large that the database writes several pages.
    let diff = format!("{name},").repeat(4000);
    json!({
        "name": name, "type": "training", "comment": format!("about {name}"), "tags": ["a", name],
        "script": {"diff": diff, "entry_point": "main.py"},
    })
}

/// `data` of a call; nothing if the server is gone. It must not refuse.
async fn asked(client: &Client, call: &str, body: Value) -> Option<Value> {
    let (status, mut answer) = client.raw(call, body).await;
    if status == 0 {
        return None;
    }
    assert_eq!(status, 200, "{call}: {answer}");
    Some(answer["data"].take())
}

/// The same of a request that is no call.
async fn sent(request: reqwest::RequestBuilder) -> Option<()> {
    let status = request.send().await.ok()?.status();
    assert_eq!(status, 200);
    Some(())
}

/// One write after another until the server is gone.
async fn write(client: Client, queue: String, mut known: Known, done: Arc<AtomicUsize>) -> Known {
    while cycle(&client, &queue, &mut known, &done).await.is_some() {}
    known
}

/// One write of each kind.
async fn cycle(client: &Client, queue: &str, known: &mut Known, done: &AtomicUsize) -> Option<()> {
    let acknowledged = |known: &mut Known| {
        known.under_way = None;
        done.fetch_add(1, Ordering::Relaxed);
    };

    let name = format!("task {}", known.begun);
    known.begun += 1;
    known.under_way = Some(Write::Create(name.clone()));
    let answer = asked(client, "tasks.create", new_task(&name)).await?;
    acknowledged(known);
    let id = answer["id"].as_str().unwrap().to_owned();
    let place = known.tasks.len();
    known.tasks.push(Task::created(id.clone(), name));

    known.under_way = Some(Write::Enqueue(place));
    asked(client, "tasks.enqueue", json!({"task": id, "queue": queue})).await?;
    acknowledged(known);
    known.tasks[place].status = "queued";
    known.queue.push(id.clone());

    known.under_way = Some(Write::Report(place));
    sent(client.batch(report(&id))).await?;
    acknowledged(known);
    known.tasks[place].reported = true;

    known.under_way = Some(Write::Upload(place));
    sent(client.upload(&file_of(&id), &contents(&id))).await?;
    acknowledged(known);
    known.tasks[place].uploaded = true;

    // Two of three are taken, the third goes back.
    if place.is_multiple_of(3) {
        known.under_way = Some(Write::Dequeue(place));
        asked(client, "tasks.dequeue", json!({"task": id})).await?;
        acknowledged(known);
        known.tasks[place].status = "created";
        known.queue.retain(|entry| *entry != id);
    } else {
        known.under_way = Some(Write::Take);
        let answer = asked(client, "queues.get_next_task", json!({"queue": queue})).await?;
        acknowledged(known);
        assert_eq!(answer["entry"]["task"], known.queue.remove(0));
    }
    Some(())
}

fn file_of(task: &str) -> String {
    format!("p/{task}/artifact.bin")
}

/// Tasks by their ids, as the server has them.
async fn stored(client: &Client) -> HashMap<String, Value> {
    let fields = ["id", "name", "status", "comment", "tags", "last_iteration"];
    let ask = json!({"size": 10_000, "start": 0, "only_fields": fields});
    let mut answer = client.call("tasks.get_all", ask).await;
    let Value::Array(tasks) = answer["tasks"].take() else {
        return HashMap::new();
    };
    let by_id = |task: Value| (task["id"].as_str().unwrap().to_owned(), task);
    tasks.into_iter().map(by_id).collect()
}

/// Whether a task's file is there; a part of it is none.
async fn has_file(client: &Client, task: &str) -> bool {
    let path = format!("files/{}", file_of(task));
    let answer = client.request(Method::GET, &path).send().await.unwrap();
    if answer.status() == 404 {
        return false;
    }
    assert_eq!(answer.status(), 200, "the file of {task}");
    let bytes = answer.bytes().await.unwrap();
    assert!(
        bytes == contents(task),
        "the file of {task} is not what was sent"
    );
    true
}

/// Whether the write that was under way was carried out decides what has to be there.
async fn settle(client: &Client, queue: &str, known: &mut Known) {
    let Some(write) = known.under_way.take() else {
        return;
    };
    let entries = queued(client, queue).await;
    match write {
        Write::Create(name) => {
            let tasks = stored(client).await;
            let made = tasks.into_iter().find(|(_, task)| task["name"] == name);
            let made = made.map(|(id, _)| Task::created(id, name));
            known.tasks.extend(made);
        }
        Write::Enqueue(place) => {
            let task = &mut known.tasks[place];
            if entries.contains(&task.id) {
                task.status = "queued";
                known.queue.push(task.id.clone());
            }
        }
        Write::Report(place) => {
            let task = &mut known.tasks[place];
            task.reported = has_lines(client, &task.id).await;
        }
        Write::Upload(place) => {
            let task = &mut known.tasks[place];
            task.uploaded = has_file(client, &task.id).await;
        }
        Write::Take => {
            if known.queue.first() != entries.first() {
                known.queue.remove(0);
            }
        }
        Write::Dequeue(place) => {
            let task = &mut known.tasks[place];
            if !entries.contains(&task.id) {
                task.status = "created";
                known.queue.retain(|entry| *entry != task.id);
            }
        }
    }
}

/// All tasks and entries; everything else of the tasks from `first` on.
async fn check(client: &Client, queue: &str, known: &Known, first: usize) {
    assert_eq!(queued(client, queue).await, known.queue);
    let found = stored(client).await;
    assert_eq!(found.len(), known.tasks.len(), "tasks");
    for task in &known.tasks {
        let there = found
            .get(&task.id)
            .unwrap_or_else(|| panic!("{} is lost", task.id));
        let new = new_task(&task.name);
        for key in ["name", "comment", "tags"] {
            assert_eq!(there[key], new[key], "{there}");
        }
        assert_eq!(there["status"], task.status, "{there}");
        let last = there["last_iteration"].as_u64().unwrap_or_default();
        let wanted = if task.reported { LINES as u64 - 1 } else { 0 };
        assert_eq!(last, wanted, "{there}");
    }
    for task in &known.tasks[first..] {
        let answer = client
            .call("tasks.get_by_id", json!({"task": task.id}))
            .await;
        let wanted = &new_task(&task.name)["script"]["diff"];
        assert!(
            answer["task"]["script"]["diff"] == *wanted,
            "the script of {} is not what was sent",
            task.id
        );
        assert_eq!(
            has_lines(client, &task.id).await,
            task.reported,
            "{}",
            task.id
        );
        assert_eq!(
            has_file(client, &task.id).await,
            task.uploaded,
            "{}",
            task.id
        );
    }
}

/// Of uploads that were cut off nothing is left.
fn nothing_is_on_the_way(data: &Path) {
    let left = std::fs::read_dir(data.join("uploads")).unwrap().count();
    assert_eq!(left, 0, "half-written files");
}

#[test]
fn each_write_is_whole_or_absent_wherever_the_server_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = rand::rng();
    let mut known = Known::default();
    let mut server = Program::start(data.path());
    let answer = runtime.block_on(server.client().call("queues.get_default", json!({})));
    let queue = answer["id"].as_str().unwrap().to_owned();
    for round in 0..KILLS {
        let first = known.tasks.len();
        let done = Arc::new(AtomicUsize::new(0));
        let writes = random.random_range(1..=WRITES);
        let after = Duration::from_micros(random.random_range(0..WINDOW));
        let writer = write(server.client(), queue.clone(), known, Arc::clone(&done));
        let writer = runtime.spawn(writer);
        let deadline = Instant::now() + Duration::from_secs(120);
        while done.load(Ordering::Relaxed) < writes && !writer.is_finished() {
            assert!(Instant::now() < deadline, "the server does not get on");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(after);
        server.kill();
        known = runtime.block_on(writer).unwrap();
        println!(
            "kill {round}, {after:?} after {writes} writes, in {:?}",
            known.under_way
        );
        server = Program::start(data.path());
        let client = server.client();
        runtime.block_on(async {
            settle(&client, &queue, &mut known).await;
            check(&client, &queue, &known, first).await;
        });
        nothing_is_on_the_way(data.path());
    }
    // None of the later kills harmed what was written long before.
    runtime.block_on(check(&server.client(), &queue, &known, 0));
    assert!(known.tasks.len() >= KILLS / 2, "{}", known.tasks.len());
}
