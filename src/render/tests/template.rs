//! What becomes of a template that is right.

use super::*;

#[test]
fn the_only_container_keeps_its_name() {
    let world = world()
        .with_template(json!({ "spec": { "containers": [{ "name": "main", "image": "a" }] } }));
    let rendered = world.render();
    assert_eq!(pod(&rendered)["containers"][0]["name"], "main");
    let annotations = &rendered.job["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(
        annotations["kubectl.kubernetes.io/default-container"],
        "main"
    );
}

#[test]
fn a_template_without_containers_gets_the_built_in_one() {
    let world = world().with_template(json!({ "spec": { "nodeSelector": { "gpu": "a100" } } }));
    let rendered = world.render();
    assert_eq!(pod(&rendered)["containers"][0]["image"], "python:3.12");
    assert_eq!(pod(&rendered)["nodeSelector"]["gpu"], "a100");
}

#[test]
fn fields_that_are_not_known_here_are_kept() {
    let world = world().with_template(json!({ "spec": { "newField": [1, { "a": null }] } }));
    assert_eq!(pod(&world.render())["newField"], json!([1, { "a": null }]));
}

#[test]
fn labels_by_which_pods_are_found_cannot_be_taken_by_a_template() {
    let mine = ["name", "instance", "managed-by", "component"]
        .map(|name| (format!("app.kubernetes.io/{name}"), json!("mine")));
    let labels: serde_json::Map<String, Value> = mine.into_iter().collect();
    let rendered = world()
        .with_template(json!({ "metadata": { "labels": labels } }))
        .render();
    let label = |name: &str| {
        rendered.job["spec"]["template"]["metadata"]["labels"][format!("app.kubernetes.io/{name}")]
            .clone()
    };
    assert_eq!(
        (label("name"), label("instance")),
        (json!("mine"), json!("mine"))
    );
    assert_eq!(
        (label("managed-by"), label("component")),
        (json!("trainyard"), json!("task"))
    );
}

#[test]
fn a_longer_grace_of_the_template_is_kept() {
    let grace = |world: World| {
        let rendered = world.render();
        let container = &pod(&rendered)["containers"][0];
        let variables = container["env"].as_array().unwrap();
        let told = variables
            .iter()
            .find(|variable| variable["name"] == "TRAINYARD_POD_GRACE_SECONDS")
            .map(|variable| variable["value"].clone());
        (
            pod(&rendered)["terminationGracePeriodSeconds"].clone(),
            told,
        )
    };
    assert_eq!(grace(world()), (json!(60), None));
    let template = json!({ "spec": { "terminationGracePeriodSeconds": 600 } });
    assert_eq!(
        grace(world().with_template(template)),
        (json!(600), Some(json!("600")))
    );
}

#[test]
fn the_template_hash_follows_what_is_written() {
    let hash = |template| {
        world()
            .with_template(template)
            .check()
            .unwrap()
            .hash()
            .to_owned()
    };
    assert_eq!(hash(json!({ "spec": {} })), hash(json!({ "spec": {} })));
    assert_ne!(
        hash(json!({ "spec": {} })),
        hash(json!({ "spec": { "hostNetwork": true } }))
    );
}

#[test]
fn yaml_of_a_template_agrees_with_kubectl() {
    let value = parse_yaml("spec: {mode: 0755, on: yes, name: 'no'}").unwrap();
    assert_eq!(
        value,
        json!({ "spec": { "mode": 493, "on": true, "name": "no" } })
    );
}

#[test]
fn a_patch_of_a_queue_is_merged_and_changes_the_hash() {
    let plain = world()
        .with_template(json!({ "spec": { "containers": [{ "name": "task", "image": "a" }] } }));
    let hash = plain.check().unwrap().hash().to_owned();
    let patched = plain.with_spec("queues", json!([{ "name": "gpu", "templatePatch": {
        "metadata": { "labels": { "tier": "high" } },
        "spec": { "containers": [{ "name": "task", "resources": { "limits": { "nvidia.com/gpu": 4 } } }] },
    } }]));
    assert_ne!(patched.check().unwrap().hash(), hash);
    let rendered = patched.render();
    assert_eq!(pod(&rendered)["containers"][0]["image"], "a");
    assert_eq!(
        pod(&rendered)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"],
        4
    );
    assert_eq!(
        rendered.job["spec"]["template"]["metadata"]["labels"]["tier"],
        "high"
    );
}

#[test]
fn the_grace_of_an_abort_is_told_to_the_executor_and_the_pod_has_more() {
    let told = |lifecycle: Value, template: Value| {
        let rendered = world()
            .with_spec("lifecycle", lifecycle)
            .with_template(template)
            .render();
        let task = &pod(&rendered)["containers"][0];
        let [in_prepare, in_task] = [init_container(&rendered, "prepare"), task]
            .map(|container| variable(container, "TRAINYARD_GRACE_SECONDS")["value"].clone());
        assert_eq!(in_prepare, in_task);
        let of_pod = pod(&rendered)["terminationGracePeriodSeconds"].clone();
        (in_task, of_pod)
    };
    let plain = || json!({});
    assert_eq!(told(plain(), plain()), (json!("30"), json!(60)));
    let asked = || json!({ "abortGracePeriod": "2m" });
    assert_eq!(told(asked(), plain()), (json!("120"), json!(150)));
    // With less than the user's process is promised the kubelet would kill it early.
    let short = json!({ "spec": { "terminationGracePeriodSeconds": 5 } });
    assert_eq!(told(asked(), short), (json!("120"), json!(150)));
    let part = json!({ "abortGracePeriod": "1500ms" });
    assert_eq!(told(part, plain()), (json!("2"), json!(32)));
}

#[test]
fn a_later_attempt_prefers_other_nodes_unless_the_binding_says_no() {
    let affinity = |lifecycle: Value, template: Value| {
        let mut world = world()
            .with_spec("lifecycle", lifecycle)
            .with_template(template);
        world.attempt = Attempt(2);
        world.avoid_nodes = vec!["node-1".into()];
        pod(&world.render())["affinity"].clone()
    };
    let plain = || json!({});
    let avoiding = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "preference": { "matchFields": [{ "key": "metadata.name", "operator": "NotIn", "values": ["node-1"] }] },
    }] } });
    assert_eq!(affinity(plain(), plain()), avoiding);
    assert_eq!(
        affinity(json!({ "avoidSameNode": true }), plain()),
        avoiding
    );
    let anywhere = || json!({ "avoidSameNode": false });
    assert_eq!(affinity(anywhere(), plain()), Value::Null);
    // What the template prefers is its own matter.
    let own = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 1,
        "preference": { "matchExpressions": [{ "key": "fast", "operator": "Exists" }] },
    }] } });
    let template = json!({ "spec": { "affinity": own } });
    assert_eq!(affinity(anywhere(), template), own);
}
