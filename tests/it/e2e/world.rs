//! What a scenario runs in: a namespace of its own on the real cluster, a `trainyard server` and a
//! `trainyard controller` of its own, and short ways to speak to them. Everything started here ends with the value.

mod bindings;
mod counter;
mod jobs;
mod kubectl;
mod log;
mod neighbour;
mod objects;
mod patience;
mod place;
mod process;
mod programs;
mod server;
mod tasks;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use self::counter::Counter;
pub use self::patience::{PATIENCE, wait};
pub use self::place::Place;
pub use self::process::Proc;
pub use self::programs::ALLOCATOR;
use super::foreign::Foreign;
use crate::git::servers::free_port;

pub struct World {
    pub place: Place,
    pub namespace: String,
    pub dir: TempDir,
    pub url: String,
    pub key: String,
    pub secret: String,
    pub counter: Counter,
    /// The program under test.
    program: PathBuf,
    server: Option<Proc>,
    /// The server in its place.
    foreign: Option<Foreign>,
    controller: Option<Proc>,
    /// Environment variables of controllers beside the usual ones.
    pub environment: Vec<(String, String)>,
    /// Where the controller answers probes and scrapes.
    pub probes: String,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    cluster: tokio::sync::OnceCell<kube::Client>,
    token: Mutex<String>,
}

impl World {
    /// A namespace, a server, and (unless the scenario installs its own) nothing else. Server and controller are the
    /// program that the image holds: what is shipped is what is tried.
    pub fn new(name: &str) -> Self {
        Self::of_image(name, None)
    }

    /// The same on the server that the caller of the bench named, if one was.
    pub fn compared(name: &str) -> Self {
        Self::of_image(name, Foreign::given())
    }

    /// The same on this server of somebody's.
    pub fn on(name: &str, foreign: Foreign) -> Self {
        Self::of_image(name, Some(foreign))
    }

    /// The same with the program that has fault points, which are compiled in for tests only.
    pub fn with_fault_points(name: &str) -> Self {
        Self::of_program(name, PathBuf::from(env!("CARGO_BIN_EXE_trainyard")), None)
    }

    fn of_image(name: &str, foreign: Option<Foreign>) -> Self {
        let program = std::env::var("TRAINYARD_E2E_PROGRAM").expect(
            "TRAINYARD_E2E_PROGRAM is not set: scenarios need the image's program; run them by `cargo xtask test`",
        );
        Self::of_program(name, PathBuf::from(program), foreign)
    }

    fn of_program(name: &str, program: PathBuf, foreign: Option<Foreign>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let place = Place::find();
        let dir = tempfile::tempdir().expect("temp folder");
        let namespace = format!("e2e-{name}-{}", std::process::id());
        let counter = Counter::start(&place.gateway);
        let port = free_port(&place.gateway);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let mut world = Self {
            url: format!("http://{}:{port}", place.gateway),
            place,
            namespace,
            dir,
            key: String::new(),
            secret: String::new(),
            counter,
            program,
            server: None,
            foreign,
            controller: None,
            environment: Vec::new(),
            probes: String::new(),
            runtime,
            // A kept connection would be a dead one after the server was killed.
            http: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .timeout(Duration::from_secs(60))
                .build()
                .expect("HTTP client"),
            cluster: tokio::sync::OnceCell::new(),
            token: Mutex::new(String::new()),
        };
        if let Some(foreign) = &world.foreign {
            world.url.clone_from(&foreign.url);
            world.key.clone_from(&foreign.key);
            world.secret.clone_from(&foreign.secret);
        } else {
            world.start_server();
        }
        world.settle_in();
        world
    }

    /// The same with a controller on the host and a binding `gpu` on the queue `gpu`.
    pub fn with_binding(name: &str) -> Self {
        let mut world = Self::new(name);
        world.start_controller();
        world.queue("gpu");
        world.bind("gpu", &["gpu"], &json!({}));
        world.until_ready("gpu");
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let log = fs::read_to_string(self.dir.path().join("controller.log")).unwrap_or_default();
        if thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!(
                "controller:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // On somebody's own server the controller gives back what it has taken, by the finalizers of its bindings.
        if let Some(foreign) = &self.foreign {
            let _ = self.try_kubectl(&["delete", "queuebinding", "--all", "--timeout=60s"]);
            if let Some(mut controller) = self.controller.take() {
                controller.kill();
            }
            foreign.clear(self);
        }
        self.kill_controller();
        self.clear();
        let told = !self.secret.is_empty() && log.contains(&self.secret);
        assert!(
            thread::panicking() || !told,
            "the controller's log names the server's secret key"
        );
    }
}

/// Merges objects deeply; everything else is replaced.
pub fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
