//! Programs that outlive the command that started them: a session of their own, a log file, a record of who they are.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use super::layout::State;
use crate::process::Identity;
use crate::sh;

/// All components, in the order in which they are started.
pub const NAMES: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "containerd",
    "registry",
    "index",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
];

/// A started component; it runs on when this value is dropped.
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program` detached from this terminal and writes down its identity.
    pub fn start(
        state: &State,
        name: &'static str,
        program: PathBuf,
        arguments: Vec<OsString>,
    ) -> Result<Self> {
        let log = state.path("logs").join(format!("{name}.log"));
        let file =
            fs::File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        // setsid replaces itself by the program, so the number of the child stays that of the program.
        let mut command = sh::command("setsid");
        command
            .arg(program)
            .args(arguments)
            .current_dir(state.root());
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let identity = Identity::of(child.id().cast_signed())
            .with_context(|| format!("{name} ended at once"))?;
        sh::write(record(state, name), serde_json::to_vec(&identity)?)?;
        Ok(Self { name, child, log })
    }

    /// Fails with the last line of its log when it has ended.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("nothing in its log");
        bail!(
            "{} ended ({status}): {last} (log: {})",
            self.name,
            self.log.display()
        )
    }
}

/// Who was started under `name`, dead or alive.
pub fn identity(state: &State, name: &str) -> Option<Identity> {
    serde_json::from_slice(&fs::read(record(state, name)).ok()?).ok()
}

fn record(state: &State, name: &str) -> PathBuf {
    state.path("run").join(format!("{name}.json"))
}
