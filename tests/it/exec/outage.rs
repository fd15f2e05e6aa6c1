//! A server that is away changes nothing of a run but the delay.
//!
//! `TRAINYARD_AWAY_SECONDS` is for how long it is (25; the long form has 900).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::pod::Pod;
use super::proxy::{Fate, Proxy};
use super::server::Server;
use crate::long;

fn seconds() -> u64 {
    long::size("TRAINYARD_AWAY_SECONDS", 25)
}

/// The way to a server that is away for so many seconds, from the first request on after `sign` was made.
fn interrupted(server: &Server, sign: PathBuf, seconds: u64) -> Proxy {
    let mut back = None;
    Proxy::start(&server.url, move |_| {
        if !sign.exists() {
            return Fate::Pass;
        }
        let back = *back.get_or_insert_with(|| Instant::now() + Duration::from_secs(seconds));
        if Instant::now() < back {
            Fate::Unavailable
        } else {
            Fate::Pass
        }
    })
}

/// Runs the script, which makes the file `away`, on such a way; what the server has of its log.
fn run(source: &str) -> String {
    let seconds = seconds();
    let server = Server::start();
    let task = server.script("away", source);
    let mut pod = Pod::parked(&server, &task);
    let proxy = interrupted(&server, pod.path("root/code/away"), seconds);
    pod.api.clone_from(&proxy.url);
    pod.prepare();
    let mut uplink = pod.uplink();
    let code = pod.start().end(seconds + 120);
    assert_eq!(code, 0, "{}", pod.stream("task.stderr"));
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(60), 0);
    assert_eq!(server.get(&task)["status"], "completed");
    assert_eq!(pod.termination()["reported"], true);
    server.log(&task)
}

#[test]
fn a_server_that_is_away_when_the_script_ends_gets_all_of_it_later() {
    let source = "for n in range(3000): print('line', n)\n\
        open('away', 'w').close()\nprint('the end')\n";
    let lines = (0..3000).map(|n| format!("line {n}\n"));
    let wanted: String = lines.chain(["the end\n".to_owned()]).collect();
    assert!(run(source) == wanted, "each line once and in order");
}

#[test]
fn a_script_goes_on_at_its_pace_while_the_server_is_away() {
    // Some seconds before and some after.
    let ticks = (seconds() + 6) * 10;
    let source = format!(
        "import time\nbegun, late = time.time(), 0\nfor n in range({ticks}):\n\
         \x20   if n == 20: open('away', 'w').close()\n\
         \x20   time.sleep(max(0, begun + n * 0.1 - time.time()))\n\
         \x20   before = time.time(); print('tick', n, flush=True); late = max(late, time.time() - before)\n\
         print('late', late)\n"
    );
    let log = run(&source);
    let (log, late) = log.rsplit_once("late ").expect("the script has told");
    let wanted: Vec<String> = (0..ticks).map(|n| format!("tick {n}\n")).collect();
    let wanted = wanted.concat();
    assert!(log == wanted, "each line once and in order: {log}");
    let late: f64 = late.trim().parse().expect("a number");
    println!("the longest print took {late:.3} s");
    // One that waited for the server would wait for most of the time that it is away, which is 25 s at least.
    assert!(late < 18.0, "a print waited {late} s");
}
