//! S40: what the API server warns of fails nothing and is logged once; what it changes on the way is accepted.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::mutating;
use super::s17_closed_network::certificates;
use super::world::{Proc, World, wait};
use crate::git::servers::free_port;

const WEBHOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/e2e/s40/webhook.py");

/// Waits until a pod that is tried in this namespace comes back with this word in it.
fn until_changed(world: &World, word: &str) {
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
    wait("pods are changed on their way", 60, || {
        let pod = world.try_kubectl(&probe).ok()?;
        pod.contains(word).then_some(())
    });
}

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
    until_changed(&world, "by-policy");
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

/// Somebody's webhook that changes each pod of a namespace; it stays until the value goes.
struct Webhook<'a> {
    world: &'a World,
    _proc: Proc,
}

impl<'a> Webhook<'a> {
    /// Adds `container` to each pod, before its own init containers.
    fn install(world: &'a World, container: &Value) -> Self {
        let folder = world.dir.path().join("webhook");
        fs::create_dir(&folder).expect("folder is made");
        let host = &world.place.gateway;
        let authority = certificates(&folder, host);
        let address = format!("{host}:{}", free_port(host));
        let log = world.dir.path().join("webhook.log");
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(WEBHOOK)
            .arg(&address)
            .args([folder.join("cert.pem"), folder.join("key.pem")])
            .arg(container.to_string());
        let proc = Proc::start(&mut command, &log);
        wait("the webhook listens", 20, || {
            proc.log().contains("listening").then_some(())
        });
        let name = &world.namespace;
        world.apply(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "mesh.trainyard.test", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Fail", "timeoutSeconds": 10,
                "clientConfig": {"url": format!("https://{address}/mutate"), "caBundle": STANDARD.encode(authority)},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            }],
        }));
        Self { world, _proc: proc }
    }
}

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        // It belongs to the whole cluster, so it does not go with the namespace.
        let name = &self.world.namespace;
        let delete = ["delete", "mutatingwebhookconfiguration", name];
        let _ = self.world.try_kubectl(&delete);
    }
}

#[test]
fn s40_a_container_that_a_webhook_adds_is_accepted_and_its_end_is_no_failure() {
    let mut world = World::new("s40hook");
    world.start_controller();
    world.queue("gpu");
    let source = "import os\nprint('added', os.environ['ADDED'])\n";
    // As the proxy of a service mesh: it runs beside the others, and ends with a code of its own when they have ended.
    let beside = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\ntime.sleep(600)\n";
    let mesh = json!({
        "name": "mesh", "image": world.place.task_image, "restartPolicy": "Always",
        "command": ["python3", "-c", beside],
    });
    let webhook = Webhook::install(&world, &mesh);
    until_changed(&world, "by-webhook");
    world.bind("gpu", &["gpu"], &json!({}));
    let task = world.run("changed", source, "gpu");
    assert_eq!(world.until_ended(&task, 120)["status"], "completed");
    let log = world.log(&task);
    assert!(log.iter().any(|line| line == "added by-webhook"), "{log:?}");
    let pod = world.pod_of(&task);
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "mesh");
    wait("its end is told, and told as a good one", 60, || {
        (world.metric("trainyard_ended_tasks_total", &["binding"]) > 0.5).then_some(())
    });
    let good = ["category=\"completed\""];
    assert!(world.metric("trainyard_ended_tasks_total", &good) > 0.5);
    assert_eq!(world.status(&task), "completed");
    assert_eq!(world.condition("gpu", "Ready")["status"], "True");
    drop(webhook);
}
