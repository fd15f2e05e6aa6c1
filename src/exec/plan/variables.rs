//! The environment variables that the user's process gets beside its container's own (§7.8).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Plan;
use crate::config::env::Environment;
use crate::task::{TaskId, WorkerId};

/// What the process is started in.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The container's environment variables.
    pub inherited: &'a BTreeMap<String, String>,
    pub task: &'a TaskId,
    pub worker: &'a WorkerId,
    /// A `clearml.conf`, if the binding gives one.
    pub conf: Option<&'a Path>,
    /// Root of the Python environment that was made.
    pub environment: Option<&'a Path>,
    /// The HTTP proxy on the way to the server, and the addresses that it is for.
    pub proxy: Option<&'a str>,
    pub hosts: &'a [&'a str],
}

/// Changes to the container's environment variables. `Debug` shows names alone: values may be keys of the server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables {
    pub set: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.set.keys().collect();
        f.debug_struct("Variables")
            .field("set", &names)
            .field("remove", &self.remove)
            .finish()
    }
}

/// What an installer left behind says nothing to the user's process.
const REMOVED: [&str; 4] = [
    "CLEARML_APT_INSTALL",
    "UV_CACHE_DIR",
    "UV_PYTHON_CACHE_DIR",
    "UV_PYTHON_INSTALL_DIR",
];

impl Plan {
    /// The variables of the user's process.
    pub fn variables(&self, surroundings: Surroundings<'_>) -> Variables {
        let Surroundings {
            inherited,
            task,
            worker,
            conf,
            environment,
            proxy,
            hosts,
        } = surroundings;
        let mut set = BTreeMap::new();
        let mut put = |name: &str, value: String| set.insert(name.to_owned(), value);
        put("CLEARML_TASK_ID", task.to_string());
        put("CLEARML_WORKER_ID", worker.to_string());
        put("CLEARML_LOG_LEVEL", "INFO".to_owned());
        put("CLEARML_LOG_TASK_TO_BACKEND", "0".to_owned());
        if let Some(conf) = conf {
            put("CLEARML_CONFIG_FILE", conf.to_string_lossy().into_owned());
        }
        put("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned());
        put("PYTHONUNBUFFERED", "1".to_owned());
        if self.command.runs_code() {
            put("PYTHONPATH", self.python_path(inherited));
        }
        if has_ascii_locale(inherited) {
            put("PYTHONIOENCODING", "utf-8".to_owned());
        }
        if let Some(environment) = environment {
            put("VIRTUAL_ENV", environment.to_string_lossy().into_owned());
            let programs = environment.join("bin").to_string_lossy().into_owned();
            put("PATH", joined(&[programs], inherited.get("PATH")));
        }
        if self.checkout.is_some() {
            trust_checkout(inherited, &mut set);
        }
        if let Some(proxy) = proxy {
            let ways = hosts.iter().filter_map(|host| way_to(host));
            set.extend(ways.map(|name| (name, proxy.to_owned())));
        }
        let twins: Vec<(String, String)> = inherited
            .iter()
            .chain(&set)
            .filter(|(name, _)| !REMOVED.contains(&name.as_str()))
            .filter_map(|(name, value)| {
                Some((
                    format!("TRAINS_{}", name.strip_prefix("CLEARML_")?),
                    value.clone(),
                ))
            })
            .collect();
        set.extend(twins);
        Variables {
            set,
            remove: REMOVED.map(str::to_owned).to_vec(),
        }
    }

    /// Working directory, entry script's folder, what the user adds, then what the image has.
    fn python_path(&self, inherited: &BTreeMap<String, String>) -> String {
        let first = self.python_root.as_ref().unwrap_or(&self.working_dir);
        let mut folders = vec![first.to_string_lossy().into_owned()];
        let script: Option<PathBuf> = self
            .command
            .file()
            .map(|file| super::normal(&self.working_dir.join(file)));
        if let Some(folder) = script
            .as_deref()
            .and_then(Path::parent)
            .filter(|folder| *folder != self.working_dir)
        {
            folders.push(folder.to_string_lossy().into_owned());
        }
        let environment = Environment::of(inherited.clone());
        let extra = environment.alias("CLEARML_AGENT_EXTRA_PYTHON_PATH");
        folders.extend(extra.map(|(_, extra)| extra.to_owned()));
        joined(&folders, inherited.get("PYTHONPATH"))
    }
}

/// Name of the variable by which Python's `urllib` and `requests` (the SDK) find the proxy for this one host; the way of
/// everything else stays the image's.
fn way_to(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    Some(format!("{}://{}_proxy", url.scheme(), url.host_str()?))
}

fn joined(first: &[String], rest: Option<&String>) -> String {
    let rest = rest.filter(|rest| !rest.is_empty());
    first
        .iter()
        .chain(rest)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(":")
}

fn has_ascii_locale(inherited: &BTreeMap<String, String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| inherited.get(*name).filter(|v| !v.is_empty()));
    let utf8 = locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    !utf8 && !inherited.contains_key("PYTHONIOENCODING")
}

/// The checkout belongs to the user of another container; git would refuse to look into it. The settings that the
/// container brings by variables stay.
fn trust_checkout(inherited: &BTreeMap<String, String>, set: &mut BTreeMap<String, String>) {
    let count: usize = inherited
        .get("GIT_CONFIG_COUNT")
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    set.insert("GIT_CONFIG_COUNT".to_owned(), (count + 1).to_string());
    set.insert(
        format!("GIT_CONFIG_KEY_{count}"),
        "safe.directory".to_owned(),
    );
    set.insert(format!("GIT_CONFIG_VALUE_{count}"), "*".to_owned());
}
