//! An environment made by the image's `micromamba`, `mamba` or `conda`; what conda does not list comes from pip's index.
//!
//! ```text
//! the task's conda list, else environment.yml ──▶ create --prefix <cache>/env/<key> ──▶ uv: the list for pip
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::interpreter::find_program;
use super::list::{List, package_name};
use super::store::{Held, Store};
use super::{Options, Python, PythonSettings, explain, index, project, remote};
use crate::exec::digest::hex;
use crate::exec::failure::{Failure, masked, one_line};
use crate::exec::plan::{Environment, effective_lines};
use crate::exec::smi;
use crate::exec::tool::{self, Log};
use crate::pod::Brought;

/// The programs, by preference: the first two solve fast.
const PROGRAMS: [&str; 3] = ["micromamba", "mamba", "conda"];
/// Variables in which images say where theirs is.
const VARIABLES: [&str; 2] = ["MAMBA_EXE", "CONDA_EXE"];
/// Says for which CUDA packages are chosen; all three programs read it.
const CUDA: &str = "CONDA_OVERRIDE_CUDA";

/// What conda is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Wanted {
    channels: Vec<String>,
    specs: Vec<String>,
    /// Requirements for pip's index.
    pip: Vec<String>,
    /// Arguments of their installation.
    pip_arguments: Vec<String>,
}

impl Wanted {
    /// What the configuration says of pip's index, and the commits of what comes from git; where nothing is listed for
    /// pip, nothing.
    fn add_to_pip(&mut self, options: &Options, brought: &[Brought]) -> Result<(), Failure> {
        let list = remote::pinned(&self.pip.join("\n"), brought)?;
        self.pip.clear();
        if effective_lines(&list).next().is_none() {
            return Ok(());
        }
        let indexes = options.extra_index_url.iter();
        self.pip
            .extend(indexes.map(|url| format!("--extra-index-url {url}")));
        self.pip.extend(list.lines().map(str::to_owned));
        self.pip_arguments.clone_from(&options.extra_flags);
        let strategy = options.index_strategy(false).iter();
        self.pip_arguments
            .extend(strategy.map(|word| (*word).to_owned()));
        Ok(())
    }
}

/// Part of an `environment.yml`.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Dependency {
    Spec(String),
    Pip { pip: Vec<String> },
}

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
    let mut wanted = wanted(environment, list, python, settings)?;
    wanted.add_to_pip(&settings.options, &settings.brought)?;
    let store = Store::of(settings, log);
    let key = key(&wanted, &program, settings, cuda.as_deref());
    let recorded = |installed| Some(installed).filter(|_| settings.options.record_conda);
    if let Ok(Some((folder, installed, held))) = store.ready(&key) {
        log("the conda environment is in the cache");
        return Ok(of(folder, recorded(installed), true, held));
    }
    let place = store.place(&key, log).await?;
    if place.is_shared()
        && let Ok(Some((folder, installed, held))) = store.ready(&key)
    {
        log("another task has just made the conda environment");
        return Ok(of(folder, recorded(installed), true, held));
    }
    let place = store.unless_in_use(place, &key, log);
    place.clear()?;
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    log(&format!(
        "making an environment by {name}: {}",
        wanted.specs.join(" ")
    ));
    create(&wanted, &program, place.folder(), &store, settings, log).await?;
    install(&wanted, place.folder(), &store, settings, working_dir, log).await?;
    let interpreter = place.folder().join("bin/python");
    let installed = frozen(&store, &interpreter, settings).await;
    let mut held = Held::default();
    if place.is_shared() {
        held = store.keep(&place, &installed, &format!("{key}-conda"));
        if let Some(limit) = settings.options.cache_limit {
            store.clean(limit, settings, working_dir, log).await;
        }
    }
    let folder = place.folder().to_owned();
    Ok(of(folder, recorded(installed), false, held))
}

/// Has conda make the environment, from its own cache of packages.
async fn create(
    wanted: &Wanted,
    program: &Path,
    folder: &Path,
    store: &Store,
    settings: &PythonSettings,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    let _held = store.hold_packages().await;
    let mut create = settings.child(program);
    create
        .args([
            "create",
            "--yes",
            "--quiet",
            "--override-channels",
            "--prefix",
        ])
        .arg(folder)
        .env("CONDA_PKGS_DIRS", store.packages())
        .env("MAMBA_ROOT_PREFIX", store.base().join("mamba"))
        .envs(index::conda_variables(settings));
    for channel in &wanted.channels {
        create.args(["--channel", channel]);
    }
    create.args(&wanted.specs);
    run(create, None, settings, log)
        .await
        .map_err(|output| explain_conda(&output))
}

/// Adds what is listed for pip.
async fn install(
    wanted: &Wanted,
    folder: &Path,
    store: &Store,
    settings: &PythonSettings,
    working_dir: &Path,
    log: &mut Log<'_>,
) -> Result<(), Failure> {
    let pip = remote::on_disk(&wanted.pip.join("\n"), &settings.brought);
    if effective_lines(&pip).next().is_none() {
        return Ok(());
    }
    let interpreter = folder.join("bin/python");
    if !interpreter.exists() {
        let without = "the conda environment has no Python, but packages for it are listed";
        return Err(Failure::new(without).hint("add python to the conda list"));
    }
    let mut install = settings.uv(store.base());
    install
        .args(["pip", "install", "--python"])
        .arg(&interpreter)
        .args(["-r", "-"])
        .args(&wanted.pip_arguments);
    install
        .args(index::options(settings))
        .current_dir(working_dir);
    run(install, Some(&pip), settings, log)
        .await
        .map_err(|output| explain::explain(&output))
}

/// The Python packages that conda and uv have installed; nothing depends on it but the record in the task.
async fn frozen(store: &Store, interpreter: &Path, settings: &PythonSettings) -> Vec<String> {
    let mut freeze = settings.uv(store.base());
    freeze
        .args(["pip", "freeze", "--quiet", "--python"])
        .arg(interpreter);
    let frozen = tool::run(freeze, None, settings.limit, &mut |_| {}).await;
    let frozen = frozen.ok().filter(|ended| ended.status.success());
    let lines = frozen.map(|ended| ended.output).unwrap_or_default();
    effective_lines(&lines)
        .map(|line| remote::recorded(line, &settings.brought))
        .collect()
}

fn of(folder: PathBuf, installed: Option<Vec<String>>, reused: bool, held: Held) -> Python {
    Python {
        interpreter: Some(folder.join("bin/python")).filter(|python| python.exists()),
        environment: Some(folder),
        shared: None,
        installed,
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

fn wanted(
    environment: &Environment,
    list: &List,
    python: Option<&str>,
    settings: &PythonSettings,
) -> Result<Wanted, Failure> {
    let mut wanted = match (&environment.conda, project::conda_file(environment)) {
        (Some(text), _) => of_list(text),
        (None, Some(file)) => of_file(&project::text(&file)?)
            .map_err(|why| Failure::new(format!("{} cannot be read: {why}", file.display())))?,
        (None, None) => Wanted::default(),
    };
    if wanted.channels.is_empty() {
        wanted.channels.clone_from(&settings.options.conda_channels);
    }
    let names: BTreeSet<String> = wanted.specs.iter().map(|spec| name_of(spec)).collect();
    if !names.contains("python") {
        wanted.specs.insert(
            0,
            python.map_or_else(
                || "python".to_owned(),
                |version| format!("python={version}"),
            ),
        );
    }
    for line in list.text.lines().chain(list.local.lines()) {
        if line.starts_with('-') || !names.contains(&package_name(line)) {
            wanted.pip.push(line.to_owned());
        }
    }
    if let Some(bad) = wanted
        .specs
        .iter()
        .chain(&wanted.channels)
        .find(|word| word.starts_with('-'))
    {
        return Err(Failure::new(format!(
            "{bad:?} is neither a package nor a channel of conda"
        )));
    }
    Ok(wanted)
}

/// `numpy=1.2`, one a line; `file://` references of the recording machine become the bare package.
fn of_list(text: &str) -> Wanted {
    let specs = effective_lines(text)
        .map(|line| line.split("@ file:").next().unwrap_or(line))
        .map(|line| line.split_whitespace().collect::<String>())
        .filter(|line| !line.is_empty());
    Wanted {
        specs: specs.collect(),
        ..Wanted::default()
    }
}

fn of_file(text: &str) -> Result<Wanted, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))?;
    let mut wanted = Wanted {
        channels: file.channels,
        ..Wanted::default()
    };
    for dependency in file.dependencies {
        match dependency {
            Dependency::Spec(spec) => wanted.specs.push(spec.split_whitespace().collect()),
            Dependency::Pip { pip } => wanted.pip.extend(pip),
        }
    }
    Ok(wanted)
}

fn name_of(spec: &str) -> String {
    let spec = spec.rsplit("::").next().unwrap_or(spec);
    package_name(
        spec.split(['=', '<', '>', '!', '~', '['])
            .next()
            .unwrap_or(spec),
    )
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
