//! What `cargo xtask test` has prepared for scenarios.

use std::path::PathBuf;

/// Where the cluster and the prepared programs are; `cargo xtask test` sets it.
#[derive(Debug, Clone)]
pub struct Place {
    pub kubeconfig: String,
    /// Address of the host as pods see it.
    pub gateway: String,
    /// Our image, and one with Python for tasks.
    pub image: String,
    pub task_image: String,
    /// Image registry as the cluster names it.
    pub registry: String,
    /// Where its node reads how registries are reached; empty on a cluster that is not the local one.
    pub registry_hosts: PathBuf,
    pub index_url: String,
    /// Folder of `kubectl` and `helm`.
    pub bin: PathBuf,
    /// A Python interpreter that has the unmodified `clearml` package.
    pub sdk_python: String,
}

impl Place {
    pub fn find() -> Self {
        let get = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: scenarios need a real cluster; run them by `cargo xtask test`")
            })
        };
        Self {
            kubeconfig: get("TRAINYARD_E2E_KUBECONFIG"),
            gateway: get("TRAINYARD_E2E_GATEWAY"),
            image: get("TRAINYARD_E2E_IMAGE"),
            task_image: get("TRAINYARD_E2E_TASK_IMAGE"),
            registry: get("TRAINYARD_E2E_REGISTRY"),
            registry_hosts: PathBuf::from(get("TRAINYARD_E2E_REGISTRY_HOSTS")),
            index_url: get("TRAINYARD_E2E_INDEX_URL"),
            bin: PathBuf::from(get("TRAINYARD_E2E_BIN")),
            sdk_python: get("TRAINYARD_E2E_SDK_PYTHON"),
        }
    }
}
