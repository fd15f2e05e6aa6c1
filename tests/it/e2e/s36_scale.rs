//! S36 in its short form: many live Jobs on simulated nodes. The figures themselves are benches (`bench::controller`).

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kwok::Kwok;
use super::world::{PATIENCE, World, wait};
use crate::process;

/// The stated figure, of a restart with far more Jobs; five times of it are allowed, on a machine that others use too.
const DECIDED: Duration = Duration::from_secs(5);

/// Creates and enqueues so many tasks for the queue `gpu`.
pub fn enqueue(world: &World, count: usize) -> Vec<String> {
    let queue = world.queue_id("gpu");
    (0..count)
        .map(|i| {
            let task = world.create(&format!("live {i}"), "print('never')\n", &json!({}));
            world.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
            task
        })
        .collect()
}

/// How many Jobs there are, and how many pods that run.
pub fn live(world: &World) -> (usize, usize) {
    (
        world.count("jobs", ""),
        world.count("pods", "status.phase=Running"),
    )
}

/// Resident memory of the controller, in MiB.
pub fn resident(world: &mut World) -> f64 {
    process::resident(world.controller().id())
}

/// Seconds of processor time that the controller has used.
pub fn processor(world: &mut World) -> f64 {
    let pid = world.controller().id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the controller lives");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks are a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Until a task that is enqueued now has its Job.
pub fn until_taken(world: &World) -> Duration {
    let begun = Instant::now();
    let task = enqueue(world, 1).remove(0);
    wait("the Job of a new task", 120, || {
        (!world.job_of(&task).is_null()).then_some(())
    });
    begun.elapsed()
}

/// Requests to the API server per live Job: writes, and reads.
pub fn requests_per_task(world: &World, tasks: usize) -> (f64, f64) {
    let sum = |words: &[&str]| world.metric("trainyard_kubernetes_requests_total", words);
    let of = |resource: &str, verbs: &[&str]| -> f64 {
        verbs
            .iter()
            .map(|verb| {
                sum(&[
                    &format!("resource=\"{resource}\""),
                    &format!("verb=\"{verb}\""),
                ])
            })
            .sum()
    };
    let writes = of("jobs", &["create", "patch", "update", "delete"]);
    // Lists of all are of the process, not of a task.
    let reads = of("jobs", &["get"]) + of("pods", &["get"]);
    let count = f64::from(u32::try_from(tasks).expect("a count"));
    (writes / count, reads / count)
}

pub fn world(mut world: World, nodes: usize) -> (World, Kwok) {
    let kwok = Kwok::start(&world, nodes);
    world.start_controller();
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &kwok.binding_patch());
    world.until_ready("gpu");
    (world, kwok)
}

#[test]
fn s36_many_live_jobs_cost_few_requests_and_a_restart_finds_them() {
    const JOBS: usize = 60;
    let (mut world, _kwok) = world(World::new("s36"), 2);
    enqueue(&world, JOBS);
    wait("all run", 180, || {
        (live(&world) == (JOBS, JOBS)).then_some(())
    });
    let (writes, reads) = requests_per_task(&world, JOBS);
    println!("{writes:.2} writes, {reads:.2} reads per task");
    assert!(writes > 1.9 && writes <= 3.0, "{writes} writes per task");
    assert!(reads <= 0.5, "{reads} reads per task");
    let running: Value = world.get(&["queuebinding", "gpu"]);
    println!("status: {}", running["status"]["queues"]);
    world.kill_controller();
    world.start_controller();
    let taken = until_taken(&world);
    println!("restart to first decision: {:.1} s", taken.as_secs_f64());
    assert!(taken < DECIDED * 5 * PATIENCE, "{taken:?}");
    assert_eq!(live(&world).0, JOBS + 1, "no Job was made twice");
}
