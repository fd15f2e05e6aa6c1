//! Kinds of code × where the packages are named × how git is reached: each pair of two of them occurs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::pod::Pod;
use super::server::Server;
use crate::git::fixture::{Origin, git};
use crate::git::servers;
use crate::git::sshd::{Keys, Sshd, USUAL};
use crate::python::conda;
use crate::python::fixture::{bundled_pip, uv, wheel};

const PASSWORD: &str = "canary-of-the-matrix";
const KINDS: [&str; 5] = ["script", "module", "notebook", "shell", "arguments"];
const PACKAGES: [&str; 6] = [
    "listed",
    "uv.lock",
    "poetry.lock",
    "requirements.txt",
    "pip",
    "conda",
];
const ACCESS: [&str; 4] = ["file", "http", "password", "ssh"];

fn entry(kind: &str) -> Value {
    match kind {
        "module" => json!({"binary": "python3", "entry_point": "-m package.train"}),
        "notebook" => json!({"binary": "python3", "entry_point": "train.ipynb"}),
        "shell" => json!({"binary": "bash", "entry_point": "go.sh"}),
        "arguments" => json!({"binary": "python3", "entry_point": "train.py --lr 0.1"}),
        _ => json!({"binary": "python3", "entry_point": "train.py"}),
    }
}

/// What the pods find beside the repositories.
struct Machine {
    /// Wheels for pip and uv.
    index: PathBuf,
    /// Packages for conda.
    channel: PathBuf,
    /// A `micromamba`, and the `ssh` that has the key; they are the first in `PATH`.
    programs: PathBuf,
}

impl Machine {
    /// alpha 2.0 is newest everywhere: what is locked or pinned decides, or the run prints another version.
    fn new(folder: &Path) -> Self {
        let [index, channel, programs] =
            ["index", "channel", "programs"].map(|name| folder.join(name));
        fs::create_dir_all(&index).unwrap();
        fs::create_dir_all(&programs).unwrap();
        wheel(&index, "alpha", "1.0", &[]);
        wheel(&index, "alpha", "2.0", &[]);
        let pip = bundled_pip();
        fs::copy(&pip, index.join(pip.file_name().unwrap())).unwrap();
        conda::write_channel(&channel, &[]);
        conda::bring_micromamba(&programs);
        Self {
            index,
            channel,
            programs,
        }
    }

    /// An ssh server that lets this machine's pods in. A pod mounts key and known hosts where no test may write: here the
    /// real client is told of them by a program of its name. `git::ssh` shows that mounted ones arrive.
    fn open_ssh(&self) -> Sshd {
        let sshd = Sshd::start("AcceptEnv GIT_PROTOCOL");
        let keys = Keys::new(&USUAL);
        sshd.let_in(&keys);
        let [key, known] = ["key", "known_hosts"].map(|name| self.programs.join(name));
        let program = self.programs.join("ssh");
        let text = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -oIdentitiesOnly=yes -i {} -oUserKnownHostsFile={} \"$@\"\n",
            key.display(),
            known.display()
        );
        for (file, text, mode) in [
            (&key, &keys.private, 0o600),
            (&known, &sshd.known_as_it_is(), 0o600),
            (&program, &text, 0o755),
        ] {
            fs::write(file, text).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        sshd
    }
}

/// A repository with all kinds of code, whose packages are named in this way.
fn origin(packages: &str, machine: &Machine) -> Origin {
    let index = &machine.index;
    let origin = Origin::new();
    let code = "import sys, alpha\nprint('trained with', alpha.V, *sys.argv[1:])\n";
    origin.write("train.py", code);
    origin.write("package/__init__.py", "");
    origin.write("package/train.py", code);
    origin.write("go.sh", "python train.py\n");
    let notebook = json!({"cells": [{"cell_type": "code", "source": code}]});
    origin.write("train.ipynb", notebook.to_string());
    let project = "[project]\nname = \"trainer\"\nversion = \"1\"\nrequires-python = \">=3.8\"\ndependencies = [\"alpha<2\"]\n";
    match packages {
        "uv.lock" => {
            origin.write("pyproject.toml", project);
            let mut lock = Command::new(uv());
            lock.args(["lock", "--quiet", "--no-index", "--find-links"])
                .arg(index);
            lock.current_dir(origin.path())
                .env("UV_CACHE_DIR", index.join("cache"));
            assert!(lock.status().unwrap().success());
        }
        "poetry.lock" => {
            origin.write("pyproject.toml", project);
            origin.write("poetry.lock", "[[package]]\nname = \"alpha\"\nversion = \"1.0\"\npython-versions = \"*\"\nfiles = []\n");
        }
        "conda" => {
            let channel = machine.channel.display();
            let text = format!("channels:\n  - file://{channel}\ndependencies:\n  - alpha=1.0\n");
            origin.write("environment.yml", text);
        }
        "requirements.txt" => origin.write("requirements.txt", "alpha==1.0\n"),
        _ => {}
    }
    origin.commit("README", "a repository");
    origin
}

/// What this cell of the matrix has printed, and all of its log.
fn run(
    server: &Server,
    cell: [&str; 3],
    origin: &Origin,
    url: &str,
    machine: &Machine,
) -> (i32, String, String) {
    let [kind, packages, _] = cell;
    let mut script = entry(kind);
    script["repository"] = json!(url);
    script["branch"] = json!("main");
    script["version_num"] = json!(origin.git(&["rev-parse", "HEAD"]));
    if matches!(packages, "listed" | "pip") {
        script["requirements"] = json!({"pip": "alpha==1.0\n"});
    }
    let task = server.task(&cell.join(" "), &script);
    let mut pod = Pod::parked(server, &task);
    let manager = match packages {
        "pip" | "conda" => packages,
        _ => "auto",
    };
    let path = std::env::var("PATH").unwrap();
    for (name, value) in [
        ("TRAINYARD_ENVIRONMENT_MANAGER", manager),
        ("PATH", &format!("{}:{path}", machine.programs.display())),
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", &machine.index.display().to_string()),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ] {
        pod.set(name, value);
    }
    pod.prepare();
    pod.bring_uv();
    let code = pod.run_prepared();
    (code, server.output(&task), server.log(&task))
}

#[test]
fn s3_s4_every_kind_of_code_runs_with_every_manager_over_every_access() {
    let folder = tempfile::tempdir().unwrap();
    let bare = folder.path().join("bare");
    fs::create_dir_all(&bare).unwrap();
    let machine = Machine::new(folder.path());
    let sshd = machine.open_ssh();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (open, closed) = runtime.block_on(async {
        (
            servers::Server::start(&bare, None).await,
            servers::Server::start(&bare, Some(PASSWORD)).await,
        )
    });
    let server = Server::start();
    let mut failures = Vec::new();
    for (row, packages) in PACKAGES.iter().enumerate() {
        let origin = origin(packages, &machine);
        git(
            folder.path(),
            &[
                "clone",
                "--quiet",
                "--bare",
                &origin.url(),
                &format!("bare/{row}.git"),
            ],
        );
        for (column, kind) in KINDS.iter().enumerate() {
            let access = ACCESS[(row + column) % ACCESS.len()];
            let url = match access {
                "http" => format!("{}/{row}.git", open.url),
                "password" => format!(
                    "{}/{row}.git",
                    closed.url.replace("://", &format!("://git:{PASSWORD}@"))
                ),
                "ssh" => sshd.url(&bare.join(format!("{row}.git"))),
                _ => origin.url(),
            };
            let cell = [*kind, *packages, access];
            let (code, output, log) = run(&server, cell, &origin, &url, &machine);
            let expected = match *kind {
                "arguments" => "trained with 1.0 --lr 0.1\n",
                _ => "trained with 1.0\n",
            };
            let told = !log.contains(PASSWORD);
            // What git and the installers say are remarks: the task's own output is one line.
            if code != 0 || output != expected || !told {
                failures.push(format!("{cell:?}: {code}, {output:?}\n{log}"));
            }
        }
    }
    drop((open, closed));
    runtime.shutdown_background();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
