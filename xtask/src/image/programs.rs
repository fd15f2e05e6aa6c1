//! The programs that go into the image, built twice because task images differ.
//!
//! ```text
//! dist/trainyard         static: any image, also one without C library
//! dist/trainyard-glibc   dynamic, glibc 2.17 and newer: can load the GPU driver's library
//! dist/uv                as published, static
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::{kept, symbols};
use crate::{dirs, sh, tools};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the programs lie after [`ensure`].
#[derive(Clone, Debug)]
pub struct Programs {
    /// Static, for every image.
    pub trainyard: PathBuf,
    /// For images with glibc.
    pub trainyard_glibc: PathBuf,
    pub uv: PathBuf,
}

impl Programs {
    pub fn all(&self) -> [&Path; 3] {
        [&self.trainyard, &self.trainyard_glibc, &self.uv]
    }
}

/// Builds what is not up to date, and checks that each program runs where it has to.
pub fn ensure() -> Result<Programs> {
    let dist = dirs::repository().join("dist");
    sh::make_dir(&dist)?;
    let programs = Programs {
        trainyard: dist.join("trainyard"),
        trainyard_glibc: dist.join("trainyard-glibc"),
        uv: dist.join("uv"),
    };
    let [of_any, of_glibc] = ours()?;
    symbols::check_static(&of_any)?;
    place(&of_any, &programs.trainyard)?;
    symbols::check_glibc(&of_glibc)?;
    place(&of_glibc, &programs.trainyard_glibc)?;
    let uv = tools::static_uv()?;
    symbols::check_static(&uv)?;
    place(&uv, &programs.uv)?;
    for program in programs.all() {
        sh::run(sh::command(program).arg("--version"))?;
    }
    Ok(programs)
}

/// The static program and the one for glibc: kept ones where the sources are the same, otherwise built.
fn ours() -> Result<[PathBuf; 2]> {
    let key = kept::key()?;
    if let Some(found) = kept::find(&key)? {
        return Ok(found);
    }
    // Beside each other: most of the time goes into the last step of the compiler, which uses one processor.
    let (of_any, of_glibc) = std::thread::scope(|scope| {
        let of_any = scope.spawn(|| sh::timed("image: building trainyard, static", build_static));
        let of_glibc = sh::timed(
            "image: building trainyard for glibc 2.17 and newer",
            build_for_old_glibc,
        );
        (of_any.join(), of_glibc)
    });
    let of_any = of_any.map_err(|_| anyhow!("the thread of a build has panicked"))??;
    let of_glibc = of_glibc?;
    kept::keep(&key, [&of_any, &of_glibc])?;
    Ok([of_any, of_glibc])
}

fn build_static() -> Result<PathBuf> {
    let mut command = cargo("image-static", "build")?;
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    sh::show(command.args(["--target", TARGET]))?;
    built("image-static")
}

/// zig brings the symbols of every glibc, so the link can be for an old one on a new machine.
fn build_for_old_glibc() -> Result<PathBuf> {
    let zigbuild = tools::program("cargo-zigbuild")?;
    let tools = zigbuild.parent().map(PathBuf::from).unwrap_or_default();
    let mut command = cargo("image-glibc", "zigbuild")?;
    let (major, minor) = symbols::OLDEST_GLIBC;
    command.args(["--target", &format!("{TARGET}.{major}.{minor}")]);
    // Found there: cargo-zigbuild by cargo, and python with zig by cargo-zigbuild.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path)))?;
    sh::show(command.env("PATH", path))?;
    built("image-glibc")
}

/// Its output is shown: an error of compiler or linker is more than a line.
/// Each link has its own folders: their C libraries differ, and cargo does not see that.
fn cargo(folder: &str, verb: &str) -> Result<Command> {
    let folder = build_folder()?.join(folder);
    let mut command = sh::command("cargo");
    command.current_dir(dirs::repository()).arg(verb);
    command.args([
        "--locked",
        "--quiet",
        "--package",
        "trainyard",
        "--bin",
        "trainyard",
        "--profile",
        "image",
    ]);
    command
        .arg("--target-dir")
        .arg(folder.join("out"))
        .env("CARGO_BUILD_BUILD_DIR", folder.join("build"));
    command
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(command)
}

fn built(folder: &str) -> Result<PathBuf> {
    Ok(build_folder()?
        .join(folder)
        .join("out")
        .join(TARGET)
        .join("image/trainyard"))
}

/// Outside the clone and its own, as cargo's build folder; below that one where it is given.
fn build_folder() -> Result<PathBuf> {
    let given = std::env::var_os("CARGO_BUILD_BUILD_DIR").filter(|folder| !folder.is_empty());
    if let Some(folder) = given {
        return Ok(dirs::repository().join(folder));
    }
    let clone = dirs::repository().as_os_str().as_encoded_bytes();
    Ok(dirs::cache()?.join("build").join(sh::short_hash([clone])))
}

/// Copies a program beside its place and renames it there, so that one that runs is not written to.
fn place(from: &Path, to: &Path) -> Result<()> {
    if to.is_file() && sh::file_hash(from)? == sh::file_hash(to)? {
        return Ok(());
    }
    let beside = to.with_extension("new");
    fs::copy(from, &beside)
        .with_context(|| format!("could not copy {} to {}", from.display(), beside.display()))?;
    sh::run(sh::command("chmod").arg("755").arg(&beside))?;
    fs::rename(&beside, to).with_context(|| format!("could not write {}", to.display()))
}
