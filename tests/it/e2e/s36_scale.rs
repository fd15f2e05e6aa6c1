//! S36: many live Jobs on simulated nodes. `TRAINYARD_S36_TASKS` says how many; 1,000 and 10,000 are the long forms. The
//! figures themselves are benches (`bench::controller`).

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kwok::Kwok;
use super::played::{Part, Player};
use super::world::{PATIENCE, World, wait};
use crate::{long, process, times};

/// The stated figure, of a restart with far more Jobs; five times of it are allowed, on a machine that others use too.
const DECIDED: Duration = Duration::from_secs(5);
/// What the controller may occupy with up to so many live Jobs, in MiB.
const MEMORY: [(usize, f64); 2] = [(1_000, 32.0), (10_000, 64.0)];
/// For one task in so many the API server may fail to do a write, or be too late with its answer.
const ONE_IN: u32 = 5;
/// Verbs of requests that write.
const WRITES: [&str; 4] = ["create", "patch", "update", "delete"];

/// Creates and enqueues so many tasks for the queue `gpu`.
pub fn enqueue(world: &World, count: usize) -> Vec<String> {
    let queue = world.queue_id("gpu");
    (0..count)
        .map(|i| {
            let task = world.create(&format!("live {i}"), "print('never')\n", &json!({}));
            world.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
            task
        })
        .collect()
}

/// How many Jobs there are, and how many pods that run.
pub fn live(world: &World) -> (usize, usize) {
    (
        world.count("jobs", ""),
        world.count("pods", "status.phase=Running"),
    )
}

/// Resident memory of the controller, in MiB.
pub fn resident(world: &mut World) -> f64 {
    process::resident(world.controller().id())
}

/// Seconds of processor time that the controller has used.
pub fn processor(world: &mut World) -> f64 {
    let pid = world.controller().id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the controller lives");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks are a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Until a task that is enqueued now has its Job.
pub fn until_taken(world: &World) -> Duration {
    let begun = Instant::now();
    let task = enqueue(world, 1).remove(0);
    wait("the Job of a new task", 120, || {
        (!world.job_of(&task).is_null()).then_some(())
    });
    begun.elapsed()
}

/// How many requests of this kind the controller has sent to the API server since it was started; an empty word stands
/// for any.
fn sent(world: &World, resource: &str, verb: &str, outcome: &str) -> f64 {
    let words: Vec<String> = [("resource", resource), ("verb", verb), ("outcome", outcome)]
        .iter()
        .filter(|(_, word)| !word.is_empty())
        .map(|(label, word)| format!("{label}=\"{word}\""))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    world.metric("trainyard_kubernetes_requests_total", &words)
}

/// How often the controller has begun to watch objects of this kind since it was started: once for all, and once for each
/// watch that ended, whoever ended it.
pub fn watches(world: &World, resource: &str) -> f64 {
    sent(world, resource, "watch", "")
}

/// Requests to the API server per live Job: writes, and reads.
pub fn requests_per_task(world: &World, tasks: usize) -> (f64, f64) {
    let writes: f64 = WRITES
        .iter()
        .map(|verb| sent(world, "jobs", verb, ""))
        .sum();
    // Lists of all are of the process, not of a task.
    let reads = sent(world, "jobs", "get", "") + sent(world, "pods", "get", "");
    let count = f64::from(u32::try_from(tasks).expect("a count"));
    (writes / count, reads / count)
}

/// What the controller has asked of the API server about Jobs and pods since it was started. Of Events nothing is
/// counted: how many are read and written depends on how long pods wait.
#[derive(Debug)]
struct Asked {
    created: u32,
    patched: u32,
    /// Patches that the API server would not do, as for a change that was made meanwhile.
    refused: u32,
    /// Writes that it could not do, or answered too late (the Job that is created then is there already): on a machine
    /// that others use too it may have too much to do.
    failed: u32,
    other_writes: u32,
    jobs_read: u32,
    pods_read: u32,
    /// Lists of all Jobs or pods, as each watch begins with one.
    lists: u32,
}

impl Asked {
    fn of(world: &World) -> Self {
        let count = |resource: &str, verbs: &[&str], outcome: &str| -> u32 {
            let all = verbs
                .iter()
                .map(|verb| sent(world, resource, verb, outcome));
            let all: f64 = all.sum();
            // The sum of none is -0.
            format!("{:.0}", all.abs()).parse().expect("a count")
        };
        // Sums after their parts: nothing is missing from them.
        let (created, patched) = (
            count("jobs", &["create"], "ok"),
            count("jobs", &["patch"], "ok"),
        );
        let done = count("jobs", &WRITES, "ok");
        let would_not = ["conflict", "refused", "not-found"];
        let refused = would_not.map(|outcome| count("jobs", &["patch"], outcome));
        let refused: u32 = refused.iter().sum();
        let all = count("jobs", &WRITES, "");
        // A pod is created as a dry run of the template alone.
        let of_pods = count("pods", &WRITES[1..], "");
        Self {
            created,
            patched,
            refused,
            failed: all - done - refused,
            other_writes: done - created - patched + of_pods,
            jobs_read: count("jobs", &["get"], ""),
            pods_read: count("pods", &["get"], "") + count("pods/log", &["get"], ""),
            lists: count("jobs", &["list"], "") + count("pods", &["list"], ""),
        }
    }

    /// So many Jobs were created and so often one was patched, and nothing more was asked about `tasks` tasks.
    fn assert(&self, (created, patched): (u32, u32), tasks: u32) {
        assert!(
            self.created <= created && self.patched <= patched,
            "{self:?}"
        );
        assert_eq!((self.other_writes, self.pods_read), (0, 0), "{self:?}");
        // A write whose answer was lost may have been carried out.
        let all = self.created + self.patched + self.failed;
        assert!(all >= created + patched, "{self:?}");
        assert!(self.failed <= tasks / ONE_IN, "{self:?}");
        // No patch is in vain, though the Job's own controller writes its status the moment that it sees it, and nothing is
        // read, unless after a failure.
        assert!(
            self.refused <= self.failed && self.jobs_read <= self.failed,
            "{self:?}"
        );
        assert!(self.lists <= tasks / 4, "{self:?}");
    }
}

pub fn world(mut world: World, nodes: usize) -> (World, Kwok) {
    let kwok = Kwok::start(&world, nodes);
    world.start_controller();
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &kwok.binding_patch());
    world.until_ready("gpu");
    (world, kwok)
}

/// Waits for some passes: what was still to be done would be done in them.
fn until_passed(world: &World) {
    let passes = || world.metric("trainyard_passes_total", &[]);
    let before = passes();
    wait("a few more passes", 30, || {
        (passes() > before + 2.5).then_some(())
    });
}

/// What the controller occupies with so many live Jobs is as stated.
fn assert_small(world: &mut World, jobs: usize) {
    let memory = resident(world);
    println!("{jobs} live Jobs: {memory:.1} MiB");
    let stated = MEMORY.iter().find(|(most, _)| jobs <= *most);
    let (_, most) = stated.expect("a figure is stated for so many Jobs");
    assert!(memory <= *most, "{memory:.1} MiB with {jobs} live Jobs");
}

#[test]
fn s36_many_live_jobs_cost_few_requests_and_a_restart_finds_them() {
    let number = long::size("TRAINYARD_S36_TASKS", 60);
    let tasks = u32::try_from(number).expect("a count");
    let (mut world, _kwok) = world(World::new("s36"), number / 1500 + 2);
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| Part::Held);
    enqueue(&world, number);
    // What there is for many is so much for each on top.
    let patience = |seconds: u64| seconds + u64::from(tasks / 5);
    wait("all run", patience(180), || {
        (live(&world) == (number, number) && player.runs().len() == number).then_some(())
    });
    until_passed(&world);
    assert_small(&mut world, number);
    let begun = Asked::of(&world);
    println!("until all run: {begun:?}");
    begun.assert((tasks, tasks), tasks);
    let running: Value = world.get(&["queuebinding", "gpu"]);
    println!("status: {}", running["status"]["queues"]);
    world.kill_controller();
    world.start_controller();
    let taken = until_taken(&world);
    let decided = "restart to the first Job";
    times::told("S36", decided, taken.as_secs_f64(), DECIDED.as_secs_f64());
    assert!(taken < DECIDED * 5 * PATIENCE, "{taken:?}");
    assert_eq!(live(&world).0, number + 1, "no Job was made twice");

    // The end of a task, which its pod reports, costs the one patch that stores it in the Job.
    wait("the new one runs, too", 120, || {
        (player.runs().len() == number + 1).then_some(())
    });
    player.release();
    let of_jobs = f64::from(tasks + 1);
    wait("each Job is settled", patience(120), || {
        let ended = world.metric("trainyard_ended_tasks_total", &["binding"]);
        (ended > of_jobs - 0.5).then_some(())
    });
    until_passed(&world);
    let ended = Asked::of(&world);
    println!("from the restart to the end: {ended:?}");
    ended.assert((1, 1 + tasks + 1), tasks);
    let jobs = world.jobs();
    assert_eq!(jobs.len(), number + 1);
    for job in &jobs {
        assert_eq!(job["metadata"]["labels"]["trainyard.dev/state"], "settled");
        assert!(job["spec"]["ttlSecondsAfterFinished"].is_u64(), "{job:#}");
    }
}
