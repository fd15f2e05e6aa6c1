//! `spec.environment`: how the executor makes the Python environment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Amount, FileRef, SecretKeyRef, SecretRef};

/// How the Python environment of a task is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSpec {
    /// manager installs the packages: auto (a lock file of the repository decides, else uv), uv, pip, poetry, conda,
    /// or none (the image as it is). Default: auto.
    #[serde(default)]
    pub manager: Manager,

    /// cache is where downloaded packages and environments are kept between tasks. Default: a volume that lives and
    /// ends with the pod.
    #[serde(default)]
    pub cache: Cache,

    /// indexUrl is the package index to install from. Default: the image's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/ ]+"))]
    pub index_url: Option<String>,

    /// caBundleRef names certificates (PEM) to trust for package index and conda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<FileRef>,

    /// git says how private repositories are reached.
    #[serde(default)]
    pub git: Git,

    /// clearmlConfRef names a Secret whose key clearml.conf (or the key given) is the configuration file of the
    /// user's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearml_conf_ref: Option<SecretKeyRef>,

    /// setupScript is a shell script that runs in the task's container before the environment is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub setup_script: Option<String>,

    /// postScript is a shell script that runs in the task's container after the task's process, whatever that has
    /// ended with. How the task ends is decided by its process alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub post_script: Option<String>,
}

/// What installs the packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    #[default]
    Auto,
    Uv,
    Pip,
    Poetry,
    Conda,
    None,
}

impl Manager {
    /// The word as people type it, and as the executor reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uv => "uv",
            Self::Pip => "pip",
            Self::Poetry => "poetry",
            Self::Conda => "conda",
            Self::None => "none",
        }
    }
}

/// Where downloaded packages and environments are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.claimName) && has(self.hostPath))",
    "message": "at most one of claimName and hostPath may be given"
}]))]
pub struct Cache {
    /// ahead is how many of the first tasks that wait for room have their environment made in the cache meanwhile, one
    /// after the other, by a Job without GPUs. It needs claimName or hostPath. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub ahead: Option<i32>,

    /// claimName is a PersistentVolumeClaim in the binding's namespace; all task pods mount it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,

    /// hostPath is a folder of the node; made if it is not there. It must be writable for the user that the task's
    /// image runs as, else the task runs without a kept cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 4096), regex(pattern = "^/.+"))]
    pub host_path: Option<String>,

    /// sizeLimit is the most that the cache may hold: the environments that were not used for longest go first. Of an
    /// emptyDir (neither claimName nor hostPath) it is the volume's limit too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Amount>,
}

impl Cache {
    /// Whether it outlives the pod.
    pub fn is_kept(&self) -> bool {
        self.claim_name.is_some() || self.host_path.is_some()
    }

    /// How many waiting tasks have their environment made ahead.
    pub fn tasks_ahead(&self) -> usize {
        let asked = self.ahead.filter(|_| self.is_kept()).unwrap_or(0);
        usize::try_from(asked).unwrap_or(0)
    }

    /// Whether it matters which environment a task runs with: some nodes hold it and others do not, or it is made ahead.
    pub fn tells_environments_apart(&self) -> bool {
        self.host_path.is_some() || self.tasks_ahead() > 0
    }
}

/// How private repositories are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Git {
    /// credentialsSecretRef names a Secret with username and password (or token), or ssh-privatekey. Only the
    /// container that checks out the code sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,

    /// knownHostsRef names the known_hosts file for ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_ref: Option<FileRef>,
}
