//! Stories of single tasks.

use serde_json::{Value, json};

use super::facts::{Ask, Fact, Who, is, is_gone, is_not};
use super::lane::{Lane, id};
use crate::s57_server::{LINES, report};

/// All that is said about a draft.
pub async fn draft(lane: &mut Lane) -> Option<()> {
    let name = lane.name("task");
    let named = Ask::named("tasks.get_all", &name);
    // So large that the database writes several pages.
    let diff = format!("{name},").repeat(4000);
    let new = json!({
        "name": name, "type": "training", "comment": "new", "tags": ["a"],
        "script": {"diff": diff, "entry_point": "main.py"},
    });
    let facts = vec![
        is(&named, "tasks/*name", json!([name])),
        is(&named, &format!("tasks/name={name}/script/diff"), diff),
    ];
    let task = id(&lane.write("tasks.create", new, facts).await?);
    let about = Ask::task(&task);

    let ask = json!({"task": task, "comment": "edited", "tags": ["b", "c"]});
    let facts = vec![
        is(&about, "task/comment", "edited"),
        is(&about, "task/tags", json!(["b", "c"])),
    ];
    lane.write("tasks.edit", ask, facts).await?;
    parameters(lane, &task).await?;

    let ask = json!({"task": task, "comment": "updated", "status_message": "told"});
    let facts = vec![
        is(&about, "task/comment", "updated"),
        is(&about, "task/status_message", "told"),
    ];
    lane.write("tasks.update", ask, facts).await?;
    several(lane, &task).await?;

    let name = lane.name("copy");
    let named = Ask::named("tasks.get_all", &name);
    let ask = json!({"task": task, "new_task_name": name});
    let facts = vec![
        is(&named, "tasks/*name", json!([name])),
        is(&named, "tasks/*parent", json!([task])),
    ];
    lane.write("tasks.clone", ask, facts).await?;

    let seen = lane.read(&about, "task/last_update").await?;
    let facts = vec![is_not(&about, "task/last_update", seen)];
    lane.write("tasks.ping", json!({"task": task}), facts)
        .await?;
    Some(())
}

/// What the code of a draft will read.
async fn parameters(lane: &mut Lane, task: &str) -> Option<()> {
    let about = Ask::task(task);
    let rate = json!({"section": "Args", "name": "rate", "value": "0.1"});
    let size = json!({"section": "Args", "name": "size", "value": "2"});
    let ask = json!({"task": task, "hyperparams": [rate, size]});
    let facts = vec![
        is(&about, "task/hyperparams/Args/rate/value", "0.1"),
        is(&about, "task/hyperparams/Args/size/value", "2"),
    ];
    lane.write("tasks.edit_hyper_params", ask, facts).await?;
    let ask = json!({"task": task, "hyperparams": [{"section": "Args", "name": "rate"}]});
    let facts = vec![is(&about, "task/hyperparams/Args/rate/value", Value::Null)];
    lane.write("tasks.delete_hyper_params", ask, facts).await?;

    let ask = json!({"task": task, "configuration": [{"name": "net", "value": "deep"}]});
    let facts = vec![is(&about, "task/configuration/net/value", "deep")];
    lane.write("tasks.edit_configuration", ask, facts).await?;
    let ask = json!({"task": task, "configuration": ["net"]});
    let facts = vec![is(&about, "task/configuration/net/value", Value::Null)];
    lane.write("tasks.delete_configuration", ask, facts).await?;

    let ask = json!({"task": task, "add_or_update": {"host": "node"}});
    let facts = vec![is(&about, "task/runtime/host", "node")];
    lane.write("tasks.edit_runtime", ask, facts).await?;

    let ask = json!({"task": task, "requirements": {"pip": "numpy"}});
    let facts = vec![is(&about, "task/script/requirements/pip", "numpy")];
    lane.write("tasks.set_requirements", ask, facts).await?;
    Some(())
}

/// A draft with the tags `b` and `c`, and another one.
async fn several(lane: &mut Lane, task: &str) -> Option<()> {
    let about = Ask::task(task);
    let other = lane.task().await?;
    let about_other = Ask::task(&other);
    let lines = [
        json!({"task": task, "comment": "one"}),
        json!({"task": other, "comment": "two"}),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    let facts = vec![
        is(&about, "task/comment", "one"),
        is(&about_other, "task/comment", "two"),
    ];
    let request = by_lines(lane, "tasks.update_batch", lines);
    lane.send("tasks.update_batch", request, facts).await?;

    let ask = json!({"ids": [task, other], "add_tags": ["x"], "remove_tags": ["b"]});
    let facts = vec![
        is(&about, "task/tags", json!(["c", "x"])),
        is(&about_other, "task/tags", json!(["x"])),
    ];
    lane.write("tasks.update_tags", ask, facts).await?;
    Some(())
}

/// Artifacts and models of a task.
pub async fn attached(lane: &mut Lane) -> Option<()> {
    let (task, model) = (lane.task().await?, lane.model().await?);
    let about = Ask::task(&task);

    let artifact =
        |key: &str| json!({"key": key, "type": "custom", "uri": format!("s3://bucket/{key}")});
    let ask = json!({"task": task, "artifacts": [artifact("a"), artifact("b")]});
    let place = "task/execution/artifacts/*uri";
    let facts = vec![is(&about, place, json!(["s3://bucket/a", "s3://bucket/b"]))];
    lane.write("tasks.add_or_update_artifacts", ask, facts)
        .await?;
    let ask = json!({"task": task, "artifacts": [{"key": "a"}]});
    let facts = vec![is(&about, place, json!(["s3://bucket/b"]))];
    lane.write("tasks.delete_artifacts", ask, facts).await?;

    let ask = json!({"task": task, "name": "in", "model": model, "type": "input"});
    let facts = vec![is(&about, "task/models/input/*model", json!([model]))];
    lane.write("tasks.add_or_update_model", ask, facts).await?;
    let ask = json!({"task": task, "models": [{"name": "in", "type": "input"}]});
    let facts = vec![is(&about, "task/models/input/*model", json!([]))];
    lane.write("tasks.delete_models", ask, facts).await?;

    let name = lane.name("model");
    let named = Ask::named("models.get_all", &name);
    let ask = json!({"task": task, "name": name, "uri": "s3://bucket/out", "iteration": 7});
    let facts = vec![
        is(&named, "models/*uri", json!(["s3://bucket/out"])),
        is(&about, "task/models/output/*name", json!([name])),
        is(&about, "task/last_iteration", 7),
    ];
    lane.write("models.update_for_task", ask, facts).await?;
    Some(())
}

/// A task that goes through a queue, reports, and is published.
pub async fn run(lane: &mut Lane) -> Option<()> {
    let (queue, task) = (lane.queue().await?, lane.task().await?);
    let (about, entries) = (Ask::task(&task), Ask::queue(&queue));
    let new = json!({"task": task, "name": "out", "uri": "s3://bucket/out"});
    let model = Ask::model(&lane.made("models.update_for_task", new).await?);
    let only = json!({"task": task});

    let enqueue = json!({"task": task, "queue": queue});
    let queued = [
        is(&about, "task/status", "queued"),
        is(&about, "task/execution/queue", queue.clone()),
        is(&entries, "queue/entries/*task", json!([task])),
    ];
    lane.write("tasks.enqueue", enqueue.clone(), queued.to_vec())
        .await?;
    let facts = vec![
        is(&about, "task/status", "created"),
        is(&entries, "queue/entries/*task", json!([])),
    ];
    lane.write("tasks.dequeue", only.clone(), facts).await?;
    lane.also("tasks.enqueue", enqueue, queued.to_vec()).await?;
    let facts = vec![is(&entries, "queue/entries/*task", json!([]))];
    lane.write("queues.get_next_task", json!({"queue": queue}), facts)
        .await?;

    let facts = vec![
        is(&about, "task/status", "in_progress"),
        is_not(&about, "task/started", Value::Null),
    ];
    lane.write("tasks.started", only.clone(), facts).await?;
    let request = by_lines(lane, "events.add_batch", report(&task));
    lane.send("events.add_batch", request, reported(&task))
        .await?;
    lane.write("tasks.completed", only.clone(), ended(&about, "completed"))
        .await?;
    let facts = vec![
        is(&about, "task/status", "published"),
        is_not(&about, "task/published", Value::Null),
        is(&model, "model/ready", true),
    ];
    lane.write("tasks.publish", only, facts).await?;

    let ask = json!({"tasks": [task]});
    let facts = vec![is(&about, "task/system_tags", json!(["archived"]))];
    lane.write("tasks.archive", ask.clone(), facts).await?;
    let facts = vec![is(&about, "task/system_tags", json!([]))];
    lane.write("tasks.unarchive", ask, facts).await?;
    Some(())
}

/// The other ends of a run, and what comes after.
pub async fn ends(lane: &mut Lane) -> Option<()> {
    let (failing, stopping) = (lane.task().await?, lane.task().await?);
    let about = Ask::task(&failing);
    start(lane, &failing).await?;
    let only = json!({"task": failing});
    lane.write("tasks.failed", only.clone(), ended(&about, "failed"))
        .await?;
    reset(lane, &failing).await?;

    let about = Ask::task(&stopping);
    start(lane, &stopping).await?;
    let only = json!({"task": stopping});
    lane.write("tasks.stopped", only.clone(), ended(&about, "stopped"))
        .await?;
    let facts = vec![is(&about, "task/status", "closed")];
    lane.write("tasks.close", only, facts).await?;

    let (queue, waiting) = (lane.queue().await?, lane.task().await?);
    let (about, entries) = (Ask::task(&waiting), Ask::queue(&queue));
    let name = lane.name("child");
    let child = json!({"name": name, "type": "training", "parent": waiting});
    let child = Ask::task(&lane.made("tasks.create", child).await?);
    let facts = vec![
        is(&about, "task/status", "queued"),
        is(&entries, "queue/entries/*task", json!([waiting])),
    ];
    let ask = json!({"task": waiting, "queue": queue});
    lane.also("tasks.enqueue", ask, facts).await?;
    let facts = vec![
        is(&about, "task/status", "stopped"),
        is(&entries, "queue/entries/*task", json!([])),
    ];
    lane.write("tasks.stop", json!({"task": waiting}), facts)
        .await?;
    let ask = json!({"task": waiting, "force": true});
    let facts = vec![is_gone(&about), is(&child, "task/parent", Value::Null)];
    lane.write("tasks.delete", ask, facts).await?;
    Some(())
}

/// A failed task with lines, a curve and a model goes back to its beginning.
async fn reset(lane: &mut Lane, task: &str) -> Option<()> {
    let about = Ask::task(task);
    let request = by_lines(lane, "events.add_batch", report(task));
    lane.also_send("events.add_batch", request, reported(task))
        .await?;
    let new = json!({"task": task, "name": "out", "uri": "s3://bucket/out"});
    let model = Ask::model(&lane.made("models.update_for_task", new).await?);
    let mut facts = unreported(task);
    facts.extend([
        is(&about, "task/status", "created"),
        is(&about, "task/completed", Value::Null),
        is(&about, "task/last_iteration", 0),
        is(&about, "task/models/output", json!([])),
        is_gone(&model),
    ]);
    lane.write("tasks.reset", json!({"task": task}), facts)
        .await?;
    Some(())
}

/// What a task reports, and what is thrown away.
pub async fn events(lane: &mut Lane) -> Option<()> {
    let task = lane.task().await?;
    let log = Ask::log(&task);
    let line = json!({"type": "log", "task": task, "level": "INFO", "msg": "the first"});
    let facts = vec![is(&log, "events/*msg", json!(["the first"]))];
    lane.write("events.add", line, facts).await?;
    let facts = vec![is(&log, "events/*msg", json!([]))];
    let only = json!({"task": task});
    lane.write("events.clear_task_log", only.clone(), facts)
        .await?;
    let request = by_lines(lane, "events.add_batch", report(&task));
    lane.also_send("events.add_batch", request, reported(&task))
        .await?;
    lane.write("events.delete_for_task", only, unreported(&task))
        .await?;
    Some(())
}

async fn start(lane: &mut Lane, task: &str) -> Option<Value> {
    let facts = vec![is(&Ask::task(task), "task/status", "in_progress")];
    lane.also("tasks.started", json!({"task": task}), facts)
        .await
}

/// A request whose body is lines.
pub fn by_lines(lane: &Lane, call: &str, lines: String) -> reqwest::RequestBuilder {
    Who::Administrator
        .asks(&lane.client, call)
        .header("Content-Type", "application/json-lines")
        .body(lines)
}

/// The facts of a run that has ended like this.
pub fn ended(about: &Ask, status: &str) -> Vec<Fact> {
    vec![
        is(about, "task/status", status),
        is_not(about, "task/completed", Value::Null),
    ]
}

fn curve(task: &str) -> Ask {
    Ask::call(
        "events.scalar_metrics_iter_histogram",
        json!({"task": task}),
    )
}

/// What [`report`] says.
fn reported(task: &str) -> Vec<Fact> {
    let lines: Vec<String> = (0..LINES).map(|i| format!("line {i} of {task}")).collect();
    let points: Vec<f64> = (0..LINES).map(|i| i as f64).collect();
    vec![
        is(&Ask::log(task), "events/*msg", lines),
        is(&curve(task), "m/v/y", points),
        is(&Ask::task(task), "task/last_iteration", LINES - 1),
    ]
}

/// Nothing of it is left.
fn unreported(task: &str) -> Vec<Fact> {
    vec![
        is(&Ask::log(task), "events/*msg", json!([])),
        is(&curve(task), "m/v/y", Value::Null),
    ]
}
