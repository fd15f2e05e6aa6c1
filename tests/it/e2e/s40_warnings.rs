//! S40: what the API server warns of fails nothing and is logged once; what it changes on the way is accepted.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use super::mutating;
use super::world::{World, wait};

#[test]
fn s40_warnings_are_logged_once_and_a_mutation_is_accepted() {
    let mut world = World::new("s40warn");
    world.kubectl(&[
        "label",
        "namespace",
        &world.namespace.clone(),
        "pod-security.kubernetes.io/warn=restricted",
    ]);
    // Changes each container that names no limit of its own.
    world.apply(&json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults"},
        "spec": {"limits": [{"type": "Container", "default": {"memory": "300Mi"}, "defaultRequest": {"memory": "32Mi"}}]},
    }));
    // As somebody's policy adds what all pods of a namespace are to have.
    mutating::install(
        &world,
        ("", "pods"),
        r#"[JSONPatch{op: "add", path: "/spec/containers/0/env/-", value: {"name": "ADDED", "value": "by-policy"}}]"#,
    );
    let image = format!("--image={}", world.place.task_image);
    let probe = [
        "run",
        "probe",
        image.as_str(),
        "--env=A=b",
        "--dry-run=server",
        "-o",
        "json",
    ];
    wait("the policy holds", 60, || {
        let pod = world.try_kubectl(&probe).ok()?;
        pod.contains("by-policy").then_some(())
    });
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"template": {"spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "containers": [{"name": "task", "image": world.place.task_image}],
        }}}),
    );
    let source = "import os\nprint('added', os.environ['ADDED'])\n";
    let tasks: Vec<String> = (0..3)
        .map(|i| world.run(&format!("warned {i}"), source, "gpu"))
        .collect();
    for task in &tasks {
        assert_eq!(world.until_ended(task, 120)["status"], "completed");
        let log = world.log(task);
        assert!(log.iter().any(|line| line == "added by-policy"), "{log:?}");
    }
    mutating::remove(&world);
    let pod = world.pod_of(&tasks[0]);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "300Mi");
    let log =
        fs::read_to_string(world.dir.path().join("controller.log")).expect("controller's log");
    let told: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("the API server warns"))
        .map(|(_, words)| words)
        .collect();
    for words in ["would violate PodSecurity", "beta.kubernetes.io/os"] {
        assert!(
            told.iter().any(|line| line.contains(words)),
            "{words}: {told:#?}"
        );
    }
    let different: BTreeSet<&str> = told.iter().copied().collect();
    assert_eq!(different.len(), told.len(), "each once: {told:#?}");
}
