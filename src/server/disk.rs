//! Names on the disk. A file that was written and synced is gone after a power loss all the same if the folder that
//! names it was not, and so is a folder that was made.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes it last that something was put into a folder, or taken out of it.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes it last that a file was put into its folder.
pub(super) fn sync_name(path: &Path) -> io::Result<()> {
    sync(folder_of(path))
}

/// The folder in which a path lies.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes a folder, and those above it that are missing; those that were made last.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().try_for_each(sync_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_with_all_above_it_wherever_it_stands() {
        let data = tempfile::tempdir().unwrap();
        let deep = data.path().join("a/b/c");
        make(&deep).unwrap();
        assert!(deep.is_dir());
        make(&deep).unwrap();
        assert_eq!(folder_of(Path::new("data")), Path::new("."));
        assert_eq!(folder_of(Path::new("a/b")), Path::new("a"));
    }
}
