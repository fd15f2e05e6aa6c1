//! S9 with whole nodes: one is drained, one stops reporting, one is avoided. They are simulated, and their pods are
//! played (`played`).

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use trainyard::claim::QUIET_TIME;

use super::kwok::Kwok;
use super::played::{Part, Player, statuses};
use super::world::{World, wait};
use crate::times;

/// The stated figure: a task is requeued so soon after the cluster knows; five times of it are allowed.
const REQUEUED: Duration = Duration::from_secs(10);

/// Until the pod is taken away.
const STAYS: Part = Part::Completes(600_000);
const ENDS: Part = Part::Completes(300);

/// So many tasks in a queue, in this order.
fn enqueue(world: &World, name: &str, count: usize, queue: &str) -> Vec<String> {
    (0..count)
        .map(|i| world.run(&format!("{name} {i}"), "print('never')\n", queue))
        .collect()
}

/// The node of an attempt's pod.
fn node_of(world: &World, task: &str, attempt: u32) -> String {
    let label = format!("trainyard.dev/task={task},trainyard.dev/attempt={attempt}");
    let pods = world.get(&["pods", "-l", &label]);
    let node = pods["items"][0]["spec"]["nodeName"].as_str();
    node.unwrap_or_default().to_owned()
}

fn suspend(world: &World, suspended: bool) {
    world.edit("gpu", &json!({"suspend": suspended}));
    wait("the binding is suspended, or no longer", 60, || {
        let reason = world.condition("gpu", "CapacityAvailable")["reason"] == "Suspended";
        (reason == suspended).then_some(())
    });
}

/// Tasks and attempts that passed the fence.
fn runs(player: &Player) -> Vec<(String, u32)> {
    let runs = player.runs().into_iter();
    let mut runs: Vec<_> = runs.map(|run| (run.task, run.attempt)).collect();
    runs.sort();
    runs
}

/// The same if some ran as their first attempt alone, others as their second too.
fn expected(once: &[String], twice: &[String]) -> Vec<(String, u32)> {
    let first = once.iter().chain(twice).map(|task| (task.clone(), 1));
    let second = twice.iter().map(|task| (task.clone(), 2));
    let mut runs: Vec<_> = first.chain(second).collect();
    runs.sort();
    runs
}

/// Waits until the cluster wants the task's pod gone, then until the task is queued again; tells how long that took.
fn tell_requeued(world: &World, task: &str) {
    let known = wait("the pod is to go", 60, || {
        // What is shown was there before the answer came.
        let at = Instant::now();
        let pod = world.pod_of(task);
        let goes = pod.is_null() || !pod["metadata"]["deletionTimestamp"].is_null();
        goes.then_some(at)
    });
    wait("the task is queued again", 60, || {
        (world.status(task) == "queued").then_some(())
    });
    assert_requeued(
        "pod of a drained node is to go to its task queued again",
        known.elapsed(),
    );
}

/// Tells how long it took, and that it was not too long.
fn assert_requeued(what: &str, took: Duration) {
    times::told("S9", what, took.as_secs_f64(), REQUEUED.as_secs_f64());
    assert!(took < REQUEUED * 5, "{what}: {took:?}");
}

/// Waits until runs that had begun at `begun` are older than the quiet time: at the end of a younger one somebody may be
/// left who has read its task before it began.
fn until_old(begun: Instant) {
    let quiet = Duration::try_from(QUIET_TIME).expect("a quiet time is positive");
    wait("the runs are older than the quiet time", 60, || {
        (begun.elapsed() > quiet).then_some(())
    });
}

#[test]
fn s9_tasks_of_a_drained_node_go_back_in_order_before_what_waits_and_run_elsewhere() {
    let mut world = World::new("s9drain");
    let kwok = Kwok::start(&world, 2);
    let (here, there) = (kwok.nodes()[0].clone(), kwok.nodes()[1].clone());
    world.start_controller();
    // One that is full, and one that has room at once for what comes back.
    for (name, most) in [("gpu", 3), ("spare", 1)] {
        let mut patch = kwok.binding_patch();
        patch["limits"]["maxConcurrent"] = json!(most);
        world.queue(name);
        world.bind(name, &[name], &patch);
        world.until_ready(name);
    }
    world.kubectl(&["cordon", &there]);
    let running = enqueue(&world, "runs", 3, "gpu");
    let spare = enqueue(&world, "spare", 1, "spare").remove(0);
    let drained: Vec<String> = running.iter().chain([&spare]).cloned().collect();
    let (of_first, of_second) = (drained.clone(), running.clone());
    let player = Player::start(&world, &world.place.kubeconfig, move |task, attempt| {
        let staying: &[String] = match attempt {
            1 => of_first.as_slice(),
            2 => of_second.as_slice(),
            _ => &[],
        };
        let stays = staying.iter().any(|known| known == task);
        if stays { STAYS } else { ENDS }
    });
    wait("all run on one node", 90, || {
        (player.runs().len() == drained.len()).then_some(())
    });
    let all_run = Instant::now();
    for task in &drained {
        assert_eq!(node_of(&world, task, 1), here);
    }
    let waiting = enqueue(&world, "waits", 3, "gpu");
    // Else what waits would have the places of the others at once, before these are back.
    suspend(&world, true);
    assert_eq!(world.entries("gpu"), waiting);
    world.kubectl(&["uncordon", &there]);
    until_old(all_run);

    let begun = Instant::now();
    let job = thread::scope(|scope| {
        scope.spawn(|| {
            world.kubectl(&[
                "drain",
                &here,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                "--timeout=360s",
            ])
        });
        tell_requeued(&world, &spare);
        wait("attempt 2 of the task that has room", 60, || {
            let job = world.job_of_attempt(&spare, 2);
            (!job.is_null()).then_some(job)
        })
    });
    let again = begun.elapsed();
    assert!(again < REQUEUED * 5, "{again:?}");
    let notes = &job["metadata"]["annotations"];
    assert_eq!(notes["trainyard.dev/requeues"], "1", "{notes}");

    let order: Vec<String> = running.iter().chain(&waiting).cloned().collect();
    wait(
        "those that ran stand in their order before the others",
        60,
        || (world.entries("gpu") == order).then_some(()),
    );
    suspend(&world, false);
    wait("attempt 2 of each that ran", 60, || {
        let is_there = |task: &String| !world.job_of_attempt(task, 2).is_null();
        running.iter().all(is_there).then_some(())
    });
    // They stay, so that nobody has a place to give.
    for task in &waiting {
        assert!(world.job_of(task).is_null(), "{task} goes on waiting");
    }
    wait("attempt 2 of each runs", 90, || {
        let runs = runs(&player);
        let has_begun = |task: &String| runs.contains(&(task.clone(), 2));
        running.iter().all(has_begun).then_some(())
    });
    for task in &running {
        player.finish(task);
    }

    let all: Vec<String> = order.iter().chain([&spare]).cloned().collect();
    wait("all come to their end", 120, || {
        (statuses(&world, &all).get("completed") == Some(&all.len())).then_some(())
    });
    for task in &drained {
        assert_eq!(node_of(&world, task, 2), there);
    }
    assert_eq!(
        runs(&player),
        expected(&waiting, &drained),
        "none is lost, none doubled"
    );
}

/// Takes most of a node, so that a scheduler would rather have other pods elsewhere.
fn fill(world: &World, node: &str) {
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"},
        "spec": {
            "nodeName": node, "restartPolicy": "Never",
            "containers": [{
                "name": "filler", "image": "simulated:1",
                "resources": {"requests": {"cpu": "800", "memory": "3276Gi"}},
            }],
        },
    }));
    wait("most of the node is taken", 60, || {
        let pod = world.get(&["pod", "filler"]);
        (pod["status"]["phase"] == "Running").then_some(())
    });
}

#[test]
fn s9_a_task_whose_pod_was_deleted_avoids_its_node_though_that_is_open_and_has_more_room() {
    let mut world = World::new("s9avoid");
    let kwok = Kwok::start(&world, 2);
    let (here, there) = (kwok.nodes()[0].clone(), kwok.nodes()[1].clone());
    world.start_controller();
    for (name, avoids) in [("avoids", true), ("stays", false)] {
        let mut patch = kwok.binding_patch();
        patch["lifecycle"] = json!({"avoidSameNode": avoids});
        world.queue(name);
        world.bind(name, &[name], &patch);
        world.until_ready(name);
    }
    fill(&world, &there);
    let avoiding = enqueue(&world, "avoids", 4, "avoids");
    let staying = enqueue(&world, "stays", 2, "stays");
    let all = [avoiding.clone(), staying.clone()].concat();
    let player = Player::start(&world, &world.place.kubeconfig, |_, attempt| {
        if attempt == 1 { STAYS } else { ENDS }
    });
    wait("all run", 90, || {
        (player.runs().len() == all.len()).then_some(())
    });
    let mut delete = vec!["delete".to_owned(), "pod".into(), "--wait=false".into()];
    for task in &all {
        assert_eq!(node_of(&world, task, 1), here, "it has more room");
        let pod = world.pod_of(task)["metadata"]["name"].clone();
        delete.push(pod.as_str().expect("the pod has a name").to_owned());
    }
    let delete: Vec<&str> = delete.iter().map(String::as_str).collect();
    world.kubectl(&delete);

    wait("all come to their end", 120, || {
        (statuses(&world, &all).get("completed") == Some(&all.len())).then_some(())
    });
    assert_eq!(runs(&player), expected(&[], &all));
    for task in &avoiding {
        assert_eq!(node_of(&world, task, 2), there, "it was on {here}");
    }
    for task in &staying {
        assert_eq!(node_of(&world, task, 2), here, "nothing speaks against it");
        let job = world.job_of_attempt(task, 2);
        let affinity = &job["spec"]["template"]["spec"]["affinity"];
        assert!(affinity.is_null(), "{affinity}");
    }
}

/// The kubelet of a node stops, and the node controller says so: at once, not after its 50 s.
fn lose(world: &World, kwok: &mut Kwok, node: &str) {
    kwok.stop(node);
    let unknown = json!({"status": {"conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    }]}});
    world.kubectl(&[
        "patch",
        "node",
        node,
        "--subresource=status",
        "-p",
        &unknown.to_string(),
    ]);
    let taint = "node.kubernetes.io/unreachable:NoExecute";
    world.kubectl(&["taint", "nodes", node, taint, "--overwrite"]);
}

#[test]
#[ignore = "long form: two minutes of a node that is away"]
fn s9_tasks_of_a_node_that_stops_reporting_go_back_once_their_pods_are_known_to_be_dead() {
    let mut world = World::new("s9lost");
    let mut kwok = Kwok::apart(&world, 2);
    let (here, there) = (kwok.nodes()[0].clone(), kwok.nodes()[1].clone());
    world.start_controller();
    let mut patch = kwok.binding_patch();
    // Kubernetes gives pods five minutes that do not ask for less.
    patch["template"]["spec"]["tolerations"]
        .as_array_mut()
        .expect("tolerations")
        .push(json!({
            "key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 2,
        }));
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
    world.kubectl(&["cordon", &there]);
    let player = Player::start(&world, &world.place.kubeconfig, |_, attempt| {
        if attempt == 1 { STAYS } else { ENDS }
    });
    let tasks = enqueue(&world, "lost", 2, "gpu");
    wait("both run on one node", 90, || {
        (player.runs().len() == tasks.len()).then_some(())
    });
    for task in &tasks {
        assert_eq!(node_of(&world, task, 1), here);
    }
    world.kubectl(&["uncordon", &there]);
    let (dead, cut_off) = (tasks[0].clone(), tasks[1].clone());

    lose(&world, &mut kwok, &here);
    wait("Kubernetes wants their pods gone", 60, || {
        let is_asked_to_go =
            |task: &String| !world.pod_of(task)["metadata"]["deletionTimestamp"].is_null();
        tasks.iter().all(is_asked_to_go).then_some(())
    });
    // Nobody can say that they are dead: for longer than the quiet time nothing is done about them.
    let until = Instant::now() + Duration::from_secs(30);
    // One is not: its node has lost the cluster alone, and it comes to its end.
    world.call("tasks.completed", &json!({"task": cut_off}));
    while Instant::now() < until {
        assert_eq!(world.status(&dead), "in_progress");
        for task in &tasks {
            assert!(world.job_of_attempt(task, 2).is_null(), "{task} runs twice");
        }
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(world.pod_of(&dead)["status"]["phase"], "Running");

    // Its administrator knows that the machine is off, and says so as Kubernetes asks for it.
    suspend(&world, true);
    let begun = Instant::now();
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    world.kubectl(&["taint", "nodes", &here, taint]);
    let reason = wait("the task stands in its queue again", 120, || {
        let task = world.task(&dead);
        let reason = task["status_reason"].as_str().unwrap_or_default();
        (task["status"] == "queued").then(|| reason.to_owned())
    });
    assert_requeued(
        "node out of service to its task queued again",
        begun.elapsed(),
    );
    for words in ["requeued", "unreachable", here.as_str()] {
        assert!(reason.contains(words), "{words:?} is missing in {reason}");
    }
    wait("its end is counted as a lost node's", 30, || {
        let ends = world.metric("trainyard_ended_tasks_total", &["node-lost"]);
        (ends > 0.5).then_some(())
    });
    suspend(&world, false);
    assert_eq!(world.until_ended(&dead, 120)["status"], "completed");
    assert_eq!(node_of(&world, &dead, 2), there);
    assert_eq!(world.status(&cut_off), "completed");
    wait("the other's Job is done with when its pod is", 90, || {
        let job = world.job_of(&cut_off);
        let is_settled = job["metadata"]["labels"]["trainyard.dev/state"] == "settled";
        (job.is_null() || is_settled).then_some(())
    });
    assert_eq!(
        runs(&player),
        expected(&[cut_off], &[dead]),
        "none is lost, none doubled"
    );
}
