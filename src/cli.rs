//! Command line: what was typed, and which program runs.

mod controller;
mod retire;
#[cfg(feature = "server")]
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

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
}

impl From<Role> for exec::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Task => Self::Task,
            Role::Prepare => Self::Prepare,
            Role::Uplink => Self::Uplink,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: turn the tasks of ClearML queues into Jobs.
    Controller(Box<controller::Flags>),
    /// Serve a small ClearML-compatible API with its files and a page for browsers.
    #[cfg(feature = "server")]
    Server(server::Flags),
    /// Delete bindings and wait until their tasks have gone back; the chart does so before it is uninstalled.
    #[command(hide = true)]
    Retire(retire::Flags),
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
    EnvironmentVariables,
}

/// Parses the command line and runs what it asks for; returns the process's exit code.
pub fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    match (cli.in_pod, cli.command) {
        (Some(role), _) => exec::main(role.into()),
        (None, Some(command)) => match command {
            Command::Controller(flags) => controller::main(*flags),
            #[cfg(feature = "server")]
            Command::Server(flags) => server::main(flags),
            Command::Retire(flags) => retire::main(&flags),
            Command::Crd => print_text(&crate::crd::crd_yaml()),
            Command::Reference { page } => print_text(&match page {
                Page::Queuebinding => crate::crd::reference(),
                Page::EnvironmentVariables => crate::config::env::reference(),
            }),
        },
        (None, None) => ExitCode::from(2),
    }
}

/// Prints a text; a reader that has gone away (`| head`) is no error.
fn print_text(text: &str) -> ExitCode {
    use std::io::Write;

    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Prints what went wrong, as one paragraph on standard error.
fn print_error(text: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr(), "error: {text}");
}
