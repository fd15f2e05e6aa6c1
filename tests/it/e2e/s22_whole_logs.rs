//! S22 on the cluster: what a script has printed is on the server byte for byte, in order and once, where the kernel
//! kills its whole container for memory, and where its pod is evicted.
//!
//! The script records each line in a folder of this machine before it prints it. What the server has is compared with
//! that record by the judge of `exec::s22`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::s9_interruptions::open_folder;
use super::world::{World, wait};
use crate::exec::s22::judge::{folded, judge};
use crate::long;

const WRITER: &str = include_str!("s22/writer.py");
/// Lines before something happens to the script, so that its log is on its way by then.
const BEFORE: usize = 4000;
/// Lines that it writes once its pod is being ended: some seconds of its grace.
const MORE: usize = 5000;
/// MiB that a script takes at a time.
const STEP: usize = 8;
/// Kills for memory at random moments.
const KILLS: usize = 3;

/// A world in which scripts have a place for their records, and that place: each is named after its task.
fn recording(name: &str, resources: &Value, lifecycle: &Value) -> (World, PathBuf) {
    let mut world = World::new(name);
    let folder = open_folder(&world, "record");
    world.start_controller();
    world.queue("gpu");
    let template = json!({"spec": {
        "volumes": [{"name": "record", "hostPath": {"path": folder}}],
        "containers": [{
            "name": "task", "image": world.place.task_image, "resources": resources,
            "volumeMounts": [{"name": "record", "mountPath": "/record"}],
        }],
    }});
    let patch = json!({"lifecycle": lifecycle, "template": template});
    world.bind("gpu", &["gpu"], &patch);
    (world, folder)
}

/// What of its record a script that was killed has printed, by its log: all of it but the last line, of which it may
/// have printed anything from nothing to the whole. Where the log says something else, what it has printed for sure.
fn printed<'r>(recorded: &'r [u8], log: &str) -> &'r [u8] {
    let before_its_end = &recorded[..recorded.len().saturating_sub(1)];
    let end = before_its_end.iter().rposition(|byte| *byte == b'\n');
    let last = end.map_or(0, |at| at + 1);
    let sure = folded(&recorded[..last]);
    let rest = log.strip_prefix(sure.as_str()).unwrap_or_default();
    let mut ends = last..=recorded.len();
    let end = ends.find(|end| folded(&recorded[last..*end]) == rest);
    &recorded[..end.unwrap_or(last)]
}

/// What is wrong with the log of a script that has printed this.
fn faults(printed: &[u8], log: &str) -> Vec<String> {
    let lines = printed.split(|byte| *byte == b'\n').count() - 1;
    judge(
        printed,
        log,
        &BTreeMap::from([("script".to_owned(), lines)]),
    )
}

/// The server has what the script has printed, and no byte more; `printed` says by the log what that is. Gives the log.
fn has_all<'r>(world: &World, task: &str, printed: impl Fn(&str) -> &'r [u8]) -> String {
    let faults = |log: &str| faults(printed(log), log);
    let log = world.output_once(task, |log| faults(log).is_empty());
    let faults = faults(&log);
    assert!(faults.is_empty(), "{faults:#?}");
    log
}

/// A world for scripts that take memory, and the place of their records.
fn limited(name: &str) -> (World, PathBuf) {
    let limit = json!({"limits": {"memory": "256Mi"}});
    recording(name, &limit, &json!({}))
}

/// A task that takes memory after so many lines, so many MiB at a time, until the kernel kills its container.
fn takes_memory(world: &World, after: usize, step: usize) -> String {
    let source = format!("MEMORY_AFTER = {after}\nMEMORY_STEP = {step}\nMORE = 0\n{WRITER}");
    world.run("takes memory", &source, "gpu")
}

/// The log of a task whose container the kernel has killed for memory: all that its script has printed.
fn log_of_killed(world: &World, records: &Path, task: &str) -> String {
    let ended = world.until_ended(task, 60);
    assert_eq!(ended["status"], "failed");
    // Words of the controller: nobody in the container was left to tell.
    let message = ended["status_message"].as_str().unwrap_or_default();
    for words in ["container \"task\" was killed", "256Mi", "OOMKilled"] {
        assert!(message.contains(words), "{words:?} in {message:?}");
    }
    assert_eq!(ended["status_reason"], "trainyard: out-of-memory");
    let recorded = fs::read(records.join(task)).expect("the record is readable");
    has_all(world, task, |log| printed(&recorded, log))
}

#[test]
fn s22_a_container_that_the_kernel_kills_for_memory_has_lost_no_line() {
    let (world, records) = limited("s22memory");
    let task = takes_memory(&world, BEFORE, STEP);
    let log = log_of_killed(&world, &records, &task);
    let first = format!("<script:{BEFORE}>");
    assert!(log.contains(&first), "no line since memory was taken");
}

/// `TRAINYARD_KILLS_SEED` repeats the draws; the moment within a line is the kernel's.
#[test]
fn s22_containers_that_the_kernel_kills_for_memory_at_random_moments_have_lost_no_line() {
    let drawn = rand::rng().random_range(0..1_000_000);
    let seed: u64 = long::size("TRAINYARD_KILLS_SEED", drawn);
    println!("seed {seed}, {KILLS} kills");
    let mut draw = StdRng::seed_from_u64(seed);
    let (world, records) = limited("s22moments");
    // Side by side: each is killed while the others' lines are on their way.
    let moments =
        [(); KILLS].map(|()| (draw.random_range(1..2 * BEFORE), draw.random_range(2..32)));
    let tasks = moments.map(|(after, step)| takes_memory(&world, after, step));
    for ((after, step), task) in moments.into_iter().zip(&tasks) {
        println!("{task}: {step} MiB at a time after {after} lines");
        let log = log_of_killed(&world, &records, task);
        let last = format!("<script:{}>", after - 1);
        assert!(log.contains(&last), "killed before memory was taken");
    }
}

#[test]
fn s22_an_evicted_script_has_lost_no_line_of_its_grace() {
    let lifecycle = json!({"onInterruption": "Fail", "abortGracePeriod": "45s"});
    let (world, records) = recording("s22evicted", &json!({}), &lifecycle);
    let source = format!("MEMORY_AFTER = None\nMEMORY_STEP = {STEP}\nMORE = {MORE}\n{WRITER}");
    let task = world.run("is evicted", &source, "gpu");
    let first = format!("<script:{BEFORE}>");
    wait("the script writes", 60, || {
        world.output(&task).contains(&first).then_some(())
    });
    let pod = world.running_pod(&task);
    world.evict(pod["metadata"]["name"].as_str().expect("pod has a name"));
    let ended = world.until_ended(&task, 60);
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["status_reason"], "trainyard: evicted", "{ended:#}");

    // It has ended by itself, so all that is recorded was printed.
    let recorded = fs::read(records.join(&task)).expect("the record is readable");
    let log = has_all(&world, &task, |_| recorded.as_slice());
    let of_grace = log.lines().filter(|line| line.contains("in its grace"));
    // One may have been half-written when the signal came.
    assert!(of_grace.count() >= MORE - 1, "its grace was cut short");
}
