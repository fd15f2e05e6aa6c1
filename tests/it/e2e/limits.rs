//! Two bindings, twenty tasks each, two at a time: each runs once, waiting ones keep their place untouched.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::doors::Doors;
use super::played::statuses;
use super::world::{PATIENCE, World};

/// How many Jobs of a binding have not ended.
pub(super) fn live(jobs: &[Value], binding: &str) -> usize {
    jobs.iter()
        .filter(|job| job["metadata"]["labels"]["trainyard.dev/binding"] == binding)
        .filter(|job| {
            !job["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter().any(|c| {
                    (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True"
                })
            })
        })
        .count()
}

/// The task that a Job is of.
pub(super) fn task_of(job: &Value) -> Option<String> {
    job["metadata"]["labels"]["trainyard.dev/task"]
        .as_str()
        .map(str::to_owned)
}

/// What waits in a queue has the status, and the time of its last change, that it had `before`. How many were looked at:
/// what is taken meanwhile waits no more.
fn untouched(
    world: &World,
    queue: &str,
    waiting: &[&String],
    before: &BTreeMap<String, Value>,
) -> usize {
    if waiting.is_empty() {
        return 0;
    }
    let fields = ["id", "status", "status_changed"];
    let answer = world.call(
        "tasks.get_all",
        &json!({"id": waiting, "only_fields": fields, "page_size": 500}),
    );
    let still = world.entries(queue);
    let mut looked_at = 0;
    for task in answer["tasks"].as_array().expect("tasks") {
        let id = task["id"].as_str().expect("a task's id");
        if still.iter().any(|other| other == id) {
            assert_eq!(task["status"], "queued", "{task}");
            assert_eq!(task["status_changed"], before[id], "{task} was touched");
            looked_at += 1;
        }
    }
    looked_at
}

#[test]
fn two_bindings_keep_their_limits_and_the_order_of_what_waits() {
    let mut world = World::new("limits");
    world.start_controller();
    let doors = Doors::start(&world);
    let source = world.counter.python("ran") + &doors.python("seen");
    let mut tasks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for queue in ["left", "right"] {
        world.queue(queue);
        for i in 0..20 {
            tasks.entry(queue).or_default().push(world.run(
                &format!("{queue} {i}"),
                &source,
                queue,
            ));
        }
    }
    let before: BTreeMap<String, Value> = tasks
        .values()
        .flatten()
        .map(|task| (task.clone(), world.task(task)["status_changed"].clone()))
        .collect();
    for queue in ["left", "right"] {
        world.bind(queue, &[queue], &json!({"limits": {"maxConcurrent": 2}}));
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(420) * PATIENCE;
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut looked_at = 0;
    loop {
        let jobs = world.jobs();
        let mut open = 0;
        for (queue, all) in &tasks {
            let running = live(&jobs, queue);
            assert!(running <= 2, "{running} Jobs of binding {queue} are live");
            // What was never taken stands in its queue in the original order. (A task whose pod could not run it
            // comes back to the front, which is no harm to those behind it.)
            taken.extend(jobs.iter().filter_map(task_of));
            let entries = world.entries(queue);
            let waiting: Vec<&String> = entries
                .iter()
                .filter(|task| !taken.contains(*task))
                .collect();
            let mut rest = all.iter();
            let in_order = waiting.iter().all(|task| rest.any(|other| other == *task));
            assert!(
                in_order,
                "queue {queue} was reordered: {entries:?}, was {all:?}"
            );
            looked_at += untouched(&world, queue, &waiting, &before);
            let ended = statuses(&world, all).remove("completed");
            open += all.len() - ended.unwrap_or_default();
        }
        if open == 0 {
            break;
        }
        // Until then the first of them stay, and the others wait.
        if looked_at >= 40 {
            doors.open("seen");
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{open} tasks are still open"
        );
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    assert!(looked_at >= 40, "only {looked_at} waiting tasks were seen");
    let mut runs = world.counter.lines();
    runs.sort();
    let mut wanted: Vec<String> = tasks
        .values()
        .flatten()
        .map(|task| format!("ran {task}"))
        .collect();
    wanted.sort();
    assert_eq!(runs, wanted, "each ran exactly once");
}

#[test]
fn a_resource_limit_counts_observed_jobs() {
    let mut world = World::new("gpus");
    world.start_controller();
    world.queue("gpu");
    let template = json!({"spec": {"containers": [{"name": "task", "image": world.place.task_image,
        "resources": {"limits": {"nvidia.com/gpu": 1}}}]}});
    let doors = Doors::start(&world);
    let source = world.counter.python("ran") + &doors.python("seen");
    let tasks: Vec<String> = (0..4)
        .map(|i| world.run(&format!("gpu {i}"), &source, "gpu"))
        .collect();
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"limits": {"maxConcurrent": 4, "resources": {"nvidia.com/gpu": 2}}, "template": template}),
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120) * PATIENCE;
    let mut most = 0;
    while tasks.iter().any(|task| world.status(task) != "completed") {
        most = most.max(live(&world.jobs(), "gpu"));
        assert!(most <= 2, "{most} GPUs are used");
        // They stay until two were seen side by side.
        if most == 2 {
            doors.open("seen");
        }
        assert!(std::time::Instant::now() < deadline, "not all completed");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(most, 2, "two ran side by side");
    assert_eq!(world.counter.lines().len(), 4);
}
