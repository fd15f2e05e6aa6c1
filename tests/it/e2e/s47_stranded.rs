//! S47: tasks that another consumer popped and dropped are told, and left alone; S28: probes, metrics and the worker
//! that people see; S44: the same names in two clusters.

use std::time::Duration;

use serde_json::{Value, json};
use trainyard::claim::QUIET_TIME;

use super::s11_rolling_update::FAREWELL;
use super::s11_shares::{taken_over, tell_farewell, tell_takeover};
use super::s28_events::until_told;
use super::taken::{nowhere, taken, until_taken};
use super::world::{World, wait};
use crate::clock;

/// So soon another replica follows one that died without a word (`docs/operations.md`).
const TAKEOVER: Duration = Duration::from_secs(15);

#[test]
fn s47_a_task_that_another_consumer_dropped_is_told_and_left_alone() {
    let world = World::with_binding("s47");
    world.bind("gpu", &["gpu"], &json!({"suspend": true}));
    wait("the binding is suspended", 30, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended").then_some(())
    });
    let task = world.run("dropped", &world.counter.python("ran"), "gpu");
    // What an old glue does first, before it dies.
    let popped = world.call(
        "queues.get_next_task",
        &json!({"queue": world.queue_id("gpu")}),
    );
    assert_eq!(popped["entry"]["task"], task.as_str());
    let started = world.create("runs elsewhere", "print('x')\n", &json!({}));
    world.call("tasks.started", &json!({"task": started, "force": true}));
    world.call(
        "queues.add_task",
        &json!({"queue": world.queue_id("gpu"), "task": started}),
    );
    world.bind("gpu", &["gpu"], &json!({"suspend": false}));
    let condition = wait("the condition tells of it", 180, || {
        let condition = world.condition("gpu", "NothingStranded");
        (condition["status"] == "False").then_some(condition)
    });
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.contains(&task), "{message}");
    until_told(&world, &[("Stranded", "gpu")]);
    assert_eq!(world.condition("gpu", "Ready")["status"], "True");
    let label = format!("binding=\"{}/gpu\"", world.namespace);
    wait("the metric counts it", 30, || {
        let metric = world.metric("trainyard_stranded_tasks", &[&label]);
        ((metric - 1.0).abs() < 0.1).then_some(())
    });
    assert_eq!(world.status(&task), "queued");
    assert!(world.jobs().is_empty(), "neither is started");
    assert_eq!(world.status(&started), "in_progress");
    // Its user enqueues it again, and it runs.
    world.call("tasks.dequeue", &json!({"task": task}));
    world.enqueue(&task, "gpu");
    assert_eq!(world.until_ended(&task, 120)["status"], "completed");
    wait("the condition is over", 60, || {
        (world.condition("gpu", "NothingStranded")["status"] == "True").then_some(())
    });
    until_told(&world, &[("AllAccountedFor", "gpu")]);
    assert_eq!(world.counter.lines().len(), 1);
}

#[test]
#[ignore = "long form: seven minutes of quiet times"]
fn s47_what_another_consumer_dropped_is_put_back_where_the_binding_asks_for_it() {
    let world = World::with_binding("s47-back");
    world.bind("gpu", &["gpu"], &json!({"suspend": true}));
    wait("the binding is suspended", 30, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended").then_some(())
    });
    let task = world.run("dropped", &world.counter.python("ran"), "gpu");
    world.call(
        "queues.get_next_task",
        &json!({"queue": world.queue_id("gpu")}),
    );
    world.kubectl(&[
        "annotate",
        "queuebinding",
        "gpu",
        "trainyard.dev/restore-stranded=true",
    ]);
    world.bind("gpu", &["gpu"], &json!({"suspend": false}));
    wait("the condition tells of it", 180, || {
        (world.condition("gpu", "NothingStranded")["status"] == "False").then_some(())
    });
    assert_eq!(world.status(&task), "queued");
    // A slow consumer may still start it: 15 quiet times of 20 s pass before it is touched.
    assert_eq!(world.until_ended(&task, 600)["status"], "completed");
    assert_eq!(world.counter.lines().len(), 1);
}

#[test]
fn s28_probes_metrics_and_the_worker_tell_what_goes_on() {
    let mut world = World::with_binding("s28");
    assert_eq!(world.probe("/livez").0, 200);
    assert_eq!(world.probe("/readyz").0, 200);
    let good = world.run("good", "print('well')\n", "gpu");
    assert_eq!(world.until_ended(&good, 90)["status"], "completed");
    let label = format!("binding=\"{}/gpu\"", world.namespace);
    wait("the end is counted", 30, || {
        let words = [label.as_str(), "category=\"completed\""];
        (world.metric("trainyard_ended_tasks_total", &words) > 0.5).then_some(())
    });
    for phase in ["queued", "claimed", "scheduled", "prepared", "started"] {
        let words = [label.as_str(), &format!("phase=\"{phase}\"")];
        // A very short task may be over before its container is seen to run.
        let seen = world.metric("trainyard_phase_seconds_count", &words);
        println!("phase {phase}: {seen}");
        assert!(phase != "queued" || seen > 0.5);
    }
    let words = [label.as_str(), "phase=\"first-line\""];
    assert!(world.metric("trainyard_phase_seconds_count", &words) > 0.5);
    assert!((world.metric("trainyard_leader", &[&label]) - 1.0).abs() < 0.1);
    let ready = [label.as_str(), "condition=\"Ready\""];
    assert!((world.metric("trainyard_condition", &ready) - 1.0).abs() < 0.1);
    let (_, text) = world.probe("/metrics");
    assert!(!text.contains(&good), "no task id is a label");

    // People see who serves the queue.
    let workers = world.call("workers.get_all", &json!({}));
    let of_binding = workers["workers"]
        .as_array()
        .expect("workers")
        .iter()
        .find(|worker| {
            worker["id"]
                .as_str()
                .is_some_and(|id| id.contains(&format!("{}.gpu", world.namespace)))
        })
        .cloned()
        .unwrap_or_else(|| panic!("the binding's worker is listed: {workers:#}"));
    assert!(
        of_binding["queues"]
            .to_string()
            .contains(&world.queue_id("gpu")),
        "{of_binding:#}"
    );

    // A server that is down is no reason to restart, and says so.
    world.kill_server();
    wait("the condition says so", 60, || {
        (world.condition("gpu", "ServerReachable")["status"] == "False").then_some(())
    });
    assert_eq!(world.probe("/livez").0, 200);
    assert_eq!(world.probe("/readyz").0, 200);
    assert!((world.metric("trainyard_condition", &ready)).abs() < 0.1);
    world.start_server();
    world.until_ready("gpu");
    let took = world.terminate_controller();
    tell_farewell(took);
    assert!(took < FAREWELL, "{took:?}");
    let lease = world.get(&["lease", "trainyard-gpu"]);
    assert!(
        lease["spec"]["holderIdentity"]
            .as_str()
            .is_none_or(str::is_empty),
        "the Lease is free: {lease}"
    );
}

#[test]
fn s28_logs_in_json_name_task_queue_and_binding_and_sigterm_ends_within_its_time() {
    let mut world = World::new("s28json");
    let format = ("TRAINYARD_LOG_FORMAT".to_owned(), "json".to_owned());
    world.environment.push(format);
    world.start_controller();
    world.queue("gpu");
    let template = nowhere(&world, &json!({}));
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"limits": {"maxConcurrent": 100}, "template": template}),
    );
    let task = world.run("aborted", "print(1)\n", "gpu");
    until_taken(&world, 1, 60);
    world.call("tasks.stop", &json!({"task": task}));
    wait("its Job is gone", 60, || {
        taken(&world).is_empty().then_some(())
    });
    // In the midst of work.
    for i in 0..40 {
        world.run(&format!("in flight {i}"), "print(1)\n", "gpu");
    }
    let took = world.terminate_controller();
    tell_farewell(took);
    assert!(took < FAREWELL, "{took:?}");
    let log = std::fs::read_to_string(world.dir.path().join("controller.log")).expect("a log");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let of_task: Vec<&Value> = lines
        .iter()
        .filter(|line| line["fields"]["task"] == task || line["task"] == task)
        .collect();
    let says = |words: &str| {
        of_task.iter().any(|line| {
            let text = line.to_string();
            text.contains(words)
                && text.contains("\"queue\":\"gpu\"")
                && text.contains("\"binding\":\"gpu\"")
        })
    };
    assert!(says("task taken"), "{of_task:#?}");
    assert!(says("Withdraw"), "{of_task:#?}");
}

#[test]
fn s11_a_second_replica_takes_over_and_nothing_runs_twice() {
    let mut world = World::with_binding("s11");
    world.queue("other");
    world.bind("other", &["other"], &json!({}));
    world.until_ready("other");
    let second = world.replica("second");
    let source = world.counter.python("ran");
    let tasks: Vec<String> = (0..6)
        .map(|i| {
            let queue = if i % 2 == 0 { "gpu" } else { "other" };
            world.run(&format!("task {i}"), &source, queue)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let killed = clock::now();
    world.kill_controller();
    wait("the second replica holds both Leases", 60, || {
        ["trainyard-gpu", "trainyard-other"]
            .iter()
            .all(|lease| world.get(&["lease", lease])["spec"]["holderIdentity"] == "second")
            .then_some(())
    });
    let takeover = taken_over(&world, killed);
    tell_takeover("kill", takeover);
    // The second may have been started only just before: a quiet time on top of five times as long.
    let most = TAKEOVER * 5 + Duration::try_from(QUIET_TIME).expect("a quiet time is positive");
    assert!(takeover < most, "{takeover:?}, {most:?} are allowed");
    for task in &tasks {
        assert_eq!(world.until_ended(task, 180)["status"], "completed");
    }
    assert_eq!(world.counter.lines().len(), tasks.len(), "each ran once");
    drop(second);
}
