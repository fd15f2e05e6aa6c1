//! S57: Recorded traffic of real clients with a real server, sent again to ours: the answers must be the same.
//!
//! Ids, dates and tokens are volatile: an id of the recording stands for one of ours from its first appearance on. What
//! the recording does not show (who made the task, who stopped it) is done here at its place.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::HashMap;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::server_world::{Client, InProcess};

/// Members that depend on the clock.
const BY_THE_CLOCK: [&str; 2] = ["active_duration", "running_time"];

struct Replay {
    server: InProcess,
    client: Client,
    /// Recorded id → ours.
    ids: HashMap<String, String>,
    differences: Vec<String>,
}

fn is_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && ["aaaa0000", "bbbb0000", "cccc0000", "dddd0000", "eeee0000"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
}

fn is_date(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok()
}

impl Replay {
    fn start() -> Self {
        let server = InProcess::start();
        let client = server.client();
        Self {
            server,
            client,
            ids: HashMap::new(),
            differences: Vec::new(),
        }
    }

    fn call(&self, call: &str, body: &Value) -> Value {
        self.server
            .block_on(self.client.call(call, self.ours(body)))
    }

    /// A recorded value with our ids in place of the recorded ones.
    fn ours(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let mut text = text.clone();
                for (recorded, ours) in &self.ids {
                    text = text.replace(recorded, ours);
                }
                text.into()
            }
            Value::Array(items) => items.iter().map(|item| self.ours(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(key, value)| (key.clone(), self.ours(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    /// Notes what differs between a recorded answer and ours; ids seen for the first time are taken as a pair.
    fn compare(&mut self, at: &str, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            (Value::Object(want), Value::Object(have)) => {
                for (key, want) in want {
                    let at = format!("{at}.{key}");
                    match have.get(key) {
                        Some(have) if BY_THE_CLOCK.contains(&key.as_str()) => {
                            if !have.is_number() {
                                self.differences.push(format!("{at}: {have} is no number"));
                            }
                        }
                        Some(have) => self.compare(&at, want, have),
                        None => self.differences.push(format!("{at} is missing: {want}")),
                    }
                }
                for (key, have) in have {
                    if !want.contains_key(key) {
                        self.differences
                            .push(format!("{at}.{key} is too much: {have}"));
                    }
                }
            }
            (Value::Array(want), Value::Array(have)) if want.len() == have.len() => {
                for (i, (want, have)) in want.iter().zip(have).enumerate() {
                    self.compare(&format!("{at}[{i}]"), want, have);
                }
            }
            (Value::String(want), Value::String(have)) => {
                if is_id(want) && !self.ids.contains_key(want) {
                    self.ids.insert(want.clone(), have.clone());
                }
                let same = self.ours(recorded) == *ours
                    || (is_date(want) && is_date(have))
                    || want == "<TOKEN>"
                    || (want == "__example__" && have == "__trainyard__");
                if !same {
                    self.differences
                        .push(format!("{at}: {want:?} and {have:?}"));
                }
            }
            (Value::Number(want), Value::Number(have)) if want.as_f64() == have.as_f64() => {}
            (want, have) if want == have => {}
            (want, have) => self.differences.push(format!("{at}: {want} and {have}")),
        }
    }

    /// Sends a recorded request and compares the answers.
    fn exchange(&mut self, exchange: &Value) {
        let (request, response) = (&exchange["request"], &exchange["response"]);
        let path = request["path"].as_str().unwrap();
        let at = format!("{} {path}", exchange["seq"]);
        let method: Method = request["method"].as_str().unwrap().parse().unwrap();
        let query = request["query"].as_str().map(|query| format!("?{query}"));
        let url = format!(
            "{}{}",
            path.trim_start_matches('/'),
            query.unwrap_or_default()
        );
        let mut builder = self.client.request(method, &url);
        for (name, value) in request["headers"].as_object().unwrap() {
            let own = [
                "authorization",
                "host",
                "content-length",
                "connection",
                "cookie",
            ];
            if !own.contains(&name.to_ascii_lowercase().as_str()) {
                builder = builder.header(name, value.as_str().unwrap_or_default());
            }
        }
        let body = &request["body"];
        if let Some(lines) = body.get("__json_lines__").and_then(Value::as_array) {
            let lines: Vec<String> = lines
                .iter()
                .map(|line| self.ours(line).to_string())
                .collect();
            builder = builder.body(lines.join("\n"));
        } else if !body.is_null() {
            builder = builder.body(self.ours(body).to_string());
        }
        let (status, kind, answer) = self.server.block_on(async {
            let answer = builder.send().await.unwrap();
            let kind = answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .to_owned();
            let status = answer.status().as_u16();
            (status, kind, answer.json::<Value>().await.unwrap())
        });
        self.compare(
            &format!("{at}: status"),
            &response["status"],
            &json!(status),
        );
        if !kind.starts_with("application/json") {
            self.differences.push(format!("{at}: content type {kind}"));
        }
        let mut wanted = response["body"].clone();
        for volatile in ["id", "trx"] {
            wanted["meta"][volatile] = answer["meta"][volatile].clone();
        }
        self.compare(&at, &wanted, &answer);
    }
}

fn recording(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/wire/traffic")
        .join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The default queue is the recorded one; the task that the recording begins with is made as it was then.
fn prepare(replay: &mut Replay, exchanges: &[Value]) {
    let queue = replay.call("queues.get_default", &json!({}))["id"].clone();
    let queue = queue.as_str().unwrap().to_owned();
    replay.ids.insert(format!("bbbb{:028}", 1), queue);
    let projects_made = |exchange: &Value| {
        let path = exchange["request"]["path"].as_str().unwrap();
        path.ends_with("projects.create")
    };
    let found = exchanges
        .iter()
        .find_map(|exchange| exchange["response"]["body"]["data"]["projects"][0]["id"].as_str());
    if let Some(id) = found.filter(|_| !exchanges.iter().any(projects_made)) {
        let ours = replay.call("projects.create", &json!({"name": "example"}));
        let ours = ours["id"].as_str().unwrap().to_owned();
        replay.ids.insert(id.to_owned(), ours);
    }
    let taken = exchanges.iter().find_map(|exchange| {
        let entry = &exchange["response"]["body"]["data"]["entry"]["task"];
        entry.as_str()
    });
    let made_here = exchanges.iter().any(|exchange| {
        exchange["request"]["path"]
            .as_str()
            .unwrap()
            .ends_with("tasks.create")
    });
    let (Some(id), false) = (taken, made_here) else {
        return;
    };
    let read = |exchange: &&Value| exchange["response"]["body"]["data"]["task"]["id"] == id;
    let task = &exchanges.iter().find(read).unwrap()["response"]["body"]["data"]["task"];
    let mut new = json!({"name": task["name"], "type": task["type"]});
    for key in [
        "tags",
        "system_tags",
        "hyperparams",
        "configuration",
        "container",
        "comment",
        "models",
    ] {
        if let Some(value) = task.get(key) {
            new[key] = value.clone();
        }
    }
    new["script"] = task["script"].clone();
    if let Some(project) = task["project"].as_str() {
        let ours = replay.call("projects.create", &json!({"name": "of the recording"}));
        replay
            .ids
            .insert(project.to_owned(), ours["id"].as_str().unwrap().to_owned());
        new["project"] = project.into();
    }
    let made = replay.call("tasks.create", &new);
    replay
        .ids
        .insert(id.to_owned(), made["id"].as_str().unwrap().to_owned());
    let enqueue = json!({"task": id, "queue": format!("bbbb{:028}", 1)});
    replay.call("tasks.enqueue", &enqueue);
}

fn replayed(name: &str) {
    let exchanges = recording(name);
    assert!(exchanges.len() > 10);
    let mut replay = Replay::start();
    prepare(&mut replay, &exchanges);
    let mut stopped = false;
    for exchange in &exchanges {
        let shown = exchange["response"]["body"]["data"].to_string();
        if !stopped && shown.contains(r#""status_message":"stopping""#) {
            // A user aborted the task just before; the recording shows the agent's traffic alone.
            let task = exchange["response"]["body"]["data"]["tasks"][0]["id"].clone();
            let task = if task.is_string() {
                task
            } else {
                exchange["request"]["body"]["id"][0].clone()
            };
            replay.call("tasks.stop", &json!({"task": task}));
            stopped = true;
        }
        replay.exchange(exchange);
    }
    let shown: Vec<String> = replay
        .differences
        .iter()
        .take(30)
        .map(|difference| difference.chars().take(300).collect())
        .collect();
    assert!(
        shown.is_empty(),
        "{name}: {} differences, such as:\n{}",
        replay.differences.len(),
        shown.join("\n")
    );
}

macro_rules! recordings {
    ($($name:ident),+) => {
        $(
            #[test]
            fn $name() {
                replayed(stringify!($name));
            }
        )+
    };
}

recordings!(
    sdk_task_init,
    sdk_create_enqueue_agent_run,
    agent_task_plain,
    agent_task_diff,
    agent_task_fail,
    agent_task_stop,
    agent_sigterm
);
