//! `trainyard server`: its flags, and one line on standard error for what stops it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use url::Url;

use crate::server::{self, Options};
use crate::telemetry::logs;

#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Address and port for API, files and pages.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8008",
        env = "TRAINYARD_SERVER_LISTEN"
    )]
    listen: SocketAddr,

    /// Folder for the database, the keys and the files.
    #[arg(long, value_name = "DIR", env = "TRAINYARD_SERVER_DATA")]
    data: PathBuf,

    /// Address under which clients reach the server, from pods too; default: the address listened on.
    #[arg(long, value_name = "URL", env = "TRAINYARD_SERVER_PUBLIC_URL")]
    public_url: Option<Url>,

    /// Write a clearml.conf with address and keys here, readable by its owner alone.
    #[arg(long, value_name = "FILE", env = "TRAINYARD_SERVER_WRITE_CONF")]
    write_conf: Option<PathBuf>,

    /// Which log lines are written, in the syntax of RUST_LOG.
    #[arg(long, value_name = "FILTER", env = "TRAINYARD_LOG")]
    log: Option<String>,
}

/// Runs the server until it is told to stop.
pub(super) fn main(flags: Flags) -> ExitCode {
    let Flags {
        listen,
        data,
        public_url,
        write_conf,
        log,
    } = flags;
    if let Err(error) = logs::init(logs::Format::Text, log.as_deref()) {
        super::print_error(&error.to_string());
        return ExitCode::from(2);
    }
    let options = Options {
        data,
        public_url,
        write_conf,
    };
    match server::run(listen, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text += ": ";
                text += &cause.to_string();
                source = cause.source();
            }
            super::print_error(&text);
            ExitCode::FAILURE
        }
    }
}
