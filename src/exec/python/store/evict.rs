//! Keeps the cache within its size: removes environments that nobody uses, the least recently used first, and packages
//! that no environment needs.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{PythonSettings, Store, packages, whole};
use crate::exec::python::QUICK;
use crate::exec::shelf::{self, least_recent, size, walk};
use crate::exec::tool::{self, Log};

impl Store {
    /// Makes room: environments that nobody uses, the least recently used first; then what only conda's and uv's own
    /// caches still hold.
    pub(in crate::exec::python) async fn clean(
        &self,
        limit: u64,
        settings: &PythonSettings,
        working_dir: &Path,
        log: &mut Log<'_>,
    ) {
        let (removed, over) = evict(&self.base, limit);
        if removed > 0 {
            log(&format!(
                "{removed} environments that were used longest ago are removed from the cache"
            ));
        }
        if over {
            let mut command = settings.uv(&self.base);
            command
                .args(["cache", "clean", "--quiet"])
                .current_dir(working_dir);
            let _ = tool::run(command, None, QUICK, &mut |_| {}).await;
        }
    }
}

/// Removes environments below `base`, and conda's packages if need be, until all of it has at most `limit` bytes: how many
/// environments, and whether it is still larger (uv's own cache remains).
fn evict(base: &Path, limit: u64) -> (usize, bool) {
    let mut removed = 0;
    let mut candidates = least_recent(&base.join("env"));
    candidates.sort();
    let mut candidates = candidates.into_iter();
    loop {
        let size = size(base);
        if size <= limit {
            return (removed, false);
        }
        // What only a cache of packages holds is freed by removing it from there.
        if size.saturating_sub(size_of_unlinked(base)) <= limit {
            break;
        }
        let Some((_, folder)) = candidates.next() else {
            break;
        };
        removed += usize::from(remove(&folder));
    }
    let packages = packages::folder(base);
    let is_removed = packages.is_dir() && remove(&packages);
    (removed, !is_removed || size(base) > limit)
}

/// Removes one environment, or conda's packages, unless they are made or used right now.
fn remove(folder: &Path) -> bool {
    shelf::remove(folder, |folder| whole::set_writable(folder, true))
}

/// Bytes of packages that no environment links to.
fn size_of_unlinked(base: &Path) -> u64 {
    let mut count = |found: &Metadata| {
        if found.nlink() == 1 {
            found.blocks() * 512
        } else {
            0
        }
    };
    [base.join("uv"), packages::folder(base)]
        .iter()
        .map(|folder| walk(folder, &mut count))
        .sum()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn environment(base: &Path, name: &str, age: u64) -> File {
        let folder = base.join("env").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("data"), vec![1; 100_000]).unwrap();
        let lock = File::create(base.join("env").join(format!("{name}.used"))).unwrap();
        lock.set_modified(SystemTime::now() - Duration::from_secs(age))
            .unwrap();
        lock
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let oldest = environment(base, "oldest", 300);
        environment(base, "older", 200);
        environment(base, "newer", 100);
        oldest.lock_shared().unwrap();
        assert_eq!(evict(base, 250_000), (1, false));
        let left = |name: &str| base.join("env").join(name).exists();
        assert!(left("oldest") && !left("older") && left("newer"));
        assert_eq!(
            evict(base, 0),
            (1, true),
            "the one in use stays, so it is still too large"
        );
        assert!(left("oldest") && !left("newer"));
    }

    #[test]
    fn what_only_uv_still_holds_is_for_uv_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        environment(base, "one", 100);
        environment(base, "two", 50);
        fs::create_dir_all(base.join("uv")).unwrap();
        fs::hard_link(base.join("env/one/data"), base.join("uv/one")).unwrap();
        assert_eq!(evict(base, 150_000), (1, true));
        assert!(
            base.join("env/two").exists(),
            "removing the first from uv's cache as well suffices"
        );
    }

    #[test]
    fn packages_of_conda_count_once_and_go_before_environments_that_fit() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        environment(base, "one", 100);
        environment(base, "two", 50);
        let packages = packages::folder(base);
        fs::create_dir_all(packages.join("one-1-0")).unwrap();
        fs::hard_link(base.join("env/one/data"), packages.join("one-1-0/data")).unwrap();
        fs::write(packages.join("one-1-0.conda"), vec![1; 100_000]).unwrap();
        assert_eq!(
            evict(base, 350_000),
            (0, false),
            "what an environment links to takes no room of its own"
        );
        assert!(packages.exists());
        let making = File::create(packages.with_extension("used")).unwrap();
        making.lock_shared().unwrap();
        assert_eq!(evict(base, 250_000), (0, true));
        assert!(packages.exists(), "an environment is made from them");
        drop(making);
        assert_eq!(evict(base, 250_000), (0, false));
        assert!(!packages.exists());
        for left in ["one", "two"] {
            assert!(base.join("env").join(left).join("data").exists(), "{left}");
        }
    }
}
