//! Random traces, from the first pass to the last end: who goes after each end is what the model says.

use super::*;

/// A binding that makes pass after pass by the rules: what waits, what runs, and what it remembers.
struct Binding {
    spec: Spec,
    waiting: Vec<Vec<Task>>,
    running: Vec<Task>,
    turns: Turns,
    overtaken: HashMap<TaskId, usize>,
}

impl Binding {
    fn of(spec: &Spec, waiting: &[Vec<Task>]) -> Self {
        Self {
            spec: spec.clone(),
            waiting: waiting.to_vec(),
            running: Vec::new(),
            turns: Turns::default(),
            overtaken: HashMap::new(),
        }
    }

    /// What the running tasks leave.
    fn room(&self) -> Room {
        let per_user = self
            .spec
            .each_user
            .map(|most| json!({"maxConcurrent": most}));
        let limits = json!({"resources": {"nvidia.com/gpu": self.spec.room}, "perUser": per_user});
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

    fn pass(&mut self) -> Vec<u32> {
        let (lanes, aged) = (self.lanes(), HashMap::new());
        let strategy = match self.spec.by {
            By::List => Strategy::Priority,
            By::Ring => Strategy::RoundRobin,
            By::Weights => Strategy::Weighted,
        };
        let rules = Rules {
            strategy,
            ..by_priority(&lanes, self.spec.lookahead, &aged)
        };
        let ids = |tasks: &Vec<Task>| -> VecDeque<TaskId> {
            tasks.iter().map(|one| task(one.number)).collect()
        };
        let queues = (0..)
            .zip(&self.waiting)
            .map(|(number, tasks)| (queue(number), ids(tasks)))
            .collect();
        let mut room = self.room();
        let all = self.waiting.concat();
        let known = |id: &TaskId| all.iter().find(|one| task(one.number) == *id).unwrap();
        let head = |id: &TaskId| Head::Ready {
            ask: asked(*known(id)),
            overtaken: self.overtaken.get(id).copied().unwrap_or_default(),
        };
        let admitted = admit(&rules, &mut self.turns, queues, &mut room, head);
        let gone: Vec<Task> = admitted.tasks.iter().map(|id| *known(id)).collect();
        self.overtaken.extend(admitted.overtaken);
        for tasks in &mut self.waiting {
            tasks.retain(|task| !gone.contains(task));
        }
        self.running.extend(&gone);
        gone.iter().map(|task| task.number).collect()
    }

    /// Passes until nobody goes any more: who goes, in order.
    fn settle(&mut self) -> Vec<u32> {
        let passes = std::iter::repeat_with(|| self.pass());
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

/// Tasks of these sizes and users, numbered on from `first`.
fn tasks(asks: &[(i64, usize)], first: u32) -> Vec<Task> {
    let task = |(number, ask): (u32, &(i64, usize))| Task {
        number,
        size: ask.0,
        user: ask.1,
    };
    (first..).zip(asks).map(task).collect()
}

proptest::proptest! {
    #[test]
    fn the_order_of_a_whole_trace_is_the_models(
        by in proptest::sample::select(vec![By::List, By::Ring, By::Weights]),
        queues in many((1_i64..5, many((1_i64..7, 0_usize..3), 0..8)), 1..4),
        lookahead in 0_usize..4, room in 3_i64..7, each_user in proptest::option::of(1_usize..3),
        ends in many(0_u32..24, 0..40),
    ) {
        let weights = queues.iter().map(|(weight, _)| *weight).collect();
        let spec = Spec { by, weights, lookahead, room, each_user };
        let waiting: Vec<Vec<Task>> = (0..).zip(&queues)
            .map(|(number, (_, asks))| tasks(asks, number * 8))
            .collect();
        let mut binding = Binding::of(&spec, &waiting);
        let mut model = Model::new(spec, waiting);
        proptest::prop_assert_eq!(binding.settle(), model.settle());
        for number in ends {
            binding.end(number);
            model.end(number);
            proptest::prop_assert_eq!(binding.settle(), model.settle());
        }
    }
}
