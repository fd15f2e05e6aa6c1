//! What a group gathers in years: 10,000 queued tasks; 10 million log lines and 1 million points of many tasks. Each
//! answer is asked for once, of another task each time, from a server that has just been started again.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Line, at_least, figure, filled, program, rate, start};
use crate::process::resident;
use crate::server_world::Program;

/// Tasks that have reported.
const TASKS: usize = 100;
/// Requests of 1,000 lines that each of them has sent.
const LOG: usize = 100;
/// Curves of each, of 1,000 points.
const CURVES: usize = 10;
/// Questions of each kind.
const ASKED: usize = 15;

/// Seconds from the start of the program to its first answer, and the memory it then holds, several times.
fn starts(data: &Path) -> (Vec<f64>, Vec<f64>) {
    let (mut seconds, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let begun = Instant::now();
        let server = start(data);
        Line::open(&server).call("debug.ping", &json!({}));
        seconds.push(begun.elapsed().as_secs_f64());
        thread::sleep(Duration::from_secs(1));
        memory.push(resident(server.id()));
    }
    (seconds, memory)
}

/// Milliseconds that each of these calls takes.
fn each(line: &mut Line, call: &str, asks: impl IntoIterator<Item = Value>) -> Vec<f64> {
    asks.into_iter()
        .map(|ask| {
            let begun = Instant::now();
            let answer = line.raw(call, &ask);
            let took = begun.elapsed().as_secs_f64() * 1000.0;
            assert!(answer.len() > 1000, "{call} answers next to nothing");
            took
        })
        .collect()
}

#[test]
fn ten_thousand_queued_tasks() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let queue = filled(&server, "long", 10_000);
    let filling = resident(server.id());
    drop(server);
    let (seconds, mut memory) = starts(data.path());
    memory.push(filling);
    let server = start(data.path());
    let mut line = Line::open(&server);
    for (name, limit) in [("the first 100", 100), ("all", 0)] {
        let look =
            json!({"id": [queue], "only_fields": ["id", "entries"], "max_task_entries": limit});
        figure(
            &format!("server: look at a queue of 10,000 entries, {name}"),
            "ms",
            5.0,
            &each(&mut line, "queues.get_all", vec![look; ASKED]),
        );
    }
    let page = |number: usize| json!({"order_by": ["-last_update"], "page": number, "page_size": 500, "only_fields": ["id", "name", "status"]});
    figure(
        "server: page of 500 tasks of 10,000, newest first",
        "ms",
        50.0,
        &each(&mut line, "tasks.get_all_ex", (0..ASKED).map(page)),
    );
    memory.push(resident(server.id()));
    figure(
        "server: start to first answer, 10,000 queued tasks",
        "s",
        0.3,
        &seconds,
    );
    figure(
        "server: resident memory, 10,000 queued tasks",
        "MiB",
        150.0,
        &memory,
    );
}

/// A request of 1,000 lines, for the task `TASK`.
fn lines(request: usize, base: i64) -> String {
    let lines = (0..1000).map(|n| {
        let n = request * 1000 + n;
        let at = base + i64::try_from(n).unwrap_or_default() * 7;
        format!(
            r#"{{"type":"log","level":"DEBUG","task":"TASK","worker":"host:gpu0","msg":"step {n}: loss 0.{n:06}, 12.5 samples a second\n","timestamp":{at}}}"#
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The same with 1,000 points of a curve.
fn points(curve: usize, base: i64) -> String {
    let points = (0..1000).map(|n| {
        let at = base + n * 700;
        format!(
            r#"{{"type":"training_stats_scalar","task":"TASK","metric":"loss","variant":"of {curve}","iter":{n},"value":0.{n:04},"timestamp":{at}}}"#
        )
    });
    points.collect::<Vec<_>>().join("\n")
}

/// Sends each of these requests for each task, all tasks in turns; requests a second.
fn report(server: &Program, tasks: &[String], requests: Vec<String>) -> f64 {
    let (tasks, count) = (tasks.to_vec(), tasks.len() * requests.len());
    rate(server, count, move |line, piece| {
        let (request, task) = (piece / tasks.len(), piece % tasks.len());
        line.batch(&requests[request].replace("TASK", &tasks[task]));
    })
}

fn questions(line: &mut Line, tasks: &[String]) {
    let asked = |more: Value| {
        tasks.iter().take(ASKED).map(move |task| {
            let mut ask = more.clone();
            ask["task"] = json!(task);
            ask
        })
    };
    let log = json!({"batch_size": 1000});
    let oldest = json!({"batch_size": 1000, "navigate_earlier": false});
    for (name, call, ask) in [
        ("newest log page of 1,000", "events.get_task_log", log),
        ("oldest log page of 1,000", "events.get_task_log", oldest),
        (
            "graph over iterations",
            "events.scalar_metrics_iter_histogram",
            json!({"key": "iter"}),
        ),
        (
            "graph over time",
            "events.scalar_metrics_iter_histogram",
            json!({"key": "timestamp", "samples": 500}),
        ),
    ] {
        figure(
            &format!("server: 10 million lines, 1 million points, 100 tasks: {name}"),
            "ms",
            50.0,
            &each(line, call, asked(ask)),
        );
    }
    let compared = tasks
        .chunks(10)
        .map(|few| json!({"tasks": few, "key": "iter"}));
    figure(
        "server: 10 million lines, 1 million points, 100 tasks: graphs of 10 tasks compared",
        "ms",
        50.0,
        &each(
            line,
            "events.multi_task_scalar_metrics_iter_histogram",
            compared,
        ),
    );
}

/// A server that keeps for a day what this variable is about, and looks each second.
fn keeping(data: &Path, variable: &str) -> Program {
    let mut command = Command::new(program());
    command
        .env(variable, "1")
        .env("TRAINYARD_SERVER_WATCHDOG_INTERVAL", "1");
    Program::start_by(&mut command, data)
}

/// Milliseconds that graphs of a task take, one after the other, until something is gone.
fn graphs(line: &mut Line, task: &str, mut gone: impl FnMut(&mut Line) -> bool) -> Vec<f64> {
    let graph = json!({"task": task, "key": "iter"});
    let until = Instant::now() + Duration::from_mins(5);
    let mut graphs = Vec::new();
    while !gone(line) {
        assert!(Instant::now() < until, "something old is left");
        let call = "events.scalar_metrics_iter_histogram";
        graphs.extend(each(line, call, [graph.clone()]));
        thread::sleep(Duration::from_millis(50));
    }
    graphs
}

/// Graphs of the last task while lines older than a day are thrown away, until nothing is left of the first.
fn lines_forgotten(data: &Path, tasks: &[String]) {
    let server = keeping(data, "TRAINYARD_SERVER_KEEP_LOGS");
    let mut line = Line::open(&server);
    let ask = json!({"task": tasks[0], "batch_size": 1});
    let graphs = graphs(&mut line, &tasks[tasks.len() - 1], |line| {
        line.call("events.get_task_log", &ask)["total"] == 0
    });
    figure(
        "server: graph of a task while millions of old lines are thrown away",
        "ms",
        50.0,
        &graphs,
    );
}

/// The same while the points of all other tasks are thrown away: from the end of the first until that of the last one.
fn points_forgotten(data: &Path, tasks: &[String]) {
    let (last, others) = tasks.split_last().expect("tasks");
    let db = rusqlite::Connection::open(data.join("trainyard.sqlite")).expect("the database");
    let sql = "UPDATE tasks SET last_update = '2020-01-01T00:00:00.000000+00:00' WHERE id <> ?1";
    let rested = db.execute(sql, [last]).expect("tasks that rest");
    assert_eq!(rested, others.len());
    drop(db);
    let server = keeping(data, "TRAINYARD_SERVER_KEEP_METRICS");
    let mut line = Line::open(&server);
    let has_none = |line: &mut Line, task: &str| {
        let ask = json!({"task": task});
        line.call("events.get_scalar_metrics_and_variants", &ask)["metrics"] == json!({})
    };
    // Tasks that changed at one moment go in the order of their ids.
    let begins = others.iter().min().expect("a task");
    let ends = others.iter().max().expect("a task");
    graphs(&mut line, last, |line| has_none(line, begins));
    let graphs = graphs(&mut line, last, |line| has_none(line, ends));
    figure(
        "server: graph of a task while a million old points are thrown away",
        "ms",
        50.0,
        &graphs,
    );
}

#[test]
fn ten_million_lines_and_a_million_points() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let mut line = Line::open(&server);
    let tasks: Vec<String> = (0..TASKS)
        .map(|n| line.task(&format!("task {n}")))
        .collect();
    // So old that they may be thrown away at the end.
    let base = jiff::Timestamp::now().as_millisecond() - 10 * 24 * 3_600_000;
    let requests = (0..LOG).map(|request| lines(request, base)).collect();
    at_least(
        "server: events.add_batch of 1,000 lines until there are 10 million, 32 callers",
        "lines/s",
        200_000.0,
        &[report(&server, &tasks, requests) * 1000.0],
    );
    let requests = (0..CURVES).map(|curve| points(curve, base)).collect();
    at_least(
        "server: events.add_batch of 1,000 points until there are a million, 32 callers",
        "points/s",
        20_000.0,
        &[report(&server, &tasks, requests) * 1000.0],
    );
    let log = line.call("events.get_task_log", &json!({"task": tasks[TASKS / 2]}));
    assert_eq!(log["total"], LOG * 1000, "lines of one task");
    let after = resident(server.id());
    drop((line, server));

    let (seconds, mut memory) = starts(data.path());
    let server = start(data.path());
    questions(&mut Line::open(&server), &tasks);
    memory.extend([after, resident(server.id())]);
    drop(server);
    let full = "server: 10 million lines, 1 million points, 100 tasks";
    figure(
        &format!("{full}: start to first answer"),
        "s",
        0.3,
        &seconds,
    );
    figure(&format!("{full}: resident memory"), "MiB", 150.0, &memory);
    lines_forgotten(data.path(), &tasks);
    points_forgotten(data.path(), &tasks);
}
