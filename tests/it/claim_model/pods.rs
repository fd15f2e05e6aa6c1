//! The model's pods, with the start fence, and the Jobs that end with them.

#![expect(clippy::unwrap_used, reason = "numbers of Jobs are small")]

use trainyard::claim::Reason;

use super::people::{agent_runs, foreign_start};
use super::setup::{Fault, Next, Setup, Variant};
use super::world::{Controller, NO_POD, Pc, Pod, PodSlot, S, State, User, bit, job, pending};

/// The Job of a pod slot.
pub fn job_of(setup: &Setup, slot: usize) -> usize {
    if setup.two_pods { slot % 2 } else { slot }
}

fn cluster_of_job(setup: &Setup, j: usize) -> usize {
    if setup.clusters == 2 { j / 2 } else { 0 }
}

fn slots_of(setup: &Setup, j: usize) -> [usize; 2] {
    if setup.two_pods { [j, j + 2] } else { [j, j] }
}

/// The Job is over or gone: nothing of its pods is left but calls on their way.
fn clear_slots(setup: &Setup, state: &mut State, j: usize) {
    for slot in slots_of(setup, j) {
        if state.pods[slot].life <= Pod::Dead {
            state.pods[slot] = NO_POD;
        }
    }
}

/// Foreground deletion: the Job goes when its last pod has ended.
pub fn delete_job(setup: &Setup, state: &mut State, j: usize) {
    if !job::there(state.jobs[j]) {
        return;
    }
    state.jobs[j] |= job::DELETING;
    finish_deletion(setup, state, j);
}

fn finish_deletion(setup: &Setup, state: &mut State, j: usize) {
    let slots = slots_of(setup, j);
    if slots.iter().any(|&slot| state.pods[slot].life.alive()) {
        return;
    }
    clear_slots(setup, state, j);
    state.jobs[j] &= job::UID;
}

/// A pod ends; with the last one the Job does, or goes.
fn ends(setup: &Setup, state: &mut State, slot: usize, cause: u8) {
    leaves(
        setup,
        state,
        slot,
        cause,
        PodSlot {
            life: Pod::Dead,
            bits: 0,
        },
    );
}

fn leaves(setup: &Setup, state: &mut State, slot: usize, cause: u8, rest: PodSlot) {
    let j = job_of(setup, slot);
    state.pods[slot] = rest;
    if state.jobs[j] & job::DELETING != 0 {
        finish_deletion(setup, state, j);
        return;
    }
    let slots = slots_of(setup, j);
    if slots.iter().any(|&other| state.pods[other].life.alive()) {
        return;
    }
    clear_slots(setup, state, j);
    state.jobs[j] = state.jobs[j] & !job::STATE | cause;
}

/// Appends all that the pod in `slot` can do next.
pub fn pod_steps(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let acts = |one: &Controller| one.pc != Pc::Idle;
    if setup.pods_wait && state.controllers.iter().any(acts) {
        return;
    }
    let life = state.pods[slot].life;
    if setup.pods_wait && state.jobs[job_of(setup, slot)] & job::DELETING != 0 {
        return pod_dies(setup, state, slot, out);
    }
    match life {
        Pod::None => return pod_begins(setup, state, slot, out),
        Pod::Dead | Pod::LateTake | Pod::LateMark | Pod::LateReport | Pod::LateStart => {
            return late_call(setup, state, slot, out);
        }
        Pod::LateEnd => return late_end(setup, state, slot, out),
        _ => pod_dies(setup, state, slot, out),
    }
    let mut next = *state;
    match life {
        Pod::Created => {
            next.pods[slot].life = Pod::Started;
            out.push(Next::on(next, "task container starts"));
        }
        Pod::Started | Pod::Took | Pod::Read | Pod::Marked | Pod::Named => {
            out.push(fence(setup, state, slot));
        }
        Pod::Running => pod_ends(setup, state, slot, out),
        Pod::Reported => {
            ends(setup, &mut next, slot, job::ENDED_TASK);
            out.push(Next::on(next, "pod exits"));
        }
        _ => {}
    }
}

/// The Job's controller makes a pod; Kubernetes may make a second one beside it.
fn pod_begins(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let j = job_of(setup, slot);
    let second = slot != j;
    let wanted = state.jobs[j] & (job::STATE | job::DELETING) == job::HELD;
    if !wanted || (second && !state.pods[j].life.alive()) {
        return;
    }
    let mut next = *state;
    next.pods[slot].life = Pod::Created;
    let label = "pod is created";
    out.push(Next {
        progress: !second,
        ..Next::on(next, label)
    });
    if setup.stuck {
        next.pods[slot].life = Pod::Stuck;
        out.push(Next::by_chance(next, "pod is created and never starts"));
    }
}

/// By bad luck at any moment, or because its Job is being deleted: then it is sure to.
fn pod_dies(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let now = state.pods[slot];
    let deleting = state.jobs[job_of(setup, slot)] & job::DELETING != 0;
    if !deleting && !setup.deaths {
        return;
    }
    let mut next = *state;
    ends(setup, &mut next, slot, job::ENDED_LOST);
    let death = |next, label| Next {
        progress: deleting,
        ..Next::on(next, label)
    };
    out.push(death(next, "pod dies"));
    if let Some(life) = now.life.late().filter(|_| setup.late) {
        let mut next = *state;
        let rest = PodSlot {
            life,
            bits: now.bits,
        };
        leaves(setup, &mut next, slot, job::ENDED_LOST, rest);
        out.push(death(next, "pod dies, its call is on its way"));
    }
    let reports = now.life == Pod::Running && is_mine(setup, state, slot) && !state.stopping;
    if setup.late_ends && reports {
        let mut next = *state;
        let rest = PodSlot {
            life: Pod::LateEnd,
            bits: 0,
        };
        leaves(setup, &mut next, slot, job::ENDED_LOST, rest);
        out.push(death(next, "pod dies, its report is on its way"));
    }
    if now.life == Pod::Running && !deleting {
        let mut next = *state;
        ends(setup, &mut next, slot, job::ENDED_FAULT);
        out.push(death(next, "pod ends by its own fault, unreported"));
    }
}

/// The next call of the start fence; anything but a yes is a lost race.
fn fence(setup: &Setup, state: &State, slot: usize) -> Next {
    let j = job_of(setup, slot);
    let me = u8::try_from(j).unwrap() + 1;
    let now = state.pods[slot];
    let mut next = *state;
    let mut fault = None;
    if now.bits & bit::USER_ENQUEUED != 0 && now.life >= Pod::Read {
        // It names itself, or starts, on a task that another consumer may run meanwhile: a known limit.
        next.limit_double = true;
    }
    let (passed, then, label) = match now.life {
        Pod::Started => {
            if state.user == User::Rest {
                next.pods[slot].bits |= bit::USER_ENQUEUED;
            }
            let skip = setup.variant == Variant::NoReadInFence;
            let passed = next.remove(pending(cluster_of_job(setup, j)));
            (
                passed,
                if skip { Pod::Read } else { Pod::Took },
                "fence: remove the pending entry",
            )
        }
        Pod::Took => {
            // A later attempt also tells a user's dequeue that left it queued (`Task::dequeued_while_parked`).
            let dequeued =
                state.enqueue_status.is_none() && state.reason != Reason::FailedEnqueueing;
            let passed = state.status == S::Queued && !(dequeued && j % 2 == 1);
            (passed, Pod::Read, "fence: read the task")
        }
        Pod::Read => (next.write_mark(me), Pod::Marked, "fence: write the mark"),
        Pod::Marked => {
            if setup.variant != Variant::NoStatusReport {
                next.report(me);
            }
            (true, Pod::Named, "fence: report as worker")
        }
        _ => (next.started(false), Pod::Running, "fence: tasks.started"),
    };
    if !passed {
        ends(setup, &mut next, slot, job::ENDED_LOST);
    } else if then == Pod::Running {
        fault = pod_runs(setup, state, &mut next, slot);
    } else {
        next.pods[slot].life = then;
    }
    Next {
        fault,
        ..Next::on(next, label)
    }
}

/// The call of a dead pod arrives.
fn late_call(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let j = job_of(setup, slot);
    let me = u8::try_from(j).unwrap() + 1;
    let mut next = *state;
    let bits = state.pods[slot].bits;
    next.pods[slot] = NO_POD;
    next.limit_double |= bits & bit::USER_ENQUEUED != 0;
    match state.pods[slot].life {
        Pod::LateTake => {
            next.remove(pending(cluster_of_job(setup, j)));
        }
        Pod::LateMark => {
            next.write_mark(me);
        }
        Pod::LateReport => next.report(me),
        Pod::LateStart => {
            if next.started(false) && bits & bit::TAKEN_BACK != 0 {
                next.taken_back = false;
                next.limit_watchdog = true;
            }
        }
        _ => return,
    }
    out.push(Next::on(next, "a dead pod's call arrives"));
}

/// The report of a dead pod arrives: if somebody else runs the task by now, it ends that run.
fn late_end(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    for &status in setup.ends {
        let mut next = *state;
        next.pods[slot] = NO_POD;
        // A user's enqueue since the pod's death: a known limit.
        next.limit_double |= state.pods[slot].bits & bit::USER_ENQUEUED != 0;
        let foreign = next.end(status) && state.status == S::InProgress && is_run(state);
        let fault = (foreign && !next.limit_double).then_some(Fault::EndedForeignRun);
        out.push(Next {
            fault,
            ..Next::on(next, "a dead pod's report of its end arrives")
        });
    }
}

/// Whether anybody runs the task whose user has not taken it back.
fn is_run(state: &State) -> bool {
    let runs = |pod: &PodSlot| pod.life == Pod::Running && pod.bits & bit::REVOKED == 0;
    let agent = agent_runs(state) && state.agent_bits & bit::REVOKED == 0;
    agent || state.pods.iter().any(runs)
}

/// Whether all that dead pods of this cluster's Jobs have sent has arrived.
pub fn all_arrived(setup: &Setup, state: &State, cluster: usize) -> bool {
    let mut slot = 0;
    while slot < state.pods.len() {
        let own = cluster_of_job(setup, job_of(setup, slot)) == cluster;
        if own && state.pods[slot].life.is_late() {
            return false;
        }
        slot += 1;
    }
    true
}

/// User code begins in a pod: is anybody else running, was the task taken back?
fn pod_runs(setup: &Setup, state: &State, next: &mut State, slot: usize) -> Option<Fault> {
    let bits = state.pods[slot].bits;
    next.pods[slot] = PodSlot {
        life: Pod::Running,
        bits: 0,
    };
    let mut fault = None;
    if bits & bit::TAKEN_BACK != 0 {
        next.taken_back = false;
        next.limit_watchdog = true;
    } else if state.taken_back && !next.limit_double {
        fault = Some(Fault::RanTakenBack);
    }
    let cluster = job_of(setup, slot) / 2;
    // Only with a user's enqueue can this be a known limit; without a user the bit would tell equal states apart.
    if setup.clusters == 2 && setup.budget > 0 {
        foreign_start(next, Some(cluster));
    }
    let other_pod = state.pods.iter().enumerate().any(|(other, pod)| {
        let same_cluster = job_of(setup, other) / 2 == cluster;
        other != slot && pod.life == Pod::Running && (same_cluster || pod.bits & bit::REVOKED == 0)
    });
    let double = other_pod || (agent_runs(state) && state.agent_bits & bit::REVOKED == 0);
    if double && !next.limit_double {
        Some(Fault::DoubleRun)
    } else {
        fault
    }
}

/// Whether a run finds its task in progress, as its own.
fn is_mine(setup: &Setup, state: &State, slot: usize) -> bool {
    let me = u8::try_from(job_of(setup, slot)).unwrap() + 1;
    state.status == S::InProgress && state.mark == me
}

/// How a run comes to its end: by itself, or because it notices that the task is no longer its own.
fn pod_ends(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let mine = is_mine(setup, state, slot);
    let mut report = |status, label| {
        let mut next = *state;
        next.end(status);
        next.pods[slot] = PodSlot {
            life: Pod::Reported,
            bits: 0,
        };
        out.push(Next::on(next, label));
    };
    if mine && state.stopping {
        report(S::Stopped, "run ends on an abort");
    } else if mine {
        for &status in setup.ends {
            report(status, "run ends by itself and reports");
        }
        if setup.retries {
            let mut next = *state;
            ends(setup, &mut next, slot, job::ENDED_FAULT);
            out.push(Next::on(
                next,
                "run fails and leaves its end to the controller",
            ));
        }
    } else {
        let mut next = *state;
        ends(setup, &mut next, slot, job::ENDED_LOST);
        out.push(Next::on(next, "run notices that the task is not its own"));
    }
}
