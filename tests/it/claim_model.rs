//! The claim, explored: the real `claim::decide` against an in-memory server and cluster, in all interleavings.
//!
//! A look and its effect are transitions of their own, and so is each call of a step; a crash may follow each. Quiet
//! time is modelled as "nobody is in a step whose first read is older than the facts". Asserted: no two runs at once,
//! no run after the user took the task back, no run ended that is somebody else's, and from every state an end can be
//! reached without anybody's help. `docs/claim.md` has the results; `TRAINYARD_MODEL=full` explores further.

#[path = "claim_model/controller.rs"]
mod controller;
#[path = "claim_model/explore.rs"]
mod explore;
#[path = "claim_model/others.rs"]
mod others;
#[path = "claim_model/world.rs"]
mod world;

use explore::{Found, Setup, explore};

fn run(setup: &Setup) -> Found {
    let found = explore(setup);
    println!(
        "claim model: {}: {} states, {} transitions, {} ends, {} observations",
        setup.name, found.states, found.transitions, found.ends, found.observations
    );
    found
}

fn clean(setup: &Setup) {
    let found = run(setup);
    if let Some((fault, way)) = found.fault {
        panic!("{}: {fault:?} after\n{way}", setup.name);
    }
}

#[test]
fn one_controller_alone_is_clean() {
    clean(&Setup { ..Setup::ONE });
}
