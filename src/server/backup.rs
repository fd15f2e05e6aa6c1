//! A copy of everything in one file, made while the server runs; and the way back (`trainyard server backup|restore`).
//!
//! ```text
//! database ──VACUUM INTO──▶ snapshot ─┐
//! keys.json ──────────────────────────┼──▶ archive (tar.rs), under its name once it is complete
//! files/ ─────────────────────────────┘
//! ```
//!
//! The database is copied first. A file is stored before the database names it and never changes, so whatever the copy
//! of the database names is there, unless it was deleted meanwhile.

mod tar;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rusqlite::Connection;

use super::wire::new_id;
use super::{disk, setup, store};

/// Names in the archive.
const DATABASE: &str = "trainyard.sqlite";
const KEYS: &str = "keys.json";
const FILES: &str = "files";

/// Why a backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("could not copy the database: {0}")]
    Snapshot(String),
    #[error("could not read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not write {path:?}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is no backup of a trainyard server, or is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{path:?} holds a server's data already: restore into an empty folder, or move this one away"
    )]
    Occupied { path: PathBuf },
}

/// What a backup or a restore carried.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried {
    pub files: u64,
    pub bytes: u64,
}

/// Writes everything in `data` into `target`, readable by its owner alone. A server may be running on the folder.
pub fn backup(data: &Path, target: &Path) -> Result<Carried, Error> {
    let db = store::open_beside(data)?;
    let snapshot = Temporary(data.join(format!("backup-{}.sqlite", new_id())));
    db.execute("VACUUM INTO ?1", [snapshot.0.to_string_lossy()])
        .map_err(|error| Error::Snapshot(error.to_string()))?;
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Temporary(target.with_file_name(name));
    let failed = |source| Error::Write {
        path: target.to_owned(),
        source,
    };
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new.0)
        .map_err(failed)?;
    let mut archive = tar::Writer::new(BufWriter::with_capacity(1 << 20, file));
    let mut carried = Carried::default();
    add(&mut archive, DATABASE, &snapshot.0, target, &mut carried)?;
    add(
        &mut archive,
        KEYS,
        &setup::keys_path(data),
        target,
        &mut carried,
    )?;
    add_folder(&mut archive, FILES, &data.join(FILES), target, &mut carried)?;
    let mut out = archive.finish().map_err(failed)?;
    let mut complete = || {
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&new.0, target)?;
        disk::sync_name(target)
    };
    complete().map_err(failed)?;
    Ok(carried)
}

/// A file that goes when the value goes; a rename takes it away before.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

type Archive = tar::Writer<BufWriter<File>>;

fn add(
    archive: &mut Archive,
    name: &str,
    path: &Path,
    target: &Path,
    carried: &mut Carried,
) -> Result<(), Error> {
    let unreadable = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Deleted since it was listed; so it is not missed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    let size = file.metadata().map_err(unreadable)?.len();
    archive
        .file(name, size, &mut file)
        .map_err(|source| Error::Write {
            path: target.to_owned(),
            source,
        })?;
    carried.files += 1;
    carried.bytes += size;
    Ok(())
}

fn add_folder(
    archive: &mut Archive,
    name: &str,
    folder: &Path,
    target: &Path,
    carried: &mut Carried,
) -> Result<(), Error> {
    let unreadable = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    for entry in entries {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else {
            continue;
        };
        let inner = format!("{name}/{file_name}");
        if kind.is_dir() {
            add_folder(archive, &inner, &entry.path(), target, carried)?;
        } else if kind.is_file() {
            add(archive, &inner, &entry.path(), target, carried)?;
        }
    }
    Ok(())
}

/// Makes `data`, which must not hold a server's data yet, from a backup.
pub fn restore(source: &Path, data: &Path) -> Result<Carried, Error> {
    let database = store::path(data);
    if database.exists() {
        return Err(Error::Occupied {
            path: data.to_owned(),
        });
    }
    let damaged = |why: String| Error::Damaged {
        path: source.to_owned(),
        why,
    };
    let file = File::open(source).map_err(|error| Error::Read {
        path: source.to_owned(),
        source: error,
    })?;
    let unwritten = |path: &Path, source| Error::Write {
        path: path.to_owned(),
        source,
    };
    disk::make(data)
        .and_then(|()| fs::set_permissions(data, fs::Permissions::from_mode(0o700)))
        .map_err(|source| unwritten(data, source))?;
    let new = Temporary(data.join(format!("{DATABASE}.new")));
    let mut archive = tar::Reader::new(BufReader::with_capacity(1 << 20, file));
    let mut carried = Carried::default();
    let mut with_database = false;
    let mut folders = BTreeSet::new();
    while let Some((name, size)) = archive.next().map_err(|error| damaged(error.to_string()))? {
        let path = match name.as_str() {
            DATABASE => {
                with_database = true;
                new.0.clone()
            }
            KEYS => setup::keys_path(data),
            other if is_safe(other) => data.join(other),
            other => return Err(damaged(format!("it holds {other:?}"))),
        };
        write(&path, &mut archive).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it is cut off".to_owned()),
            _ => unwritten(&path, error),
        })?;
        let above = path.ancestors().skip(1);
        folders.extend(
            above
                .take_while(|above| above.starts_with(data))
                .map(Path::to_owned),
        );
        carried.files += 1;
        carried.bytes += size;
    }
    if !with_database {
        return Err(damaged("there is no database in it".to_owned()));
    }
    let fault = Connection::open(&new.0)
        .map_or_else(|error| Some(error.to_string()), |db| store::fault(&db));
    if let Some(fault) = fault {
        return Err(damaged(fault));
    }
    for folder in &folders {
        disk::sync(folder).map_err(|source| unwritten(folder, source))?;
    }
    fs::rename(&new.0, &database)
        .and_then(|()| disk::sync_name(&database))
        .map_err(|source| unwritten(&database, source))?;
    Ok(carried)
}

/// A path below `files`, and nowhere else.
fn is_safe(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    parts.next() == Some(Component::Normal(FILES.as_ref()))
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn write(path: &Path, archive: &mut tar::Reader<BufReader<File>>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    archive.copy(&mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_files_are_taken() {
        for good in ["files/a", "files/a/b c.txt"] {
            assert!(is_safe(good), "{good}");
        }
        for bad in [
            "files",
            "files/../keys.json",
            "/files/a",
            "other/a",
            "../files/a",
            "",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
