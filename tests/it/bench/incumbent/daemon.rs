//! The incumbent's daemon beside our controller: same server, same tasks. In its favour its tasks are processes of this
//! machine and need no pod, and it finds pip and uv ready.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{Counting, FIRST_LINE, bound, compare, printed, requests, until_completed};
use crate::clock::now;
use crate::e2e::glue::{Packages, index_of, settings_of};
use crate::e2e::world::{Proc, World, wait};
use crate::process::resident;

/// A daemon of one queue, with its own pace, until the value goes.
struct Daemon {
    proc: Proc,
    queue: String,
    packages: Packages,
    venvs: PathBuf,
}

impl Daemon {
    fn start(world: &World, packages: Packages, url: &str) -> Self {
        let python =
            std::env::var("TRAINYARD_E2E_AGENT_PYTHON").expect("TRAINYARD_E2E_AGENT_PYTHON is set");
        // uv lies beside the programs of the image.
        let program = PathBuf::from(
            std::env::var("TRAINYARD_E2E_PROGRAM").expect("TRAINYARD_E2E_PROGRAM is set"),
        );
        let beside = program.parent().expect("a folder of programs").display();
        let queue = format!("daemon-{packages:?}").to_lowercase();
        world.queue(&queue);
        let folder = world.dir.path().join(&queue);
        fs::create_dir_all(&folder).expect("folder is made");
        let at = |name: &str| folder.join(name).display().to_string();
        let conf = settings_of(world, url, packages, (&at("caches"), &at("venvs")));
        fs::write(at("clearml.conf"), conf).expect("settings are written");
        let worker = format!("{queue}-{}", std::process::id());
        let mut command = Command::new(&python);
        command
            .args(["-m", "clearml_agent", "daemon", "--foreground"])
            .args(["--cpu-only", "--queue", &world.named(&queue)])
            .current_dir(&folder)
            .env_clear()
            .env("HOME", &folder)
            .env("TMPDIR", &folder)
            .env("PATH", format!("{beside}:/usr/local/bin:/usr/bin:/bin"))
            .env("CLEARML_CONFIG_FILE", at("clearml.conf"))
            .env("CLEARML_WORKER_NAME", &worker)
            .env("CLEARML_AGENT_NO_UPDATE", "1")
            .env("CLEARML_AGENT_DISABLE_BOOTSTRAP", "1")
            .envs(index_of(world))
            .env("PIP_CACHE_DIR", at("pip"))
            .env("UV_CACHE_DIR", at("uv"))
            .env("PYTHONUNBUFFERED", "1");
        if packages == Packages::Skip {
            command
                .env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1")
                .env("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL", &python);
        }
        let daemon = Self {
            proc: Proc::start(&mut command, &folder.join("daemon.log")),
            queue,
            packages,
            venvs: folder.join("venvs"),
        };
        wait("the daemon is registered", 60, || {
            let found = world.call("workers.get_all", &json!({}));
            let mut workers = found["workers"].as_array().into_iter().flatten();
            workers
                .any(|one| one["id"].as_str().is_some_and(|id| id.starts_with(&worker)))
                .then_some(())
        });
        daemon
    }

    /// Removes the virtual environment that its last task has left. With uv in place of pip it makes none where a folder
    /// is, and then fails its task for want of a Python: in its favour it finds none.
    fn forget_environment(&self) {
        if self.packages == Packages::Uv {
            let _ = fs::remove_dir_all(&self.venvs);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("daemon:\n{}", self.proc.log());
        }
    }
}

/// Seconds from a task's enqueuing to its first line, which is its last, and from there to `completed`.
fn run(world: &World, queue: &str) -> (f64, f64) {
    let task = world.create("first line", FIRST_LINE, &json!({}));
    let id = world.queue_id(queue);
    let begun = now();
    world.call("tasks.enqueue", &json!({"task": task, "queue": id}));
    let ended = until_completed(world, &task, 180);
    let at = printed(world, &task, "AT ");
    let completed: jiff::Timestamp = ended["completed"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("the moment of its end");
    (at - begun, completed.as_millisecond() as f64 / 1000.0 - at)
}

#[test]
fn daemon_enqueue_to_completed() {
    let mut world = bound(World::compared("bench-daemon"), &json!({}));
    let url = world.url.clone();
    let controller = world.controller().id();
    run(&world, "gpu");
    for (packages, rounds, how) in [
        (Packages::Skip, 5, "its environment step switched off"),
        (Packages::Pip, 5, "its usual virtual environment (pip)"),
        (Packages::Uv, 5, "with uv"),
    ] {
        let daemon = Daemon::start(&world, packages, &url);
        // The first fills its caches.
        run(&world, &daemon.queue);
        daemon.forget_environment();
        let (mut ours, mut incumbent) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Random moments of either's poll: the waits differ by a fraction of it.
            thread::sleep(Duration::from_millis(1500 + round * 737));
            ours.push(run(&world, "gpu"));
            thread::sleep(Duration::from_millis(1500 + round * 1137));
            incumbent.push(run(&world, &daemon.queue));
            daemon.forget_environment();
        }
        let (lines, ends): (Vec<f64>, Vec<f64>) = ours.into_iter().unzip();
        let (their_lines, their_ends): (Vec<f64>, Vec<f64>) = incumbent.into_iter().unzip();
        compare(
            &format!(
                "enqueue to first line, nothing to install; incumbent: daemon, without a pod, {how}"
            ),
            "s",
            &lines,
            &their_lines,
        );
        if packages != Packages::Skip {
            continue;
        }
        compare(
            "last line to completed; incumbent: daemon",
            "s",
            &ends,
            &their_ends,
        );
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            mine.push(resident(controller));
            theirs.push(resident(daemon.proc.id()));
            thread::sleep(Duration::from_secs(1));
        }
        compare(
            "resident memory, idle; incumbent: daemon",
            "MiB",
            &mine,
            &theirs,
        );
    }
}

#[test]
fn daemon_requests() {
    let world = World::compared("bench-daemon-ask");
    let (mine, theirs) = (Counting::start(&world), Counting::start(&world));
    let world = bound(world, &json!({"server": {"apiUrl": mine.url}}));
    let daemon = Daemon::start(&world, Packages::Skip, &theirs.url);
    let (each, idle) = requests(&world, &mine, "gpu", 3);
    let (their_each, their_idle) = requests(&world, &theirs, &daemon.queue, 3);
    compare(
        "requests to the server for one task, those of the idle poll left out; incumbent: daemon",
        "",
        &each,
        &their_each,
    );
    compare(
        "requests to the server in an idle minute; incumbent: daemon",
        "",
        &[idle],
        &[their_idle],
    );
}
