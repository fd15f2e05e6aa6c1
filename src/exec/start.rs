//! The user's process: which program, where, with which environment variables.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

use super::failure::Failure;
use super::plan::{Machine, Plan, Surroundings};
use super::settings::{OWN_PREFIX, Settings};
use super::spool::shared_folder;
use crate::pod;

/// The command of the user's process; `interpreter` is the Python that runs it, `environment` the root of the
/// installation that was made for it.
pub fn command(
    plan: &Plan,
    settings: &Settings,
    interpreter: &Path,
    environment: Option<&Path>,
) -> Result<Command, Failure> {
    let variables = variables(plan, settings, environment);
    let path = variables.get("PATH").cloned();
    let machine = Machine {
        interpreter,
        is_file: &|path| path.is_file(),
        program: &|name| find_program(name, path.as_deref()),
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

/// Where the image's `PATH` has this program; without a `PATH` the usual folders are searched.
pub fn find_program(name: &str, path: Option<&str>) -> Option<PathBuf> {
    let folders = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    folders
        .split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(name))
        .find(|program| {
            program.metadata().is_ok_and(|metadata| {
                metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
            })
        })
}
