//! S42 in real pods: while a task waits for room its environment is made in the cache of the node, by a Job that is no
//! attempt of it. The task finds it, and the next one of its kind prefers that node.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::s42_cache::MAKING;
use super::world::{World, wait};

/// Begins the line of a task's log that tells that its packages were there already.
const FOUND: &str = "trainyard: the Python environment is in the cache";
/// What each of these tasks prints.
const WRITTEN: &str = "ran with threadpoolctl\n";
/// What may not change of a task that waits.
const FIELDS: [&str; 6] = [
    "status",
    "status_changed",
    "status_message",
    "status_reason",
    "last_worker",
    "runtime",
];

/// A task with a requirement that its image lacks.
fn create(world: &World, name: &str) -> String {
    let source = "import threadpoolctl\nprint('ran with threadpoolctl')\n";
    let requirements = json!({"pip": "threadpoolctl\n"});
    world.create(
        name,
        source,
        &json!({"script": {"requirements": requirements}}),
    )
}

/// What the server says of a task, as far as nobody may change it.
fn told(world: &World, task: &str) -> Value {
    world.tasks(&[task], &FIELDS)[task].clone()
}

/// The Job that makes a task's environment ahead, once it has ended.
fn until_made(world: &World, task: &str) -> Value {
    let label = format!("trainyard.dev/ahead={task}");
    wait("the environment is made ahead", 240, || {
        let job = world.get(&["jobs", "-l", &label])["items"][0].clone();
        let conditions = job["status"]["conditions"].as_array()?.clone();
        let ended = |kind: &str| {
            let holds = |one: &&Value| one["type"] == kind && one["status"] == "True";
            conditions.iter().find(holds).cloned()
        };
        if let Some(failed) = ended("Failed") {
            let logs = ["logs", "--all-containers", "--tail=50", "-l", &label];
            let logs = world.try_kubectl(&logs).unwrap_or_else(|error| error);
            panic!("{failed:#}\n{logs}");
        }
        ended("Complete").map(|_| job)
    })
}

#[test]
fn s42_a_task_that_waits_finds_its_environment_and_the_next_prefers_the_node_that_holds_it() {
    let mut world = World::new("s42-ahead");
    let cache = tempfile::tempdir().expect("temp folder");
    let mode = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(cache.path(), mode).expect("cache is open to all");
    let cache = json!({"hostPath": cache.path().display().to_string(), "ahead": 2});
    world.start_controller();
    world.queue("gpu");
    // One of these to a node: what is made ahead is none of them, and shares the node of the one that runs.
    let apart = json!([{
        "labelSelector": {"matchLabels": {"team": "vision"}},
        "topologyKey": "kubernetes.io/hostname",
    }]);
    let template = json!({
        "metadata": {"labels": {"team": "vision"}},
        "spec": {"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": apart,
        }}},
    });
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "limits": {"maxConcurrent": 1},
            "environment": {"cache": cache},
            "template": template,
        }),
    );
    world.until_ready("gpu");

    let holder = world.run("holds the room", "import time\ntime.sleep(3600)\n", "gpu");
    wait("the first task runs", 120, || {
        (world.status(&holder) == "in_progress").then_some(())
    });
    let task = create(&world, "waits");
    world.enqueue(&task, "gpu");
    let before = told(&world, &task);

    let job = until_made(&world, &task);
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], json!(world.place.task_image));
    assert_eq!(told(&world, &task), before, "nobody wrote to the task");
    assert_eq!(before["status"], "queued");
    assert_eq!(world.entries("gpu"), [task.as_str()]);
    assert!(world.job_of(&task).is_null(), "no attempt was made");
    assert!(
        world.log(&task).is_empty(),
        "{:#?}: nothing stands in its log",
        world.log(&task)
    );

    world.call("tasks.stop", &json!({"task": holder}));
    let ended = world.until_ended(&task, 240);
    let log = world.log(&task);
    assert_eq!(ended["status"], "completed", "{log:#?}");
    world.has_written(&task, WRITTEN);
    assert!(log.iter().any(|line| line.starts_with(FOUND)), "{log:#?}");
    assert!(!log.iter().any(|line| line.starts_with(MAKING)), "{log:#?}");

    let node = world.pod_of(&task)["spec"]["nodeName"].clone();
    let next = create(&world, "of the same kind");
    world.enqueue(&next, "gpu");
    let job = wait("the next task has its Job", 120, || {
        Some(world.job_of(&next)).filter(|job| !job.is_null())
    });
    let affinity = &job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    assert_eq!(
        affinity,
        &json!({"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 50, "preference": {"matchFields": [field]}},
        ]}),
        "preferred, never required"
    );
    assert_eq!(world.until_ended(&next, 240)["status"], "completed");
    world.has_written(&next, WRITTEN);
    let log = world.log(&next);
    assert!(log.iter().any(|line| line.starts_with(FOUND)), "{log:#?}");
}
