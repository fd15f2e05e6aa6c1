//! Programs that come as wheels, in virtual environments outside the clone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{dirs, sh};

/// A virtual environment with the packages of a requirements file (below the repository's root), made once for
/// each content of it; returns its folder.
pub fn environment(name: &str, requirements: &str) -> Result<PathBuf> {
    let file = dirs::repository().join(requirements);
    let text =
        fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
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
        let mut pip = sh::command(&folder.join("bin/python").display().to_string());
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            "--requirement",
        ]);
        sh::run(pip.arg(&file))
    })?;
    sh::write(finished, "")?;
    Ok(folder)
}

/// The programs of `tests/tools/requirements.txt`.
pub fn programs() -> Result<PathBuf> {
    Ok(environment("tools", "tests/tools/requirements.txt")?.join("bin"))
}

/// A file out of a wheel for another platform than this machine's: uv that needs no glibc.
pub fn static_uv(into: &Path) -> Result<()> {
    let store = dirs::cache()?.join("tools/uv-static");
    sh::make_dir(&store)?;
    let requirements = dirs::repository().join("tests/tools/uv.txt");
    let text = fs::read_to_string(&requirements)
        .with_context(|| format!("could not read {}", requirements.display()))?;
    let uv = store.join(sh::short_hash([text]));
    if !uv.is_file() {
        let loading = store.join(format!("loading-{}", std::process::id()));
        let mut pip = sh::command("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary=:all:",
            "--no-deps",
        ]);
        pip.args([
            "--platform",
            "musllinux_1_1_x86_64",
            "--platform",
            "musllinux_1_2_x86_64",
            "--dest",
        ])
        .arg(&loading);
        sh::timed("downloading uv", || {
            sh::run(pip.arg("--requirement").arg(&requirements))
        })?;
        let extract = "
import pathlib, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob('*.whl'))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith('.data/scripts/uv'))
    pathlib.Path(sys.argv[2]).write_bytes(archive.read(name))
";
        let unpacked = loading.join("uv");
        sh::run(
            sh::command("python3")
                .args(["-c", extract])
                .arg(&loading)
                .arg(&unpacked),
        )?;
        fs::rename(&unpacked, &uv).with_context(|| format!("could not create {}", uv.display()))?;
        sh::remove(&loading)?;
    }
    fs::copy(&uv, into).with_context(|| format!("could not write {}", into.display()))?;
    sh::run(sh::command("chmod").arg("755").arg(into))
}
