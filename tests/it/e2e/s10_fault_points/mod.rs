//! S10: the controller dies behind every one of its calls, twice, and each task still comes to its one right end.
//!
//! The list of points is the code's own (`tests/it/faults.rs`). They are shared out over stages, each a namespace and a
//! controller of its own on one server, because what follows a death often waits for the quiet time, and those waits
//! need not follow each other. A stage does the work that leads past its points until each was died at as often as
//! asked; a point that belongs to no stage, or is never reached, fails the test. Pods are real where their log matters;
//! elsewhere they stand on simulated nodes and are played, fence and all (`played`).

mod many;
mod plans;
mod reads;
mod stage;
mod works;

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use super::kwok::Kwok;
use super::world::World;
use crate::faults::points;
pub use plans::CLAIM;
use plans::PLANS;
use stage::{Outcome, TIMES};

/// Stages that are played at once: most of their time is waiting.
const SIDE_BY_SIDE: usize = 8;

/// Died at on SIGTERM alone.
const FAREWELLS: [&str; 2] = ["lease/read-at-end", "lease/released"];

#[test]
fn every_fault_point_belongs_to_one_stage() {
    let mut seen = BTreeSet::new();
    for point in PLANS.iter().flat_map(|plan| plan.points) {
        assert!(seen.insert((*point).to_owned()), "{point} is in two stages");
    }
    let all: BTreeSet<String> = points().into_keys().collect();
    assert_eq!(seen, all, "first what stages name, then what the code has");
}

#[test]
fn s10_a_controller_that_dies_behind_each_of_its_calls_loses_and_doubles_nothing() {
    let begun = Instant::now();
    let base = World::with_fault_points("s10");
    let kwok = Kwok::start(&base, 1);
    // One part alone, while it is worked on.
    let only = std::env::var("TRAINYARD_S10_STAGE").ok();
    let plans = PLANS.iter();
    let plans = plans.filter(|plan| only.as_ref().is_none_or(|only| only == plan.name));
    let queue: Mutex<VecDeque<_>> = Mutex::new(plans.collect());
    let next = || queue.lock().expect("plans lock").pop_front();
    let hand = || {
        let mut done = Vec::new();
        while let Some(plan) = next() {
            let played = catch_unwind(AssertUnwindSafe(|| stage::play(plan, &base, &kwok)));
            done.push((plan.name, played));
        }
        done
    };
    let outcomes: Vec<(&str, thread::Result<Outcome>)> = thread::scope(|scope| {
        let hands: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(hand)).collect();
        hands
            .into_iter()
            .flat_map(|hand| hand.join().expect("a hand plays on"))
            .collect()
    });
    let mut sum = Outcome::default();
    let mut broken = Vec::new();
    for (name, played) in outcomes {
        match played {
            Ok(outcome) => sum.add(name, outcome),
            Err(_) => broken.push(name),
        }
    }
    println!(
        "{} points, {} tasks, {} kills in {} s: lost {}, doubled {}",
        points().len(),
        sum.tasks,
        sum.kills,
        begun.elapsed().as_secs(),
        sum.lost.len(),
        sum.doubled.len()
    );
    assert!(
        broken.is_empty(),
        "stages that did not get through: {broken:?}"
    );
    assert!(sum.lost.is_empty(), "lost: {:#?}", sum.lost);
    assert!(sum.doubled.is_empty(), "doubled: {:#?}", sum.doubled);
    assert!(
        sum.unspent.is_empty(),
        "never or too seldom reached: {:?}",
        sum.unspent
    );
    let expected = points().len() * usize::try_from(TIMES).expect("a count");
    assert!(
        only.is_some() || sum.kills >= expected,
        "{} kills",
        sum.kills
    );
}
