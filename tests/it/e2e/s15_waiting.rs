//! S15: a task whose pod waits says why, and frees its place when its patience is over.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use trainyard::diagnose::Category;

use super::s32_permits::Jobs;
use super::s41_faults::clock::{Clock, Look};
use super::taken::taken_at;
use super::world::{PATIENCE, World, merge, wait};
use crate::{clock, times};

/// The stated figures, in seconds: a task says why its pod waits, and its place is used at once when it is free, which is
/// within a poll.
const TOLD: f64 = 5.0;
const USED: f64 = 1.0;

/// A task whose pod waits, and when the cluster was first seen to show why, and the task to say so.
struct Waiting {
    name: &'static str,
    task: String,
    category: Category,
    /// What it has to say.
    words: &'static str,
    is_told: bool,
    clock: Clock,
}

impl Waiting {
    /// Whether the task and its log have said what the pod waits for.
    fn has_told(&mut self, world: &World, look: &mut Look) -> bool {
        if !self.is_told {
            let document = world.task(&self.task);
            let message = document["status_message"].as_str().unwrap_or_default();
            // On a busy node the cause may come so late that the patience for it is over at once.
            let waits_or_is_given_up =
                ["queued", "failed"].map(|status| document["status"] == status);
            self.is_told = waits_or_is_given_up.contains(&true) && message.contains(self.words);
            let of = (self.task.as_str(), self.category);
            self.clock.note(world, look, of, self.is_told);
        }
        self.is_told && world.log(&self.task).join("\n").contains("Kubernetes: ")
    }
}

/// When this Job was last seen to hold its place, in seconds since 1970, once it does no more: the cluster has taken the pod
/// from its node then, and the Job with it.
fn held_until(jobs: &Jobs, job: &str) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(90) * PATIENCE;
    let mut held = 0.0;
    loop {
        let now = clock::now();
        if !jobs.holders().contains(job) {
            return held;
        }
        held = now;
        assert!(Instant::now() < deadline, "Job {job} does not go");
        // Often, because what follows does not take long.
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn s15_a_pod_that_waits_says_why_within_seconds_and_frees_its_place() {
    let mut world = World::new("s15");
    world.start_controller();
    let wanted = [
        (
            "bad-image",
            Category::ImageMissing,
            json!({"image": format!("{}/no-such-image:1", world.place.registry)}),
            "no-such-image",
        ),
        (
            "unicorn",
            Category::Unschedulable,
            json!({"resources": {"limits": {"example.com/unicorn": 1}}}),
            "example.com/unicorn",
        ),
        (
            "bad-secret",
            Category::Configuration,
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}}]}),
            "no-such-secret",
        ),
    ];
    let mut waiting = Vec::new();
    for (name, category, fields, words) in wanted {
        let mut container = json!({"name": "task", "image": world.place.task_image});
        merge(&mut container, &fields);
        // A busy node may need longer than that to say what is wrong with an image or a Secret.
        let patience = if name == "unicorn" { "30s" } else { "5m" };
        let spec = json!({
            "lifecycle": {"pendingTimeout": patience, "onPendingTimeout": "Requeue"},
            "limits": {"maxConcurrent": 1},
            "template": {"spec": {"containers": [container]}},
        });
        world.queue(name);
        world.bind(name, &[name], &spec);
        waiting.push(Waiting {
            name,
            task: world.run(name, "print('never')\n", name),
            category,
            words,
            is_told: false,
            clock: Clock::default(),
        });
    }
    let next = world.run("next", "print('never')\n", "bad-image");
    let mut silent: Vec<&mut Waiting> = waiting.iter_mut().collect();
    let mut look = Look::new(&world);
    wait("each task and its log say why its pod waits", 60, || {
        if look.is_old() {
            look = Look::new(&world);
        }
        silent.retain_mut(|one| !one.has_told(&world, &mut look));
        silent.is_empty().then_some(())
    });
    for one in &waiting {
        let late = one.clock.late().as_secs_f64();
        if one.clock.was_shown() {
            times::told(
                "S15",
                "a task says why its pod waits once the cluster shows it",
                late,
                TOLD,
            );
        }
        assert!(
            !one.clock.is_too_late(),
            "{}: told only after {late:.1} s",
            one.name
        );
    }
    let [bad_image, unicorn, _] = &waiting[..] else {
        unreachable!("three were made");
    };
    let (jobs, job) = (Jobs::of(&world), format!("ty-{}-1", bad_image.task));
    let held = thread::spawn(move || held_until(&jobs, &job));
    // Where there is no room it goes back to its queue when patience is over, and others may go.
    wait("the one without room is given back", 90, || {
        let reason = world.task(&unicorn.task)["status_reason"].to_string();
        reason.contains("trainyard: restored").then_some(())
    });
    // An image that is missing is given up after its own patience, and the place is the next one's.
    wait("the one without an image is failed", 90, || {
        let is_free = world.job_of(&next).is_null();
        let over = world.status(&bad_image.task) == "failed";
        assert!(over || is_free, "one place, two tasks");
        over.then_some(())
    });
    let failed = clock::told(&world.task(&bad_image.task)["status_changed"]);
    let free = held.join().expect("its Job goes").max(failed);
    let job = wait("the next one takes the place at once", 30, || {
        let job = world.job_of(&next);
        (!job.is_null()).then_some(job)
    });
    // By what server and controller wrote: to look from outside takes longer than what is looked for.
    let taken = taken_at(&job);
    for (what, since) in [
        ("the place of a failed task is the next one's", failed),
        (
            "the same from when the cluster has taken its pod away",
            free,
        ),
    ] {
        times::told("S15", what, taken - since, USED);
    }
}
