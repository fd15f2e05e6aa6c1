//! An abort gives SIGTERM to the script's process group, then `stopped`; a container killed as a whole loses no line.

use serde_json::json;

use super::cgroup::{kill_whole_container, stop_whole_container};
use super::doors::Doors;
use super::world::{World, wait};

#[test]
fn an_abort_is_sigterm_to_the_process_group_then_stopped() {
    let world = World::with_binding("abort");
    // More than the handlers below need on a machine that others use too.
    world.edit("gpu", &json!({"lifecycle": {"abortGracePeriod": "60s"}}));
    world.until_observed("gpu");
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
    wait("the binding is suspended", 30, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended").then_some(())
    });
    let task = world.run("never", &world.counter.python("ran"), "gpu");
    world.call("tasks.stop", &json!({"task": task}));
    world.bind("gpu", &["gpu"], &json!({"suspend": false}));
    let other = world.run("after it", "print('here')\n", "gpu");
    assert_eq!(world.until_ended(&other, 60)["status"], "completed");
    assert_eq!(world.status(&task), "stopped");
    assert!(world.counter.lines().is_empty());
}

#[test]
fn every_line_written_before_a_kill_of_the_whole_container_is_on_the_server() {
    let world = World::with_binding("killall");
    let source = "import time\n\
        for i in range(20000):\n    print(f'line {i}')\n\
        print('all written', flush=True)\n\
        time.sleep(600)\n";
    let task = world.run("killed", source, "gpu");
    wait("the task runs and has written", 60, || {
        let pod = world.pod_of(&task);
        let name = pod["metadata"]["name"].as_str()?;
        // An error as long as the container waits to start.
        let text = world.try_kubectl(&["logs", name, "-c", "task", "--tail=5"]);
        text.ok()?.contains("all written").then_some(())
    });
    // The container's id may come later than its log.
    kill_whole_container(&world.running_pod(&task), "task");
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

#[test]
fn the_last_lines_of_a_pod_that_died_as_a_whole_are_sent_by_the_controller() {
    let world = World::with_binding("tail");
    let doors = Doors::start(&world);
    let source = format!(
        "import time\n\
        for i in range(50):\n    print(f'early {{i}}', flush=True)\n\
        {}for i in range(300):\n    print(f'late {{i}}', flush=True)\n\
        print('all written', flush=True)\n\
        time.sleep(600)\n",
        doors.python("late")
    );
    let task = world.run("dies", &source, "gpu");
    wait("the early lines are on the server", 60, || {
        world
            .log(&task)
            .iter()
            .any(|line| line == "early 49")
            .then_some(())
    });
    // From here on the sidecar sends nothing: it stands still until it is killed with the pod.
    let pod = world.running_pod(&task);
    stop_whole_container(&pod, "uplink");
    doors.open("late");
    wait("the late lines are in the container's log", 60, || {
        let name = pod["metadata"]["name"].as_str()?;
        let text = world.kubectl(&["logs", name, "-c", "task", "--tail=3"]);
        text.contains("all written").then_some(())
    });
    assert!(!world.log(&task).iter().any(|line| line.starts_with("late")));
    kill_whole_container(&pod, "task");
    let ended = world.until_ended(&task, 150);
    assert_eq!(ended["status"], "failed");
    let lines: Vec<String> = wait("the late lines are on the server", 30, || {
        let lines: Vec<String> = world
            .log(&task)
            .into_iter()
            .filter(|line| line.starts_with("early ") || line.starts_with("late "))
            .collect();
        (lines.len() >= 350).then_some(lines)
    });
    let early = (0..50).map(|i| format!("early {i}"));
    let wanted: Vec<String> = early.chain((0..300).map(|i| format!("late {i}"))).collect();
    assert!(lines == wanted, "each line once and in order: {lines:?}");
}
