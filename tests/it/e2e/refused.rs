//! Bad input is told where it was made, and no task is touched by it.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{World, wait};

/// Until this condition of the binding is False, and its message holds all these words.
fn until_false(world: &World, kind: &str, seconds: u64, words: &[&str]) {
    let what = format!("{kind} is False and tells {words:?}");
    wait(&what, seconds, || {
        let condition = world.condition("gpu", kind);
        let message = condition["message"].as_str().unwrap_or_default();
        let told = words.iter().all(|word| message.contains(word));
        (condition["status"] == "False" && told).then_some(())
    });
}

#[test]
fn an_invalid_binding_is_refused_with_its_field_path() {
    let world = World::new("invalid");
    for (patch, wanted) in [
        (
            json!({"limits": {"maxConcurrent": -1}}),
            "spec.limits.maxConcurrent",
        ),
        (json!({"strategy": "Random"}), "spec.strategy"),
        (json!({"queues": []}), "spec.queues"),
        (json!({"surprise": true}), "spec.surprise"),
        (
            json!({"templateRef": {"name": "x", "key": "y"}}),
            "spec.templateRef: ",
        ),
        (json!({"capacity": "Kueue"}), "spec.kueueQueueName: "),
        (json!({"kueueQueueName": "team"}), "spec.kueueQueueName: "),
        (
            json!({"queues": [{"name": "gpu"}, {"name": "gpu"}]}),
            "each queue may be listed once",
        ),
        (
            json!({"environment": {"cache": {"claimName": "cache", "hostPath": "/cache"}}}),
            "spec.environment.cache: ",
        ),
        (
            json!({"server": {"apiUrl": "http://other:8008", "credentialsSecretRef": null}}),
            "spec.server.credentialsSecretRef: ",
        ),
        (
            json!({"job": {"labels": {"trainyard.dev/task": "mine"}}}),
            "spec.job.labels: ",
        ),
        (
            json!({"job": {"annotations": {"trainyard.dev/intent": "mine"}}}),
            "spec.job.annotations: ",
        ),
    ] {
        let error = world
            .try_apply(&world.binding("bad", &["gpu"], &patch))
            .expect_err(&format!("{patch} must be refused"));
        assert!(error.contains(wanted), "{patch}: {error}");
    }
    let long = world.binding(&"b".repeat(64), &["gpu"], &json!({}));
    let error = world
        .try_apply(&long)
        .expect_err("a name that no label value can have must be refused");
    assert!(
        error.contains("metadata.name must have at most 63 characters"),
        "{error}"
    );
}

/// What the API server says of this text, of which it stores nothing; a warning counts as a refusal.
fn judged(world: &World, text: &str) -> Result<String, String> {
    let file = world.dir.path().join("document.yaml");
    fs::write(&file, text).expect("document is written");
    world.try_kubectl(&[
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--warnings-as-errors",
        "-f",
        &file.to_string_lossy(),
    ])
}

#[test]
fn the_normative_document_is_taken_and_a_misspelt_field_of_it_is_refused_with_its_path() {
    let world = World::new("normative");
    let document = include_str!("../../fixtures/queuebinding.yaml");
    let said = judged(&world, document).unwrap_or_else(|error| panic!("kubectl apply: {error}"));
    assert!(said.contains("created (server dry run)"), "{said}");
    for (written, misspelt, path) in [
        (
            "abortGracePeriod:",
            "abortGracePeriods:",
            "spec.lifecycle.abortGracePeriods",
        ),
        ("weight: 3", "weights: 3", "spec.queues[0].weights"),
        (
            "caBundleRef: {kind",
            "caBundle: {kind",
            "spec.server.caBundle",
        ),
    ] {
        let spoilt = document.replacen(written, misspelt, 1);
        assert_ne!(spoilt, document, "{written} is in the document");
        let error = judged(&world, &spoilt).expect_err(&format!("{misspelt} must be refused"));
        assert!(
            error.contains(&format!("unknown field {path:?}")),
            "{error}"
        );
    }
    let stored = world.get(&["queuebinding"]);
    assert_eq!(stored["items"], json!([]), "a dry run stores nothing");
}

#[test]
fn a_template_that_the_cluster_refuses_is_a_condition_and_its_tasks_wait() {
    let mut world = World::new("template");
    world.start_controller();
    world.queue("gpu");
    let task = world.run("waits", "print('here')\n", "gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"template": {"spec": {"surprise": 1}}}),
    );
    until_false(&world, "TemplateValid", 60, &["spec.surprise"]);
    wait("an Event of the binding tells it too", 30, || {
        let events = world.get(&["events"]);
        let told = |event: &Value| {
            event["involvedObject"]["kind"] == "QueueBinding"
                && event["involvedObject"]["name"] == "gpu"
                && event["reason"] == "RefusedByCluster"
                && event["type"] == "Warning"
                && event["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("spec.surprise"))
        };
        let mut events = events["items"].as_array().into_iter().flatten();
        events.any(told).then_some(())
    });
    assert_eq!(world.entries("gpu"), std::slice::from_ref(&task));
    assert_eq!(world.status(&task), "queued");
    assert!(world.jobs().is_empty());
    // Repaired: it starts without a restart.
    world.kubectl(&["delete", "queuebinding", "gpu"]);
    world.bind("gpu", &["gpu"], &json!({}));
    assert_eq!(world.until_ended(&task, 90)["status"], "completed");
}

/// The controller waits longer and longer between its attempts: after the sixth 4 s at least, after each later one 8 s.
fn asks_less_and_less(world: &World, action: &str, outcome: &str) {
    let (action, outcome) = (format!("action={action:?}"), format!("outcome={outcome:?}"));
    let failed = || world.metric("trainyard_api_requests_total", &[&action, &outcome]);
    let mut begun = Instant::now();
    let before = wait("six attempts were made", 60, || {
        begun = Instant::now();
        Some(failed()).filter(|count| *count > 5.5)
    });
    std::thread::sleep(Duration::from_secs(5));
    let more = failed() - before;
    let most = 1.0 + (begun.elapsed().as_secs_f64() / 8.0).floor();
    assert!(
        more < most + 0.5,
        "{more} attempts at {action} after {before}"
    );
}

#[test]
fn wrong_credentials_and_a_dead_server_are_conditions_not_crashes() {
    let mut world = World::new("credentials");
    world.start_controller();
    world.queue("gpu");
    let task = world.run("waits", "print('here')\n", "gpu");
    let document = world.task(&task);
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"},
        "stringData": {"access_key": "NOBODY", "secret_key": "nothing"},
    }));
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"server": {"credentialsSecretRef": {"name": "wrong"}}}),
    );
    let reason = "refused auth.login: Unauthorized (invalid credentials)";
    until_false(&world, "CredentialsValid", 60, &[reason]);
    assert_eq!(world.condition("gpu", "Ready")["status"], "False");
    asks_less_and_less(&world, "auth.login", "refused");
    // None of them has touched anything.
    assert!(!world.controller().has_ended(), "the controller goes on");
    assert_eq!(world.entries("gpu"), std::slice::from_ref(&task));
    assert_eq!(document["status"], "queued");
    assert_eq!(world.task(&task), document, "what waits is untouched");

    // The Secret is mended in place: taken up without a restart.
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"},
        "stringData": {"access_key": world.key, "secret_key": world.secret},
    }));
    assert_eq!(world.until_ended(&task, 120)["status"], "completed");
    // From here on no change of its Job wakes the controller before its time.
    wait("its Job is settled", 60, || {
        let job = world.job_of(&task);
        (job["metadata"]["labels"]["trainyard.dev/state"] == "settled").then_some(())
    });

    world.kill_server();
    until_false(&world, "ServerReachable", 60, &[]);
    asks_less_and_less(&world, "queues.get_all", "transient");
    assert!(!world.controller().has_ended(), "the controller goes on");
    std::thread::sleep(Duration::from_secs(1));
    world.start_server();
    wait("ServerReachable is True again", 90, || {
        (world.condition("gpu", "ServerReachable")["status"] == "True").then_some(())
    });
}

#[test]
fn a_template_in_a_config_map_is_told_by_map_key_and_field_and_mended_in_place() {
    let mut world = World::new("template-map");
    world.start_controller();
    world.queue("gpu");
    let task = world.run("waits", "print('here')\n", "gpu");
    let mut binding = world.binding(
        "gpu",
        &["gpu"],
        &json!({"templateRef": {"name": "pods", "key": "pod.yaml"}}),
    );
    binding["spec"]
        .as_object_mut()
        .expect("a spec")
        .remove("template");
    world.apply(&binding);
    let map = |key: &str, template: &str| {
        world.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pods"}, "data": {key: template},
        }));
    };
    // The ConfigMap of a template that was refused is read again every 5 s.
    let until_told = |words: &[&str]| {
        until_false(&world, "TemplateValid", 20, words);
        assert_eq!(world.entries("gpu"), std::slice::from_ref(&task));
        assert_eq!(world.status(&task), "queued");
    };
    until_told(&["spec.templateRef", "pods"]);
    map("other.yaml", "spec: {}");
    until_told(&["spec.templateRef", "pod.yaml", "pods"]);
    let image = &world.place.task_image;
    let with = |more: &str| {
        format!("spec:\n  {more}\n  containers:\n  - name: task\n    image: {image}\n")
    };
    map("pod.yaml", &with("surprise: 1"));
    until_told(&["spec.surprise"]);
    map("pod.yaml", &with("hostname: mended"));
    wait("the mended template is accepted", 20, || {
        let condition = world.condition("gpu", "TemplateValid");
        (condition["status"] == "True").then_some(())
    });
    assert_eq!(world.until_ended(&task, 90)["status"], "completed");
    let pod = world.job_of(&task)["spec"]["template"]["spec"].clone();
    assert_eq!(pod["hostname"], "mended", "{pod:#}");
}
