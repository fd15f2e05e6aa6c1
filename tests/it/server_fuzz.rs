//! Whatever a client sends, to whatever endpoint: no panic, no internal error, no memory without bound.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};

use crate::process::peak;
use crate::server_world::{Alone, Client, Program};

/// Requests of one run.
const CASES: u32 = 4000;
/// Uploads of one run; each file that is stored is written through to the disk.
const UPLOADS: u32 = 600;
/// The most that the server may occupy at any moment of them, in MiB: what the benches hold it to. It takes a third of
/// that, nearly all of it for the program itself, which no optimisation has made small.
const MEMORY: f64 = 150.0;

/// All endpoints, as the table of routes names them.
fn endpoints() -> Vec<String> {
    let table = include_str!("../../src/server/routes.rs");
    let names = table.lines().filter_map(|line| {
        let name = line.strip_prefix("    (\"")?.split('"').next()?;
        name.contains('.').then(|| name.to_owned())
    });
    let names: BTreeSet<String> = names.collect();
    assert!(names.len() > 120, "{} endpoints", names.len());
    names.into_iter().collect()
}

/// Members that real clients send, and texts that stand in them.
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire/server_answers.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut keys, mut texts) = (BTreeSet::new(), BTreeSet::new());
    let mut left: Vec<&Value> = recorded
        .pointer("/scenarios")
        .into_iter()
        .chain(recorded.pointer("/recipes"))
        .collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(members) => {
                if let Some(Value::Object(body)) = members.get("body") {
                    collect(body, &mut keys, &mut texts);
                }
                left.extend(members.values());
            }
            _ => {}
        }
    }
    keys.extend(
        [
            "ids",
            "tasks",
            "models",
            "metrics",
            "metric",
            "variant",
            "key",
            "samples",
            "iters",
            "scroll_id",
            "batch_size",
            "order",
            "order_by",
            "page",
            "page_size",
            "start",
            "size",
            "from_timestamp",
            "navigate_earlier",
            "_any_",
            "_all_",
            "created",
            "last_update",
            "status_changed",
            "from_date",
            "to_date",
            "interval",
            "items",
            "worker_ids",
            "queue_ids",
            "count",
            "new_location",
            "destination_project",
            "project_name",
            "projects",
            "metadata",
            "keys",
            "labels",
            "design",
            "uri",
            "iteration",
            "preferences",
            "role",
            "access_key",
            "user",
            "expiration_sec",
            "line_format",
            "line_type",
            "threshold_sec",
            "event_type",
            "tasks_state",
            "new_task_hyperparams",
            "execution_overrides",
            "machine_stats",
            "queues",
        ]
        .map(str::to_owned),
    );
    (keys.into_iter().collect(), texts.into_iter().collect())
}

fn collect(body: &Map<String, Value>, keys: &mut BTreeSet<String>, texts: &mut BTreeSet<String>) {
    for (key, value) in body {
        keys.insert(key.clone());
        match value {
            Value::String(text) if !text.contains("${") => {
                texts.insert(text.clone());
            }
            Value::Object(inner) => collect(inner, keys, texts),
            Value::Array(items) => {
                for inner in items.iter().filter_map(Value::as_object) {
                    collect(inner, keys, texts);
                }
            }
            _ => {}
        }
    }
}

fn text(texts: Vec<String>) -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        6 => prop::sample::select(texts),
        2 => prop::sample::select(vec![
            "", "(", "[a-", "-x", "__$not", "__$and", ">=2020-01-01", "<", "9223372036854775808", "\u{0}", "\u{1F980}é",
            "last_metrics.a.b", "execution.queue", "..", ".", "a.b.c.d.e", "%", "'; DROP TABLE tasks; --",
        ]).prop_map(str::to_owned),
        1 => ".{0,30}",
        1 => (1..20_000_usize).prop_map(|length| "x".repeat(length)),
    ]
}

fn value(keys: Vec<String>, texts: Vec<String>) -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![
        5 => text(texts).prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => prop::sample::select(vec![0_i64, 1, -1, 500, 10_000_000, i64::MAX, i64::MIN]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(keys.clone()), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[derive(Debug, Clone)]
enum Body {
    Members(Value),
    Lines(Vec<Value>),
    Raw(Vec<u8>),
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    })
}

/// Internal errors that the real server gives too, for the same requests (§1.2, §2.4, §3.4); `docs/compatibility.md`
/// names them.
fn is_recorded(answer: &Value) -> bool {
    let text = answer["meta"]["result_msg"].as_str().unwrap_or_default();
    [
        "Data should be a dict",
        "max_task_entries and a part",
        "stored status is unknown",
    ]
    .iter()
    .any(|known| text.contains(known))
}

#[test]
fn no_request_brings_the_server_into_trouble() {
    let alone = Alone::start();
    let client = &alone.client;
    let (keys, mut texts) = vocabulary();
    // Ids that exist are the way past the first check of most endpoints.
    let ids = alone.block_on(objects(client));
    for id in ids {
        texts.extend(std::iter::repeat_n(id, 20));
    }
    let value = value(keys.clone(), texts);
    let members = prop::collection::vec((prop::sample::select(keys), value.clone()), 0..8)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let body = prop_oneof![
        12 => members.clone().prop_map(Body::Members),
        3 => prop::collection::vec(members, 0..5).prop_map(Body::Lines),
        1 => value.prop_map(Body::Members),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Body::Raw),
    ];
    let version = prop::sample::select(vec!["", "v2.23/", "v2.5/", "v1.7/", "v999.0/"]);
    let asked = (prop::sample::select(endpoints()), version, body);
    let mut runner = runner(CASES);
    let result = runner.run(&asked, |(endpoint, version, body)| {
        let (kind, bytes) = match body {
            Body::Members(value) => ("application/json", value.to_string().into_bytes()),
            Body::Raw(bytes) => ("application/json", bytes),
            Body::Lines(lines) => {
                let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
                ("application/json-lines", lines.join("\n").into_bytes())
            }
        };
        let request = client
            .request(reqwest::Method::POST, &format!("{version}{endpoint}"))
            .header("Content-Type", kind)
            .body(bytes);
        let (status, answer) = alone.block_on(async {
            let answer = request
                .send()
                .await
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let status = answer.status().as_u16();
            let text = answer
                .text()
                .await
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            Ok::<_, TestCaseError>((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
        })?;
        prop_assert!(status < 500 || is_recorded(&answer), "{endpoint}: {answer}");
        Ok(())
    });
    let occupied = peak(alone.server.id());
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(occupied < MEMORY, "the server occupied {occupied} MiB");
    let pong = alone.block_on(client.call("debug.ping", json!({})));
    assert_eq!(pong["msg"], "ClearML server");
}

/// Makes one of each kind; returns their ids.
async fn objects(client: &Client) -> Vec<String> {
    let id = |answer: Value| answer["id"].as_str().unwrap().to_owned();
    let project = id(client.call("projects.create", json!({"name": "a/b"})).await);
    let new = json!({"name": "a task", "type": "training", "project": project});
    let task = id(client.call("tasks.create", new).await);
    let new = json!({"name": "a model", "uri": "file:///m", "task": task, "project": project});
    let model = id(client.call("models.create", new).await);
    let queue = id(client
        .call("queues.create", json!({"name": "a queue"}))
        .await);
    client
        .call("tasks.enqueue", json!({"task": task, "queue": queue}))
        .await;
    for event in [
        json!({"type": "log", "task": task, "msg": "a line"}),
        json!({"type": "training_stats_scalar", "task": task, "metric": "a", "variant": "b", "iter": 1, "value": 0.5}),
        json!({"type": "plot", "task": task, "metric": "a", "variant": "b", "iter": 1, "plot_str": "{}"}),
        json!({"type": "training_debug_image", "task": task, "metric": "a", "variant": "b", "iter": 1, "url": "http://x/y"}),
    ] {
        client.call("events.add", event).await;
    }
    vec![project, task, model, queue]
}

/// One part of an upload; `None` leaves the words out.
#[derive(Debug, Clone)]
struct Part {
    name: Option<Vec<u8>>,
    file_name: Option<Vec<u8>>,
    /// What stands before the names.
    disposition: &'static str,
    quoted: bool,
    more_headers: usize,
    contents: Vec<u8>,
}

impl Part {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(b"--edge\r\n");
        to.extend_from_slice(self.disposition.as_bytes());
        for (key, name) in [("name", &self.name), ("filename", &self.file_name)] {
            let Some(name) = name else { continue };
            let quote = if self.quoted { "\"" } else { "" };
            let key = format!("; {key}=");
            for piece in [
                key.as_bytes(),
                quote.as_bytes(),
                name.as_slice(),
                quote.as_bytes(),
            ] {
                to.extend_from_slice(piece);
            }
        }
        for n in 0..self.more_headers {
            to.extend_from_slice(format!("\r\nX-{n}: {n}").as_bytes());
        }
        to.extend_from_slice(b"\r\n\r\n");
        to.extend_from_slice(&self.contents);
        to.extend_from_slice(b"\r\n");
    }
}

/// How an upload comes to its end.
#[derive(Debug, Clone)]
enum End {
    Whole,
    /// The last edge is missing.
    Open,
    /// The body is cut somewhere.
    Cut(prop::sample::Index),
    /// Less arrives than was announced.
    BrokenOff(prop::sample::Index),
}

/// `outside` is a folder that nothing may be written to.
fn file_name(outside: &Path) -> impl Strategy<Value = Vec<u8>> + Clone + use<> {
    let outside = outside.display();
    let mut odd: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "../escape",
        "../../escape",
        "../../../escape",
        "../keys.json",
        "a/../../escape",
        "a/./b",
        "./a",
        "..\\escape",
        "a\\..\\..\\escape",
        "%2e%2e/escape",
        "%2e%2e%2f%2e%2e%2fescape",
        "..%2fescape",
        "%00",
        "a%20b",
        "a\0b",
        "a\nb",
        "a\r\nX-More: b",
        "a\"b",
        "a\\\"b",
        "a;b=c",
        "delete_many",
        "p",
        "p/q",
        "p/q/r",
        "p//q",
        "p/",
        "é\u{202e}/\u{1F980}",
        "~/x",
        "$(touch escape)",
        "CON",
        ".hidden",
        "x.",
        " ",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    odd.extend([
        format!("{outside}/escape").into_bytes(),
        format!("//{outside}/escape").into_bytes(),
        format!("file://{outside}/escape").into_bytes(),
        "x".repeat(255).into_bytes(),
        "x".repeat(256).into_bytes(),
        "x".repeat(100_000).into_bytes(),
        "y/".repeat(100).into_bytes(),
        "y/".repeat(3000).into_bytes(),
        vec![0xff, 0xfe, b'/', b'x'],
        vec![b'x', 0xc3],
    ]);
    prop_oneof![
        4 => prop::sample::select(odd),
        3 => "[a-c]{1,2}(/[a-c]{1,2}){0,3}".prop_map(String::into_bytes),
        1 => ".{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn part(outside: &Path) -> impl Strategy<Value = Part> + use<> {
    let name = file_name(outside);
    let disposition = prop_oneof![
        8 => Just("Content-Disposition: form-data"),
        1 => prop::sample::select(vec![
            "content-disposition:form-data",
            "Content-Disposition: attachment",
            "Content-Disposition:",
            "Content-Disposition",
            "Content-Type: text/plain",
            "",
            "\r\n",
            ": form-data",
        ]),
    ];
    let contents = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::sample::select(vec!["\r\n--edge", "--edge--", "\r\n--edg", "\r\n", "\r"])
            .prop_map(|text| text.as_bytes().to_vec()),
        (0..100_000_usize).prop_map(|length| vec![b'x'; length]),
    ];
    (
        prop::option::weighted(0.9, name.clone()),
        prop::option::weighted(0.9, name),
        disposition,
        prop::bool::weighted(0.9),
        prop_oneof![9 => 0..3_usize, 1 => 0..50_usize],
        contents,
    )
        .prop_map(
            |(name, file_name, disposition, quoted, more_headers, contents)| Part {
                name,
                file_name,
                disposition,
                quoted,
                more_headers,
                contents,
            },
        )
}

fn content_type() -> impl Strategy<Value = Vec<u8>> {
    let long = format!("multipart/form-data; boundary={}", "x".repeat(5000));
    let odd = [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=edge; boundary=other",
        "multipart/form-data;;;",
        "multipart/mixed; boundary=edge",
        "multipart/form-data; boundary=é",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
        "/",
        long.as_str(),
    ]
    .map(|kind| kind.as_bytes().to_vec());
    let usual = [
        "multipart/form-data; boundary=edge",
        "multipart/form-data; boundary=\"edge\"",
    ]
    .map(|kind| kind.as_bytes().to_vec());
    prop_oneof![
        8 => prop::sample::select(usual.to_vec()),
        2 => prop::sample::select(odd.to_vec()),
        1 => Just(vec![0xff, 0xfe]),
    ]
}

/// Sends an upload of which a part never comes; the answer's status, if there is an answer.
fn break_off(client: &Client, kind: &[u8], body: &[u8]) -> Result<Option<u16>, TestCaseError> {
    let failed = |error: std::io::Error| TestCaseError::fail(error.to_string());
    let (key, secret) = client.keys.clone().unwrap_or_default();
    let pair = STANDARD.encode(format!("{key}:{secret}"));
    let host = client.url.trim_start_matches("http://");
    let length = body.len() + 1000;
    let mut request = format!(
        "POST /files HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {pair}\r\nConnection: close\r\n\
         Content-Length: {length}\r\nContent-Type: "
    )
    .into_bytes();
    for piece in [kind, b"\r\n\r\n".as_slice(), body] {
        request.extend_from_slice(piece);
    }
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .map_err(failed)?;
    // The server may refuse it, and go, before all was sent.
    let _ = stream.write_all(&request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    {
        return Err(TestCaseError::fail("neither an answer nor an end came"));
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1);
    Ok(status.and_then(|status| status.parse().ok()))
}

/// Names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

/// Sends an upload; all that the answer says is stored has to be there.
async fn upload(client: &Client, kind: &[u8], body: Vec<u8>) -> Result<Option<u16>, TestCaseError> {
    let request = client
        .request(reqwest::Method::POST, "files")
        .header("Content-Type", kind)
        .body(body);
    // It may refuse and go before all was sent; whether that was a panic is told at the end.
    let Ok(answer) = request.send().await else {
        return Ok(None);
    };
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    prop_assert!(status < 500, "{status}: {text}");
    if status != 200 {
        return Ok(Some(status));
    }
    let stored: Vec<String> =
        serde_json::from_str(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    for name in stored {
        let escaped: Vec<String> = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("files/{}", escaped.concat());
        let got = client.request(reqwest::Method::GET, &path).send().await;
        let got = got.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let code = got.status().as_u16();
        prop_assert!(code == 200, "{name:?} was stored: {code}");
    }
    Ok(Some(status))
}

#[test]
fn no_upload_brings_the_server_into_trouble_or_leaves_its_folder() {
    // Deeper than any of the names climbs.
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("1/2/3/4/data");
    let server = Program::start(&data);
    let client = server.client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(client.call("projects.create", json!({"name": "a"})));
    let keys = std::fs::read(data.join("keys.json")).unwrap();
    let before = names(&data);
    let end = prop_oneof![
        12 => Just(End::Whole),
        1 => Just(End::Open),
        2 => any::<prop::sample::Index>().prop_map(End::Cut),
        1 => any::<prop::sample::Index>().prop_map(End::BrokenOff),
    ];
    let parts = prop::collection::vec(part(folder.path()), 0..3);
    let body = prop_oneof![
        15 => parts.prop_map(|parts| {
            let mut body = Vec::new();
            for part in parts {
                part.write(&mut body);
            }
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..500),
    ];
    let mut runner = runner(UPLOADS);
    let (answered, stored) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let result = runner.run(&(content_type(), body, end), |(kind, mut body, end)| {
        if !matches!(end, End::Open) {
            body.extend_from_slice(b"--edge--\r\n");
        }
        let status = match end {
            End::BrokenOff(place) => {
                body.truncate(place.index(body.len() + 1));
                break_off(&client, &kind, &body)?
            }
            End::Cut(place) => {
                body.truncate(place.index(body.len() + 1));
                runtime.block_on(upload(&client, &kind, body))?
            }
            End::Whole | End::Open => runtime.block_on(upload(&client, &kind, body))?,
        };
        if let Some(status) = status {
            prop_assert!(status < 500, "{status}");
            answered.set(answered.get() + 1);
            stored.set(stored.get() + u32::from(status == 200));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (answered, stored) = (answered.get(), stored.get());
    assert!(
        answered > UPLOADS / 2 && stored > UPLOADS / 20,
        "{answered} answers, {stored} uploads stored"
    );
    // Below a file there is none: no error of the server's.
    runtime.block_on(async {
        let (kind, body) = crate::server_world::multipart("a file", b"x");
        let status = upload(&client, kind.as_bytes(), body).await.unwrap();
        assert_eq!(status, Some(200));
        for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
            let request = client.request(method, "files/a%20file/below");
            assert_eq!(request.send().await.unwrap().status(), 404);
        }
    });

    // What was cut off goes as soon as the server has noticed.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !names(&data.join("uploads")).is_empty() {
        assert!(std::time::Instant::now() < deadline, "uploads are left");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(names(&data), before);
    assert_eq!(std::fs::read(data.join("keys.json")).unwrap(), keys);
    let mut above = data.as_path();
    while above != folder.path() {
        let name = above.file_name().unwrap().to_string_lossy().into_owned();
        above = above.parent().unwrap();
        assert_eq!(names(above), BTreeSet::from([name]), "{}", above.display());
    }
    let pong = runtime.block_on(client.call("debug.ping", json!({})));
    assert_eq!(pong["msg"], "ClearML server");
    let said = server.stopped();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_upload_in_which_no_part_begins_is_not_kept_in_memory() {
    let alone = Alone::start();
    let client = &alone.client;
    // Neither the first edge nor the end of a part's head ever comes.
    for begin in ["", "--edge\r\nX-Long: "] {
        let chunks = std::iter::once(begin.as_bytes().to_vec())
            .chain(std::iter::repeat_n(vec![b'x'; 1 << 20], 400))
            .map(Ok::<_, std::io::Error>);
        let request = client
            .request(reqwest::Method::POST, "files")
            .header("Content-Type", "multipart/form-data; boundary=edge")
            .body(reqwest::Body::wrap_stream(futures::stream::iter(chunks)));
        // The server may go before all was sent.
        if let Ok(answer) = alone.block_on(request.send()) {
            assert_eq!(answer.status(), 400);
        }
    }
    let occupied = peak(alone.server.id());
    assert!(occupied < MEMORY, "the server occupied {occupied} MiB");
    alone.block_on(client.call("debug.ping", json!({})));
}
