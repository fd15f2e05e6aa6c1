//! Breadth-first exploration: all interleavings of the actors, their faults, and what never comes to an end.
#![expect(clippy::unwrap_used, reason = "numbers of states and Jobs are small")]

use std::collections::BTreeSet;

use super::changes::note_changes;
use super::controller;
use super::index::{Index, Labels};
use super::people;
use super::pods;
use super::setup::{Fault, Next, Setup};
use super::view::Memo;
use super::world::{Agent, Controller, Pc, Pod, S, State, USER, User, job};

/// Reached when the second attempt's user code runs.
pub const SECOND_RUN: &str = "attempt 2 runs";

/// What an exploration found.
pub struct Found {
    pub states: usize,
    pub transitions: usize,
    pub ends: usize,
    /// Labels of all transitions that led to a new state, and what else was reached.
    pub reached: BTreeSet<&'static str>,
    /// Different observations that the real `decide` answered.
    pub observations: usize,
    /// The first fault, with the shortest way to it.
    pub fault: Option<(Fault, String)>,
}

struct Graph {
    states: Vec<State>,
    index: Index,
    labels: Labels,
    /// How a state was reached first.
    parents: Vec<(u32, &'static str)>,
    /// Edges that count as progress, in the order of their sources.
    progress: Vec<u32>,
    offsets: Vec<u32>,
}

/// Explores everything that can happen in this setup.
pub fn explore(setup: &Setup) -> Found {
    let mut memo = Memo::default();
    let start = State::enqueued(setup.budget);
    let mut graph = Graph {
        states: vec![start],
        index: Index::new(),
        labels: Labels::new(),
        parents: vec![(0, "start")],
        progress: Vec::new(),
        offsets: vec![0],
    };
    graph.index.number(start.packed());
    let mut transitions = 0;
    let mut out = Vec::new();
    let mut at = 0;
    while at < graph.states.len() {
        let state = graph.states[at];
        successors(setup, &mut memo, &state, &mut out);
        transitions += out.len();
        // Slices and plain loops here and in what each transition passes: iterators, where nothing is optimised, would
        // take most of the time.
        let all = out.as_slice();
        let mut i = 0;
        while i < all.len() {
            let next = &all[i];
            i += 1;
            let number = graph.number(&next.state, at, next.label);
            if let Some(fault) = next.fault {
                // The way to `at`, then this transition: the state may have been reached without a fault before.
                let way = format!(
                    "{}\n  {}: {}",
                    graph.way(at),
                    next.label,
                    shown(&next.state)
                );
                return found(&graph, transitions, 0, &memo, Some((fault, way)));
            }
            if next.progress {
                graph.progress.push(number);
            }
        }
        out.clear();
        graph
            .offsets
            .push(u32::try_from(graph.progress.len()).unwrap());
        at += 1;
    }
    let (ends, stands) = graph.ends(setup);
    let fault = stands.map(|number| (Fault::Stands, graph.way(number)));
    found(&graph, transitions, ends, &memo, fault)
}

fn found(
    graph: &Graph,
    transitions: usize,
    ends: usize,
    memo: &Memo,
    fault: Option<(Fault, String)>,
) -> Found {
    Found {
        states: graph.states.len(),
        transitions,
        ends,
        reached: graph.labels.reached.clone(),
        observations: memo.asked,
        fault,
    }
}

fn successors(setup: &Setup, memo: &mut Memo, state: &State, out: &mut Vec<Next>) {
    for me in 0..setup.controllers {
        controller::steps(setup, memo, state, me, out);
    }
    for slot in 0..state.pods.len() {
        pods::pod_steps(setup, state, slot, out);
    }
    people::agent_steps(setup, state, out);
    people::user_steps(setup, state, out);
    let all = out.as_mut_slice();
    let mut i = 0;
    while i < all.len() {
        note_changes(setup, state, &mut all[i].state);
        i += 1;
    }
}

/// Whether nothing is left to do here: the task has ended and all traces are gone, or it waits for an attempt that the
/// model has no room for.
fn is_end(setup: &Setup, state: &State) -> bool {
    let idle = |controller: Controller| matches!(controller.pc, Pc::Idle);
    let [one, other] = state.controllers;
    // The cheapest question first: it is asked of each state.
    let idle = idle(one)
        && idle(other)
        && state.agent == Agent::Idle
        && state.user == User::Idle
        && state.pods.iter().all(|pod| pod.life == Pod::None);
    if !idle {
        return false;
    }
    let settled = |j: u8| !job::there(j) || (job::ended(j) && j & job::SETTLED != 0);
    match state.status {
        S::InProgress => false,
        S::Queued => {
            is_offered(setup, state)
                && state.jobs.iter().all(|&j| !job::there(j) || job::ended(j))
                && (0..setup.clusters).all(|cluster| !has_room(setup, state, cluster))
        }
        S::Created | S::Stopped | S::Failed | S::Completed | S::Gone => {
            // An entry that the user made while the fence passed stays where it is: it is the user's.
            state.entries & !USER == 0 && state.jobs.iter().all(|&j| settled(j))
        }
    }
}

/// Whether its entry stands in the user's queue: alone, but for one that a server which died has left elsewhere. The
/// attempt that the model has no room for would find that one in its own pending queue, and use it.
fn is_offered(setup: &Setup, state: &State) -> bool {
    state.entries == USER || (setup.server_dies && state.entries & USER != 0)
}

/// Whether a cluster could still intend: one attempt more than the highest of Jobs, mark and last worker.
fn has_room(setup: &Setup, state: &State, cluster: usize) -> bool {
    (0..2).all(|attempt| {
        let j = 2 * cluster + attempt;
        let name = u8::try_from(j + 1).unwrap();
        let used = job::there(state.jobs[j]) || state.mark == name || state.last_worker == name;
        !used || attempt + 1 < setup.attempts
    })
}

impl Graph {
    fn number(&mut self, state: &State, from: usize, label: &'static str) -> u32 {
        self.labels.reach(label);
        let (number, is_new) = self.index.number(state.packed());
        if is_new {
            self.states.push(*state);
            if state.pods[1].life == Pod::Running {
                self.labels.reach(SECOND_RUN);
            }
            self.parents.push((u32::try_from(from).unwrap(), label));
        }
        number
    }

    /// How many end states there are, and the first state that reaches none.
    fn ends(&self, setup: &Setup) -> (usize, Option<usize>) {
        let count = self.states.len();
        let (first, sources) = self.backwards();
        let (first, sources) = (first.as_slice(), sources.as_slice());
        let mut reached = vec![false; count];
        let mut open: Vec<usize> = (0..count)
            .filter(|&i| is_end(setup, &self.states[i]))
            .collect();
        let ends = open.len();
        let marks = reached.as_mut_slice();
        for &end in &open {
            marks[end] = true;
        }
        while let Some(to) = open.pop() {
            let mut edge = first[to] as usize;
            while edge < first[to + 1] as usize {
                let from = sources[edge] as usize;
                edge += 1;
                if !marks[from] {
                    marks[from] = true;
                    open.push(from);
                }
            }
        }
        (ends, reached.iter().position(|&r| !r))
    }

    /// The edges of progress by where they lead: the first of each state, and one more; and where each comes from.
    fn backwards(&self) -> (Vec<u32>, Vec<u32>) {
        let count = self.states.len();
        let (progress, offsets) = (self.progress.as_slice(), self.offsets.as_slice());
        let mut first = vec![0u32; count + 1];
        let sums = first.as_mut_slice();
        let mut edge = 0;
        while edge < progress.len() {
            sums[progress[edge] as usize + 1] += 1;
            edge += 1;
        }
        let mut i = 0;
        while i < count {
            sums[i + 1] += sums[i];
            i += 1;
        }
        let mut sources = vec![0u32; progress.len()];
        let places = sources.as_mut_slice();
        let mut filled = first.clone();
        let filled = filled.as_mut_slice();
        let mut from = 0;
        while from < count {
            let mut edge = offsets[from] as usize;
            while edge < offsets[from + 1] as usize {
                let to = progress[edge] as usize;
                places[filled[to] as usize] = u32::try_from(from).unwrap();
                filled[to] += 1;
                edge += 1;
            }
            from += 1;
        }
        (first, sources)
    }

    /// The shortest way to a state, one transition a line.
    fn way(&self, to: usize) -> String {
        let mut lines = Vec::new();
        let mut at = to;
        loop {
            let (from, label) = self.parents[at];
            lines.push(format!("  {label}: {}", shown(&self.states[at])));
            if at == 0 {
                break;
            }
            at = from as usize;
        }
        lines.reverse();
        lines.join("\n")
    }
}

/// A state in one line, without what is at rest.
fn shown(s: &State) -> String {
    use std::fmt::Write;
    let mut line = format!("{:?}", s.status);
    if s.stopping {
        line += " stopping";
    }
    let _ = write!(
        line,
        " entries {:03b} mark {} worker {} reason {:?}",
        s.entries, s.mark, s.last_worker, s.reason
    );
    let _ = write!(line, " before {:?} exec {:?}", s.enqueue_status, s.exec);
    for (j, packed) in s
        .jobs
        .iter()
        .enumerate()
        .filter(|(_, packed)| job::there(**packed))
    {
        let _ = write!(line, " job{}={packed:#010b}", j + 1);
    }
    for (slot, pod) in s
        .pods
        .iter()
        .enumerate()
        .filter(|(_, pod)| pod.life != Pod::None)
    {
        let _ = write!(line, " pod{}={:?}/{}", slot + 1, pod.life, pod.bits);
    }
    for (me, c) in s
        .controllers
        .iter()
        .enumerate()
        .filter(|(_, c)| c.pc != Pc::Idle)
    {
        let _ = write!(
            line,
            " controller{me}={:?}({} {:#b} {})",
            c.pc, c.job, c.seen, c.bits
        );
    }
    if s.agent != Agent::Idle {
        let _ = write!(line, " agent={:?}/{}", s.agent, s.agent_bits);
    }
    if s.user != User::Idle {
        let _ = write!(line, " user={:?}", s.user);
    }
    for (on, name) in [
        (s.taken_back, " taken-back"),
        (s.limit_double, " limit-double"),
        (s.limit_watchdog, " limit-watchdog"),
        (s.queue_deleted, " queue-deleted"),
    ] {
        if on {
            line += name;
        }
    }
    line
}
