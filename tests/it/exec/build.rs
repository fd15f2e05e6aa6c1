//! `trainyard build`: what a task runs with, made ahead of time, runs without server and network.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use super::server::Server;
use crate::git::fixture::Origin;
use crate::python::fixture::{Image, uv, wheel};

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// `trainyard build`, in an image with Python, git and uv, against this server.
fn build(server: &Server, image: &Image, arguments: &[&str]) -> Command {
    let uv = uv();
    let path = format!(
        "{}:{}:/usr/bin:/bin",
        image.settings.variables["PATH"],
        uv.parent().unwrap().display()
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .arg("build")
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .env("HOME", image.index())
        .env("CLEARML_API_HOST", &server.url)
        .env("CLEARML_API_ACCESS_KEY", &server.access_key)
        .env("CLEARML_API_SECRET_KEY", &server.secret_key)
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", image.index());
    command
}

/// Runs what was built, with nothing of this test's surroundings.
fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A task with a repository, an uncommitted change and a package.
fn task(server: &Server) -> (String, Origin) {
    let origin = Origin::new();
    let commit = origin.commit("sub/train.py", "import alpha\nprint('old')\n");
    let code = "import alpha, sys\nprint('built with', alpha.V, *sys.argv[1:])\n";
    origin.write("sub/train.py", code);
    let script = json!({
        "binary": "python3", "entry_point": "train.py --lr 0.1", "working_dir": "sub",
        "repository": origin.url(), "version_num": commit, "diff": origin.git(&["diff"]) + "\n",
        "requirements": {"pip": "alpha==1.0\n"},
    });
    (server.task("to be built", &script), origin)
}

#[test]
fn s54_a_task_is_built_into_a_folder_and_runs_without_server_and_network() {
    let server = Server::start();
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    wheel(&image.index(), "alpha", "2.0", &[]);
    let (task, origin) = task(&server);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("built");
    let target_text = target.display().to_string();
    let arguments = ["--id", &task, "--target", &target_text];
    let output = build(&server, &image, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let program = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(Path::new(&program), target.join("run"));
    let before = server.get(&task);
    drop((server, origin));
    image.empty_the_index();
    assert_eq!(run(Path::new(&program), &[]), "built with 1.0 --lr 0.1\n");
    assert_eq!(
        run(Path::new(&program), &["--more"]),
        "built with 1.0 --lr 0.1 --more\n"
    );
    let installed = fs::read_to_string(target.join("installed.txt")).unwrap();
    assert_eq!(installed, "alpha==1.0\n");
    assert_eq!(before["status"], "created", "the task itself is as it was");
}

#[test]
fn s54_a_build_context_holds_all_that_its_image_needs() {
    let server = Server::start();
    let image = Image::new();
    wheel(&image.index(), "alpha", "1.0", &[]);
    let (task, origin) = task(&server);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("context");
    let target_text = target.display().to_string();
    let arguments = [
        "--id",
        &task,
        "--target",
        &target_text,
        "--docker",
        "registry.example/base:1",
    ];
    let output = build(&server, &image, &arguments).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let dockerfile = fs::read_to_string(target.join("Dockerfile")).unwrap();
    assert!(
        dockerfile.contains("FROM registry.example/base:1\n"),
        "{dockerfile}"
    );
    let everything = crate::git::served::contents(&target);
    for secret in [&server.access_key, &server.secret_key] {
        assert!(
            !everything.contains(secret.as_str()),
            "a key is in the context"
        );
    }
    // What its RUN line does, here: code and programs are in the context, the packages come from the index.
    let order = target.join("order.json").display().to_string();
    let run_line = dockerfile
        .lines()
        .find(|line| line.starts_with("RUN "))
        .unwrap();
    assert_eq!(
        run_line,
        "RUN [\"/opt/trainyard/bin/trainyard\", \"build\", \"--order\", \"/opt/trainyard/order.json\"]"
    );
    let mut inside = Command::new(target.join("bin/trainyard"));
    inside
        .args(["build", "--order", &order])
        .env_clear()
        .env("PATH", &image.settings.variables["PATH"])
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", image.index());
    drop((server, origin));
    let output = inside.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    image.empty_the_index();
    assert_eq!(run(&target.join("run"), &[]), "built with 1.0 --lr 0.1\n");
}

#[test]
fn what_cannot_be_built_is_told_in_one_line() {
    let server = Server::start();
    let image = Image::new();
    let (task, _origin) = task(&server);
    let folder = tempfile::tempdir().unwrap();
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "mine").unwrap();
    let full_text = full.display().to_string();
    let new = folder.path().join("new").display().to_string();
    let unknown = "0123456789abcdef0123456789abcdef";
    for (arguments, expected) in [
        (vec!["--id", &task, "--target", &full_text], "is not empty"),
        (
            vec!["--id", unknown, "--target", &new],
            "there is no task 0123456789abcdef",
        ),
        (
            vec!["--id", &task, "--target", &new, "--docker"],
            "the task names no image: name one, as in --docker IMAGE",
        ),
        (
            vec!["--id", &task, "--target", &new],
            "requirement alpha==1.0",
        ),
    ] {
        let output = build(&server, &image, &arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let last = said(&output).lines().last().unwrap_or_default().to_owned();
        assert!(
            last.starts_with("error: ") && last.contains(expected),
            "{}",
            said(&output)
        );
    }
    assert_eq!(fs::read_to_string(full.join("file")).unwrap(), "mine");
    let mut without = build(&server, &image, &["--id", &task, "--target", &new]);
    without.env_remove("CLEARML_API_HOST");
    let output = without.output().unwrap();
    assert!(
        said(&output).contains("no api.api_server is known"),
        "{}",
        said(&output)
    );
}
