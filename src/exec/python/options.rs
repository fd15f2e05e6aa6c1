//! What `clearml.conf` and environment variables say about packages (`protocol.md` §8.2).

/// Options of the installation; the defaults are those of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
pub struct Options {
    /// The image's packages are seen (`agent.package_manager.system_site_packages`).
    pub system_site_packages: bool,
    /// Newest versions that the list allows, also of what the image has.
    pub force_upgrade: bool,
    pub extra_index_url: Vec<String>,
    /// Further arguments of the installer.
    pub extra_flags: Vec<String>,
    /// uv takes the best version of all indexes, not of the first that has the package.
    pub best_match: bool,
    /// What the real pip has to be, with markers; empty: as the index has it.
    pub pip_version: Vec<String>,
    /// Versions of pip that get its old resolver.
    pub legacy_resolver: Vec<String>,
    /// What conda has made is recorded in the task.
    pub record_conda: bool,
    /// Installed last, without build isolation: they look at what is installed when they are built.
    pub post_packages: Vec<String>,
    pub post_optional_packages: Vec<String>,
    pub poetry_arguments: Vec<String>,
    pub uv_sync_arguments: Vec<String>,
    pub conda_channels: Vec<String>,
    /// Names the index of PyTorch's builds, `{}` being `cu124` or `cpu`; absent: none may be asked.
    pub torch_index: Option<String>,
    /// CUDA version that the settings give, and which of them; absent: the driver is asked.
    pub cuda: Option<(String, String)>,
    /// Version of cuDNN that the settings or the image's own variable give, and which of them; absent: it is looked for.
    pub cudnn: Option<(String, String)>,
    /// Largest size of the cache in bytes.
    pub cache_limit: Option<u64>,
}

/// PyTorch's own index.
pub const TORCH_INDEX: &str = "https://download.pytorch.org/whl/{}";

impl Default for Options {
    fn default() -> Self {
        Self {
            system_site_packages: true,
            force_upgrade: false,
            extra_index_url: Vec::new(),
            extra_flags: Vec::new(),
            best_match: false,
            pip_version: Vec::new(),
            legacy_resolver: vec![">=20.3,<24.3".to_owned()],
            record_conda: false,
            post_packages: vec!["horovod".to_owned()],
            post_optional_packages: Vec::new(),
            poetry_arguments: Vec::new(),
            uv_sync_arguments: Vec::new(),
            conda_channels: ["pytorch", "conda-forge", "nvidia", "defaults"]
                .map(str::to_owned)
                .to_vec(),
            torch_index: None,
            cuda: None,
            cudnn: None,
            cache_limit: None,
        }
    }
}
