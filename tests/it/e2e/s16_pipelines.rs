//! S16: a pipeline whose controller sits in `services` with steps in `gpu`, an optimisation of many children, and the
//! SDK's own examples, unchanged. While they run, every task is watched: none may be seen stopped on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{PATIENCE, World, merge};

/// Scenarios that ask for more of the node's GPUs together than it has, so one comes after the other.
pub(super) static GPUS: Mutex<()> = Mutex::new(());

/// The SDK's reporter is a fork of a process with threads unless it is told otherwise, and may stand still. What a script
/// imports it looks for in a thread beside the script, which keeps its errors to itself: once it had found nothing.
const SETTINGS: &str = "sdk.development.report_use_subprocess: false\n\
    sdk.development.vcs_repo_detect_async: false\n";

/// A pod whose SDK has these settings, of a folder on the host.
fn template(world: &World, settings: &Path, resources: &Value) -> Value {
    json!({"spec": {
        "volumes": [{"name": "settings", "hostPath": {"path": settings}}],
        "containers": [{
            "name": "task", "image": world.place.task_image, "resources": resources,
            "env": [{"name": "CLEARML_CONFIG_FILE", "value": "/settings/clearml.conf"}],
            "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
        }],
    }})
}

/// Queues `services` (CPU) and `gpu`, the latter with so many slots.
fn world(name: &str, slots: u32) -> (World, tempfile::TempDir) {
    let cache = tempfile::tempdir().expect("temp folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(cache.path(), mode).expect("cache is open to all");
    let mut world = World::new(name);
    world.start_controller();
    // The server brings `default` along.
    for queue in ["services", "gpu"] {
        world.queue(queue);
    }
    let settings = cache.path().join("settings");
    fs::create_dir(&settings).expect("folder is made");
    fs::write(settings.join("clearml.conf"), SETTINGS).expect("settings are written");
    let common = json!({
        "environment": {"cache": {"hostPath": cache.path().join("cache")}},
        // Jobs are looked at when all have ended.
        "lifecycle": {"ttlAfterSuccess": "1h"},
        "template": template(&world, &settings, &json!({})),
    });
    world.bind("services", &["services"], &common);
    // One GPU of the four that the node says it has.
    let gpu = template(&world, &settings, &json!({"limits": {"nvidia.com/gpu": 1}}));
    let mut patch = common;
    merge(
        &mut patch,
        &json!({
            "limits": {"maxConcurrent": slots}, "template": gpu,
            "overrides": {"containerArguments": ["env"]},
        }),
    );
    world.bind("gpu", &["gpu", "default"], &patch);
    world.until_ready("services");
    world.until_ready("gpu");
    (world, cache)
}

/// Runs a script on the host with the SDK, in a folder of its own; the SDK can stand still there, so it is asked again.
fn on_host(world: &World, name: &str, source: &str) -> String {
    let folder = world.dir.path().join(name);
    fs::create_dir_all(&folder).expect("folder is made");
    fs::write(folder.join(format!("{name}.py")), source).expect("script is written");
    let settings = fs::read_to_string(world.dir.path().join("clearml.conf")).expect("settings");
    let conf = folder.join("clearml.conf");
    fs::write(&conf, format!("{settings}\n{SETTINGS}")).expect("settings are written");
    for _ in 0..3 {
        let output = Command::new("timeout")
            .args(["--kill-after=5", "240"])
            .arg(&world.place.sdk_python)
            .arg(format!("{name}.py"))
            .current_dir(&folder)
            .env("CLEARML_CONFIG_FILE", &conf)
            .env("CLEARML_SUPPRESS_UPDATE_MESSAGE", "1")
            .env("HOME", &folder)
            .output()
            .expect("Python runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return text;
        }
        let stood_still = matches!(output.status.code(), Some(124 | 137));
        assert!(
            stood_still,
            "{name}: {text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    panic!("the SDK stood still on the host three times");
}

/// What each task was seen to be, in order, while `work` ran.
fn watched<T>(world: &World, work: impl FnOnce() -> T) -> (T, BTreeMap<String, Vec<String>>) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
            while !done.load(Ordering::Relaxed) {
                let body = json!({"only_fields": ["id", "name", "status"], "search_hidden": true});
                for task in world.call("tasks.get_all", &body)["tasks"]
                    .as_array()
                    .expect("tasks")
                {
                    let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
                    let statuses = seen
                        .entry(format!("{} {}", text("name"), text("id")))
                        .or_default();
                    if statuses.last() != Some(&text("status")) {
                        statuses.push(text("status"));
                    }
                }
                thread::sleep(Duration::from_millis(100));
            }
            seen
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let seen = watch.join().expect("the watch ends");
        match result {
            Ok(result) => (result, seen),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn none_was_stopped(seen: &BTreeMap<String, Vec<String>>) {
    for (task, statuses) in seen {
        // The SDK itself stops the task that it sends away, before it enqueues it.
        let first = statuses.iter().position(|status| status == "queued");
        let sent = &statuses[first.unwrap_or(statuses.len())..];
        assert!(
            !sent.contains(&"stopped".to_owned()),
            "{task} was seen {statuses:?}"
        );
        let queued = statuses.iter().filter(|status| *status == "queued").count();
        assert!(
            queued <= 1,
            "{task} was queued more than once: {statuses:?}"
        );
    }
}

/// A task of the SDK to copy: two parameters, one scalar, container settings of its own.
fn base(world: &World, project: &str, name: &str, parameters: &[&str]) -> String {
    let connected: Vec<String> = parameters.iter().map(|key| format!("'{key}': 1")).collect();
    let source = format!(
        "from clearml import Task\n\
         task = Task.init(project_name='{project}', task_name='{name}', auto_resource_monitoring=False)\n\
         p = task.connect({{{}}})\n\
         total = sum(int(v) for v in p.values())\n\
         print('total', total)\n\
         task.get_logger().report_scalar('score', 'total', total, 0)\n",
        connected.join(", ")
    );
    let found = world.call("projects.get_all", &json!({"name": format!("^{project}$")}));
    let project = found["projects"][0]["id"].as_str().map_or_else(
        || {
            let made = world.call(
                "projects.create",
                &json!({"name": project, "description": ""}),
            );
            made["id"].as_str().expect("project id").to_owned()
        },
        str::to_owned,
    );
    let general: serde_json::Map<String, Value> = parameters
        .iter()
        .map(|key| {
            (
                (*key).to_owned(),
                json!({"section": "General", "name": key, "value": "1", "type": "int"}),
            )
        })
        .collect();
    world.create(
        name,
        &source,
        &json!({
            "project": project,
            "script": {"requirements": {"pip": "clearml == 2.1.12\n"}},
            "container": {"image": world.place.task_image, "arguments": "-e MARK=of-the-base"},
            "hyperparams": {"General": general},
        }),
    )
}

fn children(world: &World, parent: &str) -> Vec<Value> {
    let body = json!({"parent": parent, "search_hidden": true});
    let found = world.call("tasks.get_all", &body)["tasks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    found
        .into_iter()
        .filter(|task| task["id"] != parent)
        .collect()
}

/// A child runs on a GPU, with the container settings of its base and a label that names its parent.
fn is_child_on_a_gpu(world: &World, child: &Value, parent: &str) {
    let id = child["id"].as_str().expect("id");
    assert_eq!(child["status"], "completed", "{child:#}");
    assert_eq!(
        child["container"]["arguments"], "-e MARK=of-the-base",
        "{child:#}"
    );
    let job = world.job_of(id);
    assert_eq!(
        job["metadata"]["labels"]["trainyard.dev/parent"], parent,
        "{job:#}"
    );
    let task = job["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(
        task["resources"]["limits"]["nvidia.com/gpu"], "1",
        "{task:#}"
    );
    assert!(task["env"].to_string().contains("of-the-base"), "{task:#}");
}

fn holds_no_gpu(world: &World, task: &str) {
    let job = world.job_of(task).to_string();
    assert!(
        job.contains("\"containers\""),
        "the controller ran as a Job: {job}"
    );
    assert!(!job.contains("nvidia.com/gpu"), "{job}");
}

const PIPELINE: &str = r#"
from clearml import PipelineController
pipe = PipelineController(project="s16", name="pipeline", version="1.0", pool_frequency=0.02)
pipe.set_default_execution_queue("gpu")
for name, parents in (("first", []), ("second", ["first"]), ("third", ["first"])):
    pipe.add_step(name=name, parents=parents, base_task_project="s16", base_task_name="base",
                  parameter_override={"General/x": 5})
print("CONTROLLER", pipe.id, flush=True)
pipe.start(queue="services")
"#;

fn named<'t>(text: &'t str, word: &str) -> &'t str {
    text.lines()
        .find_map(|line| line.strip_prefix(word))
        .unwrap_or_else(|| panic!("{word} in {text}"))
        .trim()
}

#[test]
fn s16_a_pipeline_and_the_sdks_examples_run_with_one_free_slot() {
    let _one = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    let (world, _cache) = world("s16-pipeline", 1);
    base(&world, "s16", "base", &["x", "y"]);
    let ((controller, examples), seen) = watched(&world, || {
        let said = on_host(&world, "pipeline", PIPELINE);
        let controller = named(&said, "CONTROLLER").to_owned();
        let ended = world.until_ended(&controller, 480);
        assert_eq!(
            ended["status"],
            "completed",
            "{:#?}",
            world.log(&controller)
        );
        (controller, examples(&world))
    });
    none_was_stopped(&seen);
    holds_no_gpu(&world, &controller);
    let steps = children(&world, &controller);
    assert_eq!(steps.len(), 3, "{steps:#?}");
    for step in &steps {
        is_child_on_a_gpu(&world, step, &controller);
        assert_eq!(
            step["hyperparams"]["General"]["x"]["value"], "5",
            "{step:#}"
        );
    }
    let names: BTreeSet<&str> = examples.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 4, "{examples:?}");
    assert!(
        examples.iter().all(|(_, status)| status == "completed"),
        "{examples:?}"
    );
}

/// Random search and piping, as they are: they run on the host and send copies to `default`. Names and ends of the
/// copies; one that stood still and was asked again may have made some twice.
fn examples(world: &World) -> Vec<(String, String)> {
    base(
        world,
        "examples",
        "Keras HP optimization base",
        &["batch_size", "layer_1", "layer_2"],
    );
    base(world, "examples", "Toy Base Task", &["Example_Param"]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/sdk-examples");
    for name in [
        "manual_random_param_search_example",
        "programmatic_orchestration",
    ] {
        let source =
            fs::read_to_string(folder.join(format!("{name}.py"))).expect("the example is there");
        let said = on_host(world, name, &source);
        assert!(said.contains("Done"), "{said}");
    }
    let body = json!({"name": "^(Keras HP optimization base \\d|Auto generated cloned task)$"});
    let copies = world.call("tasks.get_all", &body)["tasks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    copies
        .iter()
        .map(|copy| {
            let ended = world.until_ended(copy["id"].as_str().expect("id"), 180);
            assert!(ended["hyperparams"]["General"].is_object(), "{ended:#}");
            let text = |key: &str| ended[key].as_str().unwrap_or_default().to_owned();
            (text("name"), text("status"))
        })
        .collect()
}

const OPTIMISATION: &str = r#"
from clearml import Task
from clearml.automation import HyperParameterOptimizer, RandomSearch, UniformIntegerParameterRange
task = Task.init(project_name="s16", task_name="optimisation", task_type=Task.TaskTypes.optimizer,
                 auto_resource_monitoring=False)
print("CONTROLLER", task.id, flush=True)
task.execute_remotely(queue_name="services", exit_process=True)
optimizer = HyperParameterOptimizer(
    base_task_id=Task.get_task(project_name="s16", task_name="base").id,
    hyper_parameters=[UniformIntegerParameterRange("General/x", 1, 30), UniformIntegerParameterRange("General/y", 1, 30)],
    objective_metric_title="score", objective_metric_series="total", objective_metric_sign="max",
    max_number_of_concurrent_tasks=4, optimizer_class=RandomSearch, execution_queue="gpu",
    total_max_jobs=20, pool_period_min=0.02, save_top_k_tasks_only=-1)
optimizer.set_report_period(0.1)
optimizer.start()
optimizer.wait()
print("BEST", optimizer.get_top_experiments(top_k=1)[0].id, flush=True)
optimizer.stop()
"#;

#[test]
fn s16_an_optimisation_runs_twenty_children_four_at_once() {
    let _one = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
    let (world, _cache) = world("s16-optimise", 4);
    base(&world, "s16", "base", &["x", "y"]);
    let ((controller, most), seen) = watched(&world, || {
        let said = on_host(&world, "optimise", OPTIMISATION);
        let controller = named(&said, "CONTROLLER").to_owned();
        let mut most = 0;
        let deadline = std::time::Instant::now() + Duration::from_secs(900) * PATIENCE;
        while !["completed", "failed", "stopped"].contains(&world.status(&controller).as_str()) {
            let running = children(&world, &controller)
                .iter()
                .filter(|child| child["status"] == "in_progress")
                .count();
            most = most.max(running);
            assert!(
                std::time::Instant::now() < deadline,
                "{:#?}",
                world.log(&controller)
            );
            thread::sleep(Duration::from_millis(500));
        }
        (controller, most)
    });
    let log = world.log(&controller);
    assert_eq!(world.status(&controller), "completed", "{log:#?}");
    none_was_stopped(&seen);
    holds_no_gpu(&world, &controller);
    let all = children(&world, &controller);
    // The SDK looks at its limit before it fills the free places: it may make up to three more.
    assert!((20..=23).contains(&all.len()), "{} children", all.len());
    assert!((2..=4).contains(&most), "{most} children ran at once");
    for child in &all {
        is_child_on_a_gpu(&world, child, &controller);
    }
    let total = |child: &Value| -> f64 {
        ["x", "y"]
            .iter()
            .filter_map(|key| {
                child["hyperparams"]["General"][key]["value"]
                    .as_str()?
                    .parse::<f64>()
                    .ok()
            })
            .sum()
    };
    let best = named(&log.join("\n"), "BEST ").to_owned();
    let highest = all.iter().map(total).fold(0.0, f64::max);
    let chosen = all
        .iter()
        .find(|child| child["id"] == best.as_str())
        .expect("the best is a child");
    assert!(
        (total(chosen) - highest).abs() < 1e-9,
        "{best} has {}, the highest is {highest}",
        total(chosen)
    );
}
