//! The embedded server's figures: rates, answers on large tasks, memory, start. They need no cluster.
//!
//! The load comes from plain threads with one connection each, so that the measuring costs little beside the server.

mod load;
mod page;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{at_least, figure};
use crate::process::resident;
use crate::server_world::{Program, keys};

/// Callers at once: as many as a busy cluster has controllers, agents and task pods talking at one moment.
const CALLERS: usize = 32;

/// The optimised program if there is one, else the one that was built for the tests.
fn program() -> PathBuf {
    std::env::var_os("TRAINYARD_E2E_PROGRAM")
        .map_or_else(|| env!("CARGO_BIN_EXE_trainyard").into(), PathBuf::from)
}

fn start(data: &Path) -> Program {
    Program::start_by(&mut Command::new(program()), data)
}

/// One connection that is kept.
struct Line {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Line {
    fn open(server: &Program) -> Self {
        let address = server.url.strip_prefix("http://").expect("plain HTTP");
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("a socket");
        let (key, secret) = keys(&server.data);
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{key}:{secret}"));
        let mut line = Self {
            stream: BufReader::with_capacity(1 << 16, stream),
            head: format!("Host: {address}\r\nAuthorization: Basic {basic}\r\n"),
        };
        let token = line.call("auth.login", &json!({}))["token"].clone();
        let token = token.as_str().expect("a token");
        line.head = format!("Host: {address}\r\nAuthorization: Bearer {token}\r\n");
        line
    }

    /// Sends a request and reads the answer: its status and its body.
    fn send(&mut self, call: &str, kind: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!(
            "POST /{call} HTTP/1.1\r\n{}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.head,
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).expect("sent");
        let mut status = String::new();
        self.stream.read_line(&mut status).expect("an answer");
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("an answer");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("an answer");
        (code.expect("a status"), body)
    }

    fn raw(&mut self, call: &str, body: &Value) -> Vec<u8> {
        let (status, answer) = self.send(call, "application/json", body.to_string().as_bytes());
        assert_eq!(status, 200, "{call}: {}", String::from_utf8_lossy(&answer));
        answer
    }

    fn call(&mut self, call: &str, body: &Value) -> Value {
        let answer = self.raw(call, body);
        serde_json::from_slice::<Value>(&answer).expect("JSON")["data"].take()
    }

    /// The same without reading the answer as JSON: callers under load must cost little.
    fn quick(&mut self, call: &str, body: &str) -> Vec<u8> {
        let (status, answer) = self.send(call, "application/json", body.as_bytes());
        assert_eq!(status, 200, "{call}: {}", String::from_utf8_lossy(&answer));
        answer
    }

    /// Takes the next task from a queue.
    fn take(&mut self, queue: &str) -> String {
        let answer = self.quick("queues.get_next_task", &format!(r#"{{"queue":"{queue}"}}"#));
        let answer = String::from_utf8_lossy(&answer);
        let (_, rest) = answer.split_once(r#""task":""#).expect("a task");
        rest.chars().take(32).collect()
    }

    fn batch(&mut self, lines: &str) {
        let (status, answer) = self.send(
            "events.add_batch",
            "application/json-lines",
            lines.as_bytes(),
        );
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    fn task(&mut self, name: &str) -> String {
        let new = json!({"name": name, "type": "training", "script": {"diff": "print('hello')\n", "entry_point": "a.py"}});
        let id = self.call("tasks.create", &new)["id"].clone();
        id.as_str().expect("an id").to_owned()
    }
}

/// Runs `work` on several connections until `count` pieces are done; returns pieces a second.
fn rate(
    server: &Program,
    count: usize,
    work: impl Fn(&mut Line, usize) + Send + Sync + 'static,
) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let work = Arc::new(work);
    let lines: Vec<Line> = (0..CALLERS).map(|_| Line::open(server)).collect();
    let begun = Instant::now();
    let threads: Vec<_> = lines
        .into_iter()
        .map(|mut line| {
            let (next, work) = (Arc::clone(&next), Arc::clone(&work));
            thread::spawn(move || {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= count {
                        return;
                    }
                    work(&mut line, piece);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no caller failed");
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn queue(line: &mut Line, name: &str) -> String {
    let id = line.call("queues.create", &json!({"name": name}))["id"].clone();
    id.as_str().expect("an id").to_owned()
}

/// A queue with so many tasks.
fn filled(server: &Program, name: &str, count: usize) -> String {
    let id = queue(&mut Line::open(server), name);
    let queue = id.clone();
    rate(server, count, move |line, piece| {
        let task = line.task(&format!("task {piece}"));
        line.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
    });
    id
}

#[test]
fn taking_tasks() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let mut values = Vec::new();
    for run in 0..3 {
        let queue = filled(&server, &format!("queue {run}"), 10_000);
        values.push(rate(&server, 10_000, move |line, _| {
            line.take(&queue);
        }));
    }
    at_least(
        "server: queues.get_next_task, 32 callers",
        "/s",
        3000.0,
        &values,
    );
}

#[test]
fn draining_ten_thousand_tasks() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let pattern = lines("TASK", 20, 0);
    let (mut rates, mut memory) = (Vec::new(), Vec::new());
    for run in 0..3 {
        let queue = filled(&server, &format!("drained {run}"), 10_000);
        memory.push(resident(server.id()));
        let pattern = pattern.clone();
        rates.push(rate(&server, 10_000, move |line, _| {
            let task = line.take(&queue);
            let named = format!(r#"{{"task":"{task}"}}"#);
            line.quick("tasks.started", &named);
            line.batch(&pattern.replace("TASK", &task));
            line.quick("tasks.completed", &named);
        }));
        memory.push(resident(server.id()));
    }
    at_least(
        "server: 10,000 tasks taken, started, 20 lines, completed, 32 callers",
        "tasks/s",
        500.0,
        &rates,
    );
    figure(
        "server: resident memory after 10,000 to 30,000 tasks were enqueued, and drained",
        "MiB",
        150.0,
        &memory,
    );
}

/// Lines as an agent reports them.
fn lines(task: &str, count: usize, from: usize) -> String {
    let lines: Vec<String> = (from..from + count)
        .map(|i| {
            json!({
                "type": "log", "level": "DEBUG", "task": task, "worker": "host:gpu0",
                "msg": format!("step {i}: loss 0.{i:06}, 12.5 samples a second\n"), "timestamp": 1_795_292_885_000_u64 + i as u64 * 7,
            })
            .to_string()
        })
        .collect();
    lines.join("\n")
}

#[test]
fn reporting_lines() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let mut values = Vec::new();
    for run in 0..3 {
        let task = Line::open(&server).task(&format!("talkative {run}"));
        let batches: Vec<String> = (0..300).map(|i| lines(&task, 1000, i * 1000)).collect();
        let batches = Arc::new(batches);
        let sent = rate(&server, batches.len(), move |line, piece| {
            line.batch(&batches[piece]);
        });
        values.push(sent * 1000.0);
    }
    at_least(
        "server: events.add_batch of 1,000 lines, 32 callers",
        "lines/s",
        200_000.0,
        &values,
    );
}

/// Milliseconds that a call takes, repeated, after a first one that warms caches.
fn timed(line: &mut Line, call: &str, body: &Value) -> Vec<f64> {
    let warm = line.raw(call, body);
    assert!(warm.len() > 1000, "{call} answers next to nothing");
    (0..15)
        .map(|_| {
            let begun = Instant::now();
            line.raw(call, body);
            begun.elapsed().as_secs_f64() * 1000.0
        })
        .collect()
}

#[test]
fn looking_at_full_queues() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let mut line = Line::open(&server);
    let tasks: Vec<String> = (0..1000).map(|i| line.task(&format!("task {i}"))).collect();
    let queues: Vec<String> = (0..30)
        .map(|i| queue(&mut line, &format!("queue {i}")))
        .collect();
    let (all, entered) = (queues.clone(), tasks.clone());
    rate(&server, 30_000, move |line, piece| {
        let ask = json!({"queue": all[piece / 1000], "task": entered[piece % 1000], "update_execution_queue": false});
        line.call("queues.add_task", &ask);
    });
    for (name, limit) in [("the first 100", 100), ("all", 0)] {
        let look = json!({"id": queues, "only_fields": ["id", "entries"], "max_task_entries": limit, "search_hidden": true});
        figure(
            &format!("server: look at 30 queues of 1,000 entries, {name}"),
            "ms",
            5.0,
            &timed(&mut line, "queues.get_all", &look),
        );
    }
}

/// A task with 1 million lines and 100,000 points, and how many points a second were taken in.
fn large_task(line: &mut Line) -> (String, f64) {
    let task = line.task("large");
    for batch in 0..1000 {
        line.batch(&lines(&task, 1000, batch * 1000));
    }
    let begun = Instant::now();
    for batch in 0..100 {
        let points: Vec<String> = (batch * 1000..(batch + 1) * 1000)
            .map(|i: u64| {
                json!({
                    "type": "training_stats_scalar", "task": task, "metric": "loss", "variant": "train",
                    "iter": i, "value": 1.0 / (i + 1) as f64, "timestamp": 1_795_292_885_000_u64 + i * 20,
                })
                .to_string()
            })
            .collect();
        line.batch(&points.join("\n"));
    }
    (task, 100_000.0 / begun.elapsed().as_secs_f64())
}

#[test]
fn reading_a_large_task() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    let mut line = Line::open(&server);
    let (task, points) = large_task(&mut line);
    at_least(
        "server: events.add_batch of 1,000 scalars, one caller",
        "points/s",
        20_000.0,
        &[points],
    );
    let page = |more: &[(&str, Value)]| {
        let mut ask = json!({"task": task, "batch_size": 1000});
        for (key, value) in more {
            ask[*key] = value.clone();
        }
        ask
    };
    let middle = 1_795_292_885_000_u64 + 3_500_000;
    let asked: BTreeMap<&str, (&str, Value)> = BTreeMap::from([
        (
            "newest log page of 1,000",
            ("events.get_task_log", page(&[])),
        ),
        (
            "oldest log page of 1,000",
            (
                "events.get_task_log",
                page(&[("navigate_earlier", false.into())]),
            ),
        ),
        (
            "log page of 1,000 in the middle",
            (
                "events.get_task_log",
                page(&[("from_timestamp", middle.into())]),
            ),
        ),
        (
            "newest log page of 5,000",
            ("events.get_task_log", page(&[("batch_size", 5000.into())])),
        ),
        (
            "graph over iterations",
            (
                "events.scalar_metrics_iter_histogram",
                json!({"task": task, "key": "iter"}),
            ),
        ),
        (
            "graph over time",
            (
                "events.scalar_metrics_iter_histogram",
                json!({"task": task, "key": "timestamp", "samples": 500}),
            ),
        ),
    ]);
    for (name, (call, ask)) in asked {
        figure(
            &format!("server: 1 million lines, 100,000 points: {name}"),
            "ms",
            50.0,
            &timed(&mut line, call, &ask),
        );
    }
}

#[test]
fn starting_and_idling() {
    let data = tempfile::tempdir().expect("a folder");
    // The first start makes the database.
    drop(start(data.path()));
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let begun = Instant::now();
        let server = start(data.path());
        Line::open(&server).call("debug.ping", &json!({}));
        starts.push(begun.elapsed().as_secs_f64());
        thread::sleep(Duration::from_secs(1));
        memory.push(resident(server.id()));
    }
    figure("server: start to first answer", "s", 0.3, &starts);
    figure("server: resident memory, idle", "MiB", 20.0, &memory);
}
