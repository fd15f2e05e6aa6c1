//! The real `kubectl` in the namespace of a world.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::World;

impl World {
    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.place.bin.join("kubectl"));
        command
            .env("KUBECONFIG", &self.place.kubeconfig)
            .args(["-n", &self.namespace])
            .args(args);
        command
    }

    /// Output of kubectl; fails the test when kubectl fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args)
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    /// Standard output, or standard error when kubectl fails.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        said(&self.kubectl_command(args).output().expect("kubectl runs"))
    }

    /// A kubeconfig of a service account of this namespace.
    pub fn kubeconfig_of(&self, account: &str) -> String {
        let token = self.kubectl(&["create", "token", account]);
        let config = self.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&config).expect("a kubeconfig");
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = self.dir.path().join(format!("{account}.kubeconfig"));
        fs::write(&path, config.to_string()).expect("kubeconfig is written");
        path.display().to_string()
    }

    pub fn try_apply(&self, object: &Value) -> Result<String, String> {
        let mut child = self
            .kubectl_command(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(object.to_string().as_bytes())
            .expect("kubectl reads");
        said(&child.wait_with_output().expect("kubectl ends"))
    }
}

/// Standard output, or standard error of a program that has failed.
fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}
