//! S2 with the double of the driver's library: plots of all GPUs for task and worker, whatever `NVIDIA_VISIBLE_DEVICES`
//! says, and over failures of the driver. That 20 failures in a row do not end them is checked with a clock of its own
//! in `nvml`.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::pod::Pod;
use super::server::{Server, wait};
use super::statistics::UNTIL_GO;
use crate::nvml::double;

/// Python that goes on once its own log on the server tells of a fault of a GPU; then it is known to the executor too.
pub const UNTIL_FAULT: &str = "import base64, json, os, time, urllib.request\n\
    keys = os.environ['CLEARML_API_ACCESS_KEY'] + ':' + os.environ['CLEARML_API_SECRET_KEY']\n\
    body = json.dumps({'task': os.environ['CLEARML_TASK_ID'], 'batch_size': 100}).encode()\n\
    request = urllib.request.Request(os.environ['CLEARML_API_HOST'] + '/events.get_task_log', body,\n\
        {'Content-Type': 'application/json', 'Authorization': 'Basic ' + base64.b64encode(keys.encode()).decode()})\n\
    until = time.time() + 180\n\
    while b'reported XID' not in urllib.request.urlopen(request).read() and time.time() < until:\n    \
        time.sleep(0.2)\n";

/// The plots of a task, of which some have enough points, once they have them.
fn until_drawn(server: &Server, task: &str) -> Value {
    let enough = |plots: &Value| {
        let mut variants = [0, 2, 11].into_iter().flat_map(|gpu| {
            ["utilization", "mem_used_gb", "temperature"].map(|name| format!("gpu_{gpu}_{name}"))
        });
        variants.all(|variant| points(plots, &variant).len() >= 2)
    };
    wait(
        "the plots have their points while the task runs",
        60,
        || {
            let plots = server.call(
                "events.scalar_metrics_iter_histogram",
                &json!({"task": task, "key": "iter"}),
            );
            enough(&plots).then_some(plots)
        },
    )
}

/// Runs a task where the double has twelve GPUs until all is drawn; its plots, and the newest numbers of its worker.
fn run(library: &Path, settings: &[(&str, &str)]) -> (Value, Value) {
    let server = Server::start();
    let task = server.script("gpus", UNTIL_GO);
    let mut pod = Pod::parked(&server, &task);
    pod.set("LD_LIBRARY_PATH", &library.display().to_string());
    pod.set("NVML_DOUBLE_GPUS", "12");
    pod.set("TRAINYARD_REPORT_SECONDS", "1");
    for (name, value) in settings {
        pod.set(name, value);
    }
    let now = jiff::Timestamp::now().as_second();
    let (mut uplink, mut process) = pod.begun(&["began"]);
    let plots = until_drawn(&server, &task);
    std::fs::write(pod.path("root/code/go"), "").unwrap();
    assert_eq!(process.end(60), 0, "{}", pod.stream("task.stderr"));
    uplink.signal(Signal::SIGTERM);
    assert_eq!(uplink.end(30), 0);
    let then = jiff::Timestamp::now().as_second();
    let items = ["gpu_usage", "gpu_memory_used", "gpu_temperature"]
        .map(|key| json!({"key": key, "aggregation": "avg"}));
    let worker = server.call(
        "workers.get_stats",
        &json!({"worker_ids": [pod.worker()], "from_date": now - 5, "to_date": then + 60, "interval": 1, "items": items,
                "split_by_resource": true}),
    );
    (plots, worker)
}

fn points(plots: &Value, variant: &str) -> Vec<f64> {
    let y = plots[":monitor:gpu"][variant]["y"].as_array();
    y.into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn assert_graphs(case: &str, plots: &Value, worker: &Value) {
    for gpu in [0, 2, 11] {
        for (name, wanted) in [
            ("utilization", f64::from(gpu) * 10.0 + 7.0),
            ("mem_used_gb", f64::from(gpu) + 1.0),
            ("temperature", 40.0 + f64::from(gpu)),
        ] {
            let values = points(plots, &format!("gpu_{gpu}_{name}"));
            assert!(
                values.len() >= 2,
                "{case}: gpu_{gpu}_{name} has {values:?}: {plots}"
            );
            assert!(
                values.iter().all(|value| (value - wanted).abs() < 0.1),
                "{case}: gpu_{gpu}_{name}: {values:?}"
            );
        }
    }
    let metrics = worker["workers"][0]["metrics"].as_array();
    for key in ["gpu_usage", "gpu_memory_used", "gpu_temperature"] {
        let metric = metrics
            .into_iter()
            .flatten()
            .find(|metric| metric["metric"] == key);
        let stats = metric.unwrap_or_else(|| panic!("{case}: {key} of the worker: {worker}"));
        let values = stats["stats"][0]["values"].as_array();
        assert!(
            values.is_some_and(|values| !values.is_empty()),
            "{case}: {key}: {stats}"
        );
    }
}

#[test]
fn s2_gpu_graphs_do_not_depend_on_the_visible_devices() {
    let library = double();
    let uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6";
    let slice = format!("MIG-{uuid}/1/0");
    thread::scope(|scope| {
        for visible in [
            None,
            Some("all"),
            Some("void"),
            Some("0,2"),
            Some(uuid),
            Some(slice.as_str()),
        ] {
            let library = library.path();
            scope.spawn(move || {
                let settings: Vec<(&str, &str)> = visible
                    .map(|value| ("NVIDIA_VISIBLE_DEVICES", value))
                    .into_iter()
                    .collect();
                let (plots, worker) = run(library, &settings);
                assert_graphs(&format!("{visible:?}"), &plots, &worker);
            });
        }
    });
}

#[test]
fn s2_a_driver_that_fails_for_a_moment_does_not_end_the_graphs() {
    let library = double();
    // The second question fails; the next is asked some seconds later.
    let (plots, _) = run(
        library.path(),
        &[("NVML_DOUBLE_FAIL", "1"), ("NVML_DOUBLE_FAIL_FROM", "1")],
    );
    assert!(points(&plots, "gpu_0_utilization").len() >= 2, "{plots}");
}

#[test]
fn s2_memory_of_the_task_and_others_on_its_gpu_are_told() {
    let library = double();
    let server = Server::start();
    let source = "import os, time\n\
        open(os.environ['NVML_DOUBLE_PROCESSES'], 'a').write(f'0 {os.getpid()} 2048\\n')\n\
        time.sleep(22)\n";
    let task = server.script("users", source);
    let mut pod = Pod::parked(&server, &task);
    // No process of this machine has that number: it is one of another node, and a second one is not listed at all.
    let list = pod.path("processes");
    fs::write(&list, "1 5000000 30720\n2 0 4096\n").unwrap();
    pod.set("LD_LIBRARY_PATH", &library.path().display().to_string());
    pod.set("NVML_DOUBLE_GPUS", "3");
    pod.set("NVML_DOUBLE_PROCESSES", &list.display().to_string());
    pod.set("TRAINYARD_REPORT_SECONDS", "1");
    assert_eq!(pod.run(), 0, "{}", pod.stream("task.stderr"));
    let log = server.log(&task);
    for told in [
        "GPU 1 is not this task's alone: 30.0 GiB of its memory are in use, by no process of the task \
         (on the node: process 5000000 (30.0 GiB))",
        "GPU 2 is not this task's alone: 4.0 GiB of its memory are in use, by no process of the task",
    ] {
        let count = log.matches(&format!("trainyard: {told}\n")).count();
        assert_eq!(count, 1, "{told}: {log}");
    }
    assert!(!log.contains("GPU 0 is"), "{log}");
    let plots = server.call(
        "events.scalar_metrics_iter_histogram",
        &json!({"task": task, "key": "iter"}),
    );
    // The list is asked for at the start, when the script may not have begun, and each ten seconds.
    let own = points(&plots, "gpu_0_mem_used_by_task_gb");
    assert_eq!(own.last(), Some(&2.0), "{plots}");
    let unknown = points(&plots, "gpu_1_mem_used_by_task_gb");
    assert!(unknown.is_empty(), "{plots}");
}

/// Runs a script that fails once it was told where the double's GPU reports these faults; the task, and its log.
fn fails_with(faults: &str) -> (Value, String, Value) {
    let library = double();
    let server = Server::start();
    let task = server.script("fault", &format!("{UNTIL_FAULT}raise SystemExit(1)\n"));
    let mut pod = Pod::parked(&server, &task);
    pod.set("LD_LIBRARY_PATH", &library.path().display().to_string());
    pod.set("NVML_DOUBLE_XID", faults);
    assert_eq!(pod.run(), 1, "{}", pod.stream("task.stderr"));
    (server.get(&task), server.log(&task), pod.termination())
}

#[test]
fn s41_a_fault_of_the_gpu_is_named_in_log_and_end() {
    // Reported again and again, as faults are.
    let (task, log, termination) = fails_with("79,79,79");
    assert_eq!(task["status"], "failed");
    let called = task["status_reason"].as_str().unwrap();
    assert!(called.ends_with(", trainyard: gpu-fault"), "{called}");
    let sentence = "GPU 0 reported XID 79 (the GPU has fallen off the bus)";
    let noted = log.matches(&format!("trainyard: {sentence}\n")).count();
    assert_eq!(noted, 1, "{log}");
    let message = task["status_message"].as_str().unwrap();
    let whole =
        format!("the process ended with exit code 1; {sentence}: the GPU itself is at fault");
    assert!(message.starts_with(&whole), "{message}");
    assert_eq!(termination["xid"], 79);
    // A fault that a program brings about is told and blamed on nobody.
    let (task, _, termination) = fails_with("31");
    let message = task["status_message"].as_str().unwrap();
    assert!(
        message.contains("XID 31 (") && !message.contains("at fault"),
        "{message}"
    );
    assert!(termination["xid"].is_null());
}
