//! The user's `clearml.conf` and its variables, as far as they concern one run.

mod of_git;
mod of_torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use self::of_torch::torch_index;
use super::failure::Failure;
use super::git;
use super::plan::{Manager, Plan};
use super::python::Options;
use super::settings::{Layout, Settings};
use super::small;
use super::tool::Log;
use crate::config::agent::{Agent, From};
use crate::config::conf::Document;
use crate::config::env::Environment;
use crate::pod;

/// Most bytes of a `clearml.conf`, and of each file that it includes.
pub(super) const MOST: u64 = 1 << 20;
/// Which package manager the configuration names.
const TYPE: &str = "agent.package_manager.type";
/// Whether uv may stand in for pip.
const REPLACED: &str = "agent.package_manager.uv_replace_pip";
/// Whether uv looks for the best version in all indexes.
const BEST_MATCH: &str = "agent.package_manager.uv_unsafe_best_match";
/// Which versions of pip get its old resolver, and what every generated file says of it: nobody has chosen that.
const OLD_RESOLVER: &str = "agent.package_manager.pip_legacy_resolver";
const GENERATED_RESOLVER: [&str; 1] = [">=20.3,<24.3"];
/// Says that nothing is to be installed.
const SKIP_ENVIRONMENT: &str = "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL";
/// The same; its value may name the interpreter that has all that is needed.
const SKIP_VENV: &str = "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL";

/// A command that an agent runs at an abort, beside the task's process.
const ABORT_COMMAND: &str = "CLEARML_AGENT_ABORT_CALLBACK_CMD";

/// Reads the file that the binding mounts, else what `prepare` has handed on of it, else the one that the image names;
/// without one, variables alone count.
pub fn read(inherited: &BTreeMap<String, String>) -> Result<Agent, Failure> {
    let environment = Environment::of(inherited.clone());
    let named = environment.alias("CLEARML_CONFIG_FILE");
    let path = [
        Some(PathBuf::from(pod::CLEARML_CONF)),
        Some(Layout::of(inherited).conf()),
        named.map(|(_, path)| PathBuf::from(path)),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file());
    let mut files = Vec::new();
    if let Some(path) = path {
        let name = path.display().to_string();
        let failed = |why: String| {
            Failure::new(format!("{name}, {why}"))
                .hint("mend it, or remove environment.clearmlConfRef")
        };
        let text = text(&path).map_err(|error| failed(format!("it cannot be read: {error}")))?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let document = Document::read_with(
            &text,
            &|name| environment.get(name).map(str::to_owned),
            &|name| included(&folder.join(name)),
        )
        .map_err(|error| failed(error.to_string()))?;
        files.push((name, document));
    }
    Ok(Agent::resolve(&files, &environment))
}

/// The text of such a file; one that is too long is an error.
pub fn text(path: &Path) -> std::io::Result<String> {
    small::text(path, MOST)
}

/// The text of an included file, if it is there; why it cannot be read, if it cannot.
pub fn included(path: &Path) -> Result<Option<String>, String> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Names what has no effect, once for each run.
pub fn warn(settings: &Settings, agent: &Agent, log: &mut Log<'_>) {
    for (key, from) in &agent.unknown {
        log(&format!("{key} is no known key ({from}): it has no effect"));
    }
    for (key, from, why) in agent.idle() {
        log(&format!("{key} ({from}) has no effect: {why}"));
    }
    let manager = manager(settings, agent).unwrap_or_default();
    for text in pip_set_aside(&settings.manager, agent)
        .into_iter()
        .chain(of_git::set_aside(agent))
        .chain(of_another_installer(manager, agent))
        .chain(abort_command(&settings.inherited))
    {
        log(&text);
    }
}

/// The manager of the binding; where that is `auto`, what the configuration names.
pub fn manager(settings: &Settings, agent: &Agent) -> Result<Manager, Failure> {
    manager_with(&settings.manager, &settings.inherited, agent)
}

/// The same of what a binding would say.
pub fn manager_with(
    named: &str,
    variables: &BTreeMap<String, String>,
    agent: &Agent,
) -> Result<Manager, Failure> {
    let of_binding: Manager = named
        .parse()
        .map_err(|error| Failure::new(format!("{error}")))?;
    let skipped = [SKIP_ENVIRONMENT, SKIP_VENV]
        .iter()
        .any(|name| switched_on(variables, name).is_some());
    if skipped {
        return Ok(Manager::None);
    }
    if of_binding != Manager::Auto {
        return Ok(of_binding);
    }
    match agent.text(TYPE).as_deref() {
        // Every generated file and the default say pip: uv installs the same, unless its user wants pip itself.
        Some("pip") | None if wants_pip(agent) => Ok(Manager::Pip),
        Some("pip") | None => Ok(Manager::Auto),
        Some(named) => named
            .parse()
            .map_err(|error| Failure::new(format!("{TYPE}: {error}"))),
    }
}

/// Whether somebody has said that uv may not stand in for pip.
fn wants_pip(agent: &Agent) -> bool {
    agent.text(REPLACED).is_some() && !agent.flag(REPLACED)
}

/// What the log says where pip itself is wanted, but another manager is named as well: that one stays.
fn pip_set_aside(named: &str, agent: &Agent) -> Option<String> {
    let chosen = agent.text(TYPE).filter(|chosen| chosen != "pip")?;
    let counts = matches!(named.parse::<Manager>(), Ok(Manager::Auto));
    (counts && wants_pip(agent)).then(|| {
        let (replaced, instead) = (agent.origin(REPLACED), agent.origin(TYPE));
        format!("{REPLACED} ({replaced}) has no effect: {TYPE} ({instead}) is {chosen}")
    })
}

/// What the log says of keys that speak to an installer which is not the one that is used.
fn of_another_installer(manager: Manager, agent: &Agent) -> Vec<String> {
    let (keys, why): (&[&str], &str) = match manager {
        Manager::Pip => (&[BEST_MATCH], "pip itself installs"),
        Manager::Auto | Manager::Uv | Manager::Poetry => {
            (&[OLD_RESOLVER], "uv installs, and has one resolver")
        }
        Manager::Conda | Manager::None => (&[], ""),
    };
    let by_hand = keys.iter().filter(|key| {
        agent.is_set(key) && !(**key == OLD_RESOLVER && agent.list(key) == GENERATED_RESOLVER)
    });
    by_hand
        .map(|key| format!("{key} ({}) has no effect: {why}", agent.origin(key)))
        .collect()
}

/// What the log says of a command for an abort: an agent would run it.
fn abort_command(variables: &BTreeMap<String, String>) -> Option<String> {
    let environment = Environment::of(variables.clone());
    let (name, command) = environment.alias(ABORT_COMMAND)?;
    (!command.trim().is_empty()).then(|| {
        format!(
            "environment variable {name} has no effect: an abort is SIGTERM to the task's process, which has its grace to \
             act on it; environment.postScript of the binding runs after that"
        )
    })
}

/// The value of a variable, under whichever of its names it is set, unless it says no.
fn switched_on(variables: &BTreeMap<String, String>, name: &str) -> Option<String> {
    let environment = Environment::of(variables.clone());
    let (_, value) = environment.alias(name)?;
    let value = value.trim();
    let no = ["", "0", "false", "no", "off", "n", "f"];
    let no = no.contains(&value.to_ascii_lowercase().as_str());
    (!no).then(|| value.to_owned())
}

/// The interpreter that [`SKIP_VENV`] names, where it says more than yes.
fn interpreter_of_skip(variables: &BTreeMap<String, String>) -> Option<String> {
    let value = switched_on(variables, SKIP_VENV)?;
    let yes = ["1", "true", "yes", "on", "y", "t"];
    let yes = yes.contains(&value.to_ascii_lowercase().as_str());
    (!yes).then_some(value)
}

/// What the configuration says about packages.
pub fn options(settings: &Settings, agent: &Agent) -> Options {
    let indexed = settings.index_url.is_some();
    let mut options = options_with(agent, &settings.inherited, indexed, settings.cache_limit);
    options.system_site_packages |= is_of_a_file(agent, SITE_PACKAGES);
    options
}

/// Each generated file says `false`, which is meant for machines: the agent appends `true` to the file in each of its
/// containers (`protocol.md` §6.4), so that the packages of the image count. Who sets the variable means it.
const SITE_PACKAGES: &str = "agent.package_manager.system_site_packages";

fn is_of_a_file(agent: &Agent, key: &str) -> bool {
    matches!(agent.origin(key), From::File { .. })
}

/// The same without a pod; `indexed`: packages come from an index that the binding names.
pub fn options_with(
    agent: &Agent,
    variables: &BTreeMap<String, String>,
    indexed: bool,
    cache_limit: Option<u64>,
) -> Options {
    let of = |key: &str| format!("agent.package_manager.{key}");
    let default = Options::default();
    let flags = |key: &str| agent.list(&of(key));
    let mut options = Options {
        system_site_packages: agent.flag(&of("system_site_packages")),
        force_upgrade: agent.flag(&of("force_upgrade")),
        extra_index_url: flags("extra_index_url"),
        extra_flags: flags("extra_pip_install_flags"),
        best_match: agent.flag(&of("uv_unsafe_best_match")),
        pip_version: match agent.get(&of("pip_version")) {
            Some(serde_json::Value::String(one)) => vec![one.clone()],
            _ => flags("pip_version"),
        },
        legacy_resolver: flags("pip_legacy_resolver"),
        record_conda: agent.flag(&of("conda_full_env_update")),
        priority_packages: flags("priority_packages"),
        priority_optional_packages: flags("priority_optional_packages"),
        post_packages: flags("post_packages"),
        post_optional_packages: flags("post_optional_packages"),
        poetry_arguments: flags("poetry_install_extra_args"),
        uv_sync_arguments: flags("uv_sync_extra_args"),
        uv_run_arguments: flags("uv_run_extra_args"),
        uv_locked: agent.flag(&of("uv_sync_locked_if_lock_file")),
        conda_channels: flags("conda_channels"),
        torch_index: torch_index(agent, variables, indexed),
        torch_page: of_torch::is_page(agent),
        cuda: cuda(agent),
        cudnn: cudnn(agent, variables),
        cache_limit,
    };
    if options.conda_channels.is_empty() {
        options.conda_channels = default.conda_channels;
    }
    options
}

/// The CUDA version that counts whatever the driver says, and what gives it.
fn cuda(agent: &Agent) -> Option<(String, String)> {
    if agent.flag("agent.cpu_only") {
        return Some(("0".to_owned(), named(agent, "agent.cpu_only")));
    }
    let version = agent.text("agent.cuda_version")?;
    Some((version, named(agent, "agent.cuda_version")))
}

/// The version of cuDNN that counts whatever lies in the image, and what gives it. As with the agent any variable goes
/// before the file, which cannot know the image.
fn cudnn(agent: &Agent, variables: &BTreeMap<String, String>) -> Option<(String, String)> {
    let version = agent.text("agent.cudnn_version");
    let of_image = variables
        .get("CUDNN_VERSION")
        .filter(|version| !version.trim().is_empty());
    match of_image {
        Some(of_image) if !matches!(agent.origin("agent.cudnn_version"), From::Variable(_)) => {
            Some((of_image.clone(), "CUDNN_VERSION".to_owned()))
        }
        _ => Some((version?, named(agent, "agent.cudnn_version"))),
    }
}

/// What gives the value of a key: the key itself, or its variable.
fn named(agent: &Agent, key: &str) -> String {
    match agent.origin(key) {
        From::Default => "default".to_owned(),
        From::File { .. } => key.to_owned(),
        From::Variable(name) => name.clone(),
    }
}

/// The Python that the configuration prefers to the one that the task was recorded with, or where it names none.
pub fn choose_python(plan: &mut Plan, agent: &Agent) {
    if agent.flag("agent.ignore_requested_python_version") {
        plan.python = None;
    }
    if plan.python.is_none() {
        let default = agent.text("agent.default_python");
        plan.python = default.filter(|version| version.contains('.'));
    }
    if agent.flag("agent.force_git_root_python_path") {
        plan.python_root = plan.checkout.as_ref().map(|_| plan.code_root.clone());
    }
}

/// Locks and projects are looked for in the working directory alone where the configuration says so.
pub fn choose_folders(plan: &mut Plan, agent: &Agent) {
    let Some(environment) = plan.environment.as_mut() else {
        return;
    };
    // Without a repository there are none.
    let of = |key: &str| {
        let alone = agent.flag(key) && !environment.folders.is_empty();
        alone.then(|| plan.working_dir.clone())
    };
    let uv = of("agent.package_manager.uv_files_from_repo_working_dir");
    let poetry = of("agent.package_manager.poetry_files_from_repo_working_dir");
    environment.uv_folder = uv;
    environment.poetry_folder = poetry;
}

/// What the configuration changes of the container's variables before a Python is looked for.
pub fn surroundings(
    plan: &Plan,
    agent: &Agent,
    inherited: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = inherited.clone();
    if let Some(named) = interpreter_of_skip(inherited) {
        // It alone has the task's packages, whatever version the task was recorded with.
        variables.insert("LOCAL_PYTHON".to_owned(), named);
    } else if plan.python.is_none()
        && let Some(binary) = agent.text("agent.python_binary")
    {
        variables.entry("LOCAL_PYTHON".to_owned()).or_insert(binary);
    }
    if !agent.flag("agent.docker_use_activated_venv")
        && let Some(active) = variables.remove("VIRTUAL_ENV")
        && let Some(path) = variables.get_mut("PATH")
    {
        let programs = format!("{}/bin", active.trim_end_matches('/'));
        let rest: Vec<&str> = path
            .split(':')
            .filter(|folder| *folder != programs)
            .collect();
        *path = rest.join(":");
    }
    variables
}

/// What the configuration changes of the run itself.
pub fn adjust(settings: &mut Settings, agent: &Agent) {
    let seconds = agent.text("agent.abort_callback_max_timeout");
    if let Some(seconds) = seconds.and_then(|seconds| seconds.parse::<f64>().ok()) {
        let most = Duration::try_from_secs_f64(seconds).unwrap_or(settings.callback_most);
        settings.callback_most = most.min(settings.callback_most);
    }
    if agent.is_set("agent.resource_monitoring.disk_use_path") {
        let path = agent.text("agent.resource_monitoring.disk_use_path");
        let home = settings.inherited.get("HOME").map_or("/", String::as_str);
        let path = path.map(|path| PathBuf::from(path.replacen('~', home, 1)));
        settings.disk = path.filter(|path| path.is_dir());
    }
}

/// The script that a key holds as one text or by lines.
pub fn shell_script(agent: &Agent, key: &str) -> Option<String> {
    let script = match agent.get(key)? {
        Value::String(text) => text.clone(),
        _ => agent.list(key).join("\n"),
    };
    Some(script).filter(|script| !script.trim().is_empty())
}

/// What the configuration says about git; read where code is checked out.
pub fn git(agent: &Agent) -> git::Options {
    of_git::options(agent)
}

/// The requirements that the configuration prefers: those of the repository, or those that the user wrote first (§7.6).
pub fn choose_requirements(task: &mut crate::task::Task, agent: &Agent) {
    let requirements = &mut task.script.requirements;
    if agent.flag("agent.package_manager.force_repo_requirements_txt")
        && !task.script.repository.trim().is_empty()
    {
        requirements.remove("pip");
        requirements.remove("conda");
    } else if agent.flag("agent.package_manager.force_original_requirements")
        && let Some(original) = requirements.get("org_pip").cloned()
    {
        requirements.insert("pip".to_owned(), original);
    }
}

#[cfg(test)]
mod tests;
