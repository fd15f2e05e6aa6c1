//! The user's process: which program, where, with which environment variables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

use super::certificates;
use super::failure::Failure;
use super::notebook;
use super::plan::{Launch, Machine, Plan, Surroundings};
use super::python::{Python, find_program};
use super::settings::{OWN_PREFIX, Settings};
use super::spool::shared_folder;
use crate::pod;

/// Where programs are looked for in an image that does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names the file that appears when the run must end, to the user's process (see [`super::process`]).
pub const DEADLINE: &str = "TRAINYARD_DEADLINE_FILE";

/// The command of the user's process.
pub fn command(
    plan: &Plan,
    settings: &Settings,
    python: &Python,
    note: &dyn Fn(&str),
) -> Result<Command, Failure> {
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
    let mut launch = plan.command.launch(&plan.working_dir, &machine)?;
    if let Some(file) = launch
        .argv
        .get(2)
        .filter(|file| plan.command.is_notebook(file))
    {
        launch.argv[2] = converted(file, &launch, settings, note)?;
    }
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

/// Writes the script of a notebook beside it, or into the code folder where the image's own cannot be written.
fn converted(
    file: &str,
    launch: &Launch,
    settings: &Settings,
    note: &dyn Fn(&str),
) -> Result<String, Failure> {
    let path = launch.working_dir.join(file);
    let failed = |why: String| Failure::new(format!("the notebook {file} cannot be run: {why}"));
    let size = path
        .metadata()
        .map_err(|error| failed(error.to_string()))?
        .len();
    if size > notebook::MAX_NOTEBOOK {
        let most = notebook::MAX_NOTEBOOK;
        return Err(
            failed(format!("it has {size} bytes, at most {most} are read"))
                .hint("clear its outputs and commit it again"),
        );
    }
    let bytes = fs::read(&path).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let script = if text.trim_start().starts_with('{') {
        let converted = notebook::convert(&text).map_err(failed)?;
        converted.notes.iter().for_each(|line| note(line));
        converted.script
    } else {
        // What the SDK captured of a notebook is a script already, under the notebook's name.
        text.into_owned()
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!("{name}.py"));
    let elsewhere = settings.layout.code().join(format!("{name}.py"));
    let written = [beside, elsewhere]
        .into_iter()
        .find(|place| fs::write(place, &script).is_ok())
        .ok_or_else(|| failed("its script cannot be written anywhere".to_owned()))?;
    note(&format!("the notebook {file} is run as a script"));
    Ok(written.to_string_lossy().into_owned())
}

/// Everything that the user's process sees: the container's variables and the task's, none of ours but the attempt.
pub fn variables(
    plan: &Plan,
    settings: &Settings,
    environment: Option<&Path>,
) -> BTreeMap<String, String> {
    let conf = [PathBuf::from(pod::CLEARML_CONF), settings.layout.conf()];
    let conf = conf.iter().find(|path| path.is_file());
    let others = [&settings.web_host, &settings.files_host];
    let others = others.into_iter().filter_map(|host| host.as_deref());
    let hosts: Vec<&str> = std::iter::once(settings.api_host.as_str())
        .chain(others)
        .collect();
    let changes = plan.variables(Surroundings {
        inherited: &settings.inherited,
        task: &settings.task,
        worker: &settings.worker,
        conf: conf.map(PathBuf::as_path),
        environment,
        proxy: settings.proxy.as_deref(),
        hosts: &hosts,
    });
    let mut variables = settings.inherited.clone();
    variables.extend(changes.set);
    variables.retain(|name, _| !name.starts_with(OWN_PREFIX) || name == pod::env::ATTEMPT);
    for name in &changes.remove {
        variables.remove(name);
    }
    if let Some(bundle) = certificates::of_task(settings) {
        let bundle = bundle.to_string_lossy().into_owned();
        for name in certificates::VARIABLES {
            // What image or template say themselves counts.
            let known = variables.entry(name.to_owned());
            known.or_insert_with(|| bundle.clone());
        }
    }
    let deadline = settings.layout.deadline().to_string_lossy().into_owned();
    variables.insert(DEADLINE.to_owned(), deadline);
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
