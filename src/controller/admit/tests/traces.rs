//! Random traces, from the first pass to the last end: who goes after each end is what the model says, whatever was read
//! of the queues before.

use std::collections::HashSet;

use proptest::option::of as maybe;
use proptest::sample::select;

use super::*;

/// A binding that makes pass after pass by the rules: what waits, what runs, and what it remembers.
#[derive(Clone)]
struct Binding {
    spec: Spec,
    waiting: Vec<Vec<Task>>,
    running: Vec<Task>,
    turns: Turns,
    overtaken: HashMap<TaskId, usize>,
    /// Those that have waited beyond the bound of aging.
    aged: HashMap<TaskId, Timestamp>,
    /// Tasks that were read in some pass.
    known: HashSet<TaskId>,
}

/// What a pass has time for.
#[derive(Clone, Copy)]
struct Time {
    /// So many times it reads tasks.
    rounds: u32,
    /// So many of those that are admitted begin; the others are left to the next pass.
    begins: usize,
}

const ENDLESS: Time = Time {
    rounds: u32::MAX,
    begins: usize::MAX,
};

/// Who has gone in a pass, and how many times it has read tasks.
struct Done {
    gone: Vec<u32>,
    rounds: u32,
}

impl Binding {
    /// It has read these tasks in passes before.
    fn of(spec: &Spec, waiting: &[Vec<Task>], known: &[u32]) -> Self {
        Self {
            spec: spec.clone(),
            waiting: waiting.to_vec(),
            running: Vec::new(),
            turns: Turns::default(),
            overtaken: HashMap::new(),
            aged: HashMap::new(),
            known: known.iter().copied().map(task).collect(),
        }
    }

    /// What the running tasks leave.
    fn room(&self) -> Room {
        let limits = json!({
            "maxConcurrent": self.spec.most,
            "resources": {"nvidia.com/gpu": self.spec.room},
            "perUser": self.spec.each_user.map(|most| json!({"maxConcurrent": most})),
        });
        let limits: LimitsSpec = serde_json::from_value(limits).unwrap();
        let mut room = Room::of(&limits, [].iter());
        for task in &self.running {
            room.occupy(&asked(*task));
        }
        room
    }

    fn lanes(&self) -> Vec<Lane> {
        let lane = |(number, weight): (u32, &i64)| Lane {
            queue: queue(number),
            weight: u32::try_from(*weight).unwrap(),
        };
        (0..).zip(&self.spec.weights).map(lane).collect()
    }

    fn task(&self, id: &TaskId) -> Task {
        let mut all = self.waiting.iter().flatten();
        *all.find(|one| task(one.number) == *id).unwrap()
    }

    /// What is known of a task in a pass that has read these.
    fn head(&self, id: &TaskId, read: &HashSet<TaskId>) -> Head {
        let ask = Arc::new(asked(self.task(id)));
        let overtaken = self.overtaken.get(id).copied().unwrap_or_default();
        if read.contains(id) {
            Head::Ready { ask, overtaken }
        } else if self.known.contains(id) {
            Head::Known { ask, overtaken }
        } else {
            Head::Unread
        }
    }

    /// Who is admitted, and in how many rounds those were read of whom that has to be known.
    fn admit(&mut self, time: Time) -> (Admitted, u32) {
        let (lanes, aged) = (self.lanes(), self.aged.clone());
        let strategy = match self.spec.by {
            By::List => Strategy::Priority,
            By::Ring => Strategy::RoundRobin,
            By::Weights => Strategy::Weighted,
        };
        let rules = Rules {
            strategy,
            ..by_priority(&lanes, self.spec.lookahead, &aged)
        };
        let ids = |tasks: &Vec<Task>| -> Vec<TaskId> {
            tasks.iter().map(|one| task(one.number)).collect()
        };
        let queues: HashMap<QueueId, Vec<TaskId>> = (0..)
            .zip(&self.waiting)
            .map(|(number, tasks)| (queue(number), ids(tasks)))
            .collect();
        let (mut read, mut rounds) = (HashSet::new(), 0);
        loop {
            let mut course = Course::of(rules, &queues, self.turns.clone(), self.room());
            let admitted = course.admit(|id| self.head(id, &read));
            let round = if rounds < time.rounds {
                rounds.min(ROUNDS - 1)
            } else {
                ROUNDS
            };
            let unread = course.wanted(&admitted, round, |id| self.head(id, &read));
            if unread.is_empty() {
                return (admitted, rounds);
            }
            self.known.extend(unread.iter().cloned());
            read.extend(unread);
            rounds += 1;
        }
    }

    fn pass(&mut self, time: Time) -> Done {
        let (admitted, rounds) = self.admit(time);
        let began = admitted.tasks.iter().take(time.begins);
        let gone: Vec<Task> = began.map(|id| self.task(id)).collect();
        let has_gone = |id: &TaskId| gone.iter().any(|one| task(one.number) == *id);
        self.turns = admitted.turns_after(|id| !has_gone(id)).clone();
        for (id, times) in admitted.overtaken(has_gone) {
            *self.overtaken.entry(id.clone()).or_default() += times;
        }
        for tasks in &mut self.waiting {
            tasks.retain(|task| !gone.contains(task));
        }
        self.running.extend(&gone);
        let gone = gone.iter().map(|task| task.number).collect();
        Done { gone, rounds }
    }

    /// Passes until nobody goes any more: who goes, in order.
    fn settle(&mut self, time: Time) -> Vec<u32> {
        let passes = std::iter::repeat_with(|| self.pass(time).gone);
        passes
            .take_while(|gone| !gone.is_empty())
            .flatten()
            .collect()
    }

    fn end(&mut self, number: u32) {
        for tasks in self.waiting.iter_mut().chain([&mut self.running]) {
            tasks.retain(|task| task.number != number);
        }
    }
}

fn asked(task: Task) -> Ask {
    Ask {
        user: format!("user-{}", task.user),
        ..need(task.size)
    }
}

/// Since when these have waited beyond the bound of aging: each for a second less than the one before it.
fn since(aged: &[u32]) -> HashMap<TaskId, Timestamp> {
    let mut all = HashMap::new();
    for (second, number) in (0_i64..).zip(aged) {
        let since = Timestamp::from_second(second).unwrap();
        all.entry(task(*number)).or_insert(since);
    }
    all
}

/// A queue's weight, and the size and user of each of its tasks.
type Queue = (i64, Vec<(i64, usize)>);

/// Tasks of these queues, numbered on from eight times the queue's place.
fn tasks(queues: &[Queue]) -> Vec<Vec<Task>> {
    let of_queue = |(place, (_, asks)): (u32, &Queue)| -> Vec<Task> {
        let task = |(number, ask): (u32, &(i64, usize))| Task {
            number,
            size: ask.0,
            user: ask.1,
        };
        (place * 8..).zip(asks).map(task).collect()
    };
    (0..).zip(queues).map(of_queue).collect()
}

fn weights(queues: &[Queue]) -> Vec<i64> {
    queues.iter().map(|(weight, _)| *weight).collect()
}

proptest::proptest! {
    #[test]
    fn the_order_of_a_whole_trace_is_the_models(
        by in select(vec![By::List, By::Ring, By::Weights]),
        queues in many((1_i64..5, many((1_i64..7, 0_usize..3), 0..8)), 1..4),
        lookahead in 0_usize..4, room in 3_i64..9, most in maybe(1_usize..5), each_user in maybe(1_usize..3),
        known in many(0_u32..24, 0..12), aged in many(0_u32..24, 0..12), ends in many(0_u32..24, 0..40),
    ) {
        let waiting = tasks(&queues);
        let spec = Spec { by, weights: weights(&queues), lookahead, room, most, each_user };
        let mut binding = Binding { aged: since(&aged), ..Binding::of(&spec, &waiting, &known) };
        let mut model = Model::new(spec, waiting);
        model.aged = aged;
        proptest::prop_assert_eq!(binding.settle(ENDLESS), model.settle());
        for number in ends {
            binding.end(number);
            model.end(number);
            proptest::prop_assert_eq!(binding.settle(ENDLESS), model.settle());
        }
    }

    #[test]
    fn a_pass_that_may_read_no_more_keeps_the_order_and_the_next_goes_on(
        by in select(vec![By::List, By::Ring, By::Weights]),
        queues in many((1_i64..5, many((1_i64..7, 0_usize..3), 0..8)), 1..4),
        lookahead in 0_usize..4, room in 3_i64..9, most in maybe(1_usize..5), each_user in maybe(1_usize..3),
        rounds in 0_u32..3, ends in many(0_u32..24, 0..20),
    ) {
        let spec = Spec { by, weights: weights(&queues), lookahead, room, most, each_user };
        let mut binding = Binding::of(&spec, &tasks(&queues), &[]);
        for number in ends {
            loop {
                let known = binding.known.len();
                let all = binding.clone().pass(ENDLESS).gone;
                let gone = binding.pass(Time { rounds, ..ENDLESS }).gone;
                proptest::prop_assert!(all.starts_with(&gone), "{gone:?} of {all:?}");
                if gone.is_empty() && binding.known.len() == known {
                    proptest::prop_assert!(rounds == 0 || all.is_empty(), "{all:?} never go");
                    break;
                }
            }
            binding.end(number);
        }
    }

    #[test]
    fn where_all_fit_that_there_are_slots_for_a_pass_reads_once(
        by in select(vec![By::List, By::Ring, By::Weights]),
        queues in many((1_i64..5, many((0_i64..1, 0_usize..3), 0..8)), 1..4),
        most in maybe(1_usize..5), ends in many(0_u32..24, 0..40),
    ) {
        let spec = Spec { by, weights: weights(&queues), lookahead: 0, room: 1, most, each_user: None };
        let mut binding = Binding::of(&spec, &tasks(&queues), &[]);
        for number in ends {
            let Done { rounds, .. } = binding.pass(ENDLESS);
            proptest::prop_assert!(rounds <= 1, "{rounds} rounds");
            binding.end(number);
        }
    }

    #[test]
    fn tasks_that_are_left_to_the_next_pass_change_no_order_within_a_queue(
        sizes in many(1_i64..7, 0..16), lookahead in 0_usize..5, room in 3_i64..9, begins in 1_usize..4,
        ends in many(0_u32..16, 0..30),
    ) {
        let asks: Vec<(i64, usize)> = sizes.iter().map(|size| (*size, 0)).collect();
        let waiting = tasks(&[(1, asks)]);
        let spec = Spec { by: By::List, weights: vec![1], lookahead, room, most: None, each_user: None };
        let mut binding = Binding::of(&spec, &waiting, &[]);
        let mut model = Model::new(spec, waiting);
        let time = Time { begins, ..ENDLESS };
        proptest::prop_assert_eq!(binding.settle(time), model.settle());
        for number in ends {
            binding.end(number);
            model.end(number);
            proptest::prop_assert_eq!(binding.settle(time), model.settle());
        }
    }
}
