//! The work of stages that lead the controller past its steps.

use serde_json::{Value, json};

use super::FAREWELLS;
use super::plans::CLAIM;
use super::stage::{Act, Stage, TIMES};
use crate::e2e::taken::nowhere;
use crate::e2e::world::World;

/// Tasks that nothing happens to. One comes after the other: what is done for several at once is died behind once.
pub fn claims(stage: &mut Stage) {
    let name = stage.bind("plain", &json!({}));
    for _ in 0..30 {
        let task = stage.run("plain", Act::Ends, &name);
        stage.expect(&task, "plain", "completed", 1);
        // The last is died at when they end.
        if stage.until_spent(3, &CLAIM[..6]) {
            break;
        }
    }
}

/// Tasks that wait for room while their environments are made. Each in a binding of its own, which makes one after the
/// other: none of these ever ends.
pub fn looked_ahead(stage: &mut Stage) {
    let cache = json!({"hostPath": "/var/cache/trainyard", "ahead": 1});
    let patch = json!({"limits": {"maxConcurrent": 1}, "environment": {"cache": cache}});
    for left in [1, 0] {
        let name = stage.bind("ahead", &patch);
        let first = stage.run("runs", Act::StaysOnce, &name);
        stage.expect(&first, "runs", "completed", 1);
        stage.until_begun(std::slice::from_ref(&first));
        // What the first one lists is there already.
        let other = json!({"script": {"requirements": {"pip": "six\n"}}});
        let second = stage.run_with("waits", Act::Ends, &name, &other);
        stage.expect(&second, "waits", "completed", 1);
        stage.until_left(120, "ahead/created", left);
        if left == 0 {
            make(stage, &second);
        }
        stage.finish(&first);
    }
}

/// Lets the pod that makes this task's environment, which nobody plays, come to a good end.
fn make(stage: &mut Stage, task: &str) {
    let label = format!("trainyard.dev/ahead={task}");
    let mut name = None;
    let runs = |world: &World| {
        let pod = world.get(&["pods", "-l", &label])["items"][0].clone();
        name = pod["metadata"]["name"].as_str().map(str::to_owned);
        pod["status"]["phase"] == "Running"
    };
    assert!(stage.until(60, runs), "nothing is made for task {task}");
    let name = name.expect("a pod has a name");
    let ended = json!({"status": {"phase": "Succeeded"}}).to_string();
    let patch = ["patch", "pod", &name, "--subresource=status", "-p", &ended];
    stage.world.kubectl(&patch);
    stage.until_spent(60, &["ahead/pods-listed"]);
}

/// Bindings that come: queues are made, queues are missing, a worker is registered, states are written.
pub fn begins(stage: &mut Stage) {
    let once_each = [
        "binding/finalizers-written",
        "resolve/queue-created",
        "resolve/pending-created",
        "status/written",
        "status/event-published",
    ];
    // Where a death hides what another point waits for, the next binding brings it.
    for round in 0..40 {
        if round % 2 == 0 {
            let name = stage.name("made");
            let queues = json!([{"name": name, "createIfMissing": true}]);
            stage.set_binding(&name, &json!({"queues": queues}));
        } else {
            let name = stage.name("missing");
            stage.set_binding(&name, &json!({}));
        }
        if stage.until_spent(5, &once_each) {
            break;
        }
    }
    made_meanwhile(stage);
    let name = stage.bind("plain", &json!({}));
    for round in 0..=TIMES {
        let task = stage.run("plain", Act::Ends, &name);
        stage.expect(&task, "plain", "completed", 1);
        let ends = |world: &World| world.status(&task) == "completed";
        assert!(stage.until(200, ends), "task {task} is run");
        if round < TIMES {
            for point in FAREWELLS {
                stage.farewell(point);
            }
        }
    }
}

/// Bindings of one queue that somebody deletes. They look together and make it again at once: all but one find it made.
fn made_meanwhile(stage: &mut Stage) {
    let queue = stage.name("shared");
    let patch = json!({"queues": [{"name": queue, "createIfMissing": true}]});
    for _ in 0..3 {
        let name = stage.name("shares");
        stage.set_binding(&name, &patch);
    }
    for _ in 0..20 {
        let mut id = Value::Null;
        let is_there = |world: &World| {
            let named = json!({"name": format!("^{queue}$"), "only_fields": ["id"]});
            id = world.call("queues.get_all", &named)["queues"][0]["id"].clone();
            id.is_string()
        };
        assert!(stage.until(60, is_there), "queue {queue} is made");
        let delete = json!({"queue": id, "force": true});
        stage.world.call("queues.delete", &delete);
        if stage.until_spent(5, &["resolve/queue-found"]) {
            break;
        }
    }
}

/// Pods that are deleted under running tasks, which go back to their queue. No Job of theirs is kept that need not be.
pub fn interrupted(stage: &mut Stage) {
    let lifecycle = json!({"failedJobsHistoryLimit": 0});
    let name = stage.bind("interrupted", &json!({"lifecycle": lifecycle}));
    let tasks = [(); 2].map(|()| stage.run("interrupted", Act::StaysOnce, &name));
    stage.until_begun(&tasks);
    for (left, task) in [1, 0].into_iter().zip(tasks) {
        let label = format!("trainyard.dev/task={task}");
        let delete = [
            "delete",
            "pods",
            "-l",
            &label,
            "--force",
            "--grace-period=0",
            "--wait=false",
        ];
        stage.world.kubectl(&delete);
        stage.expect(&task, "interrupted", "completed", 2);
        stage.until_left(120, "requeue/dequeued", left);
    }
}

/// Jobs that somebody suspends while they run, as Kueue does when it takes quota back.
pub fn evicted(stage: &mut Stage) {
    let name = stage.bind("evicted", &json!({}));
    let tasks = [(); 2].map(|()| stage.run("evicted", Act::StaysOnce, &name));
    stage.until_begun(&tasks);
    for (left, task) in [1, 0].into_iter().zip(tasks) {
        let job = stage.world.job_of(&task)["metadata"]["name"]
            .as_str()
            .expect("task has a Job")
            .to_owned();
        let suspend = json!({"spec": {"suspend": true}}).to_string();
        let patch = ["patch", "job", &job, "--type=merge", "-p", &suspend];
        stage.world.kubectl(&patch);
        stage.expect(&task, "evicted", "completed", 2);
        stage.until_left(120, "evicted/job-deleted", left);
    }
}

/// A pod that dies as a whole, so that the controller has to write the end.
pub fn one_dies(stage: &mut Stage) {
    die(stage, 1);
}

pub fn two_die(stage: &mut Stage) {
    die(stage, 2);
}

fn die(stage: &mut Stage, count: usize) {
    let name = stage.bind("dies", &json!({}));
    let tasks: Vec<String> = (0..count)
        .map(|_| stage.run("dies", Act::StaysOnce, &name))
        .collect();
    stage.until_begun(&tasks);
    for task in tasks {
        stage.die(&task);
        stage.expect(&task, "dies", "failed", 1);
        stage.until(200, |world| world.status(&task) == "failed");
    }
}

/// Pods that find no node until patience is over.
pub fn hopeless(stage: &mut Stage) {
    let lifecycle = json!({"pendingTimeout": "20s", "onPendingTimeout": "Fail"});
    let patch = json!({"template": waits(stage), "lifecycle": lifecycle});
    let name = stage.bind("hopeless", &patch);
    for left in [1, 0] {
        let task = stage.run("hopeless", Act::Ends, &name);
        stage.expect(&task, "hopeless", "failed", 0);
        stage.until_left(120, "give-up/dequeued", left);
    }
}

/// A task whose pod waits, whose entry somebody takes away and whose queue is deleted: nothing leads back to it.
pub fn forgotten(stage: &mut Stage) {
    let name = stage.bind("forgotten", &json!({"template": waits(stage)}));
    let pending = pending_queue(stage, &name);
    let task = stage.run("forgotten", Act::Ends, &name);
    stage.expect(&task, "forgotten", "failed", 0);
    let is_held =
        |world: &World| world.job_of(&task)["metadata"]["labels"]["trainyard.dev/state"] == "held";
    assert!(stage.until(60, is_held), "task {task} waits");
    let queue = stage.world.queue_id(&name);
    let delete = json!({"queue": queue, "force": true});
    stage.world.call("queues.delete", &delete);
    let entry = json!({"queue": pending, "task": task});
    stage.world.call("queues.remove_task", &entry);
}

/// A template whose pods wait for ever.
fn waits(stage: &Stage) -> Value {
    nowhere(&stage.world, &json!({}))
}

/// Tasks that the user stops while their pod waits, and entries of tasks that are not queued.
///
/// A death between Job and entry leaves such an entry only if the Job is gone before the next start has read it.
pub fn aborted(stage: &mut Stage) {
    let name = stage.bind("aborted", &json!({"template": waits(stage)}));
    let pending = pending_queue(stage, &name);
    for _ in 0..6 {
        let task = stage.run("aborted", Act::Ends, &name);
        let waits = |world: &World| world.entries_of(&pending).contains(&task);
        assert!(stage.until(60, waits), "task {task} waits");
        stage.world.call("tasks.stop", &json!({"task": task}));
        stage.expect(&task, "aborted", "stopped", 0);
        let is_over = |world: &World| {
            !world.entries_of(&pending).contains(&task) && world.job_of(&task).is_null()
        };
        assert!(stage.until(90, is_over), "nothing is left of task {task}");
        if stage.left("take-entry/taken") > 0 {
            let body = json!({"queue": pending, "task": task, "update_execution_queue": false});
            stage.world.call("queues.add_task", &body);
            let is_taken = |world: &World| !world.entries_of(&pending).contains(&task);
            assert!(stage.until(90, is_taken), "the entry of task {task} stays");
        }
    }
}

/// Tasks that stand pending without a Job, and dequeues that leave a task queued.
///
/// A death right behind the entry that a restore takes leaves the one state that nobody has a record of
/// (`docs/claim.md`, Restore): that point is died at on other ways.
pub fn astray(stage: &mut Stage) {
    let name = stage.bind("astray", &json!({"suspend": true}));
    let pending = pending_queue(stage, &name);
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let task = stage.run("astray", Act::Ends, &name);
        let body = json!({"task": task, "queue": pending, "update_execution_queue": false});
        stage.world.call("tasks.enqueue", &body);
        let is_back = |world: &World| world.entries(&name).contains(&task);
        assert!(stage.until(60, is_back), "task {task} is put back");
        tasks.push(task);
    }
    for (left, task) in [1, 0].into_iter().zip(&tasks) {
        // As after an interruption: the next dequeue leaves it queued (`protocol.md` §5.3).
        let requeue = json!({"task": task, "new_status": "queued"});
        stage.world.call("tasks.dequeue", &requeue);
        stage.world.enqueue(task, &name);
        stage.world.call("tasks.dequeue", &json!({"task": task}));
        stage.expect(task, "dequeued", "created", 0);
        // A process that begins sweeps at once, and nothing else leads to this task.
        stage.kill();
        stage.until_left(120, "dequeue/dequeued", left);
    }
    for task in &tasks[2..] {
        stage.expect(task, "astray", "completed", 1);
    }
    stage.set_binding(&name, &json!({"suspend": false}));
}

fn pending_queue(stage: &mut Stage, binding: &str) -> String {
    let mut id = None;
    stage.until(60, |world| {
        id = world.pending_queue(binding);
        id.is_some()
    });
    id.expect("the binding has a pending queue")
}

/// Tasks whose pods wait in vain and that go back one after the other, each behind the one that was taken before it.
/// What a death has forgotten of that order takes two more tasks to come to again.
pub fn in_order(stage: &mut Stage) {
    let lifecycle = json!({"pendingTimeout": "25s", "onPendingTimeout": "Requeue"});
    for left in [1, 0] {
        let patch = json!({"template": waits(stage), "lifecycle": lifecycle});
        let name = stage.bind("in-order", &patch);
        let pending = pending_queue(stage, &name);
        for count in [1, 2] {
            let task = stage.run("in order", Act::Ends, &name);
            stage.expect(&task, "in order", "queued", 0);
            let waits = |world: &World| world.entries_of(&pending).len() == count;
            assert!(stage.until(60, waits), "task {task} waits");
            // A turn of its own, and patience of its own.
            stage.until(3, |_| false);
        }
        let suspended = json!({"template": waits(stage), "lifecycle": lifecycle, "suspend": true});
        stage.set_binding(&name, &suspended);
        stage.until_left(120, "back/moved-behind", left);
    }
}

/// Bindings that are deleted while their tasks run, in rounds: several loops die at once, so that one of them may pass
/// its point unseen.
pub fn deleted(stage: &mut Stage) {
    for _ in 0..4 {
        let (mut names, mut all, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
        for (policy, status) in [("Orphan", "completed"), ("Delete", "stopped")] {
            let name = stage.bind("deleted", &json!({"deletionPolicy": policy}));
            for _ in 0..2 {
                let task = stage.run(policy, Act::StaysOnce, &name);
                stage.expect(&task, policy, status, 1);
                if policy == "Orphan" {
                    orphans.push(task.clone());
                }
                all.push(task);
            }
            names.push(name);
        }
        stage.until_begun(&all);
        for name in &names {
            stage
                .world
                .kubectl(&["delete", "queuebinding", name, "--wait=false"]);
        }
        for name in &names {
            until_gone(stage, name);
        }
        for task in &orphans {
            stage.finish(task);
        }
        if stage.unspent().is_empty() {
            return;
        }
    }
}

fn until_gone(stage: &mut Stage, binding: &str) {
    let is_gone = |world: &World| world.get(&["queuebinding", binding]).is_null();
    assert!(stage.until(200, is_gone), "binding {binding} goes");
}

/// Runs that outlive their binding and die without a word; one of the same name writes their end.
pub fn orphaned(stage: &mut Stage) {
    let name = stage.bind("orphaned", &json!({}));
    let tasks = [(); 2].map(|()| stage.run("orphaned", Act::StaysOnce, &name));
    stage.until_begun(&tasks);
    stage
        .world
        .kubectl(&["delete", "queuebinding", &name, "--wait=false"]);
    until_gone(stage, &name);
    for task in &tasks {
        stage.die(task);
        stage.expect(task, "orphaned", "failed", 1);
    }
    stage.set_binding(&name, &json!({}));
}
