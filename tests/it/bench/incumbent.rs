//! Ours and the incumbent's in one run: the controller beside `clearml-agent`'s Kubernetes glue (`e2e::glue`), same
//! cluster, same server, same image, same task, in turns. In the incumbent's favour its pods find agent and pip on a
//! volume, where it would install both at every start.
//!
//! Each prints lines `compare | name | unit | ours: values… | incumbent: values…`.

mod daemon;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Watch, bound, kept_cache, printed};
use crate::clock::now;
use crate::e2e::glue::{Glue, Packages};
use crate::e2e::world::{World, merge, wait};
use crate::process::resident;

fn compare(name: &str, unit: &str, ours: &[f64], incumbent: &[f64]) {
    super::compare(name, unit, ours, incumbent, None);
}

/// Python that prints when its first line was reached, and how long the container was up by then.
const FIRST_LINE: &str = "import time\n\
    now, up = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)\n\
    start = int(open('/proc/1/stat').read().rsplit(')', 1)[1].split()[19]) / 100\n\
    print('AT', repr(now))\n\
    print('SINCE', up - start)\n";

/// Waits for a task's good end. The glue stops each on its way to a pod, so that `stopped` is no end here.
fn until_completed(world: &World, task: &str, seconds: u64) -> Value {
    wait("the task is completed", seconds, || {
        let status = world.status(task);
        assert_ne!(status, "failed", "{:#?}", world.log(task));
        (status == "completed").then(|| world.task(task))
    })
}

/// Where the time of one task went.
#[derive(Default)]
struct Phases {
    whole: Vec<f64>,
    pod: Vec<f64>,
    container: Vec<f64>,
    line: Vec<f64>,
}

impl Phases {
    fn add(&mut self, world: &World, watch: &Watch<f64>, queue: &str) {
        let task = world.create("first line", FIRST_LINE, &json!({}));
        let id = world.queue_id(queue);
        let begun = now();
        world.call("tasks.enqueue", &json!({"task": task, "queue": id}));
        until_completed(world, &task, 180);
        let (at, since) = (
            printed(world, &task, "AT "),
            printed(world, &task, "SINCE "),
        );
        let pod = watch.anything_of(&task).expect("the pod was seen");
        self.whole.push(at - begun);
        self.pod.push(pod - begun);
        self.container.push(at - since - pod);
        self.line.push(since);
    }
}

/// Random moments of either's poll: the waits differ by a fraction of it.
fn in_turns(world: &World, watch: &Watch<f64>, theirs: &str, rounds: u64) -> (Phases, Phases) {
    let (mut ours, mut incumbent) = (Phases::default(), Phases::default());
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(1500 + round * 737));
        ours.add(world, watch, "gpu");
        thread::sleep(Duration::from_millis(1500 + round * 1137));
        incumbent.add(world, watch, theirs);
    }
    (ours, incumbent)
}

#[test]
fn glue_enqueue_to_first_line() {
    let world = bound(World::compared("bench-line"), &json!({}));
    let watch = Watch::start(&world, "pods", now);
    {
        let glue = Glue::start(&world, "glue", Packages::Skip);
        let (a, b) = in_turns(&world, &watch, &glue.queue, 7);
        compare(
            "enqueue to first line, nothing to install, idle cluster",
            "s",
            &a.whole,
            &b.whole,
        );
        compare(
            "— of it: enqueue to pod on the API server",
            "s",
            &a.pod,
            &b.pod,
        );
        compare(
            "— of it: pod to container's process 1",
            "s",
            &a.container,
            &b.container,
        );
        compare("— of it: process 1 to first line", "s", &a.line, &b.line);
    }
    let glue = Glue::start(&world, "glue-venv", Packages::Pip);
    let (a, b) = in_turns(&world, &watch, &glue.queue, 5);
    compare(
        "the same, the incumbent with its usual virtual environment (pip)",
        "s",
        &a.whole,
        &b.whole,
    );
    compare(
        "— of it: process 1 to first line, with pip's",
        "s",
        &a.line,
        &b.line,
    );
}

const REQUIREMENTS: &str = "clearml == 2.1.12\nscikit-learn\n";

/// Seconds from process 1 to the first line of a task that needs packages.
fn environment(world: &World, queue: &str) -> f64 {
    let patch = json!({"script": {"requirements": {"pip": REQUIREMENTS}}});
    let task = world.create("environment", FIRST_LINE, &patch);
    world.enqueue(&task, queue);
    until_completed(world, &task, 300);
    printed(world, &task, "SINCE ")
}

#[test]
fn glue_environments() {
    let (cache, patch) = kept_cache();
    let world = bound(World::compared("bench-env"), &patch);
    let forget = || {
        let users = fs::read_dir(cache.path().join("environments")).expect("environments");
        for user in users.flatten() {
            fs::remove_dir_all(user.path().join("env")).expect("environments are removed");
        }
    };
    // The first fills the download cache; then each of three is made anew from it; then each is found made.
    environment(&world, "gpu");
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        forget();
        cold.push(environment(&world, "gpu"));
        warm.push(environment(&world, "gpu"));
    }
    for (packages, name) in [(Packages::Pip, "pip"), (Packages::Uv, "uv")] {
        let glue = Glue::start(&world, &format!("glue-{name}"), packages);
        environment(&world, &glue.queue);
        let (mut their_cold, mut their_warm) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let _ = fs::remove_dir_all(glue.caches.join("venvs"));
            their_cold.push(environment(&world, &glue.queue));
            their_warm.push(environment(&world, &glue.queue));
        }
        compare(
            &format!(
                "process 1 to first line, environment made from a warm download cache, incumbent by {name}"
            ),
            "s",
            &cold,
            &their_cold,
        );
        compare(
            &format!(
                "process 1 to first line, environment of an earlier task, incumbent by {name}"
            ),
            "s",
            &warm,
            &their_warm,
        );
    }
}

/// Pods that are created and never start: what is measured is the creating.
const NOWHERE: &str = r#"{"nodeSelector": {"no-such-node": "true"}}"#;
const MANY: usize = 200;

/// Objects created per second, and seconds from enqueuing until all are there.
fn creates(world: &World, watch: &Watch<f64>, queue: &str) -> (f64, f64) {
    let tasks: Vec<String> = (0..MANY)
        .map(|n| world.create(&format!("many {n}"), "print('never')\n", &json!({})))
        .collect();
    let id = world.queue_id(queue);
    let begun = now();
    world.call("tasks.enqueue_many", &json!({"ids": tasks, "queue": id}));
    wait("all are created", 1200, || {
        tasks
            .iter()
            .all(|task| watch.anything_of(task).is_some())
            .then_some(())
    });
    let mut at: Vec<f64> = tasks
        .iter()
        .filter_map(|task| watch.anything_of(task))
        .collect();
    at.sort_by(f64::total_cmp);
    let first = at.first().copied().unwrap_or_default();
    let last = at.last().copied().unwrap_or_default();
    ((MANY as f64 - 1.0) / (last - first), last - begun)
}

#[test]
fn glue_creates_and_memory() {
    let spec: Value = serde_json::from_str(NOWHERE).expect("JSON");
    let mut patch = json!({"limits": {"maxConcurrent": MANY}, "template": {"spec": {}}});
    merge(&mut patch["template"]["spec"], &spec);
    let world = World::compared("bench-create");
    patch["template"]["spec"]["containers"] =
        json!([{"name": "task", "image": world.place.task_image}]);
    let mut world = bound(world, &patch);
    let url = world.url.clone();
    let glue = Glue::start_with(&world, "glue", Packages::Skip, &url, &json!({"spec": spec}));
    thread::sleep(Duration::from_secs(5));
    let controller = world.controller().id();
    let mut memory = (Vec::new(), Vec::new());
    for _ in 0..5 {
        memory.0.push(resident(controller));
        memory.1.push(resident(glue.pid()));
        thread::sleep(Duration::from_secs(1));
    }
    compare("resident memory, idle", "MiB", &memory.0, &memory.1);
    let jobs = Watch::start(&world, "jobs", now);
    let pods = Watch::start(&world, "pods", now);
    let (mine, all_mine) = creates(&world, &jobs, "gpu");
    let (theirs, all_theirs) = creates(&world, &pods, &glue.queue);
    super::compare(
        &format!("enqueue to all Jobs (incumbent: pods) created, {MANY} tasks"),
        "s",
        &[all_mine],
        &[all_theirs],
        Some(20.0),
    );
    compare(
        &format!("Jobs (incumbent: pods) created per second, {MANY} tasks"),
        "/s",
        &[mine],
        &[theirs],
    );
}

/// Passes everything on to the server and counts requests.
struct Counting {
    url: String,
    count: Arc<AtomicUsize>,
}

impl Counting {
    fn start(world: &World) -> Self {
        let host = &world.place.gateway;
        let listener = TcpListener::bind((host.as_str(), 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let server = world.url.trim_start_matches("http://").to_owned();
        let count = Arc::new(AtomicUsize::new(0));
        let kept = Arc::clone(&count);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, count) = (server.clone(), Arc::clone(&kept));
                thread::spawn(move || pass(client, &server, &count));
            }
        });
        Self { url, count }
    }

    fn count(&self) -> f64 {
        self.count.load(Ordering::Relaxed) as f64
    }
}

fn pass(mut client: TcpStream, server: &str, count: &AtomicUsize) {
    let Ok(mut upstream) = TcpStream::connect(server) else {
        return;
    };
    let (Ok(mut back), Ok(mut answers)) = (client.try_clone(), upstream.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(std::net::Shutdown::Both);
    });
    // A request's first line ends with this; it may be cut in two by the reads.
    let mark = b" HTTP/1.1\r\n";
    let mut tail: Vec<u8> = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(read) = client.read(&mut buffer) {
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..read]);
        let found = tail
            .windows(mark.len())
            .filter(|window| *window == mark)
            .count();
        count.fetch_add(found, Ordering::Relaxed);
        tail.drain(..tail.len().saturating_sub(mark.len() - 1));
        if upstream.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(std::net::Shutdown::Both);
}

/// Requests of one task without those of the idle poll in the same time, and those of the poll for a minute.
fn requests(world: &World, counting: &Counting, queue: &str, tasks: usize) -> (Vec<f64>, f64) {
    let begun = Instant::now();
    let before = counting.count();
    thread::sleep(Duration::from_secs(20));
    let idle = (counting.count() - before) / begun.elapsed().as_secs_f64();
    let mut each = Vec::new();
    for n in 0..tasks {
        let (begun, before) = (Instant::now(), counting.count());
        let task = world.run(&format!("requests {n}"), "print('one line')\n", queue);
        until_completed(world, &task, 120);
        // What is said after the end belongs to the task as well.
        thread::sleep(Duration::from_secs(6));
        each.push(counting.count() - before - idle * begun.elapsed().as_secs_f64());
    }
    (each, idle * 60.0)
}

#[test]
fn glue_requests() {
    let world = World::compared("bench-requests");
    let (mine, theirs) = (Counting::start(&world), Counting::start(&world));
    let world = bound(world, &json!({"server": {"apiUrl": mine.url}}));
    let glue = Glue::start_with(&world, "glue", Packages::Skip, &theirs.url, &json!({}));
    let (each, idle) = requests(&world, &mine, "gpu", 3);
    let (their_each, their_idle) = requests(&world, &theirs, &glue.queue, 3);
    compare(
        "requests to the server for one task, those of the idle poll left out",
        "",
        &each,
        &their_each,
    );
    compare(
        "requests to the server in an idle minute",
        "",
        &[idle],
        &[their_idle],
    );
}
