//! A real experiment: enqueued by the unmodified SDK from a git clone with uncommitted changes, run as a Job, and all of
//! it readable back through the SDK.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::doors::Doors;
use super::world::{Proc, World, wait};
use crate::git::servers::free_port;
use crate::nvml;

/// A git repository that pods reach, and a clone of it on the host.
pub struct Repository {
    pub url: String,
    pub clone: PathBuf,
    pub commit: String,
    _daemon: Proc,
}

pub fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=Tester",
            "-c",
            "user.email=tester@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .current_dir(folder)
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with these files in the folder that is served, `served/train.git`; its commit.
pub fn commit(folder: &Path, files: &[(&str, impl AsRef<[u8]>)]) -> String {
    let clone = folder.join("clone");
    fs::create_dir_all(&clone).expect("folder is made");
    git(&clone, &["init", "--quiet"]);
    for (name, text) in files {
        let file = clone.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("folder is made");
        fs::write(file, text).expect("file is written");
    }
    git(&clone, &["add", "."]);
    git(&clone, &["commit", "--quiet", "-m", "Train"]);
    git(
        folder,
        &["clone", "--quiet", "--bare", "clone", "served/train.git"],
    );
    git(&clone, &["rev-parse", "HEAD"])
}

/// Serves a repository with these files by `git daemon` on an address that pods reach.
pub fn serve_repository(world: &World, files: &[(&str, &str)]) -> Repository {
    let base = world.dir.path().join("git");
    let bare = base.join("experiment.git");
    fs::create_dir_all(&bare).expect("folder is made");
    git(&bare, &["init", "--quiet", "--bare"]);
    git(
        &bare,
        &["config", "uploadpack.allowReachableSHA1InWant", "true"],
    );
    let clone = world.dir.path().join("experiment");
    git(
        world.dir.path(),
        &[
            "clone",
            "--quiet",
            &bare.display().to_string(),
            "experiment",
        ],
    );
    for (name, text) in files {
        fs::write(clone.join(name), text).expect("file is written");
    }
    git(&clone, &["add", "."]);
    git(&clone, &["commit", "--quiet", "-m", "Train"]);
    git(&clone, &["push", "--quiet", "origin", "HEAD:main"]);
    let commit = git(&clone, &["rev-parse", "HEAD"]);

    let host = &world.place.gateway;
    let port = free_port(host);
    // The daemon itself: `git daemon` is a parent that would be killed without its child.
    let program = Path::new(&git(&base, &["--exec-path"])).join("git-daemon");
    let mut command = Command::new(program);
    command
        .arg(format!("--base-path={}", base.display()))
        .args([
            "--export-all",
            "--reuseaddr",
            &format!("--listen={host}"),
            &format!("--port={port}"),
        ]);
    let daemon = Proc::start(&mut command, &world.dir.path().join("git-daemon.log"));
    wait("git daemon listens", 20, || {
        TcpStream::connect((host.as_str(), port)).ok()
    });
    let url = format!("git://{host}:{port}/experiment.git");
    git(&clone, &["remote", "set-url", "origin", &url]);
    Repository {
        url,
        clone,
        commit,
        _daemon: daemon,
    }
}

/// Two GPUs for the tasks of a binding, as the driver's double has them.
fn two_gpus(world: &World) -> Value {
    let library = world.dir.path().join("nvml");
    fs::create_dir_all(&library).expect("folder is made");
    fs::copy(
        nvml::double().path().join(nvml::LIBRARY),
        library.join(nvml::LIBRARY),
    )
    .expect("the NVML double is copied");
    let mut permissions = fs::metadata(world.dir.path())
        .expect("temp folder")
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(world.dir.path(), permissions).expect("temp folder is opened");
    json!({"spec": {
        "containers": [{
            "name": "task", "image": world.place.task_image,
            "env": [{"name": "LD_LIBRARY_PATH", "value": "/opt/nvml"}, {"name": "NVML_DOUBLE_GPUS", "value": "2"}],
            "volumeMounts": [{"name": "nvml", "mountPath": "/opt/nvml", "readOnly": true}],
        }],
        "volumes": [{"name": "nvml", "hostPath": {"path": library.display().to_string()}}],
    }})
}

/// Those of these plots of a task that have no points.
fn without_points(world: &World, task: &str, plots: &[(&str, &str)]) -> Vec<String> {
    let scalars = world.call(
        "events.scalar_metrics_iter_histogram",
        &json!({"task": task, "key": "iter"}),
    );
    let is_empty = |(metric, variant): &&(&str, &str)| {
        let points = scalars[metric][variant]["y"].as_array();
        points.is_none_or(Vec::is_empty)
    };
    let empty = plots.iter().filter(is_empty);
    empty
        .map(|(metric, variant)| format!("{metric} {variant}"))
        .collect()
}

fn has_points(world: &World, task: &str, plots: &[(&str, &str)]) {
    let empty = without_points(world, task, plots);
    assert!(empty.is_empty(), "no points: {empty:?}");
}

/// The largest value of a statistic that the task's worker has reported since this second.
fn most_of_worker(world: &World, task: &str, since: i64, key: &str) -> Option<f64> {
    let now = Timestamp::now().as_second();
    let asked = json!({
        "from_date": since - 60, "to_date": now + 120, "interval": 40,
        "items": [{"key": key, "aggregation": "max"}],
    });
    let stats = world.call("workers.get_stats", &asked);
    let worker = stats["workers"].as_array()?.iter().find(|worker| {
        let name = worker["worker"].as_str().unwrap_or_default();
        name.contains(task)
    })?;
    let values = worker["metrics"][0]["stats"][0]["values"].as_array()?;
    values.iter().filter_map(Value::as_f64).reduce(f64::max)
}

const READ_BACK: &str = r#"
import json, sys
from clearml import Task, Model
task = Task.get_task(task_id=sys.argv[1])
scalars = task.get_reported_scalars()
single = task.get_last_scalar_metrics()
plots = task.get_reported_plots()
artifact = task.artifacts["confusion"].get()
models = task.models["output"]
path = models[0].get_local_copy()
import os
copy = Task.clone(source_task=task, name="copy of it")
found = Task.get_tasks(project_name="demo", task_name="copy of it")
print("RESULT " + json.dumps({
    "status": task.get_status(),
    "epochs": len(scalars["accuracy"]["test"]["y"]),
    "accuracy": scalars["accuracy"]["test"]["y"][-1],
    "plots": [p.get("metric") for p in plots],
    "artifact": list(artifact.shape),
    "model": models[0].name,
    "model_bytes": os.path.getsize(path),
    "console": len(task.get_reported_console_output(number_of_reports=5)),
    "copies": [t.id for t in found] == [copy.id] and copy.get_status(),
    "epochs_parameter": task.get_parameters()["Args/epochs"],
}))
"#;

#[test]
fn an_experiment_of_the_sdk_runs_as_a_job_and_can_be_read_back() {
    let mut world = World::new("experiment");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"monitoring": {"reportPeriod": "1s", "gpu": "auto"}, "template": two_gpus(&world)}),
    );
    world.until_ready("gpu");
    let since = Timestamp::now().as_second();
    let train = include_str!("../../../examples/digits/train.py");
    let repository = serve_repository(&world, &[("train.py", train)]);
    // Uncommitted: one more line of output, and a new file that the SDK does not see (git diff does not show it).
    let changed = train.replace(
        "print(f\"done:",
        "print(\"uncommitted line\")\n    print(f\"done:",
    );
    assert_ne!(changed, train);
    fs::write(repository.clone.join("train.py"), changed).expect("file is changed");

    // The SDK forks while its threads run and can stand still for ever in the child: a setting of its own forbids the
    // fork on this side, and should it hang all the same it is asked again.
    let conf = world.dir.path().join("clearml.conf");
    let settings = fs::read_to_string(&conf).expect("clearml.conf is readable");
    fs::write(
        &conf,
        settings + "\nsdk.development.report_use_subprocess: false\n",
    )
    .expect("clearml.conf is written");
    let enqueue = || {
        Command::new("timeout")
            .arg("180")
            .arg(&world.place.sdk_python)
            .args([
                "train.py", "--epochs", "6", "--queue", "gpu", "--name", "digits",
            ])
            .current_dir(&repository.clone)
            .env("CLEARML_CONFIG_FILE", world.dir.path().join("clearml.conf"))
            .output()
            .expect("Python runs")
    };
    let mut output = enqueue();
    for _ in 0..2 {
        if output.status.code() == Some(124) {
            println!("the SDK stood still on the host; asking it again");
            output = enqueue();
        }
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let task = said
        .lines()
        .find_map(|line| line.strip_prefix("task "))
        .expect("the task's id is printed")
        .to_owned();

    let ended = world.until_ended(&task, 240);
    if ended["status"] != "completed" {
        world.tell(&task);
    }
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["script"]["version_num"], repository.commit.as_str());
    assert_eq!(ended["script"]["repository"], repository.url.as_str());

    let stored = world.has_sent_all(&task);
    // Of that, these are the script's own: each once, with the uncommitted change before the last one.
    let own: Vec<&str> = stored
        .lines()
        .filter(|line| {
            let begins = |word: &&str| line.starts_with(*word);
            ["epoch ", "uncommitted line", "done: "].iter().any(begins)
        })
        .collect();
    let wanted: Vec<String> = (1..=6)
        .map(|epoch| format!("epoch {epoch:2}: accuracy "))
        .chain(["uncommitted line", "done: accuracy "].map(str::to_owned))
        .collect();
    let fits = own
        .iter()
        .zip(&wanted)
        .all(|(line, begin)| line.starts_with(begin.as_str()));
    assert!(fits && own.len() == wanted.len(), "{own:#?}");

    // Everything else through the SDK.
    let said = world.sdk(READ_BACK, &[&task]);
    let result = said
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .expect("a result is printed");
    let result: Value = serde_json::from_str(result).expect("the result is JSON");
    assert_eq!(result["status"], "completed");
    assert_eq!(result["epochs"], 6);
    assert!(result["accuracy"].as_f64().unwrap() > 0.8);
    assert!(
        result["plots"]
            .as_array()
            .unwrap()
            .iter()
            .any(|plot| plot == "confusion"),
        "{result}"
    );
    assert_eq!(result["artifact"], json!([10, 10]));
    assert!(result["model_bytes"].as_u64().unwrap() > 100);
    assert_eq!(result["epochs_parameter"], "6");
    assert_eq!(result["copies"], "created", "cloned and found");

    // The same link serves a pod: another task fetches what this one has left.
    let source = format!(
        "from clearml import Task\n\
         confusion = Task.get_task(task_id='{task}').artifacts['confusion'].get()\n\
         print('fetched', confusion.shape)\n"
    );
    let reader = world.create(
        "reads an artifact",
        &source,
        &json!({"script": {"requirements": {"pip": "clearml == 2.1.12\nnumpy\n"}}}),
    );
    world.enqueue(&reader, "gpu");
    assert_eq!(world.until_ended(&reader, 120)["status"], "completed");
    let log = world.log(&reader);
    assert!(
        log.iter().any(|line| line == "fetched (10, 10)"),
        "{log:#?}"
    );

    // Installed packages are recorded, the user's list is kept.
    let requirements = &ended["script"]["requirements"];
    let frozen = requirements["pip"].to_string();
    for package in ["clearml==2.1.12", "scikit-learn==", "numpy==", "scipy=="] {
        assert!(frozen.contains(package), "{package} in {frozen}");
    }
    assert!(
        requirements["org_pip"].to_string().contains("clearml"),
        "{requirements}"
    );

    // Host and GPUs: of the worker always, of the task at least until the SDK attaches and draws them itself.
    for key in [
        "cpu_usage",
        "memory_used",
        "memory_free",
        "gpu_memory_used",
        "gpu_temperature",
    ] {
        let most = most_of_worker(&world, &task, since, key);
        assert!(most.is_some_and(|most| most > 0.0), "{key}: {most:?}");
    }
    let busiest = most_of_worker(&world, &task, since, "gpu_usage");
    assert_eq!(
        busiest,
        Some(17.0),
        "what the second GPU of the double says"
    );
    has_points(
        &world,
        &task,
        &[
            (":monitor:machine", "cpu_usage"),
            (":monitor:machine", "memory_used_gb"),
            (":monitor:gpu", "gpu_0_utilization"),
            (":monitor:gpu", "gpu_1_mem_used_gb"),
        ],
    );
}

#[test]
fn host_and_gpu_statistics_of_a_task_without_the_sdk_are_on_the_server() {
    let mut world = World::new("statistics");
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"monitoring": {"reportPeriod": "5s", "gpu": "auto"}, "template": two_gpus(&world)}),
    );
    world.until_ready("gpu");
    let doors = Doors::start(&world);
    let source = format!("x = [0] * 10_000_000\n{}", doors.python("reported"));
    let task = world.run("statistics", &source, "gpu");
    let mut busy = Value::Null;
    wait(
        "the worker's report arrives while the task runs",
        60,
        || {
            let workers = world.call("workers.get_all", &json!({}));
            busy = workers["workers"]
                .as_array()?
                .iter()
                .find(|worker| worker["task"]["id"] == task.as_str())?
                .clone();
            Some(())
        },
    );
    assert!(busy["id"].as_str().unwrap().contains(&task), "{busy}");
    let plots = [
        (":monitor:machine", "cpu_usage"),
        (":monitor:machine", "memory_used_gb"),
        (":monitor:gpu", "gpu_0_utilization"),
        (":monitor:gpu", "gpu_1_mem_used_gb"),
        (":monitor:gpu", "gpu_0_temperature"),
    ];
    wait("its plots arrive while it runs", 60, || {
        without_points(&world, &task, &plots)
            .is_empty()
            .then_some(())
    });
    doors.open("reported");
    assert_eq!(world.until_ended(&task, 60)["status"], "completed");
    has_points(&world, &task, &plots);
}

#[test]
fn the_users_configuration_arrives_without_the_passwords_of_repositories() {
    let mut world = World::new("conf");
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "conf"},
        "stringData": {"clearml.conf": "agent { git_user: me, git_pass: \"canary-pass\" }\nsdk.answer: 42\n"},
    }));
    world.start_controller();
    world.queue("gpu");
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"environment": {"clearmlConfRef": {"name": "conf"}}}),
    );
    let source = "import os, pathlib\n\
        text = pathlib.Path(os.environ['CLEARML_CONFIG_FILE']).read_text()\n\
        print('password', 'canary' in text, 'answer', 'sdk.answer: 42' in text)\n\
        print('mounted', pathlib.Path('/trainyard-conf').exists())\n";
    let task = world.run("reads its configuration", source, "gpu");
    assert_eq!(world.until_ended(&task, 90)["status"], "completed");
    let log = world.log(&task);
    for line in ["password False answer True", "mounted False"] {
        assert!(log.iter().any(|known| known == line), "{line}: {log:#?}");
    }
    assert!(!log.join("\n").contains("canary"), "{log:#?}");
}
