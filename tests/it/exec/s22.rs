//! S22: whatever is killed and lost at random moments, the server's text is what was written: byte for byte after the
//! rule for carriage returns, in order, nothing doubled.
//!
//! A run is one pod whose script and child write 10,000 lines a second; uplink and child are killed again and again,
//! and then the script, process 1 or all of the container. Three judges, none of which believes another:
//!
//! ```text
//! follower   copies the spool while it grows; its bytes, folded by a rule of this test's own, are the server's text
//! numbers    each writer numbers its lines; on the server they go 0, 1, 2, … with none missing, doubled or swapped
//! receipts   each writer notes what it has written once the kernel has taken it; no less is on the server
//! ```
//!
//! `TRAINYARD_KILLS` is how many kills there are (50; the long form has 1,000), `TRAINYARD_KILLS_SEED` repeats a run.

pub mod judge;
mod pod;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::judge::Follower;
use self::pod::{Contained, Kill};
use super::pod::Pod;
use super::proxy::{Fate, Proxy};
use super::server::Server;
use crate::long;

/// Kills of the form that runs each time.
const KILLS: usize = 50;
/// Runs side by side; each is a pod of three processes, a script and its child.
const SIDE_BY_SIDE: usize = 2;
/// Most time that a pod may take from its last kill to the end of its sidecar: a few retries, one read back.
const DRAIN: u64 = 120;

/// So many runs may be missed by the judge, who stands still when the machine does.
const MISSED: usize = 10;

const WRITER: &str = include_str!("s22/writer.py");

/// What the runs did so far.
#[derive(Default)]
pub struct Tally {
    kills: BTreeMap<&'static str, usize>,
    runs: usize,
    /// Runs that nobody could judge.
    missed: usize,
    bytes: usize,
    lines: usize,
    /// What is wrong with the logs, with all that it takes to see it again.
    pub differences: Vec<String>,
}

impl Tally {
    pub fn kills(&self) -> usize {
        self.kills.values().sum()
    }
}

#[test]
fn s22_random_kills_lose_double_and_swap_nothing() {
    let tally = random_kills(Path::new(env!("CARGO_BIN_EXE_trainyard")));
    assert!(tally.differences.is_empty(), "{:#?}", tally.differences);
}

/// Runs pods of this program until as many of their processes are killed as `TRAINYARD_KILLS` says.
pub fn random_kills(program: &Path) -> Tally {
    let goal = long::size("TRAINYARD_KILLS", KILLS);
    let seed: usize = long::size(
        "TRAINYARD_KILLS_SEED",
        rand::rng().random_range(0..1_000_000),
    );
    println!("seed {seed}, {goal} kills");
    let begun = Instant::now();
    let tally = Mutex::new(Tally::default());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let server = Server::start();
                while tally.lock().unwrap().kills() < goal {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    one_run(&server, program, seed, run, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} kills {:?} in {} runs, {} lines, {:.1} MB, {:.0} s: {} differences",
        tally.kills(),
        tally.kills,
        tally.runs,
        tally.lines,
        tally.bytes as f64 / 1e6,
        begun.elapsed().as_secs_f64(),
        tally.differences.len()
    );
    tally
}

/// One pod from its start to its end; what is wrong is noted, so that one seed shows all that it finds.
fn one_run(server: &Server, program: &Path, seed: usize, run: usize, tally: &Mutex<Tally>) {
    let mut draw = StdRng::seed_from_u64(((seed as u64) << 24) + run as u64);
    let last = Kill::LAST[draw.random_range(0..Kill::LAST.len())];
    let big = run % 5 == 2;
    let settings = format!(
        "SEED = {}\nBIG = {}\n",
        draw.random::<u32>(),
        if big { "True" } else { "False" }
    );
    let task = server.script(&format!("run {run}"), &(settings + WRITER));
    let mut pod = Pod::parked(server, &task);
    program.clone_into(&mut pod.program);
    // Longer than any drain: what is left at its end would be lost with the pod.
    pod.grace = 100;
    pod.api = unreliable(server, draw.random()).url;
    pod.prepare();
    let follower = Follower::start(&pod);
    let mut contained = Contained::start(&pod);
    contained.until_writing();
    let mut kills: Vec<Kill> = Vec::new();
    for _ in 0..draw.random_range(3..6) {
        pause(&mut draw, 30, 500);
        let kill = if draw.random_ratio(2, 3) {
            Kill::Uplink
        } else {
            Kill::Child
        };
        kills.extend(contained.kill(kill));
        if kill == Kill::Uplink {
            // Kubernetes takes its time to start a container again.
            pause(&mut draw, 0, 300);
            contained.start_uplink();
        }
    }
    pause(&mut draw, 30, 500);
    kills.extend(contained.kill(last));
    // The sidecar may die of the same cause, a moment before or after.
    if draw.random_ratio(1, 3) {
        kills.extend(contained.kill(Kill::Uplink));
        pause(&mut draw, 0, 300);
        contained.start_uplink();
    }
    contained.until_over(DRAIN);
    pause(&mut draw, 0, 1500);
    let drained = contained.stop_uplink(DRAIN);
    let Some(written) = follower.finish() else {
        println!("run {run}: the follower was too slow");
        let mut tally = tally.lock().unwrap();
        tally.missed += 1;
        assert!(tally.missed <= MISSED, "the follower is always too slow");
        return;
    };
    let log = server.log(&task);
    let mut wrong = judge::judge(&written, &log, &judge::receipts(&pod));
    if drained != 0 {
        wrong.push(format!(
            "the uplink ended with {drained}: {}",
            pod.stream("uplink.stderr")
        ));
    }
    let mut tally = tally.lock().unwrap();
    tally.runs += 1;
    tally.bytes += written.len();
    tally.lines += log.lines().count();
    for kill in &kills {
        *tally.kills.entry(kill.name()).or_default() += 1;
    }
    let about = format!("seed {seed}, run {run}, big {big}, {kills:?}");
    tally
        .differences
        .extend(wrong.into_iter().map(|what| format!("{about}: {what}")));
}

fn pause(draw: &mut StdRng, least: u64, most: u64) {
    thread::sleep(Duration::from_millis(draw.random_range(least..most)));
}

/// A way to the server on which events and questions about them are lost at random.
fn unreliable(server: &Server, seed: u64) -> Proxy {
    let mut draw = StdRng::seed_from_u64(seed);
    Proxy::start(&server.url, move |action| {
        if !action.starts_with("events.") {
            return Fate::Pass;
        }
        match draw.random_range(0..100) {
            0..6 => Fate::LoseAnswer,
            6..9 => Fate::LoseRequest,
            9..12 => Fate::Unavailable,
            12..15 => Fate::Late,
            _ => Fate::Pass,
        }
    })
}
