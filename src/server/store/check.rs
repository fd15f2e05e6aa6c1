//! Whether SQLite itself finds a database faulty: asked before the server works on a small one, and beside its work
//! where that would keep it down.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use tokio::sync::watch;

use super::{Error, open_reader};

/// Up to this size the answer takes about a tenth of a second.
pub(super) const AT_START: u64 = 128 << 20;

/// The answer for a database of at most `most` bytes; a larger one passes for now.
pub(super) fn at_start(db: &Connection, path: &Path, most: u64) -> Result<(), Error> {
    if size(path) > most {
        return Ok(());
    }
    match fault(db) {
        None => Ok(()),
        Some(found) => Err(corrupt(path, found)),
    }
}

/// The answer for a larger one comes later: it stops the server as any failure of the database does.
pub(super) fn beside_the_work(
    path: &Path,
    most: u64,
    failed: watch::Sender<Option<String>>,
) -> Result<(), Error> {
    if size(path) <= most {
        return Ok(());
    }
    let db = open_reader(path)?;
    let path = path.to_owned();
    let check = move || {
        if let Some(found) = fault(&db) {
            failed.send_replace(Some(corrupt(&path, found).to_string()));
        }
    };
    let thread = std::thread::Builder::new().name("check".into());
    // No reason not to serve: a damaged page is still found by whoever reads it.
    if let Err(error) = thread.spawn(check) {
        tracing::warn!(%error, "the database is not checked");
    }
    Ok(())
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

fn corrupt(path: &Path, found: String) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        found,
    }
}

/// The first thing that SQLite itself finds wrong with a database, in one line.
pub(in crate::server) fn fault(db: &Connection) -> Option<String> {
    let verdict = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match verdict {
        Ok(verdict) if verdict == "ok" => None,
        // Of a damaged page the first line says in which of several databases it is.
        Ok(verdict) => {
            let lines = verdict.lines().filter(|line| !line.starts_with("***"));
            Some(lines.collect::<Vec<_>>().join("; "))
        }
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A database with a page that is noise.
    fn damaged(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("damaged.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE words (word TEXT); INSERT INTO words VALUES ('kept')")
            .unwrap();
        let size: u32 = db
            .query_row("PRAGMA page_size", [], |row| row.get(0))
            .unwrap();
        drop(db);
        let mut bytes = fs::read(&path).unwrap();
        for byte in &mut bytes[size as usize..] {
            *byte ^= 0x5a;
        }
        fs::write(&path, bytes).unwrap();
        path
    }

    #[tokio::test]
    async fn a_large_database_is_checked_while_the_server_works() {
        let folder = tempfile::tempdir().unwrap();
        let path = damaged(folder.path());
        let db = open_reader(&path).unwrap();
        assert!(matches!(
            at_start(&db, &path, AT_START),
            Err(Error::Corrupt { .. })
        ));
        // Too large for the start, it passes there and is found all the same.
        assert!(at_start(&db, &path, 0).is_ok());
        let (failed, mut failure) = watch::channel(None);
        beside_the_work(&path, 0, failed).unwrap();
        let told = failure.wait_for(Option::is_some);
        let told = tokio::time::timeout(Duration::from_secs(30), told).await;
        let reason = told.unwrap().unwrap().clone().unwrap();
        assert!(
            reason.contains("is corrupt (") && reason.contains("page 2"),
            "{reason}"
        );
    }

    #[tokio::test]
    async fn a_sound_one_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE words (word TEXT)").unwrap();
        let (failed, mut failure) = watch::channel(None);
        beside_the_work(&path, 0, failed).unwrap();
        // The sender goes with the check.
        assert!(failure.wait_for(Option::is_some).await.is_err());
    }
}
