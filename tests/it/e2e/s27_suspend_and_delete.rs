//! S27: suspending and deleting a binding; S26: how long ended Jobs are kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cgroup::kill_whole_container;
use super::s36_scale::{enqueue, live, world as scaled};
use super::world::{World, wait};

const SLEEPS: &str = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n";

fn until_begun(world: &World, task: &str) {
    wait("the task runs", 90, || {
        world
            .log(task)
            .iter()
            .any(|line| line == "begun")
            .then_some(())
    });
}

fn delete_binding(world: &World, name: &str) {
    world.kubectl(&["delete", "queuebinding", name, "--wait=false"]);
    wait("the binding is gone", 90, || {
        world.get(&["queuebinding", name]).is_null().then_some(())
    });
}

#[test]
fn s27_a_suspended_binding_takes_nothing_and_lets_running_tasks_end() {
    let world = World::with_binding("s27-suspend");
    let running = world.run(
        "running",
        "import time\nprint('begun', flush=True)\ntime.sleep(12)\n",
        "gpu",
    );
    until_begun(&world, &running);
    world.bind("gpu", &["gpu"], &json!({"suspend": true}));
    wait("the condition says so", 30, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended").then_some(())
    });
    let waiting = world.run("waiting", "print('later')\n", "gpu");
    let before = world.task(&waiting);
    assert_eq!(world.until_ended(&running, 60)["status"], "completed");
    assert_eq!(world.task(&waiting), before, "what waits is untouched");
    world.bind("gpu", &["gpu"], &json!({"suspend": false}));
    assert_eq!(world.until_ended(&waiting, 90)["status"], "completed");
}

#[test]
fn s27_outside_its_hours_a_binding_takes_nothing_and_lets_running_tasks_end() {
    let world = World::with_binding("s27-hours");
    let running = world.run(
        "running",
        "import time\nprint('begun', flush=True)\ntime.sleep(12)\n",
        "gpu",
    );
    until_begun(&world, &running);
    // A day that neither is today nor becomes it while this runs, in any time zone.
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let today = jiff::Zoned::now().weekday().to_monday_zero_offset();
    let another = days[(usize::try_from(today).expect("a weekday") + 3) % 7];
    let hours =
        json!([{"days": [another], "from": "08:00", "to": "20:00", "timeZone": "Europe/Berlin"}]);
    world.bind("gpu", &["gpu"], &json!({"schedule": hours}));
    wait("the condition says so", 30, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        let message = condition["message"].as_str().unwrap_or_default();
        (condition["reason"] == "OutsideHours" && message.contains("at 08:00")).then_some(())
    });
    let waiting = world.run("waiting", "print('later')\n", "gpu");
    let before = world.task(&waiting);
    assert_eq!(world.until_ended(&running, 60)["status"], "completed");
    assert_eq!(world.task(&waiting), before, "what waits is untouched");
    let always = json!([{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "00:00"}]);
    world.bind("gpu", &["gpu"], &json!({"schedule": always}));
    assert_eq!(world.until_ended(&waiting, 90)["status"], "completed");
}

#[test]
fn an_edit_of_the_template_leaves_fifty_running_tasks_alone() {
    const JOBS: usize = 50;
    let (world, _kwok) = scaled(World::new("edit"), 2);
    enqueue(&world, JOBS);
    wait("all run", 180, || {
        (live(&world) == (JOBS, JOBS)).then_some(())
    });
    let known = |world: &World| -> BTreeMap<String, Value> {
        let of = |job: &Value| {
            let uid = job["metadata"]["uid"].as_str().expect("a uid").to_owned();
            (uid, job["spec"]["template"].clone())
        };
        world.jobs().iter().map(of).collect()
    };
    let before = known(&world);
    assert_eq!(before.len(), JOBS);
    let patch = json!({"spec": {"template": {"metadata": {"labels": {"edited": "yes"}}}}});
    world.kubectl(&[
        "patch",
        "queuebinding",
        "gpu",
        "--type=merge",
        "-p",
        &patch.to_string(),
    ]);
    wait("the edit was seen", 60, || {
        let binding = world.get(&["queuebinding", "gpu"]);
        (binding["status"]["observedGeneration"] == binding["metadata"]["generation"]).then_some(())
    });
    let new = enqueue(&world, 1).remove(0);
    let job = wait("the next task is taken", 60, || {
        let job = world.job_of(&new);
        (!job.is_null()).then_some(job)
    });
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["edited"], "yes", "{labels:#}");
    let mut after = known(&world);
    after.remove(job["metadata"]["uid"].as_str().expect("a uid"));
    assert_eq!(
        after, before,
        "running Jobs are the same objects, unchanged"
    );
}

#[test]
fn s27_deletion_gives_back_what_waits_and_keeps_or_ends_what_runs() {
    let mut world = World::new("s27-delete");
    world.start_controller();
    let unicorn = json!({"name": "task", "image": world.place.task_image, "resources": {"limits": {"example.com/unicorn": 1}}});
    for (name, policy) in [("keeps", "Orphan"), ("ends", "Delete")] {
        world.queue(name);
        world.bind(name, &[name], &json!({"deletionPolicy": policy}));
        world.queue(&format!("{name}-waits"));
        world.bind(
            &format!("{name}-waits"),
            &[&format!("{name}-waits")],
            &json!({"deletionPolicy": policy, "template": {"spec": {"containers": [unicorn.clone()]}}}),
        );
    }
    let kept = world.run(
        "kept",
        "import time\nprint('begun', flush=True)\ntime.sleep(25)\nprint('done', flush=True)\n",
        "keeps",
    );
    let ended = world.run("ended", SLEEPS, "ends");
    let first = world.run("first", "print('never')\n", "keeps-waits");
    let second = world.run("second", "print('never')\n", "keeps-waits");
    wait("both wait for their pods", 60, || {
        (world.entries("keeps-waits").is_empty() && world.jobs().len() >= 4).then_some(())
    });
    until_begun(&world, &kept);
    until_begun(&world, &ended);

    delete_binding(&world, "keeps-waits");
    assert_eq!(
        world.entries("keeps-waits"),
        [first.clone(), second],
        "back at the front, in their order"
    );
    assert_eq!(world.status(&first), "queued");

    delete_binding(&world, "keeps");
    assert_eq!(world.until_ended(&kept, 90)["status"], "completed");
    assert!(world.log(&kept).iter().any(|line| line == "done"));

    delete_binding(&world, "ends");
    assert_eq!(world.until_ended(&ended, 60)["status"], "stopped");
    wait("nothing of it is left", 60, || {
        world.pod_of(&ended).is_null().then_some(())
    });
}

#[test]
fn s27_a_run_that_outlived_its_binding_and_died_is_ended_by_one_of_the_same_name() {
    let world = World::with_binding("s27-orphan");
    let task = world.run("orphan", SLEEPS, "gpu");
    until_begun(&world, &task);
    delete_binding(&world, "gpu");
    kill_whole_container(&world.running_pod(&task), "task");
    wait("the Job has ended", 60, || {
        world.job_of(&task)["status"]["conditions"]
            .to_string()
            .contains("Failed")
            .then_some(())
    });
    assert_eq!(world.status(&task), "in_progress", "nobody could say so");
    world.bind("gpu", &["gpu"], &json!({}));
    let ended = world.until_ended(&task, 120);
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["status_reason"], "trainyard: killed");
}

#[test]
fn s26_an_ended_job_is_kept_from_the_moment_its_outcome_is_stored() {
    let mut world = World::new("s26");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"lifecycle": {"ttlAfterSuccess": "5s", "ttlAfterFailure": "40s"}}),
    );
    world.until_ready("gpu");
    let good = world.run("good", "print('well')\n", "gpu");
    let bad = world.run("bad", "raise SystemExit(1)\n", "gpu");
    assert_eq!(world.until_ended(&good, 90)["status"], "completed");
    assert_eq!(world.until_ended(&bad, 90)["status"], "failed");
    let ended = Instant::now();
    wait("the Job of the completed task is gone", 40, || {
        world.job_of(&good).is_null().then_some(())
    });
    assert!(
        ended.elapsed() < Duration::from_secs(35),
        "the test itself is too slow to tell"
    );
    assert!(!world.job_of(&bad).is_null(), "the failed one is kept");

    // While the controller is down no Job goes, whatever its time: nobody has stored what it says.
    let late = world.run(
        "late",
        "import time\nprint('begun', flush=True)\ntime.sleep(6)\n",
        "gpu",
    );
    until_begun(&world, &late);
    world.kill_controller();
    assert_eq!(world.until_ended(&late, 60)["status"], "completed");
    std::thread::sleep(Duration::from_secs(12));
    assert!(!world.job_of(&late).is_null(), "it is not settled yet");
    world.start_controller();
    wait("it goes once it is settled", 60, || {
        world.job_of(&late).is_null().then_some(())
    });
    wait("the failed one goes at its time", 90, || {
        world.job_of(&bad).is_null().then_some(())
    });
}
