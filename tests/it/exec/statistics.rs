//! Host statistics: for the worker always, for the task unless the SDK reports them itself.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::pod::Pod;
use super::proxy::{Fate, Proxy};
use super::server::{Server, wait};

/// Begins, and ends once it is let go.
pub const UNTIL_GO: &str = "import os, time\nopen('began', 'w').close()\n\
    while not os.path.exists('go'): time.sleep(0.01)\n";

/// How many points the plots of the host have.
fn count(plots: &Value) -> usize {
    let plots = plots[":monitor:machine"].as_object();
    let points = plots.into_iter().flatten().map(|(_, plot)| &plot["y"]);
    points.filter_map(Value::as_array).map(Vec::len).sum()
}

fn plots(server: &Server, task: &str) -> Value {
    server.call(
        "events.scalar_metrics_iter_histogram",
        &json!({"task": task, "key": "iter"}),
    )
}

#[test]
fn a_task_without_the_sdk_gets_plots_of_its_host() {
    let server = Server::start();
    let task = server.script("statistics", UNTIL_GO);
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_REPORT_SECONDS", "1");
    pod.set("TRAINYARD_GPU", "off");
    let (mut uplink, mut process) = pod.begun(&["began"]);
    let variants = [
        "cpu_usage",
        "memory_used_gb",
        "memory_free_gb",
        "disk_free_percent",
    ];
    wait("each plot has its points while the task runs", 60, || {
        let plots = plots(&server, &task);
        let points = |variant: &str| {
            let points = plots[":monitor:machine"][variant]["y"].as_array();
            points.map_or(0, Vec::len)
        };
        variants
            .into_iter()
            .all(|variant| points(variant) >= 3)
            .then_some(())
    });
    std::fs::write(pod.path("root/code/go"), "").unwrap();
    assert_eq!(process.end(60), 0);
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(30), 0);
}

#[test]
fn a_short_task_has_at_least_one_point() {
    let server = Server::start();
    let task = server.script("short", "import time; time.sleep(0.5)\n");
    let pod = Pod::parked(&server, &task);
    assert_eq!(pod.run(), 0);
    let plots = plots(&server, &task);
    assert!(
        plots[":monitor:machine"]["memory_used_gb"]["y"]
            .as_array()
            .is_some_and(|y| !y.is_empty()),
        "{plots}"
    );
}

#[test]
fn an_sdk_that_has_attached_is_not_doubled() {
    let server = Server::start();
    // What `Task.init` does under an agent, as far as it matters here.
    let source = "import base64, json, os, socket, time, urllib.request\n\
        keys = os.environ['CLEARML_API_ACCESS_KEY'] + ':' + os.environ['CLEARML_API_SECRET_KEY']\n\
        body = {'task': os.environ['CLEARML_TASK_ID'], 'add_or_update': {'hostname': socket.gethostname()}}\n\
        request = urllib.request.Request(os.environ['CLEARML_API_HOST'] + '/tasks.edit_runtime', json.dumps(body).encode(),\n\
            {'Content-Type': 'application/json', 'Authorization': 'Basic ' + base64.b64encode(keys.encode()).decode()})\n\
        urllib.request.urlopen(request).read()\n"
        .to_owned()
        + UNTIL_GO;
    let task = server.script("with sdk", &source);
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_REPORT_SECONDS", "1");
    let proxy = Proxy::start(&server.url, |_| Fate::Pass);
    pod.api.clone_from(&proxy.url);
    let (_uplink, mut process) = pod.begun(&["began"]);
    let until_reported = |times: usize| {
        let before = proxy.count("workers.status_report");
        wait("the worker reports", 60, || {
            (proxy.count("workers.status_report") >= before + times).then_some(())
        });
    };
    // What was read before it attached has come by the second report after that.
    until_reported(2);
    let before = count(&plots(&server, &task));
    until_reported(3);
    let plots = plots(&server, &task);
    assert_eq!(count(&plots), before, "{plots}");
    std::fs::write(pod.path("root/code/go"), "").unwrap();
    assert_eq!(process.end(60), 0, "{}", pod.stream("task.stdout"));
}
