//! `trainyard explain`: why a task waits, runs or failed.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Output, ask, controller, print_error, print_text};
use crate::controller as program;
use crate::task::TaskId;

/// What is to be explained.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// A task, by its id.
    Task(Box<Flags>),
}

/// Which task, and where to look.
#[derive(Debug, Args)]
// Its name would be that of the flags it takes over.
#[group(skip)]
pub(super) struct Flags {
    /// Id of the task.
    #[arg(value_name = "ID")]
    task: TaskId,
    /// Look at this binding alone.
    #[arg(long, value_name = "NAME")]
    binding: Option<String>,
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
        output,
        controller,
    } = flags;
    let settings = controller::settings_for_a_question(controller.without_image())?;
    let explanation = ask(program::explain(settings, &task, binding.as_deref()))?;
    Ok(match output {
        Output::Text => explanation.to_string(),
        Output::Json => serde_json::to_string_pretty(&explanation)
            .map(|text| text + "\n")
            .map_err(|error| error.to_string())?,
    })
}
