//! S6 (e, f) while the controller is down: nobody sends SIGTERM, the executor finds out by its own slow look.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::pod::Pod;
use super::proxy::{Fate, Proxy};
use super::server::{Server, wait};

#[test]
fn s6_without_a_controller_who_does_not_listen_is_killed_after_the_grace_period() {
    let server = Server::start();
    let source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        print('deaf')\nopen('ready', 'w').close()\ntime.sleep(1000)\n";
    let task = server.script("deaf and alone", source);
    let mut pod = Pod::parked(&server, &task);
    pod.grace = 1;
    let (mut uplink, mut process) = pod.begun(&["ready"]);
    server.call("tasks.stop", &json!({"task": task}));
    assert_eq!(process.end(60), 213);
    assert_eq!(server.get(&task)["status"], "stopped");
    pod.drain(&mut uplink);
    let log = server.log(&task);
    assert!(log.contains("killed after its grace period"), "{log}");
    assert_eq!(server.output(&task), "deaf\n");
}

#[test]
fn s6_without_a_controller_a_registered_callback_ends_before_sigterm_comes() {
    let server = Server::start();
    let proxy = Proxy::start(&server.url, |_| Fate::Pass);
    let source = "import os, signal, time\n\
        def end(*_):\n    open('told', 'w').close(); os._exit(0)\n\
        signal.signal(signal.SIGTERM, end)\n\
        open('ready', 'w').close()\n\
        time.sleep(1000)\n";
    let task = server.script("callback and alone", source);
    let mut pod = Pod::parked(&server, &task);
    pod.api.clone_from(&proxy.url);
    let (mut uplink, mut process) = pod.begun(&["ready"]);
    let set = |values: Value| {
        server.call(
            "tasks.edit_runtime",
            &json!({"task": task, "add_or_update": values}),
        );
    };
    set(json!({"_abort_callback_timeout": 500, "_abort_poll_freq": 5}));
    let before = proxy.count("tasks.get_by_id");
    server.call("tasks.stop", &json!({"task": task}));
    wait("the callback is looked at, and again", 60, || {
        (proxy.count("tasks.get_by_id") >= before + 4).then_some(())
    });
    assert!(!pod.path("root/code/told").exists());
    assert_eq!(server.get(&task)["status"], "in_progress");
    set(json!({"_abort_callback_completed": 1}));
    // Long before the callback's time is over.
    assert_eq!(process.end(30), 213);
    assert!(pod.path("root/code/told").exists());
    assert_eq!(server.get(&task)["status"], "stopped");
    pod.drain(&mut uplink);
}

/// A training whose callback takes longer than the executor needs to find out.
const WITH_SDK: &str = "import time\n\
    from clearml import Task\n\
    task = Task.init(auto_connect_frameworks=False, auto_resource_monitoring=False)\n\
    def finish():\n    open('begun', 'w').close(); time.sleep(20); open('finished', 'w').close()\n\
    task.register_abort_callback(finish, callback_execution_timeout=300)\n\
    open('ready', 'w').close()\n\
    time.sleep(1000)\n";

#[test]
fn s6_without_a_controller_the_sdks_own_callback_completes() {
    let python = std::env::var("TRAINYARD_E2E_SDK_PYTHON").unwrap_or_else(|_| {
        panic!("TRAINYARD_E2E_SDK_PYTHON is not set: it names a Python with clearml; run this by `cargo xtask test`")
    });
    assert!(Path::new(&python).exists(), "{python}");
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("clearml.conf");
    // No fork while threads run, and a look at the task each second.
    fs::write(
        &conf,
        "sdk.development.report_use_subprocess: false\n\
         sdk.development.worker.report_period_sec: 1\nsdk.development.worker.ping_period_sec: 1\n",
    )
    .unwrap();
    let task = server.script("callback of the SDK", WITH_SDK);
    let mut pod = Pod::parked(&server, &task);
    pod.grace = 20;
    pod.set("LOCAL_PYTHON", &python);
    pod.set("HOME", &folder.path().display().to_string());
    pod.set("CLEARML_CONFIG_FILE", &conf.display().to_string());
    pod.set("CLEARML_WEB_HOST", &server.url);
    pod.set("CLEARML_FILES_HOST", &format!("{}/files", server.url));
    pod.set("CLEARML_SUPPRESS_UPDATE_MESSAGE", "1");
    let (_uplink, mut process) = pod.begun(&["ready"]);
    server.call("tasks.stop", &json!({"task": task}));
    let finished = pod.path("root/code/finished");
    wait("the callback finishes", 60, || {
        let status = server.get(&task)["status"].clone();
        if finished.exists() {
            return Some(());
        }
        assert_eq!(status, "in_progress", "the callback is at work");
        None
    });
    assert_eq!(process.end(60), 213, "{}", server.log(&task));
    assert_eq!(server.get(&task)["status"], "stopped");
}
