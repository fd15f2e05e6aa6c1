//! From the plan to a command that can be started: setup scripts, Python environment, and what is recorded of both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::process::Command;
use tokio_util::task::TaskTracker;

use super::certificates;
use super::configuration;
use super::failure::Failure;
use super::plan::{Manager, Plan, PlanSettings, is_latest, plan, written_back};
use super::post::Post;
use super::process::Runner;
use super::python::{self, Python, PythonSettings};
use super::sections;
use super::settings::Settings;
use super::setup;
use super::start::{self, DEFAULT_PATH};
use super::tool::Log;
use crate::api::Client;
use crate::config::agent::Agent;
use crate::pod::{self, Prepared};
use crate::task::Task;

/// Longest time for the whole environment.
const LIMIT: Duration = Duration::from_hours(1);

/// What is to be done for the task, with all that the configuration says.
pub fn planned(
    task: &Task,
    settings: &Settings,
    agent: &Agent,
    code_root: PathBuf,
) -> Result<Plan, Failure> {
    if let Some(words) = &settings.entrypoint {
        // The container was started where the image or the template says.
        let working_dir = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        return Ok(Plan::of_image(words.clone(), working_dir, code_root));
    }
    let manager = configuration::manager(settings, agent)?;
    planned_with(task, manager, agent, code_root)
}

/// The same for a manager that is known.
pub fn planned_with(
    task: &Task,
    manager: Manager,
    agent: &Agent,
    code_root: PathBuf,
) -> Result<Plan, Failure> {
    let mut wanted = task.clone();
    configuration::choose_requirements(&mut wanted, agent);
    let mut plan = plan(&wanted, &PlanSettings { manager, code_root })
        .map_err(|error| Failure::new(error.to_string()))?;
    configuration::choose_python(&mut plan, agent);
    configuration::choose_folders(&mut plan, agent);
    Ok(plan)
}

/// The user's process as it is started, and the scripts after it.
pub struct Ready {
    pub command: Command,
    pub post: Post,
}

/// Makes the environment and the command of the user's process; `None` if it was interrupted.
pub async fn make(
    task: &Task,
    prepared: &Prepared,
    settings: &Settings,
    client: &Client,
    background: &TaskTracker,
    runner: &Runner<'_>,
) -> Result<Option<Ready>, Failure> {
    let agent = configuration::read(&settings.inherited)?;
    let plan = planned(task, settings, &agent, prepared.code_root.clone().into())?;
    let note = |text: &str| {
        if let Err(error) = runner.spool.note(text) {
            tracing::warn!(%error, "could not write to the spool");
        }
    };
    for text in &plan.notes {
        note(text);
    }
    configuration::warn(settings, &agent, &mut |text: &str| note(text));
    let mut settings = settings.clone();
    settings.inherited = sections::variables(&agent, task, &settings.inherited);
    let home = start::variables(&plan, &settings, None);
    sections::write_files(&agent, &home, &mut |text: &str| note(text))?;
    for setup in setup::of(task, &settings, &agent) {
        match setup::run(&setup, &plan, &settings, runner.clone()).await? {
            Some(variables) => settings.inherited = variables,
            None => return Ok(None),
        }
    }
    let settings = &settings;
    let python = python::make(
        &plan,
        &python_settings(&plan, settings, &agent, prepared),
        &mut |line: &str| {
            note(line);
        },
    )
    .await?;
    python.held.keep_for_ever();
    background.spawn(record(task, prepared, &python, settings, client));
    let command = start::command(&plan, settings, &python, &note)?;
    let post = Post::of(settings, &agent, &command);
    Ok(Some(Ready { command, post }))
}

/// Makes the environment of a task that has not come yet, where nothing but the task's document decides on it; nothing of
/// it is recorded.
pub async fn ahead(
    task: &Task,
    prepared: &Prepared,
    settings: &Settings,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    let agent = configuration::read(&settings.inherited)?;
    if !setup::of(task, settings, &agent).is_empty() {
        return Err(Failure::new(
            "a setup script comes before this environment, and is part of the task's run",
        ));
    }
    let plan = planned(task, settings, &agent, prepared.code_root.clone().into())?;
    let mut settings = settings.clone();
    settings.inherited = sections::variables(&agent, task, &settings.inherited);
    let home = start::variables(&plan, &settings, None);
    sections::write_files(&agent, &home, log)?;
    let mut of_python = python_settings(&plan, &settings, &agent, prepared);
    of_python.driver_elsewhere = settings.without_devices;
    python::make(&plan, &of_python, log).await.map(drop)
}

fn python_settings(
    plan: &Plan,
    settings: &Settings,
    agent: &Agent,
    prepared: &Prepared,
) -> PythonSettings {
    let mut variables = configuration::surroundings(plan, agent, &settings.inherited);
    variables
        .entry("PATH".to_owned())
        .or_insert_with(|| DEFAULT_PATH.to_owned());
    let mut options = configuration::options(settings, agent);
    // Repositories lie on the same volume.
    options.cache_limit = options
        .cache_limit
        .map(|limit| limit.saturating_sub(prepared.cached));
    PythonSettings {
        uv: settings.layout.bin().join("uv"),
        cache: settings.layout.cache(),
        own: settings.layout.root().join("environment"),
        alone: false,
        driver_elsewhere: false,
        variables,
        index_url: settings.index_url.clone(),
        trusted: Path::new(pod::INDEX_CA)
            .exists()
            .then(|| certificates::of_task(settings))
            .flatten(),
        limit: LIMIT,
        options,
        brought: prepared.requirements.clone(),
    }
}

/// Writes into the task which commit and which packages it runs with; the run neither waits for it nor fails with it.
fn record(
    task: &Task,
    prepared: &Prepared,
    python: &Python,
    settings: &Settings,
    client: &Client,
) -> impl Future<Output = ()> + use<> {
    let script = prepared
        .commit
        .as_ref()
        .filter(|_| is_latest(&task.script.version_num))
        .map(|commit| Map::from_iter([("version_num".to_owned(), Value::from(commit.clone()))]));
    let requirements = python
        .installed
        .as_ref()
        .map(|installed| written_back(&task.script.requirements, installed))
        .filter(|requirements| *requirements != task.script.requirements);
    let (client, id) = (client.clone(), settings.task.clone());
    async move {
        if let Some(requirements) = requirements
            && let Err(error) = client.set_requirements(&id, &requirements).await
        {
            tracing::warn!(%error, "could not record the installed packages in the task");
        }
        if let Some(script) = script
            && let Err(error) = client.edit_script(&id, &script).await
        {
            tracing::warn!(%error, "could not record the commit in the task");
        }
    }
}
