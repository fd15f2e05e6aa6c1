//! S33 on the cluster with random traces: tasks of several queues, sizes and users come to their ends one by one, and
//! after each the Jobs are those that the reference model lets go, in its order.
//!
//! Both bindings have a limit for each user, lookahead, and tasks that wait for room; one of them has few slots too, so
//! that it reads its queues bit by bit. Aging begins in their midst, for all that still wait; in the long form half of the
//! tasks have waited beyond its bound from the beginning, and the others never do.

#[path = "../../../src/claim/order/model.rs"]
mod model;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use trainyard::server::accounts::KeyPair;

use self::model::{By, Model, Spec, Task};
use super::kwok::Kwok;
use super::limits::task_of;
use super::played::{Part, Player};
use super::taken::{asking, by_turn};
use super::world::{World, merge, wait};
use crate::long;

const GPU: &str = "nvidia.com/gpu";
/// All that the tasks of a binding may have at the same time; a larger task can never go.
const ROOM: i64 = 8;
const TOO_LARGE: i64 = ROOM + 1;
/// What the others ask for, some more often.
const SIZES: [i64; 5] = [1, 2, 2, 3, 4];
/// Tasks and queues of a binding.
const TASKS: u32 = 20;
const QUEUES: usize = 3;
/// So many ends, and what still waits then stands where the model has it.
const ENDS: usize = 12;
/// Aging begins in the midst after so many of them.
const AGES_AFTER: usize = 6;
/// The bound of aging where some have waited beyond it and others have not, until the last end.
const BOUND: Duration = Duration::from_secs(300);

/// Whose tasks they are.
const USERS: [&str; 3] = ["ann", "bob", "cem"];

/// What bindings and their tasks are made of.
struct Stage<'a> {
    world: &'a World,
    kwok: &'a Kwok,
    users: [KeyPair; USERS.len()],
    /// A task of each size, which users clone.
    patterns: BTreeMap<i64, String>,
}

/// One binding, and how far its trace has come.
struct Trace {
    binding: &'static str,
    model: Model,
    /// The tasks with the places of their queues, by their numbers.
    drawn: Vec<(Task, usize)>,
    /// Ids by the numbers of tasks that are enqueued, and of queues.
    tasks: Vec<String>,
    queues: Vec<String>,
    /// Who has gone by the model, in order, and who of them has ended since.
    gone: Vec<u32>,
    ended: Vec<u32>,
}

/// Who has waited beyond the bound of aging.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aging {
    /// All that still wait in the midst of the trace.
    InTheMidst,
    /// The first half of the tasks, from the beginning.
    OfTheFirst,
}

/// How a trace goes on.
enum Event {
    /// A run comes to a good end.
    Ends(u32),
    /// Somebody gives up a task that waits in vain.
    IsStopped(u32),
}

impl Stage<'_> {
    /// A suspended binding, and random tasks that are not enqueued yet.
    fn trace(&self, binding: &'static str, spec: Spec, draw: &mut StdRng) -> Trace {
        let names: Vec<String> = (0..QUEUES).map(|i| format!("{binding}-{i}")).collect();
        let queues: Vec<String> = names.iter().map(|name| self.world.queue(name)).collect();
        let patch = self.patch(&spec, &names);
        self.world.bind(binding, &[], &patch);
        let (mut waiting, mut drawn) = (vec![Vec::new(); QUEUES], Vec::new());
        for number in 0..TASKS {
            let is_too_large = draw.random_ratio(1, 8);
            let size = if is_too_large {
                TOO_LARGE
            } else {
                SIZES[draw.random_range(0..SIZES.len())]
            };
            let user = draw.random_range(0..USERS.len());
            let queue = draw.random_range(0..QUEUES);
            let task = Task { number, size, user };
            drawn.push((task, queue));
            waiting[queue].push(task);
        }
        println!("{binding}: {spec:?}, {waiting:?}");
        Trace {
            binding,
            model: Model::new(spec, waiting),
            drawn,
            tasks: Vec::new(),
            queues,
            gone: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The next tasks of each trace come into their queues, until there are so many.
    fn fill(&self, traces: &mut [Trace], count: u32) {
        for trace in traces {
            let next = trace.tasks.len()..count as usize;
            for number in next {
                let (task, queue) = trace.drawn[number];
                let id = self.enqueue(task.size, task.user, &trace.queues[queue]);
                trace.tasks.push(id);
            }
        }
    }

    /// What the binding says.
    fn patch(&self, spec: &Spec, queues: &[String]) -> Value {
        let strategy = match spec.by {
            By::List => "Priority",
            By::Ring => "RoundRobin",
            By::Weights => "Weighted",
        };
        let queues: Vec<Value> = queues
            .iter()
            .zip(&spec.weights)
            .map(|(name, weight)| json!({"name": name, "weight": weight}))
            .collect();
        let mut patch = self.kwok.binding_patch();
        merge(
            &mut patch,
            &json!({
                "suspend": true, "strategy": strategy, "queues": queues, "lookahead": spec.lookahead,
                "limits": {"resources": {GPU: spec.room}},
                "overrides": {"resources": {"max": {GPU: TOO_LARGE}}},
            }),
        );
        if let Some(most) = spec.most {
            patch["limits"]["maxConcurrent"] = json!(most);
        }
        if let Some(most) = spec.each_user {
            patch["limits"]["perUser"] = json!({"maxConcurrent": most});
        }
        patch["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {GPU: 1}});
        patch
    }

    /// A user's own copy of the task of this size, in this queue.
    fn enqueue(&self, size: i64, user: usize, queue: &str) -> String {
        let body = json!({"task": self.patterns[&size]});
        let (status, answer) = self
            .world
            .try_call_as(&self.users[user], "tasks.clone", &body);
        assert_eq!(status, 200, "{answer}");
        let task = answer["data"]["id"].as_str().expect("a task's id");
        let body = json!({"task": task, "queue": queue});
        self.world.call("tasks.enqueue", &body);
        task.to_owned()
    }
}

impl Trace {
    fn id(&self, number: u32) -> &String {
        &self.tasks[number as usize]
    }

    /// Tasks of this trace among these Jobs, in their order.
    fn of<'a>(&self, jobs: impl IntoIterator<Item = &'a Value>) -> Vec<u32> {
        let number = |job: &Value| {
            let id = task_of(job)?;
            (0..TASKS).find(|number| *self.id(*number) == id)
        };
        jobs.into_iter().filter_map(number).collect()
    }

    /// Whether as many are taken as the model lets go, and the controller is done with those that have ended.
    fn has_come(&self, jobs: &[Value]) -> bool {
        let is_settled = |job: &&Value| {
            let labels = &job["metadata"]["labels"];
            labels["trainyard.dev/state"] == "settled"
        };
        let settled = self.of(jobs.iter().filter(is_settled));
        let are_settled = self.ended.iter().all(|number| settled.contains(number));
        are_settled && self.of(jobs).len() >= self.gone.len()
    }

    /// One of the two that have run for longest ends, or one that can never go is given up; nothing where nobody waits.
    fn event(&self, draw: &mut StdRng) -> Option<Event> {
        let waiting = self.model.waiting.concat();
        let in_vain: Vec<&Task> = waiting.iter().filter(|task| task.size > ROOM).collect();
        let running = &self.model.running;
        let is_given_up = running.is_empty() || draw.random_ratio(1, 4);
        if waiting.is_empty() {
            None
        } else if is_given_up && !in_vain.is_empty() {
            let task = in_vain.choose(draw)?;
            Some(Event::IsStopped(task.number))
        } else {
            let task = running[..running.len().min(2)].choose(draw)?;
            Some(Event::Ends(task.number))
        }
    }

    /// Whoever of its first tasks still waits has waited beyond this bound.
    fn age(&mut self, world: &World, bound: Duration, count: u32) {
        let bound = format!("{}s", bound.as_secs());
        world.edit(self.binding, &json!({"aging": bound}));
        world.until_observed(self.binding);
        // They have come in the order of their numbers.
        self.model.aged = (0..count).collect();
    }

    /// Lets this happen on the cluster, and to the model.
    fn play(&mut self, event: &Event, world: &World, player: &Player) {
        let (Event::Ends(number) | Event::IsStopped(number)) = *event;
        let id = self.id(number).clone();
        if matches!(event, Event::Ends(_)) {
            wait(
                &format!("task {number} of {} runs", self.binding),
                60,
                || {
                    let runs = player.runs();
                    runs.iter().any(|run| run.task == id).then_some(())
                },
            );
            player.finish(&id);
            self.ended.push(number);
        } else {
            world.call("tasks.stop", &json!({"task": id}));
        }
        self.model.end(number);
    }
}

/// Waits until the cluster has followed the model, and compares the order.
fn compare(world: &World, traces: &mut [Trace]) {
    for trace in &mut *traces {
        let goes = trace.model.settle();
        trace.gone.extend(goes);
    }
    let expected: Vec<_> = traces.iter().map(|one| (one.binding, &one.gone)).collect();
    let jobs = wait(&format!("Jobs of {expected:?}"), 60, || {
        let jobs = by_turn(world);
        traces.iter().all(|one| one.has_come(&jobs)).then_some(jobs)
    });
    for trace in &*traces {
        assert_eq!(trace.of(&jobs), trace.gone, "{}", trace.binding);
    }
}

/// One binding of few slots, and one that shares its queues by weights.
fn specs(draw: &mut StdRng) -> [(&'static str, Spec); 2] {
    let few_slots = Spec {
        by: *[By::List, By::Ring].choose(draw).expect("one of two"),
        weights: vec![1; QUEUES],
        lookahead: draw.random_range(0..3),
        room: ROOM,
        most: Some(4),
        each_user: Some(2),
    };
    let by_weights = Spec {
        by: By::Weights,
        weights: (0..QUEUES).map(|_| draw.random_range(1..5)).collect(),
        lookahead: 2,
        room: ROOM,
        most: None,
        each_user: Some(2),
    };
    [("slots", few_slots), ("weights", by_weights)]
}

/// Tasks are enqueued. Where the first half is to have waited too long, the other half comes when it has; since when
/// that one waits.
fn fill(stage: &Stage<'_>, traces: &mut [Trace], aging: Aging) -> Instant {
    if aging == Aging::OfTheFirst {
        stage.fill(traces, TASKS / 2);
        let filled = Instant::now();
        wait("half of them have waited too long", BOUND.as_secs(), || {
            (filled.elapsed() > BOUND).then_some(())
        });
        let since = Instant::now();
        stage.fill(traces, TASKS);
        for trace in traces {
            trace.age(stage.world, BOUND, TASKS / 2);
        }
        return since;
    }
    let since = Instant::now();
    stage.fill(traces, TASKS);
    since
}

/// What waits stands where the model has it.
fn compare_queues(world: &World, trace: &Trace) {
    for (queue, waiting) in trace.queues.iter().zip(&trace.model.waiting) {
        let waiting: Vec<String> = waiting
            .iter()
            .map(|task| trace.id(task.number).clone())
            .collect();
        wait("what waits stands in its order", 60, || {
            (world.entries_of(queue) == waiting).then_some(())
        });
    }
    let (gone, ended) = (trace.gone.len(), trace.ended.len());
    println!("{}: {gone} of {TASKS} went, {ended} ended", trace.binding);
    assert!(gone >= 4, "where hardly anybody goes nothing is shown");
}

fn play(name: &str, aging: Aging) {
    let drawn = rand::rng().random_range(0..1_000_000);
    let seed: u64 = long::size("TRAINYARD_S33_SEED", drawn);
    println!("seed {seed}");
    let mut draw = StdRng::seed_from_u64(seed);
    let mut world = World::new(name);
    world.start_controller();
    let kwok = Kwok::start(&world, 1);
    let patterns = (1..=4).chain([TOO_LARGE]).map(|size| {
        let wish = asking(&[(&format!("resources/{GPU}"), &size.to_string())]);
        let pattern = world.create(&format!("size {size}"), "print('never')\n", &wish);
        (size, pattern)
    });
    let stage = Stage {
        users: world.users(USERS),
        patterns: patterns.collect(),
        world: &world,
        kwok: &kwok,
    };
    let bindings = specs(&mut draw);
    let mut traces = bindings.map(|(binding, spec)| stage.trace(binding, spec, &mut draw));
    let since = fill(&stage, &mut traces, aging);
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| Part::Held);
    for trace in &traces {
        world.edit(trace.binding, &json!({"suspend": false}));
    }
    compare(&world, &mut traces);
    for ends in 0..ENDS {
        if aging == Aging::InTheMidst && ends == AGES_AFTER {
            for trace in &mut traces {
                let waits: usize = trace.model.waiting.iter().map(Vec::len).sum();
                println!("{}: {waits} tasks have waited too long", trace.binding);
                trace.age(&world, Duration::from_secs(1), TASKS);
            }
        }
        for trace in &mut traces {
            if let Some(event) = trace.event(&mut draw) {
                trace.play(&event, &world, &player);
            }
        }
        compare(&world, &mut traces);
    }
    let waited = since.elapsed();
    assert!(
        aging == Aging::InTheMidst || waited < BOUND,
        "all have waited too long by now: {waited:?}"
    );
    for trace in &traces {
        compare_queues(&world, trace);
    }
}

#[test]
fn s33_random_traces_go_in_the_order_of_the_model() {
    play("s33traces", Aging::InTheMidst);
}

#[test]
#[ignore = "long form: five minutes until tasks have waited too long"]
fn s33_random_traces_with_tasks_that_have_waited_too_long_go_in_the_order_of_the_model() {
    play("s33aged", Aging::OfTheFirst);
}
