//! Admit: which offered tasks may be taken in this pass. Pure.
//!
//! ```text
//! what is known of each task ──▶ Course::admit ──▶ who goes
//!     ▲                              │ a task whose turn it is has to be read first
//!     └────────── read ◀── Course::wanted: it, and those that come next
//! ```
//!
//! A pass is played from its beginning in each round, so that what goes is what would go if all were known. Where it
//! stops at a task that was not read, that task and all behind it are left to the next pass.

mod room;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::look::CANDIDATES;
use crate::capacity::Ask;
use crate::claim::order::{self, Lane, Strategy, Turns};
use crate::task::{QueueId, TaskId};

pub(super) use room::{Room, Waiting, ask_of};

/// So many times a pass reads tasks.
const ROUNDS: u32 = 4;
/// So many times as many of each queue as in the round before: what was read last did not tell enough.
const MORE: usize = 8;

/// What is known of a head of a queue.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Head {
    /// Nothing: it has to be read.
    Unread,
    /// In an earlier pass it asked for this; it was overtaken so often. Where that fits by now it has to be read again,
    /// for it may have been edited meanwhile.
    Known { ask: Arc<Ask>, overtaken: usize },
    /// It was read in this pass and asks for this; it was overtaken so often.
    Ready { ask: Arc<Ask>, overtaken: usize },
    /// Something else has to happen to this entry first; who stands behind it need not wait for that.
    Skip,
    /// It has to wait for something of its own; who stands behind it need not wait for that.
    Waits(Waiting),
    /// It is not known yet whether it may go; nobody of its queue goes before it.
    Hold,
}

/// What becomes of a head whose turn it is.
enum Fate {
    Goes(Arc<Ask>),
    /// It has to be read before more can be decided; what it asked for in an earlier pass.
    MustBeRead(Option<Arc<Ask>>),
    /// It does not fit, and was overtaken so often.
    Stays(Waiting, usize),
    /// Who stands behind it need not wait for it; why it waits itself.
    IsPassedOver(Option<Waiting>),
    /// Nobody of its queue goes before it.
    HoldsItsQueue,
}

impl Fate {
    fn of(head: Head, room: &Room) -> Self {
        let (ask, overtaken, is_read) = match head {
            Head::Unread => return Self::MustBeRead(None),
            Head::Known { ask, overtaken } => (ask, overtaken, false),
            Head::Ready { ask, overtaken } => (ask, overtaken, true),
            Head::Skip => return Self::IsPassedOver(None),
            Head::Waits(reason) => return Self::IsPassedOver(Some(reason)),
            Head::Hold => return Self::HoldsItsQueue,
        };
        match room.fits(&ask) {
            Ok(()) if is_read => Self::Goes(ask),
            Ok(()) => Self::MustBeRead(Some(ask)),
            Err(reason) if reason.own => Self::IsPassedOver(Some(reason)),
            Err(reason) => Self::Stays(reason, overtaken),
        }
    }
}

/// Who goes, in order; and why the first of those who stay has to wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    pub tasks: Vec<TaskId>,
    /// Whose turn it was before each of them, and is after the last.
    turns: Vec<Turns>,
    after: Turns,
    pub waiting: Option<Waiting>,
    /// Tasks that were overtaken, and by whom: places in `tasks`.
    overtaken: HashMap<TaskId, Vec<usize>>,
}

impl Admitted {
    /// One more goes, before those that are blocked; whose turn it was.
    fn add(&mut self, task: &TaskId, turns: Turns, blocked: &[(&TaskId, usize)]) {
        for (passed, _) in blocked {
            let by = self.overtaken.entry((*passed).clone()).or_default();
            by.push(self.tasks.len());
        }
        self.turns.push(turns);
        self.tasks.push(task.clone());
    }

    /// Whose turn it is once these have gone, or before the first of those that were left to the next pass. They are
    /// admitted again, and their queues pay for that once: else queues whose tasks are always among the last would never
    /// have their turn.
    pub fn turns_after(&self, was_left: impl Fn(&TaskId) -> bool) -> &Turns {
        let place = self.tasks.iter().position(was_left);
        let before = place.and_then(|place| self.turns.get(place));
        before.unwrap_or(&self.after)
    }

    /// Tasks that were overtaken, and how often: who was left to the next pass has overtaken nobody yet.
    pub fn overtaken(
        &self,
        has_gone: impl Fn(&TaskId) -> bool,
    ) -> impl Iterator<Item = (&TaskId, usize)> {
        self.overtaken.iter().map(move |(task, by)| {
            let gone = by.iter().filter(|place| has_gone(&self.tasks[**place]));
            (task, gone.count())
        })
    }
}

/// One queue in the course of a pass.
struct Line<'a> {
    /// Those that were not tried yet.
    waiting: &'a [TaskId],
    /// Those that cannot fit, and how often each was overtaken.
    blocked: Vec<(&'a TaskId, usize)>,
    /// How many were tried behind the first of them.
    tried: usize,
    /// How many of it have to be read.
    wanted: usize,
}

impl<'a> Line<'a> {
    fn of(waiting: &'a [TaskId]) -> Self {
        Self {
            waiting,
            blocked: Vec::new(),
            tried: 0,
            wanted: 0,
        }
    }

    /// The first one is done with.
    fn pass_on(&mut self) {
        self.waiting = self.waiting.get(1..).unwrap_or_default();
    }

    /// Nobody else of it goes in this pass.
    fn end(&mut self) {
        self.waiting = &[];
    }

    /// The first one goes, before those that are blocked.
    fn go(&mut self, lookahead: usize) {
        self.pass_on();
        for (_, times) in &mut self.blocked {
            *times += 1;
        }
        self.count_try(lookahead);
    }

    /// The first one stays, which was overtaken so often.
    fn block(&mut self, task: &'a TaskId, overtaken: usize, lookahead: usize) {
        self.pass_on();
        self.count_try(lookahead);
        if overtaken >= lookahead {
            self.end();
        }
        self.blocked.push((task, overtaken));
    }

    /// A try behind a task that cannot fit; the last one ends the line for this pass.
    fn count_try(&mut self, lookahead: usize) {
        if self.blocked.is_empty() {
            return;
        }
        self.tried += 1;
        let spent = self.blocked.iter().any(|(_, times)| *times >= lookahead);
        if spent || self.tried >= lookahead {
            self.end();
        }
    }
}

/// By what tasks are picked.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub strategy: Strategy,
    pub lanes: &'a [Lane],
    /// How many tasks may be tried behind one that cannot fit.
    pub lookahead: usize,
    /// Tasks that have waited beyond the bound of aging, and since when.
    pub aged: &'a HashMap<TaskId, Timestamp>,
}

/// Whose turn it is, and the turns after it has gone.
struct Turn<'a> {
    queue: &'a QueueId,
    task: &'a TaskId,
    after: Turns,
}

/// A pass, as far as it has come.
pub(super) struct Course<'a> {
    rules: Rules<'a>,
    lines: HashMap<&'a QueueId, Line<'a>>,
    turns: Turns,
    room: Room,
}

impl<'a> Course<'a> {
    /// Before anybody has gone.
    pub fn of(
        rules: Rules<'a>,
        queues: &'a HashMap<QueueId, Vec<TaskId>>,
        turns: Turns,
        room: Room,
    ) -> Self {
        let lines = queues.iter().map(|(queue, tasks)| (queue, Line::of(tasks)));
        Self {
            rules,
            lines: lines.collect(),
            turns,
            room,
        }
    }

    /// Picks tasks by the binding's strategy while there is room, up to one that has to be read. A head that does not fit
    /// holds its own queue alone, but for `lookahead` tasks behind it; one that its own user's or project's limit holds up
    /// is passed over. Nobody goes before one that has waited beyond the bound of aging and that the binding's own limits
    /// hold up.
    pub fn admit(&mut self, mut head: impl FnMut(&TaskId) -> Head) -> Admitted {
        let mut admitted = Admitted::default();
        let (mut own, mut same) = (None, None);
        while let Some(Turn { queue, task, after }) = same.take().or_else(|| self.turn()) {
            match Fate::of(head(task), &self.room) {
                Fate::Goes(ask) => {
                    let before = std::mem::replace(&mut self.turns, after);
                    let blocked = self.lines.get(queue).map(|line| line.blocked.as_slice());
                    admitted.add(task, before, blocked.unwrap_or_default());
                    self.go(queue, Some(&ask));
                }
                Fate::MustBeRead(_) => {
                    // It need not be where nobody goes any more.
                    if let Err(full) = self.room.full() {
                        admitted.waiting.get_or_insert(full);
                        self.lines.clear();
                    }
                    break;
                }
                Fate::Stays(reason, overtaken) => {
                    self.block(queue, task, overtaken, &reason);
                    admitted.waiting.get_or_insert(reason);
                }
                Fate::IsPassedOver(reason) => {
                    own = own.or(reason);
                    let behind = self.pass_over(queue);
                    same = behind.map(|task| Turn { queue, task, after });
                }
                Fate::HoldsItsQueue => self.hold(queue),
            }
        }
        admitted.waiting = admitted.waiting.or(own);
        admitted.after = self.turns.clone();
        admitted
    }

    /// Who has to be read, after those were admitted, before more can be decided: the task at which that has stopped, and
    /// those whose turn would come next if all went that may; of each queue as many as there are slots for, and in
    /// further rounds many more. Nobody once all is decided, enough go or enough was read.
    pub fn wanted(
        mut self,
        admitted: &Admitted,
        round: u32,
        head: impl Fn(&TaskId) -> Head,
    ) -> Vec<TaskId> {
        let mut wanted = Vec::new();
        if round >= ROUNDS || admitted.tasks.len() * 2 >= CANDIDATES {
            return wanted;
        }
        if round > 0 && self.room.is_grouped() {
            // Who does not fit now may be passed over when its turn comes: its user has enough by then.
            self.rules.lookahead = usize::MAX;
        }
        let slots = self.room.free().unwrap_or(CANDIDATES);
        let each = slots.saturating_mul(MORE.saturating_pow(round));
        while let Some(Turn { queue, task, after }) = self.turn() {
            match Fate::of(head(task), &self.room) {
                Fate::Goes(ask) => {
                    self.turns = after;
                    self.go(queue, Some(&ask));
                }
                Fate::MustBeRead(ask) => {
                    wanted.push(task.clone());
                    if wanted.len() >= CANDIDATES {
                        break;
                    }
                    self.turns = after;
                    self.go(queue, ask.as_deref());
                    self.want(queue, each);
                }
                Fate::Stays(reason, overtaken) => self.block(queue, task, overtaken, &reason),
                Fate::IsPassedOver(_) => {
                    self.pass_over(queue);
                }
                Fate::HoldsItsQueue => self.hold(queue),
            }
        }
        wanted
    }

    fn turn(&self) -> Option<Turn<'a>> {
        let Rules {
            strategy,
            lanes,
            aged,
            ..
        } = self.rules;
        let first = |queue: &QueueId| self.lines.get(queue)?.waiting.first();
        let (queue, after) = order::next(
            strategy,
            lanes,
            &self.turns,
            |queue| first(queue).is_some(),
            |queue| aged.get(first(queue)?).copied(),
        )?;
        let task = first(queue)?;
        Some(Turn { queue, task, after })
    }

    /// The first task of a queue goes, which asks for this, if that is known.
    fn go(&mut self, queue: &QueueId, ask: Option<&Ask>) {
        if let Some(ask) = ask {
            self.room.occupy(ask);
        }
        if let Some(line) = self.lines.get_mut(queue) {
            line.go(self.rules.lookahead);
        }
    }

    /// The first task of a queue does not fit.
    fn block(&mut self, queue: &QueueId, task: &'a TaskId, overtaken: usize, reason: &Waiting) {
        let is_aged = self.rules.aged.contains_key(task);
        if is_aged && reason.is_of_limits() {
            // The room that gets free is kept for it.
            self.lines.clear();
        } else if let Some(line) = self.lines.get_mut(queue) {
            line.block(task, overtaken, self.rules.lookahead);
            if is_aged {
                line.end();
            }
        }
    }

    /// The first task of a queue is passed over; answers the one behind it if it is that one's turn then, which does not
    /// change while nobody goes.
    fn pass_over(&mut self, queue: &QueueId) -> Option<&'a TaskId> {
        let line = self.lines.get_mut(queue)?;
        line.pass_on();
        let behind = line.waiting.first();
        behind.filter(|_| self.rules.aged.is_empty())
    }

    fn hold(&mut self, queue: &QueueId) {
        if let Some(line) = self.lines.get_mut(queue) {
            line.end();
        }
    }

    /// One more of a queue has to be read, of at most so many.
    fn want(&mut self, queue: &QueueId, most: usize) {
        if let Some(line) = self.lines.get_mut(queue) {
            line.wanted += 1;
            if line.wanted >= most {
                line.end();
            }
        }
    }
}

#[cfg(test)]
mod tests;
