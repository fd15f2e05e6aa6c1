//! The start fence: who does not get the entry runs nothing and writes nothing.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::pod::Pod;
use super::proxy::{Fate, Proxy};
use super::server::Server;

/// Within which user code begins once the task is started; later comes what is sent by the clock.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The requests that a pod sends before user code runs, in order, and how many of them the init container sends.
pub fn requests_before_user_code() -> (Vec<String>, usize) {
    // On a machine that stood still for so long in between it is counted once more.
    let mut counted = count_requests();
    for _ in 0..4 {
        if counted.1 < AT_ONCE {
            break;
        }
        counted = count_requests();
    }
    counted.0
}

/// The same of one pod, and how long after the start of the task its code began.
fn count_requests() -> ((Vec<String>, usize), Duration) {
    let server = Server::start();
    let task = server.script(
        "count",
        "import time; open('at', 'w').write(repr(time.time()))\n",
    );
    let mut pod = Pod::parked(&server, &task);
    let proxy = Proxy::start(&server.url, |_| Fate::Pass);
    pod.api.clone_from(&proxy.url);
    pod.prepare();
    let of_prepare = proxy.passed().len();
    assert_eq!(pod.run_prepared(), 0);
    let at: f64 = pod.stream("root/code/at").parse().unwrap();
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(at);
    let mut before = proxy.passed();
    before.retain(|passed| passed.at < started);
    let start = before
        .iter()
        .find(|passed| passed.action == "tasks.started");
    let start = start.expect("the task was started").at;
    let took = started.duration_since(start).unwrap_or_default();
    let before = before.into_iter().map(|passed| passed.action).collect();
    ((before, of_prepare), took)
}

#[test]
fn a_pod_sends_seven_requests_before_user_code_and_five_of_them_from_the_tasks_container() {
    let (before, of_prepare) = requests_before_user_code();
    assert_eq!(of_prepare, 2, "{before:?}");
    assert_eq!(
        before,
        [
            "auth.login",
            "tasks.get_by_id",
            "queues.remove_task",
            "tasks.get_by_id",
            "tasks.edit_runtime",
            "workers.status_report",
            "tasks.started"
        ]
    );
}

#[test]
fn without_its_entry_a_pod_runs_nothing_and_writes_nothing() {
    let server = Server::start();
    let task = server.script("lost", "open('ran', 'w')\nprint('never')\n");
    let pod = Pod::parked(&server, &task);
    server.call(
        "queues.remove_task",
        &json!({"queue": pod.queue, "task": task}),
    );
    assert_eq!(pod.run(), 211);
    let after = server.get(&task);
    assert_eq!(after["status"], "queued");
    assert!(
        after["runtime"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty),
        "{}",
        after["runtime"]
    );
    assert!(server.events(&task).is_empty());
    assert!(!pod.path("root/code/ran").exists());
    assert_eq!(pod.termination()["outcome"], "lost-race");
}

#[test]
fn a_lost_answer_about_the_entry_is_not_asked_for_again() {
    let server = Server::start();
    let task = server.script("lost answer", "open('ran', 'w')\n");
    let mut pod = Pod::parked(&server, &task);
    let proxy = Proxy::start(&server.url, |action| match action {
        "queues.remove_task" => Fate::LoseAnswer,
        _ => Fate::Pass,
    });
    pod.api = proxy.url.clone();
    assert_eq!(pod.run(), 211);
    assert_eq!(proxy.count("queues.remove_task"), 1);
    assert_eq!(proxy.count("tasks.started"), 0);
    assert_eq!(server.get(&task)["status"], "queued");
    assert!(!pod.path("root/code/ran").exists());
}

#[test]
fn a_task_that_was_aborted_while_it_waited_is_not_started() {
    let server = Server::start();
    let task = server.script("aborted", "open('ran', 'w')\n");
    let pod = Pod::parked(&server, &task);
    pod.prepare();
    server.call("tasks.stop", &json!({"task": task}));
    assert_eq!(pod.run_prepared(), 211);
    assert_eq!(server.get(&task)["status"], "stopped");
    assert!(!pod.path("root/code/ran").exists());
}

#[test]
fn of_two_pods_of_one_job_one_runs() {
    let server = Server::start();
    let task = server.script("two pods", "print('ran once')\n");
    let first = Pod::parked(&server, &task);
    let second = first.twin();
    first.prepare();
    second.prepare();
    let _uplinks = (first.uplink(), second.uplink());
    let (mut one, mut other) = (first.start(), second.start());
    let mut codes = [one.end(60), other.end(60)];
    codes.sort_unstable();
    assert_eq!(codes, [0, 211]);
    assert_eq!(server.get(&task)["status"], "completed");
}

/// What the first attempt and the controller's requeue after it leave behind.
fn requeued(pod: &mut Pod<'_>, server: &Server, task: &str) {
    let entry = json!({"task": task, "queue": pod.queue});
    server.call("queues.remove_task", &entry);
    server.call("tasks.started", &json!({"task": task}));
    server.call(
        "tasks.dequeue",
        &json!({"task": task, "new_status": "queued"}),
    );
    server.call(
        "tasks.enqueue",
        &json!({"task": task, "queue": pod.queue, "update_execution_queue": false}),
    );
    pod.set("TRAINYARD_ATTEMPT", "2");
}

#[test]
fn a_task_that_was_requeued_runs_again() {
    let server = Server::start();
    let task = server.script("again", "print('ran again')\n");
    let mut pod = Pod::parked(&server, &task);
    requeued(&mut pod, &server, &task);
    assert_eq!(pod.run(), 0, "{}", pod.stream("task.stderr"));
    assert_eq!(server.get(&task)["status"], "completed");
    assert_eq!(server.log(&task), "ran again\n");
}

/// A task that was requeued remembers `queued` as its status before the enqueue: a user's dequeue goes back to that.
#[test]
fn a_later_attempt_that_its_user_dequeued_while_it_waited_is_not_started() {
    let server = Server::start();
    let task = server.script("dequeued", "open('ran', 'w')\n");
    let mut pod = Pod::parked(&server, &task);
    requeued(&mut pod, &server, &task);
    server.call("tasks.dequeue", &json!({"task": task}));
    assert_eq!(server.get(&task)["status"], "queued");
    assert_eq!(pod.run(), 211);
    assert_eq!(pod.termination()["outcome"], "lost-race");
    assert_eq!(server.get(&task)["status"], "queued");
    assert!(!pod.path("root/code/ran").exists());
}
