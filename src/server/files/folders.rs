//! Folders of the tree. What is new lasts once the folder that names it is on the disk: an upload is answered after the
//! folder of its file was written there, and those above it whose own names are not known to be. Another upload may
//! have made one a moment ago, or a server that was killed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Folders that are remembered; beyond that all are forgotten, which costs their next uploads a few more waits.
const MOST: usize = 10_000;

/// The folder of all files, and what is known of those below it.
pub(crate) struct Folders {
    root: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    names: HashMap<PathBuf, Name>,
    /// Number of the latest name.
    latest: u64,
}

/// A folder's name since the folder was made, or found.
#[derive(Debug, Clone, Copy)]
struct Name {
    /// Another one each time that a folder is made there.
    number: u64,
    /// It is on the disk.
    lasts: bool,
}

impl Folders {
    pub(crate) fn of(root: PathBuf) -> Self {
        Self {
            root,
            known: Mutex::default(),
        }
    }

    /// Moves a file to its place. `sync` writes a folder to the disk.
    pub(super) fn place(
        &self,
        from: &Path,
        to: &Path,
        sync: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let folder = to.parent().unwrap_or(&self.root);
        let doubtful = self.enter(folder)?;
        fs::rename(from, to)?;
        sync(folder)?;
        for (path, _) in &doubtful {
            sync(path.parent().unwrap_or(&self.root))?;
        }
        self.settle(&doubtful);
        Ok(())
    }

    /// Makes a folder where it is missing; which of the folders on the way have names that may not last.
    fn enter(&self, folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
        let below = folder.strip_prefix(&self.root).map_err(io::Error::other)?;
        let mut known = self.known();
        if known.names.len() > MOST {
            known.names.clear();
        }
        let mut doubtful = Vec::new();
        let mut path = self.root.clone();
        for part in below {
            path.push(part);
            // Under the lock: whoever finds the folder finds its name unsettled too.
            let is_new = make(&path)?;
            let name = known.name(&path, is_new);
            if !name.lasts {
                doubtful.push((path.clone(), name.number));
            }
        }
        Ok(doubtful)
    }

    /// These names are on the disk, unless their folder was deleted and made once more meanwhile.
    fn settle(&self, names: &[(PathBuf, u64)]) {
        let mut known = self.known();
        for (path, number) in names {
            if let Some(name) = known.names.get_mut(path)
                && name.number == *number
            {
                name.lasts = true;
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn name(&mut self, path: &Path, is_new: bool) -> Name {
        self.latest += 1;
        let new = Name {
            number: self.latest,
            lasts: false,
        };
        let name = self.names.entry(path.to_owned()).or_insert(new);
        if is_new {
            *name = new;
        }
        *name
    }
}

/// Makes one folder; false if it is there.
fn make(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.is_dir() {
                Ok(false)
            } else {
                Err(error)
            }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Tree {
        data: tempfile::TempDir,
        folders: Folders,
    }

    impl Tree {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            let root = data.path().join("files");
            fs::create_dir(&root).unwrap();
            Self {
                folders: Folders::of(root),
                data,
            }
        }

        /// Places a file; which folders were written to the disk, by their paths below the root.
        fn place(&self, file: &str, sync: impl Fn() -> io::Result<()>) -> Vec<String> {
            let from = self.data.path().join("new");
            fs::write(&from, "x").unwrap();
            let written = RefCell::new(Vec::new());
            let to = self.folders.root.join(file);
            let placed = self.folders.place(&from, &to, |folder| {
                let below = folder.strip_prefix(&self.folders.root).unwrap();
                written.borrow_mut().push(below.display().to_string());
                sync()
            });
            assert!(placed.is_err() || to.exists());
            written.into_inner()
        }
    }

    #[test]
    fn a_new_folder_is_written_by_each_upload_until_one_has_done_it() {
        let tree = Tree::new();
        let well = || Ok(());
        // Folders that were there before the server are as doubtful as new ones.
        fs::create_dir(tree.folders.root.join("a")).unwrap();
        let broken = || Err(io::Error::other("on purpose"));
        assert_eq!(tree.place("a/b/x", broken), ["a/b"]);
        assert_eq!(tree.place("a/b/x", well), ["a/b", "", "a"]);
        assert_eq!(tree.place("a/b/y", well), ["a/b"]);
        assert_eq!(tree.place("a/c/x", well), ["a/c", "a"]);
        assert_eq!(tree.place("x", well), [""]);
        fs::remove_dir_all(tree.folders.root.join("a/b")).unwrap();
        assert_eq!(tree.place("a/b/x", well), ["a/b", "a"]);
    }

    #[test]
    fn an_upload_does_not_vouch_for_a_folder_that_was_made_anew_meanwhile() {
        let tree = Tree::new();
        let folder = tree.folders.root.join("a");
        let made_anew = || {
            fs::remove_dir_all(&folder)?;
            tree.folders.enter(&folder).map(drop)
        };
        let from = tree.data.path().join("new");
        fs::write(&from, "x").unwrap();
        let placed = tree
            .folders
            .place(&from, &folder.join("x"), |_| made_anew());
        placed.unwrap();
        assert_eq!(tree.place("a/x", || Ok(())), ["a", ""]);
    }

    #[test]
    fn a_file_in_the_way_of_a_folder_is_told() {
        let tree = Tree::new();
        fs::write(tree.folders.root.join("a"), "x").unwrap();
        for folder in ["a", "a/b"] {
            let refused = tree.folders.enter(&tree.folders.root.join(folder));
            let kind = refused.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::AlreadyExists, "{folder}");
        }
    }
}
