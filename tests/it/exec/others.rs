//! A status that somebody else writes while the task runs is respected, however its script then ends.

use serde_json::json;

use super::pod::Pod;
use super::server::{Server, wait};

/// Begins, waits to be let go, and fails.
const FAILS: &str = "import os, time\nopen('began', 'w').close()\n\
    while not os.path.exists('go'): time.sleep(0.01)\n\
    print('the last line')\nraise SystemExit(3)\n";

#[test]
fn a_status_that_somebody_else_has_written_stays_and_the_log_is_whole() {
    let server = Server::start();
    for (actions, status) in [
        (["tasks.completed"].as_slice(), "completed"),
        (["tasks.failed"].as_slice(), "failed"),
        (["tasks.stopped"].as_slice(), "stopped"),
        (["tasks.completed", "tasks.publish"].as_slice(), "published"),
    ] {
        let task = server.script(status, FAILS);
        let pod = Pod::parked(&server, &task);
        let (mut uplink, mut process) = pod.begun(&["began"]);
        for action in actions {
            let body =
                json!({"task": task, "status_reason": "by hand", "status_message": "of a user"});
            server.call(action, &body);
        }
        let before = server.get(&task);
        assert_eq!(before["status"], status);
        std::fs::write(pod.path("root/code/go"), "").unwrap();
        assert_eq!(process.end(60), 3, "{status}");
        pod.drain(&mut uplink);
        let after = server.get(&task);
        for field in [
            "status",
            "status_reason",
            "status_message",
            "status_changed",
        ] {
            assert_eq!(after[field], before[field], "{field} of {status}");
        }
        assert_eq!(server.output(&task), "the last line\n", "{status}");
    }
}

#[test]
fn a_script_whose_task_was_published_under_it_is_told_to_end() {
    let server = Server::start();
    let source = "import signal, time\n\
        def end(*_):\n    print('told', flush=True); raise SystemExit(0)\n\
        signal.signal(signal.SIGTERM, end)\n\
        open('began', 'w').close()\ntime.sleep(1000)\n";
    let task = server.script("published", source);
    let pod = Pod::parked(&server, &task);
    let (mut uplink, mut process) = pod.begun(&["began"]);
    for action in ["tasks.completed", "tasks.publish"] {
        server.call(action, &json!({"task": task}));
    }
    // Its own slow look finds that.
    assert_eq!(process.end(60), 213);
    assert_eq!(server.get(&task)["status"], "published");
    wait("its last words are on the server", 20, || {
        server.output(&task).contains("told\n").then_some(())
    });
    pod.drain(&mut uplink);
}
