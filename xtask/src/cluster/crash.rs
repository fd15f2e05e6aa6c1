//! A crash, played: components die while a pod runs, and the next `up` has to sweep what they leave.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::layout::{NODE, State};
use super::{Cluster, daemon, status};
use crate::process::Identity;
use crate::sh;

/// Those that the others need, and that the pods need.
const KILLED: [&str; 3] = ["kube-apiserver", "kubelet", "containerd"];

const POD: &str = "idle";

/// Runs a pod, so that the cluster has something to leave behind.
pub fn occupy(cluster: &Cluster) -> Result<()> {
    let state = State::new()?;
    let kubectl = || status::kubectl(&state, &cluster.bin);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": "default"},
        "spec": {
            // Others may be simulated.
            "nodeName": NODE,
            "containers": [{
                "name": POD, "image": format!("{}/bare:1", cluster.registry), "command": ["/bin/sleep", "3600"],
            }],
        },
    });
    sh::feed(
        kubectl().args(["apply", "--filename", "-"]),
        &pod.to_string(),
    )?;
    sh::wait_for("a pod", Duration::from_mins(3), || {
        let phase = sh::output(kubectl().args([
            "get",
            "pod",
            POD,
            "--namespace=default",
            "--output=jsonpath={.status.phase}",
        ]))?;
        Ok(phase == "Running")
    })
}

/// Ends some of the components at once and without a word; what they started goes on.
pub fn kill() -> Result<()> {
    let state = State::new()?;
    for name in KILLED {
        let identity = daemon::identity(&state, name)
            .filter(Identity::is_alive)
            .with_context(|| format!("{name} does not run"))?;
        identity.end(Duration::ZERO);
        if identity.is_alive() {
            bail!("{name} cannot be killed");
        }
    }
    Ok(())
}
