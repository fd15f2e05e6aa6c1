//! Controller and server are killed with SIGKILL at random moments: each task runs exactly once, nothing is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::json;

use super::limits::live;
use super::world::{PATIENCE, World};
use crate::times;

/// Between two looks once nobody is killed any more.
const UNDISTURBED: Duration = Duration::from_millis(300);

/// Runs `count` tasks to their end while `disturb` is called again and again.
fn run_through(
    world: &mut World,
    count: usize,
    seconds: u64,
    mut disturb: impl FnMut(&mut World),
) -> Vec<String> {
    let source = world.counter.python("ran");
    let tasks: Vec<String> = (0..count)
        .map(|i| world.run(&format!("task {i}"), &source, "gpu"))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(seconds) * PATIENCE;
    loop {
        disturb(world);
        let answer = world.call(
            "tasks.get_all",
            &json!({"id": tasks, "only_fields": ["id", "status"], "page_size": 500}),
        );
        let open: Vec<(String, String)> = answer["tasks"]
            .as_array()
            .expect("tasks")
            .iter()
            .map(|task| {
                (
                    task["id"].as_str().unwrap_or_default().to_owned(),
                    task["status"].as_str().unwrap_or_default().to_owned(),
                )
            })
            .filter(|(_, status)| status != "completed")
            .collect();
        if open.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            world.tell(&open[0].0);
            panic!("{} of {count} tasks are still open: {open:?}", open.len());
        }
    }
    tasks
}

fn each_ran_exactly_once(world: &World, tasks: &[String]) {
    let mut runs = world.counter.lines();
    runs.sort();
    let mut wanted: Vec<String> = tasks.iter().map(|task| format!("ran {task}")).collect();
    wanted.sort();
    assert_eq!(runs, wanted, "each task ran exactly once");
    assert!(
        world.entries("gpu").is_empty(),
        "nothing is left in the queue"
    );
    let known: BTreeSet<&str> = tasks.iter().map(String::as_str).collect();
    for job in world.jobs() {
        let task = job["metadata"]["labels"]["trainyard.dev/task"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            known.contains(task.as_str()),
            "a Job without task: {}",
            job["metadata"]["name"]
        );
        assert_eq!(
            world.status(&task),
            "completed",
            "the server's task of {}",
            job["metadata"]["name"]
        );
    }
}

/// Within which work goes on after a death: one period of the Lease; five of them are allowed.
pub(super) const LEASE_PERIOD: Duration = Duration::from_secs(10);

/// How many tasks the binding runs at once.
const SLOTS: usize = 4;

/// How soon after its start a controller takes another task, once it could; nothing where none waits.
fn until_it_goes_on(world: &World) -> Option<Duration> {
    // Since when it could take one: for as long as all slots are taken it has to wait for a pod.
    let mut free = Instant::now();
    let before = world.entries("gpu");
    let first = before.first()?;
    while world.entries("gpu").contains(first) {
        if live(&world.jobs(), "gpu") >= SLOTS {
            free = Instant::now();
        }
        let waited = free.elapsed();
        if waited > LEASE_PERIOD * 5 {
            world.tell(first);
            panic!("no task was taken for {waited:?} after a restart");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = free.elapsed();
    let stated = LEASE_PERIOD.as_secs_f64();
    times::told(
        "S10",
        "work goes on after a restart",
        took.as_secs_f64(),
        stated,
    );
    Some(took)
}

#[test]
fn a_controller_killed_at_random_runs_each_of_fifty_tasks_exactly_once() {
    let mut world = World::with_binding("crash");
    let mut kills = 0;
    let mut resumed = Vec::new();
    let mut random = rand::rng();
    let tasks = run_through(&mut world, 50, 450, |world| {
        if kills == 12 {
            return std::thread::sleep(UNDISTURBED);
        }
        std::thread::sleep(Duration::from_millis(random.random_range(300..6000)));
        world.kill_controller();
        kills += 1;
        world.start_controller();
        // Between these, deaths follow each other as they come.
        if kills % 4 == 0 {
            resumed.extend(until_it_goes_on(world));
        }
    });
    assert!(!resumed.is_empty(), "work was never seen to go on");
    assert!(kills >= 5, "the controller was killed {kills} times");
    each_ran_exactly_once(&world, &tasks);
}

#[test]
fn a_server_killed_at_random_loses_nothing_acknowledged() {
    let mut world = World::with_binding("server-crash");
    let mut kills = 0;
    let mut random = rand::rng();
    let tasks = run_through(&mut world, 50, 300, |world| {
        if kills == 12 {
            return std::thread::sleep(UNDISTURBED);
        }
        std::thread::sleep(Duration::from_millis(random.random_range(500..5000)));
        world.kill_server();
        kills += 1;
        std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
        world.start_server();
    });
    assert!(kills >= 5, "the server was killed {kills} times");
    each_ran_exactly_once(&world, &tasks);
}
