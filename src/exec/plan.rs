//! PURE: a task and the binding's settings -> what is to be checked out, written, installed and run.
//!
//! ```text
//! task.script ─┬▶ checkout      repository, revision                 carried out by `git`     in `prepare`
//!              ├▶ source        patch or literal script              carried out by `diff`    in `prepare`
//!              ├▶ environment   requirements, python version         carried out by `python`  in the task's image
//!              └▶ command       entry point, working directory       carried out by `process` in the task's image
//! ```
//!
//! Rules: `protocol.md` §7.3 to §7.8. Everything in a task is untrusted: no path leaves the checkout, no text becomes
//! an option of a program.

mod command;
mod image;
mod repository;
mod requirements;
mod variables;

use std::path::{Component, Path, PathBuf};

pub use command::{Command, Entry, Launch, Machine};
pub use repository::{Checkout, Credentials, Revision, address, is_latest};
pub use requirements::{Requirements, effective_lines, written_back};
pub use variables::{Surroundings, Variables};

use crate::task::Task;

/// Largest diff or literal script.
const MAX_SOURCE: usize = 32 << 20;
/// Largest requirement list.
const MAX_REQUIREMENTS: usize = 1 << 20;
/// Longest entry point, working directory, or name of a revision.
const MAX_TEXT: usize = 16 << 10;

/// What the SDK (clearml 2.1.12) writes in place of a diff that it could not make.
const NOT_RECORDED: &str = "# Repository modified, but no git diff could be extracted.";

/// How the Python environment is made (`environment.manager` of the binding).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manager {
    /// uv.
    #[default]
    Auto,
    /// uv.
    Uv,
    /// pip, in an environment made by uv.
    Pip,
    /// What `poetry.lock` says, installed by uv.
    Poetry,
    /// `micromamba`, `mamba` or `conda` of the image.
    Conda,
    /// The image's own Python, as it is.
    None,
}

impl Manager {
    /// As a binding names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uv => "uv",
            Self::Pip => "pip",
            Self::Poetry => "poetry",
            Self::Conda => "conda",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for Manager {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text {
            "" | "auto" => Ok(Self::Auto),
            "uv" => Ok(Self::Uv),
            "pip" => Ok(Self::Pip),
            "poetry" => Ok(Self::Poetry),
            "conda" => Ok(Self::Conda),
            "none" => Ok(Self::None),
            other => Err(PlanError::Manager(clipped(other))),
        }
    }
}

/// What a plan needs beside the task.
#[derive(Debug, Clone)]
pub struct PlanSettings {
    pub manager: Manager,
    /// Root of the checkout, or the folder of a stand-alone script (`pod::CODE`).
    pub code_root: PathBuf,
}

/// The ordered work of one task.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What to check out; `None` for a stand-alone script or code that the image holds.
    pub checkout: Option<Checkout>,
    /// What to lay over the checkout.
    pub source: Source,
    /// Where the command runs; absolute.
    pub working_dir: PathBuf,
    /// The Python installation to make; `None` means the image's own interpreter.
    pub environment: Option<Environment>,
    /// Version of Python that the task was recorded with, as in `3.11`.
    pub python: Option<String>,
    pub command: Command,
    /// Root of the checkout, or the folder of a stand-alone script.
    pub code_root: PathBuf,
    /// What `PYTHONPATH` begins with in place of the working directory.
    pub python_root: Option<PathBuf>,
    /// Remarks for the task's log.
    pub notes: Vec<String>,
}

/// What the task carries in `script.diff` (§7.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    None,
    /// A git diff, to be applied at the root of the checkout.
    Patch(String),
    /// A whole script, to be written unless a file of that name is there.
    Script {
        path: PathBuf,
        text: String,
    },
}

/// A Python installation made for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub requirements: Requirements,
    pub manager: Manager,
    /// Where locks and project files are looked for: the root of the checkout, down to the entry point's folder.
    pub folders: Vec<PathBuf>,
    /// The only one of them where what uv reads is looked for (`uv.lock`, `pyproject.toml`); absent: all.
    pub uv_folder: Option<PathBuf>,
    /// The same of Poetry (`poetry.lock`, `pyproject.toml`).
    pub poetry_folder: Option<PathBuf>,
    /// The task's own list for conda.
    pub conda: Option<String>,
}

/// A task that cannot be run as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "environment manager {0:?} is not supported; use \"auto\", \"uv\", \"pip\", \"poetry\", \"conda\" or \"none\""
    )]
    Manager(String),
    #[error("the task has no entry point: set script.entry_point to the file to run")]
    NoEntryPoint,
    #[error("script.{field} {value:?} leads out of the code folder; name a path inside of it")]
    Outside { field: &'static str, value: String },
    #[error("script.{field} {value:?} is not usable: {why}")]
    Unusable {
        field: &'static str,
        value: String,
        why: &'static str,
    },
    #[error("script.{field} is too large: {size} bytes, at most {limit} are accepted")]
    TooLarge {
        field: &'static str,
        size: usize,
        limit: usize,
    },
    #[error(
        "the task holds uncommitted changes (script.diff) but names no repository to apply them to"
    )]
    PatchWithoutRepository,
}

/// Turns a task into its plan.
pub fn plan(task: &Task, settings: &PlanSettings) -> Result<Plan, PlanError> {
    let script = &task.script;
    for (field, text) in [
        ("repository", &script.repository),
        ("branch", &script.branch),
        ("tag", &script.tag),
        ("version_num", &script.version_num),
        ("entry_point", &script.entry_point),
        ("working_dir", &script.working_dir),
        ("binary", &script.binary),
    ] {
        bounded(field, text, MAX_TEXT)?;
        if text.contains('\0') {
            return Err(PlanError::Unusable {
                field,
                value: clipped(text),
                why: "it holds a zero byte",
            });
        }
    }
    bounded("diff", &script.diff, MAX_SOURCE)?;

    let checkout = repository::checkout(script)?;
    let (entry_point, folder) = split_folder(script.entry_point.trim(), script.working_dir.trim());
    let literal = literal(&script.diff, checkout.is_some())?;
    // The image's own code may lie anywhere; what we write or check out stays in its folder.
    let own_code = checkout.is_none() && literal.is_none();
    let working_dir = inside(
        "working_dir",
        &settings.code_root,
        &settings.code_root,
        folder,
        own_code,
    )?;

    let command = command::command(script, entry_point, literal.is_some())?;
    if let Some(file) = command.file() {
        inside(
            "entry_point",
            &settings.code_root,
            &working_dir,
            &file,
            own_code,
        )?;
    }
    let mut notes = Vec::new();
    let source = match (literal, command.file()) {
        (Some(text), _) if checkout.is_some() && text.trim() == NOT_RECORDED => {
            notes.push("the uncommitted changes were not recorded with the task".to_owned());
            Source::None
        }
        (Some(text), Some(file)) => Source::Script {
            path: working_dir.join(file),
            text: text.to_owned(),
        },
        (Some(_), None) => {
            notes.push(
                "script.diff holds a script, but the entry point is no file: it is not written"
                    .to_owned(),
            );
            Source::None
        }
        (None, _) if script.diff.trim().is_empty() => Source::None,
        (None, _) => Source::Patch(script.diff.clone()),
    };
    let listed = requirements::listed(&script.requirements)?;
    let conda = requirements::conda(&script.requirements);
    let folders = folders(&settings.code_root, &working_dir, &command);
    let folders = checkout.is_some().then_some(folders);
    let environment = environment(settings, folders, listed, conda);
    let python = python_version(&script.binary);
    Ok(Plan {
        checkout,
        source,
        working_dir,
        environment,
        python,
        command,
        code_root: settings.code_root.clone(),
        python_root: None,
        notes,
    })
}

fn bounded(field: &'static str, text: &str, limit: usize) -> Result<(), PlanError> {
    if text.len() > limit {
        return Err(PlanError::TooLarge {
            field,
            size: text.len(),
            limit,
        });
    }
    Ok(())
}

fn clipped(text: &str) -> String {
    text.chars().take(120).collect()
}

/// With no working directory, `dir:script` names both (§7.3).
fn split_folder<'a>(entry_point: &'a str, working_dir: &'a str) -> (&'a str, &'a str) {
    let first_word = entry_point.split_whitespace().next().unwrap_or_default();
    if working_dir.is_empty()
        && !entry_point.starts_with('-')
        && let Some((folder, _)) = first_word.split_once(':')
    {
        return (&entry_point[folder.len() + 1..], folder);
    }
    (entry_point, working_dir)
}

/// The text of a stand-alone script, if `diff` is one and no git diff (§7.4).
fn literal(diff: &str, repository: bool) -> Result<Option<&str>, PlanError> {
    if diff.trim().is_empty() {
        return Ok(None);
    }
    let patch = diff.starts_with("diff ")
        || diff.to_ascii_lowercase().starts_with("submodule ")
            && diff.lines().any(|line| line.starts_with("diff "));
    match (patch, repository) {
        (true, true) => Ok(None),
        (true, false) if diff.starts_with("diff --git ") => Err(PlanError::PatchWithoutRepository),
        _ => Ok(Some(diff)),
    }
}

/// `relative` below `base`, without leaving `root`; an absolute path only where `absolute` allows it.
fn inside(
    field: &'static str,
    root: &Path,
    base: &Path,
    relative: impl AsRef<Path>,
    absolute: bool,
) -> Result<PathBuf, PlanError> {
    let relative = relative.as_ref();
    if relative.is_absolute() && absolute {
        return Ok(relative.to_owned());
    }
    let outside = || PlanError::Outside {
        field,
        value: clipped(&relative.to_string_lossy()),
    };
    let joined = normal(&base.join(relative));
    if relative.is_absolute() || !(joined.starts_with(root) || absolute) {
        return Err(outside());
    }
    Ok(joined)
}

/// The path without `.` and `..`, by its text alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn environment(
    settings: &PlanSettings,
    folders: Option<Vec<PathBuf>>,
    listed: Option<String>,
    conda: Option<String>,
) -> Option<Environment> {
    if settings.manager == Manager::None {
        return None;
    }
    let requirements = match (listed, &folders) {
        (Some(text), _) => Requirements::Listed(text),
        (None, Some(folders)) => Requirements::Repository(folders.clone()),
        (None, None) if conda.is_some() => Requirements::Repository(Vec::new()),
        (None, None) => return None,
    };
    Some(Environment {
        requirements,
        manager: settings.manager,
        folders: folders.unwrap_or_default(),
        uv_folder: None,
        poetry_folder: None,
        conda,
    })
}

/// The folders whose `requirements.txt` counts: the root, and down to the entry point's (§7.6).
fn folders(root: &Path, working_dir: &Path, command: &Command) -> Vec<PathBuf> {
    let entry = command.file().map(|file| normal(&working_dir.join(file)));
    let last = entry
        .as_deref()
        .and_then(Path::parent)
        .filter(|folder| folder.starts_with(root))
        .unwrap_or(working_dir);
    let mut folders: Vec<PathBuf> = last
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .map(Path::to_owned)
        .collect();
    folders.reverse();
    folders
}

/// `python3.11` -> `3.11`; `python3` and `python` ask for no version.
fn python_version(binary: &str) -> Option<String> {
    let name = binary.rsplit('/').next()?;
    let version = name.strip_prefix("python")?;
    let known = version.contains('.') && version.split('.').all(|part| part.parse::<u16>().is_ok());
    known.then(|| version.to_owned())
}

#[cfg(test)]
mod tests;
