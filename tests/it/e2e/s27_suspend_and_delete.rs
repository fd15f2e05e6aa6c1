//! S27: suspending and deleting a binding; S26: how long ended Jobs are kept.

use std::collections::BTreeMap;
use std::net::TcpListener;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::cgroup::kill_whole_container;
use super::s36_scale::{enqueue, live, world as scaled};
use super::taken::{asking, taken};
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
    world.delete("queuebinding", name);
    wait("the binding is gone", 90, || {
        world.get(&["queuebinding", name]).is_null().then_some(())
    });
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
    let running = world.run(
        "running",
        "import time\nprint('begun', flush=True)\ntime.sleep(12)\n",
        "gpu",
    );
    let nowhere = asking(&[("nodeSelector/zone", "nowhere")]);
    let claimed = world.create("claimed", "print('never')\n", &nowhere);
    world.enqueue(&claimed, "gpu");
    wait("a pod waits for a node", 60, || {
        world.pod_of(&claimed)["metadata"]["name"]
            .is_string()
            .then_some(())
    });
    until_begun(&world, &running);
    suspend(true);
    wait("the condition says so", 30, || {
        (world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended").then_some(())
    });
    let waiting = world.run("waiting", "print('later')\n", "gpu");
    let before = world.task(&waiting);
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
    // It runs until the door is closed.
    let door = TcpListener::bind((world.place.gateway.as_str(), 0)).expect("the door opens");
    let port = door.local_addr().expect("an address").port();
    let source = format!(
        "import socket\nc = socket.create_connection(('{}', {port}), 60)\nc.settimeout(600)\n\
         print('begun', flush=True)\ntry:\n    c.recv(1)\nexcept ConnectionError:\n    pass\n",
        world.place.gateway
    );
    let running = world.run("running", &source, "gpu");
    let nowhere = asking(&[("nodeSelector/zone", "nowhere")]);
    let claimed = world.create("claimed", "print('never')\n", &nowhere);
    world.enqueue(&claimed, "gpu");
    wait("a pod waits for a node", 60, || {
        world.pod_of(&claimed)["metadata"]["name"]
            .is_string()
            .then_some(())
    });
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
    drop(door);
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

/// The binding of S26 keeps Jobs of completed tasks for so long, and those of failed ones.
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
    /// settle it, from `earliest` on.
    fn judge(&self, world: &World, task: &str, ttl: SignedDuration, earliest: Timestamp) {
        let document = world.task(task);
        let (name, stored) = (&document["name"], &document["status_changed"]);
        let stored = stored.as_str().expect("a time");
        let stored: Timestamp = stored.parse().expect("a time");
        let (seen, gone) = (self.seen[task], self.gone[task]);
        let kept = gone.duration_since(stored);
        println!("{name}: gone {:.1} s after its end", kept.as_secs_f64());
        // Kubernetes drops what is below a second of a Job's end.
        let least = ttl - SignedDuration::from_secs(1);
        assert!(kept >= least, "{name} went after {kept:?}, not {ttl:?}");
        let due = (stored + ttl).max(earliest);
        let late = seen.duration_since(due);
        assert!(late < LATE, "{name} was there {late:?} after its time");
    }
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
