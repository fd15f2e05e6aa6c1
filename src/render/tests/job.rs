//! The Job as a whole.

use super::*;

#[test]
fn golden_job_of_the_built_in_template() {
    insta::assert_yaml_snapshot!(world().render().job);
}

#[test]
fn golden_job_of_a_rich_binding() {
    let mut world = world()
        .with_template(json!({
            "metadata": { "labels": { "team": "vision" }, "annotations": { "a": "b" } },
            "spec": {
                "priorityClassName": "high",
                "fieldOfALaterVersion": { "kept": true },
                "securityContext": { "runAsUser": 1000, "runAsNonRoot": true },
                "tolerations": [{ "operator": "Exists" }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
                "initContainers": [{ "name": "fetch", "image": "fetch:1" }],
                "containers": [
                    { "name": "proxy", "image": "proxy:1", "resources": { "requests": { "cpu": "100m" } } },
                    {
                        "name": "task",
                        "image": "127.0.0.1:5000/cuda:12",
                        "env": [{ "name": "A", "value": "template" }, { "name": "B", "value": "template" }],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                        "resources": { "limits": { "nvidia.com/gpu": 1, "memory": "8Gi" } },
                    },
                ],
            },
        }))
        .with_spec("job", json!({ "activeDeadlineSeconds": 3600, "labels": { "cost": "1" }, "annotations": { "note": "kept" } }))
        .with_spec("overrides", json!({ "image": { "allow": ["127.0.0.1:5000/*"] }, "containerArguments": ["env", "shm-size"] }))
        .with_spec("environment", json!({
            "manager": "uv",
            "cache": { "hostPath": "/var/cache/trainyard" },
            "indexUrl": "http://index/simple",
            "caBundleRef": { "name": "index-ca", "key": "ca.pem" },
            "git": {
                "credentialsSecretRef": { "name": "git" },
                "knownHostsRef": { "kind": "Secret", "name": "hosts", "key": "known" },
            },
            "clearmlConfRef": { "name": "conf" },
            "setupScript": "echo $(date) $HOME",
        }))
        .with_container(json!({
            "image": "127.0.0.1:5000/own:2",
            "arguments": "-e B=task --env C=$(A) --shm-size 8g --network host",
            "setup_shell_script": "apt update",
        }));
    world.attempt = Attempt(2);
    world.returned = true;
    world.avoid_nodes = vec!["node-1".into()];
    world.settings.image_pull_policy = Some("IfNotPresent".into());
    world.settings.image_pull_secrets = vec!["registry".into()];
    world.server.ca_bundle =
        serde_json::from_value(json!({ "name": "server-ca", "key": "ca.crt" })).unwrap();
    let rendered = world.render();
    insta::assert_yaml_snapshot!(rendered.job);
    insta::assert_yaml_snapshot!("golden_job_of_a_rich_binding_notes", rendered.notes);
}

#[test]
fn equal_inputs_give_equal_jobs() {
    assert_eq!(world().render(), world().render());
}

#[test]
fn requests_are_those_of_the_whole_pod_and_stay_on_the_job() {
    let template = json!({ "spec": { "containers": [
        { "name": "task", "resources": { "limits": { "nvidia.com/gpu": 2, "cpu": "1" } } },
    ] } });
    let rendered = world().with_template(template).render();
    assert_eq!(
        rendered.requests.to_annotation(),
        "cpu=1010m,ephemeral-storage=128Mi,memory=64Mi,nvidia.com/gpu=2"
    );
    assert_eq!(requests_of(&rendered.job), Some(rendered.requests));
}

#[test]
fn the_pod_for_the_dry_run_is_that_of_the_job() {
    let rendered = world().render();
    let dry = dry_run_pod(&rendered);
    assert_eq!(dry["kind"], "Pod");
    assert_eq!(&dry["spec"], pod(&rendered));
    assert_eq!(dry["metadata"]["namespace"], "ml");
    assert_eq!(dry["metadata"]["labels"]["trainyard.dev/task"], TASK);
}
