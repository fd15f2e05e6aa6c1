//! S28: each reason that `docs/operations.md` has for an Event is told on the cluster, by an Event of `events.k8s.io/v1`
//! on the binding that it is about. There is a binding for each fault, so that all are told in the same seconds; then
//! one of each kind is mended. (`Stranded` and its end take a quiet time: `s47_stranded`.)

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::taken::asking;
use super::world::{PATIENCE, World, wait};
use crate::exec::proxy::{Fate, Proxy};
use crate::failures;

/// Reasons of what is wrong at first, and the bindings that it is wrong with.
const FAULTS: [(&str, &str); 20] = [
    ("NoCredentials", "no-credentials"),
    ("SecretMissing", "secret-missing"),
    ("KeyMissing", "key-missing"),
    ("Refused", "refused"),
    ("NotAllowed", "not-allowed"),
    ("SettingsRefused", "settings-refused"),
    ("CaBundleMissing", "ca-bundle-missing"),
    ("TooOld", "too-old"),
    ("NoAnswer", "no-answer"),
    ("NotUnderstood", "not-understood"),
    ("CallRefused", "call-refused"),
    ("QueueMissing", "queue-missing"),
    ("QueueMissing", "queue-renamed"),
    ("TemplateMissing", "template-missing"),
    ("NotYaml", "not-yaml"),
    ("Invalid", "invalid"),
    ("RefusedByCluster", "refused-by-cluster"),
    ("NotSupported", "not-supported"),
    ("JobRefused", "job-refused"),
    ("TaskRejected", "task-rejected"),
];
/// What is wrong for a controller without a server of its own and without the right to read Secrets.
const OF_POOR: [(&str, &str); 2] = [
    ("NoServer", "no-server"),
    ("SecretUnreadable", "secret-unreadable"),
];
/// What is told once some of it is mended.
const MENDED: [(&str, &str); 5] = [
    ("LoggedIn", "refused"),
    ("Answers", "no-answer"),
    ("Found", "queue-missing"),
    ("QueueRenamed", "queue-renamed"),
    ("Accepted", "not-yaml"),
];
/// What `s47_stranded` shows.
const ELSEWHERE: [&str; 2] = ["Stranded", "AllAccountedFor"];

/// Answers of servers to whatever they are asked.
const FORBIDS: &str = r#"{"meta": {"result_code": 403, "result_subcode": 1, "result_msg": "not for you"}, "data": {}}"#;
const REFUSES: &str = r#"{"meta": {"result_code": 400, "result_subcode": 1, "result_msg": "no such call"}, "data": {}}"#;
/// The token says API 2.20.
const IS_OLD: &str =
    r#"{"meta": {"result_code": 200}, "data": {"token": "e30.eyJhcGlfdmVyc2lvbiI6IjIuMjAifQ.x"}}"#;
const IS_A_PAGE: &str = "<html>It works!</html>";
/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

/// A priority class that no pod can have: the API server refuses the Job of a task that asks for it.
const NO_CLASS: &str = "Not A Class";

/// What an Event says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    reason: String,
    type_: String,
    binding: String,
}

/// What Events tell of the bindings of a namespace; each is the controller's and has its words.
fn told(world: &World) -> BTreeSet<Told> {
    let events = world.get(&["events.events.k8s.io"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = events["items"].as_array().into_iter().flatten();
    all.filter(|event| event["regarding"]["kind"] == "QueueBinding")
        .map(|event| {
            assert_eq!(event["reportingController"], "trainyard", "{event:#}");
            assert!(!text(&event["note"]).is_empty(), "{event:#}");
            Told {
                reason: text(&event["reason"]),
                type_: text(&event["type"]),
                binding: text(&event["regarding"]["name"]),
            }
        })
        .collect()
}

/// Waits until Events tell this: the reason, and the binding that it is about.
pub fn until_told(world: &World, wanted: &[(&str, &str)]) {
    let begun = Instant::now();
    loop {
        let told = told(world);
        let is_told = |reason: &str, binding: &str| {
            told.iter()
                .any(|one| one.reason == reason && one.binding == binding)
        };
        let mut missing = wanted.to_vec();
        missing.retain(|&(reason, binding)| !is_told(reason, binding));
        if missing.is_empty() {
            return;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(60) * PATIENCE,
            "after {} s no Event tells {missing:?}, but these do: {told:#?}",
            waited.as_secs()
        );
        thread::sleep(Duration::from_millis(500));
    }
}

/// A binding whose spec lacks this field.
fn without(mut binding: Value, field: &str) -> Value {
    let spec = binding["spec"].as_object_mut().expect("a spec");
    spec.remove(field);
    binding
}

/// A server that gives this answer to all that it is asked; where it is.
fn answering(status: u16, body: &'static str) -> String {
    Proxy::start(NOBODY, move |_| Fate::Says(status, body)).url
}

fn apply_keys(world: &World, name: &str, keys: &Value) {
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": keys,
    }));
}

fn apply_map(world: &World, name: &str, key: &str, text: &str) {
    world.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text},
    }));
}

fn bind_with_bad_keys(world: &World) {
    let own = world.binding("no-credentials", &["empty"], &json!({}));
    world.apply(&without(own, "server"));
    apply_keys(world, "half", &json!({"access_key": world.key}));
    apply_keys(
        world,
        "wrong",
        &json!({"access_key": "NOBODY", "secret_key": "nothing"}),
    );
    for (name, secret) in [
        ("secret-missing", "absent"),
        ("key-missing", "half"),
        ("refused", "wrong"),
    ] {
        let patch = json!({"server": {"credentialsSecretRef": {"name": secret}}});
        world.bind(name, &["empty"], &patch);
    }
}

fn bind_to_bad_servers(world: &World) {
    for (name, url) in [
        ("not-allowed", answering(403, FORBIDS)),
        ("call-refused", answering(400, REFUSES)),
        ("too-old", answering(200, IS_OLD)),
        ("not-understood", answering(200, IS_A_PAGE)),
        ("no-answer", NOBODY.to_owned()),
    ] {
        world.bind(name, &["empty"], &json!({"server": {"apiUrl": url}}));
    }
    apply_map(world, "garbage", "ca.crt", "no certificate");
    for (name, map) in [
        ("ca-bundle-missing", "absent"),
        ("settings-refused", "garbage"),
    ] {
        let bundle = json!({"kind": "ConfigMap", "name": map, "key": "ca.crt"});
        let patch = json!({"server": {"caBundleRef": bundle}});
        world.bind(name, &["empty"], &patch);
    }
}

fn bind_with_bad_templates(world: &World) {
    apply_map(world, "pods", "pod.yaml", "spec: [");
    for (name, map) in [("template-missing", "absent"), ("not-yaml", "pods")] {
        let patch = json!({"templateRef": {"name": map, "key": "pod.yaml"}});
        let binding = world.binding(name, &["empty"], &patch);
        world.apply(&without(binding, "template"));
    }
    for (name, patch) in [
        (
            "invalid",
            json!({"template": {"spec": {"restartPolicy": "Always"}}}),
        ),
        (
            "refused-by-cluster",
            json!({"template": {"spec": {"surprise": 1}}}),
        ),
        (
            "not-supported",
            json!({"overrides": {"containerArguments": ["no-such-argument"]}}),
        ),
    ] {
        world.bind(name, &["empty"], &patch);
    }
}

/// A task whose Job the API server refuses, and one whose image the binding does.
fn bind_with_refused_tasks(world: &World) -> [String; 2] {
    let class = asking(&[("priorityClass", NO_CLASS)]);
    let image = json!({"container": {"image": "registry.example/forbidden:1"}});
    let of_class = json!({"overrides": {"priorityClass": [NO_CLASS]}});
    let of_image =
        json!({"imageCheck": "Enforce", "overrides": {"image": {"allow": ["127.0.0.1:*"]}}});
    [
        ("job-refused", class, of_class),
        ("task-rejected", image, of_image),
    ]
    .map(|(name, asks, patch)| {
        world.queue(name);
        let task = world.create(name, "print('never')\n", &asks);
        world.enqueue(&task, name);
        world.bind(name, &[name], &patch);
        task
    })
}

/// A place in the same cluster whose controller knows no server by itself and may read no Secret.
fn poor(world: &World) -> World {
    let namespace = format!("{}-poor", world.namespace);
    let mut poor = world.neighbour(&namespace, &world.place.kubeconfig);
    let rights = "rbac.authorization.k8s.io";
    let named = |kind: &str, api: &str| json!({"apiVersion": api, "kind": kind, "metadata": {"name": "poor"}});
    poor.apply(&named("ServiceAccount", "v1"));
    let version = format!("{rights}/v1");
    let mut role = named("Role", &version);
    let all = json!(["*"]);
    role["rules"] = json!([
        {
            "apiGroups": ["trainyard.dev", "batch", "events.k8s.io", "coordination.k8s.io"],
            "resources": all, "verbs": all,
        },
        {"apiGroups": [""], "resources": ["pods", "pods/log", "events", "configmaps"], "verbs": all},
    ]);
    poor.apply(&role);
    let mut bound = named("RoleBinding", &version);
    bound["roleRef"] = json!({"apiGroup": rights, "kind": "Role", "name": "poor"});
    bound["subjects"] = json!([{"kind": "ServiceAccount", "name": "poor", "namespace": namespace}]);
    poor.apply(&bound);
    let kubeconfig = poor.kubeconfig_of("poor");
    for (name, value) in [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("CLEARML_API_HOST", ""),
        ("CLEARML_API_ACCESS_KEY", ""),
        ("CLEARML_API_SECRET_KEY", ""),
    ] {
        let variable = (name.to_owned(), value.to_owned());
        poor.environment.push(variable);
    }
    poor.start_controller();
    let none = poor.binding("no-server", &["empty"], &json!({}));
    poor.apply(&without(none, "server"));
    poor.bind("secret-unreadable", &["empty"], &json!({}));
    poor
}

/// Mends a fault of each condition.
fn mend(world: &World, renamed: &str) {
    let keys = json!({"access_key": world.key, "secret_key": world.secret});
    apply_keys(world, "wrong", &keys);
    world.bind("no-answer", &["empty"], &json!({}));
    world.queue("absent");
    // It goes by another name by the time at which nothing is missing.
    world.call(
        "queues.update",
        &json!({"queue": renamed, "name": "stays-renamed"}),
    );
    world.queue("absent-too");
    let image = &world.place.task_image;
    let template = format!("spec:\n  containers:\n  - name: task\n    image: {image}\n");
    apply_map(world, "pods", "pod.yaml", &template);
}

#[test]
fn s28_each_reason_of_an_event_is_told_on_the_cluster_and_no_other() {
    let mut world = World::new("s28events");
    world.start_controller();
    world.queue("empty");
    let renamed = world.queue("stays");
    let poor = poor(&world);
    bind_with_bad_keys(&world);
    bind_to_bad_servers(&world);
    world.bind("queue-missing", &["absent"], &json!({}));
    world.bind("queue-renamed", &["stays", "absent-too"], &json!({}));
    bind_with_bad_templates(&world);
    let [refused, rejected] = bind_with_refused_tasks(&world);
    until_told(&world, &FAULTS);
    until_told(&poor, &OF_POOR);

    // The one task stays where it is, and its user hears why; the other has come to its end.
    assert_eq!(world.status(&refused), "queued");
    assert_eq!(world.entries("job-refused"), std::slice::from_ref(&refused));
    wait("its log says why its Job is not made", 30, || {
        let log = world.log(&refused).join("\n");
        (log.contains("the API server refuses its Job") && log.contains(NO_CLASS)).then_some(())
    });
    assert_eq!(world.status(&rejected), "failed");
    assert!(world.jobs().is_empty(), "neither has a Job");

    mend(&world, &renamed);
    until_told(&world, &MENDED);

    let documented: BTreeMap<String, String> = failures::reasons_of_events().into_iter().collect();
    let mut seen: BTreeSet<String> = ELSEWHERE.map(str::to_owned).into();
    for one in told(&world).into_iter().chain(told(&poor)) {
        let type_ = documented.get(&one.reason);
        assert_eq!(type_, Some(&one.type_), "{one:?}");
        seen.insert(one.reason);
    }
    let all: BTreeSet<String> = documented.into_keys().collect();
    assert_eq!(seen, all, "first what was told, then what is written");
}
