//! S27: suspending and deleting a binding, and its weekly hours.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cgroup::kill_whole_container;
use super::doors::Doors;
use super::s36_scale::{enqueue, live, world as scaled};
use super::taken::asking;
use super::world::{World, wait};

pub const SLEEPS: &str = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n";

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
    world.delete("queuebinding", name);
    wait("the binding is gone", 90, || {
        world.get(&["queuebinding", name]).is_null().then_some(())
    });
}

/// A task that is claimed, and whose pod no node takes.
fn waiting_for_a_node(world: &World) -> String {
    let nowhere = asking(&[("nodeSelector/zone", "nowhere")]);
    let claimed = world.create("claimed", "print('never')\n", &nowhere);
    world.enqueue(&claimed, "gpu");
    wait("a pod waits for a node", 60, || {
        world.pod_of(&claimed)["metadata"]["name"]
            .is_string()
            .then_some(())
    });
    claimed
}

#[test]
fn s27_a_suspended_binding_takes_nothing_and_lets_running_tasks_end() {
    let mut world = World::new("s27-suspend");
    world.start_controller();
    world.queue("gpu");
    let suspend = |suspended: bool| {
        let overrides = json!({"nodeSelector": ["zone"]});
        world.bind(
            "gpu",
            &["gpu"],
            &json!({"suspend": suspended, "overrides": overrides}),
        );
    };
    suspend(false);
    world.until_ready("gpu");
    let doors = Doors::start(&world);
    let source = format!("print('begun', flush=True)\n{}", doors.python("end"));
    let running = world.run("running", &source, "gpu");
    let claimed = waiting_for_a_node(&world);
    until_begun(&world, &running);
    suspend(true);
    wait("the condition says so", 30, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended").then_some(())
    });
    let waiting = world.run("waiting", "print('later')\n", "gpu");
    let before = world.task(&waiting);
    assert_eq!(world.status(&running), "in_progress");
    doors.open("end");
    assert_eq!(world.until_ended(&running, 60)["status"], "completed");
    wait("what has not started goes back to the front", 60, || {
        (world.entries("gpu") == [claimed.clone(), waiting.clone()]).then_some(())
    });
    assert_eq!(world.status(&claimed), "queued");
    wait("nothing of it is left", 60, || {
        (world.job_of(&claimed).is_null() && world.pod_of(&claimed).is_null()).then_some(())
    });
    assert_eq!(world.task(&waiting), before, "what waits is untouched");
    suspend(false);
    assert_eq!(world.until_ended(&waiting, 90)["status"], "completed");
}

/// Hours that end by the clock with the next minute that is some seconds away, and when they begin.
fn ending_soon() -> (Value, String) {
    let now = Timestamp::now().as_second();
    let end = (now + 15).div_euclid(60) * 60 + 60;
    let at = |second: i64| {
        let time = Timestamp::from_second(second).expect("a time");
        time.strftime("%H:%M").to_string()
    };
    let from = at(end - 6 * 3600);
    let hours = json!([{"from": from, "to": at(end), "timeZone": "UTC"}]);
    (hours, from)
}

#[test]
fn s27_when_its_hours_end_a_binding_gives_back_what_waits_and_lets_running_tasks_end() {
    let mut world = World::new("s27-hours");
    world.start_controller();
    world.queue("gpu");
    let overrides = json!({"nodeSelector": ["zone"]});
    let bind = |world: &World, hours: &Value| {
        world.bind(
            "gpu",
            &["gpu"],
            &json!({"schedule": hours, "overrides": overrides}),
        );
    };
    bind(&world, &json!([]));
    world.until_ready("gpu");
    let doors = Doors::start(&world);
    let source = format!("print('begun', flush=True)\n{}", doors.python("end"));
    let running = world.run("running", &source, "gpu");
    let claimed = waiting_for_a_node(&world);
    until_begun(&world, &running);

    let (hours, from) = ending_soon();
    bind(&world, &hours);
    world.until_observed("gpu");
    wait("the hours are over", 120, || {
        let condition = world.condition("gpu", "CapacityAvailable");
        let message = condition["message"].as_str().unwrap_or_default();
        let again = format!("at {from}");
        (condition["reason"] == "OutsideHours" && message.contains(&again)).then_some(())
    });
    let waiting = world.run("waiting", "print('later')\n", "gpu");
    let before = world.task(&waiting);
    wait("what has not started goes back to the front", 60, || {
        (world.entries("gpu") == [claimed.clone(), waiting.clone()]).then_some(())
    });
    assert_eq!(world.status(&claimed), "queued");
    wait("nothing of it is left", 60, || {
        (world.job_of(&claimed).is_null() && world.pod_of(&claimed).is_null()).then_some(())
    });
    assert_eq!(world.status(&running), "in_progress");
    doors.open("end");
    assert_eq!(world.until_ended(&running, 60)["status"], "completed");
    assert_eq!(world.task(&waiting), before, "what waits is untouched");
    let always = json!([{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "00:00"}]);
    bind(&world, &always);
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
    world.edit(
        "gpu",
        &json!({"template": {"metadata": {"labels": {"edited": "yes"}}}}),
    );
    world.until_observed("gpu");
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
    let doors = Doors::start(&world);
    let source = format!(
        "print('begun', flush=True)\n{}print('done', flush=True)\n",
        doors.python("end")
    );
    let kept = world.run("kept", &source, "keeps");
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
    assert_eq!(world.status(&kept), "in_progress");
    doors.open("end");
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
