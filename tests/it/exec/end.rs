//! How runs end: by themselves, by failure, by abort, by interruption.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::pod::{Pod, family};
use super::proxy::{Fate, Proxy};
use super::server::{Proc, Server, wait};

/// What the termination message says of the end, and whether the server was told.
fn tells(pod: &Pod<'_>, outcome: &str, reported: bool) {
    let termination = pod.termination();
    assert_eq!(
        (&termination["outcome"], &termination["reported"]),
        (&json!(outcome), &json!(reported))
    );
}

/// Process ids of which none may be left.
pub fn are_gone(pids: &str) {
    for pid in pids.split_whitespace() {
        // The kernel takes its time to bury what was killed.
        wait(&format!("{pid} is gone"), 10, || {
            let there = std::path::Path::new(&format!("/proc/{pid}")).exists();
            (!there).then_some(())
        });
    }
}

/// Aborts a task that a live worker runs, as its user and then the controller do.
pub fn abort(pod: &Pod<'_>, process: &mut Proc) {
    let status = || pod.server.get(&pod.task)["status"].clone();
    pod.server.call("tasks.stop", &json!({"task": pod.task}));
    assert_eq!(status(), "in_progress", "a live worker runs it");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 213);
    assert_eq!(status(), "stopped");
    assert_eq!(pod.termination()["outcome"], "stopped");
}

#[test]
fn a_script_that_succeeds_completes_its_task() {
    let server = Server::start();
    let source = "import os, sys\n\
        print('out'); print('err', file=sys.stderr)\n\
        print(sorted(n for n in os.environ if n.startswith('TRAINYARD_')))\n\
        print(os.environ['CLEARML_TASK_ID'], os.environ['PYTHONUNBUFFERED'])\n\
        print(os.environ['CLEARML_API_SECRET_KEY'])\n";
    let task = server.script("succeeds", source);
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 0);
    let after = server.get(&task);
    assert_eq!(after["status"], "completed");
    assert_eq!(after["runtime"]["_trainyard_attempt"], pod.worker());
    let output =
        format!("out\nerr\n['TRAINYARD_ATTEMPT', 'TRAINYARD_DEADLINE_FILE']\n{task} 1\n****\n");
    assert_eq!(server.log(&task), output);
    assert_eq!(pod.stream("task.stdout"), output);
    assert!(
        server
            .events(&task)
            .iter()
            .all(|event| event.worker == pod.worker())
    );
    assert_eq!(pod.termination()["outcome"], "completed");
    let workers = server.call("workers.get_all", &json!({}));
    assert!(
        !workers.to_string().contains(&pod.worker()),
        "the worker has taken its leave: {workers}"
    );
}

#[test]
fn an_exit_code_is_kept_in_task_pod_and_message() {
    let server = Server::start();
    let task = server.script("fails", "print('the last line')\nraise SystemExit(3)\n");
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 3);
    let after = server.get(&task);
    assert_eq!(after["status"], "failed");
    assert_eq!(
        after["status_reason"],
        "worker execution exit code 3, trainyard: exit-code"
    );
    let message = after["status_message"].as_str().unwrap();
    assert!(
        message.contains("exit code 3") && message.contains("the last line"),
        "{message}"
    );
    let termination = pod.termination();
    assert_eq!(
        (&termination["exit_code"], &termination["reported"]),
        (&json!(3), &json!(true))
    );
}

#[test]
fn all_that_goes_to_the_server_takes_the_proxy_on_the_way_to_it() {
    let server = Server::start();
    let proxy = Proxy::start(&server.url, |_| Fate::Pass);
    let source = "import urllib.request\nprint(urllib.request.getproxies())\n";
    let task = server.script("proxied", source);
    let mut pod = Pod::parked(&server, &task);
    // Nobody but the proxy knows who that is.
    pod.api = "http://clearml.invalid:8008".to_owned();
    pod.set("TRAINYARD_SERVER_PROXY", &proxy.url);
    assert_eq!(pod.run(), 0);
    assert_eq!(server.get(&task)["status"], "completed");
    assert_eq!(proxy.count("tasks.started"), 1);
    assert!(proxy.count("events.add_batch") >= 1);
    let log = server.log(&task);
    let way = format!("'http://clearml.invalid': '{}'", proxy.url);
    assert!(log.contains(&way), "{way}: {log}");
}

#[test]
fn a_failure_that_is_tried_again_leaves_its_status_to_the_controller() {
    let server = Server::start();
    let task = server.script("again", "print('the last line')\nraise SystemExit(3)\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_ON_FAILURE", "controller");
    assert_eq!(pod.run(), 3);
    assert_eq!(server.get(&task)["status"], "in_progress");
    tells(&pod, "failed", false);
    let log = server.log(&task);
    assert!(
        log.contains("the last line\n") && log.contains("exit code 3; it is tried again"),
        "{log}"
    );
    let good = server.script("good", "print('fine')\n");
    let mut pod = Pod::parked(&server, &good);
    pod.set("TRAINYARD_ON_FAILURE", "controller");
    assert_eq!(pod.run(), 0);
    assert_eq!(server.get(&good)["status"], "completed");
}

#[test]
fn a_pod_that_is_ended_while_the_server_is_away_leaves_its_end_to_the_controller() {
    let server = Server::start();
    let task = server.script("server away", "open('done', 'w').close()\n");
    let mut pod = Pod::parked(&server, &task);
    let sign = pod.path("root/code/done");
    let proxy = Proxy::start(&server.url, move |_| {
        if sign.exists() {
            Fate::Unavailable
        } else {
            Fate::Pass
        }
    });
    pod.api = proxy.url.clone();
    let (_uplink, mut process) = pod.begun(&["done"]);
    let before = proxy.count("tasks.get_all");
    wait("it asks for the task before it tells the end", 60, || {
        (proxy.count("tasks.get_all") > before).then_some(())
    });
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 0, "{}", pod.stream("task.stderr"));
    assert_eq!(server.get(&task)["status"], "in_progress");
    tells(&pod, "completed", false);
}

#[test]
fn a_signal_is_told_by_name_and_a_reserved_code_stays_the_users() {
    let server = Server::start();
    let crash = server.script("crash", "import os\nos.kill(os.getpid(), 11)\n");
    let pod = Pod::parked(&server, &crash);
    assert_eq!(pod.run(), 139);
    assert!(
        server.get(&crash)["status_message"]
            .as_str()
            .unwrap()
            .contains("SIGSEGV")
    );
    let reserved = server.script("reserved", "raise SystemExit(211)\n");
    let pod = Pod::parked(&server, &reserved);
    assert_eq!(pod.run(), 211);
    assert_eq!(server.get(&reserved)["status"], "failed");
    assert_eq!(pod.termination()["exit_code"], 211);
}

#[test]
fn no_child_survives_the_script() {
    let server = Server::start();
    let source = "import subprocess\n\
        one = subprocess.Popen(['sleep', '1000'])\n\
        two = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n\
        open('children', 'w').write(f'{one.pid} {two.pid}')\n";
    let task = server.script("children", source);
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 0);
    assert_eq!(server.get(&task)["status"], "completed");
    are_gone(&pod.stream("root/code/children"));
}

/// Two processes of one group that say goodbye on SIGTERM, each line in one write so that they stay apart.
const POLITE: &str = "import os, signal, sys, time\n\
    def end(*_):\n    time.sleep(0.3); os.write(1, ('saved by ' + name + '\\n').encode()); os._exit(0)\n\
    name = 'child' if os.fork() == 0 else 'parent'\n\
    signal.signal(signal.SIGTERM, end)\n\
    open(name, 'w').close()\n\
    time.sleep(1000)\n";

#[test]
fn an_abort_is_sigterm_to_the_group_then_stopped() {
    let server = Server::start();
    let task = server.script("abort", POLITE);
    let pod = Pod::parked(&server, &task);
    let (mut uplink, mut process) = pod.begun(&["parent", "child"]);
    abort(&pod, &mut process);
    pod.drain(&mut uplink);
    let log = server.log(&task);
    for line in [
        "saved by parent\n",
        "saved by child\n",
        "trainyard: the task was aborted",
    ] {
        assert!(log.contains(line), "{line:?} is missing: {log}");
    }
}

#[test]
fn an_abort_is_seen_without_a_controller() {
    let server = Server::start();
    let task = server.script("abort alone", POLITE);
    let pod = Pod::parked(&server, &task);
    let (mut uplink, mut process) = pod.begun(&["parent", "child"]);
    server.call("tasks.stop", &json!({"task": task}));
    assert_eq!(process.end(60), 213);
    assert_eq!(server.get(&task)["status"], "stopped");
    pod.drain(&mut uplink);
    assert!(server.log(&task).contains("saved by child"));
}

#[test]
fn an_abort_during_the_setup_script_leaves_nothing_of_it() {
    let server = Server::start();
    let task = server.script("aborted early", "open('ran', 'w').close()\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set(
        "TRAINYARD_SETUP_SCRIPT",
        "sleep 1000 & echo $$ $! > begun.new; mv begun.new begun; wait",
    );
    let (mut uplink, mut process) = pod.begun(&["begun"]);
    abort(&pod, &mut process);
    let begun = pod.stream("root/code/begun");
    assert_eq!(begun.split_whitespace().count(), 2, "{begun}");
    are_gone(&begun);
    assert!(!pod.path("root/code/ran").exists());
    pod.drain(&mut uplink);
    let log = server.log(&task);
    assert!(
        log.contains("trainyard: the task was aborted before its code was started"),
        "{log}"
    );
}

#[test]
fn a_callback_that_the_sdk_has_registered_ends_before_sigterm_comes() {
    let server = Server::start();
    let source = "import os, signal, time\n\
        def end(*_):\n    open('told', 'w').close(); os._exit(0)\n\
        signal.signal(signal.SIGTERM, end)\n\
        open('ready', 'w').close()\n\
        time.sleep(1000)\n";
    let task = server.script("callback", source);
    let mut pod = Pod::parked(&server, &task);
    pod.grace = 60;
    let (mut uplink, mut process) = pod.begun(&["ready"]);
    let set = |values: Value| {
        server.call(
            "tasks.edit_runtime",
            &json!({"task": task, "add_or_update": values}),
        );
    };
    set(json!({"_abort_callback_timeout": 50, "_abort_poll_freq": 5}));
    server.call("tasks.stop", &json!({"task": task}));
    process.signal(Signal::SIGTERM);
    let told = pod.path("root/code/told");
    let callback = Instant::now() + Duration::from_secs(2);
    while Instant::now() < callback {
        assert!(!told.exists(), "the callback is still at work");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.get(&task)["status"], "in_progress");
    set(json!({"_abort_callback_completed": 1}));
    // Long before the callback's time is over.
    assert_eq!(process.end(20), 213);
    assert!(told.exists());
    assert_eq!(server.get(&task)["status"], "stopped");
    pod.drain(&mut uplink);
}

#[test]
fn who_does_not_listen_is_killed_after_the_grace_period_and_the_log_says_so() {
    let server = Server::start();
    let source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        open('ready', 'w').close()\ntime.sleep(1000)\n";
    let task = server.script("deaf", source);
    let mut pod = Pod::parked(&server, &task);
    pod.grace = 1;
    let (mut uplink, mut process) = pod.begun(&["ready"]);
    server.call("tasks.stop", &json!({"task": task}));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 213);
    assert_eq!(server.get(&task)["status"], "stopped");
    pod.drain(&mut uplink);
    assert!(
        server.log(&task).contains("killed after its grace period"),
        "{}",
        server.log(&task)
    );
}

#[test]
fn s46_an_interruption_tells_the_training_its_deadline() {
    let server = Server::start();
    let source = "import os, signal, time\n\
        def end(*_):\n    print('told', *open(os.environ['TRAINYARD_DEADLINE_FILE']).read().split('\\n')); os._exit(0)\n\
        signal.signal(signal.SIGTERM, end)\n\
        print(os.path.exists(os.environ['TRAINYARD_DEADLINE_FILE']))\n\
        open('ready', 'w').close()\n\
        time.sleep(1000)\n";
    let task = server.script("deadline", source);
    let mut pod = Pod::parked(&server, &task);
    pod.grace = 40;
    let (mut uplink, mut process) = pod.begun(&["ready"]);
    let before = jiff::Timestamp::now().as_second();
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 213);
    let after = jiff::Timestamp::now().as_second();
    pod.drain(&mut uplink);
    let log = server.output(&task);
    let told = log.split_once("told ").expect("the training was told").1;
    let (until, why) = told.split_once(' ').unwrap();
    let until: i64 = until.parse().unwrap();
    assert!(log.starts_with("False\n"), "{log}");
    assert!((before + 35..=after + 41).contains(&until), "{log}");
    assert!(why.starts_with("the pod is being ended"), "{log}");
}

#[test]
fn an_interruption_leaves_the_task_to_the_controller() {
    let server = Server::start();
    let task = server.script("drained", POLITE);
    let pod = Pod::parked(&server, &task);
    let (mut uplink, mut process) = pod.begun(&["child", "parent"]);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 213);
    assert_eq!(server.get(&task)["status"], "in_progress");
    tells(&pod, "interrupted", false);
    pod.drain(&mut uplink);
    assert!(server.log(&task).contains("saved by parent"));
}

#[test]
fn after_a_reset_nothing_more_is_written() {
    let server = Server::start();
    let task = server.script("reset", POLITE);
    let pod = Pod::parked(&server, &task);
    let (_uplink, mut process) = pod.begun(&["child", "parent"]);
    server.call("tasks.reset", &json!({"task": task, "force": true}));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(30), 213);
    assert_eq!(server.get(&task)["status"], "created");
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        !server.log(&task).contains("trainyard:"),
        "{}",
        server.log(&task)
    );
    assert_eq!(
        family(std::process::id().try_into().unwrap())
            .iter()
            .filter(|pid| pid.as_raw() == process.id())
            .count(),
        0
    );
}

#[test]
fn code_that_cannot_be_prepared_fails_the_task_with_one_sentence() {
    let server = Server::start();
    let script = json!({
        "binary": "python3", "entry_point": "train.py", "working_dir": ".",
        "repository": "file:///no/such/repository.git", "version_num": "0123456789012345678901234567890123456789",
    });
    let task = server.task("no repository", &script);
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 212);
    let after = server.get(&task);
    assert_eq!(after["status"], "failed");
    let message = after["status_message"].as_str().unwrap();
    assert!(message.contains("/no/such/repository.git"), "{message}");
    assert!(
        server.log(&task).contains(message),
        "the sentence is in the log: {}",
        server.log(&task)
    );
}

#[test]
fn a_setup_script_runs_first_and_its_failure_fails_the_task() {
    let server = Server::start();
    let source = "import os\nprint(open('made').read(), os.environ['SETUP'], os.environ.get('DROPPED'))\n\
        print('/from/setup' in os.environ['PATH'].split(':'), [n for n in os.environ if n.startswith('TRAINYARD_')])\n";
    let task = server.script("setup", source);
    let mut pod = Pod::parked(&server, &task);
    pod.set("DROPPED", "here");
    pod.set(
        "TRAINYARD_SETUP_SCRIPT",
        "printf by-setup > made; echo set up; export SETUP='a \"b\"' PATH=/from/setup:$PATH\nunset DROPPED; exit 0",
    );
    assert_eq!(pod.run(), 0, "{}", server.log(&task));
    assert_eq!(
        server.output(&task),
        "set up\nby-setup a \"b\" None\nTrue ['TRAINYARD_ATTEMPT', 'TRAINYARD_DEADLINE_FILE']\n"
    );
    let task = server.script("setup fails", "print('never')\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_SETUP_SCRIPT", "echo no >&2; exit 7");
    assert_eq!(pod.run(), 212);
    let after = server.get(&task);
    assert_eq!(
        after["status_reason"],
        "preparation failed, trainyard: not-prepared"
    );
    let message = after["status_message"].as_str().unwrap();
    assert!(
        message.contains("setup script") && message.contains("exit code 7"),
        "{message}"
    );
    wait("its output is in the log", 20, || {
        server.output(&task).starts_with("no\n").then_some(())
    });
}

#[test]
fn a_setup_script_of_the_task_runs_after_the_bindings_and_only_where_that_allows_it() {
    let server = Server::start();
    let script = "print(open('made').read())\n";
    let container = json!({"setup_shell_script": "echo -n ' by-task' >> made; echo set up too"});
    let task = server.script("setup", script);
    server.call("tasks.edit", &json!({"task": task, "container": container}));
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_SETUP_SCRIPT", "echo -n by-binding > made");
    pod.set("TRAINYARD_TASK_SETUP_SCRIPT", "allow");
    assert_eq!(pod.run(), 0);
    assert_eq!(server.output(&task), "set up too\nby-binding by-task\n");
    let task = server.script("setup is not allowed", script);
    server.call("tasks.edit", &json!({"task": task, "container": container}));
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_SETUP_SCRIPT", "echo -n by-binding > made");
    assert_eq!(pod.run(), 0);
    assert_eq!(server.output(&task), "by-binding\n");
}

#[test]
fn the_end_of_a_run_is_not_reported_for_one_that_began_after_it() {
    let server = Server::start();
    let source =
        "import os, time\nopen('began', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)\n";
    let task = server.script("superseded", source);
    let pod = Pod::parked(&server, &task);
    pod.prepare();
    let _uplink = pod.uplink();
    let mut run = pod.start();
    pod.wait_for_file("began");
    server.call("tasks.reset", &json!({"task": task, "force": true}));
    let queue = server.queue("again");
    server.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
    server.call(
        "tasks.edit_runtime",
        &json!({"task": task, "add_or_update": {"_trainyard_attempt": "another"}}),
    );
    server.call("tasks.started", &json!({"task": task}));
    std::fs::write(pod.path("root/code/go"), "").unwrap();
    assert_eq!(run.end(60), 0);
    assert_eq!(server.get(&task)["status"], "in_progress");
}
