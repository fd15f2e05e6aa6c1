//! conda's own cache of packages: environments are hard links into it, as they are into uv's.
//!
//! None of conda's programs keeps another from emptying it half-way, so that all who make environments hold it
//! meanwhile, and it goes as a whole while nobody does.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Store;
use crate::exec::shelf::open_lock;

/// Between two looks whether it is still being removed.
const AGAIN: Duration = Duration::from_millis(100);

/// Where they lie in a part of the cache.
pub(super) fn folder(base: &Path) -> PathBuf {
    base.join("conda")
}

impl Store {
    /// Where conda keeps packages.
    pub(in crate::exec::python) fn packages(&self) -> PathBuf {
        folder(&self.base)
    }

    /// The right to use them: while it is held, nobody removes them. Where that is done right now, it is waited for.
    pub(in crate::exec::python) async fn hold_packages(&self) -> Option<File> {
        let lock = open_lock(&self.packages().with_extension("used"))?;
        while let Err(error) = lock.try_lock_shared() {
            match error {
                TryLockError::WouldBlock => tokio::time::sleep(AGAIN).await,
                TryLockError::Error(_) => return None,
            }
        }
        Some(lock)
    }
}
