//! Every environment variable that a program of ours reads, as one documented constant. Variables inside a task's pod are
//! [`crate::pod`]'s. Nothing else reads the environment but one function of `exec`, which hands a pod's on to the user's
//! process; `tests/it/layering.rs` holds that.
//!
//! `docs/reference/environment-variables.md` is made from this table.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    pub name: &'static str,
    /// What it sets, in Markdown.
    pub meaning: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
}

macro_rules! variables {
    ($($(#[doc = $doc:literal])+ $constant:ident = $name:literal $(, $secret:ident)?;)+) => {
        $($(#[doc = $doc])+ pub const $constant: &str = $name;)+

        /// All of them, in the order of the reference.
        pub const ALL: &[Variable] = &[
            $(Variable {
                name: $name,
                meaning: concat!($($doc),+),
                secret: variables!(@secret $($secret)?),
            }),+
        ];
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

variables! {
    /// Address of the ClearML API server, such as `https://api.clear.example`. Default: `api.api_server` of `clearml.conf`.
    API_HOST = "CLEARML_API_HOST";
    /// Address of the web interface. Default: `api.web_server`, else asked of the server.
    WEB_HOST = "CLEARML_WEB_HOST";
    /// Address that artifacts are uploaded to. Default: `api.files_server`, else asked of the server.
    FILES_HOST = "CLEARML_FILES_HOST";
    /// Access key, if there is no Secret to read it from. Default: `api.credentials.access_key`.
    ACCESS_KEY = "CLEARML_API_ACCESS_KEY", secret;
    /// Secret key, if there is no Secret to read it from. Default: `api.credentials.secret_key`.
    SECRET_KEY = "CLEARML_API_SECRET_KEY", secret;
    /// Path of `clearml.conf`. Default: none is read.
    CONFIG_FILE = "CLEARML_CONFIG_FILE";
    /// What worker ids of task pods begin with. Default: made from the cluster's id, the namespace and the binding.
    WORKER_ID = "CLEARML_WORKER_ID";
    /// Name of the Secret with the keys `access_key` and `secret_key`, in the namespace of each binding that names none; read again when it changes, and what task pods get their keys from.
    CREDENTIALS_SECRET = "TRAINYARD_CREDENTIALS_SECRET";
    /// Name of the ConfigMap with `ca.crt`, certificates to trust when talking to the server, in the namespace of each binding; for the controller and task pods.
    SERVER_CA_CONFIG_MAP = "TRAINYARD_SERVER_CA_CONFIG_MAP";
    /// Namespace of the controller: its Leases, its Secret. Default: that of its service account, else `default`.
    NAMESPACE = "TRAINYARD_NAMESPACE";
    /// Which bindings are served: `namespace`, those of the controller's namespace, or `cluster`, all. Default: `namespace`.
    SCOPE = "TRAINYARD_SCOPE";
    /// An id of the cluster, part of worker ids and of the names of pending queues. Default: none; UIDs of bindings keep clusters apart.
    CLUSTER_ID = "TRAINYARD_CLUSTER_ID";
    /// Name of this replica, for the Lease. Default: the host name, which is the pod's name.
    IDENTITY = "TRAINYARD_IDENTITY";
    /// Address of probes and metrics. Default: `0.0.0.0:8080`.
    LISTEN = "TRAINYARD_LISTEN";
    /// Image of trainyard, for the init container and the sidecar of task pods.
    IMAGE = "TRAINYARD_IMAGE";
    /// Pull policy of that image: `Always`, `IfNotPresent` or `Never`. Default: Kubernetes' own.
    IMAGE_PULL_POLICY = "TRAINYARD_IMAGE_PULL_POLICY";
    /// Names of pull secrets that are added to each task pod, with commas between them.
    IMAGE_PULL_SECRETS = "TRAINYARD_IMAGE_PULL_SECRETS";
    /// Image of tasks where neither the template nor the task names one. Default: none, and such a template is refused.
    DEFAULT_IMAGE = "TRAINYARD_DEFAULT_IMAGE";
    /// Path of a file with certificates (PEM) to trust when an image registry is asked for an image (`imageCheck`, `useEntrypoint`), beside the machine's own.
    REGISTRY_CA = "TRAINYARD_REGISTRY_CA";
    /// Hosts of image registries that are asked without TLS, with commas between them. Default: addresses of this machine alone.
    PLAIN_HTTP_REGISTRIES = "TRAINYARD_PLAIN_HTTP_REGISTRIES";
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or filters such as `info,trainyard::claim=debug`. Default: `info`.
    LOG = "TRAINYARD_LOG";
    /// Form of log lines: `text` or `json`. Default: `text`.
    LOG_FORMAT = "TRAINYARD_LOG_FORMAT";
    /// `trainyard server`: address and port for API, files and pages. Default: `127.0.0.1:8008`.
    SERVER_LISTEN = "TRAINYARD_SERVER_LISTEN";
    /// `trainyard server`: a further address and port, for files alone. Default: none.
    SERVER_FILES_LISTEN = "TRAINYARD_SERVER_FILES_LISTEN";
    /// `trainyard server`: folder for the database, the keys and the files; also of its `backup`, `restore` and `user`.
    SERVER_DATA = "TRAINYARD_SERVER_DATA";
    /// `trainyard server`: address under which clients reach it, from pods too. Default: the address listened on.
    SERVER_PUBLIC_URL = "TRAINYARD_SERVER_PUBLIC_URL";
    /// `trainyard server`: where to write a `clearml.conf` with address and keys. Default: nowhere.
    SERVER_WRITE_CONF = "TRAINYARD_SERVER_WRITE_CONF";
    /// `trainyard server`: certificate (PEM) to serve https with. Default: none, http.
    SERVER_TLS_CERT = "TRAINYARD_SERVER_TLS_CERT";
    /// `trainyard server`: private key (PEM) of the certificate.
    SERVER_TLS_KEY = "TRAINYARD_SERVER_TLS_KEY";
    /// `trainyard server`: API version of the ClearML server that is played, from `2.9` on. Default: `2.34`.
    SERVER_API_VERSION = "TRAINYARD_SERVER_API_VERSION";
    /// `trainyard server`: seconds of silence after which a running task is stopped. Default: `7200`.
    SERVER_WATCHDOG_TIMEOUT = "TRAINYARD_SERVER_WATCHDOG_TIMEOUT";
    /// `trainyard server`: seconds between two looks for silent tasks and for what is too old. Default: `900`.
    SERVER_WATCHDOG_INTERVAL = "TRAINYARD_SERVER_WATCHDOG_INTERVAL";
    /// `trainyard server`: days after which log lines are thrown away. Default: never.
    SERVER_KEEP_LOGS = "TRAINYARD_SERVER_KEEP_LOGS";
    /// `trainyard server`: days without a change after which scalars, plots and debug samples of a task are thrown away. Default: never.
    SERVER_KEEP_METRICS = "TRAINYARD_SERVER_KEEP_METRICS";
    /// `trainyard server`: the largest file that is taken, in MiB. Default: `65536`.
    SERVER_LARGEST_FILE = "TRAINYARD_SERVER_LARGEST_FILE";
    /// `trainyard server`: system tags that hide a queue from lists, with commas between them. Default: `k8s-glue`.
    SERVER_HIDDEN_QUEUE_TAGS = "TRAINYARD_SERVER_HIDDEN_QUEUE_TAGS";
}

/// Folder in which a test says at which fault points the controller dies. Builds for release do not know it.
#[cfg(debug_assertions)]
pub(crate) fn fault_folder() -> Option<std::path::PathBuf> {
    std::env::var_os("TRAINYARD_FAULTS").map(Into::into)
}

/// The environment at the start of the process: [`ALL`], and what `clearml.conf` or a task's settings may refer to.
#[derive(Clone, Default)]
pub struct Environment {
    values: HashMap<String, String>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn read() -> Self {
        Self::of(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// An environment with these variables.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            values: variables.into_iter().collect(),
        }
    }

    /// The value of a variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All of it, for whom it is handed on to.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.values.clone().into_iter().collect()
    }
}

/// Names that `CLEARML_` had before.
const OLDER: [&str; 2] = ["TRAINS_", "JARVIS_"];

impl Environment {
    /// All set variables whose names begin so, in the order of their names.
    pub fn with_prefix(&self, prefix: &str) -> Vec<(&str, &str)> {
        let mut found: Vec<(&str, &str)> = self
            .values
            .iter()
            .filter(|(name, value)| name.starts_with(prefix) && !value.is_empty())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        found.sort_unstable();
        found
    }

    /// The variable of that name, or of the one that it had before (`TRAINS_…`, `JARVIS_…`), with the name that was found.
    pub fn alias(&self, name: &str) -> Option<(String, &str)> {
        let older = OLDER
            .iter()
            .filter_map(|prefix| Some(format!("{prefix}{}", name.strip_prefix("CLEARML_")?)));
        std::iter::once(name.to_owned())
            .chain(older)
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }
}

impl std::fmt::Debug for Environment {
    /// Values may be secrets, and other programs' too.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Environment({} variables)", self.values.len())
    }
}

/// The reference of all variables, in Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Environment variables\n\n\
         Generated from `src/config/env.rs`; do not edit. A flag goes before a variable, a variable before \
         `clearml.conf`.\n\n\
         | variable | meaning |\n|---|---|\n",
    );
    for Variable {
        name,
        meaning,
        secret,
    } in ALL
    {
        let note = if *secret { " Never shown in logs." } else { "" };
        let _ = writeln!(text, "| `{name}` | {}{note} |", meaning.trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_named_once_and_explained() {
        let mut names: Vec<&str> = ALL.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(
            ALL.iter()
                .all(|variable| variable.meaning.trim().ends_with('.'))
        );
    }

    #[test]
    fn an_empty_variable_is_not_set_and_none_is_shown() {
        let environment = Environment::of([
            (LOG.into(), String::new()),
            (SECRET_KEY.into(), "canary".into()),
        ]);
        assert_eq!(environment.get(LOG), None);
        assert!(!format!("{environment:?}").contains("canary"));
    }
}
