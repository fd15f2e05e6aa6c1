//! The log on the server equals what was written, whatever is killed or lost on the way.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::pod::{Pod, family};
use super::proxy::{Fate, Proxy};
use super::server::{Proc, Server, wait};
use crate::whole::assert_same;

/// Prints numbered lines; every now and then a pause, so that there are many batches.
fn counting(lines: usize) -> String {
    format!(
        "import time\nfor i in range({lines}):\n    print('line', i)\n    if i % 1000 == 0: time.sleep(0.05)\n\
         print('all written', flush=True)\n"
    )
}

fn counted(lines: usize) -> String {
    (0..lines)
        .map(|n| format!("line {n}\n"))
        .chain(["all written\n".to_owned()])
        .collect()
}

/// Kills a process and all below it.
fn kill_all(process: &Proc) {
    for pid in family(process.id()) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

#[test]
fn what_was_written_is_there_byte_for_byte() {
    let server = Server::start();
    let source = "import sys, time\n\
        w = sys.stdout.buffer.write\n\
        w('é€'.encode()[:4]); sys.stdout.flush(); time.sleep(0.3); w('é€'.encode()[4:] + b'\\n')\n\
        w(b'  0%\\r 50%\\r100%\\nwindows\\r\\n\\x1b[31mred\\x1b[0m\\nbroken \\xff\\n\\n')\n\
        w(b'x' * 10_000_000 + b'\\n')\n\
        w(b'no end')\n";
    let task = server.script("bytes", source);
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 0);
    let wanted = format!(
        "é€\n100%\nwindows\n\u{1b}[31mred\u{1b}[0m\nbroken \u{fffd}\n\n{}\nno end",
        "x".repeat(10_000_000)
    );
    assert_same(&server.log(&task), &wanted);
}

#[test]
fn lines_arrive_while_the_script_runs() {
    let server = Server::start();
    let source = "import time\nprint('first')\nopen('printed', 'w').close()\ntime.sleep(1000)\n";
    let task = server.script("live", source);
    let pod = Pod::parked(&server, &task);
    let (_uplink, mut process) = pod.begun(&["printed"]);
    wait("the line is on the server", 20, || {
        (server.log(&task) == "first\n").then_some(())
    });
    kill_all(&process);
    process.end(10);
}

/// The uplink starts after the init container has ended, and may be long in starting.
#[test]
fn s21_lines_of_the_init_container_keep_the_time_at_which_they_were_written() {
    let server = Server::start();
    let task = server.script("stamped", "print('first')\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_NOTES", "one that is told early\nand another");
    let begun = jiff::Timestamp::now().as_millisecond();
    pod.prepare();
    let prepared = jiff::Timestamp::now().as_millisecond();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pod.run_prepared(), 0);
    let events = server.events(&task);
    let text: String = events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(
        text,
        "trainyard: one that is told early\ntrainyard: and another\nfirst\n"
    );
    for event in &events {
        let early = (begun..=prepared + 2).contains(&event.time);
        assert_eq!(early, event.text.starts_with("trainyard: "), "{events:#?}");
    }
}

/// How much later than six lines were written the time is that their events have, where the uplink comes after them all.
fn late_where_an_uplink_finds_them() -> Vec<f64> {
    let server = Server::start();
    let source = "import time\nfor n in range(6): print(time.time()); time.sleep(1)\n\
        open('printed', 'w').close()\ntime.sleep(3)\n";
    let task = server.script("found", source);
    let pod = Pod::parked(&server, &task);
    pod.prepare();
    let mut process = pod.start();
    pod.wait_for_file("printed");
    let mut uplink = pod.uplink();
    assert_eq!(process.end(60), 0);
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(30), 0);
    let mut late = Vec::new();
    for event in server.events(&task) {
        for line in event.text.lines() {
            let printed: f64 = line.parse().unwrap();
            late.push(event.time as f64 / 1000.0 - printed);
        }
    }
    assert_eq!(late.len(), 6);
    late
}

#[test]
fn s21_lines_that_an_uplink_finds_keep_the_time_at_which_they_were_written() {
    // Who takes the times may have stood still with the machine: then it is done once more.
    let mut tries = Vec::new();
    for _ in 0..3 {
        let late = late_where_an_uplink_finds_them();
        if late.iter().all(|late| (-0.1..2.5).contains(late)) {
            return;
        }
        tries.push(late);
    }
    panic!("lines have events so many seconds later: {tries:?}");
}

#[test]
fn every_line_written_before_all_processes_were_killed_is_on_the_server() {
    let server = Server::start();
    let source = counting(20_000)
        + "print('unfinished', end='', flush=True)\nopen('done', 'w').close()\ntime.sleep(1000)\n";
    let task = server.script("killed", &source);
    let pod = Pod::parked(&server, &task);
    let (mut uplink, mut process) = pod.begun(&["done"]);
    let processes = family(process.id());
    assert!(processes.len() >= 2, "{processes:?}");
    for pid in processes {
        let _ = kill(pid, Signal::SIGKILL);
    }
    assert_eq!(process.end(10), -9);
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(30), 0);
    assert_same(&server.log(&task), &(counted(20_000) + "unfinished"));
    assert_eq!(
        server.get(&task)["status"],
        "in_progress",
        "the controller settles it"
    );
}

#[test]
fn without_being_told_the_uplink_sends_what_a_killed_process_1_left() {
    let server = Server::start();
    let task = server.script("killed", "print('last', end='', flush=True)\nopen('done', 'w').close()\nimport time; time.sleep(1000)\n");
    let pod = Pod::parked(&server, &task);
    let (_uplink, mut process) = pod.begun(&["done"]);
    kill_all(&process);
    process.end(10);
    wait("the unfinished line is on the server", 20, || {
        (server.log(&task) == "last").then_some(())
    });
}

#[test]
fn an_uplink_killed_again_and_again_loses_and_doubles_nothing() {
    let server = Server::start();
    let task = server.script("uplink killed", &counting(60_000));
    let mut pod = Pod::parked(&server, &task);
    // Answers are lost just before the kill, so that the successor finds a batch of unknown fate.
    let mut count = 0;
    let proxy = Proxy::start(&server.url, move |action| {
        count += usize::from(action == "events.add_batch");
        if action == "events.add_batch" && count % 4 == 0 {
            Fate::LoseAnswer
        } else {
            Fate::Pass
        }
    });
    pod.api = proxy.url.clone();
    pod.prepare();
    let mut process = pod.start();
    for round in 0..8 {
        let mut uplink = pod.uplink();
        std::thread::sleep(Duration::from_millis(250 + 70 * round));
        uplink.signal(Signal::SIGKILL);
        uplink.end(10);
    }
    let mut uplink = pod.uplink();
    assert_eq!(process.end(120), 0, "{}", pod.stream("task.stderr"));
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(60), 0);
    assert_same(&server.log(&task), &counted(60_000));
}

#[test]
fn requests_and_answers_lost_at_random_lose_and_double_nothing() {
    let server = Server::start();
    let task = server.script("unreliable", &counting(30_000));
    let mut pod = Pod::parked(&server, &task);
    let mut count = 0_usize;
    let proxy = Proxy::start(&server.url, move |action| {
        if !action.starts_with("events.") {
            return Fate::Pass;
        }
        count += 1;
        match count % 7 {
            1 => Fate::LoseAnswer,
            3 => Fate::LoseRequest,
            5 => Fate::Unavailable,
            _ => Fate::Pass,
        }
    });
    pod.api = proxy.url.clone();
    assert_eq!(pod.run(), 0);
    assert_same(&server.log(&task), &counted(30_000));
    assert!(proxy.count("events.get_task_log") > 0);
    assert_eq!(server.get(&task)["status"], "completed");
}

#[test]
fn what_was_sent_takes_no_space_on_the_volume() {
    use std::os::unix::fs::MetadataExt;
    let server = Server::start();
    let source = "print('x' * 1000 + '\\n', end='')\n"
        .replace("print", "for _ in range(20_000): print")
        + "open('done', 'w').close()\nimport time; time.sleep(1000)\n";
    let task = server.script("large", &source);
    let pod = Pod::parked(&server, &task);
    let (_uplink, process) = pod.begun(&["done"]);
    wait("space is given back", 60, || {
        let log = std::fs::metadata(pod.path("root/spool/log")).unwrap();
        assert!(log.len() >= 20_020_000);
        (log.blocks() * 512 < 4 << 20).then_some(())
    });
    kill_all(&process);
}

#[test]
fn a_task_that_opens_its_own_output_for_writing_is_followed() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let source = format!(
        "import os, time\nprint('before')\n\
        while not os.path.exists('{}'): time.sleep(0.05)\n\
        time.sleep(0.5)\n\
        with open('/dev/stderr', 'w') as error: error.write('opened anew\\n')\n\
        print('after, and longer than before')\n",
        gate.display()
    );
    let task = server.script("begun anew", &source);
    let pod = Pod::parked(&server, &task);
    // What was not sent yet is lost, as the log says: it opens its output once the first line has arrived.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait("the first line is on the server", 60, || {
                server.output(&task).contains("before").then_some(())
            });
            std::fs::write(&gate, "").unwrap();
        });
        assert_eq!(pod.run(), 0);
    });
    assert_eq!(
        server.output(&task),
        "before\nopened anew\nafter, and longer than before\n"
    );
    assert!(
        server
            .log(&task)
            .contains("the task has overwritten its own output"),
        "{}",
        server.log(&task)
    );
    assert!(
        pod.stream("task.stdout")
            .starts_with("before\nopened anew\nafter"),
        "{}",
        pod.stream("task.stdout")
    );
}
