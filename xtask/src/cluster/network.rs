//! The bridge, masquerading for pods, and the kernel settings that a node changes; all of it can be undone.
//!
//! Masquerading is one nftables table of our own instead of the CNI plugin's `ipMasq`, which leaves chains of
//! iptables behind.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::layout::{BRIDGE, GATEWAY, OURS, POD_NET, State};
use crate::sh;

/// Settings that kubelet, kube-proxy or the CNI plugins change.
const SETTINGS: &[&str] = &[
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

const PROXY_TABLES: [&str; 2] = ["ip", "ip6"];

/// Fails when the addresses or tables are in use by somebody else. Runs after the sweep: what is there is not ours.
pub fn check_free() -> Result<()> {
    let addresses = sh::output(sh::command("ip").args(["-4", "-o", "address", "show"]))?;
    if let Some(line) = addresses.lines().find(|line| line.contains("inet 10.89.")) {
        let interface = line
            .split_whitespace()
            .nth(1)
            .unwrap_or("another interface");
        bail!(
            "{POD_NET} is in use by {interface}: the local cluster needs these addresses; set KUBECONFIG to use another cluster"
        );
    }
    if PROXY_TABLES
        .iter()
        .any(|family| has_table(family, "kube-proxy"))
    {
        bail!(
            "a kube-proxy already works on this machine (nft table kube-proxy): set KUBECONFIG to use its cluster"
        );
    }
    Ok(())
}

/// Locally administered, so it is nobody's.
const BRIDGE_ADDRESS: &str = "0a:58:0a:59:00:01";

/// Makes bridge and masquerading, after writing down what the kernel's settings were.
pub fn create(state: &State) -> Result<()> {
    remember_settings(state)?;
    let ip = |arguments: &[&str]| sh::run(sh::command("ip").args(arguments));
    // Without an address of its own a bridge takes the lowest of its ports': it would change as pods come and go, and
    // what pods send to the host would be lost until their neighbour tables have noticed.
    ip(&[
        "link",
        "add",
        BRIDGE,
        "address",
        BRIDGE_ADDRESS,
        "type",
        "bridge",
    ])?;
    ip(&["address", "add", &format!("{GATEWAY}/16"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    let rules = format!(
        "table ip {OURS} {{\n  chain from_pods {{\n    type nat hook postrouting priority srcnat;\n    \
         ip saddr {POD_NET} ip daddr != {POD_NET} masquerade\n  }}\n}}\n"
    );
    sh::feed(sh::command("nft").args(["-f", "-"]), &rules)?;
    sh::write(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")
}

/// Whether this state folder's cluster made what bears our names; noted before anything is made.
pub fn is_ours(state: &State) -> bool {
    state.path("settings").exists()
}

/// Takes away bridge, its ports, and the tables of masquerading and of our kube-proxy.
pub fn remove() -> Result<()> {
    let ports = fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"))
        .into_iter()
        .flatten()
        .flatten();
    for port in ports {
        sh::succeeds(
            sh::command("ip")
                .args(["link", "delete"])
                .arg(port.file_name()),
        );
    }
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        sh::run(sh::command("ip").args(["link", "delete", BRIDGE]))?;
    }
    for (family, table) in [
        ("ip", OURS),
        (PROXY_TABLES[0], "kube-proxy"),
        (PROXY_TABLES[1], "kube-proxy"),
    ] {
        if has_table(family, table) {
            sh::run(sh::command("nft").args(["delete", "table", family, table]))?;
        }
    }
    Ok(())
}

fn has_table(family: &str, name: &str) -> bool {
    sh::find("nft").is_some()
        && sh::succeeds(sh::command("nft").args(["list", "table", family, name]))
}

fn remember_settings(state: &State) -> Result<()> {
    let mut lines = String::new();
    for name in SETTINGS {
        if let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(name)) {
            let _ = writeln!(lines, "{name} {}", value.trim());
        }
    }
    sh::write(state.path("settings"), lines)
}

/// Sets the kernel's settings back; with it ends the claim to bridge, tables and cgroup, so it comes last.
pub fn restore_settings(state: &State) -> Result<()> {
    let file = state.path("settings");
    for line in fs::read_to_string(&file).unwrap_or_default().lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let path = Path::new("/proc/sys").join(name);
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() != value) {
            sh::write(&path, value)?;
        }
    }
    sh::remove(&file)
}
