//! S26: how long ended Jobs are kept: from the moment at which their outcome is stored in the task; and how many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::cgroup::kill_whole_container;
use super::kwok::Kwok;
use super::limits::task_of;
use super::played::{Part, Player, statuses};
use super::s27_suspend_and_delete::SLEEPS;
use super::s36_scale::enqueue;
use super::taken::taken;
use super::world::{World, wait};

/// Bindings here keep Jobs of completed tasks for so long, and those of failed ones.
const AFTER_SUCCESS: SignedDuration = SignedDuration::from_secs(5);
const AFTER_FAILURE: SignedDuration = SignedDuration::from_secs(40);
/// So late a Job may go on a busy machine.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// When Jobs of tasks were last seen.
#[derive(Default)]
struct Kept {
    seen: BTreeMap<String, Timestamp>,
    gone: BTreeMap<String, Timestamp>,
}

impl Kept {
    /// One look; how many there are.
    fn look(&mut self, world: &World) -> usize {
        let begun = Timestamp::now();
        let there = taken(world);
        for task in &there {
            self.seen.insert(task.clone(), begun);
        }
        for task in self.seen.keys().filter(|task| !there.contains(*task)) {
            self.gone.entry(task.clone()).or_insert_with(Timestamp::now);
        }
        there.len()
    }

    /// Waits while Jobs are looked at.
    fn until(
        &mut self,
        world: &World,
        what: &str,
        seconds: u64,
        mut probe: impl FnMut(usize) -> bool,
    ) {
        wait(what, seconds, || {
            let left = self.look(world);
            probe(left).then_some(())
        });
    }

    fn until_begun(&mut self, world: &World, task: &str) {
        self.until(world, "the task runs", 90, |_| {
            world.log(task).iter().any(|line| line == "begun")
        });
    }

    /// The task's Job went at its time, counted from when its outcome was stored in the task; where nobody was there to
    /// settle it, from `earliest` on. Gives the moment at which the outcome was stored.
    fn judge(
        &self,
        world: &World,
        task: &str,
        ttl: SignedDuration,
        earliest: Timestamp,
    ) -> Timestamp {
        let (name, stored) = stored(world, task);
        let (seen, gone) = (self.seen[task], self.gone[task]);
        let kept = gone.duration_since(stored);
        println!("{name}: gone {:.1} s after its end", kept.as_secs_f64());
        // Kubernetes drops what is below a second of a Job's end.
        let least = ttl - SignedDuration::from_secs(1);
        assert!(kept >= least, "{name} went after {kept:?}, not {ttl:?}");
        let due = (stored + ttl).max(earliest);
        let late = seen.duration_since(due);
        assert!(late < LATE, "{name} was there {late:?} after its time");
        stored
    }
}

/// Name of an ended task, and when its outcome was stored in it.
fn stored(world: &World, task: &str) -> (String, Timestamp) {
    let document = world.task(task);
    let text = |field: &str| document[field].as_str().expect("a text").to_owned();
    let at = text("status_changed").parse().expect("a time");
    (text("name"), at)
}

#[test]
fn s26_an_ended_job_is_kept_from_the_moment_its_outcome_is_stored() {
    let mut world = World::new("s26");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "limits": {"maxConcurrent": 8},
            "lifecycle": {
                "ttlAfterSuccess": format!("{}s", AFTER_SUCCESS.as_secs()),
                "ttlAfterFailure": format!("{}s", AFTER_FAILURE.as_secs()),
                "onInterruption": "Fail",
            },
        }),
    );
    world.until_ready("gpu");
    let mut kept = Kept::default();
    let good = world.run("good", "print('well')\n", "gpu");
    let bad = world.run("bad", "raise SystemExit(1)\n", "gpu");
    // Ends that the controller has to write, some time after the Job's own.
    let [killed, deleted] = ["killed", "deleted"].map(|name| world.run(name, SLEEPS, "gpu"));
    for task in [&killed, &deleted] {
        kept.until_begun(&world, task);
    }
    kill_whole_container(&world.running_pod(&killed), "task");
    let label = format!("trainyard.dev/task={deleted}");
    world.kubectl(&["delete", "pods", "-l", &label, "--wait=false"]);
    for (task, status) in [
        (&good, "completed"),
        (&bad, "failed"),
        (&killed, "failed"),
        (&deleted, "failed"),
    ] {
        kept.until(&world, "each has its end", 120, |_| {
            world.status(task) == status
        });
    }

    // While the controller is down no Job goes, whatever its time: nobody has stored what it says.
    let ends = |code: u32| {
        format!(
            "import time\nprint('begun', flush=True)\ntime.sleep(6)\nraise SystemExit({code})\n"
        )
    };
    let late = world.run("late", &ends(0), "gpu");
    let late_bad = world.run("late and bad", &ends(1), "gpu");
    for task in [&late, &late_bad] {
        kept.until_begun(&world, task);
    }
    world.kill_controller();
    for (task, status) in [(&late, "completed"), (&late_bad, "failed")] {
        kept.until(&world, "it ends without a controller", 60, |_| {
            world.status(task) == status
        });
    }
    let down = Timestamp::now();
    kept.until(&world, "more than the time of one is over", 60, |_| {
        let passed = Timestamp::now().duration_since(down);
        passed > AFTER_SUCCESS + SignedDuration::from_secs(7)
    });
    assert!(!world.job_of(&late).is_null(), "it is not settled yet");
    world.start_controller();
    let back = Timestamp::now();
    kept.until(&world, "all have gone", 120, |left| left == 0);
    for (task, ttl, earliest) in [
        (&good, AFTER_SUCCESS, Timestamp::MIN),
        (&bad, AFTER_FAILURE, Timestamp::MIN),
        (&killed, AFTER_FAILURE, Timestamp::MIN),
        (&deleted, AFTER_FAILURE, Timestamp::MIN),
        (&late, AFTER_SUCCESS, back),
        (&late_bad, AFTER_FAILURE, back),
    ] {
        kept.judge(&world, task, ttl, earliest);
    }
}

/// What becomes of the pod of a task: of sixteen, three fail and two die without a word, so that the controller has to
/// write their end.
fn part(task: &str) -> Part {
    match task.as_bytes().last() {
        Some(b'0'..=b'2') => Part::Fails,
        Some(b'3' | b'4') => Part::DiesSilently,
        _ => Part::Completes(1000),
    }
}

#[test]
fn s26_each_of_fifty_jobs_goes_at_its_time_though_the_controller_is_down_meanwhile() {
    const TASKS: usize = 50;
    const SLOTS: usize = 8;
    let mut world = World::new("s26fifty");
    let kwok = Kwok::start(&world, 1);
    // Tasks that begin while this is set run on until the controller is gone.
    let held = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&held);
    let player = Player::start(&world, &world.place.kubeconfig, move |task, _| {
        match part(task) {
            Part::Completes(_) if hold.load(Ordering::SeqCst) => Part::Held,
            part => part,
        }
    });
    world.start_controller();
    world.queue("gpu");
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(SLOTS);
    patch["lifecycle"] = json!({
        "ttlAfterSuccess": format!("{}s", AFTER_SUCCESS.as_secs()),
        "ttlAfterFailure": format!("{}s", AFTER_FAILURE.as_secs()),
    });
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
    let mut kept = Kept::default();
    let tasks = enqueue(&world, TASKS);
    let ended = |world: &World| {
        let counts = statuses(world, &tasks);
        let of = |status: &str| counts.get(status).copied().unwrap_or(0);
        of("completed") + of("failed")
    };
    kept.until(&world, "a third has ended", 120, |_| {
        ended(&world) >= TASKS / 3
    });
    held.store(true, Ordering::SeqCst);
    // All that is left are those that are held: the others end within moments.
    kept.until(
        &world,
        "every place is taken by a task that runs",
        120,
        |_| statuses(&world, &tasks).get("in_progress") == Some(&SLOTS),
    );
    world.kill_controller();
    let down = Timestamp::now();
    player.release();
    kept.until(&world, "more than the time of one is over", 60, |_| {
        let passed = Timestamp::now().duration_since(down);
        passed > AFTER_SUCCESS + SignedDuration::from_secs(7)
    });
    world.start_controller();
    let back = Timestamp::now();
    kept.until(&world, "all have ended", 180, |_| ended(&world) == TASKS);
    kept.until(&world, "all have gone", 180, |left| left == 0);
    let mut unseen = 0;
    for task in &tasks {
        let ttl = match part(task) {
            Part::Completes(_) => AFTER_SUCCESS,
            _ => AFTER_FAILURE,
        };
        // It may have ended while nobody was there to settle it.
        let earliest = if kept.gone[task] > back {
            back
        } else {
            Timestamp::MIN
        };
        let stored = kept.judge(&world, task, ttl, earliest);
        unseen += usize::from(down < stored && stored < back);
    }
    println!("{unseen} of {TASKS} tasks ended while the controller was down");
    assert!(unseen > 0, "none ended while nobody was there to settle it");
    assert_eq!(player.runs().len(), TASKS, "each ran once");
}

/// What becomes of the pods of tasks.
type Parts = Arc<Mutex<BTreeMap<String, Part>>>;

/// Enqueues a task whose first pod plays this part.
fn enqueue_as(world: &World, parts: &Parts, name: &str, part: Part) -> String {
    let task = world.create(name, "print('never')\n", &json!({}));
    parts.lock().expect("parts lock").insert(task.clone(), part);
    world.enqueue(&task, "gpu");
    task
}

/// When Jobs of tasks ended, in whole seconds, as far as they were seen to say so.
type Ends = BTreeMap<String, Timestamp>;

/// Notes the ends of those that are there.
fn note_ends(world: &World, ends: &mut Ends) {
    for job in world.jobs() {
        let conditions = job["status"]["conditions"].as_array();
        let end = conditions.into_iter().flatten().find(|known| {
            let is_end = known["type"] == "Complete" || known["type"] == "Failed";
            is_end && known["status"] == "True"
        });
        let at: Option<Timestamp> =
            end.and_then(|end| end["lastTransitionTime"].as_str()?.parse().ok());
        if let (Some(task), Some(at)) = (task_of(&job), at) {
            ends.insert(task, at);
        }
    }
}

/// Lets fifty tasks end in mixed ways, a few at a time: of those that were completed the two youngest are left, and of the
/// others none.
fn end_fifty(world: &World, parts: &Parts, kept: &mut Kept) {
    const TASKS: usize = 50;
    let tasks: Vec<String> = (0..TASKS)
        .map(|number| {
            let part = match number % 5 {
                3 | 4 => Part::Fails,
                _ => Part::Completes(300),
            };
            enqueue_as(world, parts, "one of fifty", part)
        })
        .collect();
    let mut ends = Ends::new();
    kept.until(world, "of fifty two are left", 240, |left| {
        note_ends(world, &mut ends);
        let counts = statuses(world, &tasks);
        let of = |status: &str| counts.get(status).copied().unwrap_or(0);
        left == 2 && of("completed") + of("failed") == TASKS
    });
    let left = taken(world);
    assert_eq!(left.len(), 2, "{left:?}");
    for task in &left {
        assert_eq!(world.status(task), "completed", "of failed ones none stays");
    }
    let youngest = left.iter().map(|task| ends[task]).min();
    let mut judged = 0;
    for task in tasks.iter().filter(|task| !left.contains(*task)) {
        let (_, at) = stored(world, task);
        // A Job may come, end and go between two looks.
        if let Some(gone) = kept.gone.get(task) {
            assert!(*gone >= at, "one went at {gone}, before {at}");
        }
        if let Some(end) = ends.get(task).filter(|_| world.status(task) == "completed") {
            let is_older = youngest.is_some_and(|youngest| *end <= youngest);
            assert!(is_older, "one that ended at {end} went before {youngest:?}");
            judged += 1;
        }
    }
    println!("the ends of {judged} completed tasks were seen before their Jobs went");
    assert!(judged > 0, "no order was seen");
}

/// Runs a task to this end, and until its Job is settled: the next one ends after it.
fn end_as(world: &World, parts: &Parts, kept: &mut Kept, part: Part, status: &str) -> String {
    let task = enqueue_as(world, parts, status, part);
    kept.until(world, "it has its end", 120, |_| {
        world.status(&task) == status
    });
    kept.until(world, "its Job is settled", 60, |_| {
        let job = world.job_of(&task);
        job.is_null() || job["metadata"]["labels"]["trainyard.dev/state"] == "settled"
    });
    task
}

#[test]
fn s26_no_more_ended_jobs_are_kept_than_the_binding_says_and_the_oldest_go_first() {
    let mut world = World::new("s26number");
    let kwok = Kwok::start(&world, 1);
    let parts = Parts::default();
    let known = Arc::clone(&parts);
    let player = Player::start(&world, &world.place.kubeconfig, move |task, attempt| {
        // Attempts after the first run until they are let go.
        let part = known.lock().expect("parts lock").get(task).copied();
        part.filter(|_| attempt == 1).unwrap_or(Part::Held)
    });
    world.start_controller();
    world.queue("gpu");
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(8);
    patch["lifecycle"] = json!({
        "ttlAfterSuccess": "1h", "ttlAfterFailure": "1h",
        "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 0,
    });
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
    let mut kept = Kept::default();
    end_fifty(&world, &parts, &mut kept);
    // Each ends in another second than the one before it.
    let completes = Part::Completes(1200);
    let good: Vec<String> = (0..3)
        .map(|_| end_as(&world, &parts, &mut kept, completes, "completed"))
        .collect();
    end_as(&world, &parts, &mut kept, Part::Fails, "failed");
    let youngest = BTreeSet::from([good[1].clone(), good[2].clone()]);
    kept.until(&world, "only the youngest are left", 60, |_| {
        taken(&world) == youngest
    });

    // The Job of an attempt that another one follows tells how often the task was tried: it stays until that has ended.
    let tried = enqueue_as(&world, &parts, "tried again", Part::IsDeleted);
    kept.until(&world, "its second attempt runs", 180, |_| {
        let runs = player.runs();
        runs.iter().any(|run| run.task == tried && run.attempt == 2)
    });
    let first = world.job_of_attempt(&tried, 1);
    let first = &first["metadata"];
    assert_eq!(first["labels"]["trainyard.dev/state"], "settled");
    assert!(first["deletionTimestamp"].is_null(), "{first:#}");

    // What ends while the controller is down is counted by the next one.
    world.kill_controller();
    player.release();
    kept.until(&world, "it ends without a controller", 60, |_| {
        world.status(&tried) == "completed"
    });
    world.start_controller();
    let youngest = BTreeSet::from([good[2].clone(), tried.clone()]);
    kept.until(&world, "only the youngest are left again", 120, |_| {
        taken(&world) == youngest && world.job_of_attempt(&tried, 1).is_null()
    });
    kept.look(&world);
    for task in &good[..2] {
        let (gone, (_, stored)) = (kept.gone[task], stored(&world, task));
        assert!(gone >= stored, "one went at {gone}, before {stored}");
    }
}
