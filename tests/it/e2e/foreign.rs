//! A ClearML server that is there already, for the comparison with the incumbent: `cargo xtask bench --server URL`.
//!
//! It may be in use: what is made there carries the namespace's name and goes at the end.

use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};
use url::Url;

use super::glue::{Glue, Packages};
use super::world::{Place, World, wait};
use crate::git::servers::free_port;
use crate::server_world::{Alone, Program};

/// Address and keys, and what a world has made there.
pub struct Foreign {
    pub url: String,
    pub web: String,
    pub files: String,
    pub key: String,
    pub secret: String,
    tasks: Mutex<Vec<String>>,
}

impl Foreign {
    /// The server that the caller named, if one was.
    pub fn given() -> Option<Self> {
        Self::told(&|name| std::env::var(name).ok())
    }

    /// The same where these are the variables.
    fn told(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let url = variable("TRAINYARD_BENCH_SERVER")?;
        let url = url.trim_end_matches('/').to_owned();
        let known = |name: &str| {
            variable(name).unwrap_or_else(|| panic!("{name} is not set: it belongs to {url}"))
        };
        let beside = |name: &str, port: u16| {
            variable(name).unwrap_or_else(|| {
                // As a server of the vendor's has them.
                let mut address = Url::parse(&url).expect("the server's address is a URL");
                address.set_port(Some(port)).expect("an address has a port");
                address.as_str().trim_end_matches('/').to_owned()
            })
        };
        Some(Self {
            web: beside("CLEARML_WEB_HOST", 8080),
            files: beside("CLEARML_FILES_HOST", 8081),
            key: known("CLEARML_API_ACCESS_KEY"),
            secret: known("CLEARML_API_SECRET_KEY"),
            tasks: Mutex::default(),
            url,
        })
    }

    pub fn note(&self, task: &str) {
        self.tasks.lock().expect("lock").push(task.to_owned());
    }

    /// Takes away what was made there.
    pub fn clear(&self, world: &World) {
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("lock"));
        world.try_call("tasks.delete_many", &json!({"ids": tasks, "force": true}));
        let ours = json!({"name": format!("-{}", world.namespace), "only_fields": ["id"], "search_hidden": true});
        let (_, found) = world.try_call("queues.get_all", &ours);
        for queue in found["data"]["queues"].as_array().into_iter().flatten() {
            world.try_call(
                "queues.delete",
                &json!({"queue": queue["id"], "force": true}),
            );
        }
    }
}

/// A server with a port for files alone that somebody uses: a project, a queue `gpu`, a task in it.
struct Somebody {
    server: Alone,
    files: String,
}

impl Somebody {
    fn start(host: &str) -> Self {
        let files = format!("{host}:{}", free_port(host));
        let server = Alone::by(|data| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
            command.env("TRAINYARD_SERVER_FILES_LISTEN", &files);
            Program::start_at(&mut command, data, &format!("{host}:0"))
        });
        let client = &server.client;
        server.block_on(async {
            let project = client
                .call("projects.create", json!({"name": "theirs"}))
                .await;
            let queue = client.call("queues.create", json!({"name": "gpu"})).await;
            let new = json!({"name": "theirs", "type": "training", "project": project["id"]});
            let task = client.call("tasks.create", new).await;
            let ask = json!({"task": task["id"], "queue": queue["id"]});
            client.call("tasks.enqueue", ask).await;
        });
        Self {
            server,
            files: format!("http://{files}"),
        }
    }

    /// As a bench is told of it.
    fn told(&self) -> Foreign {
        let (key, secret) = self.server.client.keys.clone().expect("a key pair");
        let variable = |name: &str| match name {
            "TRAINYARD_BENCH_SERVER" | "CLEARML_WEB_HOST" => Some(self.server.server.url.clone()),
            "CLEARML_FILES_HOST" => Some(self.files.clone()),
            "CLEARML_API_ACCESS_KEY" => Some(key.clone()),
            "CLEARML_API_SECRET_KEY" => Some(secret.clone()),
            _ => None,
        };
        Foreign::told(&variable).expect("a server is named")
    }

    /// All that is there of one kind, whole.
    fn all(&self, kind: &str) -> Vec<Value> {
        let ask = json!({"search_hidden": true, "order_by": ["id"]});
        let found = self
            .server
            .block_on(self.server.client.call(&format!("{kind}.get_all"), ask));
        found[kind].as_array().cloned().unwrap_or_default()
    }

    fn everything(&self) -> Vec<Vec<Value>> {
        ["tasks", "queues", "projects", "models"]
            .iter()
            .map(|kind| self.all(kind))
            .collect()
    }
}

/// Goes through what each bench of the incumbent does on a server that it was told of.
#[test]
fn a_bench_on_somebodys_server_takes_away_what_it_made_and_touches_nothing_else() {
    let somebody = Somebody::start(&Place::find().gateway);
    let before = somebody.everything();
    let mut world = World::on("foreign", somebody.told());
    world.start_controller();
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &json!({}));
    world.until_ready("gpu");
    let glue = Glue::start(&world, "glue", Packages::Skip);

    let tell = "import os\nprint('FILES', os.environ['CLEARML_FILES_HOST'])\n";
    let ours = world.run("ours", tell, "gpu");
    let theirs = world.run("theirs", "print('glue ran this')\n", &glue.queue);
    let ended = world.until_ended(&ours, 30);
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let log = world.log(&ours);
    assert!(
        log.contains(&format!("FILES {}", somebody.files)),
        "{log:#?}"
    );
    // On its way through the glue a task is stopped for a moment.
    wait("the glue's task is completed", 120, || {
        (world.status(&theirs) == "completed").then_some(())
    });
    let own = format!("-{}", world.namespace);
    for queue in somebody.all("queues") {
        let name = queue["name"].as_str().expect("a queue has a name");
        let known = before[1].iter().any(|one| one["name"] == name);
        assert!(
            known || name.contains(&own) || name.starts_with("trainyard:"),
            "a queue that looks like one of theirs: {name}"
        );
    }

    drop(glue);
    drop(world);
    assert_eq!(somebody.everything(), before);
}

#[test]
fn page_and_files_of_a_server_are_where_the_vendor_has_them_unless_told() {
    let foreign = Foreign::told(&|name| match name {
        "TRAINYARD_BENCH_SERVER" => Some("http://clearml.example:8008/".to_owned()),
        "CLEARML_API_ACCESS_KEY" | "CLEARML_API_SECRET_KEY" => Some("key".to_owned()),
        _ => None,
    });
    let foreign = foreign.expect("a server is named");
    assert_eq!(foreign.url, "http://clearml.example:8008");
    assert_eq!(foreign.web, "http://clearml.example:8080");
    assert_eq!(foreign.files, "http://clearml.example:8081");
    assert!(Foreign::told(&|_| None).is_none());
}
