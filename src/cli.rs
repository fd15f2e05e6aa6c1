//! Command line: what was typed, and which program runs.

mod build;
mod config;
mod controller;
mod explain;
mod init;
mod reference;
mod render;
mod retire;
#[cfg(feature = "server")]
mod server;
mod shadow;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use self::reference::reference;
use crate::exec;

/// Runs machine-learning experiments from ClearML queues on Kubernetes.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Cli {
    /// Run inside a task's pod: as process 1 of the task's container, as init container, or as log sidecar.
    #[arg(long, value_name = "ROLE", num_args = 0..=1, default_missing_value = "task")]
    in_pod: Option<Role>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Task,
    Prepare,
    Uplink,
    #[value(hide = true)]
    Ahead,
    #[value(hide = true)]
    Exports,
}

impl From<Role> for exec::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Task => Self::Task,
            Role::Prepare => Self::Prepare,
            Role::Uplink => Self::Uplink,
            Role::Ahead => Self::Ahead,
            Role::Exports => Self::Exports,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: turn the tasks of ClearML queues into Jobs.
    Controller(Box<controller::Flags>),
    /// Serve a small ClearML-compatible API with its files and a page for browsers.
    #[cfg(feature = "server")]
    Server(Box<server::Flags>),
    /// Tell why a task waits, runs or failed; changes nothing.
    Explain {
        #[command(subcommand)]
        what: explain::What,
    },
    /// Print exactly the Job that a binding would make of a task; changes nothing.
    Render(Box<render::Flags>),
    /// Watch the queues beside whoever serves them, take nothing, and tell what would have been done.
    Shadow(Box<shadow::Flags>),
    /// Delete bindings and wait until their tasks have gone back; the chart does so before it is uninstalled.
    #[command(hide = true)]
    Retire(retire::Flags),
    /// Make ahead of time what a task runs with, into a folder or as the build context of an image.
    Build(Box<build::Flags>),
    /// Write a clearml.conf, once its keys have opened the server.
    Init(init::Flags),
    /// The configuration of an agent: clearml.conf and its variables.
    #[command(subcommand)]
    Config(config::Command),
    /// Print the CustomResourceDefinition of QueueBinding.
    Crd,
    /// Print a page of the reference, in Markdown.
    #[command(hide = true)]
    Reference {
        #[arg(value_enum)]
        page: Page,
    },
}

/// Pages of the reference that are made from the sources.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    Queuebinding,
    CommandLine,
    EnvironmentVariables,
    AgentConfiguration,
}

/// Parses the command line and runs what it asks for; returns the process's exit code.
pub fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Some(role) = in_pod() {
        return exec::main(role.into());
    }
    let cli = Cli::parse();
    match (cli.in_pod, cli.command) {
        (Some(role), _) => exec::main(role.into()),
        (None, Some(command)) => match command {
            Command::Controller(flags) => controller::main(*flags),
            #[cfg(feature = "server")]
            Command::Server(flags) => server::main(*flags),
            Command::Explain { what } => explain::main(what),
            Command::Render(flags) => render::main(*flags),
            Command::Shadow(flags) => shadow::main(*flags),
            Command::Retire(flags) => retire::main(&flags),
            Command::Build(flags) => build::main(&flags),
            Command::Init(flags) => init::main(&flags),
            Command::Config(command) => config::main(&command),
            Command::Crd => print_text(&crate::crd::crd_yaml()),
            Command::Reference { page } => print_text(&match page {
                Page::Queuebinding => crate::crd::reference(),
                Page::CommandLine => reference(),
                Page::EnvironmentVariables => crate::config::env::reference(),
                Page::AgentConfiguration => crate::config::agent::reference(),
            }),
        },
        (None, None) => ExitCode::from(2),
    }
}

/// The role of a pod's container, where that is all that was typed. Without the parser its code for all commands stays
/// out of the memory of every pod.
fn in_pod() -> Option<Role> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != "--in-pod" {
        return None;
    }
    let role = match arguments.next() {
        Some(role) => Role::from_str(role.to_str()?, false).ok()?,
        None => Role::Task,
    };
    arguments.next().is_none().then_some(role)
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

/// Runs a question that changes nothing, with SIGINT and SIGTERM as ever.
fn ask<T>(
    question: impl Future<Output = Result<T, crate::controller::AskError>>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime
        .block_on(question)
        .map_err(|error| error.to_string())
}

/// Prints a text; a reader that has gone away (`| head`) is no error.
fn print_text(text: &str) -> ExitCode {
    use std::io::Write;

    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Prints something to know, on standard error.
fn print_note(text: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// Prints what went wrong, as one paragraph on standard error.
fn print_error(text: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr(), "error: {text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
