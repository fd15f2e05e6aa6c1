//! Log lines on standard error: constant sentences with fields, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One readable line, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Filter when none is asked for: own lines from `info` on, others' from `warn` on.
pub const DEFAULT_FILTER: &str = "warn,trainyard=info";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log filter {filter:?} is not understood: {source}")]
    ParseFilter { filter: String, source: ParseError },
    #[error("logging was set up twice")]
    Twice,
}

/// The same for programs that must be small: text with the default filter, without the code that understands others.
pub fn init_small() -> Result<(), Error> {
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("trainyard", LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .try_init()
        .map_err(|_| Error::Twice)
}

/// Sends log lines to standard error from now on. `filter` has the syntax of `RUST_LOG`.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), Error> {
    let filter = filter
        .filter(|text| !text.is_empty())
        .unwrap_or(DEFAULT_FILTER);
    let directives = EnvFilter::try_new(filter).map_err(|source| Error::ParseFilter {
        filter: filter.to_owned(),
        source,
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    }
    .map_err(|_| Error::Twice)
}
