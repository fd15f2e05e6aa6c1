//! The model's plain agent and user, and the server's watchdog.

use trainyard::claim::Reason;

use super::pods::delete_job;
use super::setup::{Action, Fault, Next, Setup};
use super::world::{AGENT, Agent, JOBS, Pc, Pod, PodSlot, S, State, USER, User, bit, job};

/// A plain agent is gone with what it popped.
pub const AGENT_DIES: &str = "agent dies between its pop and its start";

/// A user's enqueue has added its entry and is cut off.
pub const SERVER_DIES: &str = "server dies inside a user's enqueue";

/// Whether the agent's user code runs.
pub fn agent_runs(state: &State) -> bool {
    matches!(state.agent, Agent::Started | Agent::Running)
}

/// A run begins while controllers are between a live read and the write that rests on it. `own`: the controller, if
/// there is one, that has made the run.
pub fn foreign_start(next: &mut State, own: Option<usize>) {
    for (me, controller) in next.controllers.iter_mut().enumerate() {
        let writes = matches!(
            controller.pc,
            Pc::SettleWrite | Pc::ReturnDequeue | Pc::GiveUpDequeue | Pc::Dequeue
        );
        if writes && own != Some(me) {
            controller.bits |= bit::FOREIGN_START;
        }
    }
}

/// Appends all that the plain agent can do next.
pub fn agent_steps(setup: &Setup, state: &State, out: &mut Vec<Next>) {
    if !setup.agent {
        return;
    }
    match state.agent {
        Agent::Idle => agent_pops(state, out),
        Agent::Popped => {
            if setup.agent_dies {
                out.push(agent_dies(state));
            }
            agent_starts(state, out);
        }
        Agent::Started => {
            let mut next = *state;
            next.report(AGENT);
            // The first report of a run that the user has replaced hides who runs the task now: a known limit.
            next.limit_watchdog |= state.agent_bits & bit::USER_ENQUEUED != 0;
            next.agent = Agent::Running;
            next.agent_bits = state.agent_bits & bit::REVOKED;
            out.push(Next::on(next, "agent reports"));
        }
        Agent::Running => agent_ends(setup, state, out),
    }
}

fn agent_pops(state: &State, out: &mut Vec<Next>) {
    let mut next = *state;
    if !next.remove(USER) {
        return;
    }
    let mut fault = None;
    if state.status == S::Stopped {
        next.status = S::Queued;
        next.touched = true;
        fault = (state.taken_back && !state.limit_double).then_some(Fault::RanTakenBack);
    }
    if state.status != S::Gone {
        next.agent = Agent::Popped;
        if state.user == User::Rest {
            next.agent_bits |= bit::USER_ENQUEUED;
        }
    }
    out.push(Next {
        fault,
        ..Next::by_chance(next, "agent pops")
    });
}

/// What it leaves behind: the task is queued, in no queue, and nobody has a record of it.
fn agent_dies(state: &State) -> Next {
    let mut next = *state;
    next.agent = Agent::Idle;
    next.agent_bits = 0;
    Next::by_chance(next, AGENT_DIES)
}

fn agent_starts(state: &State, out: &mut Vec<Next>) {
    let mut next = *state;
    let mut fault = None;
    next.agent = Agent::Idle;
    next.agent_bits = 0;
    if next.started(true) {
        next.agent = Agent::Started;
        // It stays inside its step until the first report.
        next.agent_bits =
            state.agent_bits & (bit::STALE | bit::STALE_OTHER | bit::STALE_TASK | bit::STALE_END);
        next.limit_double |= state.agent_bits & bit::USER_ENQUEUED != 0;
        // It asks nobody: an abort since its pop is undone.
        next.taken_back = false;
        foreign_start(&mut next, None);
        let runs = |pod: &PodSlot| pod.life == Pod::Running && pod.bits & bit::REVOKED == 0;
        let double = state.pods.iter().any(runs) && !next.limit_double;
        fault = double.then_some(Fault::DoubleRun);
    }
    out.push(Next {
        fault,
        ..Next::on(next, "agent starts the task with force")
    });
}

fn agent_ends(setup: &Setup, state: &State, out: &mut Vec<Next>) {
    let mut next = *state;
    next.agent = Agent::Idle;
    next.agent_bits = 0;
    // It asks for the status alone. What it writes over a run that replaced it would be its own fault.
    let mine =
        state.status == S::InProgress && (state.stopping || state.agent_bits & bit::REVOKED == 0);
    if mine && !state.stopping {
        for &status in setup.ends {
            let mut ended = next;
            ended.end(status);
            out.push(Next::on(ended, "agent's run ends"));
        }
        return;
    }
    if mine {
        next.end(S::Stopped);
    }
    out.push(Next::on(next, "agent's run stops"));
}

/// Appends all that the user can do next, and the server's watchdog where a known limit calls for it.
pub fn user_steps(setup: &Setup, state: &State, out: &mut Vec<Next>) {
    watchdog(state, out);
    match state.user {
        User::Enqueue => out.push(Next::on(
            user_enqueues(state),
            "user's enqueue adds the entry",
        )),
        User::Rest => {
            if setup.server_dies && state.entries & !USER != 0 {
                out.push(enqueue_is_cut_off(setup, state));
            }
            let mut next = *state;
            next.leave_others(USER);
            next.user = User::Idle;
            next.user_bits = 0;
            out.push(Next::on(next, "user's enqueue removes the others"));
        }
        User::Idle if state.actions_left > 0 => {
            for &action in setup.actions {
                let mut before = *state;
                before.actions_left -= 1;
                user_acts(setup, &before, action, out);
            }
        }
        User::Idle => {}
    }
}

/// The server dies before it has removed the entries elsewhere: they stay, beside the user's.
fn enqueue_is_cut_off(setup: &Setup, state: &State) -> Next {
    let mut next = *state;
    next.user = User::Idle;
    next.user_bits = 0;
    // Each of them lets somebody run the task: a known limit, where there is somebody else.
    next.limit_double |= setup.agent || setup.controllers > 1;
    Next::by_chance(next, SERVER_DIES)
}

fn watchdog(state: &State, out: &mut Vec<Next>) {
    let limit = state.limit_watchdog || state.limit_double;
    if !limit || state.status != S::InProgress || agent_runs(state) {
        return;
    }
    if state.pods.iter().all(|pod| pod.life != Pod::Running) {
        let mut next = *state;
        next.end(S::Stopped);
        out.push(Next::on(next, "server's watchdog"));
    }
}

fn user_acts(setup: &Setup, state: &State, action: Action, out: &mut Vec<Next>) {
    let mut next = *state;
    let open = matches!(state.status, S::Queued | S::InProgress);
    let enqueues = matches!(
        state.status,
        S::Created | S::Queued | S::Stopped | S::Failed
    );
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
        Action::Enqueue if enqueues && !state.queue_deleted => {
            next = user_enqueues(state);
            "user enqueues"
        }
        Action::Dequeue if open => {
            next.dequeue(None, Reason::Other);
            user_dequeued(&mut next);
            "user dequeues"
        }
        Action::Delete if state.status != S::Gone => {
            next.delete();
            take_back(&mut next, Pod::Read);
            "user deletes the task"
        }
        Action::DeleteJob => return user_deletes_job(setup, state, out),
        Action::ClearPending if state.entries & !USER != 0 => {
            next.entries &= USER;
            "user clears the pending queue"
        }
        Action::DeleteQueue if state.entries & USER == 0 && !state.queue_deleted => {
            next.queue_deleted = true;
            "user deletes the queue"
        }
        _ => return,
    };
    out.push(Next::by_chance(next, label));
}

fn user_deletes_job(setup: &Setup, state: &State, out: &mut Vec<Next>) {
    for j in 0..JOBS {
        if job::there(state.jobs[j]) && state.jobs[j] & job::DELETING == 0 {
            let mut deleted = *state;
            delete_job(setup, &mut deleted, j);
            out.push(Next::by_chance(deleted, "user deletes the Job"));
        }
    }
}

/// What the user's dequeue means; of a task that was requeued it leaves `queued`, once.
fn user_dequeued(next: &mut State) {
    let first = !job::there(next.jobs[1]) && !job::there(next.jobs[3]);
    if next.status == S::Queued && first && job::there(next.jobs[0] | next.jobs[2]) {
        // Enqueued twice, then dequeued once: a first attempt goes on, a known limit.
        return;
    }
    take_back(next, Pod::Read);
    if next.status == S::Queued {
        // A known limit: whoever is inside a step may enqueue it again, and cannot tell.
        for controller in next.controllers.iter_mut().filter(|c| c.pc != Pc::Idle) {
            controller.bits |= bit::TAKEN_BACK;
        }
    }
}

/// The user's enqueue, as far as it is one: what it means for those inside a step is remembered.
fn user_enqueues(state: &State) -> State {
    let mut next = *state;
    let added = next.enqueue(USER, false, Reason::Other);
    next.user = if added { User::Rest } else { User::Idle };
    next.user_bits = 0;
    if added || next.status == S::Queued {
        next.taken_back = false;
    }
    for controller in next.controllers.iter_mut().filter(|c| c.pc != Pc::Idle) {
        controller.bits |= bit::USER_ENQUEUED;
    }
    for pod in next
        .pods
        .iter_mut()
        .filter(|pod| pod.life.in_fence().is_some())
    {
        pod.bits |= bit::USER_ENQUEUED;
    }
    if matches!(next.agent, Agent::Popped | Agent::Started) {
        next.agent_bits |= bit::USER_ENQUEUED;
    }
    next
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
