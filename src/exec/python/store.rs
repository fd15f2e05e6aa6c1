//! Environments on the cache volume: one folder for each key, made under a lock, complete once its marker is there.
//!
//! ```text
//! <cache>/<uid>/uv/          uv's own cache: wheels, unpacked
//! <cache>/<uid>/conda/       conda's: packages, packed and unpacked; `conda.used` is held by all who make environments
//! <cache>/<uid>/env/<key>/   one environment: hard links into them; `.trainyard.json` is written last
//! <cache>/<uid>/env/<key>.lock   held by who makes it
//! <cache>/<uid>/env/<key>.used   held together by all who use it; its time is that of the last use
//! <cache>/<uid>/env/<key>    or a link to the environment of another key with the same content
//! ```
//!
//! Each environment is made whole: nothing of another one is left in it. What is the same in both is one file on the disk,
//! so that a change of one package costs just its own fetching and unpacking.
//!
//! An environment is read-only once it is complete, looked over before it is used, and removed only while nobody uses it.
//! Each user id has its own part: nobody runs what another user could have changed. Trouble with the cache is never
//! trouble of the task: it then gets an environment of its own.

mod evict;
mod packages;
mod whole;

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PythonSettings;
use crate::exec::failure::Failure;
use crate::exec::shelf::{hold, open_lock};
use crate::exec::small;
use crate::exec::tool::Log;

const MARKER: &str = ".trainyard.json";
/// Most bytes of it: some thousand packages.
const MARKER_BYTES: u64 = 1 << 20;

/// Written into a complete environment.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    installed: Vec<String>,
    /// What describes the installed packages that were whole when the environment was made; all of them have to be still.
    packages: Vec<PathBuf>,
}

/// The right to use an environment: while it is held, nobody removes it.
#[derive(Debug, Clone, Default)]
pub struct Held(Option<Arc<File>>);

impl Held {
    /// Until this process ends.
    pub fn keep_for_ever(&self) {
        std::mem::forget(self.0.clone());
    }
}

/// Two environments are the same whoever holds them.
impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

/// An environment, what is installed in it, and the right to use it.
type Ready = (PathBuf, Vec<String>, Held);

/// The part of the cache that belongs to our user.
pub(super) struct Store {
    base: PathBuf,
    own: PathBuf,
    /// Whether environments can be shared at all.
    usable: bool,
}

/// Where an environment is to be made, and the right to do so.
pub(super) struct Place {
    folder: PathBuf,
    lock: Option<File>,
}

/// Our user's part of the cache.
pub(super) fn base(cache: &Path, own: &Path) -> PathBuf {
    let base = cache.join(nix::unistd::geteuid().to_string());
    if std::fs::create_dir_all(base.join("env")).is_ok() {
        base
    } else {
        own.join("cache")
    }
}

impl Store {
    /// The one that the settings ask for.
    pub(super) fn of(settings: &PythonSettings, log: &mut Log<'_>) -> Self {
        if settings.alone {
            Self::own(&settings.own)
        } else {
            Self::open(&settings.cache, &settings.own, log)
        }
    }

    pub(super) fn open(cache: &Path, own: &Path, log: &mut Log<'_>) -> Self {
        let base = base(cache, own);
        let usable = base.starts_with(cache);
        if !usable {
            log(&format!(
                "the cache {} cannot be written: the environment is made for this task alone",
                cache.display()
            ));
        }
        Self {
            base,
            own: own.to_owned(),
            usable,
        }
    }

    /// No cache at all: everything is made on the pod's own volume.
    pub(super) fn own(own: &Path) -> Self {
        Self {
            base: own.join("cache"),
            own: own.to_owned(),
            usable: false,
        }
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Whether files of uv's cache can be links at this place; else they are copied there.
    pub(super) fn links_to(&self, place: &Path) -> bool {
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        match (device(&self.base), device(place)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable
    }

    fn folder(&self, key: &str) -> PathBuf {
        self.base.join("env").join(key)
    }

    /// The complete environment of that key; an error names the packages that are not whole any more.
    pub(super) fn ready(&self, key: &str) -> Result<Option<Ready>, Vec<String>> {
        // A link leads to the folder where the environment was made: its programs know no other.
        let Ok(folder) = self.folder(key).canonicalize() else {
            return Ok(None);
        };
        // Taken before the look: what was looked over must not be removed before it is used.
        let held = self.hold(&folder);
        let Ok(text) = small::bytes(&folder.join(MARKER), MARKER_BYTES) else {
            return Ok(None);
        };
        let Ok(marker) = serde_json::from_slice::<Marker>(&text) else {
            return Ok(None);
        };
        if marker.version != crate::pod::VERSION || !folder.join("bin/python").exists() {
            return Ok(None);
        }
        let broken = whole::broken(&folder, &marker.packages, whole::LOOKS);
        if broken.is_empty() {
            Ok(Some((folder, marker.installed, held)))
        } else {
            Err(whole::names(&broken))
        }
    }

    /// The same place, unless some task runs with what is there: that must not be taken away under it.
    pub(super) fn unless_in_use(&self, place: Place, key: &str, log: &mut Log<'_>) -> Place {
        if place.is_shared() && self.is_in_use(key) {
            log("other tasks still use what is there: the environment is made for this task alone");
            return self.own_place();
        }
        place
    }

    /// Whether something of that name is there, and some task runs with it.
    fn is_in_use(&self, key: &str) -> bool {
        let folder = self.folder(key);
        let folder = folder.canonicalize().unwrap_or(folder);
        let lock = open_lock(&folder.with_extension("used"));
        folder.exists() && lock.is_some_and(|lock| lock.try_lock().is_err())
    }

    /// Marks an environment as used now, by us.
    #[expect(clippy::unused_self, reason = "a folder of this store")]
    fn hold(&self, folder: &Path) -> Held {
        Held(hold(folder).map(Arc::new))
    }

    /// A place that no other task may use.
    pub(super) fn own_place(&self) -> Place {
        Place {
            folder: self.own.join("environment"),
            lock: None,
        }
    }

    /// The place for a new environment; waits while another task makes the same one.
    pub(super) async fn place(&self, key: &str, log: &mut Log<'_>) -> Result<Place, Failure> {
        let own = || self.own_place();
        if !self.usable {
            return Ok(own());
        }
        let Some(file) = open_lock(&self.folder(key).with_extension("lock")) else {
            return Ok(own());
        };
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Place {
                        folder: self.folder(key),
                        lock: Some(file),
                    });
                }
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        log("another task is making the same environment: waiting for it");
                        told = true;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(TryLockError::Error(error)) => {
                    log(&format!(
                        "the cache cannot be locked ({error}): the environment is made for this task alone"
                    ));
                    return Ok(own());
                }
            }
        }
    }

    /// Marks an environment complete; `frozen` is the key of a list of exactly what is installed.
    /// The answer is the right to use it from now on.
    pub(super) fn keep(&self, place: &Place, installed: &[String], frozen: &str) -> Held {
        let mut packages = whole::packages(&place.folder);
        // What is not as it says from the beginning was packed so: that is no damage.
        let odd = whole::broken(&place.folder, &packages, usize::MAX);
        packages.retain(|package| !odd.contains(package));
        let marker = Marker {
            version: crate::pod::VERSION,
            installed: installed.to_vec(),
            packages,
        };
        // Without a marker the next task makes the environment anew; this one has it all the same.
        let (new, file) = (
            place.folder.join(".trainyard.new"),
            place.folder.join(MARKER),
        );
        let written = serde_json::to_vec(&marker)
            .map_err(std::io::Error::other)
            .and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &file));
        if written.is_err() {
            return Held::default();
        }
        whole::set_writable(&place.folder, false);
        if let Some(name) = place.folder.file_name()
            && !self.folder(frozen).exists()
        {
            // A link that leads nowhere any more is in the way.
            let _ = std::fs::remove_file(self.folder(frozen));
            let _ = std::os::unix::fs::symlink(name, self.folder(frozen));
        }
        self.hold(&place.folder)
    }
}

impl Place {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn is_shared(&self) -> bool {
        self.lock.is_some()
    }

    /// The packages that uv has put here and of which a file is not whole: it is a link into uv's cache, and whoever wrote
    /// to it in another environment wrote to it there.
    pub(super) fn damaged_of_uv(&self) -> Vec<String> {
        self.damaged(&whole::of_uv(&self.folder))
    }

    /// The same of conda.
    pub(super) fn damaged_of_conda(&self) -> Vec<String> {
        self.damaged(&whole::of_conda(&self.folder))
    }

    fn damaged(&self, packages: &[PathBuf]) -> Vec<String> {
        whole::names(&whole::broken(&self.folder, packages, usize::MAX))
    }

    /// Removes what an interrupted or spoilt attempt left here.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        let removed = match self.folder.symlink_metadata() {
            Ok(found) if found.is_dir() => {
                whole::set_writable(&self.folder, true);
                std::fs::remove_dir_all(&self.folder)
            }
            Ok(_) => std::fs::remove_file(&self.folder),
            Err(_) => Ok(()),
        };
        removed.map_err(|error| {
            Failure::new(format!(
                "could not clear {} for a new environment: {error}",
                self.folder.display()
            ))
        })
    }
}

/// What the log says of packages that are damaged in an installer's cache.
pub(super) fn fetched_anew(damaged: &[String]) -> String {
    let damaged = damaged.join(", ");
    format!("files in the cache are not as their packages say ({damaged}): they are fetched anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(folder: &Path) -> PathBuf {
        let package = folder.join("lib/python3.11/site-packages/six-1.dist-info");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(package.join("RECORD"), "").unwrap();
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        std::fs::write(folder.join("bin/python"), "").unwrap();
        package
    }

    fn open(folder: &Path) -> Store {
        Store::open(&folder.join("cache"), &folder.join("own"), &mut |_| {})
    }

    #[tokio::test]
    async fn an_environment_counts_once_its_marker_is_there_and_while_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let place = store.place("aa", &mut |_| {}).await.unwrap();
        let package = environment(place.folder());
        assert!(store.ready("aa").unwrap().is_none());
        drop(store.keep(&place, &["six==1".to_owned()], "bb"));
        let (first, installed, _) = store.ready("aa").unwrap().unwrap();
        assert_eq!(installed, ["six==1"]);
        assert_eq!(
            store.ready("bb").unwrap().unwrap().0,
            first,
            "the frozen list leads to the same environment"
        );
        whole::set_writable(place.folder(), true);
        let marker = place.folder().join(MARKER);
        let written = std::fs::read(&marker).unwrap();
        let mut long = written.clone();
        long.resize(usize::try_from(MARKER_BYTES).unwrap() + 1, b' ');
        std::fs::write(&marker, long).unwrap();
        assert!(store.ready("aa").unwrap().is_none(), "a damaged marker");
        std::fs::write(&marker, written).unwrap();
        assert!(store.ready("aa").unwrap().is_some());
        std::fs::remove_dir_all(package).unwrap();
        let broken = store
            .ready("aa")
            .expect_err("a spoilt environment is made anew");
        assert_eq!(broken, ["six"]);
        place.clear().unwrap();
        assert!(!place.folder().exists());
    }

    #[tokio::test]
    async fn only_one_makes_an_environment_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let first = store.place("aa", &mut |_| {}).await.unwrap();
        let mut told = Vec::new();
        let mut log = |line: &str| told.push(line.to_owned());
        let second =
            tokio::time::timeout(Duration::from_millis(300), store.place("aa", &mut log)).await;
        assert!(second.is_err());
        assert_eq!(told.len(), 1);
        drop(first);
        assert!(store.place("aa", &mut |_| {}).await.unwrap().is_shared());
        assert!(!store.own_place().is_shared());
    }

    #[tokio::test]
    async fn without_a_cache_the_task_gets_an_environment_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cache"), "a file").unwrap();
        let mut told = Vec::new();
        let store = Store::open(
            &folder.path().join("cache"),
            &folder.path().join("own"),
            &mut |line| told.push(line.to_owned()),
        );
        assert_eq!(told.len(), 1);
        assert!(!store.place("aa", &mut |_| {}).await.unwrap().is_shared());
    }
}
