//! Folders on the cache volume that come and go by their last use: environments, repositories.
//!
//! ```text
//! <shelf>/<key>/       the thing
//! <shelf>/<key>.lock   held by who makes or changes it
//! <shelf>/<key>.used   held together by all who use it; its time is that of the last use
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Opens a lock, and makes its file if need be.
pub fn open_lock(path: &Path) -> Option<File> {
    let mut options = File::options();
    options
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .ok()
}

/// Marks a thing as used now; while the answer is held, nobody removes it.
pub fn hold(thing: &Path) -> Option<File> {
    let lock = open_lock(&thing.with_extension("used"))?;
    let _ = lock.set_modified(SystemTime::now());
    lock.try_lock_shared().ok()?;
    Some(lock)
}

/// All things with the time of their last use.
pub fn least_recent(shelf: &Path) -> Vec<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(shelf).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let used = entry
                .path()
                .with_extension("used")
                .metadata()
                .and_then(|lock| lock.modified());
            (used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
        })
        .collect()
}

/// Removes one thing, unless it is made or used right now.
pub fn remove(thing: &Path, before: impl Fn(&Path)) -> bool {
    let locks = ["lock", "used"].map(|name| {
        let lock = open_lock(&thing.with_extension(name))?;
        lock.try_lock().ok()?;
        Some(lock)
    });
    if locks.iter().any(Option::is_none) {
        return false;
    }
    before(thing);
    fs::remove_dir_all(thing).is_ok()
}

/// Bytes on the disk, each file counted once.
pub fn size(folder: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    walk(folder, &mut |found| {
        if seen.insert((found.dev(), found.ino())) {
            found.blocks() * 512
        } else {
            0
        }
    })
}

/// The sum over all files below a folder.
pub fn walk(folder: &Path, count: &mut dyn FnMut(&fs::Metadata) -> u64) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => sum += walk(&entry.path(), count),
            Ok(found) if found.is_file() => sum += count(&found),
            _ => {}
        }
    }
    sum
}
