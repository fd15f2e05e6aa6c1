//! What a task asks for, and is given or told.

use super::*;

#[test]
fn an_image_that_is_not_allowed_is_refused_and_told() {
    let rendered = world()
        .with_container(json!({ "image": "evil:1" }))
        .render();
    assert_eq!(rendered.image, "python:3.12");
    assert!(
        rendered.notes[0].starts_with("image \"evil:1\" is not allowed here"),
        "{:?}",
        rendered.notes
    );
    let told = variable(init_container(&rendered, "prepare"), "TRAINYARD_NOTES")["value"]
        .as_str()
        .unwrap();
    assert_eq!(told, rendered.notes.join("\n"));
}

#[test]
fn what_a_task_asks_for_is_in_its_pod_and_what_is_refused_is_told() {
    let section = |items: &[(&str, &str)]| {
        let items: serde_json::Map<String, Value> = items
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!({ "name": name, "value": value })))
            .collect();
        Value::Object(items)
    };
    let mut world = world()
        .with_template(json!({ "spec": { "containers": [
            { "name": "task", "resources": { "limits": { "nvidia.com/gpu": 1 } } },
        ] } }))
        .with_spec(
            "overrides",
            json!({
                "containerArguments": ["shm-size", "ipc", "user", "env"],
                "resources": { "max": { "nvidia.com/gpu": 4, "memory": "64Gi" } },
                "tolerations": ["dedicated"], "priorityClass": ["high"], "nodeSelector": ["pool"],
            }),
        )
        .with_container(
            json!({ "arguments": "--ipc=host --shm-size 8g -u 1000 --privileged -v /:/host" }),
        );
    world.task["hyperparams"] = json!({ "Kubernetes": section(&[
        ("resources/nvidia.com/gpu", "2"), ("resources/memory", "32Gi"), ("tolerations/dedicated", ""),
        ("priorityClass", "high"), ("nodeSelector/pool", "a100"),
    ]) });
    let rendered = world.render();
    let spec = pod(&rendered);
    assert_eq!(spec["hostIPC"], true);
    assert_eq!(spec["priorityClassName"], "high");
    assert_eq!(spec["nodeSelector"], json!({ "pool": "a100" }));
    assert_eq!(
        spec["tolerations"],
        json!([{ "key": "dedicated", "operator": "Exists" }])
    );
    let task = &spec["containers"][0];
    assert_eq!(
        task["resources"],
        json!({ "limits": { "nvidia.com/gpu": "2", "memory": "32Gi" }, "requests": { "memory": "32Gi" } })
    );
    assert_eq!(task["securityContext"], json!({ "runAsUser": 1000 }));
    // Ours share the user's number, and what is asked for counts against the limits.
    assert_eq!(
        init_container(&rendered, "uplink")["securityContext"]["runAsUser"],
        1000
    );
    assert_eq!(
        rendered.requests.to_annotation(),
        "cpu=50m,ephemeral-storage=128Mi,memory=32792Mi,nvidia.com/gpu=2"
    );
    let flags: Vec<&str> = rendered
        .notes
        .iter()
        .map(|note| note.split(' ').nth(2).unwrap())
        .collect();
    assert_eq!(flags, ["--privileged", "--volume"]);
}

#[test]
fn a_setup_script_of_a_task_is_the_executors_to_run_and_never_in_the_job() {
    let asking = || world().with_container(json!({ "setup_shell_script": "echo canary" }));
    let allowed = asking()
        .with_spec("overrides", json!({ "setupScript": true }))
        .render();
    assert_eq!(allowed.notes, Vec::<String>::new());
    let task = &pod(&allowed)["containers"][0];
    assert_eq!(
        variable(task, "TRAINYARD_TASK_SETUP_SCRIPT")["value"],
        "allow"
    );
    assert!(!allowed.job.to_string().contains("canary"));
    let refused = asking().render();
    assert!(
        refused.notes[0].contains("overrides.setupScript"),
        "{:?}",
        refused.notes
    );
    assert!(
        !refused
            .job
            .to_string()
            .contains("TRAINYARD_TASK_SETUP_SCRIPT")
    );
}
