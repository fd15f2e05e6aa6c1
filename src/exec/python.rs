//! Makes the Python environment of a task in the user's image, with our own `uv`.
//!
//! ```text
//! nothing asked for ───────────────────────────▶ the image's interpreter, at once
//! list, files ──▶ key ──▶ made before? ──yes───▶ that environment
//!                             └─no─▶ all in the image already? ──yes──▶ the image's interpreter
//!                                        └─no─▶ lock ──▶ uv venv ──▶ uv pip install ──▶ marker
//! ```
//!
//! Environments are named after what they were made from and lie beside uv's cache, so that files are hard links and
//! nothing is copied. The image itself is never changed.

mod explain;
mod index;
mod interpreter;
mod list;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::Command;

use self::interpreter::Interpreter;
pub use self::interpreter::find_program;
use self::list::List;
use self::store::{Place, Store};
use super::failure::Failure;
use super::plan::{Environment, Plan, Requirements};
use super::tool::{self, Ended, Log};
use crate::pod;

/// What making an environment needs beside the plan.
#[derive(Clone)]
pub struct PythonSettings {
    /// Our `uv` (`pod::BIN`).
    pub uv: PathBuf,
    /// Package cache and environments (`pod::CACHE`).
    pub cache: PathBuf,
    /// Where an environment goes that no other task may use; on the pod's own volume.
    pub own: PathBuf,
    /// The container's environment variables: `PATH`, the image's pip and uv settings, `LOCAL_PYTHON`.
    pub variables: BTreeMap<String, String>,
    /// Package index of the binding; absent: the image's own settings.
    pub index_url: Option<String>,
    /// CA bundle of that index.
    pub index_ca: Option<PathBuf>,
    /// Longest time for the whole environment.
    pub limit: Duration,
}

/// Not for installers.
const REMOVED: [&str; 7] = [
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_PROJECT_ENVIRONMENT",
    pod::env::ACCESS_KEY,
    pod::env::SECRET_KEY,
];

/// What the task runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// Absolute path; `None` only for a shell script in an image without Python.
    pub interpreter: Option<PathBuf>,
    /// Root of the environment; `None`: the image's own installation.
    pub environment: Option<PathBuf>,
    /// What is installed, as `name==version` lines for the task's record (§7.7); `None`: nothing to record.
    pub installed: Option<Vec<String>>,
    /// The environment was there already.
    pub reused: bool,
}

/// Makes what the plan asks for.
pub async fn make(
    plan: &Plan,
    settings: &PythonSettings,
    log: &mut Log<'_>,
) -> Result<Python, Failure> {
    let list = match &plan.environment {
        Some(Environment { requirements, .. }) => List::read(requirements)?,
        None => List::default(),
    };
    if let Some(Environment {
        requirements: Requirements::Repository(_),
        ..
    }) = &plan.environment
    {
        log(&match list.files.as_slice() {
            [] => {
                "the task lists no packages and the repository has no requirements.txt".to_owned()
            }
            files => format!("packages as in {}", names(files)),
        });
    }
    let path = settings.variables.get("PATH").map_or("", String::as_str);
    let wanted = plan.python.as_deref();
    let local = settings.variables.get("LOCAL_PYTHON").map(String::as_str);
    let found = interpreter::find(wanted, local, path, log);
    if list.is_empty() {
        let needed = plan.command.shell.is_none();
        return match found {
            None if needed => {
                let interpreter = Some(settings.download(wanted, log).await?);
                Ok(Python {
                    interpreter,
                    environment: None,
                    installed: None,
                    reused: false,
                })
            }
            interpreter => Ok(Python {
                interpreter,
                environment: None,
                installed: None,
                reused: false,
            }),
        };
    }
    let program = match found {
        Some(program) => program,
        None => settings.download(wanted, log).await?,
    };
    let interpreter = Interpreter::probe(&program).await?;
    let pip = plan
        .environment
        .as_ref()
        .is_some_and(|environment| environment.pip);
    let maker = Maker {
        settings,
        list: &list,
        interpreter: &interpreter,
        pip,
        working_dir: &plan.working_dir,
    };
    tokio::time::timeout(settings.limit, maker.make(log))
        .await
        .unwrap_or_else(|_| {
            let minutes = settings.limit.as_secs() / 60;
            Err(Failure::new(format!(
                "the Python environment was not ready within {minutes} min"
            )))
        })
}

fn names(files: &[PathBuf]) -> String {
    files
        .iter()
        .map(|file| file.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

impl PythonSettings {
    /// An interpreter for an image that has none.
    async fn download(&self, wanted: Option<&str>, log: &mut Log<'_>) -> Result<PathBuf, Failure> {
        let wanted = wanted.unwrap_or("3");
        log(&format!(
            "the image has no Python: looking for a Python {wanted} to download"
        ));
        let folder = store::base(&self.cache, &self.own).join("python");
        let mut install = self.uv(&folder);
        install
            .args(["python", "install", "--no-bin", wanted])
            .env("UV_PYTHON_DOWNLOADS", "manual");
        install.env("UV_PYTHON_INSTALL_DIR", &folder);
        let failed = |why: String| {
            Failure::new(format!(
                "the image has no Python and none could be downloaded: {why}"
            ))
            .hint("use an image with Python 3")
        };
        let ended = tool::run(install, None, self.limit, log)
            .await
            .map_err(|trouble| failed(trouble.to_string()))?;
        if !ended.status.success() {
            return Err(failed(explain::first_words(&ended.output)));
        }
        let mut find = self.uv(&folder);
        find.args(["python", "find", "--managed-python", "--no-project", wanted])
            .env("UV_PYTHON_INSTALL_DIR", &folder);
        let found = tool::run(find, None, self.limit, &mut |_| {})
            .await
            .map_err(|trouble| failed(trouble.to_string()))?;
        match found.output.trim() {
            path if found.status.success() && path.starts_with('/') => Ok(PathBuf::from(path)),
            other => Err(failed(explain::first_words(other))),
        }
    }

    /// One call of uv: quiet, within our folders, with the index that counts.
    fn uv(&self, base: &Path) -> Command {
        let mut command = self.child(&self.uv);
        command.env("UV_CACHE_DIR", base.join("uv"));
        command.env("UV_LINK_MODE", "hardlink");
        command.env("UV_NO_PROGRESS", "1");
        command.env("UV_NO_WRAP", "1");
        command.env("UV_PYTHON_DOWNLOADS", "never");
        command.env("NO_COLOR", "1");
        command.envs(index::variables(self));
        command
    }

    /// A program with the container's environment variables, but for those that would lead it to another Python and
    /// the server's keys: build scripts of packages are no part of the task's own code.
    fn child(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.variables);
        for name in REMOVED {
            command.env_remove(name);
        }
        command
    }
}

/// Makes one environment.
struct Maker<'a> {
    settings: &'a PythonSettings,
    list: &'a List,
    interpreter: &'a Interpreter,
    pip: bool,
    working_dir: &'a Path,
}

impl Maker<'_> {
    async fn make(&self, log: &mut Log<'_>) -> Result<Python, Failure> {
        let begun = Instant::now();
        let store = Store::open(&self.settings.cache, &self.settings.own, log);
        let key = self.list.key(&self.surroundings());
        if let Some(python) = key.as_deref().and_then(|key| store.ready(key)).map(found) {
            log("the Python environment is in the cache");
            return Ok(python);
        }
        if let Some(python) = self.in_the_image(&store, log).await {
            return Ok(python);
        }
        let place = store.place(key.as_deref(), log).await?;
        // Another task may have made it while we waited for the lock.
        if let Some(python) = key
            .as_deref()
            .filter(|_| place.is_shared())
            .and_then(|key| store.ready(key))
            .map(found)
        {
            log("another task has just made the Python environment");
            return Ok(python);
        }
        let count = self.list.count();
        log(&format!(
            "making an environment for Python {}: {count} requirements",
            self.interpreter.version
        ));
        let installed = self.build(&store, &place, log).await?;
        self.keep(&store, &place, &installed);
        log(&format!(
            "the Python environment is ready after {:.1} s",
            begun.elapsed().as_secs_f64()
        ));
        let environment = place.folder().to_owned();
        let interpreter = Some(environment.join("bin/python"));
        Ok(Python {
            interpreter,
            environment: Some(environment),
            installed: Some(installed),
            reused: false,
        })
    }

    /// What else decides on the content of an environment.
    fn surroundings(&self) -> String {
        let installer = if self.pip { "pip" } else { "uv" };
        let index = index::identity(self.settings);
        format!("{}\n{installer}\n{index}", self.interpreter.identity)
    }

    /// A prebuilt image may hold all that is asked for: then it runs as it is.
    async fn in_the_image(&self, store: &Store, log: &mut Log<'_>) -> Option<Python> {
        let mut command = self.uv(
            store,
            &[
                "pip",
                "install",
                "--dry-run",
                "--offline",
                "--break-system-packages",
            ],
        );
        command
            .arg("--python")
            .arg(&self.interpreter.program)
            .args(["-r", "-"]);
        let limit = Duration::from_mins(1);
        let ended = tool::run(command, Some(self.list.text.as_bytes()), limit, &mut |_| {})
            .await
            .ok()?;
        if !ended.status.success() || !ended.output.contains("Would make no changes") {
            return None;
        }
        let installed = self.versions_of_listed(store).await?;
        log("the image holds all required packages: it is used as it is");
        let interpreter = Some(self.interpreter.program.clone());
        Some(Python {
            interpreter,
            environment: None,
            installed: Some(installed),
            reused: true,
        })
    }

    /// The listed packages alone, with the image's versions: the rest of an image is no requirement of the task.
    async fn versions_of_listed(&self, store: &Store) -> Option<Vec<String>> {
        let mut command = self.uv(store, &["pip", "list", "--format", "json", "--quiet"]);
        command
            .arg("--python")
            .arg(&self.interpreter.program)
            .stderr(std::process::Stdio::null());
        let output =
            tokio::time::timeout(Duration::from_mins(1), command.kill_on_drop(true).output())
                .await
                .ok()?
                .ok()?;
        list::versions(&output.stdout, &self.list.text)
    }

    async fn build(
        &self,
        store: &Store,
        place: &Place,
        log: &mut Log<'_>,
    ) -> Result<Vec<String>, Failure> {
        place.clear()?;
        let mut venv = self.uv(
            store,
            &[
                "venv",
                "--quiet",
                "--no-project",
                "--system-site-packages",
                "--python",
            ],
        );
        venv.arg(&self.interpreter.program).arg(place.folder());
        self.must(venv, None, log).await?;
        self.show_packages_of_the_image(place)?;
        if self.pip {
            self.install_by_pip(store, place, log).await?;
        } else {
            let mut install = self.uv(store, &["pip", "install", "--python"]);
            install
                .arg(place.folder().join("bin/python"))
                .args(["-r", "-"])
                .args(index::options(self.settings));
            self.must(install, Some(self.list.text.as_bytes()), log)
                .await?;
        }
        let mut freeze = self.uv(store, &["pip", "freeze", "--quiet", "--python"]);
        freeze.arg(place.folder().join("bin/python"));
        let frozen = self.must(freeze, None, &mut |_| {}).await?;
        Ok(frozen
            .output
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// An image may bring its packages in a virtual environment of its own; "system packages" would not be those.
    fn show_packages_of_the_image(&self, place: &Place) -> Result<(), Failure> {
        let Some(packages) = &self.interpreter.packages else {
            return Ok(());
        };
        let minor: Vec<&str> = self.interpreter.version.split('.').take(2).collect();
        let folder = format!("lib/python{}/site-packages", minor.join("."));
        let file = place.folder().join(folder).join("trainyard-image.pth");
        std::fs::write(&file, format!("{}\n", packages.display()))
            .map_err(|error| Failure::new(format!("could not write {}: {error}", file.display())))
    }

    async fn install_by_pip(
        &self,
        store: &Store,
        place: &Place,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let python = place.folder().join("bin/python");
        let mut pip = self.uv(store, &["pip", "install", "--quiet", "--python"]);
        pip.arg(&python)
            .arg("pip")
            .args(index::options(self.settings));
        self.must(pip, None, log).await?;
        let file = place.folder().join("requirements.txt");
        std::fs::write(&file, &self.list.text).map_err(|error| {
            Failure::new(format!("could not write {}: {error}", file.display()))
        })?;
        let mut install = self.settings.child(&python);
        install.args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
            "-r",
        ]);
        install
            .arg(&file)
            .current_dir(self.working_dir)
            .env("PIP_CACHE_DIR", store.base().join("pip"));
        install.envs(index::pip_variables(self.settings));
        self.must(install, None, log).await.map(drop)
    }

    async fn must(
        &self,
        command: Command,
        input: Option<&[u8]>,
        log: &mut Log<'_>,
    ) -> Result<Ended, Failure> {
        let mut masked = |line: &str| log(&super::failure::masked(line));
        let ended = tool::run(command, input, self.settings.limit, &mut masked)
            .await
            .map_err(|trouble| {
                Failure::new(format!("could not make the Python environment: {trouble}"))
            })?;
        if ended.status.success() {
            Ok(ended)
        } else {
            Err(explain::explain(&ended.output))
        }
    }

    /// Marks the environment complete, under the key of what was asked and of what came of it: a task that is run
    /// again carries the latter (`features.md` A58).
    fn keep(&self, store: &Store, place: &Place, installed: &[String]) {
        if place.is_shared() {
            let frozen = List::of_text(&installed.join("\n")).key(&self.surroundings());
            store.keep(place, installed, frozen.as_deref());
        }
    }

    fn uv(&self, store: &Store, arguments: &[&str]) -> Command {
        let mut command = self.settings.uv(store.base());
        command.args(arguments).current_dir(self.working_dir);
        command
    }
}

fn found((environment, installed): (PathBuf, Vec<String>)) -> Python {
    let interpreter = Some(environment.join("bin/python"));
    Python {
        interpreter,
        environment: Some(environment),
        installed: Some(installed),
        reused: true,
    }
}
