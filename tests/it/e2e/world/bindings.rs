//! Bindings of a world: making and changing them, and what the controller says of them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, World, merge, wait};

impl World {
    /// A QueueBinding `name` on `queues`; `patch` is merged into its spec.
    pub fn binding(&self, name: &str, queues: &[&str], patch: &Value) -> Value {
        let (web, files) = self.web_and_files(&self.url);
        let mut spec = json!({
            "server": {
                "apiUrl": self.url, "webUrl": web, "filesUrl": files,
                "credentialsSecretRef": {"name": "clearml-credentials"},
            },
            "queues": queues.iter().map(|queue| json!({"name": self.named(queue)})).collect::<Vec<_>>(),
            "limits": {"maxConcurrent": 4},
            "environment": {"indexUrl": self.place.index_url},
            "lifecycle": {"abortGracePeriod": "10s"},
            "template": {"spec": {"containers": [{"name": "task", "image": self.place.task_image}]}},
        });
        // Somebody else's cluster may have none.
        if self.place.index_url.is_empty() {
            spec["environment"] = json!({});
        }
        merge(&mut spec, patch);
        json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "QueueBinding",
            "metadata": {"name": name}, "spec": spec,
        })
    }

    pub fn bind(&self, name: &str, queues: &[&str], patch: &Value) {
        self.apply(&self.binding(name, queues, patch));
    }

    /// Merges `patch` into the spec of a binding that is there.
    pub fn edit(&self, binding: &str, patch: &Value) {
        let patch = json!({"spec": patch}).to_string();
        self.kubectl(&[
            "patch",
            "queuebinding",
            binding,
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    /// Waits until the controller speaks of the binding as it is now.
    pub fn until_observed(&self, binding: &str) {
        wait("the edit was seen", 60, || {
            let binding = self.get(&["queuebinding", binding]);
            let seen = &binding["status"]["observedGeneration"];
            (*seen == binding["metadata"]["generation"]).then_some(())
        });
    }

    pub fn condition(&self, binding: &str, kind: &str) -> Value {
        condition_of(&self.get(&["queuebinding", binding])["status"], kind)
    }

    pub fn until_ready(&self, binding: &str) {
        let mut last = Value::Null;
        let deadline = Instant::now() + Duration::from_secs(60) * PATIENCE;
        while Instant::now() < deadline {
            last = self.get(&["queuebinding", binding])["status"].clone();
            if condition_of(&last, "Ready")["status"] == "True" {
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
        let log = fs::read_to_string(self.dir.path().join("controller.log")).unwrap_or_default();
        panic!("binding {binding} is not ready: {last:#}\ncontroller: {log}");
    }

    /// The pending queue of a binding, once it was made.
    pub fn pending_queue(&self, binding: &str) -> Option<String> {
        let binding = self.get(&["queuebinding", binding]);
        let uid = binding["metadata"]["uid"]
            .as_str()
            .expect("a binding has a uid");
        let found = self.call(
            "queues.get_all",
            &json!({"name": format!("^trainyard:{uid}$"), "search_hidden": true, "only_fields": ["id"]}),
        );
        found["queues"][0]["id"].as_str().map(str::to_owned)
    }
}

/// The condition of this type in the status of a binding.
fn condition_of(status: &Value, kind: &str) -> Value {
    let mut all = status["conditions"].as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == kind)
        .cloned()
        .unwrap_or(Value::Null)
}
