//! Who is inside a step while something changes: with that, quiet time is modelled.

use super::controller::cluster_of;
use super::setup::{Setup, Variant};
use super::view::started;
use super::world::{Agent, Controller, Pc, State, User, bit, bits_of, job};

/// Whoever is inside a step has made its first read before what has just changed.
pub fn note_changes(setup: &Setup, before: &State, after: &mut State) {
    let task = task_differs(before, after);
    if after.touched {
        let [one, other] = &mut after.controllers;
        written(one);
        written(other);
    }
    after.touched = false;
    let entry = before.entries != after.entries;
    let mut stale = 0;
    if task || entry {
        stale |= bit::STALE_TASK;
    }
    let mut cluster = 0;
    while cluster < setup.clusters {
        let jobs = jobs_differ(setup, before, after, cluster);
        if task || jobs || entry {
            stale |= bit::STALE << cluster;
        }
        let mut lost = 0;
        if task {
            lost |= bit::QUIET | bit::QUIET_TASK;
        }
        if jobs {
            lost |= bit::QUIET | bit::ARRIVED;
        }
        if lost != 0 {
            no_longer_quiet(setup, after, cluster, lost);
        }
        cluster += 1;
    }
    if setup.variant == Variant::ReleaseAfterEnd {
        let ended = |s: &State| s.jobs.iter().filter(|&&j| job::ended(j)).count();
        if ended(after) > ended(before) {
            stale |= bit::STALE_END;
        }
    }
    if stale != 0 && setup.variant != Variant::NoQuietTime {
        note_stale(after, stale);
    }
}

/// Whether the task itself was written, be it as it was.
fn task_differs(before: &State, after: &State) -> bool {
    after.touched
        || before.status as u8 != after.status as u8
        || before.stopping != after.stopping
        || before.reason as u8 != after.reason as u8
        || bits_of(before.enqueue_status) != bits_of(after.enqueue_status)
        || before.exec as u8 != after.exec as u8
        || before.mark != after.mark
        || before.last_worker != after.last_worker
        || before.queue_deleted != after.queue_deleted
}

fn jobs_differ(setup: &Setup, before: &State, after: &State, cluster: usize) -> bool {
    let differs = |j: usize| {
        before.jobs[j] != after.jobs[j] || started(before, setup, j) != started(after, setup, j)
    };
    differs(2 * cluster) || differs(2 * cluster + 1)
}

fn written(controller: &mut Controller) {
    if !matches!(controller.pc, Pc::Idle | Pc::Looked) {
        controller.bits |= bit::WRITTEN;
    }
}

/// Who has read the entries in this cluster and not yet the rest finds that it has changed.
fn no_longer_quiet(setup: &Setup, after: &mut State, cluster: usize, lost: u16) {
    let mut me = 0;
    while me < setup.controllers {
        let controller = &mut after.controllers[me];
        if matches!(controller.pc, Pc::Looked) && cluster_of(setup, me) == cluster {
            controller.bits &= !lost;
        }
        me += 1;
    }
}

fn note_stale(after: &mut State, stale: u16) {
    let [one, other] = &mut after.controllers;
    for_one_inside(one, stale);
    for_one_inside(other, stale);
    let mut slot = 0;
    while slot < after.pods.len() {
        let pod = &mut after.pods[slot];
        if pod.life.in_fence().is_some() {
            pod.bits |= stale;
        }
        slot += 1;
    }
    if matches!(after.agent, Agent::Popped | Agent::Started) {
        after.agent_bits |= stale;
    }
    if !matches!(after.user, User::Idle) {
        after.user_bits |= stale;
    }
}

fn for_one_inside(controller: &mut Controller, stale: u16) {
    if !matches!(controller.pc, Pc::Idle) {
        controller.bits |= stale;
    }
}
