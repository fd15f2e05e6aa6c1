//! Entry point: TLS provider, command line, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainyard::cli::main()
}
