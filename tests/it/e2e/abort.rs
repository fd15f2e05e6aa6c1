//! An abort gives SIGTERM to the script's process group, then `stopped`; a container killed as a whole loses no line.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::world::{World, wait};

#[test]
fn an_abort_is_sigterm_to_the_process_group_then_stopped() {
    let world = World::with_binding("abort");
    let source = "import os, signal, subprocess, sys, time\n\
        child = subprocess.Popen([sys.executable, '-u', '-c', '''\n\
import signal, sys, time\n\
def end(*_):\n    print(\"child got SIGTERM\"); sys.exit(0)\n\
signal.signal(signal.SIGTERM, end)\n\
print(\"child ready\")\n\
time.sleep(600)\n'''])\n\
        def end(*_):\n    print('script got SIGTERM', flush=True); child.wait(); print('cleaned up', flush=True); sys.exit(0)\n\
        signal.signal(signal.SIGTERM, end)\n\
        print('script ready', flush=True)\n\
        time.sleep(600)\n";
    let task = world.run("long", source, "gpu");
    wait("the script and its child are ready", 60, || {
        let log = world.log(&task);
        (log.iter().any(|l| l == "script ready") && log.iter().any(|l| l == "child ready"))
            .then_some(())
    });
    world.call(
        "tasks.stop",
        &json!({"task": task, "status_reason": "changed my mind"}),
    );
    let ended = world.until_ended(&task, 30);
    assert_eq!(ended["status"], "stopped");
    // Two processes write at once, so their lines may run into each other.
    let log = world.log(&task).join("\n");
    for words in ["script got SIGTERM", "child got SIGTERM", "cleaned up"] {
        assert!(log.contains(words), "{words:?} is missing in {log}");
    }
    wait("Job and pod are gone", 30, || {
        (world.jobs().is_empty() && world.pod_of(&task).is_null()).then_some(())
    });
}

#[test]
fn an_abort_of_a_queued_task_starts_nothing() {
    let world = World::with_binding("abort-queued");
    world.bind("gpu", &["gpu"], &json!({"suspend": true}));
    std::thread::sleep(Duration::from_secs(2));
    let task = world.run("never", &world.counter.python("ran"), "gpu");
    world.call("tasks.stop", &json!({"task": task}));
    world.bind("gpu", &["gpu"], &json!({"suspend": false}));
    let other = world.run("after it", "print('here')\n", "gpu");
    assert_eq!(world.until_ended(&other, 60)["status"], "completed");
    assert_eq!(world.status(&task), "stopped");
    assert!(world.counter.lines().is_empty());
}

/// Kills every process of the pod's task container at once, as an out-of-memory kill under cgroup v2 does: all
/// members of the container's cgroup are frozen, get SIGKILL and thaw.
fn kill_whole_container(uid: &str, container: &str) {
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
    let folder = find("freezer")
        .or_else(|| find(""))
        .unwrap_or_else(|| panic!("cgroup of {id} (pod {uid})"));
    if fs::metadata(format!("{folder}/cgroup.kill")).is_ok() {
        fs::write(format!("{folder}/cgroup.kill"), "1").expect("cgroup.kill is written");
        return;
    }
    fs::write(format!("{folder}/freezer.state"), "FROZEN").expect("freezes");
    let pids = fs::read_to_string(format!("{folder}/cgroup.procs")).expect("members are readable");
    assert!(
        pids.lines().count() >= 2,
        "process 1 and the script at least: {pids}"
    );
    for pid in pids.lines() {
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
    fs::write(format!("{folder}/freezer.state"), "THAWED").expect("thaws");
}

#[test]
fn every_line_written_before_a_kill_of_the_whole_container_is_on_the_server() {
    let world = World::with_binding("killall");
    let source = "import time\n\
        for i in range(20000):\n    print(f'line {i}')\n\
        print('all written', flush=True)\n\
        time.sleep(600)\n";
    let task = world.run("killed", source, "gpu");
    let container = wait("the task runs and has written", 60, || {
        let pod = world.pod_of(&task);
        let id = pod["status"]["containerStatuses"][0]["containerID"]
            .as_str()?
            .to_owned();
        let text = world.kubectl(&[
            "logs",
            pod["metadata"]["name"].as_str()?,
            "-c",
            "task",
            "--tail=5",
        ]);
        text.contains("all written").then_some(id)
    });
    let uid = world.pod_of(&task)["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    kill_whole_container(&uid, &container);
    let ended = world.until_ended(&task, 90);
    assert_eq!(ended["status"], "failed");
    let cause = format!("{} {}", ended["status_reason"], ended["status_message"]);
    assert!(
        cause.contains("137") || cause.contains("SIGKILL") || cause.contains("OOM"),
        "the cause is told: {cause}"
    );
    let lines: Vec<String> = wait("all lines are on the server", 30, || {
        let lines: Vec<String> = world
            .log(&task)
            .into_iter()
            .filter(|l| l.starts_with("line "))
            .collect();
        (lines.len() >= 20000).then_some(lines)
    });
    let wanted: Vec<String> = (0..20000).map(|i| format!("line {i}")).collect();
    assert_eq!(lines.len(), wanted.len(), "each line once");
    assert!(lines == wanted, "lines are in order");
    assert!(world.log(&task).iter().any(|l| l == "all written"));
}
