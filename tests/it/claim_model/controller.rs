//! The model's controllers: they look, ask the real `decide`, and carry out its step one call at a time.

use trainyard::claim::ThisPass;

use super::pods::all_arrived;
use super::setup::{Next, Setup, Variant};
use super::steps;
use super::view::{Begin, Memo, NO_JOB, View};
use super::world::{Controller, IDLE, Pc, State, USER, bit, pending};

/// An enqueue of ours has added its entry and is cut off.
pub const SERVER_DIES: &str = "server dies inside an enqueue of ours";

/// The cluster of a controller.
pub fn cluster_of(setup: &Setup, controller: usize) -> usize {
    if setup.clusters == 2 { controller } else { 0 }
}

/// Appends all that controller `me` can do next.
pub fn steps(setup: &Setup, memo: &mut Memo, state: &State, me: usize, out: &mut Vec<Next>) {
    let cluster = cluster_of(setup, me);
    let now = state.controllers[me];
    if setup.crashes && now.pc != Pc::Idle && now.pc != Pc::Looked {
        let mut next = *state;
        // The server goes on with a call that it has begun.
        if let Some(queue) = half_enqueued(now.pc, cluster) {
            next.leave_others(queue);
        }
        next.controllers[me] = IDLE;
        out.push(Next::by_chance(next, "controller drops its step"));
    }
    if setup.server_dies
        && let Some(queue) = half_enqueued(now.pc, cluster)
        && state.entries & !queue != 0
    {
        // The entries elsewhere stay; the call fails, and the step with it.
        let mut next = *state;
        next.controllers[me] = IDLE;
        out.push(Next::by_chance(next, SERVER_DIES));
    }
    match now.pc {
        Pc::Idle => look(setup, state, me, cluster, out),
        Pc::Looked => begin(setup, memo, state, me, cluster, out),
        _ => steps::call(setup, memo, state, me, cluster, out),
    }
}

/// The queue of an enqueue that has added its entry and not yet removed the others.
fn half_enqueued(pc: Pc, cluster: usize) -> Option<u8> {
    match pc {
        Pc::ParkRest => Some(pending(cluster)),
        Pc::ReturnRest => Some(USER),
        _ => None,
    }
}

/// First half of a look: the entries.
fn look(setup: &Setup, state: &State, me: usize, cluster: usize, out: &mut Vec<Next>) {
    let mut next = *state;
    let mut bits = 0;
    if setup.variant == Variant::NoQuietTime || nobody_inside(state, bit::STALE << cluster) {
        bits |= bit::QUIET;
    }
    if nobody_inside(state, bit::STALE_TASK) {
        bits |= bit::QUIET_TASK;
    }
    if all_arrived(setup, state, cluster) {
        bits |= bit::ARRIVED;
    }
    if setup.variant == Variant::ReleaseAfterEnd && nobody_inside(state, bit::STALE_END) {
        bits |= bit::QUIET_END;
    }
    next.controllers[me] = Controller {
        pc: Pc::Looked,
        job: 0,
        seen: state.entries,
        bits,
    };
    out.push(Next::on(next, "controller reads the queues"));
}

/// Whether nobody is in a step whose first read is older than the facts, or than the task's own.
fn nobody_inside(state: &State, stale: u16) -> bool {
    let [one, other] = &state.controllers;
    let [first, second, third, fourth] = &state.pods;
    let pods = first.bits | second.bits | third.bits | fourth.bits;
    (one.bits | other.bits | pods | state.agent_bits | state.user_bits) & stale == 0
}

/// Second half of a look: status and Jobs; then the decision.
fn begin(
    setup: &Setup,
    memo: &mut Memo,
    state: &State,
    me: usize,
    cluster: usize,
    out: &mut Vec<Next>,
) {
    let now = state.controllers[me];
    let (young, uncalled) = match setup.variant {
        Variant::EndAtOnce => (true, true),
        Variant::EndBeforeLateCalls => (false, true),
        Variant::EndOfYoungTask => (true, false),
        _ => (false, false),
    };
    let view = View {
        state,
        cluster,
        entries: now.seen,
        quiet: now.bits & bit::QUIET != 0,
        quiet_task: young || now.bits & bit::QUIET_TASK != 0,
        arrived: uncalled || now.bits & bit::ARRIVED != 0,
        quiet_end: now.bits & bit::QUIET_END != 0,
        this_pass: ThisPass::Nothing,
    };
    for &begin in memo.answers(setup, view) {
        let mut next = *state;
        next.controllers[me] = match begin {
            Some(begin) => entered(state, now, begin),
            None => IDLE,
        };
        out.push(Next::on(next, "controller reads status and Jobs, decides"));
    }
}

fn entered(state: &State, now: Controller, begin: Begin) -> Controller {
    let kept = now.bits
        & (bit::STALE
            | bit::STALE_OTHER
            | bit::STALE_TASK
            | bit::STALE_END
            | bit::USER_ENQUEUED
            | bit::TAKEN_BACK);
    let seen = if begin.job == NO_JOB {
        0
    } else {
        state.jobs[usize::from(begin.job)]
    };
    Controller {
        pc: begin.pc,
        job: begin.job,
        seen,
        bits: kept | begin.bits,
    }
}
