//! Programs that come as wheels, in virtual environments outside the clone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{dirs, sh};

/// A virtual environment with the packages of a requirements file (below the repository's root), made once for
/// each content of it; returns its folder.
pub fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    made(name, requirements, true)
}

fn made(name: &str, requirements: &str, only_wheels: bool) -> Result<PathBuf> {
    let file = dirs::repository().join(requirements);
    let mut text =
        fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
    // A file may build on others; a change of those is a change of this one.
    let included: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.strip_prefix("--requirement "))
        .map(|other| file.with_file_name(other.trim()))
        .collect();
    for other in included {
        text += &fs::read_to_string(&other)
            .with_context(|| format!("could not read {}", other.display()))?;
    }
    let python = sh::output(
        sh::command("python3").args(["-c", "import sys; print(sys.version, sys.executable)"]),
    )?;
    let folder = dirs::cache()?
        .join("tools")
        .join(format!("{name}-{}", sh::short_hash([text, python])));
    let finished = folder.join("finished");
    if finished.is_file() {
        return Ok(folder);
    }
    // Programs in it name the folder they are in, so it cannot be built elsewhere and renamed.
    sh::remove(&folder)?;
    sh::timed(&format!("installing {requirements}"), || {
        sh::run(sh::command("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = sh::command(folder.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        if only_wheels {
            pip.arg("--only-binary=:all:");
        }
        sh::run(pip.arg("--requirement").arg(&file))
    })?;
    sh::write(finished, "")?;
    Ok(folder)
}

/// One of the programs of `tests/tools/requirements.txt`.
pub fn program(name: &str) -> Result<PathBuf> {
    Ok(environment("tools", "tests/tools/requirements.txt")?
        .join("bin")
        .join(name))
}

/// A Python with the ClearML SDK and what the experiments of demo and tests import, for this machine.
pub fn sdk_python() -> Result<PathBuf> {
    Ok(environment("sdk", "tests/clients/sdk.txt")?.join("bin/python"))
}

/// A Python with the SDK and the libraries that it notices by itself.
pub fn bindings_python() -> Result<PathBuf> {
    Ok(environment("bindings", "tests/clients/bindings.txt")?.join("bin/python"))
}

/// A Python with the incumbent's agent, apart from the SDK as its users have it.
pub fn agent_python() -> Result<PathBuf> {
    Ok(environment("agent", "tests/clients/agent.txt")?.join("bin/python"))
}

/// A Python that solves and installs conda environments.
pub fn rattler_python() -> Result<PathBuf> {
    Ok(environment("rattler", "tests/conda/requirements.txt")?.join("bin/python"))
}

/// A Python with the SDK and agent of 2020. Some of what they pin is published as source alone.
pub fn trains_python() -> Result<PathBuf> {
    Ok(made("trains", "tests/clients/trains.txt", false)?.join("bin/python"))
}

/// cargo-deny, which no wheel has: compiled once, without optimisation, since it runs for a second.
pub fn cargo_deny() -> Result<PathBuf> {
    const VERSION: &str = "0.20.2";
    let folder = dirs::cache()?
        .join("tools")
        .join(format!("cargo-deny-{VERSION}"));
    let program = folder.join("bin/cargo-deny");
    if program.is_file() {
        return Ok(program);
    }
    let build = folder.with_extension("build");
    let mut cargo = sh::command("cargo");
    cargo
        .args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(&folder)
        .arg("cargo-deny");
    cargo
        .current_dir(dirs::repository())
        .env("CARGO_BUILD_BUILD_DIR", &build)
        .env("CARGO_TARGET_DIR", &build);
    cargo
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env_remove("RUSTFLAGS");
    sh::timed("compiling cargo-deny once", || sh::run(&mut cargo))?;
    sh::remove(build)?;
    Ok(program)
}

/// Takes the program out of the wheel, for a platform that need not be this machine's.
const EXTRACT_UV: &str = "
import pathlib, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob('*.whl'))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith('.data/scripts/uv'))
    pathlib.Path(sys.argv[2]).write_bytes(archive.read(name))
";

/// pip's download of a requirements file's wheels into a folder, not yet started.
pub fn download_wheels(requirements: &Path, folder: &Path) -> Command {
    let mut pip = sh::command("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
    ]);
    pip.arg("--dest").arg(folder);
    pip.arg("--requirement").arg(requirements);
    pip
}

/// uv as published for musl: static, so that it runs in any image.
pub fn static_uv() -> Result<PathBuf> {
    let requirements = dirs::repository().join("tests/tools/uv.txt");
    let text = fs::read_to_string(&requirements)
        .with_context(|| format!("could not read {}", requirements.display()))?;
    let store = dirs::cache()?.join("tools");
    let uv = store.join(format!("uv-static-{}", sh::short_hash([text])));
    if uv.is_file() {
        return Ok(uv);
    }
    let loading = store.join(format!("loading-{}", std::process::id()));
    sh::make_dir(&loading)?;
    let mut pip = download_wheels(&requirements, &loading);
    pip.args([
        "--no-deps",
        "--platform",
        "musllinux_1_1_x86_64",
        "--platform",
        "musllinux_1_2_x86_64",
    ]);
    sh::timed("image: downloading uv", || sh::run(&mut pip))?;
    let unpacked = loading.join("uv");
    sh::run(
        sh::command("python3")
            .args(["-c", EXTRACT_UV])
            .arg(&loading)
            .arg(&unpacked),
    )?;
    sh::run(sh::command("chmod").arg("755").arg(&unpacked))?;
    fs::rename(&unpacked, &uv).with_context(|| format!("could not create {}", uv.display()))?;
    sh::remove(&loading)?;
    Ok(uv)
}
