//! An environment made by the image's `micromamba`, `mamba` or `conda`; what conda does not list comes from pip's index.
//!
//! ```text
//! the task's conda list, else environment.yml ──▶ create --prefix <cache>/env/<key> ──▶ uv: the list for pip
//! ```
//!
//! Files of a conda environment name the folder that it was made in: it cannot be moved, and none begins as a copy of
//! another. Each is made whole, of links into conda's own package cache, which lies beside the environments: after a change
//! of one package that one alone is fetched and unpacked.

mod wanted;

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use self::wanted::Wanted;
use super::interpreter::find_program;
use super::list::List;
use super::store::{Held, Place, Store, fetched_anew};
use super::{Python, PythonSettings, explain, index, remote};
use crate::exec::digest::hex;
use crate::exec::failure::{Failure, masked, one_line};
use crate::exec::plan::{Environment, effective_lines};
use crate::exec::shelf;
use crate::exec::smi;
use crate::exec::tool::{self, Log};

/// The programs, by preference: the first two solve fast.
const PROGRAMS: [&str; 3] = ["micromamba", "mamba", "conda"];
/// Variables in which images say where theirs is.
const VARIABLES: [&str; 2] = ["MAMBA_EXE", "CONDA_EXE"];
/// Says for which CUDA packages are chosen; all three programs read it.
const CUDA: &str = "CONDA_OVERRIDE_CUDA";

/// Finds or makes the environment.
pub(super) async fn make(
    environment: &Environment,
    list: &List,
    python: Option<&str>,
    settings: &PythonSettings,
    working_dir: &Path,
    log: &mut Log<'_>,
) -> Result<Python, Failure> {
    let program = program(settings).ok_or_else(|| {
        Failure::new("the task needs conda, but the image has no micromamba, mamba or conda")
            .hint("use an image with one of them, or another environment.manager")
    })?;
    let cuda = cuda(settings);
    if settings.driver_elsewhere && cuda.is_none() {
        let unknown =
            "conda chooses builds by the driver of the task's node, which is not known here";
        return Err(Failure::new(unknown).hint(format!(
            "{CUDA} in the template's container says for which CUDA they are chosen"
        )));
    }
    let mut wanted = Wanted::of(environment, list, python, settings)?;
    wanted.add_to_pip(&settings.options, &settings.brought)?;
    let store = Store::of(settings, log);
    let key = key(&wanted, &program, settings, cuda.as_deref());
    if let Some(found) = ready(&store, &key, settings, log) {
        log("the conda environment is in the cache");
        return Ok(found);
    }
    let place = store.place(&key, log).await?;
    if place.is_shared()
        && let Some(found) = ready(&store, &key, settings, &mut |_| {})
    {
        log("another task has just made the conda environment");
        return Ok(found);
    }
    let place = store.unless_in_use(place, &key, log);
    let making = Making {
        program: &program,
        wanted: &wanted,
        store: &store,
        place: &place,
        settings,
    };
    making.create(log).await?;
    making.add(working_dir, log).await?;
    let installed = making.frozen().await;
    let mut held = Held::default();
    if place.is_shared() {
        held = store.keep(&place, &installed, &format!("{key}-conda"));
        if let Some(limit) = settings.options.cache_limit {
            store.clean(limit, settings, working_dir, log).await;
        }
    }
    let folder = place.folder().to_owned();
    Ok(of(folder, installed, false, held, settings))
}

/// The environment of that key, if it is there and whole; one that is not is told.
fn ready(store: &Store, key: &str, settings: &PythonSettings, log: &mut Log<'_>) -> Option<Python> {
    match store.ready(key) {
        Ok(found) => {
            found.map(|(folder, installed, held)| of(folder, installed, true, held, settings))
        }
        Err(broken) => {
            log(&format!(
                "the conda environment in the cache is damaged ({}): it is made anew",
                broken.join(", ")
            ));
            None
        }
    }
}

/// A new environment: what it is made of, and where.
struct Making<'a> {
    program: &'a Path,
    wanted: &'a Wanted,
    store: &'a Store,
    place: &'a Place,
    settings: &'a PythonSettings,
}

impl Making<'_> {
    /// What is listed for conda. Not every program looks at what it links: where a file is not whole, all packages are
    /// fetched once more.
    async fn create(&self, log: &mut Log<'_>) -> Result<(), Failure> {
        let name = self.program.file_name().unwrap_or_default();
        log(&format!(
            "making an environment by {}: {}",
            name.to_string_lossy(),
            self.wanted.specs.join(" ")
        ));
        let (packages, in_use) = self.packages();
        self.create_from(&packages, log).await?;
        let damaged = self.place.damaged_of_conda();
        if damaged.is_empty() {
            return Ok(());
        }
        log(&fetched_anew(&damaged));
        drop(in_use);
        // Another task may be linking from there right now.
        let (packages, _in_use) = if shelf::remove(&packages, |_| {}) {
            self.packages()
        } else {
            (self.own_packages(), None)
        };
        self.create_from(&packages, log).await
    }

    /// Where conda keeps what it has fetched and unpacked; while the answer is held, nobody removes it.
    fn packages(&self) -> (PathBuf, Option<File>) {
        let shared = self.store.packages();
        match shelf::hold(&shared) {
            Some(lock) => (shared, Some(lock)),
            None => (self.own_packages(), None),
        }
    }

    fn own_packages(&self) -> PathBuf {
        self.settings.own.join("conda")
    }

    async fn create_from(&self, packages: &Path, log: &mut Log<'_>) -> Result<(), Failure> {
        self.place.clear()?;
        let mut create = self.settings.child(self.program);
        create
            .args([
                "create",
                "--yes",
                "--quiet",
                "--override-channels",
                "--prefix",
            ])
            .arg(self.place.folder())
            .env("CONDA_PKGS_DIRS", packages)
            .env("MAMBA_ROOT_PREFIX", self.store.base().join("mamba"))
            .envs(index::conda_variables(self.settings));
        for channel in &self.wanted.channels {
            create.args(["--channel", channel]);
        }
        create.args(&self.wanted.specs);
        run(create, None, self.settings, log)
            .await
            .map_err(|output| explain_conda(&output))
    }

    fn interpreter(&self) -> PathBuf {
        self.place.folder().join("bin/python")
    }

    /// What is listed for pip's index; once more where what uv's cache held of it is damaged.
    async fn add(&self, working_dir: &Path, log: &mut Log<'_>) -> Result<(), Failure> {
        let pip = remote::on_disk(&self.wanted.pip.join("\n"), &self.settings.brought);
        if effective_lines(&pip).next().is_none() {
            return Ok(());
        }
        if !self.interpreter().exists() {
            return Err(Failure::new(
                "the conda environment has no Python, but packages for it are listed",
            )
            .hint("add python to the conda list"));
        }
        self.install(&pip, &[], working_dir, log).await?;
        let damaged = self.place.damaged_of_uv();
        if damaged.is_empty() {
            return Ok(());
        }
        log(&fetched_anew(&damaged));
        self.settings.forget(self.store.base(), &damaged).await;
        self.install(&pip, &damaged, working_dir, log).await
    }

    /// Installs a list with uv; these packages also if they are there.
    async fn install(
        &self,
        list: &str,
        again: &[String],
        working_dir: &Path,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let mut install = self.settings.uv(self.store.base());
        install
            .args(["pip", "install", "--python"])
            .arg(self.interpreter())
            .args(["-r", "-"])
            .args(&self.wanted.pip_arguments)
            .args(index::options(self.settings))
            .current_dir(working_dir);
        for package in again {
            install.args(["--reinstall-package", package]);
        }
        run(install, Some(list), self.settings, log)
            .await
            .map_err(|output| explain::explain(&output))
    }

    /// The Python packages that conda and uv have installed; nothing depends on it but the record in the task.
    async fn frozen(&self) -> Vec<String> {
        let settings = self.settings;
        let mut freeze = settings.uv(self.store.base());
        freeze
            .args(["pip", "freeze", "--quiet", "--python"])
            .arg(self.interpreter());
        let frozen = tool::run(freeze, None, settings.limit, &mut |_| {}).await;
        let frozen = frozen.ok().filter(|ended| ended.status.success());
        let lines = frozen.map(|ended| ended.output).unwrap_or_default();
        effective_lines(&lines)
            .map(|line| remote::recorded(line, &settings.brought))
            .collect()
    }
}

fn of(
    folder: PathBuf,
    installed: Vec<String>,
    reused: bool,
    held: Held,
    settings: &PythonSettings,
) -> Python {
    Python {
        interpreter: Some(folder.join("bin/python")).filter(|python| python.exists()),
        environment: Some(folder),
        shared: None,
        installed: Some(installed).filter(|_| settings.options.record_conda),
        reused,
        held,
    }
}

fn program(settings: &PythonSettings) -> Option<PathBuf> {
    let path = settings.variables.get("PATH").map_or("", String::as_str);
    let named = VARIABLES
        .iter()
        .filter_map(|name| settings.variables.get(*name));
    named
        .map(String::as_str)
        .chain(PROGRAMS)
        .find_map(|name| find_program(name, path))
}

/// For which CUDA builds are chosen: what conda's own variable says, else what the driver runs.
fn cuda(settings: &PythonSettings) -> Option<String> {
    if let Some(named) = settings.variables.get(CUDA) {
        return Some(named.clone());
    }
    let path = settings.variables.get("PATH").map_or("", String::as_str);
    let version = smi::cuda(path).filter(|version| *version > 0)?;
    Some(version.to_string())
}

async fn run(
    command: Command,
    input: Option<&str>,
    settings: &PythonSettings,
    log: &mut Log<'_>,
) -> Result<(), String> {
    let mut without_secrets = |line: &str| log(&masked(line));
    let ended = tool::run(
        command,
        input.map(str::as_bytes),
        settings.limit,
        &mut without_secrets,
    )
    .await
    .map_err(|trouble| trouble.to_string())?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(ended.output)
    }
}

/// What was solved without a driver is another environment than what was solved beside one.
fn key(wanted: &Wanted, program: &Path, settings: &PythonSettings, cuda: Option<&str>) -> String {
    let mut hash = Sha256::new();
    hash.update(format!(
        "conda 2 {} {} {} {cuda:?}",
        // Passwords of indexes change.
        masked(&format!("{wanted:?}")),
        program.display(),
        index::identity(settings)
    ));
    hex(&hash.finalize()[..16])
}

/// The line in which conda or mamba says what it lacks.
fn explain_conda(output: &str) -> Failure {
    let lines: Vec<&str> = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let telling = [
        "does not exist",
        "nothing provides",
        "No candidates were found",
        "PackagesNotFoundError",
        "conflict",
        "error",
        "Error",
    ];
    let line = telling
        .iter()
        .find_map(|sign| lines.iter().find(|line| line.contains(sign)))
        .or(lines.last())
        .copied()
        .unwrap_or("no reason given");
    Failure::new(format!(
        "the conda environment could not be made: {}",
        masked(&one_line(line))
    ))
    .hint("check the packages and agent.package_manager.conda_channels")
}

#[cfg(test)]
mod tests;
