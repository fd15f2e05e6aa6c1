//! Volumes of the executor, and which container mounts which.
//!
//! All files that come from Secrets are readable for everybody *in the container that mounts them*: its user is not
//! known here and need not be root, and no other container sees them.

use serde_json::{Value, json};

use super::docker;
use super::job::Inputs;
use crate::crd::{FileKind, FileRef};
use crate::pod;

/// One volume and the containers that mount it.
pub(super) struct Volume {
    /// As it stands in `spec.volumes`; null: another part of one that stands there.
    pub(super) source: Value,
    pub(super) mount: Value,
    pub(super) in_prepare: bool,
    pub(super) in_uplink: bool,
    pub(super) in_task: bool,
}

/// The volumes of the executor for this task, in the order in which they are mounted.
pub(super) fn of(inputs: &Inputs<'_>, shm_size: Option<u64>) -> Vec<Volume> {
    let environment = &inputs.spec.environment;
    let mut volumes = vec![
        volume(pod::VOLUME, json!({ "emptyDir": {} }), pod::ROOT).in_all(),
        volume(
            pod::SPOOL_VOLUME,
            json!({ "emptyDir": { "sizeLimit": pod::SPOOL_LIMIT } }),
            pod::SPOOL,
        )
        .in_all(),
        cache(inputs),
        volume("trainyard-tmp", json!({ "emptyDir": {} }), "/tmp").in_prepare(),
    ];
    if outlives_the_pod(inputs) {
        volumes.push(repositories());
    }
    if let Some(bundle) = &inputs.server.ca_bundle {
        volumes.push(file("trainyard-server", bundle, pod::SERVER_CA).in_all());
    }
    if let Some(bundle) = &environment.ca_bundle_ref {
        volumes.push(
            file("trainyard-index", bundle, pod::INDEX_CA)
                .in_prepare()
                .in_task(),
        );
    }
    if let Some(secret) = &environment.git.credentials_secret_ref {
        let source = json!({ "secret": { "secretName": secret.name, "defaultMode": READABLE } });
        volumes.push(
            volume("trainyard-git-credentials", source, pod::GIT_CREDENTIALS)
                .read_only()
                .in_prepare(),
        );
    }
    if let Some(known_hosts) = &environment.git.known_hosts_ref {
        volumes.push(
            file(
                "trainyard-git-known-hosts",
                known_hosts,
                pod::GIT_KNOWN_HOSTS,
            )
            .in_prepare(),
        );
    }
    if let Some(conf) = &environment.clearml_conf_ref {
        let key = conf
            .key
            .clone()
            .unwrap_or_else(|| "clearml.conf".to_owned());
        let reference = FileRef {
            kind: FileKind::Secret,
            name: conf.name.clone(),
            key,
        };
        volumes.push(
            // The task's container gets a copy without the passwords of repositories.
            file("trainyard-conf", &reference, pod::CLEARML_CONF).in_prepare(),
        );
    }
    if let Some(size) = shm_size {
        let source =
            json!({ "emptyDir": { "medium": "Memory", "sizeLimit": docker::as_quantity(size) } });
        volumes.push(volume("trainyard-shm", source, "/dev/shm").in_task());
    }
    volumes
}

/// Mode of files from Secrets and ConfigMaps: r--r--r--.
const READABLE: u32 = 0o444;

fn outlives_the_pod(inputs: &Inputs<'_>) -> bool {
    inputs.spec.environment.cache.is_kept()
}

/// Packages and environments. Of a volume that other tasks share, the task's container sees that part alone: it must
/// neither read nor change the repositories of others.
fn cache(inputs: &Inputs<'_>) -> Volume {
    let cache = &inputs.spec.environment.cache;
    let source = match (&cache.claim_name, &cache.host_path, &cache.size_limit) {
        (Some(claim), _, _) => json!({ "persistentVolumeClaim": { "claimName": claim } }),
        (None, Some(path), _) => {
            json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } })
        }
        (None, None, Some(limit)) => json!({ "emptyDir": { "sizeLimit": limit } }),
        (None, None, None) => json!({ "emptyDir": {} }),
    };
    let mut volume = volume(pod::CACHE_VOLUME, source, pod::CACHE).in_task();
    if outlives_the_pod(inputs) {
        volume.mount["subPath"] = json!(pod::CACHE_ENVIRONMENTS);
    }
    volume
}

/// The other part of that volume.
fn repositories() -> Volume {
    let mut volume = volume(pod::CACHE_VOLUME, Value::Null, pod::GIT_CACHE).in_prepare();
    volume.mount["subPath"] = json!(pod::CACHE_REPOSITORIES);
    volume
}

/// One file at `path`; mounted by itself, so that the folder may hold others.
fn file(name: &str, reference: &FileRef, path: &str) -> Volume {
    let file = path.rsplit('/').next().unwrap_or(path);
    let items = json!([{ "key": reference.key, "path": file }]);
    let source = match reference.kind {
        FileKind::ConfigMap => {
            json!({ "configMap": { "name": reference.name, "items": items, "defaultMode": READABLE } })
        }
        FileKind::Secret => {
            json!({ "secret": { "secretName": reference.name, "items": items, "defaultMode": READABLE } })
        }
    };
    let mut volume = volume(name, source, path).read_only();
    volume.mount["subPath"] = json!(file);
    volume
}

fn volume(name: &str, mut source: Value, path: &str) -> Volume {
    if !source.is_null() {
        source["name"] = json!(name);
    }
    Volume {
        source,
        mount: json!({ "name": name, "mountPath": path }),
        in_prepare: false,
        in_uplink: false,
        in_task: false,
    }
}

impl Volume {
    fn in_all(self) -> Self {
        Self {
            in_prepare: true,
            in_uplink: true,
            in_task: true,
            ..self
        }
    }

    fn in_prepare(self) -> Self {
        Self {
            in_prepare: true,
            ..self
        }
    }

    fn in_task(self) -> Self {
        Self {
            in_task: true,
            ..self
        }
    }

    fn read_only(mut self) -> Self {
        self.mount["readOnly"] = json!(true);
        self
    }
}
