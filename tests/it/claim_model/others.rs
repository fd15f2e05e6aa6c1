//! The model's pods (with the start fence), plain agent, user and server watchdog.
#![expect(clippy::unwrap_used, reason = "numbers of Jobs are small")]

use trainyard::claim::Reason;

use super::explore::{Action, Fault, Next, Setup, Variant};
use super::world::{
    AGENT, Agent, JOBS, NO_POD, Pc, Pod, PodSlot, S, State, USER, User, bit, job, pending,
};

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

fn alive(life: Pod) -> bool {
    life >= Pod::Created && life < Pod::Dead
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
    if slots.iter().any(|&slot| alive(state.pods[slot].life)) {
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
    if slots.iter().any(|&other| alive(state.pods[other].life)) {
        return;
    }
    clear_slots(setup, state, j);
    state.jobs[j] = state.jobs[j] & !job::STATE | cause;
}

/// Appends all that the pod in `slot` can do next.
pub fn pod_steps(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let j = job_of(setup, slot);
    let me = u8::try_from(j).unwrap() + 1;
    let now = state.pods[slot];
    let own_pending = pending(cluster_of_job(setup, j));
    let mut push = |state: State, label, progress, fault| {
        out.push(Next {
            state,
            label,
            progress,
            fault,
        });
    };
    let deleting = state.jobs[j] & job::DELETING != 0;
    if now.life == Pod::None {
        let wanted = state.jobs[j] & job::STATE == job::HELD && !deleting;
        let second = slot != j;
        if wanted && (!second || alive(state.pods[j].life)) {
            let mut next = *state;
            next.pods[slot].life = Pod::Created;
            push(next, "pod is created", !second, None);
            if setup.stuck {
                next.pods[slot].life = Pod::Stuck;
                push(next, "pod is created and never starts", false, None);
            }
        }
        return;
    }
    if now.life >= Pod::Dead {
        return late_call(setup, state, slot, out);
    }
    if deleting || setup.deaths {
        let mut next = *state;
        ends(setup, &mut next, slot, job::ENDED_LOST);
        push(next, "pod dies", deleting, None);
        if let Some(late) = now.life.late().filter(|_| setup.late) {
            let mut next = *state;
            let rest = PodSlot {
                life: late,
                bits: now.bits,
            };
            leaves(setup, &mut next, slot, job::ENDED_LOST, rest);
            push(next, "pod dies, its call is on its way", deleting, None);
        }
        if now.life == Pod::Running && !deleting {
            let mut next = *state;
            ends(setup, &mut next, slot, job::ENDED_TASK);
            push(next, "pod ends by its own fault, unreported", false, None);
        }
    }
    let mut next = *state;
    let mut fault = None;
    if now.bits & bit::USER_ENQUEUED != 0 && now.life >= Pod::Read {
        // It names itself, or starts, on a task that another consumer may run meanwhile: a known limit.
        next.limit_double = true;
    }
    let lost = |next: &mut State| ends(setup, next, slot, job::ENDED_LOST);
    let label = match now.life {
        Pod::Running => return pod_ends(setup, state, slot, out),
        Pod::None
        | Pod::Stuck
        | Pod::Dead
        | Pod::LateTake
        | Pod::LateMark
        | Pod::LateReport
        | Pod::LateStart => return,
        Pod::Created => {
            next.pods[slot].life = Pod::Started;
            "task container starts"
        }
        Pod::Started => {
            if next.remove(own_pending) {
                let read = setup.variant == Variant::NoReadInFence;
                next.pods[slot].life = if read { Pod::Read } else { Pod::Took };
                if state.user == User::Rest {
                    next.pods[slot].bits |= bit::USER_ENQUEUED;
                }
            } else {
                lost(&mut next);
            }
            "fence: remove the pending entry"
        }
        Pod::Took => {
            // A later attempt also tells a user's dequeue that left it queued (`Task::dequeued_while_parked`).
            let dequeued =
                state.enqueue_status.is_none() && state.reason != Reason::FailedEnqueueing;
            if state.status == S::Queued && !(dequeued && j % 2 == 1) {
                next.pods[slot].life = Pod::Read;
            } else {
                lost(&mut next);
            }
            "fence: read the task"
        }
        Pod::Read => {
            if next.write_mark(me) {
                next.pods[slot].life = Pod::Marked;
            } else {
                lost(&mut next);
            }
            "fence: write the mark"
        }
        Pod::Marked => {
            if setup.variant != Variant::NoStatusReport {
                next.report(me);
            }
            next.pods[slot].life = Pod::Named;
            "fence: report as worker"
        }
        Pod::Named => {
            if next.started(false) {
                fault = pod_runs(setup, state, &mut next, slot);
            } else {
                lost(&mut next);
            }
            "fence: tasks.started"
        }
        Pod::Reported => {
            ends(setup, &mut next, slot, job::ENDED_TASK);
            "pod exits"
        }
    };
    push(next, label, true, fault);
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
    out.push(Next {
        state: next,
        label: "a dead pod's call arrives",
        progress: true,
        fault: None,
    });
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
    } else if state.taken_back {
        fault = Some(Fault::RanTakenBack);
    }
    let cluster = job_of(setup, slot) / 2;
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

fn agent_runs(state: &State) -> bool {
    state.agent >= Agent::Started
}

/// A plain agent's run begins while controllers are between a live read and the write that rests on it.
fn foreign_start(next: &mut State) {
    for controller in &mut next.controllers {
        if matches!(
            controller.pc,
            Pc::SettleWrite | Pc::ReturnDequeue | Pc::GiveUpDequeue | Pc::Dequeue
        ) {
            controller.bits |= bit::FOREIGN_START;
        }
    }
}

/// How a run comes to its end: by itself, or because it notices that the task is no longer its own.
fn pod_ends(setup: &Setup, state: &State, slot: usize, out: &mut Vec<Next>) {
    let me = u8::try_from(job_of(setup, slot)).unwrap() + 1;
    let mine = state.status == S::InProgress && state.mark == me;
    let mut report = |status, label| {
        let mut next = *state;
        next.end(status);
        next.pods[slot] = PodSlot {
            life: Pod::Reported,
            bits: 0,
        };
        out.push(Next {
            state: next,
            label,
            progress: true,
            fault: None,
        });
    };
    if mine && state.stopping {
        report(S::Stopped, "run ends on an abort");
    } else if mine {
        for &status in setup.ends {
            report(status, "run ends by itself and reports");
        }
    } else {
        let mut next = *state;
        ends(setup, &mut next, slot, job::ENDED_LOST);
        out.push(Next {
            state: next,
            label: "run notices that the task is not its own",
            progress: true,
            fault: None,
        });
    }
}

/// Appends all that the plain agent can do next.
pub fn agent_steps(setup: &Setup, state: &State, out: &mut Vec<Next>) {
    if !setup.agent {
        return;
    }
    let mut next = *state;
    let mut fault = None;
    let mut progress = true;
    let label = match state.agent {
        Agent::Idle => {
            if !next.remove(USER) {
                return;
            }
            progress = false;
            if state.status == S::Stopped {
                next.status = S::Queued;
                next.touched = true;
                if state.taken_back && !state.limit_double {
                    fault = Some(Fault::RanTakenBack);
                }
            }
            if state.status != S::Gone {
                next.agent = Agent::Popped;
            }
            "agent pops"
        }
        Agent::Popped => {
            next.agent_bits = 0;
            if next.started(true) {
                next.agent = Agent::Started;
                if state.agent_bits & bit::USER_ENQUEUED != 0 {
                    next.limit_double = true;
                }
                foreign_start(&mut next);
                let pod_runs = state
                    .pods
                    .iter()
                    .any(|pod| pod.life == Pod::Running && pod.bits & bit::REVOKED == 0);
                if pod_runs && !next.limit_double {
                    fault = Some(Fault::DoubleRun);
                }
                // It stays inside its step until the first report.
                next.agent_bits =
                    state.agent_bits & (bit::STALE | bit::STALE_OTHER | bit::STALE_END);
            } else {
                next.agent = Agent::Idle;
            }
            "agent starts the task with force"
        }
        Agent::Started => {
            next.report(AGENT);
            // The first report of a run that the user has replaced hides who runs the task now: a known limit.
            next.limit_watchdog |= state.agent_bits & bit::USER_ENQUEUED != 0;
            next.agent = Agent::Running;
            next.agent_bits = state.agent_bits & bit::REVOKED;
            "agent reports"
        }
        Agent::Running => {
            // It asks for the status alone. What it writes over a run that replaced it would be its own fault.
            let mine = state.status == S::InProgress
                && (state.stopping || state.agent_bits & bit::REVOKED == 0);
            next.agent = Agent::Idle;
            next.agent_bits = 0;
            if mine && !state.stopping {
                for &status in setup.ends {
                    let mut ended = next;
                    ended.end(status);
                    out.push(Next {
                        state: ended,
                        label: "agent's run ends",
                        progress: true,
                        fault: None,
                    });
                }
                return;
            }
            if mine {
                next.end(S::Stopped);
            }
            "agent's run stops"
        }
    };
    out.push(Next {
        state: next,
        label,
        progress,
        fault,
    });
}

/// Appends all that the user can do next, and the server's watchdog where a known limit calls for it.
pub fn user_steps(setup: &Setup, state: &State, out: &mut Vec<Next>) {
    let nobody_runs = !agent_runs(state) && state.pods.iter().all(|pod| pod.life != Pod::Running);
    if state.limit_watchdog && state.status == S::InProgress && nobody_runs {
        let mut next = *state;
        next.end(S::Stopped);
        out.push(Next {
            state: next,
            label: "server's watchdog",
            progress: true,
            fault: None,
        });
    }
    match state.user {
        User::Idle => {}
        User::Enqueue => return out.push(user_enqueues(state)),
        User::Rest => {
            let mut next = *state;
            next.leave_others(USER);
            next.user = User::Idle;
            next.user_bits = 0;
            return out.push(Next {
                state: next,
                label: "user's enqueue removes the others",
                progress: true,
                fault: None,
            });
        }
    }
    if state.actions_left == 0 {
        return;
    }
    for &action in setup.actions {
        let mut next = *state;
        next.actions_left -= 1;
        let open = matches!(state.status, S::Queued | S::InProgress);
        let label = match action {
            Action::Abort if open => {
                next.stop();
                take_back(&mut next, Pod::Marked);
                "user aborts"
            }
            Action::Reset if !matches!(state.status, S::Gone | S::Created) => {
                next.reset();
                take_back(&mut next, Pod::Read);
                "user resets"
            }
            Action::ResetAndEnqueue if state.status != S::Gone && !state.queue_deleted => {
                next.reset();
                take_back(&mut next, Pod::Read);
                next.user = User::Enqueue;
                "user resets, to enqueue again"
            }
            Action::Enqueue
                if !state.queue_deleted
                    && matches!(
                        state.status,
                        S::Created | S::Queued | S::Stopped | S::Failed
                    ) =>
            {
                let mut done = user_enqueues(&next);
                done.label = "user enqueues";
                out.push(done);
                continue;
            }
            Action::Dequeue if open => {
                next.dequeue(None, Reason::Other);
                let first = !job::there(state.jobs[1]) && !job::there(state.jobs[3]);
                if next.status == S::Queued && first && job::there(state.jobs[0] | state.jobs[2]) {
                    // Enqueued twice, then dequeued once: a first attempt goes on, a known limit.
                    out.push(Next {
                        state: next,
                        label: "user dequeues",
                        progress: false,
                        fault: None,
                    });
                    continue;
                }
                take_back(&mut next, Pod::Read);
                if next.status == S::Queued {
                    // A known limit: whoever is inside a step may enqueue it again, and cannot tell.
                    for controller in next.controllers.iter_mut().filter(|c| c.pc != Pc::Idle) {
                        controller.bits |= bit::TAKEN_BACK;
                    }
                }
                "user dequeues"
            }
            Action::Delete if state.status != S::Gone => {
                next.delete();
                take_back(&mut next, Pod::Read);
                "user deletes the task"
            }
            Action::DeleteJob => {
                for j in 0..JOBS {
                    let mut deleted = next;
                    if job::there(state.jobs[j]) && state.jobs[j] & job::DELETING == 0 {
                        delete_job(setup, &mut deleted, j);
                        out.push(Next {
                            state: deleted,
                            label: "user deletes the Job",
                            progress: false,
                            fault: None,
                        });
                    }
                }
                continue;
            }
            Action::ClearPending if state.entries & !USER != 0 => {
                next.entries &= USER;
                "user clears the pending queue"
            }
            Action::DeleteQueue if state.entries & USER == 0 && !state.queue_deleted => {
                next.queue_deleted = true;
                "user deletes the queue"
            }
            _ => continue,
        };
        out.push(Next {
            state: next,
            label,
            progress: false,
            fault: None,
        });
    }
}

/// The user's enqueue, as far as it is one: what it means for those inside a step is remembered.
fn user_enqueues(state: &State) -> Next {
    let mut next = *state;
    let added = next.enqueue(USER, false, Reason::Other);
    next.user = if added { User::Rest } else { User::Idle };
    next.user_bits = 0;
    if added || next.status == S::Queued {
        next.taken_back = false;
    }
    for controller in &mut next.controllers {
        if controller.pc != Pc::Idle {
            controller.bits |= bit::USER_ENQUEUED;
        }
    }
    for pod in &mut next.pods {
        if pod.life.in_fence().is_some() {
            pod.bits |= bit::USER_ENQUEUED;
        }
    }
    if matches!(next.agent, Agent::Popped | Agent::Started) {
        next.agent_bits |= bit::USER_ENQUEUED;
    }
    Next {
        state: next,
        label: "user's enqueue adds the entry",
        progress: true,
        fault: None,
    }
}

/// The task is taken back: runs are revoked; a pod past `from` in its fence may, by a known limit, undo that.
fn take_back(next: &mut State, from: Pod) {
    next.taken_back = true;
    for pod in &mut next.pods {
        if pod.life == Pod::Running {
            pod.bits |= bit::REVOKED;
        } else if pod.life.in_fence().is_some_and(|life| life >= from) {
            pod.bits |= bit::TAKEN_BACK;
        }
    }
    if agent_runs(next) {
        next.agent_bits |= bit::REVOKED;
    }
    for controller in &mut next.controllers {
        if controller.pc == Pc::ReturnDequeue {
            controller.bits |= bit::TAKEN_BACK;
        }
    }
}
