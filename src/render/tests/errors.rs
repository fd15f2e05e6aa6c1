//! What is said of a template that is wrong.

use super::*;

#[test]
fn each_error_of_a_template_names_its_field() {
    let spec = |spec: Value| json!({ "spec": spec });
    let task = |fields: Value| {
        let mut container = fields;
        container["name"] = json!("task");
        json!({ "spec": { "containers": [container] } })
    };
    let cases = [
        (json!([]), "spec.template: must be an object, not a list"),
        (
            json!({ "specs": {} }),
            "spec.template.specs: is not part of a pod template, which has metadata and spec",
        ),
        (
            spec(json!("x")),
            "spec.template.spec: must be an object, not a text",
        ),
        (
            spec(json!({ "containers": [] })),
            "spec.template.spec.containers: at least one container must be given, or none of this field",
        ),
        (
            spec(json!({ "containers": [{ "name": "a" }, { "name": "b" }] })),
            "spec.template.spec.containers: no container is named \"task\", and there are 2; \
             name the one that runs the experiment \"task\"",
        ),
        (
            spec(json!({ "containers": [{ "image": "a" }] })),
            "spec.template.spec.containers[0].name: must be given",
        ),
        (
            spec(json!({ "containers": [{ "name": "task" }, { "name": "uplink" }] })),
            "spec.template.spec.containers[1].name: \"uplink\" is the name of a container of the executor; choose another",
        ),
        (
            spec(json!({ "volumes": [{ "name": "trainyard" }] })),
            "spec.template.spec.volumes[0].name: \"trainyard\" is the name of a volume of the executor; choose another",
        ),
        (
            spec(json!({ "restartPolicy": "Always" })),
            "spec.template.spec.restartPolicy: must be Never or absent, not \"Always\": each attempt is a Job of its own",
        ),
        (
            spec(json!({ "terminationGracePeriodSeconds": "30s" })),
            "spec.template.spec.terminationGracePeriodSeconds: must be a whole number, 0 or more",
        ),
        (
            json!({ "metadata": { "labels": { "trainyard.dev/task": "x" } } }),
            "spec.template.metadata.labels.trainyard.dev/task: keys that begin with trainyard.dev/ are the controller's own",
        ),
        (
            json!({ "metadata": { "annotations": { "a": 1 } } }),
            "spec.template.metadata.annotations.a: must be a text; put numbers and true or false in quotes",
        ),
        (
            task(json!({ "env": [{ "name": "TRAINYARD_X", "value": "" }] })),
            "spec.template.spec.containers[0].env[0].name: \"TRAINYARD_X\" begins with TRAINYARD_, \
             as the executor's own variables do; choose another",
        ),
        (
            task(json!({ "env": { "A": "b" } })),
            "spec.template.spec.containers[0].env: must be a list, not an object",
        ),
        (
            task(json!({ "volumeMounts": [{ "name": "d", "mountPath": "/trainyard/code" }] })),
            "spec.template.spec.containers[0].volumeMounts[0].mountPath: \"/trainyard/code\" is in /trainyard, \
             which is the executor's own; choose another",
        ),
        (
            task(json!({ "image": 3 })),
            "spec.template.spec.containers[0].image: must be a text",
        ),
        (
            spec(json!({ "affinity": { "nodeAffinity": [] } })),
            "spec.template.spec.affinity.nodeAffinity: must be an object, not a list",
        ),
    ];
    for (template, expected) in cases {
        assert_eq!(world().with_template(template).error(), expected);
    }
}

#[test]
fn without_any_image_the_template_is_refused() {
    let spec = world().spec();
    let errors = Template::check(Source::BuiltIn, None, &spec, None).unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.starts_with("spec.template.spec.containers[0].image: no image is given"),
        "{text}"
    );
}

#[test]
fn two_service_accounts_contradict_each_other() {
    let world = world()
        .with_template(json!({ "spec": { "serviceAccountName": "a" } }))
        .with_spec("identity", json!({ "serviceAccountName": "b" }));
    assert_eq!(
        world.error(),
        "spec.identity.serviceAccountName: \"b\" contradicts \"a\" in spec.template.spec.serviceAccountName; give one of them"
    );
}

#[test]
fn a_template_of_a_config_map_is_named_by_it() {
    let value = parse_yaml("apiVersion: v1\nkind: Pod\nspec: {restartPolicy: Always}\n").unwrap();
    let source = Source::ConfigMap {
        name: "templates",
        key: "gpu.yaml",
        value: &value,
    };
    let errors = Template::check(source, None, &world().spec(), Some("python:3.12")).unwrap_err();
    let text = errors[0].to_string();
    let expected = "spec.templateRef (ConfigMap \"templates\", key \"gpu.yaml\"): template.spec.restartPolicy: must be";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn bad_yaml_is_one_sentence_with_the_line() {
    for yaml in ["a: 1\nb: [", "a: 1\na: 2\n", "- a\nb: c"] {
        let error = parse_yaml(yaml).unwrap_err();
        assert!(error.contains("line"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn an_error_of_a_patch_names_it() {
    let world = world().with_spec(
        "queues",
        json!([{ "name": "gpu", "templatePatch": {
        "spec": { "restartPolicy": "Always" },
    } }]),
    );
    assert_eq!(
        world.error(),
        "spec.queues[0].templatePatch over spec.template.spec.restartPolicy: must be Never or absent, not \"Always\": \
         each attempt is a Job of its own"
    );
}
