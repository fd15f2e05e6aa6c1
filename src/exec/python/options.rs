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
    /// What sources find beside them when they are built, whether they declare it or not; pip installs these first.
    pub priority_packages: Vec<String>,
    /// Tried before the others, each by itself; one that fails is left out.
    pub priority_optional_packages: Vec<String>,
    /// Installed last, without build isolation: they look at what is installed when they are built.
    pub post_packages: Vec<String>,
    pub post_optional_packages: Vec<String>,
    pub poetry_arguments: Vec<String>,
    pub uv_sync_arguments: Vec<String>,
    /// Of these, too, what chooses packages of a lock counts.
    pub uv_run_arguments: Vec<String>,
    /// A `uv.lock` is installed as it stands; else it is first brought up to date with its project.
    pub uv_locked: bool,
    pub conda_channels: Vec<String>,
    /// Names the index of PyTorch's builds, `{}` being `cu124` or `cpu`; absent: none may be asked.
    pub torch_index: Option<String>,
    /// What it names are pages of links, not indexes.
    pub torch_page: bool,
    /// CUDA version that the settings give, and which of them; absent: the driver is asked.
    pub cuda: Option<(String, String)>,
    /// Version of cuDNN that the settings or the image's own variable give, and which of them; absent: it is looked for.
    pub cudnn: Option<(String, String)>,
    /// Largest size of the cache in bytes.
    pub cache_limit: Option<u64>,
}

/// PyTorch's own index.
pub const TORCH_INDEX: &str = "https://download.pytorch.org/whl/{}";

/// uv looks for the best version in all indexes.
const BEST_MATCH: [&str; 2] = ["--index-strategy", "unsafe-best-match"];

impl Options {
    /// How uv chooses among indexes, where that is not its own way; `of_lock`: each line is one version, most of them with
    /// hashes, whichever index has it. Flags of the user's own that say it have the last word: uv takes it but once.
    pub(super) fn index_strategy(&self, of_lock: bool) -> &'static [&'static str] {
        let is_named = self
            .extra_flags
            .iter()
            .any(|flag| flag.split('=').next() == Some(BEST_MATCH[0]));
        if !is_named && (of_lock || self.best_match) {
            &BEST_MATCH
        } else {
            &[]
        }
    }
}

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
            priority_packages: ["cython", "numpy", "setuptools", "pip", "uv"]
                .map(str::to_owned)
                .to_vec(),
            priority_optional_packages: vec!["pygobject".to_owned()],
            post_packages: vec!["horovod".to_owned()],
            post_optional_packages: Vec::new(),
            poetry_arguments: Vec::new(),
            uv_sync_arguments: Vec::new(),
            uv_run_arguments: Vec::new(),
            uv_locked: true,
            conda_channels: ["pytorch", "conda-forge", "nvidia", "defaults"]
                .map(str::to_owned)
                .to_vec(),
            torch_index: None,
            torch_page: false,
            cuda: None,
            cudnn: None,
            cache_limit: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_uv_chooses_among_indexes_is_said_once() {
        let of = |best_match, flag: &str, of_lock| {
            let options = Options {
                best_match,
                extra_flags: vec![flag.to_owned()],
                ..Options::default()
            };
            options.index_strategy(of_lock).join(" ")
        };
        let best = "--index-strategy unsafe-best-match";
        for (best_match, flag, of_lock, expected) in [
            (false, "--pre", false, ""),
            (true, "--pre", false, best),
            (false, "--pre", true, best),
            (true, "--index-strategy", false, ""),
            (false, "--index-strategy=unsafe-first-match", true, ""),
        ] {
            let found = of(best_match, flag, of_lock);
            assert_eq!(found, expected, "{best_match} {flag} {of_lock}");
        }
    }
}
