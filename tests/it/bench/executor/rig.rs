//! Ours and the incumbent's on this machine: the pod's programs as `exec` starts them, and `clearml-agent execute` with
//! the settings and on the terms of `e2e::glue`. Same server, same Python, same package index, same tasks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::now;
use crate::e2e::glue::Packages;
use crate::exec::pod::Pod;
use crate::exec::proxy::{Fate, Proxy};
use crate::exec::server::{Proc, Server};

/// The programs of both, and the index that both install from; `cargo xtask bench executor` sets it.
pub struct Place {
    pub program: PathBuf,
    agent_python: PathBuf,
    index: String,
    pub server: Server,
    /// Ours, from one task to the next.
    pub cache: TempDir,
}

impl Place {
    pub fn find() -> Self {
        let get = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run this by `cargo xtask bench executor`")
            })
        };
        let program = PathBuf::from(get("TRAINYARD_E2E_PROGRAM"));
        Self {
            server: Server::of_program(&program),
            program,
            agent_python: PathBuf::from(get("TRAINYARD_E2E_AGENT_PYTHON")),
            index: get("TRAINYARD_E2E_INDEX_URL"),
            cache: tempfile::tempdir().expect("temp folder"),
        }
    }

    /// The same with another package index.
    pub fn with_index(self, url: &str) -> Self {
        Self {
            index: url.to_owned(),
            ..self
        }
    }

    /// Takes the environments out of our cache, and leaves what was downloaded there.
    pub fn forget_environments(&self) {
        for user in fs::read_dir(self.cache.path()).expect("cache").flatten() {
            let _ = fs::remove_dir_all(user.path().join("env"));
        }
    }

    /// A task of this Python source that needs these packages.
    pub fn task(&self, source: &str, requirements: &str) -> String {
        self.server.task(
            "bench",
            &json!({"binary": "python3", "entry_point": "script.py", "working_dir": ".", "diff": source,
                    "requirements": {"pip": requirements}}),
        )
    }

    /// What a task of ours is told beside the usual.
    pub fn pod(&self, task: &str, api: &str) -> Pod<'_> {
        let mut pod = Pod::parked(&self.server, task);
        pod.program.clone_from(&self.program);
        api.clone_into(&mut pod.api);
        for (name, value) in [
            ("TRAINYARD_ENVIRONMENT_MANAGER", "auto"),
            ("TRAINYARD_INDEX_URL", self.index.as_str()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("PIP_FIND_LINKS", ""),
        ] {
            pod.set(name, value);
        }
        let cache = pod.path("root/cache");
        fs::create_dir_all(pod.path("root")).expect("folder is made");
        std::os::unix::fs::symlink(self.cache.path(), cache).expect("link is made");
        pod
    }
}

/// One task being run by either; ends with its value.
pub struct Run {
    pub task: String,
    /// When the container's process 1, or the agent, was started.
    pub begun: f64,
    /// Process 1, or the agent.
    pub main: Proc,
    /// Ours alone.
    pub uplink: Option<Proc>,
}

impl Run {
    /// Waits for its end; the task's document.
    pub fn end(mut self, place: &Place, seconds: u64) -> Value {
        let code = self.main.end(seconds);
        if let Some(uplink) = &mut self.uplink {
            uplink.signal(Signal::SIGTERM);
            uplink.end(60);
        }
        let task = place.server.get(&self.task);
        assert_eq!(
            (code, &task["status"]),
            (0, &json!("completed")),
            "{}",
            place.server.log(&self.task)
        );
        task
    }
}

/// Who runs a task.
pub trait Runner {
    /// Starts it, everything that comes before the task's container being over.
    fn start(&self, task: &str) -> Run;
}

/// Init container, sidecar and container as processes.
pub struct Ours<'a> {
    pub place: &'a Place,
    pub api: String,
    /// Kept until the end: pods hold the folders that their tasks run in.
    pods: std::cell::RefCell<Vec<Pod<'a>>>,
}

impl<'a> Ours<'a> {
    pub fn new(place: &'a Place) -> Self {
        Self::by(place, &place.server.url)
    }

    /// Asks the server by this address.
    pub fn by(place: &'a Place, api: &str) -> Self {
        Self {
            place,
            api: api.to_owned(),
            pods: std::cell::RefCell::default(),
        }
    }

    /// The spool's folder of the newest pod.
    pub fn spool(&self) -> PathBuf {
        let pods = self.pods.borrow();
        pods.last().expect("a pod was started").path("root/spool")
    }
}

impl Ours<'_> {
    /// The same with more variables in the container.
    pub fn start_with(&self, task: &str, variables: &[(&str, &str)]) -> Run {
        let mut pod = self.place.pod(task, &self.api);
        for (name, value) in variables {
            pod.set(name, value);
        }
        pod.prepare();
        let uplink = Some(pod.uplink());
        let begun = now();
        let run = Run {
            task: task.to_owned(),
            begun,
            main: pod.start(),
            uplink,
        };
        self.pods.borrow_mut().push(pod);
        run
    }
}

impl Runner for Ours<'_> {
    fn start(&self, task: &str) -> Run {
        self.start_with(task, &[])
    }
}

/// `clearml-agent execute`, with caches of its own that last.
pub struct Agent<'a> {
    place: &'a Place,
    packages: Packages,
    folder: TempDir,
}

impl<'a> Agent<'a> {
    pub fn new(place: &'a Place, packages: Packages) -> Self {
        Self::by(place, packages, &place.server.url)
    }

    pub fn by(place: &'a Place, packages: Packages, url: &str) -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        // With uv its agent installs by pip all the same, unless it is told not to.
        let kind = if packages == Packages::Uv {
            "\"uv\", uv_replace_pip: true"
        } else {
            "\"pip\""
        };
        let at = |name: &str| folder.path().join(name).display().to_string();
        let server = &place.server;
        let settings = format!(
            "api {{\n  api_server: \"{url}\"\n  web_server: \"{url}\"\n  files_server: \"{url}/files\"\n  \
             credentials {{ access_key: \"{}\", secret_key: \"{}\" }}\n}}\n\
             agent {{\n  python_binary: \"/usr/bin/python3\"\n  \
             package_manager {{ type: {kind}, pip_version: \"\", extra_index_url: [\"{}\"] }}\n  \
             venvs_cache.path: \"{}\"\n  pip_download_cache.path: \"{}\"\n  vcs_cache.path: \"{}\"\n  venvs_dir: \"{}\"\n}}\n",
            server.access_key,
            server.secret_key,
            place.index,
            at("venvs-cache"),
            at("pip-download"),
            at("vcs"),
            at("venvs"),
        );
        fs::write(folder.path().join("clearml.conf"), settings).expect("settings are written");
        Self {
            place,
            packages,
            folder,
        }
    }

    /// Forgets the environments, not what was downloaded.
    pub fn forget_environments(&self) {
        let _ = fs::remove_dir_all(self.folder.path().join("venvs-cache"));
    }

    fn command(&self, task: &str) -> Command {
        let folder = self.folder.path();
        let uv = self.place.program.parent().unwrap_or(Path::new("/"));
        let at = |name: &str| folder.join(name).display().to_string();
        let log = fs::File::create(folder.join(format!("{task}.log"))).expect("log file");
        let mut command = Command::new(&self.place.agent_python);
        command
            .args([
                "-m",
                "clearml_agent",
                "execute",
                "--full-monitoring",
                "--id",
                task,
            ])
            .current_dir(folder)
            .env_clear()
            .env("HOME", folder)
            .env(
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", uv.display()),
            )
            .env("CLEARML_CONFIG_FILE", at("clearml.conf"))
            .env("CLEARML_AGENT_NO_UPDATE", "1")
            .env("PIP_INDEX_URL", &self.place.index)
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("PIP_CACHE_DIR", at("pip"))
            .env("UV_DEFAULT_INDEX", &self.place.index)
            .env("UV_CACHE_DIR", at("uv"))
            .env("PYTHONUNBUFFERED", "1")
            .stdout(log.try_clone().expect("log file"))
            .stderr(log);
        if self.packages == Packages::Skip {
            command.env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1");
        }
        command
    }
}

impl Runner for Agent<'_> {
    fn start(&self, task: &str) -> Run {
        // Each pod has a file system of its own; `venvs.1` and more are made beside `venvs`.
        let all = fs::read_dir(self.folder.path()).expect("its folder");
        for entry in all.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("venvs") && name != "venvs-cache" {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let mut command = self.command(task);
        let begun = now();
        Run {
            task: task.to_owned(),
            begun,
            main: Proc::spawn(&mut command),
            uplink: None,
        }
    }
}

/// A way to the server on which all requests are counted.
pub fn counting(place: &Place) -> Proxy {
    Proxy::start(&place.server.url, |_| Fate::Pass)
}
