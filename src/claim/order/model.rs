//! In which order tasks go, said in other words than the rules: what the rules alone and a whole cluster are compared
//! with. The scenarios take this file in as theirs, so it names nothing of this crate.

use std::cmp::Reverse;
use std::collections::HashMap;

/// How queues share a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    List,
    Ring,
    Weights,
}

/// Whose turn it is. Queues are numbers: their places in the binding's list.
#[derive(Debug, Clone)]
pub struct Rota {
    by: By,
    weights: Vec<i64>,
    owed: Vec<i64>,
    last: Option<usize>,
}

impl Rota {
    pub fn new(by: By, weights: Vec<i64>) -> Self {
        Self {
            by,
            owed: vec![0; weights.len()],
            weights,
            last: None,
        }
    }

    /// Which of those that wait goes next.
    pub fn next_of(&self, waiting: &[usize]) -> Option<usize> {
        let (all, behind) = (self.owed.len(), self.last.map_or(0, |last| last + 1));
        let waiting = waiting.iter().copied();
        match self.by {
            By::List => waiting.min(),
            By::Ring => waiting.min_by_key(|queue| (queue + all - behind) % all),
            // With what it is owed for this task too; the first in the list wins a tie.
            By::Weights => waiting.max_by_key(|queue| {
                let owed = self.owed[*queue] + self.weights[*queue];
                (owed, Reverse(*queue))
            }),
        }
    }

    /// A task of this queue goes: everybody who waits is owed its weight for that, and who goes has had one task's worth
    /// of all those weights.
    pub fn goes(&mut self, queue: usize, waiting: &[usize]) {
        for other in waiting {
            self.owed[*other] += self.weights[*other];
            self.owed[queue] -= self.weights[*other];
        }
        self.last = Some(queue);
    }

    /// The same before its turn, which stays whose it was.
    pub fn goes_early(&mut self, queue: usize, waiting: &[usize]) {
        let last = self.last;
        self.goes(queue, waiting);
        self.last = last;
    }
}

/// A task: how much it asks for of the one resource that there is, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub number: u32,
    pub size: i64,
    pub user: usize,
}

/// What a binding says of order and room.
#[derive(Debug, Clone)]
pub struct Spec {
    pub by: By,
    /// One for each queue.
    pub weights: Vec<i64>,
    pub lookahead: usize,
    /// All that its tasks may have at the same time.
    pub room: i64,
    /// How many of its tasks may run at the same time, and how many of one user.
    pub most: Option<usize>,
    pub each_user: Option<usize>,
}

/// What becomes of a task that is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Goes,
    /// It does not fit.
    Stays,
    /// Its user has enough.
    IsPassedOver,
}

/// Those of a queue that were tried in a pass, from its first on.
type Tried = Vec<(Task, Fate)>;

/// A binding: what waits in its queues and what runs, each in order.
#[derive(Debug, Clone)]
pub struct Model {
    spec: Spec,
    rota: Rota,
    pub waiting: Vec<Vec<Task>>,
    pub running: Vec<Task>,
    /// Those that have waited beyond the bound of aging, the oldest first.
    pub aged: Vec<u32>,
    /// How often tasks were overtaken in passes before.
    overtaken: HashMap<u32, usize>,
}

impl Model {
    pub fn new(spec: Spec, waiting: Vec<Vec<Task>>) -> Self {
        Self {
            rota: Rota::new(spec.by, spec.weights.clone()),
            spec,
            waiting,
            running: Vec::new(),
            aged: Vec::new(),
            overtaken: HashMap::new(),
        }
    }

    /// One pass: who goes, in order. Each queue is gone through once; a task goes if it fits what is left and everybody
    /// before it who stays may still be overtaken. One that is aged is next, whoever's turn it is; nobody goes before it
    /// while the tasks that run take its room, and nobody of its queue where it can never go.
    pub fn pass(&mut self) -> Vec<u32> {
        let mut tried: Vec<Tried> = vec![Vec::new(); self.waiting.len()];
        let mut gone = Vec::new();
        loop {
            let is_open = |queue: &usize| {
                let tried = &tried[*queue];
                tried.len() < self.waiting[*queue].len() && self.may_try_more(tried)
            };
            let open: Vec<usize> = (0..tried.len()).filter(is_open).collect();
            let oldest = self.oldest(&open, &tried);
            let Some(queue) = oldest.or_else(|| self.rota.next_of(&open)) else {
                break;
            };
            let task = self.waiting[queue][tried[queue].len()];
            let fate = self.fate(task);
            tried[queue].push((task, fate));
            match fate {
                Fate::Goes => {
                    if oldest.is_some() {
                        self.rota.goes_early(queue, &open);
                    } else {
                        self.rota.goes(queue, &open);
                    }
                    self.running.push(task);
                    gone.push(task.number);
                }
                // The room that gets free is kept for it.
                Fate::Stays if self.is_aged(task) && task.size <= self.spec.room => break,
                Fate::Stays | Fate::IsPassedOver => {}
            }
        }
        for tried in &tried {
            for (place, task) in stayed(tried) {
                *self.overtaken.entry(task.number).or_default() += goers(&tried[place..]);
            }
        }
        for queue in &mut self.waiting {
            queue.retain(|task| !gone.contains(&task.number));
        }
        gone
    }

    /// Passes until nobody goes any more: who goes, in order.
    pub fn settle(&mut self) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            let gone = self.pass();
            if gone.is_empty() {
                return all;
            }
            all.extend(gone);
        }
    }

    /// The task is over, or its user has taken it out of its queue.
    pub fn end(&mut self, number: u32) {
        for tasks in self.waiting.iter_mut().chain([&mut self.running]) {
            tasks.retain(|task| task.number != number);
        }
    }

    fn is_aged(&self, task: Task) -> bool {
        self.aged.contains(&task.number)
    }

    /// Of these queues the one whose next task has waited longest, of those whose next task is aged.
    fn oldest(&self, open: &[usize], tried: &[Tried]) -> Option<usize> {
        let age = |queue: usize| {
            let next = self.waiting[queue][tried[queue].len()];
            self.aged.iter().position(|number| *number == next.number)
        };
        let aged = open.iter().filter_map(|queue| Some((age(*queue)?, *queue)));
        aged.min().map(|(_, queue)| queue)
    }

    /// Whether another one may be tried behind these: behind an aged one that stays nobody.
    fn may_try_more(&self, tried: &[(Task, Fate)]) -> bool {
        let lookahead = self.spec.lookahead;
        let Some((first, _)) = stayed(tried).next() else {
            return true;
        };
        let counts = |(_, fate): &&(Task, Fate)| *fate != Fate::IsPassedOver;
        let behind = tried[first + 1..].iter().filter(counts).count();
        let often = |(place, task): (usize, Task)| {
            let before = self.overtaken.get(&task.number).copied();
            before.unwrap_or_default() + goers(&tried[place..])
        };
        let is_open = |one: (usize, Task)| often(one) < lookahead && !self.is_aged(one.1);
        behind < lookahead && stayed(tried).all(is_open)
    }

    fn fate(&self, task: Task) -> Fate {
        let is_theirs = |other: &&Task| other.user == task.user;
        let of_user = self.running.iter().filter(is_theirs).count();
        let used: i64 = self.running.iter().map(|other| other.size).sum();
        let is_full = self
            .spec
            .most
            .is_some_and(|most| self.running.len() >= most);
        if self.spec.each_user.is_some_and(|most| of_user >= most) {
            Fate::IsPassedOver
        } else if is_full || used + task.size > self.spec.room {
            Fate::Stays
        } else {
            Fate::Goes
        }
    }
}

/// Those that do not fit, with their places.
fn stayed(tried: &[(Task, Fate)]) -> impl Iterator<Item = (usize, Task)> {
    let places = tried.iter().enumerate();
    places.filter_map(|(place, (task, fate))| (*fate == Fate::Stays).then_some((place, *task)))
}

fn goers(tried: &[(Task, Fate)]) -> usize {
    let goes = |(_, fate): &&(Task, Fate)| *fate == Fate::Goes;
    tried.iter().filter(goes).count()
}
