//! S6 (a, b, g) and what users do at any moment: abort, dequeue, reset, delete, archive, enqueue again. Pods whose code
//! has not started are gone within seconds, and nothing is left over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trainyard::claim::QUIET_TIME;

use super::world::{World, wait};
use crate::times;

/// The stated figures, in seconds: until Job and pod of a task whose code has not begun are gone, and until SIGTERM reaches
/// code that runs.
const GONE_STATED: f64 = 3.0;
const SIGTERM_STATED: f64 = 2.5;
/// Five times the first is allowed: machines are shared.
const GONE: u64 = 15;
/// What a pod needs to end by SIGTERM, and the next one to start: one quiet time and this are what a re-run has to wait.
const POD: Duration = Duration::from_secs(10);

/// A binding whose pods wait for a resource that no node has.
fn waiting_world(name: &str) -> World {
    let mut world = World::new(name);
    world.start_controller();
    world.queue("gpu");
    let container = json!({"name": "task", "image": world.place.task_image, "resources": {"limits": {"example.com/unicorn": 1}}});
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"template": {"spec": {"containers": [container]}}, "limits": {"maxConcurrent": 20}}),
    );
    world.until_ready("gpu");
    world
}

fn until_pending(world: &World, task: &str) {
    wait("its pod is there and waits", 60, || {
        (world.pod_of(task)["status"]["phase"] == "Pending").then_some(())
    });
}

/// Waits until neither Job nor pod of the task is there; in how many seconds that was.
fn until_gone(world: &World, task: &str, what: &str) -> f64 {
    let begun = Instant::now();
    wait(&format!("Job and pod are gone after {what}"), GONE, || {
        (world.job_of(task).is_null() && world.pod_of(task).is_null()).then_some(())
    });
    begun.elapsed().as_secs_f64()
}

/// The same of a task whose code has not begun.
pub(super) fn until_soon_gone(world: &World, task: &str, what: &str) {
    let seconds = until_gone(world, task, what);
    let gone = "Job and pod of a task whose code has not begun are gone";
    times::told("S6", gone, seconds, GONE_STATED);
    assert!(
        seconds < GONE_STATED * 5.0,
        "gone {seconds:.1} s after {what}"
    );
}

/// What a user does to a task.
type Act = fn(&World, &str);

#[test]
fn s6_a_pod_that_waits_is_gone_within_seconds_whatever_its_user_does() {
    let world = waiting_world("s6");
    let act: [(&str, Act); 5] = [
        ("abort", |world, task| {
            world.call("tasks.stop", &json!({"task": task}));
        }),
        ("dequeue", |world, task| {
            world.call("tasks.dequeue", &json!({"task": task}));
        }),
        ("reset", |world, task| {
            world.call("tasks.reset", &json!({"task": task, "force": true}));
        }),
        ("delete", |world, task| {
            world.call("tasks.delete", &json!({"task": task, "force": true}));
        }),
        ("archive", |world, task| {
            world.call("tasks.archive", &json!({"tasks": [task]}));
        }),
    ];
    let tasks: Vec<String> = act
        .iter()
        .map(|(what, _)| world.run(what, "print('never')\n", "gpu"))
        .collect();
    for task in &tasks {
        until_pending(&world, task);
    }
    for ((what, act), task) in act.iter().zip(&tasks) {
        act(&world, task);
        until_soon_gone(&world, task, what);
    }
    assert_eq!(world.status(&tasks[0]), "stopped");
    assert_eq!(world.status(&tasks[1]), "created");
    assert_eq!(world.status(&tasks[2]), "created");
    assert_eq!(world.status(&tasks[3]), "gone");
    let queues = world.call(
        "queues.get_all",
        &json!({"search_hidden": true, "only_fields": ["id", "name", "entries"]}),
    );
    let left: Vec<&Value> = queues["queues"]
        .as_array()
        .expect("queues")
        .iter()
        .filter(|queue| {
            queue["entries"]
                .as_array()
                .is_some_and(|entries| !entries.is_empty())
        })
        .collect();
    assert!(left.is_empty(), "entries are left: {left:?}");
}

#[test]
fn s6_a_task_that_is_reset_and_enqueued_in_the_same_second_runs_once() {
    let world = World::with_binding("s6-again");
    let source = world.counter.python("ran") + "import time\ntime.sleep(600)\n";
    let task = world.create("again", &source, &json!({}));
    world.enqueue(&task, "gpu");
    wait("it runs", 90, || {
        (world.counter.lines().len() == 1).then_some(())
    });
    // While it runs: reset, and enqueued at once.
    world.call("tasks.reset", &json!({"task": task, "force": true}));
    world.enqueue(&task, "gpu");
    let begun = Instant::now();
    wait("it runs again", 150, || {
        (world.counter.lines().len() == 2).then_some(())
    });
    let waited = begun.elapsed();
    println!("runs again {:.0} s after the reset", waited.as_secs_f64());
    // One quiet time, because a late call of the attempt before may still be on its way; five times all of it, because
    // machines are shared. The other waits of the protocol, which this task must not fall into, are minutes.
    let needed = Duration::try_from(QUIET_TIME).expect("a quiet time is positive") + POD;
    assert!(waited < needed * 5, "{waited:?}, {needed:?} are needed");
    // Its kubelet tells of it later than it has begun.
    wait("one pod of it runs", 60, || {
        let pods = world.get(&["pods", "-l", &format!("trainyard.dev/task={task}")]);
        let is_running = |pod: &&Value| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let pods = pods["items"].as_array().expect("pods").iter();
        let running = pods.filter(is_running).count();
        assert!(running <= 1, "one run alone");
        (running == 1).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.counter.lines().len(), 2, "one run alone");
    world.call("tasks.stop", &json!({"task": task}));
    assert_eq!(world.until_ended(&task, 60)["status"], "stopped");
    assert_eq!(world.counter.lines().len(), 2);
}

/// Tells who counts outside of the cluster that it has begun, and that it was asked to end, which it then does.
fn farewell(world: &World) -> String {
    let asked = world.counter.python("asked").replace('\n', "\n    ");
    let begun = world.counter.python("begun");
    format!(
        "import signal, sys, time\n\
         def end(*_):\n    {asked}\n    sys.exit(0)\n\
         signal.signal(signal.SIGTERM, end)\n{begun}time.sleep(600)\n"
    )
}

#[test]
fn s6_a_running_task_that_is_reset_or_deleted_gets_sigterm_and_leaves_nothing() {
    let world = World::with_binding("s6-running");
    let act: [(&str, Act); 2] = [
        ("reset", |world, task| {
            world.call("tasks.reset", &json!({"task": task, "force": true}));
        }),
        ("delete", |world, task| {
            world.call("tasks.delete", &json!({"task": task, "force": true}));
        }),
    ];
    let source = farewell(&world);
    let tasks = act.map(|(what, _)| world.run(what, &source, "gpu"));
    let has_said = |word: &str, task: &String| {
        let line = format!("{word} {task}");
        world.counter.lines().contains(&line)
    };
    wait("both run", 90, || {
        tasks
            .iter()
            .all(|task| has_said("begun", task))
            .then_some(())
    });
    for ((what, act), task) in act.iter().zip(&tasks) {
        act(&world, task);
        let begun = Instant::now();
        wait("SIGTERM reaches its code", 30, || {
            has_said("asked", task).then_some(())
        });
        let seconds = begun.elapsed().as_secs_f64();
        let reached = "SIGTERM reaches the code of a task that its user resets or deletes";
        times::told("S6", reached, seconds, SIGTERM_STATED);
        let seconds = until_gone(&world, task, what);
        println!("{what}: gone after {seconds:.1} s");
    }
    // Whatever its pod did last, the end of the run is not written into what its user has made of the task.
    assert_eq!(world.status(&tasks[0]), "created");
    assert_eq!(world.status(&tasks[1]), "gone");
    let mut runs = world.counter.lines();
    runs.retain(|line| line.starts_with("begun"));
    assert_eq!(runs.len(), 2, "each ran once");
}

#[test]
fn a_task_that_is_moved_to_another_queue_while_it_waits_goes_there() {
    let world = waiting_world("s6-move");
    world.queue("other");
    world.bind("other", &["other"], &json!({}));
    let task = world.run("moves", &world.counter.python("ran"), "gpu");
    until_pending(&world, &task);
    // As the web interface does it: out of one queue, into another.
    world.call("tasks.dequeue", &json!({"task": task}));
    world.enqueue(&task, "other");
    assert_eq!(world.until_ended(&task, 150)["status"], "completed");
    assert_eq!(world.counter.lines().len(), 1);
    wait("the Job of the first queue is gone", 60, || {
        let jobs = world.jobs();
        jobs.iter()
            .all(|job| job["metadata"]["labels"]["trainyard.dev/binding"] == "other")
            .then_some(())
    });
}
