//! Host statistics: for the worker always, for the task unless the SDK reports them itself.

use serde_json::{Value, json};

use super::pod::Pod;
use super::server::Server;

fn plots(server: &Server, task: &str) -> Value {
    server.call(
        "events.scalar_metrics_iter_histogram",
        &json!({"task": task, "key": "iter"}),
    )
}

#[test]
fn a_task_without_the_sdk_gets_plots_of_its_host() {
    let server = Server::start();
    let task = server.script("statistics", "import time; time.sleep(4)\n");
    let mut pod = Pod::parked(&server, &task);
    pod.set("TRAINYARD_REPORT_SECONDS", "1");
    pod.set("TRAINYARD_GPU", "off");
    assert_eq!(pod.run(), 0);
    let plots = plots(&server, &task);
    for variant in [
        "cpu_usage",
        "memory_used_gb",
        "memory_free_gb",
        "disk_free_percent",
    ] {
        let points = plots[":monitor:machine"][variant]["y"]
            .as_array()
            .map_or(0, Vec::len);
        assert!(points >= 3, "{variant}: {plots}");
    }
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
        urllib.request.urlopen(request).read()\n\
        time.sleep(8)\n";
    let task = server.script("with sdk", source);
    let mut pod = Pod::parked(&server, &task);
    // The first report comes after three seconds: by then the script has attached.
    pod.set("TRAINYARD_REPORT_SECONDS", "4");
    assert_eq!(pod.run(), 0, "{}", pod.stream("task.stdout"));
    let plots = plots(&server, &task);
    assert!(plots[":monitor:machine"].is_null(), "{plots}");
}
