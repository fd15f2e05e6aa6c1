//! `trainyard build`: makes ahead of time what a task runs with, into a folder or for an image.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{config, print_error, print_text};
use crate::api::{Client, Credentials, Settings};
use crate::config::agent::Agent;
use crate::config::env::Environment;
use crate::exec::build::{self, Wanted};
use crate::exec::configuration;
use crate::exec::tool::Log;
use crate::task::{Task, TaskId};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Id of the task.
    #[arg(long, value_name = "ID", required_unless_present = "order")]
    id: Option<TaskId>,
    /// The folder to build into; made if it is not there, and it must be empty.
    #[arg(long, value_name = "DIR", required_unless_present = "order")]
    target: Option<PathBuf>,
    /// Write a build context for an image instead: on this image, else on the task's own.
    #[arg(long, value_name = "IMAGE", num_args = 0..=1, default_missing_value = "")]
    docker: Option<String>,
    /// How the environment is made, as in a binding: auto, uv, pip, poetry, conda or none.
    #[arg(long, value_name = "MANAGER", default_value = "auto")]
    manager: String,
    /// Package index, as in a binding.
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,
    /// Read this file alone, instead of those in the home folder.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// What a context's Dockerfile runs inside the image.
    #[arg(long, value_name = "FILE", hide = true, conflicts_with_all = ["id", "target", "docker"])]
    order: Option<PathBuf>,
}

pub(super) fn main(flags: &Flags) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let built = match runtime {
        Ok(runtime) => runtime.block_on(run(flags)),
        Err(error) => Err(error.to_string()),
    };
    match built {
        Ok(path) => print_text(&format!("{}\n", path.display())),
        Err(message) => {
            print_error(&message);
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> Result<PathBuf, String> {
    let environment = Environment::read();
    let variables = environment.all();
    let log: &mut Log<'_> = &mut |line: &str| say(line);
    if let Some(order) = &flags.order {
        return build::in_image(order, &variables, log)
            .await
            .map_err(|failure| failure.to_string());
    }
    let agent = config::read(flags.config_file.as_deref(), &environment)?;
    let (Some(id), Some(target)) = (&flags.id, &flags.target) else {
        return Err("--id and --target are needed".to_owned());
    };
    let task = task(&agent, id).await?;
    let manager = configuration::manager_with(&flags.manager, &variables, &agent)
        .map_err(|failure| failure.to_string())?;
    let wanted = Wanted {
        task: &task,
        agent: &agent,
        target,
        variables: &variables,
        manager,
        index_url: flags.index_url.clone(),
    };
    let built = match &flags.docker {
        None => build::folder(&wanted, log).await,
        Some(named) => {
            let image = [named.as_str(), task.container.image.as_str()]
                .into_iter()
                .find(|image| !image.trim().is_empty())
                .ok_or("the task names no image: name one, as in --docker IMAGE")?;
            build::context(&wanted, image.trim(), log).await
        }
    };
    built.map_err(|failure| failure.to_string())
}

/// Asks the server that `clearml.conf` and its variables name.
async fn task(agent: &Agent, id: &TaskId) -> Result<Task, String> {
    let need = |key: &str, variable: &str| {
        agent.text(key).ok_or_else(|| {
            format!("no {key} is known: set it in ~/clearml.conf (trainyard init writes one), or {variable}")
        })
    };
    let server = need("api.api_server", "CLEARML_API_HOST")?;
    let credentials = Credentials::Keys {
        access_key: need("api.credentials.access_key", "CLEARML_API_ACCESS_KEY")?.into(),
        secret_key: need("api.credentials.secret_key", "CLEARML_API_SECRET_KEY")?.into(),
        token: None,
    };
    let client = Client::new(Settings::new(&server, credentials, "trainyard-build"))
        .map_err(|error| error.to_string())?;
    let task = client
        .task(id)
        .await
        .map_err(|error| format!("task {id} could not be read from {server}: {error}"))?;
    task.ok_or_else(|| format!("there is no task {id} at {server}"))
}

fn say(line: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr(), "{line}");
}
