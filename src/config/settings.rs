//! Settings of the controller: what was typed, and what is meant.

use std::fmt;
use std::net::SocketAddr;

use secrecy::SecretString;

/// What was typed on the command line, as written. Absent means: not typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    pub api_url: Option<String>,
    pub web_url: Option<String>,
    pub files_url: Option<String>,
    pub credentials_secret: Option<String>,
    pub server_ca_config_map: Option<String>,
    pub namespace: Option<String>,
    pub scope: Option<String>,
    pub cluster_id: Option<String>,
    pub worker_id: Option<String>,
    pub identity: Option<String>,
    pub listen: Option<String>,
    pub image: Option<String>,
    pub image_pull_policy: Option<String>,
    pub image_pull_secrets: Option<String>,
    pub default_image: Option<String>,
    pub registry_ca: Option<String>,
    pub plain_http_registries: Option<String>,
    pub log: Option<String>,
    pub log_format: Option<String>,
}

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A key of a file.
    File {
        path: String,
        key: &'static str,
        line: Option<usize>,
    },
    /// What trainyard takes if nobody says anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag --{flag}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File {
                path,
                key,
                line: Some(line),
            } => write!(f, "{key} in line {line} of {path}"),
            Self::File {
                path,
                key,
                line: None,
            } => write!(f, "{key} in {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Setting<T> {
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Setting<U> {
        Setting {
            value: map(self.value),
            origin: self.origin,
        }
    }
}

/// What is wrong with a setting: what, from where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {message} (from {origin})")]
pub struct SettingError {
    pub setting: &'static str,
    pub message: String,
    pub origin: Origin,
}

/// Which bindings are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of the controller's namespace.
    Namespace,
    /// Those of all namespaces.
    Cluster,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// How the controller identifies itself to its own server.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A Secret in the namespace of each binding that names none; also what task pods refer to.
    Secret(String),
    /// Keys from variables or `clearml.conf`: for a controller outside of a cluster. Bindings must name a Secret.
    Keys {
        access_key: SecretString,
        secret_key: SecretString,
    },
}

/// The controller's own server; bindings may name another.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Absent: every binding must name a server.
    pub api_url: Option<Setting<String>>,
    pub web_url: Option<Setting<String>>,
    pub files_url: Option<Setting<String>>,
    pub credentials: Option<Setting<Credentials>>,
    /// ConfigMap with `ca.crt`, in the namespace of each binding.
    pub ca_config_map: Option<Setting<String>>,
}

/// What every task's pod gets.
#[derive(Debug, Clone)]
pub struct TaskPodSettings {
    /// Our image, for the init container and the sidecar.
    pub image: Setting<String>,
    pub image_pull_policy: Option<Setting<String>>,
    pub image_pull_secrets: Setting<Vec<String>>,
    pub default_image: Option<Setting<String>>,
}

/// How image registries are asked.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Path of certificates to trust beside the machine's own.
    pub ca: Option<Setting<String>>,
    /// Hosts that are asked without TLS.
    pub plain_http: Setting<Vec<String>>,
}

/// Settings of the controller.
#[derive(Debug, Clone)]
pub struct Settings {
    pub server: ServerSettings,
    pub pods: TaskPodSettings,
    pub registries: RegistrySettings,
    /// Absent: that of the service account, else `default`.
    pub namespace: Option<Setting<String>>,
    pub scope: Setting<Scope>,
    pub cluster_id: Option<Setting<String>>,
    pub worker_id: Option<Setting<String>>,
    /// Absent: the host's name.
    pub identity: Option<Setting<String>>,
    pub listen: Setting<SocketAddr>,
    pub log: Setting<String>,
    pub log_format: Setting<LogFormat>,
}
