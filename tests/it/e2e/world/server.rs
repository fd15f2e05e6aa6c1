//! The server of a world: its calls, its queues, and the SDK that speaks to it.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use trainyard::server::accounts::{self, KeyPair, Role};

use super::{World, wait};

impl World {
    /// One call; its `data`. Fails the test when the server refuses.
    pub fn call(&self, name: &str, body: &Value) -> Value {
        let (status, answer) = self.try_call(name, body);
        assert_eq!(status, 200, "{name} {body}: {answer}");
        answer["data"].clone()
    }

    pub fn try_call(&self, name: &str, body: &Value) -> (u16, Value) {
        self.runtime.block_on(async {
            let known = self.token.lock().expect("token lock").clone();
            let token = if known.is_empty() {
                let answer: Value = self
                    .http
                    .post(format!("{}/auth.login", self.url))
                    .basic_auth(&self.key, Some(&self.secret))
                    .json(&json!({}))
                    .send()
                    .await
                    .expect("login is sent")
                    .json()
                    .await
                    .expect("login answers JSON");
                let token = answer["data"]["token"]
                    .as_str()
                    .expect("login gives a token")
                    .to_owned();
                token.clone_into(&mut self.token.lock().expect("token lock"));
                token
            } else {
                known
            };
            let request = self.http.post(format!("{}/{name}", self.url));
            answer(request.bearer_auth(token).json(body)).await
        })
    }

    /// The same with the keys of another user.
    pub fn try_call_as(&self, keys: &KeyPair, name: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(format!("{}/{name}", self.url));
        let request = request.basic_auth(&keys.access_key, Some(&keys.secret_key));
        self.runtime.block_on(answer(request.json(body)))
    }

    /// More users of this server, by their keys, once it knows of them: it looks for new ones every few seconds.
    pub fn users<const COUNT: usize>(&self, names: [&str; COUNT]) -> [KeyPair; COUNT] {
        let data = self.dir.path().join("server");
        let add = |name| accounts::add(&data, name, Role::User, None).expect("a user is added");
        let users = names.map(add);
        wait("the server knows its users", 30, || {
            let who = |keys| self.try_call_as(keys, "users.get_current_user", &json!({}));
            let is_known = |keys| who(keys).0 == 200;
            users.iter().all(is_known).then_some(())
        });
        users
    }

    /// Addresses of page and file server that belong to the server at `url`.
    pub fn web_and_files(&self, url: &str) -> (String, String) {
        match &self.foreign {
            Some(foreign) => (foreign.web.clone(), foreign.files.clone()),
            None => (url.to_owned(), format!("{url}/files")),
        }
    }

    /// What a queue is called on the server: on one that others use too, by a name of our own.
    pub fn named(&self, queue: &str) -> String {
        if self.foreign.is_some() {
            format!("{queue}-{}", self.namespace)
        } else {
            queue.to_owned()
        }
    }

    pub fn queue(&self, name: &str) -> String {
        self.call("queues.create", &json!({"name": self.named(name)}))["id"]
            .as_str()
            .expect("queue id")
            .to_owned()
    }

    pub fn queue_id(&self, name: &str) -> String {
        let found = self.call(
            "queues.get_all",
            &json!({"name": format!("^{}$", self.named(name)), "only_fields": ["id"]}),
        );
        found["queues"][0]["id"]
            .as_str()
            .expect("queue exists")
            .to_owned()
    }

    pub fn entries(&self, queue: &str) -> Vec<String> {
        self.entries_of(&self.queue_id(queue))
    }

    /// The same by the id of the queue.
    pub fn entries_of(&self, queue: &str) -> Vec<String> {
        let queue = self.call("queues.get_by_id", &json!({"queue": queue}));
        queue["queue"]["entries"]
            .as_array()
            .map(|all| {
                all.iter()
                    .filter_map(|entry| entry["task"].as_str().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Runs a Python script on the host with the real SDK, against this server; gives its output.
    pub fn sdk(&self, script: &str, args: &[&str]) -> String {
        let path = self.dir.path().join("sdk.py");
        fs::write(&path, script).expect("script is written");
        let output = Command::new(&self.place.sdk_python)
            .arg(&path)
            .args(args)
            .current_dir(self.dir.path())
            .env("CLEARML_CONFIG_FILE", self.dir.path().join("clearml.conf"))
            .env_remove("CLEARML_TASK_ID")
            .output()
            .expect("Python runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "SDK script failed:\n{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

/// The status of an answer, and its body; 0 where nobody answers.
async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            (status, response.json().await.unwrap_or(Value::Null))
        }
        Err(error) => (0, Value::String(error.to_string())),
    }
}
