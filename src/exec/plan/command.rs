//! The user's command: entry point and interpreter -> argument list (§7.3, §7.8).

use std::path::{Path, PathBuf};

use super::{PlanError, clipped, image, normal};
use crate::exec::failure::Failure;
use crate::exec::words;
use crate::task::Script;

/// Which interpreter runs what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The shell that the task was recorded with; `None` means Python.
    pub shell: Option<String>,
    pub entry: Entry,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file relative to the working directory, perhaps with arguments behind it: the existing file decides.
    File(String),
    /// What follows `-m`: a module and its arguments.
    Module(String),
    /// What follows `-c`.
    Code(String),
    /// The image's own command, program first, with Kubernetes' references to variables.
    Image(Vec<String>),
}

/// What the machine that runs the command knows.
pub struct Machine<'a> {
    /// The Python of the environment, or the image's own.
    pub interpreter: &'a Path,
    pub is_file: &'a dyn Fn(&Path) -> bool,
    /// Finds a program in the image's `PATH`.
    pub program: &'a dyn Fn(&str) -> Option<PathBuf>,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// A command that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub argv: Vec<String>,
    pub working_dir: PathBuf,
}

const SHELLS: [&str; 6] = ["sh", "bash", "zsh", "dash", "ash", "ksh"];

/// Reads interpreter and entry point of a task; `literal` says that the script's text comes with it.
pub(super) fn command(
    script: &Script,
    entry_point: &str,
    literal: bool,
) -> Result<Command, PlanError> {
    let shell = shell(script.binary.trim())?;
    let entry = match option(entry_point) {
        Some(("-m", rest)) if shell.is_none() => module(rest)?,
        Some(("-c", rest)) => Entry::Code(code(rest)),
        _ if entry_point.is_empty() && literal => Entry::File(
            if shell.is_some() {
                "untitled.sh"
            } else {
                "untitled.py"
            }
            .to_owned(),
        ),
        _ if entry_point.is_empty() => return Err(PlanError::NoEntryPoint),
        _ if entry_point.starts_with('-') => {
            let why = "name a file, \"-m module\" or \"-c code\"";
            return Err(PlanError::Unusable {
                field: "entry_point",
                value: clipped(entry_point),
                why,
            });
        }
        _ => Entry::File(entry_point.to_owned()),
    };
    Ok(Command { shell, entry })
}

fn option(entry_point: &str) -> Option<(&str, &str)> {
    let (option, rest) = entry_point.split_once(char::is_whitespace)?;
    Some((option, rest.trim()))
}

fn module(rest: &str) -> Result<Entry, PlanError> {
    match words::split(rest).as_deref() {
        Some([module, ..]) if !module.starts_with('-') => Ok(Entry::Module(rest.to_owned())),
        _ => Err(PlanError::Unusable {
            field: "entry_point",
            value: clipped(rest),
            why: "\"-m\" is followed by a module and its arguments, with closed quotes",
        }),
    }
}

/// Code may stand in quotes, as on a command line, or bare.
fn code(rest: &str) -> String {
    let quoted = rest.starts_with(['\'', '"']);
    match words::split(rest) {
        Some(words) if quoted && words.len() == 1 => words.concat(),
        _ => rest.to_owned(),
    }
}

fn shell(binary: &str) -> Result<Option<String>, PlanError> {
    let name = binary.rsplit('/').next().unwrap_or(binary);
    if name.is_empty() || name.starts_with("python") || name.starts_with("pypy") {
        return Ok(None);
    }
    if SHELLS.contains(&name) {
        return Ok(Some(name.to_owned()));
    }
    let why = "it is neither a Python nor a shell";
    Err(PlanError::Unusable {
        field: "binary",
        value: clipped(binary),
        why,
    })
}

impl Command {
    /// Whether the task's own code is run.
    pub fn runs_code(&self) -> bool {
        !matches!(self.entry, Entry::Image(_))
    }

    /// The file that the entry point most likely names: the whole text, unless arguments follow a script's name.
    pub fn file(&self) -> Option<String> {
        let Entry::File(written) = &self.entry else {
            return None;
        };
        match words::split(written) {
            Some(words) if words.len() > 1 && looks_like_a_script(&words[0]) => {
                words.into_iter().next()
            }
            _ => Some(written.clone()),
        }
    }

    /// Whether a file of this name is a notebook to this command.
    pub fn is_notebook(&self, file: &str) -> bool {
        self.shell.is_none()
            && matches!(self.entry, Entry::File(_))
            && has_extension(file, &["ipynb"])
    }

    /// The argument list, now that the files are there.
    pub fn launch(&self, working_dir: &Path, machine: &Machine<'_>) -> Result<Launch, Failure> {
        let mut argv = match (&self.entry, &self.shell) {
            (Entry::Image(_), _) => Vec::new(),
            (_, None) => vec![
                machine.interpreter.to_string_lossy().into_owned(),
                "-u".to_owned(),
            ],
            (_, Some(shell)) => vec![shell_in(shell, machine)?],
        };
        match &self.entry {
            Entry::Image(words) => argv.extend(image::argv(words, machine)?),
            Entry::Module(rest) => {
                argv.push("-m".to_owned());
                let words = words::split(rest).unwrap_or_default();
                argv.extend(
                    words
                        .iter()
                        .map(|word| words::expand(word, machine.variable)),
                );
            }
            Entry::Code(code) => argv.extend(["-c".to_owned(), code.clone()]),
            Entry::File(written) => argv.extend(file_and_arguments(written, working_dir, machine)?),
        }
        Ok(Launch {
            argv,
            working_dir: working_dir.to_owned(),
        })
    }
}

fn looks_like_a_script(word: &str) -> bool {
    has_extension(word, &["py", "sh", "ipynb", "bash"])
}

fn has_extension(name: &str, known: &[&str]) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| known.iter().any(|known| extension == *known))
}

/// A shell that the image lacks is replaced by its plain `sh`.
fn shell_in(shell: &str, machine: &Machine<'_>) -> Result<String, Failure> {
    let found = (machine.program)(shell).or_else(|| (machine.program)("sh"));
    let Some(found) = found else {
        return Err(Failure::new(format!(
            "the image has no shell, but the task is a {shell} script"
        ))
        .hint("use an image with a shell, or a Python entry point"));
    };
    Ok(found.to_string_lossy().into_owned())
}

fn file_and_arguments(
    written: &str,
    working_dir: &Path,
    machine: &Machine<'_>,
) -> Result<Vec<String>, Failure> {
    let exists = |file: &str| (machine.is_file)(&normal(&working_dir.join(file)));
    if exists(written) {
        return Ok(vec![written.to_owned()]);
    }
    let words = words::split(written).unwrap_or_default();
    match words.split_first() {
        Some((file, arguments)) if exists(file) => {
            let arguments = arguments
                .iter()
                .map(|word| words::expand(word, machine.variable));
            Ok(std::iter::once(file.clone()).chain(arguments).collect())
        }
        first => {
            let file = first.map_or(written, |(file, _)| file);
            Err(Failure::new(format!("the entry point {file} is not in {}", working_dir.display()))
                .hint("check the task's entry point and working directory, and that the file is committed"))
        }
    }
}
