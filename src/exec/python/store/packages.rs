//! conda's own cache of packages: environments are hard links into it, as they are into uv's.
//!
//! None of conda's programs keeps another from emptying it half-way, so that all who make environments hold it
//! meanwhile (`shelf::hold`), and it goes as a whole while nobody does.

use std::path::{Path, PathBuf};

use super::Store;

/// Where they lie in a part of the cache.
pub(super) fn folder(base: &Path) -> PathBuf {
    base.join("conda")
}

impl Store {
    /// Where conda keeps packages.
    pub(in crate::exec::python) fn packages(&self) -> PathBuf {
        folder(&self.base)
    }
}
