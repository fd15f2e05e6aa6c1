//! S6 (c): an abort while code or packages are brought, before the task's own code has begun. Nothing of it is left.

use std::fs;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;

use super::pod::{Pod, family};
use super::server::{Proc, Server, wait};
use crate::{silent, times};

/// Whether it is there, and not only waiting to be reaped.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X"))
}

fn is(pid: Pid, program: &str) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end() == program
}

/// A process and all below it, once one of them is this program.
fn at_work(process: &Proc, program: &str) -> Vec<Pid> {
    wait(&format!("{program} is at work"), 60, || {
        let all = family(process.id());
        all.iter().any(|pid| is(*pid, program)).then_some(all)
    })
}

fn are_gone(processes: &[Pid]) {
    wait("no process of the task is left", 10, || {
        let left = processes.iter().any(|pid| lives(*pid));
        (!left).then_some(())
    });
}

#[test]
fn s6_an_abort_while_packages_are_installed_leaves_nothing_of_it() {
    let server = Server::start();
    let index = format!("http://{}/simple/", silent::start("127.0.0.1"));
    // Told by the pod's end, as the controller does it; then found out by the executor alone.
    for is_told in [true, false] {
        let script = json!({
            "binary": "python3", "entry_point": "script.py", "working_dir": ".",
            "diff": "open('ran', 'w').close()\n", "requirements": {"pip": "alpha==1.0\n"},
        });
        let task = server.task("installs", &script);
        let mut pod = Pod::parked(&server, &task);
        pod.set("TRAINYARD_ENVIRONMENT_MANAGER", "auto");
        pod.set("TRAINYARD_INDEX_URL", &index);
        pod.prepare();
        pod.bring_uv();
        let (mut uplink, mut process) = (pod.uplink(), pod.start());
        let processes = at_work(&process, "uv");
        server.call("tasks.stop", &json!({"task": task}));
        let status = server.get(&task)["status"].clone();
        assert_eq!(status, "in_progress", "a live worker runs it");
        let begun = Instant::now();
        if is_told {
            process.signal(Signal::SIGTERM);
        }
        assert_eq!(process.end(60), 213);
        let (how, stated) = if is_told {
            ("by SIGTERM", 3.0)
        } else {
            ("of an abort without a controller", 16.0)
        };
        let what = format!("an installation ends {how}");
        times::told("S6", &what, begun.elapsed().as_secs_f64(), stated);
        are_gone(&processes);
        assert_eq!(server.get(&task)["status"], "stopped");
        assert!(!pod.path("root/code/ran").exists());
        pod.drain(&mut uplink);
        let log = server.log(&task);
        let sentence = "trainyard: the task was aborted before its code was started";
        assert!(log.contains(sentence), "{log}");
    }
}

#[test]
fn s6_an_abort_while_code_is_fetched_leaves_nothing_of_it() {
    let server = Server::start();
    let script = json!({
        "binary": "python3", "entry_point": "train.py", "working_dir": ".",
        "repository": format!("http://{}/train.git", silent::start("127.0.0.1")),
        "version_num": "0123456789abcdef0123456789abcdef01234567",
    });
    let task = server.task("fetches", &script);
    let pod = Pod::parked(&server, &task);
    let mut prepare = pod.start_prepare();
    let processes = at_work(&prepare, "git-remote-http");
    server.call("tasks.stop", &json!({"task": task}));
    prepare.signal(Signal::SIGTERM);
    assert_eq!(prepare.end(30), 213, "{}", pod.stream("prepare.stderr"));
    are_gone(&processes);
    // Without it no other container of the pod starts.
    assert!(!pod.path("root/prepared.json").exists());
    assert_eq!(server.get(&task)["status"], "stopped");
    assert_eq!(server.log(&task), "", "nothing was written to the task");
}
