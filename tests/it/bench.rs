//! Figures, not behaviour: run by `cargo xtask bench`, which writes them into `docs/benchmarks.md`.
//!
//! Each prints lines `figure | name | unit | goal | values…`; medians are taken by the caller.

mod controller;
mod executor;
mod incumbent;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::e2e::s1_first_task::{READY, install, ready_after, uninstall};
use crate::e2e::world::{World, wait};
use crate::exec::fence::requests_before_user_code;
use crate::process::resident;

mod server;

/// A figure that must not be larger than its goal.
fn figure(name: &str, unit: &str, goal: f64, values: &[f64]) {
    print_figure(name, unit, &format!("{goal}"), values);
}

/// A figure that must not be smaller than its goal.
fn at_least(name: &str, unit: &str, goal: f64, values: &[f64]) {
    print_figure(name, unit, &format!(">={goal}"), values);
}

fn print_figure(name: &str, unit: &str, goal: &str, values: &[f64]) {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    println!("figure | {name} | {unit} | {goal} | {}", values.join(" "));
}

/// Ours beside the incumbent's; the second has to be so many times the first, if a number is given.
fn compare(name: &str, unit: &str, ours: &[f64], incumbent: &[f64], times: Option<f64>) {
    let text = |values: &[f64]| {
        let values: Vec<String> = values.iter().map(|value| format!("{value:.4}")).collect();
        values.join(" ")
    };
    let goal = times.map_or(String::new(), |times| format!(" | {times}"));
    println!(
        "compare | {name} | {unit} | {} | {}{goal}",
        text(ours),
        text(incumbent)
    );
}

/// The controller of this world, and a binding `gpu` of a queue of that name.
fn bound(mut world: World, patch: &Value) -> World {
    world.start_controller();
    world.queue("gpu");
    world.bind("gpu", &["gpu"], patch);
    world.until_ready("gpu");
    world
}

/// A folder that pods of any user may write to, and the patch of a binding that keeps its caches there.
fn kept_cache() -> (TempDir, Value) {
    let cache = tempfile::tempdir().expect("temp folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(cache.path(), mode).expect("cache is open to all");
    let path = cache.path().display().to_string();
    let patch = json!({"environment": {"cache": {"hostPath": path}}});
    (cache, patch)
}

/// When each object of a kind was first seen on the API server, by its name.
struct Watch<T> {
    seen: Arc<Mutex<BTreeMap<String, T>>>,
    child: Child,
}

impl<T: Copy + Send + 'static> Watch<T> {
    /// `clock` tells the moment.
    fn start(world: &World, kind: &str, clock: fn() -> T) -> Self {
        Self::of(world, &[kind], clock)
    }

    /// Pods that run, as they begin to: lists of all of them, again and again, would be most of the API server's work.
    fn running(world: &World, clock: fn() -> T) -> Self {
        Self::of(
            world,
            &["pods", "--field-selector=status.phase=Running"],
            clock,
        )
    }

    fn of(world: &World, what: &[&str], clock: fn() -> T) -> Self {
        let mut child = Command::new(world.place.bin.join("kubectl"))
            .env("KUBECONFIG", &world.place.kubeconfig)
            .args(["-n", &world.namespace, "get"])
            .args(what)
            .args(["--watch", "--no-headers"])
            .args(["-o", "custom-columns=N:.metadata.name"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let seen: Arc<Mutex<BTreeMap<String, T>>> = Arc::default();
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut seen = kept.lock().expect("lock");
                seen.entry(line.trim().to_owned()).or_insert_with(clock);
            }
        });
        Self { seen, child }
    }

    /// When each of all was seen.
    fn all(&self) -> Vec<T> {
        self.seen.lock().expect("lock").values().copied().collect()
    }

    /// When the first Job of this task was seen.
    fn first_job(&self, task: &str) -> Option<T> {
        let seen = self.seen.lock().expect("lock");
        seen.get(&format!("ty-{task}-1")).copied()
    }

    /// When something was seen that has the task in its name.
    fn anything_of(&self, task: &str) -> Option<T> {
        let seen = self.seen.lock().expect("lock");
        seen.iter()
            .find(|(name, _)| name.contains(task))
            .map(|(_, at)| *at)
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value that so many percent of all are not above.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

#[test]
fn idle_enqueue_to_job_created() {
    let world = bound(World::new("bench-job"), &json!({}));
    let watch = Watch::start(&world, "jobs", Instant::now);
    let mut values = Vec::new();
    for i in 0..15_u64 {
        // Random moments of the idle poll: the waits differ by a fraction of its second.
        thread::sleep(Duration::from_millis(2500 + i * 137));
        let task = world.create(&format!("bench {i}"), "print('x')\n", &json!({}));
        let queue = world.queue_id("gpu");
        let begun = Instant::now();
        world.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
        let at = wait("the Job is seen", 30, || watch.first_job(&task));
        values.push(at.duration_since(begun).as_secs_f64());
        world.until_ended(&task, 60);
    }
    figure("idle enqueue to Job created", "s", 1.2, &values);
}

#[test]
fn installation_to_ready_controller() {
    let world = World::new("bench-install");
    let mut values = Vec::new();
    for _ in 0..5 {
        install(&world);
        values.push(f64::from(ready_after(&world)));
        uninstall(&world);
    }
    figure(
        "controller's pod, start to ready (in whole seconds)",
        "s",
        f64::from(READY),
        &values,
    );
}

/// Python that prints how long ago process 1 of the container started, and the memory of process 1.
const SINCE_START: &str = "import time\n\
    now = time.clock_gettime(time.CLOCK_BOOTTIME)\n\
    start = int(open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19]) / 100\n\
    print('SINCE', now - start)\n\
    rss = [l for l in open('/proc/1/status') if l.startswith('VmRSS')][0].split()[1]\n\
    print('RSS', int(rss) / 1024)\n";

fn printed(world: &World, task: &str, word: &str) -> f64 {
    world
        .log(task)
        .iter()
        .find_map(|line| {
            line.strip_prefix(word)
                .map(str::trim)
                .and_then(|value| value.parse().ok())
        })
        .unwrap_or_else(|| panic!("{word} in the log of {task}: {:#?}", world.log(task)))
}

#[test]
fn container_start_to_first_line_and_memory_of_the_executor() {
    let world = bound(World::new("bench-start"), &json!({}));
    let mut start = Vec::new();
    let mut memory = Vec::new();
    for i in 0..7 {
        let task = world.run(&format!("start {i}"), SINCE_START, "gpu");
        assert_eq!(world.until_ended(&task, 60)["status"], "completed");
        start.push(printed(&world, &task, "SINCE "));
        memory.push(printed(&world, &task, "RSS "));
    }
    figure(
        "container start to first line, nothing to install",
        "s",
        0.5,
        &start,
    );
    figure("executor resident memory", "MiB", 15.0, &memory);
}

#[test]
fn requests_of_a_pod_before_user_code() {
    let (mut all, mut of_task) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (before, of_prepare) = requests_before_user_code();
        let count = |requests: usize| f64::from(u32::try_from(requests).expect("few requests"));
        all.push(count(before.len()));
        of_task.push(count(before.len() - of_prepare));
    }
    figure("requests of a pod before user code", "", 7.0, &all);
    figure(
        "requests of the task's container before user code",
        "",
        5.0,
        &of_task,
    );
}

#[test]
fn warm_environment() {
    let mut world = World::new("bench-warm");
    world.start_controller();
    let requirements =
        json!({"script": {"requirements": {"pip": "clearml == 2.1.12\nscikit-learn\n"}}});
    let run = |queue: &str| {
        let task = world.create("environment", SINCE_START, &requirements);
        world.enqueue(&task, queue);
        let ended = world.until_ended(&task, 180);
        assert_eq!(ended["status"], "completed", "{ended:#}");
        printed(&world, &task, "SINCE ")
    };
    let (mut first, mut warm) = (Vec::new(), Vec::new());
    for i in 0..5 {
        // A cache of its own, empty.
        let (_cache, patch) = kept_cache();
        let queue = format!("cache-{i}");
        world.queue(&queue);
        world.bind(&queue, &[&queue], &patch);
        world.until_ready(&queue);
        first.push(run(&queue));
        warm.push(run(&queue));
    }
    figure(
        "first environment (scikit-learn, clearml), near index",
        "s",
        10.0,
        &first,
    );
    figure("warm environment to first line", "s", 2.0, &warm);
}

#[test]
fn memory_of_the_controller_with_fifty_live_jobs() {
    let mut world = bound(
        World::new("bench-memory"),
        &json!({"limits": {"maxConcurrent": 50}, "template": {"spec": {
            "nodeSelector": {"no-such-node": "true"},
            "containers": [{"name": "task", "image": "example.org/none:1"}]}}}),
    );
    for i in 0..50 {
        world.run(&format!("live {i}"), "print('never')\n", "gpu");
    }
    wait("fifty Jobs are live", 120, || {
        (world.jobs().len() == 50).then_some(())
    });
    thread::sleep(Duration::from_secs(5));
    let mut values = vec![resident(world.controller().id())];
    // Others find them all there.
    for _ in 0..4 {
        world.kill_controller();
        world.start_controller();
        wait("the next one leads", 60, || {
            let answers = world.probe("/metrics").0 == 200;
            (answers && world.metric("trainyard_passes_total", &[]) > 1.0).then_some(())
        });
        thread::sleep(Duration::from_secs(15));
        values.push(resident(world.controller().id()));
    }
    figure(
        "controller resident memory, 50 live Jobs",
        "MiB",
        32.0,
        &values,
    );
}
