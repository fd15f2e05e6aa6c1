//! Tasks that are taken and never run: their pods ask for a node that is not there. What was taken, and when, is all
//! that scenarios of order and capacity look at, and the one node of the cluster stays free for others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::limits::task_of;
use super::world::{World, wait};
use crate::clock;

/// A template whose pods find no node; `resources` are those of the task's container.
pub fn nowhere(world: &World, resources: &Value) -> Value {
    json!({"spec": {
        "nodeSelector": {"trainyard.dev/no-node-has-this": "true"},
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "task", "image": world.place.task_image, "resources": resources}],
    }})
}

/// Hyper-parameters of the section that asks for fields of the pod.
pub fn asking(items: &[(&str, &str)]) -> Value {
    let mut section = json!({});
    for (name, value) in items {
        section[*name] =
            json!({"section": "Kubernetes", "name": name, "value": value, "type": "str"});
    }
    json!({"hyperparams": {"Kubernetes": section}})
}

/// Jobs that are there and not being deleted.
fn live(world: &World) -> Vec<Value> {
    let mut jobs = world.jobs();
    jobs.retain(|job| job["metadata"]["deletionTimestamp"].is_null());
    jobs
}

/// Their tasks.
pub fn taken(world: &World) -> BTreeSet<String> {
    live(world).iter().filter_map(task_of).collect()
}

/// The same Jobs in the order in which their tasks were taken.
pub fn by_turn(world: &World) -> Vec<Value> {
    let mut jobs = live(world);
    jobs.sort_by_cached_key(|job| {
        let turn = &job["metadata"]["annotations"]["trainyard.dev/turn"];
        turn.as_str().expect("a Job has its turn").to_owned()
    });
    jobs
}

/// When the Job's task was taken, in seconds since 1970: its turn begins with that.
pub fn taken_at(job: &Value) -> f64 {
    let turn = job["metadata"]["annotations"]["trainyard.dev/turn"].as_str();
    let pass = turn.and_then(|turn| turn.split('/').next());
    clock::told(&json!(pass))
}

/// Waits until so many tasks are taken, and then that it stays so for a while; answers them.
pub fn until_taken(world: &World, count: usize, seconds: u64) -> BTreeSet<String> {
    let now = wait(&format!("{count} tasks are taken"), seconds, || {
        let now = taken(world);
        (now.len() >= count).then_some(now)
    });
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(taken(world), now, "it stays so");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(now.len(), count);
    now
}

/// Takes what a binding with `maxConcurrent: 1` takes, one after the other: each is aborted so that the next may go.
pub fn in_order(world: &World, count: usize) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    while order.len() < count {
        let next = wait("the next task is taken", 60, || {
            let mut live = taken(world);
            assert!(live.len() <= 1, "more than one is taken: {live:?}");
            let next = live.pop_first()?;
            // Parked: an abort of a task that is only intended would be followed by none at all.
            let is_new =
                !order.contains(&next) && !world.job_of(&next)["spec"]["suspend"].as_bool()?;
            is_new.then_some(next)
        });
        world.call("tasks.stop", &json!({"task": next}));
        order.push(next);
    }
    order
}
