//! The chart, rendered and linted by the real helm; `deploy/` is what it renders to.

#![expect(clippy::panic, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::generated::assert_same;
use crate::e2e::world::ALLOCATOR;

/// A program that `cargo xtask test` names.
fn program(variable: &str) -> Command {
    let path = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run by `cargo xtask test`, which builds the program")
    });
    let mut command = Command::new(path);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// helm with a home of its own, so that it neither reads nor writes the user's.
fn helm(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("a temporary folder is made");
    let variables = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
    let mut command = program("TRAINYARD_HELM");
    command.envs(variables.map(|name| (name, home.path())));
    command.args(arguments).output().expect("helm runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The chart with a file of values.
fn rendered(values: &str, more: &[&str]) -> Output {
    let mut arguments = vec![
        "template",
        "trainyard",
        "charts/trainyard",
        "--namespace",
        "trainyard",
        "--values",
        values,
    ];
    arguments.extend(more);
    helm(&arguments)
}

fn template(values: &Value, more: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a temporary folder is made");
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string()).expect("values are written");
    let file = file.display().to_string();
    let output = rendered(&file, more);
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// The values that must be given.
fn needed() -> Value {
    json!({ "server": {
        "apiUrl": "https://api.clear.example", "credentialsSecretRef": { "name": "clearml-credentials" },
    } })
}

/// `values` with the value at a dotted path.
fn with(mut values: Value, path: &str, value: Value) -> Value {
    let place = path
        .split('.')
        .fold(&mut values, |values, name| &mut values[name]);
    *place = value;
    values
}

#[test]
fn deploy_is_the_rendered_chart() {
    let file = "deploy/values.yaml";
    let output = rendered(file, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mend = "helm template trainyard charts/trainyard --namespace trainyard \
                --values deploy/values.yaml > deploy/controller.yaml";
    assert_same("deploy/controller.yaml", &text(&output.stdout), mend);
}

#[test]
fn scenarios_run_the_controller_with_the_memory_allocator_of_the_chart() {
    let rendered = template(&needed(), &[]).expect("the chart renders");
    for (name, value) in ALLOCATOR {
        let variable = format!("- name: {name}\n              value: \"{value}\"\n");
        assert!(rendered.contains(&variable), "{name}={value}");
    }
}

#[test]
fn deploy_is_a_kustomization_that_carries_one_image_everywhere() {
    let output = program("TRAINYARD_KUBECTL")
        .args(["kustomize", "deploy"])
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rendered = text(&output.stdout);
    for kind in [
        "CustomResourceDefinition",
        "Deployment",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    ] {
        assert!(
            rendered.contains(&format!("kind: {kind}\n")),
            "{kind} is missing"
        );
    }
    assert_eq!(
        rendered.matches("trainyard:0.1.0").count(),
        2,
        "container and TRAINYARD_IMAGE"
    );
}

#[test]
fn lint_finds_nothing() {
    let output = helm(&[
        "lint",
        "--strict",
        "charts/trainyard",
        "--values",
        "deploy/values.yaml",
    ]);
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn what_must_be_given_is_asked_for_in_a_sentence() {
    let error = template(&json!({}), &[]).expect_err("without a server");
    assert!(
        error.contains("must name a Secret with the keys access_key and secret_key"),
        "{error}"
    );
    let no_url = with(needed(), "server.apiUrl", json!(""));
    let error = template(&no_url, &[]).expect_err("without an address");
    assert!(
        error.contains("server.apiUrl must be the address"),
        "{error}"
    );
}

#[test]
fn keys_that_the_chart_does_not_know_are_refused() {
    for path in [
        "servers",
        "server.apiURL",
        "image.name",
        "queues",
        "server.credentials",
        "bindings",
    ] {
        let error = template(&with(needed(), path, json!({ "a": 1 })), &[]).expect_err(path);
        assert!(
            error.contains("values don't meet the specifications of the schema"),
            "{path}: {error}"
        );
    }
}

#[test]
fn every_value_changes_what_is_rendered() {
    let plain = template(&needed(), &[]).expect("renders");
    let digest = format!("sha256:{}", "0".repeat(64));
    let values = [
        ("server.apiUrl", json!("https://other")),
        ("server.webUrl", json!("https://web")),
        ("server.filesUrl", json!("https://files")),
        ("server.credentialsSecretRef.name", json!("other")),
        ("server.caConfigMapRef", json!({ "name": "ca" })),
        ("image", json!({ "registry": "r.example" })),
        ("image", json!({ "repository": "other/trainyard" })),
        ("image", json!({ "tag": "2" })),
        ("image", json!({ "digest": digest })),
        ("image", json!({ "pullPolicy": "Always" })),
        ("imagePullSecrets", json!(["pull"])),
        ("tasks", json!({ "defaultImage": "python:3.12" })),
        ("tasks", json!({ "imagePullSecrets": ["pull"] })),
        (
            "bindings",
            json!([{ "name": "gpu", "spec": { "queues": [{ "name": "gpu" }] } }]),
        ),
        ("replicaCount", json!(2)),
        ("rbac", json!({ "create": false })),
        ("rbac", json!({ "scope": "cluster" })),
        ("rbac", json!({ "freeResources": true })),
        ("rbac", json!({ "kueue": true })),
        ("serviceAccount", json!({ "create": false })),
        ("serviceAccount", json!({ "name": "other" })),
        ("serviceAccount", json!({ "annotations": { "a": "b" } })),
        ("taskServiceAccount", json!({ "create": false })),
        ("taskServiceAccount", json!({ "name": "other" })),
        ("taskServiceAccount", json!({ "annotations": { "a": "b" } })),
        ("clusterId", json!("c1")),
        ("log", json!({ "level": "debug" })),
        ("log", json!({ "format": "json" })),
        ("resources", json!({ "limits": { "memory": "1Gi" } })),
        ("podLabels", json!({ "a": "b" })),
        ("podAnnotations", json!({ "a": "b" })),
        ("nodeSelector", json!({ "a": "b" })),
        ("tolerations", json!([{ "operator": "Exists" }])),
        ("affinity", json!({ "nodeAffinity": {} })),
        ("topologySpreadConstraints", json!([{ "maxSkew": 1 }])),
        ("priorityClassName", json!("high")),
        (
            "extraEnv",
            json!([{ "name": "HTTPS_PROXY", "value": "http://proxy" }]),
        ),
        ("extraArgs", json!(["--log=debug"])),
    ];
    let known = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/trainyard/values.schema.json"),
    )
    .expect("the schema is there");
    let known: Value = serde_json::from_str(&known).expect("the schema is JSON");
    for name in known["properties"].as_object().expect("properties").keys() {
        let set = values
            .iter()
            .any(|(path, _)| path.split('.').next() == Some(name));
        assert!(set || name == "global", "{name} is not tried");
    }
    for (path, value) in values {
        let rendered = template(&with(needed(), path, value.clone()), &[]);
        let rendered = rendered.unwrap_or_else(|error| panic!("{path}: {value}: {error}"));
        assert_ne!(rendered, plain, "{path}: {value} changes nothing");
    }
}

#[test]
fn versions_from_1_33_on_are_served_and_older_ones_refused() {
    for version in ["1.33.0", "1.35.2", "1.37.0", "1.40.0"] {
        template(&needed(), &["--kube-version", version])
            .unwrap_or_else(|error| panic!("{version}: {error}"));
    }
    let error = template(&needed(), &["--kube-version", "1.32.9"]).expect_err("1.32");
    assert!(error.contains(">=1.33.0"), "{error}");
}

#[test]
fn the_controller_may_neither_list_secrets_nor_write_pods() {
    for scope in ["namespace", "cluster"] {
        let rendered =
            template(&with(needed(), "rbac", json!({ "scope": scope })), &[]).expect("renders");
        let rules = rendered
            .split("rules:")
            .nth(1)
            .and_then(|rest| rest.split("---").next())
            .expect("rules");
        let verbs = |resource: &str| {
            let rule = rules
                .split("- apiGroups")
                .find(|rule| rule.contains(&format!("resources: [{resource}")))
                .expect("a rule");
            rule.split("verbs: [")
                .nth(1)
                .and_then(|rest| rest.split(']').next())
                .expect("verbs")
                .to_owned()
        };
        assert_eq!(verbs("secrets"), "get");
        assert_eq!(verbs("pods]"), "get, list, watch, create");
        assert!(!rules.contains('*'), "no rule is for everything");
    }
}

#[test]
fn bindings_of_the_values_are_rendered_as_they_are() {
    let spec = json!({ "queues": [{ "name": "gpu" }], "limits": { "resources": { "nvidia.com/gpu": 8 } } });
    let values = with(
        needed(),
        "bindings",
        json!([{ "name": "gpu", "spec": spec, "labels": { "team": "vision" } }]),
    );
    let rendered = template(&values, &["--show-only", "templates/bindings.yaml"]).expect("renders");
    let binding: Value = serde_saphyr::from_str(&rendered).expect("is YAML");
    assert_eq!(binding["spec"], spec);
    assert_eq!(binding["metadata"]["labels"]["team"], "vision");
    assert_eq!(binding["metadata"]["namespace"], "trainyard");
}

#[test]
fn bindings_of_the_release_are_retired_before_their_controller_goes() {
    let bindings = json!([{ "name": "gpu", "spec": { "queues": [{ "name": "gpu" }] } }]);
    let values = with(needed(), "bindings", bindings);
    let rendered = template(&values, &[]).expect("renders");
    let documents: Vec<&str> = rendered.split("\n---\n").collect();
    let hooks: Vec<&&str> = documents
        .iter()
        .filter(|text| text.contains("helm.sh/hook: pre-delete"))
        .collect();
    assert_eq!(hooks.len(), 4, "account, role, its binding, Job");
    let without = with(values, "rbac", json!({ "create": false }));
    let without = template(&without, &[]).expect("renders");
    assert_eq!(without.matches("helm.sh/hook: pre-delete").count(), 2);
    assert!(!without.contains("rbac.authorization.k8s.io"), "{without}");
    let job = hooks
        .iter()
        .find(|text| text.contains("kind: Job"))
        .expect("a Job");
    let selector =
        "--selector=app.kubernetes.io/instance=trainyard,app.kubernetes.io/managed-by=Helm";
    assert!(job.contains(selector), "{job}");
    let binding = documents
        .iter()
        .find(|text| text.contains("kind: QueueBinding"))
        .expect("the binding");
    for label in [
        "app.kubernetes.io/instance: trainyard",
        "app.kubernetes.io/managed-by: Helm",
    ] {
        assert!(binding.contains(label), "{binding}");
    }
    assert!(
        !template(&needed(), &[])
            .expect("renders")
            .contains("helm.sh/hook"),
        "without bindings nothing to retire"
    );
}
