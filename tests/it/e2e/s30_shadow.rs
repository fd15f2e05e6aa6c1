//! S30: the old glue serves a queue with a shadow beside it. The glue runs every task; the shadow takes none, and has
//! told of each, in order, what a controller would have done.

use serde_json::{Value, json};

use super::glue::{Glue, Packages};
use super::s31_foreign::source;
use super::world::{Proc, World, wait};

const QUEUE: &str = "gpu";
const TASKS: usize = 4;

/// What a shadow has told so far; its log holds other lines as well.
fn deeds(shadow: &Proc) -> Vec<Value> {
    let log = shadow.log();
    let lines = log.lines();
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["step"].is_string())
        .collect()
}

/// Tasks that the glue took from its queue, by its own log.
fn received(glue: &Glue) -> Vec<String> {
    let log = glue.log();
    let taken = log
        .lines()
        .filter_map(|line| line.split_once("Received task ")?.1.split(' ').next());
    taken.map(str::to_owned).collect()
}

#[test]
fn s30_the_old_glue_runs_what_a_shadow_beside_it_has_foreseen_in_order() {
    let world = World::new("s30");
    world.queue(QUEUE);
    // Room for all at once: a shadow counts no task that others run.
    let limits = json!({"limits": {"maxConcurrent": TASKS}});
    world.bind(QUEUE, &[QUEUE], &limits);
    let binding = world.get(&["queuebinding", QUEUE]);
    let glue = Glue::start(&world, QUEUE, Packages::Skip);
    let log = world.dir.path().join("shadow.log");
    let mut shadow = Proc::start(&mut world.command(&["shadow", "--output", "json"]), &log);

    // What the glue takes between two looks of the shadow, nobody could foresee: it stands still until all are told.
    glue.pause();
    let source = source(&world);
    let tasks: Vec<String> = (0..TASKS)
        .map(|number| world.run(&format!("task {number}"), &source, QUEUE))
        .collect();
    let all = || -> Vec<Value> { tasks.iter().map(|task| world.task(task)).collect() };
    let before = all();
    wait("the shadow foresees every task", 60, || {
        (deeds(&shadow).len() >= TASKS).then_some(())
    });
    assert_eq!(world.entries(QUEUE), tasks, "the shadow takes nothing");
    assert_eq!(all(), before, "nor does it write to a task");
    glue.go_on();

    // On its way through the glue a task is stopped for a moment, so the end is waited for by name.
    for task in &tasks {
        wait("the glue runs it", 120, || {
            (world.status(task) == "completed").then_some(())
        });
    }
    assert_eq!(received(&glue), tasks);
    let mut ran = world.counter.lines();
    ran.sort();
    let mut by_glue: Vec<String> = tasks.iter().map(|task| format!("glue {task}")).collect();
    by_glue.sort();
    assert_eq!(ran, by_glue, "each ran once, in a pod of the glue");

    assert!(!shadow.has_ended(), "{}", shadow.log());
    let foreseen: Vec<Value> = tasks
        .iter()
        .map(|task| {
            json!({
                "binding": format!("{}/{QUEUE}", world.namespace), "task": task, "step": "intend", "phase": "Offered",
                "job": format!("ty-{task}-1"), "image": world.place.task_image,
            })
        })
        .collect();
    assert_eq!(deeds(&shadow), foreseen);
    assert!(world.jobs().is_empty(), "no Job was made");
    assert_eq!(world.pending_queue(QUEUE), None);
    assert_eq!(
        world.get(&["queuebinding", QUEUE]),
        binding,
        "the binding is as it was"
    );
}
