//! S34 by the contract of the label: Kueue owns `suspend` of Jobs that carry its label, so a Job gets it at its release
//! and not before. The test plays Kueue: it admits, says what its Workload waits for, and evicts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::mutating;
use super::taken::{nowhere, taken};
use super::world::{PATIENCE, World, wait};
use crate::times;

/// The stated figure: an abort removes a suspended Job within so many seconds.
const GONE: f64 = 3.0;
pub(super) const LABEL: &str = "kueue.x-k8s.io/queue-name";

/// The two kinds of Kueue that are read, without Kueue itself.
pub(super) fn install_kinds(world: &World) {
    for (kind, plural) in [("LocalQueue", "localqueues"), ("Workload", "workloads")] {
        world.apply(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.kueue.x-k8s.io"),
                "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}},
            "spec": {
                "group": "kueue.x-k8s.io", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        }));
        // A fresh one has no conditions at first, which `kubectl wait` takes for an error.
        wait("the definition is established", 60, || {
            let definition = world.get(&["crd", &format!("{plural}.kueue.x-k8s.io")]);
            let conditions = definition["status"]["conditions"].as_array()?;
            let established = |one: &Value| one["type"] == "Established" && one["status"] == "True";
            conditions.iter().any(established).then_some(())
        });
    }
}

pub(super) fn local_queue(world: &World, name: &str) {
    world.apply(&json!({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "metadata": {"name": name},
        "spec": {"clusterQueue": "all"}}));
}

/// Says of a released Job what Kueue says that has no quota for it.
pub(super) fn hold_back(world: &World, job: &Value, message: &str) {
    world.apply(&json!({
        "apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload",
        "metadata": {"name": "w", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": message}]},
    }));
}

fn capacity(world: &World) -> Value {
    world.condition("gpu", "CapacityAvailable")
}

#[test]
fn the_label_comes_with_the_release_and_an_unsafe_set_up_takes_nothing() {
    let mut world = World::new("s34");
    install_kinds(&world);
    world.start_controller();
    world.queue("gpu");
    let task = world.run("quota", "print(1)\n", "gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({
            "capacity": "Kueue", "kueueQueueName": "team", "template": nowhere(&world, &json!({})),
        }),
    );
    wait("the LocalQueue is missed", 60, || {
        (capacity(&world)["reason"] == "NoLocalQueue").then_some(())
    });
    local_queue(&world, "team");
    local_queue(&world, "default");
    wait("a default LocalQueue is unsafe", 90, || {
        (capacity(&world)["reason"] == "UnsafeKueue").then_some(())
    });
    assert_eq!(
        (taken(&world).len(), world.status(&task)),
        (0, "queued".to_owned())
    );

    // Neither is a Kueue that takes every Job (`manageJobsWithoutQueueName`): it suspends those without its label.
    mutating::install(
        &world,
        ("batch", "jobs"),
        r#"[JSONPatch{op: "add", path: "/spec/suspend", value: true}]"#,
    );
    let image = format!("--image={}", world.place.task_image);
    let probe = [
        "create",
        "job",
        "probe",
        image.as_str(),
        "--dry-run=server",
        "-o",
        "json",
    ];
    wait("Jobs are suspended", 60, || {
        let job: Value = serde_json::from_str(&world.try_kubectl(&probe).ok()?).ok()?;
        (job["spec"]["suspend"] == true).then_some(())
    });
    world.kubectl(&["delete", "localqueue.kueue.x-k8s.io", "default"]);
    wait("a Kueue that takes every Job is unsafe", 90, || {
        let now = capacity(&world);
        let told = now["message"].as_str().unwrap_or_default();
        (now["reason"] == "UnsafeKueue" && told.contains("manageJobsWithoutQueueName"))
            .then_some(())
    });
    assert_eq!(
        (taken(&world).len(), world.status(&task)),
        (0, "queued".to_owned())
    );

    // From here on every version of the Job is looked at: an intent never carries the label.
    mutating::remove(&world);
    let deadline = Instant::now() + Duration::from_secs(90) * PATIENCE;
    let job = loop {
        let job = world.job_of(&task);
        let labels = &job["metadata"]["labels"];
        if labels["trainyard.dev/state"] == "intent" {
            assert_eq!(
                labels[LABEL],
                Value::Null,
                "an intent carries the label: {job:#}"
            );
        }
        if labels[LABEL] == "team" {
            break job;
        }
        assert!(
            Instant::now() < deadline,
            "not released: {job:#} {}",
            capacity(&world)
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(job["metadata"]["labels"]["trainyard.dev/state"], "held");
    assert_eq!(
        job["spec"]["suspend"], true,
        "the release leaves `suspend` to Kueue"
    );
    assert_eq!(
        world.entries("gpu"),
        Vec::<String>::new(),
        "taken before it"
    );
    assert_eq!(
        world.status(&task),
        "queued",
        "suspended ones count as pending"
    );

    // What Kueue says of it is in the task.
    hold_back(
        &world,
        &job,
        "insufficient quota for nvidia.com/gpu in flavor a100",
    );
    wait(
        "the Workload's condition is in the status message",
        60,
        || {
            let message = world.task(&task)["status_message"].clone();
            message
                .as_str()
                .unwrap_or_default()
                .contains("insufficient quota for nvidia.com/gpu")
                .then_some(())
        },
    );
    let begun = Instant::now();
    world.call("tasks.stop", &json!({"task": task}));
    wait("an abort removes the suspended Job", 15, || {
        taken(&world).is_empty().then_some(())
    });
    let seconds = begun.elapsed().as_secs_f64();
    times::told(
        "S34",
        "the suspended Job of an aborted task is gone",
        seconds,
        GONE,
    );
}

#[test]
fn a_task_that_kueue_evicts_while_it_runs_is_handed_to_it_again_as_another_attempt() {
    let mut world = World::new("s34evict");
    install_kinds(&world);
    local_queue(&world, "team");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"capacity": "Kueue", "kueueQueueName": "team"}),
    );
    let source = world.counter.python("ran")
        + "import time; time.sleep(600 if os.environ['TRAINYARD_ATTEMPT'] in '12' else 0)\n";
    let task = world.run("evicted", &source, "gpu");
    let admit = |attempt: u32, suspend: bool| {
        let name = format!("ty-{task}-{attempt}");
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        wait("the Job is handed to Kueue", 90, || {
            let job = world.get(&["job", &name]);
            (job["metadata"]["labels"][LABEL] == "team").then_some(())
        });
        world.kubectl(&["patch", "job", &name, "--type=merge", "-p", &patch]);
    };
    for attempt in [1, 2] {
        admit(attempt, false);
        let runs = usize::try_from(attempt).expect("a count");
        wait("it runs", 90, || {
            (world.counter.lines().len() == runs).then_some(())
        });
        admit(attempt, true);
        wait("another attempt is handed to Kueue", 120, || {
            let job = world.get(&["job", &format!("ty-{task}-{}", attempt + 1)]);
            (job["metadata"]["labels"][LABEL] == "team" && job["spec"]["suspend"] == true)
                .then_some(())
        });
        wait("the Job of the one before is gone", 60, || {
            world
                .get(&["job", &format!("ty-{task}-{attempt}")])
                .is_null()
                .then_some(())
        });
        assert_eq!(world.counter.lines().len(), runs, "it did not run again");
    }
    // Admitted again it runs to its end.
    admit(3, false);
    assert_eq!(world.until_ended(&task, 90)["status"], "completed");
    assert_eq!(world.counter.lines().len(), 3);
}
