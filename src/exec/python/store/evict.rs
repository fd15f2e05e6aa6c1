//! Keeps the cache within its size: removes environments that nobody uses, the least recently used first.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::whole;
use crate::exec::shelf::{self, least_recent, size, walk};

/// Removes environments below `base` until all of it has at most `limit` bytes: how many, and whether it is still larger
/// (uv's own cache remains).
pub(super) fn evict(base: &Path, limit: u64) -> (usize, bool) {
    let mut removed = 0;
    let mut candidates = least_recent(&base.join("env"));
    candidates.sort();
    let mut candidates = candidates.into_iter();
    loop {
        let size = size(base);
        if size <= limit {
            return (removed, false);
        }
        // What only uv's cache holds is freed by removing it from there.
        if size.saturating_sub(size_of_unlinked(base)) <= limit {
            return (removed, true);
        }
        let Some((_, folder)) = candidates.next() else {
            return (removed, true);
        };
        removed += usize::from(remove(&folder));
    }
}

/// Removes one environment, unless it is made or used right now.
fn remove(folder: &Path) -> bool {
    shelf::remove(folder, |folder| whole::set_writable(folder, true))
}

/// Bytes of uv's cache that no environment links to.
fn size_of_unlinked(base: &Path) -> u64 {
    walk(&base.join("uv"), &mut |found| {
        if found.nlink() == 1 {
            found.blocks() * 512
        } else {
            0
        }
    })
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
}
