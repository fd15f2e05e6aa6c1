//! S9 and S46: what takes a running task's pod away; the task comes back to the front as its next attempt, until its
//! budget is spent, and resumes from its checkpoint.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::images;
use super::kwok::{Kwok, pass_fence};
use super::s42_cache::MAKING;
use super::world::{World, wait};

/// Counts its attempts by lines of its own, begins where the last one was, and ends at SIGTERM with its step saved.
const TRAINER: &str = "import os, signal, time\n\
    attempt, state, step = os.environ['TRAINYARD_ATTEMPT'], '/checkpoints/state', 0\n\
    if os.path.exists(state):\n    step = int(open(state).read()); print('attempt', attempt, 'resumes at step', step, flush=True)\n\
    def end(*_):\n    left = int(open(os.environ['TRAINYARD_DEADLINE_FILE']).readline()) - time.time()\n    open(state, 'w').write(str(step))\n    print('attempt', attempt, 'knows its time:', 0 < left < 60, flush=True)\n    print('attempt', attempt, 'is saved at step', step, flush=True); os._exit(0)\n\
    signal.signal(signal.SIGTERM, end)\n\
    print('attempt', attempt, 'begun', flush=True)\n\
    for step in range(step + 1, 6000):\n    time.sleep(0.1)\n";

/// Tells that an environment was found as an earlier attempt has made it.
const FOUND: &str = "trainyard: the Python environment is in the cache";

/// A folder of this machine that pods of any user may write.
pub(super) fn open_folder(world: &World, name: &str) -> PathBuf {
    let folder = world.dir.path().join(name);
    fs::create_dir(&folder).expect("folder is made");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(&folder, mode).expect("folder is open to all");
    folder
}

/// Pods whose training keeps its checkpoint in a folder of this machine; `resources` are those of its container.
fn template(world: &World, resources: &Value) -> Value {
    let folder = open_folder(world, "checkpoints");
    json!({"spec": {
        "volumes": [{"name": "checkpoints", "hostPath": {"path": folder}}],
        "containers": [{
            "name": "task", "image": world.place.task_image, "resources": resources,
            "volumeMounts": [{"name": "checkpoints", "mountPath": "/checkpoints"}],
        }],
    }})
}

/// SIGTERM reached attempt 1, which knew how long it had; attempt 2 has begun with what it saved.
fn assert_resumed(world: &World, task: &str) {
    let log = world.log(task);
    let after = |words: &str| log.iter().find_map(|line| line.strip_prefix(words));
    assert_eq!(after("attempt 1 knows its time: "), Some("True"), "{log:?}");
    let saved = after("attempt 1 is saved at step ");
    assert!(saved.is_some_and(|step| step != "0"), "{log:?}");
    assert_eq!(after("attempt 2 resumes at step "), saved, "{log:?}");
    let step = saved.unwrap_or_default();
    let written = format!(
        "attempt 1 begun\nattempt 1 knows its time: True\nattempt 1 is saved at step {step}\n\
         attempt 2 resumes at step {step}\nattempt 2 begun\n"
    );
    world.has_written(task, &written);
}

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
    let pod = world.running_pod(task);
    world.evict(pod["metadata"]["name"].as_str().expect("pod has a name"));
}

#[test]
fn s46_an_evicted_training_comes_back_until_its_budget_is_spent() {
    let mut world = World::new("s46");
    world.start_controller();
    world.queue("gpu");
    let cache = open_folder(&world, "cache");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "lifecycle": {"maxInterruptions": 1, "abortGracePeriod": "45s"}, "limits": {"maxConcurrent": 1},
            "template": template(&world, &json!({})), "environment": {"cache": {"hostPath": cache}},
        }),
    );
    let with_a_package = format!("import six\n{TRAINER}");
    let requirements = json!({"script": {"requirements": {"pip": "six\n"}}});
    let task = world.create("trainer", &with_a_package, &requirements);
    world.enqueue(&task, "gpu");
    until_line(&world, &task, "attempt 1 begun");
    evict(&world, &task);
    until_line(&world, &task, "attempt 2 begun");
    assert_resumed(&world, &task);
    // The first attempt has made the environment, the second has found the same.
    let log = world.log(&task);
    let told = |begin: &str| log.iter().filter(|line| line.starts_with(begin)).count();
    assert_eq!((told(MAKING), told(FOUND)), (1, 1), "{log:#?}");
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

/// Its pod gets SIGQUIT in place of SIGTERM, of which the training dies as if by a fault of its own.
#[test]
fn s46_a_training_whose_image_has_a_stop_signal_of_its_own_is_interrupted_by_it() {
    let mut world = World::new("s46quit");
    let context = world.dir.path().join("quit");
    fs::create_dir(&context).expect("folder is made");
    let text = format!("FROM {}\nSTOPSIGNAL SIGQUIT\n", world.place.task_image);
    fs::write(context.join("Dockerfile"), text).expect("Dockerfile is written");
    let image = images::make(&world, "quit", &context, &["--timestamp", "0"]);
    let mut template = template(&world, &json!({}));
    template["spec"]["containers"][0]["image"] = json!(image);
    world.start_controller();
    world.queue("gpu");
    let patch = json!({"lifecycle": {"maxInterruptions": 1}, "template": template});
    world.bind("gpu", &["gpu"], &patch);
    let task = world.run("trainer", TRAINER, "gpu");
    until_line(&world, &task, "attempt 1 begun");
    evict(&world, &task);
    until_line(&world, &task, "attempt 2 begun");
    world.has_written(&task, "attempt 1 begun\nattempt 2 begun\n");
    let notes = world.job_of_attempt(&task, 2)["metadata"]["annotations"].clone();
    assert_eq!(notes["trainyard.dev/requeues"], "1", "{notes}");
    let log = world.log(&task).join("\n");
    assert!(
        log.contains("ended by signal SIGQUIT, after a signal to its container"),
        "{log}"
    );
    // Sent by hand it is no interruption: of those none is allowed any more, which would be told.
    let pod = world.running_pod(&task);
    let name = pod["metadata"]["name"].as_str().expect("pod has a name");
    // Its container may be gone before this is answered.
    let sent = world.try_kubectl(&["exec", name, "-c", "task", "--", "sh", "-c", "kill -QUIT 1"]);
    println!("SIGQUIT by hand: {sent:?}");
    let ended = world.until_ended(&task, 120);
    assert_eq!(ended["status"], "failed");
    assert_eq!(
        ended["status_reason"], "trainyard: signal",
        "{}",
        ended["status_message"]
    );
}

/// A resource of the real node that only this scenario knows, so much of it; its name.
pub(super) fn own_resource(world: &World, amount: u32) -> String {
    let name = format!("trainyard.test/{}", world.namespace);
    let nodes = world.get(&["nodes", "-l", "type!=kwok"]);
    let node = nodes["items"][0]["metadata"]["name"]
        .as_str()
        .expect("a real node");
    let amount = json!({&name: amount.to_string()});
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
    name
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
            name: own_resource(world, 1),
            low: format!("{}-low", world.namespace),
            high: format!("{}-high", world.namespace),
        };
        for (name, value) in [(&slot.low, 1), (&slot.high, 1000)] {
            world.apply(&json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                "metadata": {"name": name}, "value": value,
            }));
        }
        slot
    }

    fn resources(&self) -> Value {
        json!({"limits": {&self.name: "1"}})
    }

    /// A pod of higher priority that takes it from who has it.
    fn take(&self, world: &World, pod: &str) {
        world.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
            "spec": {
                "priorityClassName": self.high, "terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
                "containers": [{"name": "urgent", "image": world.place.task_image,
                    "command": ["python3", "-c", "import time; time.sleep(600)"], "resources": self.resources()}],
            },
        }));
    }
}

#[test]
fn s46_a_training_that_a_higher_priority_preempts_resumes_as_an_interruption() {
    let mut world = World::new("s46preempt");
    let slot = Slot::new(&world);
    world.start_controller();
    world.queue("gpu");
    let mut template = template(&world, &slot.resources());
    template["spec"]["priorityClassName"] = json!(slot.low);
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "lifecycle": {"maxInterruptions": 1, "maxFailures": 1, "abortGracePeriod": "45s"},
            "template": template,
        }),
    );
    let task = world.run("trainer", TRAINER, "gpu");
    until_line(&world, &task, "attempt 1 begun");
    slot.take(&world, "urgent");
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
    let preempted = |times: f64| {
        let ends = world.metric("trainyard_ended_tasks_total", &["preempted"]);
        assert!((ends - times).abs() < 0.1, "told as preempted: {ends}");
    };
    wait("the first is counted", 60, || {
        let ends = world.metric("trainyard_ended_tasks_total", &["preempted"]);
        (ends > 0.5).then_some(())
    });
    preempted(1.0);
    world.kubectl(&["delete", "pod", "urgent", "--wait=false"]);
    until_line(&world, &task, "attempt 2 begun");
    assert_resumed(&world, &task);
    // Once more is once too often; what users' own failures are allowed is another budget.
    slot.take(&world, "urgent-again");
    let ended = world.until_ended(&task, 120);
    assert_eq!(ended["status"], "failed");
    assert_eq!(
        ended["status_reason"],
        "trainyard: interrupted too often, preempted"
    );
    wait("the second is counted too", 60, || {
        let ends = world.metric("trainyard_ended_tasks_total", &["preempted"]);
        (ends > 1.5).then_some(())
    });
    preempted(2.0);
    for class in [&slot.low, &slot.high] {
        world.kubectl(&["delete", "priorityclass", class]);
    }
}

/// Attempt 1 of a new task runs on this simulated node: no process runs there, the test acts as the pod and passes the
/// fence. Afterwards no other pod comes to the node.
fn on_node(world: &World, node: &str) -> (String, Value) {
    world.kubectl(&["uncordon", node]);
    let task = world.run("on a fake node", "print('never')\n", "gpu");
    let pod = wait("the pod runs on a simulated node", 60, || {
        let pod = world.pod_of(&task);
        (pod["status"]["phase"] == "Running").then_some(pod)
    });
    assert_eq!(pod["spec"]["nodeName"], node);
    pass_fence(world, &pod, &task);
    world.kubectl(&["cordon", node]);
    (task, pod)
}

#[test]
fn s9_a_task_whose_node_object_is_deleted_is_requeued() {
    let mut world = World::new("s9");
    let kwok = Kwok::start(&world, 3);
    let (noticed, gone, spare) = (&kwok.nodes()[0], &kwok.nodes()[1], &kwok.nodes()[2]);
    for node in kwok.nodes() {
        world.kubectl(&["cordon", node]);
    }
    world.start_controller();
    world.queue("gpu");
    let mut patch = kwok.binding_patch();
    patch["lifecycle"] = json!({"maxInterruptions": 1});
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
    let (tainted, _) = on_node(&world, noticed);
    let (deleted, pod) = on_node(&world, gone);
    world.kubectl(&["uncordon", spare]);
    // As what watches for the notices of a cloud puts it on a spot node that is about to go.
    let notice = "trainyard.test/spot-notice:NoExecute";
    world.kubectl(&["taint", "nodes", noticed, notice]);
    world.kubectl(&["delete", "node", gone]);
    world.kubectl(&[
        "delete",
        "pod",
        pod["metadata"]["name"].as_str().expect("name"),
        "--force",
        "--grace-period=0",
        "--wait=false",
    ]);
    for task in [&tainted, &deleted] {
        let second = wait("attempt 2 is there", 120, || {
            let job = world.job_of_attempt(task, 2);
            (!job.is_null()).then_some(job)
        });
        assert_eq!(
            second["metadata"]["labels"]["trainyard.dev/queue"],
            world.queue_id("gpu")
        );
        let notes = &second["metadata"]["annotations"];
        assert_eq!(notes["trainyard.dev/requeues"], "1", "{notes}");
        assert!(notes["trainyard.dev/failures"].is_null(), "{notes}");
        let reason = world.task(task)["status_reason"].to_string();
        println!("requeued: {reason}");
    }
    wait("the end is told as the node's", 60, || {
        let first = world.job_of_attempt(&tainted, 1);
        (first["metadata"]["annotations"]["trainyard.dev/ended"] == "node-lost").then_some(())
    });
    let second_of = |task: &str| {
        let label = format!("trainyard.dev/task={task},trainyard.dev/attempt=2");
        wait("attempt 2 runs on the node that stays", 60, || {
            let pod = world.get(&["pods", "-l", &label])["items"][0].clone();
            let is_there = pod["spec"]["nodeName"] == spare.as_str();
            (is_there && pod["status"]["phase"] == "Running").then_some(pod)
        })
    };
    let pod = second_of(&tainted);
    second_of(&deleted);
    // The same notice for the node of attempt 2.
    pass_fence(&world, &pod, &tainted);
    world.kubectl(&["taint", "nodes", spare, notice]);
    let ended = world.until_ended(&tainted, 120);
    assert_eq!(ended["status"], "failed");
    assert_eq!(
        ended["status_reason"],
        "trainyard: interrupted too often, node-lost"
    );
}
