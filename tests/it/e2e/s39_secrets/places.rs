//! Everything in which a secret could show: objects, logs, tasks, and the arguments of processes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::scan::Text;
use crate::e2e::world::{World, wait};

/// Processes that live for less may be missed.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Objects, logs, and these tasks on the server.
pub(super) fn all(world: &World, tasks: &[&str]) -> Vec<Text> {
    let mut texts = objects(world);
    texts.extend(logs_of_pods(world));
    for task in tasks {
        texts.push(Text {
            place: format!("task {task}"),
            text: world.task(task).to_string(),
        });
        texts.push(Text {
            place: format!("log of task {task}"),
            text: world.log(task).join("\n"),
        });
    }
    texts.push(Text {
        place: "workers".into(),
        text: world.call("workers.get_all", &json!({})).to_string(),
    });
    texts.push(Text {
        place: "metrics".into(),
        text: world.probe("/metrics").1,
    });
    for program in ["controller", "server"] {
        let file = world.dir.path().join(format!("{program}.log"));
        texts.push(Text {
            place: format!("log of the {program}"),
            text: fs::read_to_string(file).expect("the log is readable"),
        });
    }
    texts
}

/// All objects of the namespace and of the cluster as a whole, but for Secrets.
pub(super) fn objects(world: &World) -> Vec<Text> {
    // A kind may be gone by the time it is listed: other scenarios make some of their own.
    let all = wait("all objects are listed", 30, || {
        let kinds = kinds(world).join(",");
        let text = world.try_kubectl(&["get", &kinds, "-o", "json"]).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    });
    let items = all["items"].as_array().expect("a list");
    let place = |object: &Value| {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("object {}/{}", text(kind), text(name))
    };
    items
        .iter()
        .map(|object| Text {
            place: place(object),
            text: object.to_string(),
        })
        .collect()
}

/// Names of all kinds that can be listed, but for the one that may hold secrets.
fn kinds(world: &World) -> Vec<String> {
    let mut kinds = Vec::new();
    for namespaced in ["--namespaced=true", "--namespaced=false"] {
        let names = world.kubectl(&["api-resources", "--verbs=list", "-o", "name", namespaced]);
        let wanted = names
            .lines()
            .filter(|kind| !["secrets", "componentstatuses"].contains(kind));
        kinds.extend(wanted.map(str::to_owned));
    }
    kinds
}

fn logs_of_pods(world: &World) -> Vec<Text> {
    let pods = world.get(&["pods"]);
    let mut texts = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
        let containers = lists.into_iter().filter_map(Value::as_array).flatten();
        for container in containers.filter_map(|container| container["name"].as_str()) {
            // What has not started has no log, and kubectl says so.
            let text = world.try_kubectl(&["logs", name, "-c", container]);
            texts.push(Text {
                place: format!("log of pod {name}, {container}"),
                text: text.unwrap_or_else(|error| error),
            });
        }
    }
    texts
}

/// Notes the arguments of all processes of this machine, those in containers too, until it is ended.
pub(super) struct Processes {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Processes {
    pub(super) fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (is_over, kept) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                look(&mut kept.lock().expect("processes lock"));
                thread::sleep(BETWEEN_LOOKS);
            }
        });
        Self {
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// Whether this was among their arguments so far.
    pub(super) fn have_shown(&self, word: &str) -> bool {
        let seen = self.seen.lock().expect("processes lock");
        seen.iter().any(|arguments| arguments.contains(word))
    }

    /// What was seen.
    pub(super) fn end(mut self) -> Text {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it was not ended before");
        thread.join().expect("processes are watched to the end");
        let seen = self.seen.lock().expect("processes lock");
        let all: Vec<&str> = seen.iter().map(String::as_str).collect();
        Text {
            place: "arguments of processes".into(),
            text: all.join("\n"),
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // Folders that are no process have none.
        if let Ok(arguments) = fs::read(entry.path().join("cmdline")) {
            seen.insert(String::from_utf8_lossy(&arguments).replace('\0', " "));
        }
    }
}
