//! What a cluster that is down must not have left on the machine; looked for apart from what takes it away.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::layout::{BRIDGE, POD_NET, State};
use crate::sh;

/// Fails and names what is left: processes, mounts, interfaces, firewall rules.
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
    if !left.is_empty() {
        bail!("the cluster left behind: {}", left.join("; "));
    }
    Ok(())
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
