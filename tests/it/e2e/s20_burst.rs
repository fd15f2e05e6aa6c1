//! S20: many tasks at once are taken as fast as they have room, by a controller that stays small meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::kwok::Kwok;
use super::played::{Part, Player, statuses};
use super::s32_permits::Jobs;
use super::s36_scale::{enqueue, processor};
use super::taken::{nowhere, taken};
use super::world::{PATIENCE, World, wait};
use crate::{process, times};

const TASKS: usize = 200;
const SLOTS: usize = 100;
/// So soon a free slot is used; machines are shared, so five times as long is allowed.
const USED: Duration = Duration::from_secs(10);
/// What a controller may hold, in MiB (100 MB), and how many requests it may send in a second when all is over.
const MEMORY: f64 = 95.3;
const IDLE: f64 = 1.0;

fn tell(what: &str, took: Duration) {
    times::told("S20", what, took.as_secs_f64(), USED.as_secs_f64());
}

#[test]
fn a_burst_is_taken_at_once_up_to_the_limit_and_freed_slots_are_filled() {
    let mut world = World::new("s20");
    world.start_controller();
    world.queue("gpu");
    let bind = |world: &World, suspend: bool| {
        world.bind("gpu", &["gpu"], &json!({
            "limits": {"maxConcurrent": 40}, "suspend": suspend, "template": nowhere(world, &json!({})),
        }));
    };
    bind(&world, true);
    let tasks: Vec<String> = (0..60)
        .map(|i| world.run(&format!("burst {i}"), "print(1)\n", "gpu"))
        .collect();
    let begun = Instant::now();
    bind(&world, false);
    let first = wait("every slot is filled", 50, || {
        let now = taken(&world);
        assert!(now.len() <= 40, "{} are taken", now.len());
        (now.len() == 40).then_some(now)
    });
    tell("the last of 40 slots is used", begun.elapsed());
    assert!(
        tasks[..40].iter().all(|task| first.contains(task)),
        "in the order of the queue"
    );
    assert_eq!(world.entries("gpu"), tasks[40..]);
    for task in &tasks[..20] {
        world.call("tasks.stop", &json!({"task": task}));
    }
    let begun = Instant::now();
    wait("the rest is taken", 60, || {
        let now = taken(&world);
        tasks[40..]
            .iter()
            .all(|task| now.contains(task))
            .then_some(())
    });
    tell(
        "the last of 20 slots that become free is used",
        begun.elapsed(),
    );
}

/// The longest time in which a slot was free, tasks waited, and none was taken.
#[derive(Default)]
struct Unused {
    /// How many waited when that was last so, and since when.
    since: Option<(usize, Instant)>,
    longest: Duration,
}

impl Unused {
    fn note(&mut self, held: usize, waiting: usize) {
        let is_unused = held < SLOTS && waiting > 0;
        match self.since {
            Some((before, since)) if is_unused && before == waiting => {
                self.longest = self.longest.max(since.elapsed());
            }
            _ => self.since = is_unused.then(|| (waiting, Instant::now())),
        }
    }
}

#[test]
fn s20_two_hundred_tasks_pass_a_hundred_slots_and_the_controller_stays_small() {
    let mut world = World::new("s20pass");
    let kwok = Kwok::start(&world, 2);
    world.start_controller();
    world.queue("gpu");
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(SLOTS);
    patch["suspend"] = json!(true);
    world.bind("gpu", &["gpu"], &patch);
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| {
        Part::Completes(2000)
    });
    let jobs = Jobs::of(&world);
    let tasks = enqueue(&world, TASKS);
    world.edit("gpu", &json!({"suspend": false}));
    let (begun, used) = (Instant::now(), processor(&mut world));
    let (mut most, mut unused) = (0, Unused::default());
    loop {
        let held = jobs.holders().len();
        assert!(held <= SLOTS, "{held} have a slot");
        most = most.max(held);
        unused.note(held, world.entries("gpu").len());
        let counts = statuses(&world, &tasks);
        if counts.get("completed") == Some(&TASKS) {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120) * PATIENCE,
            "not all have completed: {counts:?}"
        );
        thread::sleep(Duration::from_millis(300));
    }
    let took = begun.elapsed().as_secs_f64();
    let cores = (processor(&mut world) - used) / took;
    let memory = process::peak(world.controller().id());
    println!(
        "{TASKS} tasks in {SLOTS} slots: {took:.1} s, {most} at once at most; \
         controller: {memory:.0} MiB at most, {cores:.2} of a core"
    );
    tell("a slot stays unused at most", unused.longest);
    assert!(unused.longest < USED * 5, "{:?}", unused.longest);
    assert!(memory < MEMORY, "{memory} MiB");
    assert!(cores < 1.0, "{cores} cores");
    assert_eq!(player.runs().len(), TASKS, "each ran once");
    assert!(player.doubled().is_empty(), "{:?}", player.doubled());

    // Every Job is settled, and nothing is left to ask about.
    let all = f64::from(u32::try_from(TASKS).expect("a count"));
    wait("nothing is on its way any more", 60, || {
        let ended = world.metric("trainyard_ended_tasks_total", &["binding"]);
        (ended > all - 0.5).then_some(())
    });
    let requests = || world.metric("trainyard_api_requests_total", &[]);
    let (begun, before) = (Instant::now(), requests());
    thread::sleep(Duration::from_secs(10));
    let rate = (requests() - before) / begun.elapsed().as_secs_f64();
    println!("afterwards: {rate:.2} requests a second");
    assert!(rate < IDLE * 5.0, "{rate} requests a second");
}
