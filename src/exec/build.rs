//! `trainyard build`: what a task runs with, made ahead of time by the same code that makes it in a pod.
//!
//! ```text
//! task ──▶ code, git requirements ──▶ folder:  environment ──▶ run
//!                                └──▶ context: Dockerfile, whose build makes the environment inside the image ──▶ run
//! ```
//!
//! Neither a server nor a network is needed to run what was built, unless the script itself asks for one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::configuration;
use super::diff;
use super::environment::planned_with;
use super::failure::{Failure, masked};
use super::git::{self, GitSettings};
use super::plan::{Machine, Manager, Plan, Source, Surroundings};
use super::python::{self, Python, PythonSettings, find_program};
use super::requirements;
use super::start::DEFAULT_PATH;
use super::tool::Log;
use crate::config::agent::Agent;
use crate::pod::Brought;
use crate::task::{Task, WorkerId};

/// Where an image keeps what was built.
const IN_IMAGE: &str = "/opt/trainyard";
/// What a context holds for the build inside the image.
const ORDER: &str = "order.json";
/// Longest time for one part of the work.
const LIMIT: Duration = Duration::from_hours(2);

/// What is to be built.
pub struct Wanted<'a> {
    pub task: &'a Task,
    pub agent: &'a Agent,
    /// Made, or empty.
    pub target: &'a Path,
    /// The environment of this process.
    pub variables: &'a BTreeMap<String, String>,
    pub manager: Manager,
    pub index_url: Option<String>,
}

/// The work that is left to the build inside the image.
#[derive(Serialize, Deserialize)]
struct Order {
    version: u32,
    task: Task,
    /// `auto`, `uv`, ..., as in a binding.
    manager: String,
    index_url: Option<String>,
    /// Keys of `clearml.conf` that concern packages; secrets are left out.
    configuration: BTreeMap<String, Value>,
    requirements: Vec<Brought>,
}

/// Builds into a folder; the answer is the program that runs the task.
pub async fn folder(wanted: &Wanted<'_>, log: &mut Log<'_>) -> Result<PathBuf, Failure> {
    let target = empty(wanted.target)?;
    let (plan, brought) = code(wanted, &target, log).await?;
    finish(wanted, &target, &plan, brought, log).await
}

/// Writes a folder from which `docker build` and the like make an image.
pub async fn context(
    wanted: &Wanted<'_>,
    image: &str,
    log: &mut Log<'_>,
) -> Result<PathBuf, Failure> {
    let target = empty(wanted.target)?;
    let (_, mut brought) = code(wanted, &target, log).await?;
    for one in &mut brought {
        one.folder = one.folder.replacen(&*target.to_string_lossy(), IN_IMAGE, 1);
    }
    let programs = target.join("bin");
    fs::create_dir_all(&programs).map_err(|error| unwritten(&programs, &error))?;
    let own = std::env::current_exe()
        .map_err(|error| Failure::new(format!("this program cannot be found: {error}")))?;
    bring(&own, &programs.join("trainyard"))?;
    bring(&uv(wanted.variables)?, &programs.join("uv"))?;
    let order = Order {
        version: crate::pod::VERSION,
        task: wanted.task.clone(),
        manager: wanted.manager.name().to_owned(),
        index_url: wanted.index_url.clone(),
        configuration: portable(wanted.agent, log),
        requirements: brought,
    };
    let order = serde_json::to_vec_pretty(&order)
        .map_err(|error| Failure::new(format!("the task cannot be written: {error}")))?;
    write(&target.join(ORDER), &order)?;
    write(&target.join("Dockerfile"), dockerfile(image).as_bytes())?;
    Ok(target.join("Dockerfile"))
}

/// The part of a context's build that runs inside the image.
pub async fn in_image(
    order: &Path,
    variables: &BTreeMap<String, String>,
    log: &mut Log<'_>,
) -> Result<PathBuf, Failure> {
    let unread = |why: String| Failure::new(format!("{} cannot be read: {why}", order.display()));
    let text = fs::read(order).map_err(|error| unread(error.to_string()))?;
    let read: Order = serde_json::from_slice(&text).map_err(|error| unread(error.to_string()))?;
    let target = order
        .parent()
        .and_then(|folder| folder.canonicalize().ok())
        .ok_or_else(|| unread("its folder is not there".to_owned()))?;
    let agent = Agent::of_values(read.configuration);
    let wanted = Wanted {
        task: &read.task,
        agent: &agent,
        target: &target,
        variables,
        manager: read
            .manager
            .parse()
            .map_err(|error| unread(format!("{error}")))?,
        index_url: read.index_url,
    };
    let plan = planned_with(wanted.task, wanted.manager, &agent, target.join("code"))?;
    let mut brought = read.requirements;
    // A context may be tried elsewhere than in the image that it is for.
    for one in &mut brought {
        one.folder = one.folder.replacen(IN_IMAGE, &target.to_string_lossy(), 1);
    }
    finish(&wanted, &target, &plan, brought, log).await
}

/// Code and git requirements into the target.
async fn code(
    wanted: &Wanted<'_>,
    target: &Path,
    log: &mut Log<'_>,
) -> Result<(Plan, Vec<Brought>), Failure> {
    let root = target.join("code");
    let plan = planned_with(wanted.task, wanted.manager, wanted.agent, root.clone())?;
    for note in &plan.notes {
        log(note);
    }
    let settings = GitSettings {
        options: configuration::git(wanted.agent),
        ..GitSettings::default()
    };
    fs::create_dir_all(&root).map_err(|error| unwritten(&root, &error))?;
    if let Some(checkout) = &plan.checkout {
        git::checkout(checkout, &root, &settings, log).await?;
    }
    match &plan.source {
        Source::None => {}
        Source::Patch(patch) => diff::apply(patch, &root, &settings.git, log).await?,
        Source::Script { path, text } => {
            if let Some(remark) = diff::write_script(path, text, &root)? {
                log(&remark);
            }
        }
    }
    let folder = target.join("requirements");
    let brought = requirements::bring(&plan, &settings, &folder, log).await;
    Ok((plan, brought))
}

/// The environment, and the program that runs the task in it.
async fn finish(
    wanted: &Wanted<'_>,
    target: &Path,
    plan: &Plan,
    brought: Vec<Brought>,
    log: &mut Log<'_>,
) -> Result<PathBuf, Failure> {
    let own = target.join("python");
    let mut variables = configuration::surroundings(plan, wanted.agent, wanted.variables);
    variables
        .entry("PATH".to_owned())
        .or_insert_with(|| DEFAULT_PATH.to_owned());
    let settings = PythonSettings {
        uv: uv(wanted.variables)?,
        cache: own.join("cache"),
        own: own.clone(),
        alone: true,
        driver_elsewhere: false,
        variables,
        index_url: wanted.index_url.clone(),
        trusted: None,
        limit: LIMIT,
        options: configuration::options_with(
            wanted.agent,
            wanted.variables,
            wanted.index_url.is_some(),
            None,
        ),
        brought,
    };
    let python = python::make(plan, &settings, log).await?;
    // What was only needed for the making; an interpreter that was brought is needed for ever.
    let cache = own.join("cache");
    let interpreter = python
        .interpreter
        .as_ref()
        .and_then(|path| path.canonicalize().ok());
    if !interpreter.is_some_and(|path| path.starts_with(&cache)) {
        let _ = fs::remove_dir_all(&cache);
    }
    if let Some(installed) = &python.installed {
        let list = installed.join("\n") + "\n";
        write(&target.join("installed.txt"), list.as_bytes())?;
    }
    let run = target.join("run");
    write(&run, script(wanted, plan, &python)?.as_bytes())?;
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755))
        .map_err(|error| unwritten(&run, &error))?;
    Ok(run)
}

/// A shell script that starts the task as a pod would.
fn script(wanted: &Wanted<'_>, plan: &Plan, python: &Python) -> Result<String, Failure> {
    // What the machine that builds has set is nothing to whoever runs it, but for where programs are.
    let path = wanted
        .variables
        .get("PATH")
        .map_or(DEFAULT_PATH, String::as_str);
    let inherited: BTreeMap<String, String> = [("PATH".to_owned(), path.to_owned())].into();
    let variables = plan.variables(Surroundings {
        inherited: &inherited,
        task: &wanted.task.id,
        worker: &WorkerId("built".to_owned()),
        conf: None,
        environment: python.environment.as_deref(),
        proxy: None,
        hosts: &[],
    });
    let machine = Machine {
        interpreter: python
            .interpreter
            .as_deref()
            .unwrap_or(Path::new("python3")),
        is_file: &|path| path.is_file(),
        program: &|name| find_program(name, path),
        variable: &|_| None,
    };
    let launch = plan.command.launch(&plan.working_dir, &machine)?;
    let is_notebook = launch
        .argv
        .get(2)
        .is_some_and(|file| plan.command.is_notebook(file));
    if is_notebook {
        return Err(Failure::new("a notebook cannot be built ahead of time")
            .hint("export it as a script, or let it run in a pod"));
    }
    let mut text = String::from(
        "#!/bin/sh\n# Runs the task that was built here; arguments are added to the task's own.\n",
    );
    // Without a server the task is nobody's: the SDK would look for it.
    for (name, value) in &variables.set {
        let of_a_server = ["CLEARML_", "TRAINS_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if name == "PATH" {
            if let Some(environment) = &python.environment {
                let programs = environment.join("bin");
                let _ = writeln!(
                    text,
                    "export PATH={}:\"$PATH\"",
                    quoted(&programs.to_string_lossy())
                );
            }
        } else if name == "PYTHONPATH" {
            let _ = writeln!(
                text,
                "export PYTHONPATH={}\"${{PYTHONPATH:+:$PYTHONPATH}}\"",
                quoted(value)
            );
        } else if !of_a_server {
            let _ = writeln!(text, "export {name}={}", quoted(value));
        }
    }
    let _ = writeln!(
        text,
        "cd {} || exit",
        quoted(&launch.working_dir.to_string_lossy())
    );
    let words: Vec<String> = launch.argv.iter().map(|word| quoted(word)).collect();
    let _ = writeln!(text, "exec {} \"$@\"", words.join(" "));
    Ok(text)
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// No shell is needed in the image; `run` needs one, as tasks that people start by hand do.
fn dockerfile(image: &str) -> String {
    format!(
        "# What a task runs with, made by `trainyard build`.\n\
         FROM {image}\n\
         COPY . {IN_IMAGE}/\n\
         RUN [\"{IN_IMAGE}/bin/trainyard\", \"build\", \"--order\", \"{IN_IMAGE}/{ORDER}\"]\n\
         ENV PATH={IN_IMAGE}/python/environment/bin:$PATH\n\
         ENTRYPOINT [\"{IN_IMAGE}/run\"]\n"
    )
}

/// The keys that decide on packages, as they are set; addresses lose their passwords.
fn portable(agent: &Agent, log: &mut Log<'_>) -> BTreeMap<String, Value> {
    let counts = |path: &str| {
        path.starts_with("agent.package_manager.")
            || [
                "agent.cuda_version",
                "agent.cudnn_version",
                "agent.cpu_only",
                "agent.default_python",
                "agent.python_binary",
                "agent.ignore_requested_python_version",
                "agent.force_git_root_python_path",
                "agent.docker_use_activated_venv",
            ]
            .contains(&path)
    };
    let mut kept = BTreeMap::new();
    for (path, value) in agent.set().filter(|(path, _)| counts(path)) {
        let text = value.to_string();
        let bare = masked(&text);
        if bare == text {
            kept.insert(path.to_owned(), value.clone());
        } else {
            log(&format!(
                "{path} holds a password and does not go into the context: give the index to the image's build by PIP_EXTRA_INDEX_URL"
            ));
        }
    }
    kept
}

/// Our uv beside this program, else the one in `PATH`.
fn uv(variables: &BTreeMap<String, String>) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join("uv")))
        .filter(|uv| uv.is_file());
    let path = variables.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    beside.or_else(|| find_program("uv", path)).ok_or_else(|| {
        Failure::new("uv is neither beside this program nor in PATH")
            .hint("run trainyard's image, which has it, or install uv")
    })
}

/// The target, absolute; one that holds something is left alone.
fn empty(target: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(target).map_err(|error| unwritten(target, &error))?;
    let target = target
        .canonicalize()
        .map_err(|error| unwritten(target, &error))?;
    let holds = fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some());
    if holds {
        return Err(Failure::new(format!("{} is not empty", target.display()))
            .hint("name a new folder, or remove what is there"));
    }
    Ok(target)
}

fn bring(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to).map(drop).map_err(|error| {
        Failure::new(format!(
            "{} cannot be copied to {}: {error}",
            from.display(),
            to.display()
        ))
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn an_image_is_built_without_a_shell() {
        let text = dockerfile("python:3.12");
        assert!(text.contains("FROM python:3.12\n"));
        assert!(
            text.lines()
                .filter(|line| line.starts_with("RUN"))
                .all(|line| line.starts_with("RUN ["))
        );
    }
}
