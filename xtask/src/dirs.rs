//! Where things are kept: nothing that is built or run lies in the clone, except programs: those of the image in `dist/`,
//! and in `target/` cargo's links to what it built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the clone.
pub fn repository() -> &'static Path {
    // The manifest of this crate lies one folder below the root.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// `${XDG_CACHE_HOME:-~/.cache}/trainyard`: what can be made again, at a price.
pub fn cache() -> Result<PathBuf> {
    xdg("XDG_CACHE_HOME", ".cache")
}

/// `${XDG_STATE_HOME:-~/.local/state}/trainyard`: what a running cluster owns.
pub fn state() -> Result<PathBuf> {
    xdg("XDG_STATE_HOME", ".local/state")
}

fn xdg(variable: &str, below_home: &str) -> Result<PathBuf> {
    // An XDG folder that is not absolute is to be ignored, says its specification.
    let base = match std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
    {
        Some(base) => base,
        None => std::env::home_dir()
            .context("the home folder is unknown: set HOME")?
            .join(below_home),
    };
    Ok(base.join("trainyard"))
}
