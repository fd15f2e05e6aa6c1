//! The Python package index of demo and tests, so that no pod needs the internet.
//!
//! Wheels are downloaded once, by this machine's own pip settings, for the Python of the pods' image, and served
//! to pods over plain HTTP by a small program of its own.

mod serve;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::cluster::layout::{INDEX_PORT, State, gateway};
use crate::{dirs, sh, tools};

/// Platforms that wheels may be for, the newest first; Debian 12 has glibc 2.36.
const PLATFORMS: &[&str] = &[
    "manylinux_2_36",
    "manylinux_2_34",
    "manylinux_2_31",
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_12",
    "manylinux2010",
    "manylinux_2_5",
    "manylinux1",
];
/// The Python of Debian 12, the pods' image.
const PYTHON: &str = "3.11";

/// Writes beside each wheel its METADATA (PEP 658), so that a resolver need not load the wheel to read it.
const EXTRACT_METADATA: &str = "
import pathlib, sys, zipfile
for wheel in pathlib.Path(sys.argv[1]).glob('*.whl'):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.count('/') == 1 and n.endswith('.dist-info/METADATA'))
        wheel.with_name(wheel.name + '.metadata').write_bytes(archive.read(name))
";

/// `cargo xtask index`
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve a folder of wheels (PEP 503) until it is ended
    Serve {
        /// The folder
        #[arg(long)]
        files: PathBuf,
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Download the wheels, if they are not there, and print their folder
    Download,
}

pub fn main(arguments: Arguments) -> Result<()> {
    match arguments.verb {
        Verb::Serve { files, listen } => serve::serve(&files, listen),
        Verb::Download => {
            println!("{}", ensure_wheels()?.display());
            Ok(())
        }
    }
}

/// The folder of wheels that pods install from, downloaded when it is not there.
pub fn ensure_wheels() -> Result<PathBuf> {
    ensure_wheels_of("tests/wheels/requirements.txt", Metadata::Beside)
}

/// Whether an index hands out what wheels say of themselves (PEP 658).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    Beside,
    /// Debian's pip with its old resolver, which `clearml-agent` asks for, stumbles over it.
    Within,
}

/// The folder of the wheels of a requirements file (below the repository's root) and of all that they need.
pub fn ensure_wheels_of(requirements: &str, metadata: Metadata) -> Result<PathBuf> {
    let requirements = dirs::repository().join(requirements);
    let text = fs::read_to_string(&requirements)
        .with_context(|| format!("could not read {}", requirements.display()))?;
    let store = dirs::cache()?.join("wheels");
    let platforms = PLATFORMS.join(" ");
    let mut key = vec![text.as_str(), PYTHON, &platforms];
    if metadata == Metadata::Within {
        key.push("within");
    }
    let finished = store.join(sh::short_hash(key));
    if finished.is_dir() {
        return Ok(finished);
    }
    let loading = store.join(format!("loading-{}", std::process::id()));
    sh::make_dir(&loading)?;
    sh::timed("downloading Python packages once", || {
        let mut pip = tools::download_wheels(&requirements, &loading);
        pip.args(["--implementation", "cp", "--python-version", PYTHON]);
        for platform in PLATFORMS {
            pip.args(["--platform", &format!("{platform}_x86_64")]);
        }
        sh::run(&mut pip)?;
        if metadata == Metadata::Within {
            return Ok(());
        }
        sh::run(
            sh::command("python3")
                .args(["-c", EXTRACT_METADATA])
                .arg(&loading),
        )
    })?;
    match fs::rename(&loading, &finished) {
        // Another clone was faster.
        Err(_) if finished.is_dir() => sh::remove(&loading)?,
        renamed => renamed.with_context(|| format!("could not create {}", finished.display()))?,
    }
    Ok(finished)
}

/// Starts the index as a component of the cluster. It runs from a copy, so that rebuilding this crate neither
/// fails nor changes a program that runs.
pub fn start(state: &State, wheels: &Path) -> Result<crate::cluster::Daemon> {
    let program = state.path("run/package-index");
    let me = std::env::current_exe().context("the path of this program is unknown")?;
    fs::copy(&me, &program)
        .with_context(|| format!("could not copy {} to {}", me.display(), program.display()))?;
    let mut arguments: Vec<OsString> = sh::arguments(["index", "serve", "--files"]);
    arguments.push(wheels.into());
    arguments.extend(sh::arguments([
        "--listen",
        &gateway(INDEX_PORT).to_string(),
    ]));
    crate::cluster::Daemon::start(state, "index", program, arguments)
}
