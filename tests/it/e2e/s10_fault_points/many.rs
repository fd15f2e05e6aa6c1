//! S10 with many tasks on simulated nodes: the controller dies twice in a row at each point of a claim and of an end in
//! turn, and at random moments. `TRAINYARD_S10_TASKS` says how many tasks; 100,000 are the long form.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::json;

use super::stage::TIMES;
use crate::e2e::kwok::Kwok;
use crate::e2e::played::{Part, Player, each_status};
use crate::e2e::world::World;
use crate::long;

/// What the tasks lead past.
const POINTS: [&str; 14] = [
    "look/queues-read",
    "intend/created",
    "take/removed",
    "step/task-read",
    "park/parked",
    "release/released",
    "step/told",
    "look/tasks-read",
    "step/job-settled",
    "step/job-read",
    "requeue/dequeued",
    "back/enqueued",
    "settle/written",
    "status/written",
];
/// Tasks that stand in the queue at once.
const AHEAD: usize = 400;

fn number() -> usize {
    long::size("TRAINYARD_S10_TASKS", 150)
}

/// What becomes of a task's pod: of sixteen, one each dies in one of five ways.
fn part(task: &str, attempt: u32) -> Part {
    match (task.as_bytes()[31], attempt) {
        (b'0', _) => Part::Fails,
        (b'1', _) => Part::DiesSilently,
        (b'2', 1) => Part::IsDeletedBefore,
        (b'3', 1) => Part::IsDeleted,
        (b'4', _) => Part::DiesBefore,
        _ => Part::Completes(300),
    }
}

/// Runs at most, and how the task ends.
fn expected(task: &str) -> (usize, &'static str) {
    match part(task, 1) {
        Part::DiesBefore => (0, "failed"),
        Part::Fails | Part::DiesSilently => (1, "failed"),
        Part::IsDeleted => (2, "completed"),
        Part::IsDeletedBefore | Part::Completes(_) | Part::Held => (1, "completed"),
    }
}

#[test]
#[ignore = "long form: two minutes, and hours with TRAINYARD_S10_TASKS=100000"]
fn s10_many_tasks_run_exactly_once_under_a_controller_that_dies_again_and_again() {
    let total = number();
    let mut world = World::with_fault_points("s10-many");
    let kwok = Kwok::start(&world, 2);
    let folder = world.dir.path().join("faults");
    fs::create_dir(&folder).expect("folder is made");
    let variable = folder.to_string_lossy().into_owned();
    world
        .environment
        .push(("TRAINYARD_FAULTS".to_owned(), variable));
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(200);
    patch["lifecycle"] = json!({"ttlAfterSuccess": "20s", "ttlAfterFailure": "20s"});
    world.queue("gpu");
    world.start_controller();
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
    let player = Player::start(&world, &world.place.kubeconfig, part);

    let begun = Instant::now();
    let file = |point: &str| folder.join(point.replace('/', "."));
    let clear = || {
        for known in POINTS {
            fs::write(file(known), "0").expect("point is written");
        }
    };
    let mut random = rand::rng();
    let (mut tasks, mut kills, mut next) = (Vec::new(), 0, POINTS.iter().cycle());
    let mut due = Instant::now();
    let mut told = Instant::now();
    // Only what has not ended is asked for, so that a look costs the same however many have passed.
    let (mut open, mut ended) = (Vec::new(), 0);
    // Quiet times start anew with each death: the long form pauses after each pair, the short one ends with one round.
    let (pause, rounds) = if total > 1000 {
        (30_000, usize::MAX)
    } else {
        (0, POINTS.len())
    };
    let mut visits = 0;
    let limit = begun + Duration::from_secs(300) + Duration::from_millis(200) * count(total);
    while ended < total && Instant::now() < limit {
        if tasks.len() < total && tasks.len() < ended + AHEAD {
            let more = (total - tasks.len()).min(50);
            let new = crate::e2e::s36_scale::enqueue(&world, more);
            open.extend(new.iter().cloned());
            tasks.extend(new);
        }
        if world.controller().has_ended() {
            kills += 1;
            world.start_controller();
        }
        // At the end it dies no more, so that the last quiet times pass.
        if Instant::now() > due && visits < rounds && total - ended > total / 10 {
            visits += 1;
            let point = next.next().expect("points go round");
            clear();
            fs::write(file(point), TIMES.to_string()).expect("point is written");
            if random.random_bool(0.2) {
                world.kill_controller();
                kills += 1;
                world.start_controller();
            }
            due = Instant::now() + Duration::from_millis(random.random_range(1500..3000) + pause);
        }
        if Instant::now() > due && visits >= rounds {
            clear();
        }
        let now = each_status(&world, &open);
        open.retain(|task| !matches!(now[task].as_str(), "completed" | "failed"));
        ended = tasks.len() - open.len();
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!(
                "{ended} of {total} ended, {kills} kills, {} s",
                begun.elapsed().as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut runs: BTreeMap<&str, usize> = tasks.iter().map(|task| (task.as_str(), 0)).collect();
    let played = player.runs();
    for run in &played {
        *runs.entry(&run.task).or_default() += 1;
    }
    let doubled: Vec<_> = runs
        .iter()
        .filter(|(task, ran)| **ran > expected(task).0)
        .collect();
    let at_the_end = each_status(&world, &tasks);
    let lost: Vec<&String> = tasks
        .iter()
        .filter(|task| {
            let (runs_at_most, end) = expected(task);
            runs[task.as_str()] < runs_at_most.min(1)
                || at_the_end.get(*task).is_none_or(|status| status != end)
        })
        .collect();
    println!(
        "{} tasks, {kills} kills in {} s: lost {}, doubled {}",
        tasks.len(),
        begun.elapsed().as_secs(),
        lost.len(),
        doubled.len()
    );
    if let Some(task) = lost.first() {
        world.tell(task);
    }
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
    assert!(
        world.entries("gpu").is_empty(),
        "nothing is left in the queue"
    );
    assert!(kills >= 4, "the controller died {kills} times");
    drop(kwok);
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("a count")
}
