//! How the components are: asked of themselves, each in its own way.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::layout::{
    self, API_PORT, CONTROLLER_MANAGER_PORT, DNS_HEALTH_PORT, ETCD_PORT, GATEWAY, GPUS, INDEX_PORT,
    KUBELET_HEALTH_PORT, NODE, PROXY_HEALTH_PORT, REGISTRY_PORT, SCHEDULER_PORT, State, gateway,
    local,
};
use super::{daemon, node};
use crate::process::Identity;
use crate::{http, sh};

/// One component as `status` shows it.
pub struct Component {
    pub name: &'static str,
    /// `None` when it does not run.
    pub pid: Option<i32>,
    pub healthy: bool,
}

/// All components; what does not run is not asked.
pub fn components(state: &State, programs: &Path) -> Vec<Component> {
    daemon::NAMES
        .iter()
        .map(|name| {
            let pid = daemon::identity(state, name)
                .filter(Identity::is_alive)
                .map(|identity| identity.pid);
            Component {
                name,
                pid,
                healthy: pid.is_some() && answers(state, programs, name),
            }
        })
        .collect()
}

/// Whether a component answers that it is well.
pub fn answers(state: &State, programs: &Path, name: &str) -> bool {
    let raw = |port: Option<u16>, path: &str| {
        let mut command = kubectl(state, programs);
        if let Some(port) = port {
            command.args(["--server", &format!("https://{}", local(port))]);
        }
        sh::succeeds(command.args(["get", "--raw", path]))
    };
    match name {
        "etcd" => http::is_ok(local(ETCD_PORT), "/health"),
        "kube-apiserver" => raw(None, "/readyz"),
        "kube-controller-manager" => raw(Some(CONTROLLER_MANAGER_PORT), "/healthz"),
        "kube-scheduler" => raw(Some(SCHEDULER_PORT), "/healthz"),
        "containerd" => node::containerd_answers(state),
        "kubelet" => http::is_ok(local(KUBELET_HEALTH_PORT), "/healthz"),
        "kube-proxy" => http::is_ok(local(PROXY_HEALTH_PORT), "/healthz"),
        "coredns" => http::is_ok(local(DNS_HEALTH_PORT), "/health"),
        "registry" => http::is_ok(local(REGISTRY_PORT), "/v2/"),
        "index" => http::is_ok(gateway(INDEX_PORT), "/simple/"),
        _ => false,
    }
}

/// Whether everything runs and the node takes pods.
pub fn is_healthy(state: &State, programs: &Path) -> bool {
    components(state, programs)
        .iter()
        .all(|component| component.healthy)
        && node_is_ready(state, programs)
}

/// Whether the node is Ready and offers its GPUs.
pub fn node_is_ready(state: &State, programs: &Path) -> bool {
    node_summary(state, programs).is_ok_and(|summary| summary == format!("True {GPUS}"))
}

/// `READY GPUS`, such as `True 4`.
fn node_summary(state: &State, programs: &Path) -> Result<String> {
    let path =
        "{.status.conditions[?(@.type==\"Ready\")].status} {.status.allocatable.nvidia\\.com/gpu}";
    let mut command = kubectl(state, programs);
    sh::output(command.args(["get", "node", NODE, "--output", &format!("jsonpath={path}")]))
}

/// The lines of `cargo xtask cluster status`; `false` when something is not well.
pub fn print(state: &State, programs: &Path) -> bool {
    let components = components(state, programs);
    let mut text = String::new();
    for component in &components {
        let pid = component
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let health = match (component.pid, component.healthy) {
            (None, _) => "not running",
            (_, true) => "healthy",
            (_, false) => "not healthy",
        };
        let _ = writeln!(text, "{:<24} {pid:>8}  {health}", component.name);
    }
    if components
        .iter()
        .any(|component| component.name == "kube-apiserver" && component.healthy)
    {
        let summary = node_summary(state, programs).unwrap_or_default();
        let (ready, gpus) = summary.split_once(' ').unwrap_or(("Unknown", ""));
        let _ = writeln!(text, "node           {NODE}, Ready {ready}");
        let _ = writeln!(
            text,
            "GPUs           {} nvidia.com/gpu allocatable",
            if gpus.is_empty() { "0" } else { gpus }
        );
        let _ = writeln!(text, "API server     https://{GATEWAY}:{API_PORT}");
        let _ = writeln!(text, "registry       {}", layout::registry());
        let _ = writeln!(text, "package index  {}", layout::index_url());
        let _ = writeln!(text, "kubeconfig     {}", state.kubeconfig().display());
    }
    // Whoever reads may have enough after a few lines.
    let _ = std::io::stdout().write_all(text.as_bytes());
    components.iter().all(|component| component.healthy)
}

/// `kubectl` of the cluster's own version.
pub fn kubectl(state: &State, programs: &Path) -> Command {
    let mut command = sh::command(programs.join("kubectl"));
    // The cache of discovery would otherwise go to the home folder.
    command
        .env("KUBECONFIG", state.kubeconfig())
        .env("KUBECACHEDIR", state.path("kubectl"));
    command.arg("--request-timeout=5s");
    command
}
