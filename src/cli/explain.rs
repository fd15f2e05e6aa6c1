//! `trainyard explain`: why a task waits, runs or failed.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Output, ask, controller, print_error, print_text, render};
use crate::config::Settings;
use crate::controller as program;
use crate::task::TaskId;

/// What is to be explained.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// A task, by its id or from files.
    Task(Box<Flags>),
}

/// Which task, and where to look.
#[derive(Debug, Args)]
// Its name would be that of the flags it takes over.
#[group(skip)]
pub(super) struct Flags {
    /// Id of the task, or a file with its document as JSON: then neither server nor cluster is asked.
    #[arg(value_name = "ID|FILE")]
    task: String,
    /// Look at this binding alone; beside a file for the task, the file with its QueueBinding as YAML or JSON.
    #[arg(long, value_name = "NAME|FILE")]
    binding: Option<String>,
    /// File with Jobs, pods and Events as kubectl get prints them, beside a file for the task; may be repeated.
    #[arg(long, value_name = "FILE")]
    objects: Vec<String>,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    controller: controller::Flags,
}

/// Prints the answer.
pub(super) fn main(What::Task(flags): What) -> ExitCode {
    match run(*flags) {
        Ok(text) => print_text(&text),
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> Result<String, String> {
    let Flags {
        task,
        binding,
        objects,
        output,
        controller,
    } = flags;
    let settings = controller::settings_for_a_question(controller.without_image())?;
    let explanation = match (render::read(&task)?, objects.first()) {
        (Some(document), _) => from_files(settings, &document, binding.as_deref(), &objects)?,
        (None, Some(file)) => {
            return Err(format!(
                "{file:?} (--objects) is read beside a file for the task alone, and {task:?} is none"
            ));
        }
        (None, None) => {
            let id: TaskId = task
                .parse()
                .map_err(|_| format!("{task:?} is neither a file nor the id of a task"))?;
            ask(program::explain(settings, &id, binding.as_deref()))?
        }
    };
    Ok(match output {
        Output::Text => explanation.to_string(),
        Output::Json => serde_json::to_string_pretty(&explanation)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string())?,
    })
}

/// The same with nobody asked.
fn from_files(
    settings: Settings,
    document: &Value,
    binding: Option<&str>,
    objects: &[String],
) -> Result<program::Explanation, String> {
    let path = binding.ok_or("a file for the task needs one for --binding beside it")?;
    let given = render::read_binding(path)?.ok_or_else(|| {
        format!("{path:?} is no file; with a file for the task, --binding has to be one too")
    })?;
    let mut all = Vec::new();
    for file in objects {
        let read = render::read(file)?;
        all.push(read.ok_or_else(|| format!("there is no file {file:?} (--objects)"))?);
    }
    program::explain_offline(settings, &given, document, &all).map_err(|error| error.to_string())
}
