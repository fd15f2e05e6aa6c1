//! The incumbent's Kubernetes glue beside the controller: `clearml-agent` 3.0.3 with the real kubectl, on the same
//! cluster, the same server, the same image.
//!
//! Its pods would install git, pip and the agent at each start. Here they find all of it on a volume and are told to
//! install nothing, so that no figure counts a download of the incumbent's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use super::world::{Proc, World, merge, wait};

/// What a glue's pods are set to do about packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packages {
    /// Neither environment nor packages.
    Skip,
    /// A virtual environment, filled by pip.
    Pip,
    /// The same by uv.
    Uv,
}

/// A glue that runs until the value goes.
pub struct Glue {
    proc: Proc,
    pub queue: String,
    /// What its pods keep from one to the next, as the host sees it.
    pub caches: PathBuf,
}

impl Glue {
    pub fn start(world: &World, queue: &str, packages: Packages) -> Self {
        Self::start_with(world, queue, packages, &world.url, &json!({}))
    }

    /// `url` is the server's address for glue and pods; `patch` is merged into the pod's template.
    pub fn start_with(
        world: &World,
        queue: &str,
        packages: Packages,
        url: &str,
        patch: &Value,
    ) -> Self {
        let python = PathBuf::from(
            std::env::var("TRAINYARD_E2E_AGENT_PYTHON").expect("TRAINYARD_E2E_AGENT_PYTHON is set"),
        );
        let folder = world.dir.path().join(format!("glue-{queue}"));
        fs::create_dir_all(&folder).expect("folder is made");
        // Pods run as root and write their caches here.
        let caches = folder.join("caches");
        fs::create_dir_all(&caches).expect("folder is made");
        let conf = settings_of(world, url, packages, ("/caches", "/root/venvs"));
        let settings = folder.join("clearml.conf");
        fs::write(&settings, conf).expect("settings are written");
        let template = folder.join("template.yaml");
        let mut pod = Self::template(world, &python, &caches, packages);
        merge(&mut pod, patch);
        // JSON is YAML.
        fs::write(&template, pod.to_string()).expect("template is written");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/glue.py");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&python);
        command
            .arg(script)
            .args([&world.named(queue), &world.namespace])
            .args([&template, &settings])
            .current_dir(&folder)
            .env("HOME", &folder)
            .env("TMPDIR", &folder)
            .env("KUBECONFIG", &world.place.kubeconfig)
            .env("PATH", format!("{}:{path}", world.place.bin.display()))
            .env("CLEARML_CONFIG_FILE", &settings)
            .env("CLEARML_WORKER_NAME", format!("glue-{queue}"))
            .env("PYTHONUNBUFFERED", "1");
        let proc = Proc::start(&mut command, &folder.join("glue.log"));
        let glue = Self {
            proc,
            queue: queue.to_owned(),
            caches,
        };
        wait("the glue looks at its queue", 60, || {
            glue.log().contains("No tasks in Queues").then_some(())
        });
        glue
    }

    fn template(world: &World, python: &Path, caches: &Path, packages: Packages) -> Value {
        let agent = packages_of(python);
        let mut env = vec![
            json!({"name": "PYTHONPATH", "value": "/opt/agent"}),
            json!({"name": "CLEARML_AGENT_SKIP_CONTAINER_APT", "value": "1"}),
            json!({"name": "CLEARML_AGENT_NO_UPDATE", "value": "1"}),
            json!({"name": "PIP_CACHE_DIR", "value": "/caches/pip"}),
            json!({"name": "UV_CACHE_DIR", "value": "/caches/uv"}),
        ];
        for (name, value) in index_of(world) {
            env.push(json!({"name": name, "value": value}));
        }
        if packages == Packages::Skip {
            env.push(json!({"name": "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "value": "1"}));
        }
        let mut mounts = vec![
            json!({"name": "agent", "mountPath": "/opt/agent", "readOnly": true}),
            json!({"name": "caches", "mountPath": "/caches"}),
        ];
        if packages == Packages::Uv {
            // With uv it asks the image's own Python for pip all the same, and fails where there is none.
            let python = agent.parent().and_then(Path::file_name);
            let python = python.expect("the folder of a Python").to_string_lossy();
            let pip = format!("/usr/local/lib/{python}/dist-packages/pip");
            mounts.push(
                json!({"name": "agent", "mountPath": pip, "subPath": "pip", "readOnly": true}),
            );
        }
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "task", "image": world.place.task_image, "env": env, "volumeMounts": mounts,
            }],
            "volumes": [
                {"name": "agent", "hostPath": {"path": agent.display().to_string()}},
                {"name": "caches", "hostPath": {"path": caches.display().to_string()}},
            ],
        }})
    }

    pub fn log(&self) -> String {
        self.proc.log()
    }

    pub fn pid(&self) -> u32 {
        self.proc.id()
    }

    /// It stands still, whatever it is at, until it is let go on.
    pub fn pause(&self) {
        self.proc.signal("STOP");
    }

    pub fn go_on(&self) {
        self.proc.signal("CONT");
    }
}

impl Drop for Glue {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!(
                "glue:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// A `clearml.conf` of the incumbent's, with the folders of its caches and of its environments.
pub fn settings_of(
    world: &World,
    url: &str,
    packages: Packages,
    (caches, venvs): (&str, &str),
) -> String {
    // With uv its agent installs by the image's pip all the same, unless it is told not to.
    let kind = if packages == Packages::Uv {
        "\"uv\", uv_replace_pip: true"
    } else {
        "\"pip\""
    };
    let (web, files) = world.web_and_files(url);
    format!(
        "api {{\n  api_server: \"{url}\"\n  web_server: \"{web}\"\n  files_server: \"{files}\"\n  \
         credentials {{ access_key: \"{}\", secret_key: \"{}\" }}\n}}\n\
         agent {{\n  default_docker.image: \"{}\"\n  package_manager {{ type: {kind}, pip_version: \"\", \
         extra_index_url: [\"{}\"] }}\n  venvs_cache.path: \"{caches}/venvs\"\n  \
         pip_download_cache.path: \"{caches}/pip-download\"\n  vcs_cache.path: \"{caches}/vcs\"\n  \
         venvs_dir: \"{venvs}\"\n}}\n",
        world.key, world.secret, world.place.task_image, world.place.index_url,
    )
}

/// Variables by which the incumbent's pip and uv find the index of the cluster.
pub fn index_of(world: &World) -> [(&'static str, String); 4] {
    let index = &world.place.index_url;
    let host = index.trim_start_matches("http://");
    let host = host.split([':', '/']).next().unwrap_or_default();
    [
        ("PIP_INDEX_URL", index.clone()),
        ("PIP_TRUSTED_HOST", host.to_owned()),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()),
        ("UV_DEFAULT_INDEX", index.clone()),
    ]
}

/// `site-packages` beside a virtual environment's interpreter.
fn packages_of(python: &Path) -> PathBuf {
    let lib = python
        .parent()
        .and_then(Path::parent)
        .expect("a virtual environment")
        .join("lib");
    fs::read_dir(&lib)
        .expect("lib of the environment")
        .flatten()
        .map(|entry| entry.path().join("site-packages"))
        .find(|path| path.is_dir())
        .expect("site-packages of the environment")
}

/// What became of three tasks, as the SDK tells it.
const READ_BACK: &str = r#"
import json
import sys

from clearml import Task

tasks = [Task.get_task(task_id=task) for task in sys.argv[1:]]
good, _, slow = tasks
said = lambda task: "\n".join(task.get_reported_console_output(number_of_reports=100)).splitlines()
print("READ", json.dumps({
    "statuses": [task.get_status() for task in tasks],
    "queue": good.get_user_properties(value_only=True).get("k8s-queue"),
    "good": said(good), "slow": said(slow),
}))
"#;

#[test]
fn the_incumbents_glue_runs_tasks_of_this_server_with_the_real_kubectl() {
    let world = World::new("glue");
    let glue = Glue::start(&world, "glue", Packages::Skip);
    let good = world.run("good", "print('glue ran this')\n", &glue.queue);
    let bad = world.run("bad", "raise SystemExit(4)\n", &glue.queue);
    // On its way through the glue a task is stopped for a moment, so the end is waited for by name.
    let ends = |task: &str, status: &str| {
        wait(&format!("{task} is {status}"), 120, || {
            (world.status(task) == status).then_some(())
        });
    };
    ends(&good, "completed");
    ends(&bad, "failed");
    assert!(world.entries("glue-pending").is_empty());

    // Aborted by a user while it runs.
    let slow = world.run(
        "slow",
        "import time\nprint('begins', flush=True)\ntime.sleep(600)\n",
        &glue.queue,
    );
    wait("it runs", 120, || {
        world
            .log(&slow)
            .iter()
            .any(|line| line == "begins")
            .then_some(())
    });
    let pod = format!("clearml-id-{slow}");
    assert!(!world.get(&["pod", &pod]).is_null(), "no pod {pod}");
    world.call("tasks.stop", &json!({"task": slow}));
    ends(&slow, "stopped");
    wait("its pod is cleaned up", 120, || {
        world.get(&["pod", &pod]).is_null().then_some(())
    });

    let said = world.sdk(READ_BACK, &[&good, &bad, &slow]);
    let read = said.lines().find_map(|line| line.strip_prefix("READ "));
    let read: Value = read
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| panic!("the SDK read nothing: {said}"));
    let told = |of: &str, wanted: &str| {
        let mut lines = read[of].as_array().into_iter().flatten();
        lines.any(|line| line == wanted)
    };
    assert_eq!(
        read["statuses"],
        json!(["completed", "failed", "stopped"]),
        "{read:#}"
    );
    assert!(told("good", "glue ran this"), "{read:#}");
    assert!(told("slow", "begins"), "{read:#}");
    assert_eq!(read["queue"], "glue", "{read:#}");
}
