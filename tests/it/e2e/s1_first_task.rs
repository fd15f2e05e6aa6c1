//! S1: trainyard installed by the real helm, one binding, a first task and more at random moments; then a wrong key.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};

use super::doors::Doors;
use super::world::{PATIENCE, World, merge, wait};
use crate::times;

/// The stated figure: the controller's pod is ready in so many seconds; five times of it are allowed here, on a machine
/// that others use too.
pub const READY: u32 = 5;
/// The stated figure: a Job is there so soon; five times of it are allowed.
const JOB: Duration = Duration::from_secs(5);

fn helm(world: &World, args: &[&str]) -> String {
    let home = world.dir.path().join("helm");
    let output = Command::new(world.place.bin.join("helm"))
        .args(["--namespace", &world.namespace])
        .args(args)
        .env("KUBECONFIG", &world.place.kubeconfig)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .output()
        .expect("helm runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "helm {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// The chart with the binding `default` in its values.
pub fn install(world: &World) {
    install_with(world, &["default"], &json!({}), &json!({}));
}

/// The chart with bindings of these names on queues of the same names; `patch` is merged into the spec of each, `more`
/// into the values.
pub fn install_with(world: &World, names: &[&str], patch: &Value, more: &Value) {
    let wait = ["--wait", "--timeout", "360s"];
    release(world, names, (patch, more), &wait);
}

/// The chart without bindings, on a cluster where nobody makes pods of its Deployment.
pub fn install_rights(world: &World, more: &Value) {
    release(world, &[], (&json!({}), more), &[]);
}

fn release(world: &World, names: &[&str], (patch, more): (&Value, &Value), flags: &[&str]) {
    let binding = |name: &&str| {
        let mut spec = world.binding(name, &[*name], patch)["spec"].clone();
        spec.as_object_mut().expect("spec").remove("server");
        json!({"name": name, "spec": spec})
    };
    let bindings: Vec<Value> = names.iter().map(binding).collect();
    let chart = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("charts/trainyard")
        .display()
        .to_string();
    let (repository, tag) = world.place.image.rsplit_once(':').expect("image has a tag");
    let mut values = json!({
        "image": {"repository": repository, "tag": tag},
        "server": {"apiUrl": world.url, "webUrl": world.url, "filesUrl": format!("{}/files", world.url),
                   "credentialsSecretRef": {"name": "clearml-credentials"}},
        "taskServiceAccount": {"create": false, "name": "trainyard-task"},
        "bindings": bindings,
    });
    merge(&mut values, more);
    let file = world.dir.path().join("values.json");
    std::fs::write(&file, values.to_string()).expect("values are written");
    let file = file.display().to_string();
    let args = [
        "upgrade",
        "--install",
        "trainyard",
        &chart,
        "--values",
        &file,
    ];
    helm(world, &[args.as_slice(), flags].concat());
}

/// The release and its pods are gone when this returns.
pub fn uninstall(world: &World) {
    helm(world, &["uninstall", "trainyard", "--wait"]);
    wait("the controller's pod is gone", 60, || {
        controller(world).is_null().then_some(())
    });
}

/// The controller's pods.
pub fn controllers(world: &World) -> Vec<Value> {
    let label = "app.kubernetes.io/name=trainyard,app.kubernetes.io/component=controller";
    let pods = world.get(&["pods", "-l", label]);
    pods["items"].as_array().cloned().unwrap_or_default()
}

/// The controller's pod; null if there is none.
fn controller(world: &World) -> Value {
    controllers(world).into_iter().next().unwrap_or_default()
}

/// A moment in whole seconds, as Kubernetes has them.
fn second(time: &Value) -> i64 {
    let text = time.as_str().expect("a time");
    let time: Timestamp = text.parse().expect("a time by RFC 3339");
    time.as_second()
}

/// Seconds from the start of the controller's pod until it was ready, whole ones as Kubernetes notes them.
pub fn ready_after(world: &World) -> u32 {
    let pod = controller(world);
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions
        .and_then(|all| {
            all.iter()
                .find(|known| known["type"] == "Ready" && known["status"] == "True")
        })
        .expect("the pod is ready");
    let seconds = second(&ready["lastTransitionTime"]) - second(&pod["status"]["startTime"]);
    u32::try_from(seconds).expect("a pod is ready after its start")
}

/// What stands below the head of a column.
fn cell<'a>(table: &'a str, column: &str) -> &'a str {
    let (head, row) = table.split_once('\n').expect("a head and a row");
    let at = head
        .find(column)
        .unwrap_or_else(|| panic!("{column} in\n{table}"));
    let rest = row.get(at..).unwrap_or_default();
    rest.split_whitespace().next().unwrap_or_default()
}

/// Runs a task: its Job is there soon, and it goes through its statuses and no other.
fn hello(world: &World, doors: &Doors, name: &str) {
    let source = format!("print('hello, world')\n{}", doors.python(name));
    let task = world.create(name, &source, &json!({}));
    let enqueued = Instant::now();
    world.enqueue(&task, "default");
    let mut seen: Vec<String> = Vec::new();
    let mut job_after = None;
    loop {
        let status = world.status(&task);
        if seen.last() != Some(&status) {
            seen.push(status.clone());
        }
        if job_after.is_none() && !world.job_of(&task).is_null() {
            job_after = Some(enqueued.elapsed());
        }
        // It stays until it was seen to run.
        if status == "in_progress" {
            doors.open(name);
        }
        if ["completed", "failed", "stopped"].contains(&status.as_str()) {
            break;
        }
        assert!(
            enqueued.elapsed() < Duration::from_secs(120) * PATIENCE,
            "{name} is still {status}"
        );
        thread::sleep(Duration::from_millis(50));
    }
    let job_after = job_after.expect("a Job was seen");
    let seconds = job_after.as_secs_f64();
    times::told(
        "S1",
        "a task that is enqueued has its Job",
        seconds,
        JOB.as_secs_f64(),
    );
    assert!(
        job_after < JOB * 5,
        "the Job of {name} came after {job_after:?}"
    );
    // Queued it was by the answer to the enqueue, though it may not have been seen so.
    let after: Vec<&str> = seen
        .iter()
        .map(String::as_str)
        .skip_while(|status| *status == "queued")
        .collect();
    assert_eq!(after, ["in_progress", "completed"], "{name}: {seen:?}");
    let log = world.log(&task);
    assert!(log.iter().any(|line| line == "hello, world"), "{log:#?}");
}

/// Each condition says why, in a word and a sentence, and of which edit of the binding; the queue is known by its id.
fn everything_is_well_and_says_so(world: &World) {
    let binding = world.get(&["queuebinding", "default"]);
    let generation = &binding["metadata"]["generation"];
    for kind in [
        "Ready",
        "ServerReachable",
        "CredentialsValid",
        "QueuesResolved",
        "TemplateValid",
        "CapacityAvailable",
        "NothingStranded",
    ] {
        let condition = world.condition("default", kind);
        assert_eq!(condition["status"], "True", "{kind}: {condition:#}");
        assert_eq!(
            &condition["observedGeneration"], generation,
            "{kind}: {condition:#}"
        );
        for key in ["reason", "message", "lastTransitionTime"] {
            let text = condition[key].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{key} of {kind}: {condition:#}");
        }
    }
    let queue = &binding["status"]["queues"][0];
    assert_eq!(queue["name"], "default", "{queue:#}");
    assert_eq!(queue["id"], world.queue_id("default"), "{queue:#}");
}

/// With room for one, one runs and one waits, and both status and table say so.
fn what_runs_and_what_waits_is_counted(world: &World) {
    world.edit("default", &json!({"limits": {"maxConcurrent": 1}}));
    world.until_observed("default");
    let runs = world.run("runs", "import time\ntime.sleep(600)\n", "default");
    wait("it runs", 90, || {
        (world.status(&runs) == "in_progress").then_some(())
    });
    let waits = world.run("waits", "print('here')\n", "default");
    let count = |running: u32, queued: u32| {
        wait(
            &format!("the status counts {running} running and {queued} queued"),
            30,
            || {
                let status = world.get(&["queuebinding", "default"])["status"].clone();
                let queue = &status["queues"][0];
                let right = [&status, queue]
                    .iter()
                    .all(|counts| counts["running"] == running && counts["queued"] == queued);
                right.then_some(())
            },
        );
    };
    count(1, 1);
    let table = world.kubectl(&["get", "queuebinding", "default"]);
    for (column, wanted) in [
        ("NAME", "default"),
        ("READY", "True"),
        ("QUEUES", "default"),
        ("QUEUED", "1"),
        ("RUNNING", "1"),
        ("LIMIT", "1"),
    ] {
        assert_eq!(cell(&table, column), wanted, "{column} in\n{table}");
    }
    for column in ["LAST DISPATCH", "AGE"] {
        assert!(!cell(&table, column).is_empty(), "{column} in\n{table}");
    }
    world.call("tasks.stop", &json!({"task": runs}));
    assert_eq!(world.until_ended(&runs, 60)["status"], "stopped");
    assert_eq!(world.until_ended(&waits, 90)["status"], "completed");
    count(0, 0);
}

/// A wrong key in the Secret is told in the server's words; nothing crashes, and no task is touched until it is mended.
fn a_wrong_key_touches_nothing(world: &World) {
    let keys = |key: &str, secret: &str| {
        world.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "clearml-credentials"},
            "stringData": {"access_key": key, "secret_key": secret},
        }));
    };
    let before = controller(world);
    keys("NOBODY", "nothing");
    let is_told = || {
        let condition = world.condition("default", "CredentialsValid");
        let message = condition["message"].as_str().unwrap_or_default();
        condition["status"] == "False"
            && message.contains("the server refused auth.login: Unauthorized (invalid credentials)")
    };
    wait(
        "CredentialsValid is False, with the server's words",
        60,
        || is_told().then_some(()),
    );
    // The Secret is read again every 15 s; what is enqueued before that still goes with the old keys.
    let task = world.run("untouched", "print('here')\n", "default");
    let document = world.task(&task);
    thread::sleep(Duration::from_secs(10));
    assert!(is_told(), "{}", world.condition("default", "Ready"));
    assert_eq!(world.entries("default"), std::slice::from_ref(&task));
    assert_eq!(document["status"], "queued");
    let after = world.task(&task);
    assert_eq!(after["status_changed"], document["status_changed"]);
    assert_eq!(after, document, "what waits is untouched");
    assert!(world.job_of(&task).is_null());
    let pod = controller(world);
    assert_eq!(pod["metadata"]["uid"], before["metadata"]["uid"]);
    let containers = pod["status"]["containerStatuses"].as_array();
    for container in containers.expect("the controller has a container") {
        assert_eq!(container["restartCount"], 0, "{container:#}");
    }
    keys(&world.key, &world.secret);
    assert_eq!(world.until_ended(&task, 120)["status"], "completed");
    world.until_ready("default");
}

#[test]
fn s1_a_first_task_runs_after_helm_install() {
    let world = World::new("s1");
    install(&world);
    let ready = ready_after(&world);
    times::told(
        "S1",
        "the controller's pod is ready (in whole seconds)",
        ready.into(),
        READY.into(),
    );
    assert!(
        ready <= READY * 5 * PATIENCE,
        "the controller was ready after {ready} s"
    );
    world.until_ready("default");
    everything_is_well_and_says_so(&world);

    let doors = Doors::start(&world);
    hello(&world, &doors, "first");
    let mut random = rand::rng();
    for number in 1..=5 {
        thread::sleep(Duration::from_millis(random.random_range(0..3000)));
        hello(&world, &doors, &format!("at random {number}"));
    }
    what_runs_and_what_waits_is_counted(&world);
    a_wrong_key_touches_nothing(&world);

    // No key stands in any spec or argument.
    let objects = world.kubectl(&[
        "get",
        "pods,jobs,deployments,configmaps,queuebindings",
        "-o",
        "yaml",
    ]);
    assert!(
        !objects.contains(&world.secret),
        "the secret key is in a spec"
    );
    uninstall(&world);
}
