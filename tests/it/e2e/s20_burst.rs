//! S20, short: many tasks at once are taken as fast as they have room, each with few requests.

use std::time::Instant;

use serde_json::json;

use super::taken::{nowhere, taken};
use super::world::{World, wait};

#[test]
fn a_burst_is_taken_at_once_up_to_the_limit_and_freed_slots_are_filled() {
    let mut world = World::new("s20");
    world.start_controller();
    world.queue("gpu");
    let bind = |world: &World, suspend: bool| {
        world.bind("gpu", &["gpu"], &json!({
            "limits": {"maxConcurrent": 40}, "suspend": suspend, "template": nowhere(world, &json!({})),
        }));
    };
    bind(&world, true);
    let tasks: Vec<String> = (0..60)
        .map(|i| world.run(&format!("burst {i}"), "print(1)\n", "gpu"))
        .collect();
    let begun = Instant::now();
    bind(&world, false);
    let first = wait("every slot is filled", 50, || {
        let now = taken(&world);
        assert!(now.len() <= 40, "{} are taken", now.len());
        (now.len() == 40).then_some(now)
    });
    println!(
        "40 of 60 taken after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    assert!(
        tasks[..40].iter().all(|task| first.contains(task)),
        "in the order of the queue"
    );
    assert_eq!(world.entries("gpu"), tasks[40..]);
    for task in &tasks[..20] {
        world.call("tasks.stop", &json!({"task": task}));
    }
    let begun = Instant::now();
    wait("the rest is taken", 60, || {
        let now = taken(&world);
        tasks[40..]
            .iter()
            .all(|task| now.contains(task))
            .then_some(())
    });
    println!(
        "20 more taken {:.1} s after their slots were free",
        begun.elapsed().as_secs_f64()
    );
}
