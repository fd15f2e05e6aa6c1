//! The Job that makes an environment ahead of its task.

use super::*;
use crate::pod::label;

fn waiting() -> World {
    let mut world = world()
        .with_template(json!({
            "metadata": {
                "labels": { "team": "vision", "app.kubernetes.io/name": "train" },
                "annotations": { "note": "kept" },
            },
            "spec": {
                "priorityClassName": "high",
                "nodeSelector": { "gpu": "a100" },
                "tolerations": [{ "operator": "Exists" }],
                "resourceClaims": [{ "name": "gpu" }],
                "initContainers": [{ "name": "fetch", "image": "fetch:1" }],
                "containers": [
                    { "name": "proxy", "image": "proxy:1" },
                    {
                        "name": "task",
                        "image": "cuda:12",
                        "ports": [{ "containerPort": 80 }],
                        "resources": {
                            "claims": [{ "name": "gpu" }],
                            "limits": { "nvidia.com/gpu": 1, "memory": "8Gi", "cpu": "50m" },
                            "requests": { "cpu": "50m" },
                        },
                    },
                ],
            },
        }))
        .with_spec(
            "environment",
            json!({ "cache": { "hostPath": "/var/cache/trainyard", "ahead": 1 } }),
        )
        .with_spec("job", json!({ "labels": { "cost": "1" } }));
    world.task["script"] = json!({ "binary": "python3", "requirements": { "pip": "six\n" } });
    world
}

fn made(world: &World) -> Option<Ahead> {
    world.with_inputs(ahead)
}

fn names(containers: &Value) -> Vec<&str> {
    let all = containers.as_array().unwrap().iter();
    all.map(|container| container["name"].as_str().unwrap())
        .collect()
}

#[test]
fn it_is_named_after_task_and_environment_and_is_no_attempt() {
    let world = waiting();
    let made = made(&world).unwrap();
    let exact = world.with_inputs(|inputs| inputs.environment().unwrap().exact);
    assert_eq!(made.name, format!("ty-ahead-{TASK}-{exact}"));
    assert!(made.name.len() <= 63);
    assert_eq!(JobName::parse(&made.name), None);
    assert_eq!(made.job["metadata"]["name"], made.name);
    for metadata in [
        &made.job["metadata"],
        &made.job["spec"]["template"]["metadata"],
    ] {
        let labels = &metadata["labels"];
        assert_eq!(labels["app.kubernetes.io/component"], "ahead");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "trainyard");
        assert_eq!(
            (&labels[label::AHEAD], &labels[label::BINDING]),
            (&json!(TASK), &json!("gpu"))
        );
        for of_attempts in [label::TASK, label::ATTEMPT, label::STATE, label::QUEUE] {
            assert_eq!(labels[of_attempts], Value::Null, "{of_attempts}");
        }
    }
    assert_eq!(made.job["metadata"]["labels"]["cost"], "1");
    assert_eq!(
        made.job["metadata"]["ownerReferences"][0]["kind"],
        "QueueBinding"
    );
}

#[test]
fn its_pod_is_taken_for_none_of_the_templates_and_keeps_no_task_off_its_node() {
    let mut world = waiting();
    let alike = json!([{
        "labelSelector": { "matchLabels": { "team": "vision" } },
        "topologyKey": "kubernetes.io/hostname",
    }]);
    let near = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": { "matchLabels": { "app": "data" } },
        "topologyKey": "kubernetes.io/hostname",
    }] });
    world.spec["template"]["spec"]["affinity"] = json!({
        "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": alike },
        "podAffinity": near,
    });
    let made = made(&world).unwrap();
    let pod = &made.job["spec"]["template"];
    assert_eq!(
        pod["metadata"]["labels"],
        json!({
            "app.kubernetes.io/name": "trainyard",
            "app.kubernetes.io/instance": "gpu",
            "app.kubernetes.io/managed-by": "trainyard",
            "app.kubernetes.io/component": "ahead",
            "trainyard.dev/binding": "gpu",
            "trainyard.dev/ahead": TASK,
        })
    );
    assert_eq!(pod["metadata"]["annotations"]["note"], "kept");
    assert_eq!(pod["spec"]["affinity"], json!({ "podAffinity": near }));
    let of_task = world.render().job["spec"]["template"].take();
    assert_eq!(of_task["metadata"]["labels"]["team"], "vision");
    assert!(of_task["spec"]["affinity"]["podAntiAffinity"].is_object());
}

#[test]
fn it_ends_by_itself_and_is_not_tried_again() {
    let made = made(&waiting()).unwrap();
    let spec = &made.job["spec"];
    assert_eq!(spec["backoffLimit"], 0);
    assert_eq!(spec["suspend"], Value::Null);
    assert_eq!(spec["activeDeadlineSeconds"], 1800);
    assert_eq!(spec["ttlSecondsAfterFinished"], 600);
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never");
}

#[test]
fn it_runs_where_the_task_would_with_its_image_and_cache_but_not_its_devices_priority_or_sidecars()
{
    let made = made(&waiting()).unwrap();
    let pod = &made.job["spec"]["template"]["spec"];
    assert_eq!(names(&pod["containers"]), ["task"]);
    assert_eq!(names(&pod["initContainers"]), ["fetch", "prepare"]);
    let task = &pod["containers"][0];
    assert_eq!(task["image"], "cuda:12");
    assert_eq!(
        task["command"],
        json!(["/trainyard/bin/trainyard", "--in-pod", "ahead"])
    );
    assert_eq!(
        task["resources"],
        json!({
            "limits": { "memory": "8Gi", "cpu": "50m" },
            "requests": { "cpu": "50m", "memory": "256Mi", "ephemeral-storage": "128Mi" },
        })
    );
    assert_eq!(pod["nodeSelector"], json!({ "gpu": "a100" }));
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    for of_the_run in ["priorityClassName", "resourceClaims"] {
        assert_eq!(pod[of_the_run], Value::Null, "{of_the_run}");
    }
    assert_eq!(task["ports"], Value::Null);
    assert_eq!(variable(task, "TRAINYARD_DEVICES")["value"], "left-out");
    let mounts = task["volumeMounts"].as_array().unwrap();
    assert!(
        mounts
            .iter()
            .any(|mount| mount["mountPath"] == "/trainyard/cache"),
        "{mounts:?}"
    );
}

#[test]
fn nothing_is_made_ahead_of_a_setup_script_nor_of_an_images_own_command() {
    assert!(made(&waiting()).is_some());
    let mut with_script = waiting();
    with_script.spec["environment"]["setupScript"] = json!("apt-get update");
    assert_eq!(made(&with_script), None);
    let script = json!({ "setup_shell_script": "apt-get update" });
    let refused = waiting().with_container(script.clone());
    assert!(made(&refused).is_some(), "the task's own is refused");
    let allowed = waiting()
        .with_container(script)
        .with_spec("overrides", json!({ "setupScript": true }));
    assert_eq!(made(&allowed), None);
    let own = waiting().with_inputs(|inputs| {
        ahead(&Inputs {
            runs: Runs::Image(None),
            ..*inputs
        })
    });
    assert_eq!(own, None);
}
