//! S11: two replicas share the bindings equally, each task runs once, and the one that is left has them all. One that
//! is replaced, as in a rolling update, loses nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crash::LEASE_PERIOD;
use super::s11_rolling_update::FAREWELL;
use super::world::{World, wait};
use crate::{clock, times};

const BINDINGS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

/// The holder of each Lease, by the Lease's name.
pub fn holders(world: &World) -> BTreeMap<String, String> {
    let leases = world.get(&["leases"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    leases["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|lease| {
            (
                text(&lease["metadata"]["name"]),
                text(&lease["spec"]["holderIdentity"]),
            )
        })
        .collect()
}

/// How long after this moment the last of the Leases was another's, by what its new holder wrote there: to look from
/// outside takes its time on a busy machine.
pub(super) fn taken_over(world: &World, since: f64) -> Duration {
    let leases = world.get(&["leases"]);
    let leases = leases["items"].as_array().into_iter().flatten();
    let times = leases.map(|lease| clock::told(&lease["spec"]["acquireTime"]));
    Duration::from_secs_f64(times.fold(since, f64::max) - since)
}

/// Tells how soon after the end of its holder by this cause all Leases were another's.
pub(super) fn tell_takeover(cause: &str, took: Duration) {
    let what = format!("another replica holds the Leases after a {cause}");
    times::told("S11", &what, took.as_secs_f64(), LEASE_PERIOD.as_secs_f64());
}

/// Tells how soon after SIGTERM a replica ended, whose Leases are to be dropped within the same time.
pub(super) fn tell_farewell(took: Duration) {
    let stated = LEASE_PERIOD.as_secs_f64();
    times::told(
        "S11",
        "a replica has ended after SIGTERM",
        took.as_secs_f64(),
        stated,
    );
}

/// Waits until the replicas `first` and `second` hold so many Leases each; gives all holders.
fn until_held(
    world: &World,
    what: &str,
    seconds: u64,
    counts: (usize, usize),
) -> BTreeMap<String, String> {
    wait(what, seconds, || {
        let holders = holders(world);
        let count = |replica: &str| holders.values().filter(|holder| *holder == replica).count();
        ((count("first"), count("second")) == counts).then_some(holders)
    })
}

fn assert_ran_once(world: &World, tasks: &[String]) {
    let ran = world.counter.lines();
    for task in tasks {
        let times = ran.iter().filter(|line| line.contains(task)).count();
        assert_eq!(times, 1, "task {task} runs once: {ran:?}");
    }
}

#[test]
fn s11_two_replicas_share_the_bindings() {
    let mut world = World::new("s11shares");
    let identity = ("TRAINYARD_IDENTITY".to_owned(), "first".to_owned());
    world.environment.push(identity);
    world.start_controller();
    for name in BINDINGS {
        world.queue(name);
        world.bind(name, &[name], &json!({}));
    }
    for name in BINDINGS {
        world.until_ready(name);
    }
    until_held(&world, "the first replica holds all", 30, (6, 0));

    let (mut second, begun) = (world.replica("second"), Instant::now());
    until_held(&world, "each replica holds three", 60, (3, 3));
    println!(
        "a second replica to equal shares: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    let source = world.counter.python("ran");
    // A replica that stood still for longer than a Lease lasts has lost its own: then it is looked at once more.
    let stays = || {
        let shared = until_held(&world, "each replica holds three", 60, (3, 3));
        let tasks = BINDINGS.map(|name| world.run(name, &source, name));
        for task in &tasks {
            assert_eq!(world.until_ended(task, 180)["status"], "completed");
        }
        assert_ran_once(&world, &tasks);
        holders(&world) == shared
    };
    let stayed = (0..3).any(|_| stays());
    assert!(stayed, "nothing moves once it is shared");

    let killed = clock::now();
    second.kill();
    until_held(&world, "the first replica holds all again", 30, (6, 0));
    tell_takeover("kill", taken_over(&world, killed));

    // Its successor is at work before the other one is told to go, with tasks on their way.
    let _successor = world.replica("second");
    until_held(&world, "the successor has its share", 60, (3, 3));
    let tasks = BINDINGS.map(|name| world.run(name, &source, name));
    let told = clock::now();
    let took = world.terminate_controller();
    until_held(&world, "the successor holds all", 30, (0, 6));
    tell_takeover("SIGTERM", taken_over(&world, told));
    tell_farewell(took);
    assert!(took < FAREWELL, "{took:?}");
    for task in &tasks {
        assert_eq!(world.until_ended(task, 180)["status"], "completed");
    }
    assert_ran_once(&world, &tasks);
    // While there is somebody to let them go.
    world.kubectl(&["delete", "queuebinding", "--all", "--timeout=180s"]);
}
