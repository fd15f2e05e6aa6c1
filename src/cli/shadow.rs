//! `trainyard shadow`: what a controller would have done, beside the one that does.

use std::process::ExitCode;

use clap::Args;

use super::{Output, controller, print_error, print_text};
use crate::controller as program;

/// Where to look, and how to tell.
#[derive(Debug, Args)]
// Its name would be that of the flags it takes over.
#[group(skip)]
pub(super) struct Flags {
    /// Form of what is told, one line each.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    controller: controller::Flags,
}

/// Tells until SIGTERM or SIGINT.
pub(super) fn main(flags: Flags) -> ExitCode {
    let Flags { output, controller } = flags;
    let told = controller::with_signals(controller.without_image(), |settings, shutdown| {
        program::shadow(settings, shutdown, move |deed| tell(output, deed))
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn tell(output: Output, deed: &program::Deed) {
    let line = match output {
        Output::Json => serde_json::to_string(deed).unwrap_or_default(),
        Output::Text => {
            let job = deed.job.as_deref().map(|job| format!(" as {job}"));
            let image = deed
                .image
                .as_deref()
                .map(|image| format!(", image {image}"));
            format!(
                "{}: would {} task {}{}{}",
                deed.binding,
                deed.step,
                deed.task,
                job.unwrap_or_default(),
                image.unwrap_or_default()
            )
        }
    };
    let _ = print_text(&format!("{line}\n"));
}
