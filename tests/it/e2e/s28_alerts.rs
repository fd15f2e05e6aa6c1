//! S28: a real Prometheus scrapes the controller; the example alerts fire in it, say which binding it is, and end.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gate::{Asked, Fate, Gate};
use super::kwok::Kwok;
use super::played::{Part, Player};
use super::taken::nowhere;
use super::world::{Proc, World, wait};
use crate::alerts;
use crate::git::servers::free_port;

/// How long a cause lasts until its alert fires here. (How long on a real day: `promtool`, in `crate::alerts`.)
const SOON: &str = "3s";
/// What is less here than on a real day: the seconds that the first task of a queue waits until that counts, the
/// interruptions that are many, and the time that is looked back on for them and for requests.
const LESS: [(&str, &str); 4] = [
    ("> 1800", "> 5"),
    ("> 10", "> 2"),
    ("[1h]", "[1m]"),
    ("[5m]", "[40s]"),
];
/// Runs that are interrupted at once.
const INTERRUPTED: usize = 6;

/// The alerts whose causes are there from the beginning; what a busy machine brings about beside them is not judged.
const KINDS: [&str; 4] = [
    "TrainyardBindingNotReady",
    "TrainyardPodsDoNotStart",
    "TrainyardQueueStandsStill",
    "TrainyardTasksStranded",
];

/// Scrapes the world's controller until the value goes; a busy machine may keep an answer for some seconds.
struct Prometheus {
    url: String,
    proc: Proc,
}

impl Prometheus {
    fn start(world: &World) -> Self {
        let folder = world.dir.path().join("prometheus");
        fs::create_dir(&folder).expect("folder is made");
        let mut groups = alerts::groups();
        for rule in alerts::rules(&mut groups) {
            rule["for"] = json!(SOON);
            let expression = rule["expr"].as_str().expect("an alert has an expression");
            let less = |text: String, (usual, here): (&str, &str)| text.replace(usual, here);
            rule["expr"] = json!(LESS.into_iter().fold(expression.to_owned(), less));
        }
        let settings = json!({
            "global": {"scrape_interval": "10s", "scrape_timeout": "10s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.json"],
            "scrape_configs": [{"job_name": "trainyard", "static_configs": [{"targets": [world.probes]}]}],
        });
        // JSON is YAML.
        let file = folder.join("prometheus.json");
        fs::write(&file, settings.to_string()).expect("settings are written");
        fs::write(folder.join("alerts.json"), groups.to_string()).expect("alerts are written");
        let address = format!("127.0.0.1:{}", free_port("127.0.0.1"));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let mut prometheus = Self {
            url: format!("http://{address}"),
            proc: Proc::start(&mut command, &world.dir.path().join("prometheus.log")),
        };
        wait("Prometheus is ready", 60, || {
            let proc = &mut prometheus.proc;
            assert!(!proc.has_ended(), "Prometheus ended: {}", proc.log());
            let (status, _) = world.fetch(&format!("http://{address}/-/ready"));
            (status == 200).then_some(())
        });
        prometheus
    }

    /// Alerts that fire.
    fn firing(&self, world: &World) -> Vec<Value> {
        let (status, text) = world.fetch(&format!("{}/api/v1/alerts", self.url));
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("Prometheus answers JSON");
        let all = answer["data"]["alerts"].as_array().cloned();
        let mut all = all.unwrap_or_default();
        all.retain(|alert| alert["state"] == "firing");
        all
    }

    /// This alert where it fires: for this binding, or for none.
    fn find(&self, world: &World, alert: &str, binding: Option<&str>) -> Option<Value> {
        let binding = binding.map(|name| format!("{}/{name}", world.namespace));
        let mut firing = self.firing(world).into_iter();
        firing.find(|known| {
            let labels = &known["labels"];
            labels["alertname"] == alert && labels["binding"].as_str() == binding.as_deref()
        })
    }

    /// Waits until this alert fires; what people read then.
    fn until_fires(&self, world: &World, alert: &str, binding: Option<&str>) -> Value {
        wait(&format!("{alert} fires"), 60, || {
            let found = self.find(world, alert, binding)?;
            Some(found["annotations"]["summary"].clone())
        })
    }

    /// Waits until this alert fires no more.
    fn until_over(&self, world: &World, alert: &str, binding: Option<&str>) {
        wait(&format!("{alert} is over"), 60, || {
            self.find(world, alert, binding).is_none().then_some(())
        });
    }

    /// Whether there are series of this expression.
    fn has(&self, world: &World, expression: &str) -> bool {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", expression)
            .finish();
        let (status, text) = world.fetch(&format!("{}/api/v1/query?{query}", self.url));
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).expect("Prometheus answers JSON");
        let series = answer["data"]["result"].as_array();
        series.is_some_and(|series| !series.is_empty())
    }

    /// Waits until these alerts fire for these bindings, and none for another; gives them.
    fn until(&self, world: &World, what: &str, wanted: &[(&str, &str)]) -> Vec<Value> {
        let wanted: BTreeSet<(String, String)> = wanted
            .iter()
            .map(|(alert, binding)| {
                let binding = format!("{}/{binding}", world.namespace);
                ((*alert).to_owned(), binding)
            })
            .collect();
        wait(what, 60, || {
            let mut firing = self.firing(world);
            firing.retain(|alert| {
                let labels = &alert["labels"];
                let is_ours = KINDS.iter().any(|kind| labels["alertname"] == *kind);
                is_ours && labels["binding"].is_string()
            });
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let named: BTreeSet<(String, String)> = firing
                .iter()
                .map(|alert| {
                    let labels = &alert["labels"];
                    (text(&labels["alertname"]), text(&labels["binding"]))
                })
                .collect();
            (named == wanted).then_some(firing)
        })
    }
}

/// Throttles a call about a Lease from time to time: so seldom that it is a moment and no state (`controller::throttle`).
fn now_and_then() -> impl FnMut(&Asked) -> Fate + Send + 'static {
    let mut last = Instant::now();
    move |asked| {
        if !asked.path.contains("/leases") || last.elapsed() < Duration::from_secs(12) {
            return Fate::Pass;
        }
        last = Instant::now();
        Fate::Throttle(1)
    }
}

/// A binding whose pods, on a simulated node, are deleted by hand the first time that they run.
fn bind_interrupted(world: &World) -> (Player, Kwok) {
    let kwok = Kwok::start(world, 1);
    let script = |_: &str, attempt: u32| match attempt {
        1 => Part::IsDeleted,
        _ => Part::Completes(100),
    };
    let player = Player::start(world, &world.place.kubeconfig, script);
    world.queue("gone");
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(INTERRUPTED);
    world.bind("gone", &["gone"], &patch);
    (player, kwok)
}

/// Series of the binding `gone` and of runs whose pods are deleted, as a selector; `more` is put into it.
fn of_deleted(world: &World, name: &str, more: &str) -> String {
    let binding = format!("{}/gone", world.namespace);
    format!("{name}{{binding=\"{binding}\",category=\"pod-deleted\"{more}}}")
}

/// Lets tasks be interrupted, from when Prometheus knows that none was.
fn interrupt(world: &World, prometheus: &Prometheus) {
    let counted = of_deleted(world, "trainyard_ended_tasks_total", "");
    wait("no interruption is counted", 60, || {
        prometheus
            .has(world, &format!("{counted} == 0"))
            .then_some(())
    });
    for i in 0..INTERRUPTED {
        world.run(&format!("interrupted {i}"), "print('never')\n", "gone");
    }
}

/// That many runs are interrupted is true for a while after them, and only then: the alert may be over when it is looked
/// for, so Prometheus is asked whether it has fired.
fn assert_interrupted(world: &World, prometheus: &Prometheus) {
    let alert = "TrainyardTasksInterrupted";
    let more = format!(",alertname=\"{alert}\",alertstate=\"firing\"");
    let fired = format!("last_over_time({}[1h])", of_deleted(world, "ALERTS", &more));
    wait("it was told that many are interrupted", 60, || {
        prometheus.has(world, &fired).then_some(())
    });
    prometheus.until_over(world, alert, Some("gone"));
}

/// The ClearML server is gone, and the Lease of one binding can be neither read nor written: two alerts, for as long as
/// that lasts. Nothing is throttled any more meanwhile.
fn cut_off(world: &mut World, gate: &Gate, prometheus: &Prometheus) {
    gate.set(|asked| {
        if asked.path.ends_with("/leases/trainyard-well") {
            Fate::Fail
        } else {
            Fate::Pass
        }
    });
    world.kill_server();
    let (leads, server) = ("TrainyardNobodyLeads", "TrainyardServerFails");
    assert_eq!(
        prometheus.until_fires(world, leads, Some("well")),
        format!(
            "No replica holds the Lease of binding {}/well.",
            world.namespace
        )
    );
    assert_eq!(
        prometheus.until_fires(world, server, None),
        "More than a fifth of the requests to ClearML servers fail."
    );
    prometheus.until_over(world, "TrainyardThrottled", None);
    gate.set(|_| Fate::Pass);
    world.start_server();
    prometheus.until_over(world, leads, Some("well"));
    prometheus.until_over(world, server, None);
}

#[test]
fn s28_alerts_fire_in_a_prometheus_and_end_when_their_cause_does() {
    let mut world = World::new("s28alerts");
    let gate = Gate::start(&world.place.kubeconfig, world.dir.path(), now_and_then());
    let kubeconfig = gate.kubeconfig.display().to_string();
    let variable = ("KUBECONFIG".to_owned(), kubeconfig);
    world.environment.push(variable);
    world.start_controller();
    for name in ["well", "gpu", "still", "dropped"] {
        world.queue(name);
    }
    world.bind("well", &["well"], &json!({}));
    // What an old glue does first, before it dies.
    let popped = world.run("popped", "print('never')\n", "dropped");
    let queue = world.queue_id("dropped");
    world.call("queues.get_next_task", &json!({"queue": queue}));
    world.bind("dropped", &["dropped"], &json!({}));
    let stands = world.run("stands", "print('never')\n", "still");
    world.bind("still", &["still"], &json!({"suspend": true}));
    let template = nowhere(&world, &json!({}));
    world.bind("gpu", &["gpu"], &json!({"template": template}));
    world.bind("lost", &["lost"], &json!({}));
    let _simulated = bind_interrupted(&world);
    let prometheus = Prometheus::start(&world);
    let waits = world.run("waits", "print('never')\n", "gpu");
    interrupt(&world, &prometheus);
    let all = [
        ("TrainyardBindingNotReady", "lost"),
        ("TrainyardPodsDoNotStart", "gpu"),
        ("TrainyardQueueStandsStill", "still"),
        ("TrainyardTasksStranded", "dropped"),
    ];
    let firing = prometheus.until(&world, "four bindings are in trouble", &all);
    let told = |alert: &str, field: &str| {
        let found = firing
            .iter()
            .find(|known| known["labels"]["alertname"] == alert);
        let alert = found.expect("the alert fires");
        alert["annotations"][field].clone()
    };
    let namespace = &world.namespace;
    assert_eq!(
        told("TrainyardBindingNotReady", "summary"),
        format!("Binding {namespace}/lost takes no tasks.")
    );
    assert_eq!(
        told("TrainyardPodsDoNotStart", "summary"),
        format!("Pods of binding {namespace}/gpu do not start: unschedulable.")
    );
    assert_eq!(
        told("TrainyardPodsDoNotStart", "runbook_url"),
        "docs/operations.md#trainyardpodsdonotstart"
    );

    assert_eq!(
        told("TrainyardQueueStandsStill", "runbook_url"),
        "docs/operations.md#trainyardqueuestandsstill"
    );
    assert_eq!(
        told("TrainyardTasksStranded", "summary"),
        format!("Tasks for the queues of binding {namespace}/dropped stand in no queue.")
    );

    world.queue("lost");
    world.call("tasks.stop", &json!({"task": waits}));
    for task in [&stands, &popped] {
        world.call("tasks.dequeue", &json!({"task": task}));
    }
    prometheus.until(&world, "all alerts are over", &[]);
    prometheus.until_fires(&world, "TrainyardThrottled", None);
    assert_interrupted(&world, &prometheus);
    cut_off(&mut world, &gate, &prometheus);

    prometheus.until_over(&world, "TrainyardDown", None);
    world.kill_controller();
    prometheus.until_fires(&world, "TrainyardDown", None);
}
