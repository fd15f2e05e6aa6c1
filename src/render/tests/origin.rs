//! Where each field of the Job comes from.

use super::*;

#[test]
fn s29_each_field_has_its_origin() {
    let container = json!({
        "name": "task", "image": "python:3.12", "env": [{ "name": "TEAM", "value": "vision" }],
        "resources": { "limits": { "cpu": "1", "memory": "1Gi" } },
    });
    let patch = json!({ "spec": {
        "nodeSelector": { "pool": "a" },
        "containers": [{ "name": "task", "resources": { "limits": { "memory": "2Gi" } } }],
    } });
    let world = world()
        .with_template(json!({
            "metadata": { "labels": { "team": "vision" } },
            "spec": { "containers": [container], "imagePullSecrets": [{ "name": "pull" }], "tolerations": [{ "key": "gpu" }] },
        }))
        .with_spec("queues", json!([{ "name": "gpu", "templatePatch": patch }]))
        .with_spec("job", json!({ "labels": { "cost": "a" }, "activeDeadlineSeconds": 60 }))
        .with_spec("overrides", json!({ "containerArguments": ["env"] }))
        .with_container(json!({ "arguments": "-e SEED=7 --privileged" }));
    let fields = world.with_inputs(|inputs| {
        let patch = inputs.spec.queues[0].template_patch.as_ref();
        let rendered = render(inputs).with_requeues(1);
        origins(&rendered.job, inputs, patch)
    });
    let pod = "spec.template.spec";
    for (path, value, origin) in [
        (
            "metadata.name",
            json!(format!("ty-{TASK}-1")),
            Origin::Trainyard,
        ),
        ("metadata.labels.cost", json!("a"), Origin::BindingJob),
        (
            "metadata.labels[\"trainyard.dev/task\"]",
            json!(TASK),
            Origin::Trainyard,
        ),
        (
            "metadata.annotations[\"trainyard.dev/requeues\"]",
            json!("1"),
            Origin::Trainyard,
        ),
        ("spec.activeDeadlineSeconds", json!(60), Origin::BindingJob),
        (
            "spec.template.metadata.labels.team",
            json!("vision"),
            Origin::Template,
        ),
        ("POD.nodeSelector.pool", json!("a"), Origin::QueuePatch),
        (
            "POD.imagePullSecrets[pull].name",
            json!("pull"),
            Origin::Template,
        ),
        (
            "POD.tolerations[0]",
            json!({ "key": "gpu" }),
            Origin::Template,
        ),
        ("POD.restartPolicy", json!("Never"), Origin::Trainyard),
        (
            "POD.containers[task].image",
            json!("python:3.12"),
            Origin::Template,
        ),
        (
            "POD.containers[task].resources.limits.cpu",
            json!("1"),
            Origin::Template,
        ),
        (
            "POD.containers[task].resources.limits.memory",
            json!("2Gi"),
            Origin::QueuePatch,
        ),
        (
            "POD.containers[task].env[TEAM].value",
            json!("vision"),
            Origin::Template,
        ),
        (
            "POD.containers[task].env[SEED].value",
            json!("7"),
            Origin::Task,
        ),
    ] {
        let path = path.replace("POD", pod);
        let told: Vec<_> = fields.iter().filter(|field| field.path == path).collect();
        assert_eq!(told.len(), 1, "{path}: {told:?}");
        assert_eq!((&told[0].value, told[0].origin), (&value, origin), "{path}");
    }
    // What the task asks for and does not get is told by the pod, for the task's sake.
    let notes = fields
        .iter()
        .find(|field| field.value.to_string().contains("--privileged"));
    assert_eq!(notes.map(|field| field.origin), Some(Origin::Task));
    // The names of items stand in their paths.
    assert!(
        !fields
            .iter()
            .any(|field| field.path.ends_with("[task].name"))
    );
}
