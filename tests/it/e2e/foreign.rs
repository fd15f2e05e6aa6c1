//! A ClearML server that is there already, for the comparison with the incumbent: `cargo xtask bench --server URL`.
//!
//! It may be in use: what is made there carries the namespace's name and goes at the end.

use std::sync::Mutex;

use serde_json::json;
use url::Url;

use super::world::World;

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
        let url = std::env::var("TRAINYARD_BENCH_SERVER").ok()?;
        let url = url.trim_end_matches('/').to_owned();
        let known = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: it belongs to {url}"))
        };
        let beside = |name: &str, port: u16| {
            std::env::var(name).unwrap_or_else(|_| {
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
