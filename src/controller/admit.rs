//! Admit: which offered tasks may be taken in this pass. Pure but for the turns that it is handed.

mod room;

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use crate::capacity::Ask;
use crate::claim::order::{self, Lane, Strategy, Turns};
use crate::task::{QueueId, TaskId};

pub(super) use room::{Room, Waiting, ask_of};

/// Whether a head of a queue may go.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Head {
    /// Offered, asks for this, and was overtaken so often.
    Ready { ask: Ask, overtaken: usize },
    /// Something else has to happen to this entry first; who stands behind it need not wait for that.
    Skip,
    /// It has to wait for something of its own; who stands behind it need not wait for that.
    Waits(Waiting),
    /// It is not known yet whether it may go; nobody of its queue goes before it.
    Hold,
}

/// Who goes, in order; and why the first of those who stay has to wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    pub tasks: Vec<TaskId>,
    /// Whose turn it was before each of them.
    turns: Vec<Turns>,
    pub waiting: Option<Waiting>,
    /// Tasks that were overtaken, and how often by now.
    pub overtaken: HashMap<TaskId, usize>,
}

impl Admitted {
    /// Whose turn it was before the first of those that were left to the next pass. They are admitted again, and their
    /// queues pay for that once: else queues whose tasks are always among the last would never have their turn.
    pub fn turns_before(&self, was_left: impl Fn(&TaskId) -> bool) -> Option<&Turns> {
        let place = self.tasks.iter().position(was_left)?;
        self.turns.get(place)
    }
}

/// One queue in the course of a pass.
struct Line {
    waiting: VecDeque<TaskId>,
    /// Those that cannot fit, and how often each was overtaken.
    blocked: Vec<(TaskId, usize)>,
    /// How many were tried behind the first of them.
    tried: usize,
}

impl Line {
    /// A try behind a task that cannot fit; the last one ends the line for this pass.
    fn count_try(&mut self, lookahead: usize) {
        if self.blocked.is_empty() {
            return;
        }
        self.tried += 1;
        let spent = self.blocked.iter().any(|(_, times)| *times >= lookahead);
        if spent || self.tried >= lookahead {
            self.waiting.clear();
        }
    }
}

/// By what tasks are picked.
pub(super) struct Rules<'a> {
    pub strategy: Strategy,
    pub lanes: &'a [Lane],
    /// How many tasks may be tried behind one that cannot fit.
    pub lookahead: usize,
    /// Tasks that have waited beyond the bound of aging, and since when.
    pub aged: &'a HashMap<TaskId, Timestamp>,
}

/// Picks tasks by the binding's strategy while there is room. A head that does not fit holds its own queue alone, but
/// for `lookahead` tasks behind it; one that its own user's or project's limit holds up is passed over. Nobody goes
/// before one that has waited beyond the bound of aging and that the binding's own limits hold up.
pub(super) fn admit(
    rules: &Rules<'_>,
    turns: &mut Turns,
    queues: HashMap<QueueId, VecDeque<TaskId>>,
    room: &mut Room,
    mut head: impl FnMut(&TaskId) -> Head,
) -> Admitted {
    let Rules {
        strategy,
        lanes,
        lookahead,
        aged,
    } = *rules;
    let mut lines: HashMap<QueueId, Line> = queues
        .into_iter()
        .map(|(queue, waiting)| {
            let line = Line {
                waiting,
                blocked: Vec::new(),
                tried: 0,
            };
            (queue, line)
        })
        .collect();
    let mut admitted = Admitted::default();
    let mut own = None;
    loop {
        let first = |queue: &QueueId| lines.get(queue)?.waiting.front();
        let next = order::next(
            strategy,
            lanes,
            turns,
            |queue| first(queue).is_some(),
            |queue| aged.get(first(queue)?).copied(),
        );
        let line = next.and_then(|(queue, after)| Some((lines.get_mut(queue)?, after)));
        let Some((line, after)) = line else { break };
        let Some(task) = line.waiting.front().cloned() else {
            break;
        };
        match head(&task) {
            Head::Skip => {
                line.waiting.pop_front();
            }
            Head::Waits(reason) => {
                line.waiting.pop_front();
                own.get_or_insert(reason);
            }
            Head::Hold => line.waiting.clear(),
            Head::Ready { ask, overtaken } => {
                line.waiting.pop_front();
                match room.fits(&ask) {
                    Ok(()) => {
                        room.occupy(&ask);
                        admitted.turns.push(std::mem::replace(turns, after));
                        admitted.tasks.push(task);
                        for (passed, times) in &mut line.blocked {
                            *times += 1;
                            admitted.overtaken.insert(passed.clone(), *times);
                        }
                        line.count_try(lookahead);
                    }
                    Err(reason) if reason.own => {
                        own.get_or_insert(reason);
                    }
                    Err(reason) => {
                        let holds_all = aged.contains_key(&task) && reason.is_of_limits();
                        admitted.waiting.get_or_insert(reason);
                        if holds_all {
                            break;
                        }
                        line.count_try(lookahead);
                        if overtaken >= lookahead || aged.contains_key(&task) {
                            line.waiting.clear();
                        }
                        line.blocked.push((task, overtaken));
                    }
                }
            }
        }
    }
    admitted.waiting = admitted.waiting.or(own);
    admitted
}

#[cfg(test)]
mod tests;
