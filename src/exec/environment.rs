//! From the plan to a command that can be started: setup script, Python environment, and what is recorded of both.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::process::Command;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::outcome::Exit;
use super::plan::{Plan, PlanSettings, plan, written_back};
use super::process::{Ended, Runner};
use super::python::{self, Python, PythonSettings, find_program};
use super::settings::Settings;
use super::start::{self, DEFAULT_PATH};
use crate::api::Client;
use crate::pod::{self, Prepared};
use crate::task::Task;

/// Longest time for the whole environment.
const LIMIT: Duration = Duration::from_hours(1);

/// Makes the environment and the command of the user's process; `None` if it was interrupted.
pub async fn make(
    task: &Task,
    prepared: &Prepared,
    settings: &Settings,
    client: &Client,
    background: &TaskTracker,
    runner: &Runner<'_>,
) -> Result<Option<Command>, Failure> {
    let manager = settings
        .manager
        .parse()
        .map_err(|error| Failure::new(format!("{error}")))?;
    let code_root = prepared.code_root.clone().into();
    let plan = plan(task, &PlanSettings { manager, code_root })
        .map_err(|error| Failure::new(error.to_string()))?;
    let note = |text: &str| {
        if let Err(error) = runner.spool.note(text) {
            tracing::warn!(%error, "could not write to the spool");
        }
    };
    for text in &plan.notes {
        note(text);
    }
    if let Some(script) = &settings.setup_script
        && !run_setup(script, &plan, settings, runner.clone()).await?
    {
        return Ok(None);
    }
    let python = python::make(&plan, &python_settings(settings), &mut |line: &str| {
        note(line);
    })
    .await?;
    background.spawn(record(task, prepared, &python, settings, client));
    start::command(&plan, settings, &python).map(Some)
}

fn python_settings(settings: &Settings) -> PythonSettings {
    let mut variables = settings.inherited.clone();
    variables
        .entry("PATH".to_owned())
        .or_insert_with(|| DEFAULT_PATH.to_owned());
    PythonSettings {
        uv: settings.layout.bin().join("uv"),
        cache: settings.layout.cache(),
        own: settings.layout.root().join("environment"),
        variables,
        index_url: settings.index_url.clone(),
        index_ca: Some(pod::INDEX_CA.into()).filter(|path: &std::path::PathBuf| path.exists()),
        limit: LIMIT,
    }
}

/// Runs the binding's setup script; `false` if it was interrupted.
async fn run_setup(
    script: &str,
    plan: &Plan,
    settings: &Settings,
    mut runner: Runner<'_>,
) -> Result<bool, Failure> {
    let variables = start::variables(plan, settings, None);
    let path = variables.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let shell = find_program("sh", path).ok_or_else(|| {
        Failure::new("the binding has a setup script, but the image has no shell to run it")
            .hint("use an image with /bin/sh, or remove environment.setupScript from the binding")
    })?;
    let folder = if plan.working_dir.is_dir() {
        plan.working_dir.as_path()
    } else {
        Path::new("/")
    };
    let mut command = Command::new(shell);
    command
        .arg("-c")
        .arg(script)
        .current_dir(folder)
        .env_clear()
        .envs(&variables);
    match runner.run(command).await {
        Ok(Ended::Itself(Exit::Code(0))) => Ok(true),
        Ok(Ended::Itself(exit)) => Err(Failure::new(format!(
            "the setup script of the binding ended with {}",
            exit.describe()
        ))),
        Ok(Ended::Interrupted { .. }) => Ok(false),
        Err(error) => Err(Failure::new(format!(
            "the setup script of the binding could not be started: {error}"
        ))),
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
        .filter(|_| task.script.version_num.trim().is_empty())
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
