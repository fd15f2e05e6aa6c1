//! Makes the Python environment of a task in the user's image, with our own `uv`.
//!
//! ```text
//! nothing asked for ────────────────────────────────▶ the image's interpreter, at once
//! list, lock, files ──▶ key ──▶ made before? ──yes───▶ that environment, a layer of the task's own on top
//!                                  └─no─▶ all in the image already? ──yes──▶ the image's interpreter
//!                                             └─no─▶ lock ──▶ venv ──▶ install what the image lacks ──▶ marker
//! ```
//!
//! Environments are named after what they were made from and lie beside uv's cache, so that files are hard links and
//! nothing is copied. The image itself is never changed.

mod answers;
mod conda;
mod cudnn;
mod explain;
mod index;
mod install;
mod interpreter;
mod layer;
mod list;
mod maker;
mod marker;
mod options;
mod poetry;
mod project;
mod remote;
mod store;
mod sync;
mod torch;
mod version;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::process::Command;

use self::interpreter::Interpreter;
pub use self::interpreter::find_program;
use self::list::List;
use self::maker::Maker;
pub use self::options::{Options, TORCH_INDEX};
use self::project::Source;
pub use self::project::from_git;
pub use self::remote::{Remote, of_files};
pub use self::store::Held;
use self::torch::Cuda;
use super::failure::Failure;
use super::plan::{Environment, Manager, Plan, Requirements};
use super::smi;
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
    /// Nothing is shared with other tasks: the environment and all that it needs lie in `own`.
    pub alone: bool,
    /// The driver that counts is another machine's, and does not answer here.
    pub driver_elsewhere: bool,
    /// The container's environment variables: `PATH`, the image's pip and uv settings, `LOCAL_PYTHON`.
    pub variables: BTreeMap<String, String>,
    /// Package index of the binding; absent: the image's own settings.
    pub index_url: Option<String>,
    /// What installers trust where the binding names certificates for the index: those, and the image's own.
    pub trusted: Option<PathBuf>,
    /// Longest time for the whole environment.
    pub limit: Duration,
    /// What `clearml.conf` and its variables say.
    pub options: Options,
    /// Requirements from git that lie on the pod's volume.
    pub brought: Vec<pod::Brought>,
}

/// Time for a question to uv that asks no index.
const QUICK: Duration = Duration::from_mins(1);

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
    /// The environment below it that other tasks use too.
    pub shared: Option<PathBuf>,
    /// What is installed, as `name==version` lines for the task's record (§7.7); `None`: nothing to record.
    pub installed: Option<Vec<String>>,
    /// The environment was there already.
    pub reused: bool,
    /// Nobody removes the shared environment while this is held.
    pub held: Held,
}

impl Python {
    /// The image's own installation as it is, if it has one.
    fn of_image(interpreter: Option<PathBuf>) -> Self {
        Self {
            interpreter,
            environment: None,
            shared: None,
            installed: None,
            reused: false,
            held: Held::default(),
        }
    }
}

/// Makes what the plan asks for.
pub async fn make(
    plan: &Plan,
    settings: &PythonSettings,
    log: &mut Log<'_>,
) -> Result<Python, Failure> {
    if !plan.command.runs_code() {
        return Ok(Python::of_image(None));
    }
    if !plan.working_dir.is_dir() {
        let folder = plan.working_dir.display();
        return Err(
            Failure::new(format!("the working directory {folder} is not there"))
                .hint("check the task's working directory, and that the folder is committed"),
        );
    }
    let path = settings.variables.get("PATH").map_or("", String::as_str);
    let wanted = plan.python.as_deref();
    let local = settings.variables.get("LOCAL_PYTHON").map(String::as_str);
    let source = plan.environment.as_ref().map(project::choose);
    if let (Some(environment), Some(Source::Conda)) = (&plan.environment, &source) {
        let list = List::read(&environment.requirements, &plan.working_dir)?;
        return within(
            settings,
            conda::make(environment, &list, wanted, settings, &plan.working_dir, log),
        )
        .await;
    }
    let found = interpreter::find(wanted, local, path, log);
    let Some((environment, source)) = plan.environment.as_ref().zip(source) else {
        return settings.as_it_is(found, plan, log).await;
    };
    // The list alone needs no Python to be read: most tasks that ask for nothing are told so without starting one.
    if source == Source::List
        && List::read(&environment.requirements, &plan.working_dir)?.is_empty()
    {
        if matches!(environment.requirements, Requirements::Repository(_)) {
            log("the task lists no packages and the repository has no requirements.txt");
        }
        return settings.as_it_is(found, plan, log).await;
    }
    let program = match found {
        Some(program) => program,
        None => settings.download(wanted, log).await?,
    };
    let interpreter = Interpreter::probe(&program).await?;
    within(
        settings,
        settings.installed(environment, &source, &interpreter, &plan.working_dir, log),
    )
    .await
}

/// The result, if it comes in time.
async fn within(
    settings: &PythonSettings,
    making: impl Future<Output = Result<Python, Failure>>,
) -> Result<Python, Failure> {
    tokio::time::timeout(settings.limit, making)
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
    /// The image's Python, or a downloaded one where there is none; a shell script needs none.
    async fn as_it_is(
        &self,
        found: Option<PathBuf>,
        plan: &Plan,
        log: &mut Log<'_>,
    ) -> Result<Python, Failure> {
        let interpreter = match found {
            None if plan.command.shell.is_none() => {
                Some(self.download(plan.python.as_deref(), log).await?)
            }
            found => found,
        };
        Ok(Python::of_image(interpreter))
    }

    /// An environment with what the source says.
    async fn installed(
        &self,
        environment: &Environment,
        source: &Source,
        interpreter: &Interpreter,
        working_dir: &Path,
        log: &mut Log<'_>,
    ) -> Result<Python, Failure> {
        let mut list =
            project::read(source, environment, self, interpreter, working_dir, log).await?;
        if !list.files.is_empty() {
            log(&format!("packages as in {}", names(&list.files)));
        }
        list.text = remote::pinned(&list.text, &self.brought)?;
        let mut extra = String::new();
        for url in &self.options.extra_index_url {
            let _ = writeln!(extra, "--extra-index-url {url}");
        }
        list.text.insert_str(0, &extra);
        let pip = environment.manager == Manager::Pip;
        let chosen = !list.exact && list.text.lines().any(torch::is_family);
        if pip && chosen {
            log("PyTorch: pip itself chooses the build, without a look at the driver");
        }
        let cuda = if chosen && !pip { self.cuda() } else { None };
        if self.driver_elsewhere
            && self.options.cuda.is_none()
            && cuda.as_ref().is_some_and(|cuda| cuda.version == 0)
        {
            let unknown =
                "PyTorch is chosen by the driver of the task's node, which is not known here";
            return Err(Failure::new(unknown)
                .hint("agent.cuda_version of clearml.conf says for which CUDA it is chosen"));
        }
        if let Some(cuda) = &cuda {
            let index = self.options.torch_index.as_deref().unwrap_or_default();
            list.beside = format!("{} {index}", cuda.version);
        }
        let cudnn = match &cuda {
            Some(cuda) if cuda.version > 0 => self.cudnn().await,
            _ => None,
        };
        let maker = Maker {
            settings: self,
            list: &list,
            interpreter,
            pip,
            working_dir,
            cuda: cuda.as_ref(),
            cudnn,
            aided: Mutex::default(),
        };
        maker.make(log).await
    }

    /// The CUDA version that counts: what the settings say, else the driver's; an image's `CUDA_VERSION` is what its own
    /// libraries are made for, which the driver may not run.
    fn cuda(&self) -> Option<Cuda> {
        if let Some((version, source)) = &self.options.cuda {
            return Some(Cuda {
                version: Cuda::parse(version)?,
                source: source.clone(),
            });
        }
        let path = self.variables.get("PATH").map_or("", String::as_str);
        let version = smi::cuda(path).unwrap_or(0);
        let source = if version == 0 {
            "no driver answers"
        } else {
            "driver"
        };
        Some(Cuda {
            version,
            source: source.to_owned(),
        })
    }

    /// What is known of the image's cuDNN, in words: what the settings or the image itself say, else its files.
    async fn cudnn(&self) -> Option<String> {
        if let Some((version, source)) = &self.options.cudnn {
            return Some(cudnn::given(version, source));
        }
        let (version, file) = cudnn::look(&self.variables).await?;
        Some(cudnn::told(&version, &file.display().to_string()))
    }

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
        if !self.variables.contains_key("GIT_CONFIG_COUNT") {
            // What was brought from git belongs to the user of another container.
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", "safe.directory");
            command.env("GIT_CONFIG_VALUE_0", "*");
        }
        command
    }

    /// Takes packages out of uv's cache. An environment's files are links into it: what is damaged here is damaged there.
    async fn forget(&self, base: &Path, packages: &[String]) {
        let mut clean = self.uv(base);
        clean.args(["cache", "clean", "--quiet"]).args(packages);
        let _ = tool::run(clean, None, QUICK, &mut |_| {}).await;
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
