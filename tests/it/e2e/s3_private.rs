//! S3 in real pods: a private repository with a submodule and a private requirement, opened by the Secret that the
//! binding names, a token or an ssh key; and the ways in which they stay shut.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::{PATIENCE, World};
use crate::git::fixture::{Origin, git};
use crate::git::servers::Server;
use crate::git::sshd::{Keys, Sshd, USUAL};
use crate::times;

/// The stated figure: a task whose repository stays shut is failed within so many seconds; five times of it are allowed.
const FAILED: u32 = 30;

const TOKEN: &str = "canary-of-a-pod-7d21";
const WRONG: &str = "canary-that-opens-nothing";
const MISSING: &str = "0123456789abcdef0123456789abcdef01234567";

const TRAIN: &str = "import sys\nsys.path.insert(0, 'lib')\nimport alpha, lib\n\
    print('trained with', alpha.V, 'and', lib.A)\n";

/// What a package builds itself by: no index has to bring a backend.
const MAKER: &str = r"
import os, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    info, file = 'alpha-1.0.dist-info', 'alpha-1.0-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(folder, file), 'w') as wheel:
        wheel.write('alpha.py')
        wheel.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n')
        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        wheel.writestr(f'{info}/RECORD', '')
    return file
";
const PROJECT: &str = "[build-system]\nrequires = []\nbuild-backend = \"maker\"\nbackend-path = [\".\"]\n\
    [project]\nname = \"alpha\"\nversion = \"1.0\"\n";

/// `train.git` with the submodule `lib.git`, and the package `alpha.git`; all bare, below one folder.
struct Repositories {
    folder: TempDir,
    commit: String,
}

impl Repositories {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        let library = Origin::new();
        library.commit("lib.py", "A = 'a submodule'\n");
        let package = Origin::new();
        package.write("pyproject.toml", PROJECT);
        package.write("maker.py", MAKER);
        package.commit("alpha.py", "V = '1.0'\n");
        let origin = Origin::new();
        origin.commit("train.py", TRAIN);
        origin.add_submodule(&library, "lib");
        let file = ["config", "--file", ".gitmodules"];
        origin.git(&[&file[..], &["submodule.lib.url", "../lib.git"]].concat());
        let commit = origin.commit("x", "");
        for (from, name) in [
            (&library, "lib.git"),
            (&package, "alpha.git"),
            (&origin, "train.git"),
        ] {
            let url = from.url();
            git(folder.path(), &["clone", "--quiet", "--bare", &url, name]);
        }
        Self { folder, commit }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A Secret, and the binding of a queue of its name that gives it to git; with these known hosts, if any.
fn bind(world: &World, name: &str, secret: &Value, known_hosts: Option<&str>) {
    world.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": secret,
    }));
    let mut of_git = json!({"credentialsSecretRef": {"name": name}});
    if let Some(known_hosts) = known_hosts {
        world.apply(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"known_hosts": known_hosts},
        }));
        of_git["knownHostsRef"] = json!({"kind": "ConfigMap", "name": name, "key": "known_hosts"});
    }
    world.queue(name);
    world.bind(name, &[name], &json!({"environment": {"git": of_git}}));
    world.until_ready(name);
}

/// Enqueues a task of a repository with its requirement.
fn run(world: &World, queue: &str, repository: &str, commit: &str, requirement: &str) -> String {
    let script = json!({
        "repository": repository, "version_num": commit, "branch": "main", "entry_point": "train.py", "diff": "",
        "requirements": {"pip": format!("alpha @ git+{requirement}@main\n")},
    });
    let task = world.create(queue, "", &json!({"script": script}));
    world.enqueue(&task, queue);
    task
}

/// None of these is in the task, its log or its pod.
fn tells_none(world: &World, task: &str, secrets: &[&str]) {
    let log = world.log(task).join("\n");
    for (place, text) in [
        ("log", log),
        ("task", world.task(task).to_string()),
        ("pod", world.pod_of(task).to_string()),
    ] {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret:?} is in the {place}");
        }
    }
}

#[test]
fn s3_secrets_of_the_binding_open_private_repositories_in_pods_or_say_why_not() {
    let mut world = World::new("s3");
    let repositories = Repositories::new();
    let host = world.place.gateway.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let http = runtime.block_on(Server::start_on(&host, repositories.path(), Some(TOKEN)));
    let (sshd, keys) = (
        Sshd::start_on(&host, "AcceptEnv GIT_PROTOCOL"),
        Keys::new(&USUAL),
    );
    sshd.let_in(&keys);
    let of_http = |name: &str| format!("{}/{name}", http.url);
    let of_ssh = |name: &str| sshd.url(&repositories.path().join(name));
    world.start_controller();
    let key = json!({"ssh-privatekey": keys.private});
    let other = Keys::new(&USUAL);
    bind(&world, "token", &json!({"token": TOKEN}), None);
    bind(&world, "wrong", &json!({"token": WRONG}), None);
    bind(&world, "ssh", &key, Some(&sshd.known_as_it_is()));
    bind(&world, "unknown", &key, Some(&sshd.known_as(&other)));

    let begun = Instant::now();
    let (train, alpha) = (of_http("train.git"), of_http("alpha.git"));
    let (train_by_ssh, alpha_by_ssh) = (of_ssh("train.git"), of_ssh("alpha.git"));
    let commit = repositories.commit.as_str();
    let opened = [
        run(&world, "token", &train, commit, &alpha),
        run(&world, "ssh", &train_by_ssh, commit, &alpha_by_ssh),
    ];
    let shut = [
        (
            run(&world, "wrong", &train, commit, &alpha),
            format!("the server of {train} refused the credentials"),
        ),
        (
            run(&world, "token", &train, MISSING, &alpha),
            format!("commit {MISSING} is not in {train}"),
        ),
        (
            run(&world, "unknown", &train_by_ssh, commit, &alpha_by_ssh),
            "is not known or has changed".to_owned(),
        ),
    ];
    // The lines between the first and the last are the key itself.
    let secret = keys.private.lines().nth(1).expect("a key has lines");
    let secrets = [TOKEN, WRONG, secret];
    for (task, sentence) in &shut {
        let ended = world.until_ended(task, (FAILED * 5 / PATIENCE).into());
        let after = begun.elapsed().as_secs_f64();
        times::told(
            "S3",
            "a task whose repository stays shut is failed",
            after,
            FAILED.into(),
        );
        let message = ended["status_message"].as_str().unwrap_or_default();
        assert_eq!(ended["status"], "failed", "{message}");
        assert!(message.contains(sentence), "{sentence:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        world.has_written(task, "");
        tells_none(&world, task, &secrets);
    }
    for task in &opened {
        let ended = world.until_ended(task, 120);
        if ended["status"] != "completed" {
            world.tell(task);
        }
        assert_eq!(ended["status"], "completed");
        assert_eq!(ended["script"]["version_num"], commit);
        world.has_written(task, "trained with 1.0 and a submodule\n");
        tells_none(&world, task, &secrets);
    }
    drop(http);
    runtime.shutdown_background();
}
