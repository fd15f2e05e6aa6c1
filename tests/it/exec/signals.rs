//! The duties of a process 1: signals reach the script, and what its children leave behind is reaped.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use trainyard::diagnose::{Category, Fault};

use super::pod::Pod;
use super::server::{Server, wait};

#[test]
fn signals_that_end_nothing_reach_the_whole_group_and_the_script_goes_on() {
    let server = Server::start();
    // Two processes of one group; each notes what it gets.
    let source = "import os, signal, time\n\
        name = 'child' if os.fork() == 0 else 'parent'\n\
        def note(number, _):\n    open(name + ' ' + signal.Signals(number).name, 'w').close()\n\
        for known in ['SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGCONT']:\n    signal.signal(getattr(signal, known), note)\n\
        open(name, 'w').close()\n\
        while not os.path.exists('go'): time.sleep(0.05)\n\
        if name == 'parent': os.wait(); print('went on')\n";
    let task = server.script("signals", source);
    let mut pod = Pod::parked(&server, &task);
    // They are none of the pod's end, which would have come by now.
    pod.set("TRAINYARD_POD_GRACE_SECONDS", "0");
    let (mut uplink, mut process) = pod.begun(&["parent", "child"]);
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGWINCH,
        Signal::SIGCONT,
    ] {
        process.signal(signal);
        for name in ["parent", "child"] {
            pod.wait_for_file(&format!("{name} {}", signal.as_str()));
        }
    }
    fs::write(pod.path("root/code/go"), "").unwrap();
    assert_eq!(process.end(30), 0, "{}", pod.stream("task.stderr"));
    assert_eq!(server.get(&task)["status"], "completed");
    pod.drain(&mut uplink);
    assert_eq!(server.output(&task), "went on\n");
}

/// As Kubernetes ends a pod whose image has `STOPSIGNAL SIGHUP`.
#[test]
fn an_abort_by_the_images_own_stop_signal_is_an_abort() {
    let server = Server::start();
    let source = "import time\nopen('begun', 'w').close()\ntime.sleep(1000)\n";
    let task = server.script("stop signal", source);
    let pod = Pod::parked(&server, &task);
    let (mut uplink, mut process) = pod.begun(&["begun"]);
    server.call("tasks.stop", &json!({"task": task}));
    process.signal(Signal::SIGHUP);
    assert_eq!(process.end(30), 213);
    assert_eq!(server.get(&task)["status"], "stopped");
    pod.drain(&mut uplink);
}

/// Such a signal may be the image's own stop signal, in a drain, or sent by hand: the pod tells.
#[test]
fn an_end_after_a_signal_is_an_interruption_only_where_the_pod_was_being_ended() {
    let server = Server::start();
    let on_signal = |act: &str| {
        format!(
            "import os, signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: {act})\n\
             open('begun', 'w').close()\nwhile True: time.sleep(0.05)\n"
        )
    };
    let deaf = "import time\nopen('begun', 'w').close()\ntime.sleep(1000)\n".to_owned();
    for (source, signal, code, category) in [
        (deaf, Signal::SIGQUIT, 131, "signal"),
        (on_signal("os._exit(3)"), Signal::SIGUSR1, 3, "exit-code"),
        (on_signal("os._exit(0)"), Signal::SIGUSR1, 0, "completed"),
    ] {
        let task = server.script(category, &source);
        let pod = Pod::parked(&server, &task);
        let (mut uplink, mut process) = pod.begun(&["begun"]);
        process.signal(signal);
        assert_eq!(process.end(60), code, "{}", pod.stream("task.stderr"));
        let status = server.get(&task)["status"].clone();
        assert_eq!(
            status, "in_progress",
            "{category}: left to who sees the pod"
        );
        pod.drain(&mut uplink);
        let log = server.log(&task);
        assert!(log.contains(", after a signal to its container: "), "{log}");
        assert_eq!(pod.category(code), category);
        let deleted = json!({"name": "pod", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let taken = pod.diagnosis(code, &deleted);
        assert_eq!(
            (taken.category, taken.fault, taken.reported),
            (Category::PodDeleted, Fault::Interruption, false)
        );
    }
}

/// Dead children of a process that nobody has waited for.
fn unreaped(parent: i32) -> Vec<String> {
    let stats = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            let is_dead = fields.next()? == "Z";
            let is_ours = fields.next()?.parse::<i32>() == Ok(parent);
            (is_dead && is_ours).then_some(stat)
        });
    stats.collect()
}

#[test]
fn an_orphan_that_ends_is_reaped_while_the_script_runs() {
    let server = Server::start();
    // A child that leaves a child of its own behind, which ends once it has another parent.
    let source = "import os, time\n\
        child = os.fork()\n\
        if child == 0:\n    middle, orphan = os.getpid(), os.fork()\n    \
        while orphan == 0 and os.getppid() == middle: time.sleep(0.01)\n    \
        if orphan: open('orphan.new', 'w').write(str(orphan)); os.rename('orphan.new', 'orphan')\n    \
        os._exit(0)\n\
        os.waitpid(child, 0)\n\
        while not os.path.exists('go'): time.sleep(0.05)\n";
    let task = server.script("orphan", source);
    let pod = Pod::parked(&server, &task);
    let (_uplink, mut process) = pod.begun(&["orphan"]);
    let orphan = pod.stream("root/code/orphan");
    assert!(orphan.parse::<i32>().is_ok(), "{orphan}");
    wait("the orphan is reaped", 30, || {
        (!Path::new("/proc").join(&orphan).exists()).then_some(())
    });
    let left = unreaped(process.id());
    assert!(left.is_empty(), "{left:?}");
    assert!(process.0.try_wait().unwrap().is_none(), "the script runs");
    fs::write(pod.path("root/code/go"), "").unwrap();
    assert_eq!(process.end(30), 0, "{}", pod.stream("task.stderr"));
}
