//! What `trains-agent` 0.16.3 asks, the agent of 2020, and how it must be answered: its daemon with a run that completes,
//! and its Kubernetes glue with the pod that it starts. Its package runs no task on a Python of today (`clients::old`),
//! so the calls stand here in the order in which its code makes them.
//!
//! What its client sends is of version 2.4, its typed requests are of 2.5, and the rest carries no version.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use reqwest::Method;
use serde_json::{Value, json};
use trainyard::server::{Options, Version};

use crate::server_world::{Client, InProcess};

/// Stand for any date, and any id, in an expected answer; a member of this name for members that are not looked at.
const TIME: &str = "<TIME>";
const ID: &str = "<ID>";
const OTHERS: &str = "...";

const WORKER: &str = "old:0";
const CHANGED: &str = "Changed by trains_agent old:0";
/// Image and arguments, as clients of 2020 know them.
const DOCKER: &str = "python:3.8 -e A=b";

fn fits(expected: &Value, seen: &Value) -> bool {
    match (expected, seen) {
        (Value::String(word), Value::String(text)) if word == TIME => {
            text.parse::<jiff::Timestamp>().is_ok()
        }
        (Value::String(word), Value::String(text)) if word == ID => text.len() == 32,
        (Value::Object(expected), Value::Object(seen)) => {
            let open = expected.contains_key(OTHERS);
            let mut named = expected.iter().filter(|(key, _)| key.as_str() != OTHERS);
            named.all(|(key, value)| seen.get(key).is_some_and(|seen| fits(value, seen)))
                && (open || expected.len() == seen.len())
        }
        (Value::Array(expected), Value::Array(seen)) => {
            expected.len() == seen.len() && expected.iter().zip(seen).all(|(a, b)| fits(a, b))
        }
        (expected, seen) => expected == seen,
    }
}

/// A call as it sends it, a GET with a body: the HTTP status, and the whole answer.
async fn sent(client: &Client, call: &str, body: &Value) -> (u16, Value) {
    let request = client.request(Method::GET, call).json(body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A call that must be answered so.
async fn asks(client: &Client, call: &str, body: &Value, expected: &Value) {
    let (status, answer) = sent(client, call, body).await;
    assert_eq!(status, 200, "{call}: {answer}");
    if let Some((version, _)) = call.strip_prefix('v').and_then(|rest| rest.split_once('/')) {
        let endpoint = &answer["meta"]["endpoint"];
        assert_eq!(endpoint["requested_version"], version, "{call}");
    }
    let data = &answer["data"];
    assert!(
        fits(expected, data),
        "{call} {body}: {data:#} and not {expected:#}"
    );
}

/// The answer of a call that changes a status: status, reason and message; members besides, of `fields` and beside them.
fn changed(texts: [&str; 3], fields: &Value, beside: &Value) -> Value {
    let [status, reason, message] = texts;
    let mut answer = json!({
        "updated": 1,
        "fields": {
            "status": status, "status_reason": reason, "status_message": message,
            "status_changed": TIME, "last_update": TIME, "last_change": TIME,
            "last_changed_by": "__trainyard__",
        },
    });
    let more = |of: &Value| of.as_object().unwrap().clone();
    let all = answer["fields"].as_object_mut().unwrap();
    all.extend(more(fields));
    answer.as_object_mut().unwrap().extend(more(beside));
    answer
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

async fn says(client: &Client, task: &str, level: &str, text: &str) {
    let line = json!({"type": "log", "level": level, "task": task, "worker": WORKER,
                      "msg": text, "timestamp": now()});
    let answer = client.batch(line.to_string()).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let stored = json!({"added": 1, "errors": 0, "errors_info": {}});
    assert_eq!(answer["data"], stored, "{answer}");
}

async fn reports(client: &Client, worker: &str, of: &Value) {
    let mut report =
        json!({"machine_stats": null, "timestamp": now() / 1000 * 1000, "worker": worker});
    let members = of.as_object().unwrap().clone();
    report.as_object_mut().unwrap().extend(members);
    asks(client, "workers.status_report", &report, &json!({})).await;
}

/// A task as the SDK of 2020 makes it, at the end of this queue.
async fn enqueued(client: &Client, queue: &str) -> String {
    let new = json!({
        "name": "old", "type": "training",
        "script": {"binary": "python", "repository": "", "entry_point": "old.py", "working_dir": ".",
                   "diff": "print(1)\n", "requirements": {"pip": ""}},
        "execution": {"docker_cmd": DOCKER},
    });
    let made = client.call("v2.5/tasks.create", new).await;
    let task = made["id"].as_str().unwrap().to_owned();
    let ask = json!({"task": task, "queue": queue});
    client.call("v2.5/tasks.enqueue", ask).await;
    task
}

/// From the queue to its first report.
async fn pulls(client: &Client, version: &str, queue: &str, task: &str) {
    let entry = json!({"entry": {"task": task, "added": TIME}});
    let pop = format!("{version}/queues.get_next_task");
    asks(client, &pop, &json!({"queue": queue}), &entry).await;
    let text = format!("task {task} pulled from {queue} by worker {WORKER}\n");
    says(client, task, "INFO", &text).await;
    let report = json!({"task": task, "queue": queue, "queues": [queue]});
    reports(client, WORKER, &report).await;
}

async fn starts(client: &Client, task: &str) {
    let ask = json!({"task": task, "force": true});
    let (set, beside) = (json!({"started": TIME}), json!({"started": 1}));
    let answer = changed(["in_progress", "", ""], &set, &beside);
    asks(client, "v2.5/tasks.started", &ask, &answer).await;
}

/// The process of the run, until its script begins.
async fn executes(client: &Client, task: &str) {
    let read = json!({"task": {
        "id": task, "status": "in_progress", "execution": {"docker_cmd": DOCKER, OTHERS: 0},
        "script": {"diff": "print(1)\n", "requirements": {"pip": ""}, OTHERS: 0}, OTHERS: 0,
    }});
    asks(
        client,
        "v2.4/tasks.get_by_id",
        &json!({"task": task}),
        &read,
    )
    .await;
    // It takes itself out of a queue in any case: a running task goes back to what it was before it was enqueued.
    takes_out(client, task).await;
    asks(
        client,
        "v2.4/tasks.started",
        &json!({"task": task, "force": false, "status_reason": "worker started execution",
                "status_message": CHANGED}),
        &changed(
            ["in_progress", "worker started execution", CHANGED],
            &json!({"started": TIME}),
            &json!({"started": 1}),
        ),
    )
    .await;
    asks(
        client,
        "v2.4/tasks.get_all",
        &json!({"id": [task], "only_fields": ["script.requirements"]}),
        &json!({"tasks": [{"script": {"requirements": {"pip": ""}}}]}),
    )
    .await;
    asks(
        client,
        "v2.5/tasks.set_requirements",
        &json!({"task": task, "requirements": {"pip": ["numpy==1.19.4"]}}),
        &json!({"updated": 1, "fields": {}}),
    )
    .await;
}

async fn takes_out(client: &Client, task: &str) {
    let (set, beside) = (json!({"enqueue_status": null}), json!({"dequeued": 1}));
    let answer = changed(["created", "", ""], &set, &beside);
    asks(
        client,
        "v2.4/tasks.dequeue",
        &json!({"task": task}),
        &answer,
    )
    .await;
}

/// Who watches the process: a look, its output, its end.
async fn completes(client: &Client, task: &str) {
    asks(
        client,
        "v2.4/tasks.get_all",
        &json!({"id": [task], "only_fields": ["status", "status_message"]}),
        &json!({"tasks": [{"status": "in_progress", "status_message": CHANGED}]}),
    )
    .await;
    says(client, task, "DEBUG", "Starting Task Execution:\n\n1\n").await;
    asks(
        client,
        "v2.4/tasks.completed",
        &json!({"task": task, "force": false, "status_reason": "worker execution done",
                "status_message": CHANGED}),
        &changed(
            ["completed", "worker execution done", CHANGED],
            &json!({"completed": TIME}),
            &json!({"published": 0}),
        ),
    )
    .await;
}

/// What clients of today see of the run: its container, its packages, and the log as the SDK of 2020 reads it.
async fn has_run(client: &Client, task: &str, log: &[&str]) {
    let read = client
        .call("v2.13/tasks.get_by_id", json!({"task": task}))
        .await;
    let read = &read["task"];
    assert_eq!(read["status"], "completed", "{read:#}");
    let container = json!({"image": "python:3.8", "arguments": "-e A=b"});
    assert_eq!(read["container"], container, "{read:#}");
    let requirements = json!({"pip": ["numpy==1.19.4"]});
    assert_eq!(read["script"]["requirements"], requirements, "{read:#}");
    let ask = json!({"task": task, "from": "tail", "order": "asc", "batch_size": 100});
    let told = client.call("v2.5/events.get_task_log", ask).await;
    let events = told["events"].as_array().unwrap();
    let texts: Vec<&str> = events
        .iter()
        .map(|event| event["msg"].as_str().unwrap())
        .collect();
    assert_eq!(texts, log, "{told:#}");
}

async fn daemon(client: &Client) {
    let default = client.call("queues.get_default", json!({})).await;
    let queue = default["id"].as_str().unwrap();
    asks(
        client,
        "v2.5/queues.get_by_id",
        &json!({"queue": queue}),
        &json!({"queue": {"id": queue, "name": "default", "entries": [], "metadata": [], OTHERS: 0}}),
    )
    .await;
    let worker = json!({"worker": WORKER, "queues": [queue]});
    asks(client, "workers.register", &worker, &json!({})).await;
    let nothing = json!({"queue": queue});
    asks(client, "v2.5/queues.get_next_task", &nothing, &json!({})).await;

    let task = enqueued(client, queue).await;
    pulls(client, "v2.5", queue, &task).await;
    starts(client, &task).await;
    // In docker mode it looks for the image, and writes down what it has taken.
    asks(
        client,
        "v2.4/tasks.get_all",
        &json!({"id": [task], "only_fields": ["execution.docker_cmd"]}),
        &json!({"tasks": [{"execution": {"docker_cmd": DOCKER}}]}),
    )
    .await;
    asks(
        client,
        "v2.5/tasks.edit",
        &json!({"task": task, "force": true, "execution": {"docker_cmd": DOCKER}}),
        &json!({"updated": 1, OTHERS: 0}),
    )
    .await;
    executes(client, &task).await;
    completes(client, &task).await;
    reports(client, WORKER, &json!({"queues": [queue]})).await;
    asks(client, "v2.5/queues.get_next_task", &nothing, &json!({})).await;
    asks(client, "workers.unregister", &worker, &json!({})).await;

    let pulled = format!("task {task} pulled from {queue} by worker {WORKER}\n");
    has_run(
        client,
        &task,
        &[pulled.as_str(), "Starting Task Execution:\n\n1\n"],
    )
    .await;
}

/// Makes the queue of tasks whose pods wait; gives its id.
async fn pending_queue(client: &Client) -> String {
    let new = json!({"name": "k8s_scheduler"});
    asks(client, "v2.4/queues.create", &new, &json!({"id": ID})).await;
    // It makes it at each start, and goes on where it is there.
    let (status, answer) = sent(client, "v2.4/queues.create", &new).await;
    let code = &answer["meta"]["result_subcode"];
    assert_eq!((status, code), (400, &json!(801)), "{answer}");
    let find = json!({"name": "k8s_scheduler", "only_fields": ["name", "id"]});
    let found = json!({"queues": [{"id": ID, "name": "k8s_scheduler"}]});
    asks(client, "v2.5/queues.get_all", &find, &found).await;
    let (_, answer) = sent(client, "v2.5/queues.get_all", &find).await;
    let id = answer["data"]["queues"][0]["id"].as_str().unwrap();
    id.to_owned()
}

/// From the queue into the one of tasks whose pods wait.
async fn schedules(client: &Client, queue: &str, pending: &str, task: &str) {
    pulls(client, "v2.4", queue, task).await;
    asks(
        client,
        "v2.4/tasks.get_all",
        &json!({"id": [task]}),
        &json!({"tasks": [{"id": task, "status": "queued", "execution": {"docker_cmd": DOCKER, OTHERS: 0},
                           OTHERS: 0}]}),
    )
    .await;
    asks(
        client,
        "v2.4/tasks.reset",
        &json!({"task": task, "force": false}),
        &changed(
            ["created", "reset", "reset"],
            &json!({OTHERS: 0}),
            &json!({"dequeued": {}, "deleted_models": 0, "events": {}, "urls": {}}),
        ),
    )
    .await;
    asks(
        client,
        "v2.4/tasks.enqueue",
        &json!({"task": task, "queue": pending, "status_reason": "k8s pending scheduler"}),
        &changed(
            ["queued", "k8s pending scheduler", ""],
            &json!({"enqueue_status": "created", "execution.queue": pending}),
            &json!({"queued": 1}),
        ),
    )
    .await;
    asks(
        client,
        "v2.4/queues.get_by_id",
        &json!({"queue": queue}),
        &json!({"queue": {"id": queue, "name": "gpu", "entries": [], "metadata": [], OTHERS: 0}}),
    )
    .await;
    reports(client, WORKER, &json!({"queues": [queue]})).await;
}

async fn glue(client: &Client) {
    let made = client.call("queues.create", json!({"name": "gpu"})).await;
    let queue = made["id"].as_str().unwrap();
    let pending = pending_queue(client).await;
    let task = enqueued(client, queue).await;
    schedules(client, queue, &pending, &task).await;

    // Its pod, by `execute --full-monitoring --require-queue`.
    let waits = json!({"task": {"id": task, "status": "queued", OTHERS: 0}});
    asks(
        client,
        "v2.4/tasks.get_by_id",
        &json!({"task": task}),
        &waits,
    )
    .await;
    takes_out(client, &task).await;
    asks(
        client,
        "v2.5/queues.get_by_id",
        &json!({"queue": pending}),
        &json!({"queue": {"entries": [], OTHERS: 0}}),
    )
    .await;
    let pod = "pod:0";
    reports(client, pod, &json!({"task": task})).await;
    starts(client, &task).await;
    executes(client, &task).await;
    completes(client, &task).await;
    let gone = json!({"worker": pod, "queues": []});
    asks(client, "workers.unregister", &gone, &json!({})).await;
    // The reset has thrown away that it was pulled.
    has_run(client, &task, &["Starting Task Execution:\n\n1\n"]).await;

    // One that a user aborts while its pod waits: there is nothing to take out, which is no error.
    let aborted = enqueued(client, queue).await;
    schedules(client, queue, &pending, &aborted).await;
    client.call("tasks.stop", json!({"task": aborted})).await;
    let nothing = json!({"dequeued": 1, "updated": 0, "fields": {}});
    asks(
        client,
        "v2.4/tasks.dequeue",
        &json!({"task": aborted}),
        &nothing,
    )
    .await;
}

/// Of its time, as far back as one is played, and of today.
fn servers() -> [InProcess; 2] {
    [Version::OLDEST, Version::NEWEST].map(|api_version| {
        InProcess::with(|data| Options {
            api_version,
            ..Options::new(data)
        })
    })
}

#[test]
fn the_daemon_of_2020_runs_a_task_to_its_end() {
    for server in servers() {
        server.block_on(daemon(&server.client()));
    }
}

#[test]
fn the_glue_of_2020_starts_a_pod_that_runs_a_task_to_its_end() {
    for server in servers() {
        server.block_on(glue(&server.client()));
    }
}
