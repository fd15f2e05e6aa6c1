//! Requirements that come from git: brought by the init container, installed from disk where neither git nor a
//! credential is.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::pod::Pod;
use super::server::Server;
use crate::git::fixture::{Origin, git};
use crate::git::served::{ProcessList, contents};
use crate::git::servers;
use crate::python::fixture::{Image, uv};

const PASSWORD: &str = "canary-of-a-requirement";

/// Bare repositories behind HTTP, and an index with the build backend that they use.
struct World {
    image: Image,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let image = Image::new();
        image.bring_build_backend();
        Self {
            image,
            folder: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn serve(&self, password: Option<&'static str>) -> servers::Server {
        let folder = self.folder.path();
        self.runtime
            .block_on(servers::Server::start(folder, password))
    }

    /// Publishes a package with one module, `V` in it; the commit.
    fn package(&self, name: &str, version: &str, dependencies: &str) -> String {
        let origin = Origin::new();
        origin.write(
            "pyproject.toml",
            format!(
                "[build-system]\nrequires = [\"backend\"]\nbuild-backend = \"backend\"\n\
                 [project]\nname = \"{name}\"\nversion = \"{version}\"\ndependencies = [{dependencies}]\n"
            ),
        );
        let commit = origin.commit(&format!("{name}.py"), &format!("V = '{version}'\n"));
        self.publish(&origin, name);
        commit
    }

    fn publish(&self, origin: &Origin, name: &str) {
        let bare = format!("{name}.git");
        let _ = fs::remove_dir_all(self.folder.path().join(&bare));
        git(
            self.folder.path(),
            &["clone", "--quiet", "--bare", &origin.url(), &bare],
        );
    }

    /// A pod whose image has Python and nothing else: no git above all.
    fn pod<'a>(&self, server: &'a Server, task: &str) -> Pod<'a> {
        let mut pod = Pod::parked(server, task);
        for (name, value) in [
            ("TRAINYARD_ENVIRONMENT_MANAGER", "auto"),
            ("PIP_NO_INDEX", "1"),
            ("PIP_FIND_LINKS", &self.image.index().display().to_string()),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ] {
            pod.set(name, value);
        }
        pod
    }

    fn run(&self, pod: &mut Pod<'_>) -> i32 {
        pod.prepare();
        pod.bring_uv();
        pod.set("PATH", &self.image.settings.variables["PATH"]);
        pod.run_prepared()
    }
}

/// A script that needs `requirements`.
fn task(server: &Server, requirements: &str, code: &str) -> String {
    server.task(
        "requirements",
        &json!({
            "binary": "python3", "entry_point": "train.py", "diff": code,
            "requirements": {"pip": requirements},
        }),
    )
}

#[test]
fn s3_a_private_requirement_is_installed_from_disk_and_its_token_shows_nowhere() {
    let world = World::new();
    let commit = world.package("alpha", "1.0", "");
    let closed = world.serve(Some(PASSWORD));
    let server = Server::start();
    let with_token = closed.url.replace("://", &format!("://git:{PASSWORD}@"));
    let code = "import alpha, os\nprint('alpha', alpha.V)\n\
        print([name for name, value in os.environ.items() if 'canary' in value])\n";
    let task = task(
        &server,
        &format!("alpha @ git+{with_token}/alpha.git@main\n"),
        code,
    );
    let mut pod = world.pod(&server, &task);
    let list = ProcessList::watch(PASSWORD);
    let code = world.run(&mut pod);
    assert!(!list.saw_it(), "the token stood in a command line");
    assert_eq!(code, 0, "{}", server.log(&task));
    assert_eq!(server.output(&task), "alpha 1.0\n[]\n");
    let log = server.log(&task);
    assert!(!log.contains(PASSWORD), "{log}");
    assert!(
        !contents(&pod.path("")).contains(PASSWORD),
        "the token is on the pod's volume"
    );
    let installed = format!("alpha @ git+{}/alpha.git@{commit}", closed.url);
    assert_eq!(
        server.get(&task)["script"]["requirements"]["pip"],
        json!([installed])
    );
}

#[test]
fn s3_a_requirement_that_does_not_build_tells_no_token() {
    let world = World::new();
    let origin = Origin::new();
    origin.write(
        "pyproject.toml",
        "[build-system]\nrequires = [\"backend\"]\nbuild-backend = \"backend\"\n[project]\nname = \"broken\"\n",
    );
    origin.commit("broken.py", "V = 1\n");
    world.publish(&origin, "broken");
    let closed = world.serve(Some(PASSWORD));
    let server = Server::start();
    let with_token = closed.url.replace("://", &format!("://git:{PASSWORD}@"));
    let task = task(
        &server,
        &format!("git+{with_token}/broken.git#egg=broken\n"),
        "print(1)\n",
    );
    let mut pod = world.pod(&server, &task);
    let list = ProcessList::watch(PASSWORD);
    let code = world.run(&mut pod);
    assert!(!list.saw_it(), "the token stood in a command line");
    assert_eq!(code, 212, "{}", server.log(&task));
    let (log, status) = (server.log(&task), server.get(&task));
    assert_eq!(status["status"], "failed");
    let message = status["status_message"].to_string();
    assert!(message.contains("broken"), "{message}");
    assert!(
        !log.contains(PASSWORD) && !message.contains(PASSWORD),
        "{log}"
    );
    assert!(!contents(&pod.path("")).contains(PASSWORD));
    assert!(!pod.stream("termination").contains(PASSWORD));
}

#[test]
fn s3_a_wrong_token_of_a_requirement_is_one_clear_line() {
    let world = World::new();
    world.package("alpha", "1.0", "");
    let closed = world.serve(Some(PASSWORD));
    let server = Server::start();
    let wrong = closed.url.replace("://", "://git:wrong-canary@");
    let task = task(
        &server,
        &format!("alpha @ git+{wrong}/alpha.git\n"),
        "print(1)\n",
    );
    let mut pod = world.pod(&server, &task);
    assert_eq!(world.run(&mut pod), 212);
    let message = server.get(&task)["status_message"].to_string();
    let expected = format!(
        "requirement alpha could not be brought: the server of {}/alpha.git refused the credentials",
        closed.url
    );
    assert!(message.contains(&expected), "{message}");
    assert!(!server.log(&task).contains("wrong-canary"));
    // For another platform it is not needed, and nobody misses it.
    let marked = format!(
        "alpha @ git+{wrong}/alpha.git ; sys_platform == 'win32'\nsix-of-nobody ; sys_platform == 'win32'\n"
    );
    let task = self::task(&server, &marked, "print('without')\n");
    let mut pod = world.pod(&server, &task);
    assert_eq!(world.run(&mut pod), 0, "{}", server.log(&task));
    assert_eq!(server.output(&task), "without\n");
}

#[test]
fn what_a_requirement_requires_from_git_comes_too() {
    let world = World::new();
    let open = world.serve(None);
    world.package("beta", "2.0", "");
    world.package(
        "alpha",
        "1.0",
        &format!("\"beta @ git+{}/beta.git\"", open.url),
    );
    let server = Server::start();
    let task = task(
        &server,
        &format!("alpha @ git+{}/alpha.git@main\n", open.url),
        "import alpha, beta\nprint(alpha.V, beta.V)\n",
    );
    let mut pod = world.pod(&server, &task);
    pod.prepare();
    drop(open);
    pod.bring_uv();
    pod.set("PATH", &world.image.settings.variables["PATH"]);
    assert_eq!(pod.run_prepared(), 0, "{}", server.log(&task));
    assert_eq!(server.output(&task), "1.0 2.0\n");
}

#[test]
fn a_lock_with_git_sources_is_installed_without_git() {
    let world = World::new();
    let open = world.serve(None);
    let locked = world.package("alpha", "1.0", "");
    let server = Server::start();
    let origin = Origin::new();
    origin.write(
        "pyproject.toml",
        format!(
            "[project]\nname = \"trainer\"\nversion = \"1\"\nrequires-python = \">=3.8\"\ndependencies = [\"alpha\"]\n\
             [tool.uv.sources]\nalpha = {{ git = \"{}/alpha.git\", branch = \"main\" }}\n",
            open.url
        ),
    );
    let mut lock = Command::new(uv());
    lock.args(["lock", "--quiet", "--no-index", "--find-links"])
        .arg(world.image.index())
        .current_dir(origin.path())
        .env("UV_CACHE_DIR", world.image.index().join("cache"));
    assert!(lock.status().unwrap().success());
    let commit = origin.commit("train.py", "import alpha\nprint(alpha.V)\n");
    let run = || {
        let script = json!({"binary": "python3", "entry_point": "train.py", "repository": origin.url(), "version_num": commit});
        let task = server.task("lock", &script);
        let code = world.run(&mut world.pod(&server, &task));
        (code, task)
    };
    // The branch moves on; the lock does not.
    let moved = Origin::new();
    let bare = format!("file://{}/alpha.git", world.folder.path().display());
    moved.git(&["pull", "--quiet", &bare]);
    moved.commit("alpha.py", "V = 'later'\n");
    world.publish(&moved, "alpha");
    let (code, task) = run();
    assert_eq!(code, 0, "{}", server.log(&task));
    assert_eq!(server.output(&task), "1.0\n");
    // Now the locked commit is gone, and that is told.
    world.package("alpha", "2.0", "");
    let (code, task) = run();
    assert_eq!(code, 212, "{}", server.log(&task));
    let message = server.get(&task)["status_message"].to_string();
    let expected = format!("requirement alpha could not be brought: commit {locked} is not in");
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn what_the_configuration_says_of_the_run_counts() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("clearml.conf");
    let written = folder.path().join("token.txt");
    fs::write(
        &conf,
        format!(
            "agent {{ enable_task_env: true, force_git_root_python_path: true, worker_id: nobody\n\
             git_usr: nobody\n\
             extra_docker_shell_script: [\"export FROM_SCRIPT=1\", \"echo of the script\"] }}\n\
             environment {{ FROM_CONF: \"of the file\" }}\n\
             files {{ token {{ path: \"{}\", contents: \"inside\" }} }}\n",
            written.display()
        ),
    )
    .unwrap();
    let origin = Origin::new();
    origin.write("root_module.py", "V = 'of the root'\n");
    let code = "import os, root_module\nprint(os.environ['FROM_CONF'], os.environ['FROM_SCRIPT'], root_module.V)\n\
        print(open(os.environ['TOKEN_FILE']).read(), os.environ['OF_TASK'])\n";
    let commit = origin.commit("sub/train.py", code);
    let task = server.task(
        "configured",
        &json!({"binary": "python3", "entry_point": "train.py", "working_dir": "sub",
            "repository": origin.url(), "version_num": commit}),
    );
    server.call(
        "tasks.edit_hyper_params",
        &json!({"task": task, "hyperparams": [
            {"section": "Environment", "name": "OF_TASK", "value": "of the task"},
            {"section": "Environment", "name": "TOKEN_FILE", "value": written.display().to_string()},
        ]}),
    );
    let mut pod = Pod::parked(&server, &task);
    pod.set("CLEARML_CONFIG_FILE", &conf.display().to_string());
    assert_eq!(pod.run(), 0, "{}", server.log(&task));
    let log = server.log(&task);
    assert_eq!(
        server.output(&task),
        "of the script\nof the file 1 of the root\ninside of the task\n",
        "{log}"
    );
    assert!(
        log.contains("agent.worker_id")
            && log.contains("has no effect: a pod's worker id names its attempt"),
        "{log}"
    );
    let misspelt = format!(
        "trainyard: agent.git_usr is no known key ({}, line 2): it has no effect\n",
        conf.display()
    );
    assert_eq!(log.matches(&misspelt).count(), 1, "{log}");
    assert_eq!(log.matches("git_usr").count(), 1, "{log}");
    assert!(
        log.contains("files.token of clearml.conf is written to"),
        "{log}"
    );
}
