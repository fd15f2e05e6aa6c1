//! S36: an API server that closes its watches in the middle of a burst, and does not keep the events that were missed.
//! `TRAINYARD_S36_TASKS` says how many tasks, as in [`s36_scale`](super::s36_scale).

use std::collections::HashSet;

use http::Method;
use serde_json::Value;

use super::gate::{Asked, Fate, Gate};
use super::kwok::Kwok;
use super::played::{Part, Player, statuses};
use super::s36_scale::{enqueue, watches};
use super::world::{World, wait};
use crate::long;

/// A task costs three writes of its Job: created, released, settled. So many times among them all watches are closed.
const WRITES: usize = 3;
const CLOSINGS: usize = 9;

/// Closes all watches each time that a part of the writes has come; from the middle of the burst on, each kind's next
/// watch finds its place gone, once.
fn closing(tasks: usize) -> impl FnMut(&Asked) -> Fate + Send {
    let (mut writes, mut gone) = (0_usize, HashSet::new());
    move |asked| {
        if asked.is_watch {
            return if writes >= tasks && gone.insert(asked.path.clone()) {
                Fate::Gone
            } else {
                Fate::Pass
            };
        }
        if asked.method == Method::GET || !asked.path.contains("/jobs") {
            return Fate::Pass;
        }
        writes += 1;
        if writes.is_multiple_of((tasks * WRITES / CLOSINGS).max(1)) {
            Fate::CloseWatches
        } else {
            Fate::Pass
        }
    }
}

/// How many watches of a kind have come by, and how many of them found their place gone.
fn watched(gate: &Gate, kind: &str) -> (usize, usize) {
    let end = format!("/{kind}");
    let asked = gate.asked().into_iter();
    let fates: Vec<Fate> = asked
        .filter(|asked| asked.is_watch && asked.path.ends_with(&end))
        .map(|asked| asked.fate)
        .collect();
    let gone = fates.iter().filter(|fate| **fate == Fate::Gone).count();
    (fates.len(), gone)
}

#[test]
fn s36_watches_that_are_closed_while_many_jobs_are_made_are_taken_up_again_without_loss() {
    let number = long::size("TRAINYARD_S36_TASKS", 60);
    let mut world = World::new("s36watch");
    let kwok = Kwok::start(&world, number / 1500 + 2);
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| Part::Completes(500));
    let gate = Gate::start(&world.place.kubeconfig, world.dir.path(), |_| Fate::Pass);
    let kubeconfig = gate.kubeconfig.display().to_string();
    world
        .environment
        .push(("KUBECONFIG".to_owned(), kubeconfig));
    world.queue("gpu");
    world.start_controller();
    world.bind("gpu", &["gpu"], &kwok.binding_patch());
    world.until_ready("gpu");
    gate.set(closing(number));
    let tasks = enqueue(&world, number);

    // What there is for many is so much for each on top.
    let patience = |seconds: u64| seconds + u64::try_from(number).expect("a count") / 5;
    wait("all tasks end", patience(180), || {
        (statuses(&world, &tasks).get("completed") == Some(&number)).then_some(())
    });
    let is_settled = |job: &Value| job["metadata"]["labels"]["trainyard.dev/state"] == "settled";
    let jobs = wait("each Job is settled", patience(120), || {
        let jobs = world.jobs();
        jobs.iter().all(is_settled).then_some(jobs)
    });
    assert_eq!(jobs.len(), number, "one Job for each task");
    assert_eq!(player.runs().len(), number, "each ran once");
    assert!(player.doubled().is_empty(), "{:?}", player.doubled());

    let closed = gate
        .asked()
        .iter()
        .filter(|asked| asked.fate == Fate::CloseWatches)
        .count();
    assert!(closed >= CLOSINGS, "closed {closed} times");
    for kind in ["jobs", "pods"] {
        // Its first, the one that is told to list anew, and the one after that list.
        let (begun, gone) = wait("the watch is taken up again, and counted", 60, || {
            let (begun, gone) = watched(&gate, kind);
            let told = format!("{:.0}", watches(&world, kind));
            (begun >= 3 && told == begun.to_string()).then_some((begun, gone))
        });
        println!("{kind}: {closed} closings, {begun} watches begun, {gone} of them to list anew");
        assert_eq!(gone, 1, "{kind}");
    }
    drop(kwok);
}
