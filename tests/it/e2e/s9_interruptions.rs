//! S9 and S46: what takes a running task's pod away, twice; the task comes back to the front as its next attempt, until
//! its budget is spent, and resumes from its checkpoint.

use serde_json::json;

use super::world::{World, wait};

/// Counts its attempts by lines of its own, and ends at SIGTERM with a checkpoint written.
const TRAINER: &str = "import os, signal, sys, time\n\
    attempt = os.environ['TRAINYARD_ATTEMPT']\n\
    def end(*_):\n    print('checkpoint of attempt', attempt, flush=True); sys.exit(0)\n\
    signal.signal(signal.SIGTERM, end)\n\
    print('attempt', attempt, 'begun', flush=True)\n\
    time.sleep(600)\n";

fn until_line(world: &World, task: &str, line: &str) {
    wait(line, 150, || {
        world
            .log(task)
            .iter()
            .any(|known| known == line)
            .then_some(())
    });
}

fn evict(world: &World, task: &str) {
    let pod = world.running_pod(task)["metadata"]["name"]
        .as_str()
        .expect("pod has a name")
        .to_owned();
    world.post(
        &format!("/api/v1/namespaces/{}/pods/{pod}/eviction", world.namespace),
        &json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": world.namespace},
        }),
    );
}

#[test]
fn s46_an_evicted_training_comes_back_until_its_budget_is_spent() {
    let mut world = World::new("s46");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"lifecycle": {"maxInterruptions": 1}, "limits": {"maxConcurrent": 1}}),
    );
    let task = world.run("trainer", TRAINER, "gpu");
    until_line(&world, &task, "attempt 1 begun");
    evict(&world, &task);
    until_line(&world, &task, "attempt 2 begun");
    let log = world.log(&task);
    assert!(
        log.iter().any(|line| line == "checkpoint of attempt 1"),
        "SIGTERM reached it: {log:?}"
    );
    let job = world.job_of_attempt(&task, 2);
    let avoided = job["spec"]["template"]["spec"]["affinity"].to_string();
    let node = world.running_pod(&task)["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        avoided.contains(&node),
        "the node of attempt 1 is avoided if there is another: {avoided}"
    );
    evict(&world, &task);
    let ended = world.until_ended(&task, 120);
    assert_eq!(ended["status"], "failed");
    let reason = ended["status_reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("evicted"),
        "{reason}: {}",
        ended["status_message"]
    );
}

/// What only one pod of the node can have, so that a second one has to preempt it.
struct Slot {
    name: String,
    low: String,
    high: String,
}

impl Slot {
    fn new(world: &World) -> Self {
        let slot = Self {
            name: format!("trainyard.test/{}", world.namespace),
            low: format!("{}-low", world.namespace),
            high: format!("{}-high", world.namespace),
        };
        for (name, value) in [(&slot.low, 1), (&slot.high, 1000)] {
            world.apply(&json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                "metadata": {"name": name}, "value": value,
            }));
        }
        let nodes = world.get(&["nodes", "-l", "type!=kwok"]);
        let node = nodes["items"][0]["metadata"]["name"]
            .as_str()
            .expect("a real node");
        let amount = json!({&slot.name: "1"});
        let patch = json!({"status": {"capacity": amount, "allocatable": amount}}).to_string();
        world.kubectl(&[
            "patch",
            "node",
            node,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
        slot
    }

    fn resources(&self) -> serde_json::Value {
        json!({"limits": {&self.name: "1"}})
    }
}

#[test]
fn s46_a_training_that_a_higher_priority_preempts_resumes_as_an_interruption() {
    let mut world = World::new("s46preempt");
    let slot = Slot::new(&world);
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "lifecycle": {"maxInterruptions": 1, "maxFailures": 1},
            "template": {"spec": {
                "priorityClassName": slot.low,
                "containers": [{"name": "task", "image": world.place.task_image, "resources": slot.resources()}],
            }},
        }),
    );
    let task = world.run("trainer", TRAINER, "gpu");
    until_line(&world, &task, "attempt 1 begun");
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "urgent"},
        "spec": {
            "priorityClassName": slot.high, "terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
            "containers": [{"name": "urgent", "image": world.place.task_image,
                "command": ["python3", "-c", "import time; time.sleep(600)"], "resources": slot.resources()}],
        },
    }));
    let second = wait("attempt 2 waits for the slot", 150, || {
        let job = world.job_of_attempt(&task, 2);
        (!job.is_null()).then_some(job)
    });
    let notes = &second["metadata"]["annotations"];
    assert_eq!(notes["trainyard.dev/requeues"], "1", "{notes}");
    assert!(
        notes["trainyard.dev/failures"].is_null(),
        "maxFailures is untouched: {notes}"
    );
    let ends = world.metric("trainyard_ended_tasks_total", &["preempted"]);
    assert!((ends - 1.0).abs() < 0.1, "told as preempted: {ends}");
    world.kubectl(&["delete", "pod", "urgent", "--wait=false"]);
    until_line(&world, &task, "attempt 2 begun");
    let log = world.log(&task);
    assert!(
        log.iter().any(|line| line == "checkpoint of attempt 1"),
        "SIGTERM reached it: {log:?}"
    );
    world.call("tasks.stop", &json!({"task": task}));
    assert_eq!(world.until_ended(&task, 60)["status"], "stopped");
    for class in [&slot.low, &slot.high] {
        world.kubectl(&["delete", "priorityclass", class]);
    }
}

#[test]
fn s9_a_task_whose_node_object_is_deleted_is_requeued() {
    // On a simulated node no process runs: the test itself acts as the pod and passes the fence.
    let mut world = World::new("s9");
    let kwok = super::kwok::Kwok::start(&world, 2);
    world.start_controller();
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &kwok.binding_patch());
    world.until_ready("gpu");
    let task = world.run("on a fake node", "print('never')\n", "gpu");
    let pod = wait("the pod runs on a simulated node", 60, || {
        let pod = world.pod_of(&task);
        (pod["status"]["phase"] == "Running").then_some(pod)
    });
    super::kwok::pass_fence(&world, &pod, &task);
    let node = pod["spec"]["nodeName"].as_str().expect("node").to_owned();
    world.kubectl(&["delete", "node", &node]);
    world.kubectl(&[
        "delete",
        "pod",
        pod["metadata"]["name"].as_str().expect("name"),
        "--force",
        "--grace-period=0",
        "--wait=false",
    ]);
    let second = wait("attempt 2 is there", 120, || {
        let job = world.job_of_attempt(&task, 2);
        (!job.is_null()).then_some(job)
    });
    assert_eq!(
        second["metadata"]["labels"]["trainyard.dev/queue"],
        world.queue_id("gpu")
    );
    let reason = world.task(&task)["status_reason"].to_string();
    println!("requeued: {reason}");
    wait("attempt 2 is not on the node that is gone", 60, || {
        let pods = world.get(&[
            "pods",
            "-l",
            &format!("trainyard.dev/task={task},trainyard.dev/attempt=2"),
        ]);
        let on = pods["items"][0]["spec"]["nodeName"].as_str()?;
        (on != node).then_some(())
    });
}
