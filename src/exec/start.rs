//! The user's process: which program, where, with which environment variables.

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

use super::failure::Failure;
use super::plan::{Machine, Plan, Surroundings};
use super::python::{Python, find_program};
use super::settings::{OWN_PREFIX, Settings};
use super::spool::shared_folder;
use crate::pod;

/// Where programs are looked for in an image that does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command of the user's process.
pub fn command(plan: &Plan, settings: &Settings, python: &Python) -> Result<Command, Failure> {
    let variables = variables(plan, settings, python.environment.as_deref());
    let path = variables
        .get("PATH")
        .cloned()
        .unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let machine = Machine {
        interpreter: python
            .interpreter
            .as_deref()
            .unwrap_or(Path::new("python3")),
        is_file: &|path| path.is_file(),
        program: &|name| find_program(name, &path),
        variable: &|name| variables.get(name).cloned(),
    };
    let launch = plan.command.launch(&plan.working_dir, &machine)?;
    let Some((program, arguments)) = launch.argv.split_first() else {
        return Err(Failure::new("the task names no program to run"));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&launch.working_dir)
        .env_clear()
        .envs(&variables);
    Ok(command)
}

/// Everything that the user's process sees: the container's variables and the task's, none of ours but the attempt.
pub fn variables(
    plan: &Plan,
    settings: &Settings,
    environment: Option<&Path>,
) -> BTreeMap<String, String> {
    let conf = Path::new(pod::CLEARML_CONF);
    let changes = plan.variables(Surroundings {
        inherited: &settings.inherited,
        task: &settings.task,
        worker: &settings.worker,
        conf: conf.is_file().then_some(conf),
        environment,
    });
    let mut variables = settings.inherited.clone();
    variables.extend(changes.set);
    variables.retain(|name, _| !name.starts_with(OWN_PREFIX) || name == pod::env::ATTEMPT);
    for name in &changes.remove {
        variables.remove(name);
    }
    if !variables
        .get("HOME")
        .is_some_and(|home| writable(Path::new(home)))
    {
        let home = settings.layout.home();
        if shared_folder(&home).is_ok() {
            variables.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        }
    }
    variables
}

fn writable(folder: &Path) -> bool {
    folder.is_dir() && access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}
