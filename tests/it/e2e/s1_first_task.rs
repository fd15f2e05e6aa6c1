//! S1: trainyard installed by the real helm, one binding, a first task; then a wrong key.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{World, wait};

fn helm(world: &World, args: &[&str]) -> String {
    let home = world.dir.path().join("helm");
    let output = Command::new(world.place.bin.join("helm"))
        .args(["--namespace", &world.namespace])
        .args(args)
        .env("KUBECONFIG", &world.place.kubeconfig)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .output()
        .expect("helm runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "helm {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// The chart with one binding in its values.
pub fn install(world: &World, bindings: &Value) {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("charts/trainyard")
        .display()
        .to_string();
    let (repository, tag) = world.place.image.rsplit_once(':').expect("image has a tag");
    let values = json!({
        "image": {"repository": repository, "tag": tag},
        "server": {"apiUrl": world.url, "webUrl": world.url, "filesUrl": format!("{}/files", world.url),
                   "credentialsSecretRef": {"name": "clearml-credentials"}},
        "taskServiceAccount": {"create": false, "name": "trainyard-task"},
        "bindings": bindings,
    });
    let file = world.dir.path().join("values.json");
    std::fs::write(&file, values.to_string()).expect("values are written");
    helm(
        world,
        &[
            "upgrade",
            "--install",
            "trainyard",
            &chart,
            "--values",
            &file.display().to_string(),
            "--wait",
            "--timeout",
            "120s",
        ],
    );
}

#[test]
fn s1_a_first_task_runs_after_helm_install() {
    let world = World::new("s1");
    let mut binding = world.binding("default", &["default"], &json!({}))["spec"].clone();
    binding.as_object_mut().expect("spec").remove("server");
    let begun = Instant::now();
    install(&world, &json!([{"name": "default", "spec": binding}]));
    let installed = begun.elapsed();
    world.until_ready("default");

    let enqueued = Instant::now();
    let task = world.run("hello", "print('hello, world')\n", "default");
    let mut seen = BTreeSet::new();
    let mut job_after = None;
    loop {
        let status = world.status(&task);
        seen.insert(status.clone());
        if job_after.is_none() && !world.job_of(&task).is_null() {
            job_after = Some(enqueued.elapsed());
        }
        if ["completed", "failed", "stopped"].contains(&status.as_str()) {
            break;
        }
        assert!(
            enqueued.elapsed() < Duration::from_secs(120),
            "the task is still {status}"
        );
    }
    let job_after = job_after.expect("a Job was seen");
    println!("helm install {installed:?}, Job after {job_after:?}");
    assert!(
        job_after < Duration::from_secs(5),
        "the Job came after {job_after:?}"
    );
    let wanted: BTreeSet<String> = ["queued", "in_progress", "completed"]
        .map(str::to_owned)
        .into();
    assert!(seen.is_subset(&wanted), "statuses {seen:?}");
    assert_eq!(world.status(&task), "completed");
    assert!(world.log(&task).iter().any(|line| line == "hello, world"));

    let table = world.kubectl(&["get", "queuebinding", "default"]);
    for column in [
        "READY",
        "QUEUES",
        "QUEUED",
        "RUNNING",
        "LIMIT",
        "LAST DISPATCH",
        "AGE",
    ] {
        assert!(table.contains(column), "{column} in\n{table}");
    }
    assert!(table.contains("True"), "{table}");
    wait("the counts are right again", 30, || {
        let status = world.get(&["queuebinding", "default"])["status"].clone();
        (status["running"] == 0 && status["queues"][0]["queued"] == 0).then_some(())
    });
    // No key stands in any spec or argument.
    let objects = world.kubectl(&[
        "get",
        "pods,jobs,deployments,configmaps,queuebindings",
        "-o",
        "yaml",
    ]);
    assert!(
        !objects.contains(&world.secret),
        "the secret key is in a spec"
    );
    helm(&world, &["uninstall", "trainyard", "--wait"]);
}
