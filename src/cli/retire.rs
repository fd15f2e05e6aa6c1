//! `trainyard retire`: bindings are deleted while their controller is still there to return their tasks.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::controller::retire;

/// Which bindings, and how long to wait.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Label selector of the bindings.
    #[arg(long)]
    selector: String,
    /// Namespace of the bindings. Default: that of the service account or the kubeconfig.
    #[arg(long)]
    namespace: Option<String>,
    /// Seconds to wait for them to go.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// Deletes the bindings and waits until they are gone.
pub(super) fn main(flags: &Flags) -> ExitCode {
    let Flags {
        selector,
        namespace,
        timeout,
    } = flags;
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            super::print_error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(retire(
        namespace.as_deref(),
        selector,
        Duration::from_secs(*timeout),
    )) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::print_error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
