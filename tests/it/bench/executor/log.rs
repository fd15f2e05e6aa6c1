//! How many lines a second reach the server, how soon, what that costs the script, and what is lost when processes are
//! killed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::{at_least, figure};
use super::rig::{Agent, Ours, Place, Runner};
use super::{compare, times};
use crate::clock::now;
use crate::e2e::glue::Packages;
use crate::exec::s22::random_kills;
use crate::exec::server::wait;

/// Lines of the burst whose way to the server is timed.
const BURST: usize = 1_000_000;
/// Seconds for which a script prints 100,000 lines a second between its own work.
const STEADILY: usize = 2;
/// How often it is compared whether that script is slowed down, by four runs each time.
const COMPARED: usize = 7;
/// Lines whose way to the server is timed one by one, five a second.
const DELAYED: usize = 50;

/// A script that prints all lines at once, and one that prints a thousand between stretches of work of its own, together
/// 100,000 a second on a core of this machine. Both note begin, end, and for how long they waited for a core.
fn printing(note: &Path, steadily: bool) -> String {
    let body = if steadily {
        format!(
            "def work():\n    return sum(range(20000))\n\
             def thousand(n):\n    for m in range(1000):\n        print('line', n, m, 'of a log, loss 0.25', file=out)\n\
             def tick(rounds):\n    for _ in range(rounds):\n        work()\n\
             one = time.process_time(); tick(100); one = (time.process_time() - one) / 100\n\
             text = time.process_time(); [thousand(n) for n in range(20)]; text = (time.process_time() - text) / 20\n\
             rounds = int(os.environ.get('ROUNDS') or max(1, (0.01 - text) / one))\n\
             begin()\nfor n in range({}):\n    thousand(n)\n    tick(rounds)\n",
            STEADILY * 100
        )
    } else {
        format!(
            "begin()\nfor n in range({BURST}):\n    print('line', n, 'of a log, loss 0.25', file=out)\n"
        )
    };
    format!(
        "import os, time\nout = open(1, 'w', buffering=1 << 16, closefd=False)\n\
         def waited():\n    return int(open('/proc/self/schedstat').read().split()[1]) / 1e9\n\
         def begin():\n    global begun, before\n    begun, before = time.time(), waited()\n\
         rounds = 0\n{body}out.flush()\n\
         open({:?}, 'w').write(f'{{begun}} {{time.time()}} {{waited() - before}} {{rounds}}')\n",
        note.display().to_string()
    )
}

/// What such a script has noted.
struct Printed {
    begun: f64,
    ended: f64,
    waited: f64,
    rounds: f64,
}

impl Printed {
    /// Reads the note, which is then gone.
    fn take(note: &Path) -> Self {
        let text = fs::read_to_string(note).expect("the script has noted its times");
        fs::remove_file(note).expect("the note is removed");
        let numbers: Vec<f64> = text
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let [begun, ended, waited, rounds] = numbers[..] else {
            panic!("four numbers in {text}")
        };
        Self {
            begun,
            ended,
            waited,
            rounds,
        }
    }

    fn seconds(&self) -> f64 {
        self.ended - self.begun
    }

    /// Without its waits for a free core.
    fn own(&self) -> f64 {
        self.seconds() - self.waited
    }
}

/// The steady script with nobody who reads what it prints; `rounds` as an earlier run has found them.
fn alone(folder: &Path, rounds: Option<f64>) -> Printed {
    let note = folder.join("took");
    let script = folder.join("script.py");
    fs::write(&script, printing(&note, true)).expect("script is written");
    let out = fs::File::create(folder.join("out")).expect("a file");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(&script).stdout(out).stdin(Stdio::null());
    if let Some(rounds) = rounds {
        command.env("ROUNDS", rounds.to_string());
    }
    assert!(command.status().expect("python3 runs").success());
    Printed::take(&note)
}

/// By how many percent these have taken longer than those.
fn longer(these: &[Printed], those: &[Printed], time: fn(&Printed) -> f64) -> f64 {
    let sum = |all: &[Printed]| all.iter().map(time).sum::<f64>();
    (sum(these) / sum(those) - 1.0) * 100.0
}

/// Seconds from the print of each line to when the server shows it.
fn delays(place: &Place, runner: &impl Runner) -> Vec<f64> {
    let source = format!(
        "import time\nfor n in range({DELAYED}):\n    print('printed', time.time(), flush=True)\n    time.sleep(0.2)\n"
    );
    let run = runner.start(&place.task(&source, ""));
    let mut delays: Vec<f64> = Vec::new();
    wait("all lines are on the server", 120, || {
        let log = place.server.log(&run.task);
        let seen = now();
        let printed = log
            .lines()
            .filter_map(|line| line.strip_prefix("printed ")?.parse::<f64>().ok());
        let new: Vec<f64> = printed.skip(delays.len()).collect();
        delays.extend(new.iter().map(|printed| seen - printed));
        (delays.len() >= DELAYED).then_some(())
    });
    run.end(place, 60);
    delays
}

#[test]
fn delay_of_each_line() {
    let place = Place::find();
    let mine = delays(&place, &Ours::new(&place));
    figure(
        "from a line's print to the server, each of 50 lines",
        "s",
        1.0,
        &mine,
    );
    let slowest = mine.iter().copied().fold(0.0, f64::max);
    figure(
        "from a line's print to the server, the slowest of 50 lines",
        "s",
        1.0,
        &[slowest],
    );
    let theirs = delays(&place, &Agent::new(&place, Packages::Skip));
    compare(
        "from a line's print to the server, each of 50 lines",
        "s",
        &mine,
        &theirs,
        None,
    );
}

#[test]
fn log_throughput() {
    let place = Place::find();
    let folder = tempfile::tempdir().expect("temp folder");
    let note = folder.path().join("took");
    let ours = Ours::new(&place);
    let mine = times(3, || {
        let run = ours.start(&place.task(&printing(&note, false), ""));
        let (ack, log) = (ours.spool().join("ack.json"), ours.spool().join("log"));
        let written = wait("all is printed", 120, || {
            note.exists()
                .then(|| fs::metadata(&log).expect("the spool").len())
        });
        let at = wait("all is on the server", 300, || {
            let ack: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(&ack).ok()?).ok()?;
            (ack["at"]["offset"].as_u64()? >= written).then(now)
        });
        run.end(&place, 120);
        let printed = Printed::take(&note);
        BURST as f64 / (at - printed.begun)
    });
    at_least(
        "log lines per second from script to server",
        "/s",
        100_000.0,
        &mine,
    );
    let agent = Agent::new(&place, Packages::Skip);
    let theirs = times(3, || {
        let run = agent.start(&place.task(&printing(&note, false), ""));
        run.end(&place, 600);
        let ended = now();
        let printed = Printed::take(&note);
        BURST as f64 / (ended - printed.begun)
    });
    compare(
        "log lines per second from script to server",
        "/s",
        &mine,
        &theirs,
        None,
    );
}

#[test]
fn script_slowed_down_at_a_hundred_thousand_lines_a_second() {
    let place = Place::find();
    let folder = tempfile::tempdir().expect("temp folder");
    let note = folder.path().join("took");
    let ours = Ours::new(&place);
    let rounds = alone(folder.path(), None).rounds;
    let in_a_pod = || {
        let run = ours.start_with(
            &place.task(&printing(&note, true), ""),
            &[("ROUNDS", &rounds.to_string())],
        );
        run.end(&place, 300);
        Printed::take(&note)
    };
    let (mut by_itself, mut by_clock, mut rate) = (Vec::new(), Vec::new(), Vec::new());
    let mut own = Vec::new();
    for _ in 0..COMPARED {
        // Alone, pod, pod, alone: a machine that grows slower or faster meanwhile favours neither.
        let first = alone(folder.path(), Some(rounds));
        let pods = [in_a_pod(), in_a_pod()];
        let files = [first, alone(folder.path(), Some(rounds))];
        by_itself.push(longer(&pods, &files, Printed::own));
        by_clock.push(longer(&pods, &files, Printed::seconds));
        own.extend(pods.iter().map(Printed::own));
        rate.extend(
            pods.iter()
                .map(|pod| (STEADILY * 100_000) as f64 / pod.seconds()),
        );
    }
    at_least(
        "lines per second of the script that is watched for being slowed down",
        "/s",
        0.0,
        &rate,
    );
    figure(
        "script slowed down, waits for a free core left out",
        "%",
        2.0,
        &by_itself,
    );
    figure(
        "script slowed down, by the clock on this machine's cores",
        "%",
        2.0,
        &by_clock,
    );
    let agent = Agent::new(&place, Packages::Skip);
    let theirs = times(3, || {
        let source = format!(
            "import os\nos.environ['ROUNDS'] = '{rounds}'\n{}",
            printing(&note, true)
        );
        agent.start(&place.task(&source, "")).end(&place, 600);
        Printed::take(&note).own()
    });
    compare(
        "a script at 100,000 lines a second, from its first line to its last, waits for a free core left out",
        "s",
        &own,
        &theirs,
        None,
    );
}

#[test]
fn logs_that_differ_after_random_kills() {
    let place = Place::find();
    let tally = random_kills(&place.program);
    for difference in &tally.differences {
        println!("{difference}");
    }
    figure(
        &format!(
            "differences between logs and what was written, {} random kills at 10,000 lines/s",
            tally.kills()
        ),
        "",
        0.0,
        &[tally.differences.len() as f64],
    );
}
