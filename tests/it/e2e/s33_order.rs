//! S33 on the cluster: behind a head that cannot fit, `lookahead` tasks may go and no more; with 0 the order is strict. A
//! head that has waited beyond `aging` goes before the queues above its own.

use std::time::Duration;

use serde_json::json;

use super::taken::{asking, in_order, nowhere, taken, until_taken};
use super::world::{World, wait};

#[test]
fn a_head_that_cannot_fit_is_overtaken_by_lookahead_tasks_and_no_more() {
    let mut world = World::new("s33");
    world.start_controller();
    world.queue("gpu");
    let gpu = "nvidia.com/gpu";
    let tasks: Vec<String> = ["1", "4", "1", "1", "1"]
        .iter()
        .map(|size| {
            let task = world.create(
                "order",
                "print(1)\n",
                &asking(&[("resources/nvidia.com/gpu", size)]),
            );
            world.enqueue(&task, "gpu");
            task
        })
        .collect();
    let bind = |lookahead: i32| {
        world.bind(
            "gpu",
            &["gpu"],
            &json!({
                "lookahead": lookahead, "limits": {"maxConcurrent": 10, "resources": {gpu: 4}},
                "overrides": {"resources": {"max": {gpu: 4}}},
                "template": nowhere(&world, &json!({"limits": {gpu: 1}})),
            }),
        );
    };
    bind(0);
    assert_eq!(until_taken(&world, 1, 60), [tasks[0].clone()].into());
    bind(2);
    let now = until_taken(&world, 3, 60);
    assert_eq!(
        now,
        [tasks[0].clone(), tasks[2].clone(), tasks[3].clone()].into()
    );
    assert_eq!(world.entries("gpu"), [tasks[1].clone(), tasks[4].clone()]);
    // A slot that gets free is kept for the head from here on; it goes when all of it is there.
    world.call("tasks.stop", &json!({"task": tasks[2]}));
    wait("the stopped one is gone", 60, || {
        (taken(&world).len() == 2).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        !taken(&world).contains(&tasks[4]),
        "nobody overtakes the head any more"
    );
    for task in [&tasks[0], &tasks[3]] {
        world.call("tasks.stop", &json!({"task": task}));
    }
    wait("the head goes", 60, || {
        taken(&world).contains(&tasks[1]).then_some(())
    });
}

#[test]
fn a_head_that_has_waited_beyond_the_bound_of_aging_goes_before_the_queues_above() {
    let mut world = World::new("s33aging");
    world.start_controller();
    for queue in ["high", "low"] {
        world.queue(queue);
    }
    let old = world.run("old", "print(1)\n", "low");
    std::thread::sleep(Duration::from_secs(10));
    let high: Vec<String> = (0..2)
        .map(|i| world.run(&format!("high {i}"), "print(1)\n", "high"))
        .collect();
    world.bind(
        "gpu",
        &["high", "low"],
        &json!({
            "aging": "10s", "limits": {"maxConcurrent": 1}, "template": nowhere(&world, &json!({})),
        }),
    );
    let order = in_order(&world, 2);
    assert_eq!(order, [old, high[0].clone()]);
}
