//! S21: a line is on the server and in `kubectl logs` soon after it was printed, each event has the time of its line, and
//! what is printed while code and environment are made is there while they are being made.
//!
//! `TRAINYARD_LOG_SECONDS` is how long the task prints (12; the long form has 300). Each phase is held until its lines
//! were seen, so that they are known to have come while it lasted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::doors::Doors;
use super::experiment::serve_repository;
use super::world::{PATIENCE, World};
use crate::clock::{self, now};
use crate::{long, times};

const SECONDS: u64 = 12;
/// The stated figure, in seconds: a line is on the server, p99; and five times of it, which a shared machine may take.
const STATED: f64 = 2.0;
const LATE: f64 = STATED * 5.0;
/// How far an event's time may be from its line's: marks are taken ten times a second.
const OFF: f64 = 1.0;
/// How long the setup script stands still between its lines.
const PAUSE: Duration = Duration::from_secs(2);

/// Prints a numbered line with the time each tenth of a second, between two doors.
fn printing(seconds: u64, doors: &Doors) -> String {
    format!(
        "{}import time\nfor n in range({}):\n    print('tick', n, time.time())\n    time.sleep(0.1)\n{}",
        doors.python("ticks"),
        seconds * 10,
        doors.python("end")
    )
}

/// A setup script of six lines that stops at a door after the third.
fn preparing(doors: &Doors) -> String {
    format!(
        "for step in 1 2 3; do echo preparing $step; sleep 0.5; done\npython3 -c \"{}\"\n\
         for step in 4 5 6; do echo preparing $step; sleep 0.5; done\n",
        doors.python("half")
    )
}

/// Whether this line tells that the environment is there.
fn is_ready(line: &str) -> bool {
    line.starts_with("trainyard: ") && line.contains("Python environment")
}

/// The time that a line of [`printing`] was printed.
fn tick(line: &str) -> Option<f64> {
    line.strip_prefix("tick ")?.split(' ').nth(1)?.parse().ok()
}

/// A line of the log: the time of its event, and when it was first seen on the server.
struct Seen {
    event: f64,
    at: f64,
}

/// The lines that are new since the last look, each with the time of its event.
fn look(world: &World, task: &str, seen: &mut BTreeMap<String, Seen>) {
    let answer = world.call(
        "events.get_task_log",
        &json!({"task": task, "batch_size": 10000, "navigate_earlier": false, "order": "asc"}),
    );
    let at = now();
    for event in answer["events"].as_array().expect("log has events") {
        let time = event["timestamp"].as_f64().expect("a time") / 1000.0;
        for line in event["msg"].as_str().unwrap_or_default().lines() {
            seen.entry(line.to_owned())
                .or_insert(Seen { event: time, at });
        }
    }
}

/// Lines, and when each was read.
type Read = Arc<Mutex<Vec<(String, f64)>>>;

/// Whether the pod's status says that the task's container runs.
fn is_told(world: &World, task: &str) -> bool {
    let pod = world.pod_of(task);
    let all = pod["status"]["containerStatuses"].as_array();
    all.is_some_and(|all| {
        all.iter()
            .any(|known| known["name"] == "task" && !known["state"]["running"].is_null())
    })
}

/// Reads `kubectl logs` as it grows; lines with the time at which they were read.
fn follow(world: &World, task: &str) -> (Read, std::process::Child) {
    let pod = world.pod_of(task)["metadata"]["name"]
        .as_str()
        .expect("pod name")
        .to_owned();
    let mut child = Command::new(world.place.bin.join("kubectl"))
        .env("KUBECONFIG", &world.place.kubeconfig)
        .args([
            "-n",
            &world.namespace,
            "logs",
            "--follow",
            "-c",
            "task",
            &pod,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl runs");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let read = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&read);
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            kept.lock().expect("lock").push((line, now()));
        }
    });
    (read, child)
}

/// How many ticks were read.
fn ticks_of(read: &Read) -> usize {
    let read = read.lock().expect("lock");
    let ticks = read.iter().filter(|(line, _)| line.starts_with("tick "));
    ticks.count()
}

/// Prints how the values are spread; gives what is judged, and the 99th percentile. That is judged itself of the long form,
/// as it needs many values; of the short one, which a busy machine may hold up once, the median.
fn percentiles(name: &str, mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    println!(
        "{name}: {} lines, p50 {:.2} s, p99 {:.2} s, most {:.2} s",
        values.len(),
        at(50),
        at(99),
        at(100)
    );
    // Ten a second.
    let is_short = values.len() as u64 <= SECONDS * 10;
    (at(if is_short { 50 } else { 99 }), at(99))
}

#[test]
fn s21_lines_arrive_soon_with_their_own_times_in_every_phase() {
    let seconds = long::size("TRAINYARD_LOG_SECONDS", SECONDS);
    let world = World::with_binding("s21");
    let doors = Doors::start(&world);
    let setup = preparing(&doors);
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"environment": {"setupScript": setup}}),
    );
    world.until_observed("gpu");
    let repository = serve_repository(&world, &[("train.py", &printing(seconds, &doors))]);
    let task = world.create(
        "ticking",
        "",
        &json!({"script": {"repository": repository.url, "version_num": repository.commit, "entry_point": "train.py",
                           "diff": "", "requirements": {"pip": "joblib\n"}}}),
    );
    world.enqueue(&task, "gpu");
    let mut seen = BTreeMap::new();
    let mut logs = None;
    let mut half: Option<Instant> = None;
    // The kubelet may end a followed log a moment before the container's last lines.
    let most = usize::try_from(seconds * 9).expect("a count");
    let deadline =
        Instant::now() + Duration::from_secs(seconds) + Duration::from_secs(120) * PATIENCE;
    while world.status(&task) != "completed" {
        look(&world, &task, &mut seen);
        // The kubelet tells of the container later than its first lines arrive, and gives no log before.
        if logs.is_none()
            && seen.keys().any(|line| line.starts_with("preparing"))
            && is_told(&world, &task)
        {
            logs = Some(follow(&world, &task));
        }
        if half.is_none() && seen.contains_key("preparing 3") {
            half = Some(Instant::now());
        }
        if half.is_some_and(|at| at.elapsed() > PAUSE) {
            doors.open("half");
        }
        if seen.keys().any(|line| is_ready(line)) {
            doors.open("ticks");
        }
        let all = seen.keys().filter(|line| tick(line).is_some()).count() as u64 == seconds * 10;
        if all
            && logs
                .as_ref()
                .is_some_and(|(read, _)| ticks_of(read) >= most)
        {
            doors.open("end");
        }
        if Instant::now() > deadline {
            world.tell(&task);
            panic!("the task is still {}", world.status(&task));
        }
        thread::sleep(Duration::from_millis(150));
    }
    look(&world, &task, &mut seen);

    let ticks: Vec<(f64, &Seen)> = seen
        .iter()
        .filter_map(|(line, seen)| Some((tick(line)?, seen)))
        .collect();
    assert_eq!(ticks.len() as u64, seconds * 10);
    let (delay, p99) = percentiles(
        "printed to server",
        ticks
            .iter()
            .map(|(printed, seen)| seen.at - printed)
            .collect(),
    );
    times::told("S21", "a printed line is on the server, p99", p99, STATED);
    assert!(delay < LATE, "{delay} s");
    let (off, _) = percentiles(
        "printed to the event's time",
        ticks
            .iter()
            .map(|(printed, seen)| (seen.event - printed).abs())
            .collect(),
    );
    assert!(off < OFF, "{off} s");

    let (read, mut kubectl) = logs.expect("the log was followed");
    let _ = kubectl.kill();
    let _ = kubectl.wait();
    let read = read.lock().expect("lock");
    let (delay, _) = percentiles(
        "printed to kubectl logs",
        read.iter()
            .filter_map(|(line, at)| Some(at - tick(line)?))
            .collect(),
    );
    assert!(delay < LATE, "{delay} s");

    phases(&world, &task, &seen, &ticks);
    world.has_sent_all(&task);
}

/// Lines of the init container carry times of its life; those of setup and install came before the first of the script.
fn phases(world: &World, task: &str, seen: &BTreeMap<String, Seen>, ticks: &[(f64, &Seen)]) {
    let pod = world.pod_of(task);
    let statuses = pod["status"]["initContainerStatuses"]
        .as_array()
        .expect("init containers");
    let prepare = statuses
        .iter()
        .find(|status| status["name"] == "prepare")
        .expect("prepare");
    let time = |field: &str| clock::told(&prepare["state"]["terminated"][field]);
    // Kubernetes tells whole seconds.
    let (started, finished) = (time("startedAt") - OFF, time("finishedAt") + 1.0 + OFF);
    let checkout: Vec<&Seen> = seen
        .iter()
        .filter(|(line, _)| line.starts_with("trainyard: ") && line.contains("check"))
        .map(|(_, seen)| seen)
        .collect();
    assert!(
        !checkout.is_empty(),
        "the checkout is told: {:#?}",
        seen.keys()
    );
    for line in checkout {
        assert!(
            (started..finished).contains(&line.event),
            "{} is not within {started} – {finished}",
            line.event
        );
    }
    let first = ticks
        .iter()
        .map(|(printed, _)| *printed)
        .fold(f64::MAX, f64::min);
    let preparing: Vec<&Seen> = seen
        .iter()
        .filter(|(line, _)| line.starts_with("preparing "))
        .map(|(_, seen)| seen)
        .collect();
    assert_eq!(preparing.len(), 6);
    assert!(
        preparing.iter().filter(|line| line.at < first).count() >= 3,
        "seen while it ran"
    );
    let spread = preparing
        .iter()
        .map(|line| line.event)
        .fold(f64::MIN, f64::max)
        - preparing
            .iter()
            .map(|line| line.event)
            .fold(f64::MAX, f64::min);
    assert!(
        spread > PAUSE.as_secs_f64() - 0.5,
        "lines before and behind a pause have times of their own: {spread} s"
    );
    // An event's time is that of the next look at the spool, and the script may begin before it: the order is the log's.
    let log = world.log(task);
    let ready = log.iter().position(|line| is_ready(line));
    let begun = log.iter().position(|line| line.starts_with("tick 0 "));
    assert!(
        ready.is_some() && ready < begun,
        "{ready:?} {begun:?}: {log:#?}"
    );
    let (line, told) = seen
        .iter()
        .find(|(line, _)| is_ready(line))
        .expect("it was seen");
    assert!(
        told.event < first + OFF,
        "{line}: {} s after the first line",
        told.event - first
    );
}
