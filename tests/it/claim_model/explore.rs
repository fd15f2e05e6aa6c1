//! Breadth-first exploration: all interleavings of the actors, their faults, and what never comes to an end.
#![expect(clippy::unwrap_used, reason = "numbers of states and Jobs are small")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::controller::{self, cluster_of};
use super::people;
use super::pods;
use super::setup::{Fault, Next, Setup, Variant};
use super::view::{Memo, started};
use super::world::{Agent, Pc, Pod, S, State, USER, User, bit, job};

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

/// Quick, and good enough for states.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 29;
    }
}

struct Graph {
    states: Vec<State>,
    index: HashMap<State, u32, BuildHasherDefault<Mix>>,
    reached: BTreeSet<&'static str>,
    /// Addresses of the labels in `reached`: quicker to compare.
    labels: HashSet<usize, BuildHasherDefault<Mix>>,
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
        index: HashMap::default(),
        reached: BTreeSet::new(),
        labels: HashSet::default(),
        parents: vec![(0, "start")],
        progress: Vec::new(),
        offsets: vec![0],
    };
    graph.index.insert(start, 0);
    let mut transitions = 0;
    let mut out = Vec::new();
    let mut at = 0;
    while at < graph.states.len() {
        let state = graph.states[at];
        successors(setup, &mut memo, &state, &mut out);
        transitions += out.len();
        for next in out.drain(..) {
            let number = graph.number(next.state, at, next.label);
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
        reached: graph.reached.clone(),
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
    for next in out.iter_mut() {
        note_changes(setup, state, &mut next.state);
    }
}

/// Whoever is inside a step has made its first read before what has just changed.
fn note_changes(setup: &Setup, before: &State, after: &mut State) {
    let task = after.touched
        || before.status != after.status
        || before.stopping != after.stopping
        || before.reason != after.reason
        || before.enqueue_status != after.enqueue_status
        || before.exec != after.exec
        || before.mark != after.mark
        || before.last_worker != after.last_worker
        || before.queue_deleted != after.queue_deleted;
    if after.touched {
        for controller in after.controllers.iter_mut().filter(|c| c.pc > Pc::Looked) {
            controller.bits |= bit::WRITTEN;
        }
    }
    after.touched = false;
    let entry = before.entries != after.entries;
    let mut stale = 0;
    for cluster in 0..setup.clusters {
        let jobs = (2 * cluster..2 * cluster + 2).any(|j| {
            before.jobs[j] != after.jobs[j] || started(before, setup, j) != started(after, setup, j)
        });
        if !(task || entry || jobs) {
            continue;
        }
        stale |= bit::STALE << cluster;
        for me in 0..setup.controllers {
            if (task || jobs)
                && cluster_of(setup, me) == cluster
                && after.controllers[me].pc == Pc::Looked
            {
                after.controllers[me].bits &= !bit::QUIET;
            }
        }
    }
    if setup.variant == Variant::ReleaseAfterEnd {
        let ended = |s: &State| s.jobs.iter().filter(|&&j| job::ended(j)).count();
        if ended(after) > ended(before) {
            stale |= bit::STALE_END;
        }
    }
    if setup.variant == Variant::NoQuietTime {
        stale = 0;
    }
    if stale == 0 {
        return;
    }
    for controller in after.controllers.iter_mut().filter(|c| c.pc != Pc::Idle) {
        controller.bits |= stale;
    }
    for pod in after
        .pods
        .iter_mut()
        .filter(|p| p.life.in_fence().is_some())
    {
        pod.bits |= stale;
    }
    if matches!(after.agent, Agent::Popped | Agent::Started) {
        after.agent_bits |= stale;
    }
    if after.user != User::Idle {
        after.user_bits |= stale;
    }
}

/// Whether nothing is left to do here: the task has ended and all traces are gone, or it waits for an attempt that the
/// model has no room for.
fn is_end(setup: &Setup, state: &State) -> bool {
    let idle = state.controllers.iter().all(|c| c.pc == Pc::Idle)
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
            state.entries == USER
                && state.jobs.iter().all(|&j| !job::there(j) || job::ended(j))
                && (0..setup.clusters).all(|cluster| !has_room(setup, state, cluster))
        }
        S::Created | S::Stopped | S::Failed | S::Completed | S::Gone => {
            // An entry that the user made while the fence passed stays where it is: it is the user's.
            state.entries & !USER == 0 && state.jobs.iter().all(|&j| settled(j))
        }
    }
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
    fn number(&mut self, state: State, from: usize, label: &'static str) -> u32 {
        if self.labels.insert(label.as_ptr().addr()) {
            self.reached.insert(label);
        }
        let new = u32::try_from(self.states.len()).unwrap();
        let number = *self.index.entry(state).or_insert(new);
        if number == new {
            self.states.push(state);
            if state.pods[1].life == Pod::Running {
                self.reached.insert(SECOND_RUN);
            }
            self.parents.push((u32::try_from(from).unwrap(), label));
        }
        number
    }

    /// How many end states there are, and the first state that reaches none.
    fn ends(&self, setup: &Setup) -> (usize, Option<usize>) {
        let count = self.states.len();
        let mut first = vec![0u32; count + 1];
        for &to in &self.progress {
            first[to as usize + 1] += 1;
        }
        for i in 0..count {
            first[i + 1] += first[i];
        }
        let mut sources = vec![0u32; self.progress.len()];
        let mut filled = first.clone();
        for from in 0..count {
            for edge in self.offsets[from]..self.offsets[from + 1] {
                let to = self.progress[edge as usize] as usize;
                sources[filled[to] as usize] = u32::try_from(from).unwrap();
                filled[to] += 1;
            }
        }
        let mut reached = vec![false; count];
        let mut open: Vec<usize> = (0..count)
            .filter(|&i| is_end(setup, &self.states[i]))
            .collect();
        let ends = open.len();
        for &end in &open {
            reached[end] = true;
        }
        while let Some(to) = open.pop() {
            for edge in first[to]..first[to + 1] {
                let from = sources[edge as usize] as usize;
                if !reached[from] {
                    reached[from] = true;
                    open.push(from);
                }
            }
        }
        (ends, reached.iter().position(|&r| !r))
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
