//! Size and speed of the controller, on simulated nodes. `TRAINYARD_BENCH_QUEUED` says how many tasks it takes in one go
//! beside a bare loop, `TRAINYARD_BENCH_JOBS` how many live Jobs it holds; 10,000 of these are the long form. (Beside the
//! incumbent: `bench::incumbent`.)

mod pace;

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Watch, at_least, figure, percentile};
use crate::e2e::played::{Part, Player};
use crate::e2e::s36_scale::{enqueue, processor, requests_per_task, resident, until_taken, world};
use crate::e2e::world::{World, wait};
use crate::{long, process};
use pace::{bare_loop, clear, controlled, named_at_launch, until_run, watched};

fn queued() -> usize {
    long::size("TRAINYARD_BENCH_QUEUED", 2000)
}

fn jobs() -> usize {
    long::size("TRAINYARD_BENCH_JOBS", 1000)
}

#[test]
fn controller_pace_beside_a_bare_loop() {
    let number = queued();
    let (mut world, _kwok) = world(World::new("bench-pace"), number / 1500 + 2);
    // Before and after: a cluster is neither as fast nor as slow after thousands of objects as before them.
    let first = bare_loop(&mut world, number);
    let before = watched(&world);
    let (ours, tasks) = controlled(&mut world, number);
    let again = watched(&world) - before;
    let (writes, reads) = requests_per_task(&world, number);
    let named = named_at_launch(&world, number);
    for task in &tasks {
        world.call("tasks.stop", &json!({"task": task}));
    }
    clear(&world);
    let second = bare_loop(&mut world, number);
    let bare = first.between(second);
    ours.tell("controller", number);
    first.tell("bare loop before it", number);
    second.tell("bare loop after it", number);
    at_least(
        &format!(
            "Jobs created, {number} queued, in parts of what a bare loop of the same writes creates"
        ),
        "%",
        80.0,
        &[ours.per_second / bare.per_second * 100.0],
    );
    figure(
        &format!(
            "from a Job's creation until its pod runs, mean of {number}, in parts of the bare loop's"
        ),
        "%",
        100.0,
        &[ours.to_run / bare.to_run * 100.0],
    );
    figure(
        &format!("until the pods of all {number} Jobs run, in parts of the bare loop's time"),
        "%",
        100.0,
        &[ours.all_run / bare.all_run * 100.0],
    );
    at_least(
        &format!(
            "watches of Jobs and pods that ended and were taken up again, while {number} were created and run"
        ),
        "",
        0.0,
        &[again],
    );
    figure(
        "writes to the API server per task until it runs",
        "",
        3.0,
        &[writes],
    );
    figure(
        "reads from the API server per task until it runs",
        "",
        0.0,
        &[reads],
    );
    figure(
        "requests to the server that name one task, at its launch",
        "",
        3.0,
        &[named],
    );
}

/// Resident memory of the controller once it has nothing to do, in MiB, second by second.
fn memory(world: &mut World) -> Vec<f64> {
    std::thread::sleep(Duration::from_secs(20));
    let second = |_| {
        std::thread::sleep(Duration::from_secs(1));
        resident(world)
    };
    (0..5).map(second).collect()
}

#[test]
fn controller_with_many_live_jobs() {
    let number = jobs();
    let (mut world, _kwok) = world(World::new("bench-scale"), number / 1500 + 2);
    let running = Watch::running(&world, Instant::now);
    let begun = Instant::now();
    enqueue(&world, number);
    until_run(&running, number, begun);
    let goal = if number > 1000 { 64.0 } else { 32.0 };
    figure(
        &format!("controller resident memory, {number} live Jobs"),
        "MiB",
        goal,
        &memory(&mut world),
    );
    println!(
        "at its peak: {:.1} MiB",
        process::peak(world.controller().id())
    );
    let restarts: Vec<f64> = (0..3)
        .map(|_| {
            world.kill_controller();
            world.start_controller();
            until_taken(&world).as_secs_f64()
        })
        .collect();
    figure(
        &format!("restart with {number} live Jobs to first Job"),
        "s",
        5.0,
        &restarts,
    );
    figure(
        &format!("controller resident memory, restarted with {number} live Jobs"),
        "MiB",
        goal,
        &memory(&mut world),
    );
}

/// Seconds from enqueuing to the first sight of the Job, of so many tasks that come after such pauses.
fn to_job(
    world: &World,
    watch: &Watch<Instant>,
    tasks: usize,
    pause: impl Fn(u64) -> u64,
) -> Vec<f64> {
    let queue = world.queue_id("gpu");
    let enqueued: Vec<(String, Instant)> = (0..)
        .take(tasks)
        .map(|i: u64| {
            let task = world.create(&format!("bench {i}"), "print('never')\n", &json!({}));
            std::thread::sleep(Duration::from_millis(pause(i)));
            let begun = Instant::now();
            world.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
            (task, begun)
        })
        .collect();
    let seen = |(task, begun): &(String, Instant)| {
        let at = wait("the Job is seen", 60, || watch.first_job(task));
        at.saturating_duration_since(*begun).as_secs_f64()
    };
    enqueued.iter().map(seen).collect()
}

#[test]
fn controller_enqueue_to_job_created() {
    let samples = jobs().min(100);
    let (world, _kwok) = world(World::new("bench-launch"), 1);
    let watch = Watch::start(&world, "jobs", Instant::now);
    std::thread::sleep(Duration::from_secs(10));
    // Idle: each comes when nothing is on its way any more, at another moment of the second.
    let idle = to_job(&world, &watch, samples, |i| 3000 + i * 137 % 1000);
    figure(
        "idle enqueue to Job created, p50",
        "s",
        1.2,
        &[percentile(&idle, 50)],
    );
    figure(
        "idle enqueue to Job created, p99",
        "s",
        2.5,
        &[percentile(&idle, 99)],
    );
    // Busy: others were taken just before.
    let busy = to_job(&world, &watch, samples, |i| 60 + i * 37 % 100);
    figure(
        "enqueue to Job created, queue busy, p50",
        "s",
        0.3,
        &[percentile(&busy[busy.len() / 10..], 50)],
    );
}

#[test]
fn controller_abort_to_sigterm() {
    let samples = jobs().min(100);
    let (world, _kwok) = world(World::new("bench-abort"), 1);
    // Their code has started, and would go on for long.
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| {
        Part::Completes(3_600_000)
    });
    let tasks = enqueue(&world, samples);
    wait("all run", 300, || {
        (player.runs().len() == samples).then_some(())
    });
    let mut values = Vec::new();
    for (i, task) in (0_u64..).zip(&tasks) {
        // Random moments of the look at what runs.
        std::thread::sleep(Duration::from_millis(500 + i * 137 % 1000));
        let begun = Instant::now();
        world.call("tasks.stop", &json!({"task": task}));
        let is_told = || {
            let pod = world.pod_of(task);
            pod.is_null() || !pod["metadata"]["deletionTimestamp"].is_null()
        };
        while !is_told() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{task} runs on");
            std::thread::sleep(Duration::from_millis(20));
        }
        values.push(begun.elapsed().as_secs_f64());
    }
    for (percent, name) in [(50, "p50"), (99, "p99")] {
        figure(
            &format!("abort to the pod's SIGTERM, {name}"),
            "s",
            2.5,
            &[percentile(&values, percent)],
        );
    }
}

#[test]
fn controller_idle_with_ten_bindings_on_thirty_queues() {
    let mut world = World::new("bench-idle");
    world.start_controller();
    for binding in 0..10 {
        let queues: Vec<String> = (0..3).map(|queue| format!("q{binding}-{queue}")).collect();
        for queue in &queues {
            world.queue(queue);
        }
        let names: Vec<&str> = queues.iter().map(String::as_str).collect();
        world.bind(&format!("b{binding}"), &names, &json!({}));
    }
    for binding in 0..10 {
        world.until_ready(&format!("b{binding}"));
    }
    std::thread::sleep(Duration::from_secs(10));
    let mut shares = Vec::new();
    let mut requests = Vec::new();
    for _ in 0..3 {
        let (used, asked) = (
            processor(&mut world),
            world.metric("trainyard_api_requests_total", &[]),
        );
        let begun = Instant::now();
        std::thread::sleep(Duration::from_secs(20));
        let seconds = begun.elapsed().as_secs_f64();
        shares.push((processor(&mut world) - used) / seconds * 100.0);
        requests.push((world.metric("trainyard_api_requests_total", &[]) - asked) / seconds);
    }
    figure(
        "controller idle, 10 bindings on 30 queues: share of a core",
        "%",
        1.0,
        &shares,
    );
    figure(
        "controller idle, 10 bindings on 30 queues: requests to the server",
        "/s",
        1.0,
        &requests,
    );
}
