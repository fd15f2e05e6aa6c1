//! Environments on the cache volume: one folder for each key, made under a lock, complete once its marker is there.
//!
//! ```text
//! <cache>/<uid>/uv/          uv's own cache: wheels, unpacked
//! <cache>/<uid>/env/<key>/   one environment: hard links into it; `.trainyard.json` is written last
//! <cache>/<uid>/env/<key>.lock
//! <cache>/<uid>/env/<key>    or a link to the environment of another key with the same content
//! ```
//!
//! Each user id has its own part: nobody runs what another user could have changed. Trouble with the cache is never
//! trouble of the task: it then gets an environment of its own.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exec::failure::Failure;
use crate::exec::tool::Log;

const MARKER: &str = ".trainyard.json";

/// Written into a complete environment.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    installed: Vec<String>,
    /// Folders that describe the installed packages; all of them have to be there still.
    packages: Vec<PathBuf>,
}

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

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    fn folder(&self, key: &str) -> PathBuf {
        self.base.join("env").join(key)
    }

    /// The complete environment of that key, with what is installed in it.
    pub(super) fn ready(&self, key: &str) -> Option<(PathBuf, Vec<String>)> {
        // A link leads to the folder where the environment was made: its programs know no other.
        let folder = self.folder(key).canonicalize().ok()?;
        let text = std::fs::read(folder.join(MARKER)).ok()?;
        let marker: Marker = serde_json::from_slice(&text).ok()?;
        let whole = folder.join("bin/python").exists()
            && marker
                .packages
                .iter()
                .all(|package| folder.join(package).exists());
        (marker.version == crate::pod::VERSION && whole).then_some((folder, marker.installed))
    }

    /// The place for a new environment; waits while another task makes the same one.
    pub(super) async fn place(
        &self,
        key: Option<&str>,
        log: &mut Log<'_>,
    ) -> Result<Place, Failure> {
        let own = || Place {
            folder: self.own.join("environment"),
            lock: None,
        };
        let Some(key) = key.filter(|_| self.usable) else {
            return Ok(own());
        };
        let path = self.folder(key).with_extension("lock");
        let Ok(file) = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
        else {
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
    pub(super) fn keep(&self, place: &Place, installed: &[String], frozen: Option<&str>) {
        let marker = Marker {
            version: crate::pod::VERSION,
            installed: installed.to_vec(),
            packages: packages(&place.folder),
        };
        // Without a marker the next task makes the environment anew; this one has it all the same.
        let Ok(text) = serde_json::to_vec(&marker) else {
            return;
        };
        let (new, marker) = (
            place.folder.join(".trainyard.new"),
            place.folder.join(MARKER),
        );
        if std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &marker))
            .is_err()
        {
            return;
        }
        if let (Some(frozen), Some(name)) = (frozen, place.folder.file_name())
            && self.ready(frozen).is_none()
        {
            let _ = std::os::unix::fs::symlink(name, self.folder(frozen));
        }
    }
}

impl Place {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn is_shared(&self) -> bool {
        self.lock.is_some()
    }

    /// Removes what an interrupted or spoilt attempt left here.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        let removed = match self.folder.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&self.folder),
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

/// The `*.dist-info` folders of an environment, relative to it.
fn packages(environment: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| {
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let mut packages: Vec<PathBuf> = entries(&environment.join("lib"))
        .flat_map(|version| entries(&version.join("site-packages")).collect::<Vec<_>>())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "dist-info")
        })
        .filter_map(|path| path.strip_prefix(environment).map(Path::to_owned).ok())
        .collect();
    packages.sort();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(folder: &Path) -> PathBuf {
        let package = folder.join("lib/python3.11/site-packages/six-1.dist-info");
        std::fs::create_dir_all(&package).unwrap();
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
        let place = store.place(Some("aa"), &mut |_| {}).await.unwrap();
        let package = environment(place.folder());
        assert_eq!(store.ready("aa"), None);
        store.keep(&place, &["six==1".to_owned()], Some("bb"));
        let (first, installed) = store.ready("aa").unwrap();
        assert_eq!(installed, ["six==1"]);
        assert_eq!(
            store.ready("bb").unwrap().0,
            first,
            "the frozen list leads to the same environment"
        );
        std::fs::remove_dir(package).unwrap();
        assert_eq!(store.ready("aa"), None, "a spoilt environment is made anew");
        place.clear().unwrap();
        assert!(!place.folder().exists());
    }

    #[tokio::test]
    async fn only_one_makes_an_environment_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let first = store.place(Some("aa"), &mut |_| {}).await.unwrap();
        let mut told = Vec::new();
        let mut log = |line: &str| told.push(line.to_owned());
        let second = tokio::time::timeout(
            Duration::from_millis(300),
            store.place(Some("aa"), &mut log),
        )
        .await;
        assert!(second.is_err());
        assert_eq!(told.len(), 1);
        drop(first);
        assert!(
            store
                .place(Some("aa"), &mut |_| {})
                .await
                .unwrap()
                .is_shared()
        );
        assert!(!store.place(None, &mut |_| {}).await.unwrap().is_shared());
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
        assert!(
            !store
                .place(Some("aa"), &mut |_| {})
                .await
                .unwrap()
                .is_shared()
        );
    }
}
