//! What a cluster that is down must not have left on the machine; looked for apart from what takes it away.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::layout::{BRIDGE, OURS, POD_NET, State};
use crate::sh;

/// Fails and names what is left: processes, mounts, interfaces, firewall rules, cgroups.
pub fn check() -> Result<()> {
    let state = State::new()?;
    let root = state.root().display().to_string();
    let mut left = processes(&root)?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&root))
            .map(|line| format!("mount {line}")),
    );
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        left.push(format!("interface {BRIDGE}"));
    }
    let rules = sh::output(sh::command("nft").args(["list", "ruleset"]))?;
    left.extend(
        rules
            .lines()
            .filter(|line| line.contains("kube-proxy") || line.contains(POD_NET))
            .map(|line| format!("firewall rule {}", line.trim())),
    );
    left.extend(
        cgroups()
            .iter()
            .map(|group| format!("cgroup {}", group.display())),
    );
    if !left.is_empty() {
        bail!("the cluster left behind: {}", left.join("; "));
    }
    Ok(())
}

/// That of all pods, in the one hierarchy or in each of them.
fn cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    std::iter::once(root.to_owned())
        .chain(hierarchies.map(|entry| entry.path()))
        .map(|hierarchy| hierarchy.join(OURS))
        .filter(|group| group.is_dir())
        .collect()
}

/// What the pods of this moment have of the machine's network. Nothing tells whose it was once the bridge is gone.
pub struct Held {
    /// Names of the host's ends of their interfaces.
    interfaces: Vec<String>,
    /// Their network namespaces, as `net:[4026532334]`.
    namespaces: Vec<String>,
}

impl Held {
    /// Fails where nothing is found, since then nothing could be missed.
    pub fn now() -> Result<Self> {
        let ports = fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"))?.flatten();
        let folder = State::new()?.text("containerd/");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let held = Self {
            interfaces: ports
                .map(|port| port.file_name().to_string_lossy().into_owned())
                .collect(),
            namespaces: mounts
                .lines()
                .filter(|line| line.contains(&folder))
                .filter_map(|line| line.split(' ').nth(3))
                .filter(|root| root.starts_with("net:["))
                .map(ToOwned::to_owned)
                .collect(),
        };
        if held.interfaces.is_empty() || held.namespaces.is_empty() {
            bail!("the pods of the cluster have no interfaces or no network namespaces");
        }
        Ok(held)
    }

    /// Fails and names what is still there. The kernel takes a namespace away a moment after its last process.
    pub fn check_gone(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let left = self.left()?;
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(5) {
                bail!("pods left behind: {}", left.join("; "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left(&self) -> Result<Vec<String>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut used: Vec<String> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(3).map(ToOwned::to_owned))
            .collect();
        for process in fs::read_dir("/proc")?.flatten() {
            if let Ok(namespace) = fs::read_link(process.path().join("ns/net")) {
                used.push(namespace.display().to_string());
            }
        }
        let interfaces = self
            .interfaces
            .iter()
            .filter(|name| Path::new("/sys/class/net").join(name).exists())
            .map(|name| format!("interface {name}"));
        let namespaces = self
            .namespaces
            .iter()
            .filter(|namespace| used.contains(namespace))
            .map(|namespace| format!("network namespace {namespace}"));
        Ok(interfaces.chain(namespaces).collect())
    }
}

/// Living processes whose command line names the state folder. A zombie has none, and is its parent's to reap.
fn processes(root: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(root) {
            found.push(format!(
                "process {} {}",
                entry.file_name().display(),
                line.chars().take(120).collect::<String>()
            ));
        }
    }
    Ok(found)
}
