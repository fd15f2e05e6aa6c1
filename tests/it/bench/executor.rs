//! The executor's speed and size, each figure beside `clearml-agent` 3.0.3 on the same tasks in the same run.
//!
//! Runs without a cluster: what is measured begins with the start of a container's process 1. `bench::incumbent` measures
//! the way there.

mod large;
mod log;
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::json;

use self::rig::{Agent, Ours, Place, Run, Runner, counting};
use super::{compare, figure};
use crate::clock::now;
use crate::e2e::glue::Packages;
use crate::exec::fence::requests_before_user_code;
use crate::exec::proxy::Proxy;
use crate::exec::server::wait;
use crate::process::resident;

/// Forty pinned packages, by lines.
const FORTY: &str = include_str!("../../wheels/forty.txt");

/// Python that notes when its first line was reached, where the rig finds it whatever the working directory is.
fn noting(folder: &Path, then: &str) -> (PathBuf, String) {
    let note = folder.join("at");
    let source = format!(
        "import time\nnow = time.time()\nopen({:?}, 'w').write(repr(now))\nprint('first line', flush=True)\n{then}",
        note.display().to_string()
    );
    (note, source)
}

fn noted(note: &Path) -> f64 {
    fs::read_to_string(note)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("the script has written {}", note.display()))
}

/// Seconds from the start of `runner`'s program to the first line of a task that needs these packages.
fn first_line(place: &Place, runner: &impl Runner, requirements: &str) -> f64 {
    let folder = tempfile::tempdir().expect("temp folder");
    let (note, source) = noting(folder.path(), "");
    let run = runner.start(&place.task(&source, requirements));
    let begun = run.begun;
    run.end(place, 600);
    noted(&note) - begun
}

fn times(count: usize, mut one: impl FnMut() -> f64) -> Vec<f64> {
    (0..count).map(|_| one()).collect()
}

#[test]
fn container_start_to_first_line() {
    let place = Place::find();
    let ours = Ours::new(&place);
    first_line(&place, &ours, "");
    let mut mine = times(9, || first_line(&place, &ours, ""));
    for (packages, count, name, goal) in [
        (Packages::Skip, 5, "its environment step switched off", 7.0),
        (Packages::Pip, 5, "as it is by default (pip)", 15.0),
        (Packages::Uv, 5, "with uv", 15.0),
    ] {
        let agent = Agent::new(&place, packages);
        first_line(&place, &agent, "");
        let theirs = times(count, || first_line(&place, &agent, ""));
        let beside = times(5, || first_line(&place, &ours, ""));
        compare(
            &format!("container start to first line, nothing to install; incumbent {name}"),
            "s",
            &beside,
            &theirs,
            Some(goal),
        );
        mine.extend(beside);
    }
    figure(
        "container start to first line, nothing to install",
        "s",
        0.3,
        &mine,
    );
}

#[test]
fn environment_of_forty_packages() {
    let place = Place::find();
    assert_eq!(FORTY.lines().filter(|line| line.contains("==")).count(), 40);
    let ours = Ours::new(&place);
    // The first fills the download cache; then each of three is made anew from it; then each is found made.
    first_line(&place, &ours, FORTY);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        place.forget_environments();
        cold.push(first_line(&place, &ours, FORTY));
        warm.extend(times(3, || first_line(&place, &ours, FORTY)));
    }
    figure(
        "warm environment of 40 packages to first line",
        "s",
        1.0,
        &warm,
    );
    for (packages, name, goal) in [
        (Packages::Pip, "pip", Some(5.0)),
        (Packages::Uv, "uv", None),
    ] {
        let agent = Agent::new(&place, packages);
        first_line(&place, &agent, FORTY);
        let (mut their_cold, mut their_warm) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            agent.forget_environments();
            their_cold.push(first_line(&place, &agent, FORTY));
            their_warm.push(first_line(&place, &agent, FORTY));
        }
        compare(
            &format!("40 packages from a warm download cache to first line; incumbent with {name}"),
            "s",
            &cold,
            &their_cold,
            goal,
        );
        compare(
            &format!(
                "40 packages, the second task that needs them, to first line; incumbent with {name}"
            ),
            "s",
            &warm,
            &their_warm,
            None,
        );
    }
}

/// Nanoseconds on a core so far, all threads together.
fn on_core(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    threads
        .flatten()
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

const STEADY: &str = "for n in range(3000):\n    print(n, 'a line as trainings print them, loss 0.25', flush=True)\n    time.sleep(0.01)\n";

/// Memory, and percent of a core, of each of these while a script prints 100 lines a second.
fn load(pids: &[i32]) -> Vec<(Vec<f64>, Vec<f64>)> {
    let mut all: Vec<(Vec<f64>, Vec<f64>)> =
        pids.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for _ in 0..5 {
        let before: Vec<u64> = pids.iter().map(|pid| on_core(*pid)).collect();
        let begun = now();
        thread::sleep(Duration::from_secs(4));
        let seconds = now() - begun;
        for (index, pid) in pids.iter().enumerate() {
            let spent = (on_core(*pid) - before[index]) as f64 / 1e9;
            all[index].0.push(resident(*pid));
            all[index].1.push(spent / seconds * 100.0);
        }
    }
    all
}

#[test]
fn memory_and_cpu_at_a_hundred_lines_a_second() {
    let place = Place::find();
    let measured = |runner: &dyn Runner| {
        let folder = tempfile::tempdir().expect("temp folder");
        let (note, source) = noting(folder.path(), STEADY);
        let run = runner.start(&place.task(&source, ""));
        wait("the first line", 120, || note.exists().then_some(()));
        thread::sleep(Duration::from_secs(4));
        let mut pids = vec![run.main.id()];
        pids.extend(run.uplink.as_ref().map(crate::exec::server::Proc::id));
        let values = load(&pids);
        run.end(&place, 120);
        values
    };
    let mine = measured(&Ours::new(&place));
    let theirs = measured(&Agent::new(&place, Packages::Skip));
    let [(memory, cpu), (uplink_memory, uplink_cpu)] = &mine[..] else {
        panic!("two of ours were measured")
    };
    figure("executor resident memory, 100 lines/s", "MiB", 15.0, memory);
    figure("executor, share of a core at 100 lines/s", "%", 0.5, cpu);
    figure(
        "sidecar resident memory, 100 lines/s",
        "MiB",
        96.0,
        uplink_memory,
    );
    figure(
        "sidecar, share of a core at 100 lines/s",
        "%",
        0.5,
        uplink_cpu,
    );
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<f64>>();
    compare(
        "resident memory, 100 lines/s (ours with sidecar)",
        "MiB",
        &sum(memory, uplink_memory),
        &theirs[0].0,
        None,
    );
    compare(
        "share of a core at 100 lines/s (ours with sidecar)",
        "%",
        &sum(cpu, uplink_cpu),
        &theirs[0].1,
        None,
    );
}

/// Requests before `first`, and in the minute that begins ten seconds after it.
fn counted(proxy: &Proxy, first: f64) -> (f64, f64) {
    let at = |passed: &crate::exec::proxy::Passed| {
        let since = passed
            .at
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock");
        since.as_secs_f64()
    };
    let all = proxy.passed();
    let before = all.iter().filter(|passed| at(passed) < first).count();
    let minute = first + 10.0..first + 70.0;
    let quiet = all
        .iter()
        .filter(|passed| minute.contains(&at(passed)))
        .count();
    (before as f64, quiet as f64)
}

#[test]
fn requests_before_user_code_and_in_a_quiet_minute() {
    let place = Place::find();
    let folder = tempfile::tempdir().expect("temp folder");
    let (mine, theirs) = (counting(&place), counting(&place));
    let mut notes = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    let ours = Ours::by(&place, &mine.url);
    let agent = Agent::by(&place, Packages::Skip, &theirs.url);
    let both: [(&str, &dyn Runner); 2] = [("ours", &ours), ("theirs", &agent)];
    for (name, runner) in both {
        let folder = folder.path().join(name);
        fs::create_dir(&folder).expect("folder is made");
        let (note, source) = noting(&folder, "time.sleep(75)\n");
        notes.push(note);
        runs.push(runner.start(&place.task(&source, "")));
    }
    for run in runs {
        run.end(&place, 200);
    }
    let (before, quiet) = counted(&mine, noted(&notes[0]));
    let (their_before, their_quiet) = counted(&theirs, noted(&notes[1]));
    figure("requests of a pod before user code", "", 7.0, &[before]);
    let of_task = times(3, || {
        let (all, of_prepare) = requests_before_user_code();
        (all.len() - of_prepare) as f64
    });
    figure(
        "requests of the task's container before user code",
        "",
        5.0,
        &of_task,
    );
    figure("requests in a minute of a quiet run", "", 10.0, &[quiet]);
    compare(
        "requests before user code",
        "",
        &[before],
        &[their_before],
        None,
    );
    compare(
        "requests in a minute of a quiet run",
        "",
        &[quiet],
        &[their_quiet],
        None,
    );
}

/// Seconds from the script's last statement to the task's final status.
fn end_to_completed(place: &Place, runner: &dyn Runner) -> f64 {
    let folder = tempfile::tempdir().expect("temp folder");
    let (note, source) = noting(folder.path(), "time.sleep(1)\n");
    let ended = folder.path().join("ended");
    let last = format!(
        "open({:?}, 'w').write(repr(time.time()))\n",
        ended.display().to_string()
    );
    let run = runner.start(&place.task(&(source + &last), ""));
    wait("the first line", 120, || note.exists().then_some(()));
    let body = json!({"id": [run.task], "only_fields": ["status"]});
    let at = wait("the task is completed", 60, || {
        let found = place.server.call("tasks.get_all", &body);
        (found["tasks"][0]["status"] == "completed").then(now)
    });
    run.end(place, 60);
    at - noted(&ended)
}

#[test]
fn script_end_to_completed() {
    let place = Place::find();
    let (ours, agent) = (Ours::new(&place), Agent::new(&place, Packages::Skip));
    let mine = times(9, || end_to_completed(&place, &ours));
    let theirs = times(5, || end_to_completed(&place, &agent));
    figure("script end to task completed", "s", 0.3, &mine);
    compare("script end to task completed", "s", &mine, &theirs, None);
}
