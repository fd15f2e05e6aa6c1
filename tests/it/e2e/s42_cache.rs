//! S42 in real pods: twenty tasks at once that want five environments, on one cache; each is made once. Then all are
//! found, and one that was damaged is made anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::locks;
use super::world::World;
use crate::git::fixture::Origin;
use crate::git::servers::Server;

/// Folders of the repository, and what each of them locks. The last package stands in one lock alone.
const LOCKS: [(&str, &[&str]); 5] = [
    ("a", &["six"]),
    ("b", &["joblib"]),
    ("c", &["joblib", "six"]),
    ("d", &["joblib", "packaging"]),
    ("e", &["threadpoolctl"]),
];
/// Tasks of each lock.
const TASKS: usize = 4;
/// Begins the line of a task's log that tells that its packages are being installed.
pub(super) const MAKING: &str = "trainyard: making an environment for Python";

/// What a task prints with these packages.
fn printed(packages: &[&str]) -> String {
    format!("ran with {}", packages.join(" "))
}

/// A folder with code and lock for each of them; the commit.
fn commit(world: &World, origin: &Origin) -> String {
    for (folder, packages) in LOCKS {
        let project = locks::project(packages);
        let place = world.dir.path().join("locks").join(folder);
        let lock = locks::uv_lock(&place, &project, &world.place.index_url);
        origin.write(&format!("{folder}/pyproject.toml"), &project);
        origin.write(&format!("{folder}/uv.lock"), lock);
        let imports = packages.join(", ");
        let code = format!("import {imports}\nprint({:?})\n", printed(packages));
        origin.write(&format!("{folder}/train.py"), code);
    }
    origin.commit("README", "five locks")
}

/// Enqueues so many tasks of each lock; each with its folder.
fn run(world: &World, script: &Value, count: usize) -> Vec<(String, &'static str)> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        for (folder, _) in LOCKS {
            let mut script = script.clone();
            script["working_dir"] = json!(folder);
            let name = format!("of lock {folder}");
            let task = world.create(&name, "", &json!({"script": script}));
            tasks.push((task, folder));
        }
    }
    for (task, _) in &tasks {
        world.enqueue(task, "gpu");
    }
    tasks
}

/// How often each lock's environment was made by these tasks, which have to end well.
fn made(world: &World, tasks: &[(String, &'static str)]) -> BTreeMap<&'static str, usize> {
    let mut made = BTreeMap::new();
    for (task, folder) in tasks {
        let ended = world.until_ended(task, 300);
        if ended["status"] != "completed" {
            world.tell(task);
        }
        assert_eq!(ended["status"], "completed", "a task of lock {folder}");
        let log = world.log(task);
        let packages = LOCKS.iter().find(|(name, _)| name == folder);
        let line = printed(packages.expect("a lock").1);
        world.has_written(task, &format!("{line}\n"));
        let times = log.iter().filter(|line| line.starts_with(MAKING)).count();
        *made.entry(*folder).or_default() += times;
    }
    made
}

/// Files of this name below a folder.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // A link may lead out of the cache.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&path, name));
        } else if entry.file_name() == name {
            found.push(path);
        }
    }
    found
}

/// Empties one file of an environment in the cache.
fn damage(cache: &TempDir, name: &str) {
    let all = files(&cache.path().join("environments"), name);
    let mut of_environments = all
        .iter()
        .filter(|path| path.components().any(|part| part.as_os_str() == "env"));
    let file = of_environments
        .next()
        .unwrap_or_else(|| panic!("{name} lies in an environment of the cache: {all:#?}"));
    fs::write(file, "").expect("the file is emptied");
}

#[test]
fn s42_twenty_tasks_with_five_locks_make_each_environment_once() {
    let mut world = World::new("s42");
    let origin = Origin::new();
    let commit = commit(&world, &origin);
    let served = world.dir.path().join("served");
    fs::create_dir_all(&served).expect("folder is made");
    let clone = ["clone", "--quiet", "--bare", "."];
    let bare = served.join("train.git").display().to_string();
    origin.git(&[&clone[..], &[bare.as_str()]].concat());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let http = runtime.block_on(Server::start_on(&world.place.gateway, &served, None));

    let cache = tempfile::tempdir().expect("temp folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(cache.path(), mode).expect("cache is open to all");
    world.start_controller();
    world.queue("gpu");
    let path = cache.path().display().to_string();
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"limits": {"maxConcurrent": 20}, "environment": {"cache": {"hostPath": path}}}),
    );
    world.until_ready("gpu");
    let script = json!({
        "repository": format!("{}/train.git", http.url), "version_num": commit, "branch": "main",
        "entry_point": "train.py", "diff": "",
    });
    let each = |times: usize| BTreeMap::from(LOCKS.map(|(folder, _)| (folder, times)));

    let tasks = run(&world, &script, TASKS);
    assert_eq!(made(&world, &tasks), each(1), "each of five, once");
    let tasks = run(&world, &script, 1);
    assert_eq!(made(&world, &tasks), each(0), "all are in the cache");

    damage(&cache, "threadpoolctl.py");
    let tasks = run(&world, &script, 1);
    let mut expected = each(0);
    expected.insert("e", 1);
    assert_eq!(made(&world, &tasks), expected, "the damaged one alone");
    let (task, _) = &tasks[4];
    let log = world.log(task);
    let told = "is damaged (threadpoolctl): it is made anew";
    assert!(log.iter().any(|line| line.contains(told)), "{log:#?}");
    drop(http);
    runtime.shutdown_background();
}
