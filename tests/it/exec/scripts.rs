//! Scripts that run before the task's own code, and after it.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use super::end::{abort, are_gone};
use super::pod::Pod;
use super::server::Server;

/// The configuration of an agent whose scripts tell their order, and fail.
const CONF: &str = r#"
agent {
  docker_init_bash_script: [
    "for number in {{1..2}}; do echo -n \" init-$number\" >> made; done",
    "export OF_INIT={python_single_digit} LOCAL_PYTHON=/usr/bin/python3",
    "false"
  ]
  docker_preprocess_bash_script: "echo -n ' preprocess' >> made; exit 3"
  extra_docker_shell_script: ["no-such-program", "echo -n \" extra-$OF_INIT\" >> made", "no-such-program-either"]
  init_script: "echo -n ' init' >> made"
  post_script: ["no-such-program", "echo of conf after $TRAINYARD_EXIT_CODE", "false"]
  on_start: "touch never"
}
"#;

#[test]
fn scripts_of_the_configuration_run_beside_those_of_binding_and_task_and_their_failures_are_told() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("clearml.conf");
    fs::write(&conf, CONF).unwrap();
    let source =
        "import os\nprint(open('made').read(), os.environ['OF_INIT'], os.path.exists('never'))\n";
    let task = server.script("scripts", source);
    let container = json!({"setup_shell_script": "echo -n ' task' >> made"});
    server.call("tasks.edit", &json!({"task": task, "container": container}));
    let mut pod = Pod::parked(&server, &task);
    pod.set("CLEARML_CONFIG_FILE", &conf.display().to_string());
    pod.set("TRAINYARD_SETUP_SCRIPT", "echo -n binding > made");
    pod.set("TRAINYARD_TASK_SETUP_SCRIPT", "allow");
    pod.set("TRAINYARD_POST_SCRIPT", "echo of binding");
    assert_eq!(pod.run(), 0, "{}", server.log(&task));
    let log = server.log(&task);
    let made = "binding preprocess init-1 init-2 init extra-python3 task python3 False\n";
    let before = log
        .find(made)
        .expect("what the scripts before it have made");
    let after = log.rfind("of conf after 0\n").expect("that of the file");
    assert!(before < after && log.ends_with("of binding\n"), "{log}");
    for (told, times) in [
        (
            "agent.docker_preprocess_bash_script of clearml.conf ended with exit code 3: the task goes on",
            1,
        ),
        (
            "agent.docker_init_bash_script of clearml.conf ended with exit code 1: the task goes on",
            1,
        ),
        (
            "agent.extra_docker_shell_script of clearml.conf ended with exit code 127: the task goes on",
            1,
        ),
        (
            "agent.post_script of clearml.conf ended with exit code 1: how the task ends is up to its code alone",
            1,
        ),
        ("agent.on_start is no known key", 1),
        ("_script is no known key", 0),
        ("bash_script (", 0),
    ] {
        assert_eq!(log.matches(told).count(), times, "{told}: {log}");
    }
}

/// Ends by a signal only.
const WAITS: &str = "import time\nopen('ready', 'w').close()\ntime.sleep(1000)\n";

#[test]
fn a_post_script_follows_the_code_whatever_it_ends_with_and_changes_nothing_about_that() {
    let server = Server::start();
    for (ends, code, status) in [
        ("", 0, "completed"),
        ("raise SystemExit(3)", 3, "failed"),
        ("os.kill(os.getpid(), 11)", 139, "failed"),
    ] {
        let source = format!(
            "import os\nopen('made', 'w').write('it')\nprint('the last line', flush=True)\n{ends}\n"
        );
        let task = server.script("post", &source);
        let mut pod = Pod::parked(&server, &task);
        pod.set("TRAINYARD_SETUP_SCRIPT", "export OF_SETUP=more");
        pod.set(
            "TRAINYARD_POST_SCRIPT",
            "echo after $TRAINYARD_EXIT_CODE with $(cat made) and $OF_SETUP; exit 9",
        );
        assert_eq!(pod.run(), code, "{}", server.log(&task));
        assert_eq!(
            server.output(&task),
            format!("the last line\nafter {code} with it and more\n")
        );
        let told = "trainyard: the post script of the binding ended with exit code 9: ";
        let log = server.log(&task);
        assert_eq!(log.matches(told).count(), 1, "{log}");
        let after = server.get(&task);
        assert_eq!(after["status"], status);
        let message = after["status_message"].as_str().unwrap();
        let of_code = code == 0 || message.ends_with("last lines:\nthe last line");
        assert!(of_code && !message.contains("script"), "{message}");
        let termination = pod.termination();
        assert_eq!(termination["outcome"], status);
        assert_eq!(termination["last_lines"], json!(["the last line"]));
    }
}

#[test]
fn a_post_script_follows_an_abort() {
    let server = Server::start();
    let task = server.script("post of an abort", WAITS);
    let mut pod = Pod::parked(&server, &task);
    pod.set(
        "TRAINYARD_POST_SCRIPT",
        "echo after $TRAINYARD_EXIT_CODE; test -e $TRAINYARD_DEADLINE_FILE && echo in time",
    );
    let (mut uplink, mut process) = pod.begun(&["ready"]);
    abort(&pod, &mut process);
    pod.drain(&mut uplink);
    assert_eq!(server.output(&task), "after 143\nin time\n");
}

#[test]
fn an_abort_during_the_post_script_leaves_nothing_of_it_and_the_codes_own_end() {
    let server = Server::start();
    let task = server.script("aborted late", "print('done')\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set(
        "TRAINYARD_POST_SCRIPT",
        "sleep 1000 & echo $$ $! > begun.new; mv begun.new begun; wait",
    );
    let (mut uplink, mut process) = pod.begun(&["begun"]);
    server.call("tasks.stop", &json!({"task": task}));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 0, "{}", pod.stream("task.stderr"));
    are_gone(&pod.stream("root/code/begun"));
    assert_eq!(server.get(&task)["status"], "completed");
    pod.drain(&mut uplink);
    let log = server.log(&task);
    let told = "the post script of the binding was ended before it was done: the task was aborted";
    assert!(log.starts_with("done\n") && log.contains(told), "{log}");
}

#[test]
fn no_post_script_runs_for_code_that_never_began_nor_for_a_task_that_is_no_longer_ours() {
    let server = Server::start();
    let task = server.script("never began", "print('never')\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_SETUP_SCRIPT", "exit 7");
    pod.set("TRAINYARD_POST_SCRIPT", "touch ran");
    assert_eq!(pod.run(), 212);
    assert!(!pod.path("root/code/ran").exists());
    let task = server.script("reset", WAITS);
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_POST_SCRIPT", "touch ran");
    let (_uplink, mut process) = pod.begun(&["ready"]);
    server.call("tasks.reset", &json!({"task": task, "force": true}));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 213);
    assert_eq!(server.get(&task)["status"], "created");
    assert!(!pod.path("root/code/ran").exists());
}
