//! Stories of queues, of pipelines that go into one, and of a worker that serves one.

use serde_json::{Value, json};

use super::facts::{Ask, Fact, is, is_gone, is_not};
use super::lane::{Lane, id};

pub async fn queue(lane: &mut Lane) -> Option<()> {
    let name = lane.name("queue");
    let named = Ask::named("queues.get_all", &name);
    let facts = vec![is(&named, "queues/*name", json!([name]))];
    let new = json!({"name": name});
    let queue = id(&lane.write("queues.create", new, facts).await?);
    let about = Ask::queue(&queue);

    let ask = json!({"queue": queue, "display_name": "shown", "tags": ["a"]});
    let facts = vec![
        is(&about, "queue/display_name", "shown"),
        is(&about, "queue/tags", json!(["a"])),
    ];
    lane.write("queues.update", ask, facts).await?;
    let ask = json!({"queue": queue, "metadata": [{"key": "k", "type": "str", "value": "v"}]});
    let facts = vec![is(&about, "queue/metadata/k/value", "v")];
    lane.write("queues.add_or_update_metadata", ask, facts)
        .await?;
    let facts = vec![is(&about, "queue/metadata/k/value", Value::Null)];
    let ask = json!({"queue": queue, "keys": ["k"]});
    lane.write("queues.delete_metadata", ask, facts).await?;

    entries(lane, &queue).await?;

    let waiting = lane.task().await?;
    let task = Ask::task(&waiting);
    let ask = json!({"task": waiting, "queue": queue});
    let queued = [
        is(&about, "queue/entries/*task", json!([waiting])),
        is(&task, "task/status", "queued"),
        is(&task, "task/execution/queue", queue.clone()),
    ];
    let back = [
        is(&task, "task/status", "created"),
        is(&task, "task/execution/queue", Value::Null),
    ];
    lane.also("tasks.enqueue", ask.clone(), queued.to_vec())
        .await?;
    let mut facts = back.to_vec();
    facts.push(is(&about, "queue/entries/*task", json!([])));
    lane.write("queues.clear_queue", json!({"queue": queue}), facts)
        .await?;
    lane.also("tasks.enqueue", ask, queued.to_vec()).await?;
    let mut facts = back.to_vec();
    facts.extend([is_gone(&about), is(&named, "queues/*name", json!([]))]);
    let ask = json!({"queue": queue, "force": true});
    lane.write("queues.delete", ask, facts).await?;
    Some(())
}

/// Entries that come, change their order and go; none is left.
async fn entries(lane: &mut Lane, queue: &str) -> Option<()> {
    let about = Ask::queue(queue);
    let order = |tasks: &[&str]| is(&about, "queue/entries/*task", json!(tasks));
    let (a, b, c) = (lane.task().await?, lane.task().await?, lane.task().await?);
    let (a, b, c) = (a.as_str(), b.as_str(), c.as_str());
    let entry = |task: &str| json!({"queue": queue, "task": task});

    let recorded = is(&Ask::task(a), "task/execution/queue", queue);
    lane.write("queues.add_task", entry(a), vec![order(&[a]), recorded])
        .await?;
    lane.also("queues.add_task", entry(b), vec![order(&[a, b])])
        .await?;
    lane.also("queues.add_task", entry(c), vec![order(&[a, b, c])])
        .await?;
    let facts = vec![order(&[c, a, b])];
    lane.write("queues.move_task_to_front", entry(c), facts)
        .await?;
    let facts = vec![order(&[a, b, c])];
    lane.write("queues.move_task_to_back", entry(c), facts)
        .await?;
    let facts = vec![order(&[a, c, b])];
    lane.write("queues.move_task_forward", entry(c), facts)
        .await?;
    let facts = vec![order(&[c, b, a])];
    let ask = json!({"queue": queue, "task": a, "count": 2});
    lane.write("queues.move_task_backward", ask, facts).await?;
    let facts = vec![order(&[c, a])];
    lane.write("queues.remove_task", entry(b), facts).await?;
    lane.also("queues.remove_task", entry(c), vec![order(&[a])])
        .await?;
    lane.also("queues.remove_task", entry(a), vec![order(&[])])
        .await?;
    Some(())
}

/// A run of a pipeline is a copy of its controller, in a queue; it goes with its steps.
pub async fn pipeline(lane: &mut Lane) -> Option<()> {
    let queue = lane.queue().await?;
    let project = lane.name("project");
    let project = lane
        .made("projects.create", json!({"name": project}))
        .await?;
    let controller = json!({
        "name": lane.name("controller"), "type": "controller", "project": project, "system_tags": ["pipeline"],
    });
    let controller = lane.made("tasks.create", controller).await?;
    let within = Ask::call("tasks.get_all", json!({"project": [project]}));
    let entries = Ask::queue(&queue);
    let argument = "tasks/status=queued/hyperparams/Args/x/value";

    let args = json!([{"name": "x", "value": "1"}]);
    let ask = json!({"queue": queue, "task": controller, "args": args});
    let facts = vec![
        is(&within, "tasks/*status", json!(["created", "queued"])),
        is(&within, argument, "1"),
        is_not(&entries, "queue/entries/*task", json!([])),
    ];
    let started = lane.write("pipelines.start_pipeline", ask, facts).await?;
    let run = started["pipeline"].as_str().expect("an id");

    let step = json!({"name": lane.name("step"), "type": "training", "parent": run});
    let step = lane.made("tasks.create", step).await?;
    let facts = vec![
        is(&within, "tasks/*status", json!(["created"])),
        is(&within, argument, Value::Null),
        is(&entries, "queue/entries/*task", json!([])),
        is_gone(&Ask::task(run)),
        is_gone(&Ask::task(&step)),
    ];
    let ask = json!({"project": project, "ids": [run]});
    lane.write("pipelines.delete_runs", ask, facts).await?;
    Some(())
}

pub async fn worker(lane: &mut Lane) -> Option<()> {
    let (queue, task) = (lane.queue().await?, lane.task().await?);
    let name = lane.name("worker");
    let about = Ask::call(
        "workers.get_all",
        json!({"worker_pattern": name, "last_seen": 0}),
    );
    let own = |member: &str, value: Value| -> Fact {
        is(&about, &format!("workers/id={name}/{member}"), value)
    };

    let ask = json!({"worker": name, "queues": [queue], "timeout": 3600, "tags": ["gpu"]});
    let facts = vec![
        own("tags", json!(["gpu"])),
        own("queues/*id", json!([queue])),
    ];
    lane.write("workers.register", ask, facts).await?;
    let ask = json!({
        "worker": name, "task": task, "queue": queue, "machine_stats": {"cpu_usage": [5.0]},
        "timestamp": jiff::Timestamp::now().as_millisecond(),
    });
    let facts = vec![
        own("task/id", json!(task)),
        is(&Ask::task(&task), "task/last_worker", name.clone()),
    ];
    lane.write("workers.status_report", ask, facts).await?;
    let facts = vec![
        is(&about, "workers/*id", json!([])),
        own("tags", Value::Null),
        own("queues/*id", Value::Null),
        own("task/id", Value::Null),
    ];
    lane.write("workers.unregister", json!({"worker": name}), facts)
        .await?;
    Some(())
}
