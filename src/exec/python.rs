//! Makes the Python environment of a task in the user's image, with our own `uv`.
//!
//! ```text
//! nothing asked for ───────────────────────────▶ the image's interpreter, at once
//! list, files ──▶ key ──▶ made before? ──yes───▶ that environment
//!                             └─no─▶ all in the image already? ──yes──▶ the image's interpreter
//!                                        └─no─▶ lock ──▶ venv ──▶ install what the image lacks ──▶ marker
//! ```
//!
//! Environments are named after what they were made from and lie beside uv's cache, so that files are hard links and
//! nothing is copied. The image itself is never changed.

mod explain;
mod index;
mod interpreter;
mod list;
mod maker;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use self::interpreter::Interpreter;
pub use self::interpreter::find_program;
use self::list::List;
use self::maker::Maker;
use super::failure::Failure;
use super::plan::{Environment, Plan, Requirements};
use super::tool::{self, Log};
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
    if !plan.working_dir.is_dir() {
        let folder = plan.working_dir.display();
        return Err(
            Failure::new(format!("the working directory {folder} is not there"))
                .hint("check the task's working directory, and that the folder is committed"),
        );
    }
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
