//! The few calls to `trainyard server` that the demo needs, over plain HTTP on this machine.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::{Value, json};

use crate::http;

/// A server and the keys to it, as `--write-conf` wrote them.
pub struct Server {
    url: String,
    files_url: String,
    access_key: String,
    secret_key: String,
    token: OnceLock<String>,
}

impl Server {
    /// Reads the `clearml.conf` that `trainyard server --write-conf` made.
    pub fn from_conf(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| {
                    let rest = line
                        .trim()
                        .strip_prefix('"')
                        .unwrap_or(line.trim())
                        .strip_prefix(key)?;
                    rest.split('"')
                        .find(|part| part.trim().trim_matches([':', '=']).trim().len() > 1)
                        .map(str::to_owned)
                })
                .with_context(|| format!("{} names no {key}", path.display()))
        };
        Ok(Self {
            url: value("api_server")?,
            files_url: value("files_server")?,
            access_key: value("access_key")?,
            secret_key: value("secret_key")?,
            token: OnceLock::new(),
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn files_url(&self) -> &str {
        &self.files_url
    }

    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    fn address(&self) -> Result<SocketAddr> {
        let (_, host) = self
            .url
            .split_once("//")
            .context("the server's URL has no host")?;
        host.trim_end_matches('/')
            .parse()
            .with_context(|| format!("{host} is no address with a port"))
    }

    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        self.address()
            .is_ok_and(|address| http::is_ok(address, "/debug.ping"))
    }

    /// One call; its `data`.
    pub fn call(&self, name: &str, body: &Value) -> Result<Value> {
        let token = if let Some(token) = self.token.get() {
            token
        } else {
            let keys = format!("{}:{}", self.access_key, self.secret_key);
            let basic = format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(keys)
            );
            let data = self.send("auth.login", &basic, &json!({}))?;
            let token = data["token"]
                .as_str()
                .context("the login gave no token")?
                .to_owned();
            self.token.get_or_init(|| token)
        };
        self.send(name, &format!("Bearer {token}"), body)
    }

    fn send(&self, name: &str, authorization: &str, body: &Value) -> Result<Value> {
        let answer = http::post(
            self.address()?,
            &format!("/{name}"),
            authorization,
            &body.to_string(),
        )?;
        let mut value: Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("{name} answered no JSON"))?;
        if answer.status != 200 {
            bail!("{name} was refused: {}", value["meta"]["result_msg"]);
        }
        Ok(value["data"].take())
    }

    /// Status and status message of a task.
    pub fn status(&self, task: &str) -> Result<(String, String)> {
        let fields = ["id", "status", "status_message"];
        let data = self.call(
            "tasks.get_all",
            &json!({"id": [task], "only_fields": fields}),
        )?;
        let text = |name: &str| {
            data["tasks"][0][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Ok((text("status"), text("status_message")))
    }

    /// The lines of a task's log, oldest first.
    pub fn log(&self, task: &str) -> Result<Vec<String>> {
        let body =
            json!({"task": task, "batch_size": 5000, "navigate_earlier": false, "order": "asc"});
        let data = self.call("events.get_task_log", &body)?;
        let events = data["events"].as_array().cloned().unwrap_or_default();
        Ok(events
            .iter()
            .flat_map(|event| {
                event["msg"]
                    .as_str()
                    .unwrap_or_default()
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect())
    }

    /// Last value of each scalar that the experiment reported, monitors left out.
    pub fn last_scalars(&self, task: &str) -> Result<Vec<(String, f64)>> {
        let data = self.call(
            "events.get_task_latest_scalar_values",
            &json!({"task": task}),
        )?;
        let mut found = Vec::new();
        for metric in data["metrics"].as_array().into_iter().flatten() {
            let name = metric["name"].as_str().unwrap_or_default();
            for variant in metric["variants"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|_| !name.starts_with(':'))
            {
                if let (Some(variant_name), Some(value)) =
                    (variant["name"].as_str(), variant["last_value"].as_f64())
                {
                    found.push((format!("{name}/{variant_name}"), value));
                }
            }
        }
        Ok(found)
    }
}
