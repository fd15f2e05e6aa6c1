//! S28: a real Prometheus scrapes the controller; the example alerts fire in it, say which binding it is, and end.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gate::{Asked, Fate, Gate};
use super::taken::nowhere;
use super::world::{Proc, World, wait};
use crate::alerts;
use crate::git::servers::free_port;

/// How long a cause lasts until its alert fires here. (How long on a real day: `promtool`, in `crate::alerts`.)
const SOON: &str = "3s";
/// How long the first task of a queue waits until that counts, in seconds: on a real day, and here.
const WAITS: [&str; 2] = ["> 1800", "> 5"];

/// The alerts whose causes are made here; what a busy machine brings about beside them is not judged.
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
            rule["expr"] = json!(expression.replace(WAITS[0], WAITS[1]));
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

    /// Whether this alert fires, for whatever.
    fn fires(&self, world: &World, alert: &str) -> bool {
        let firing = self.firing(world);
        firing
            .iter()
            .any(|known| known["labels"]["alertname"] == alert)
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
    let prometheus = Prometheus::start(&world);
    let waits = world.run("waits", "print('never')\n", "gpu");
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
    wait("it is told that the API server throttles", 60, || {
        prometheus.fires(&world, "TrainyardThrottled").then_some(())
    });

    let is_down = |world: &World| prometheus.fires(world, "TrainyardDown");
    wait("the controller is scraped", 60, || {
        (!is_down(&world)).then_some(())
    });
    world.kill_controller();
    wait("nobody is scraped any more", 60, || {
        is_down(&world).then_some(())
    });
}
