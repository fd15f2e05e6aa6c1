//! S14 and the overrides of S59: a task gets what its binding allows, and is told about everything else.

use std::sync::PoisonError;

use serde_json::{Value, json};

use super::s13_capacity::Asked;
use super::s16_pipelines::GPUS;
use super::taken::{asking, until_taken};
use super::world::{World, merge, wait};

const WISHES: &[(&str, &str)] = &[
    ("resources/nvidia.com/gpu", "2"),
    ("resources/memory", "256Mi"),
    ("tolerations/dedicated", "ml:NoSchedule"),
    ("priorityClass", "system-cluster-critical"),
    ("hostNetwork", "true"),
];
const ARGUMENTS: &str =
    "--shm-size=8g -e WISH=granted -v /etc:/host --privileged --ulimit memlock=-1";

fn wishing(world: &World, source: &str) -> String {
    let mut patch = asking(WISHES);
    merge(
        &mut patch,
        &json!({"container": {
            "image": world.place.task_image, "arguments": ARGUMENTS,
            "setup_shell_script": "echo from-setup > /tmp/made",
        }}),
    );
    world.create("wishes", source, &patch)
}

fn allowed() -> Value {
    json!({
        "containerArguments": ["shm-size", "env"], "resources": {"max": {"nvidia.com/gpu": 2, "memory": "1Gi"}},
        "tolerations": ["dedicated"], "setupScript": true, "image": {"allow": ["*"]},
    })
}

/// A PriorityClass of the world's name, which is the whole cluster's and goes with the value.
struct Class<'w>(&'w World);

impl<'w> Class<'w> {
    const VALUE: u32 = 1000;

    fn make(world: &'w World) -> Self {
        world.apply(&json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": world.namespace},
            "value": Self::VALUE, "preemptionPolicy": "Never",
        }));
        Self(world)
    }
}

impl Drop for Class<'_> {
    fn drop(&mut self) {
        let name = self.0.namespace.as_str();
        let gone = ["delete", "priorityclass", name, "--ignore-not-found"];
        let _ = self.0.try_kubectl(&gone);
    }
}

#[test]
fn a_task_runs_with_what_is_allowed_and_is_told_what_is_not() {
    // It wants two of the node's GPUs at once, which those of a long row of others never leave.
    let _alone = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = World::new("s14");
    world.start_controller();
    world.queue("gpu");
    let task = wishing(
        &world,
        "import os\nprint('wish', os.environ['WISH'])\nprint('shm', os.statvfs('/dev/shm').f_blocks > 0)\n",
    );
    world.enqueue(&task, "gpu");
    let class = Class::make(&world);
    let name = world.namespace.as_str();
    let urgent = asking(&[("priorityClass", name)]);
    let urgent = world.create("urgent", "print('soon')\n", &urgent);
    world.enqueue(&urgent, "gpu");
    let mut overrides = allowed();
    overrides["priorityClass"] = json!([name]);
    world.bind("gpu", &["gpu"], &json!({"overrides": overrides}));
    let ended = world.until_ended(&task, 120);
    assert_eq!(ended["status"], "completed", "{:#?}", world.log(&task));
    let pod = world.job_of(&task)["spec"]["template"]["spec"].clone();
    let container = &pod["containers"][0];
    assert_eq!(container["resources"]["limits"]["nvidia.com/gpu"], "2");
    assert_eq!(container["resources"]["limits"]["memory"], "256Mi");
    assert_eq!(pod["tolerations"][0]["key"], "dedicated");
    assert_eq!(pod["priorityClassName"], Value::Null);
    assert_eq!(pod["hostNetwork"], Value::Null);
    assert_eq!(container["securityContext"]["privileged"], Value::Null);
    assert!(
        pod["volumes"]
            .to_string()
            .contains(r#""medium":"Memory","sizeLimit":"8Gi""#),
        "{}",
        pod["volumes"]
    );
    assert!(
        !pod["volumes"].to_string().contains("/etc"),
        "{}",
        pod["volumes"]
    );
    let log = world.log(&task);
    assert!(
        log.iter().any(|line| line.contains("wish granted")),
        "{log:#?}"
    );
    for refused in [
        "--volume is refused",
        "--privileged is refused",
        "--ulimit is refused",
        "Kubernetes/priorityClass is refused",
        "Kubernetes/hostNetwork is not understood",
    ] {
        assert_eq!(
            log.iter().filter(|line| line.contains(refused)).count(),
            1,
            "{refused}: {log:#?}"
        );
    }
    let ended = world.until_ended(&urgent, 120);
    assert_eq!(ended["status"], "completed", "{:#?}", world.log(&urgent));
    let pod = world.pod_of(&urgent)["spec"].clone();
    assert_eq!(pod["priorityClassName"], name);
    assert_eq!(pod["priority"], Class::VALUE, "as the cluster knows it");
    drop(class);
}

#[test]
fn without_overrides_every_wish_is_refused_and_another_binding_may_allow_it() {
    let mut world = World::new("s59");
    world.start_controller();
    let (strict, lenient) = (world.queue("strict"), world.queue("lenient"));
    assert_ne!(strict, lenient);
    let nowhere = super::taken::nowhere(&world, &json!({"limits": {"nvidia.com/gpu": 1}}));
    let asked = Asked::default();
    let proxy = asked.proxy(&world);
    world.bind(
        "strict",
        &["strict"],
        &json!({"template": nowhere, "server": {"apiUrl": proxy.url}}),
    );
    world.bind(
        "lenient",
        &["lenient"],
        &json!({"template": nowhere, "overrides": allowed()}),
    );
    let mut tasks = Vec::new();
    for queue in ["strict", "lenient"] {
        let mut patch = asking(WISHES);
        merge(
            &mut patch,
            &json!({"container": {"image": "registry.example/other:1", "arguments": ARGUMENTS}}),
        );
        let task = world.create(queue, "print(1)\n", &patch);
        world.enqueue(&task, queue);
        tasks.push(task);
    }
    // It stands in the status message until there is something to say about the pod: perhaps for a moment.
    wait("refused wishes are in the status message", 60, || {
        asked.told(&tasks[0], "not honoured: ").then_some(())
    });
    until_taken(&world, 2, 60);
    let container =
        |task: &str| world.job_of(task)["spec"]["template"]["spec"]["containers"][0].clone();
    let (of_strict, of_lenient) = (container(&tasks[0]), container(&tasks[1]));
    assert_eq!(of_strict["image"], world.place.task_image);
    assert_eq!(
        of_strict["resources"],
        json!({"limits": {"nvidia.com/gpu": "1"}})
    );
    assert_eq!(of_lenient["image"], "registry.example/other:1");
    assert_eq!(of_lenient["resources"]["limits"]["nvidia.com/gpu"], "2");
}
