//! The cgroup of a container on this node: killing all of it at once, as an out-of-memory kill under cgroup v2 does, and
//! holding it still.

use std::fs;
use std::process::Command;

use serde_json::Value;

/// Kills every process of one of the pod's containers: all are held still, get SIGKILL and go on.
pub fn kill_whole_container(pod: &Value, name: &str) {
    let folder = folder(pod, name);
    if fs::metadata(format!("{folder}/cgroup.kill")).is_ok() {
        fs::write(format!("{folder}/cgroup.kill"), "1").expect("cgroup.kill is written");
        return;
    }
    fs::write(format!("{folder}/freezer.state"), "FROZEN").expect("freezes");
    let pids = fs::read_to_string(format!("{folder}/cgroup.procs")).expect("members are readable");
    assert!(!pids.trim().is_empty(), "container {name} has processes");
    for pid in pids.lines() {
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
    fs::write(format!("{folder}/freezer.state"), "THAWED").expect("thaws");
}

/// Stops every process of one of the pod's containers (SIGSTOP); only SIGKILL ends them then.
pub fn stop_whole_container(pod: &Value, name: &str) {
    let pids = fs::read_to_string(format!("{}/cgroup.procs", folder(pod, name)))
        .expect("members are readable");
    for pid in pids.lines() {
        let _ = Command::new("kill").args(["-STOP", pid]).status();
    }
}

/// The folder of the container's cgroup.
fn folder(pod: &Value, name: &str) -> String {
    let status = &pod["status"];
    let all = [
        &status["containerStatuses"],
        &status["initContainerStatuses"],
    ];
    let container = all
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .find(|known| known["name"] == name)
        .and_then(|known| known["containerID"].as_str())
        .unwrap_or_else(|| panic!("container {name} has an id: {status:#}"));
    let id = container.rsplit('/').next().expect("container id");
    let find = |controller: &str| {
        let output = Command::new("find")
            .args([
                &format!("/sys/fs/cgroup/{controller}"),
                "-type",
                "d",
                "-name",
                &format!("*{id}*"),
            ])
            .output()
            .expect("find runs");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .map(str::to_owned)
    };
    find("freezer")
        .or_else(|| find(""))
        .unwrap_or_else(|| panic!("cgroup of container {name}, {id}"))
}
