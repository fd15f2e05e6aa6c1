//! The database: one writer, some readers, and no answer before its write is on the disk.
//!
//! ```text
//! requests that write ──▶ channel ──▶ writer thread: one transaction for all that wait ──▶ commit (fsync) ──▶ answers
//! requests that read  ──▶ one of a few read-only connections, each request on its own snapshot
//! ```
//!
//! Each request runs inside a savepoint, so a refused one leaves nothing behind while its neighbours are stored. A
//! database that is full or corrupt ends the server: [`Store::failure`] says why.

mod check;
mod writer;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::{Semaphore, oneshot, watch};

use super::wire::{Answer, Refusal};
use super::{disk, schema};
pub(super) use check::fault;
use writer::Job;

/// Name of the database in the data folder.
const FILE: &str = "trainyard.sqlite";
/// Requests that may wait for the writer.
const WAITING: usize = 1024;
const READERS: usize = 4;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not make or enter the data folder {path:?}")]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not open the database {path:?}")]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error(
        "the database {path:?} is corrupt ({found}): restore it from a backup, or move it away to start anew"
    )]
    Corrupt { path: PathBuf, found: String },
    #[error(
        "the database was written by a newer trainyard (schema {found}, this one knows {newest}): use that or a newer one"
    )]
    Newer { found: i64, newest: usize },
    #[error("another trainyard server uses the data folder {path:?}")]
    InUse { path: PathBuf },
    #[error("could not read the database")]
    Read(#[source] rusqlite::Error),
    #[error("could not write the database")]
    Write(#[source] rusqlite::Error),
    #[error("could not bring the database to schema {step}: {why}")]
    Migrate { step: u32, why: String },
    #[error(
        "there is no trainyard server's database in {path:?}: start the server on that folder once, or name another"
    )]
    None { path: PathBuf },
    #[error(
        "the database in {path:?} is of an older trainyard: start the server on that folder once, it brings it up to date"
    )]
    Older { path: PathBuf },
}

/// Handle on the database; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    /// Held as long as the server lives.
    _lock: Arc<fs::File>,
    writer: mpsc::Sender<Job>,
    /// Room for requests that wait for the writer.
    room: Arc<Semaphore>,
    readers: Arc<Readers>,
    failure: watch::Receiver<Option<String>>,
}

struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    failed: watch::Sender<Option<String>>,
}

impl Store {
    /// Opens (or makes) the database in `folder`, checks it and brings it up to date.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let in_folder = |source| Error::Folder {
            path: folder.to_owned(),
            source,
        };
        disk::make(folder).map_err(in_folder)?;
        restrict(folder, 0o700).map_err(in_folder)?;
        let lock = lock_folder(folder)?;
        let path = folder.join(FILE);
        let mut db = open_writer(&path)?;
        check::at_start(&db, &path, check::AT_START)?;
        schema::migrate(&mut db)?;
        restrict(&path, 0o600).map_err(in_folder)?;

        let readers = (0..READERS)
            .map(|_| open_reader(&path))
            .collect::<Result<Vec<_>, _>>()?;
        let (failed, failure) = watch::channel(None);
        let (writer, jobs) = mpsc::channel();
        check::beside_the_work(&path, check::AT_START, failed.clone())?;
        let failed_writes = failed.clone();
        std::thread::Builder::new()
            .name("database".into())
            .spawn(move || writer::run(&db, &jobs, &failed_writes))
            .map_err(in_folder)?;
        let readers = Readers {
            idle: Mutex::new(readers),
            permits: Arc::new(Semaphore::new(READERS)),
            failed,
        };
        Ok(Self {
            _lock: Arc::new(lock),
            writer,
            room: Arc::new(Semaphore::new(WAITING)),
            readers: Arc::new(readers),
            failure,
        })
    }

    /// Runs `work` in a transaction; the answer comes after the commit.
    pub(crate) async fn write(
        &self,
        work: impl FnOnce(&Connection) -> Answer + Send + 'static,
    ) -> Answer {
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return Err(gone());
        };
        let (answer, answered) = oneshot::channel();
        let job = Job {
            work: Box::new(work),
            answer,
            _room: room,
        };
        if self.writer.send(job).is_err() {
            return Err(gone());
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Runs `work` on a snapshot of what is committed.
    pub(crate) async fn read(
        &self,
        work: impl FnOnce(&Connection) -> Answer + Send + 'static,
    ) -> Answer {
        let readers = Arc::clone(&self.readers);
        let permits = Arc::clone(&readers.permits);
        let Ok(permit) = permits.acquire_owned().await else {
            return Err(gone());
        };
        // The permit goes along: whoever asked may be gone before the connection is back.
        let run = move || {
            let _permit = permit;
            let Some(db) = lock(&readers.idle).pop() else {
                return Err(gone());
            };
            let answer = on_snapshot(&db, work);
            if let Err(refusal) = &answer {
                report(&readers.failed, refusal);
            }
            lock(&readers.idle).push(db);
            answer
        };
        tokio::task::spawn_blocking(run)
            .await
            .unwrap_or_else(|_| Err(gone()))
    }

    /// Resolves with the reason once the database cannot be used any more.
    pub(crate) async fn failure(&self) -> String {
        let mut failure = self.failure.clone();
        let reason = failure.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

/// Opens the database beside a server that may be running on it.
pub(super) fn open_beside(folder: &Path) -> Result<Connection, Error> {
    let path = path(folder);
    if !path.exists() {
        return Err(Error::None {
            path: folder.to_owned(),
        });
    }
    let db = open_writer(&path)?;
    if schema::is_newest(&db)? {
        Ok(db)
    } else {
        Err(Error::Older {
            path: folder.to_owned(),
        })
    }
}

/// Path of the database in a data folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// One server at a time works on a folder.
pub(super) fn lock_folder(folder: &Path) -> Result<fs::File, Error> {
    let path = folder.join("lock");
    let in_folder = |source| Error::Folder {
        path: folder.to_owned(),
        source,
    };
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(in_folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse {
            path: folder.to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(in_folder(source)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone() -> Refusal {
    Refusal::new(
        500,
        102,
        "Database unavailable: the server is shutting down",
    )
}

fn open_writer(path: &Path) -> Result<Connection, Error> {
    let failed = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::Corrupt {
            path: path.to_owned(),
            found: source.to_string(),
        },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::InUse {
            path: path.to_owned(),
        },
        _ => Error::Open {
            path: path.to_owned(),
            source,
        },
    };
    let db = Connection::open(path).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    db.pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    db.pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    // Copying the journal into the database costs two more waits for the disk: every 16 MiB is enough.
    db.pragma_update(None, "wal_autocheckpoint", 4096)
        .map_err(failed)?;
    db.pragma_update(None, "foreign_keys", true)
        .map_err(failed)?;
    db.pragma_update(None, "journal_size_limit", 64 << 20)
        .map_err(failed)?;
    prepare(&db).map_err(failed)?;
    Ok(db)
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    prepare(&db).map_err(failed)?;
    Ok(db)
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(128);
    db.pragma_update(None, "cache_size", -16_384)
}

fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A statement of the transaction's own, prepared once.
fn step(db: &Connection, sql: &str) -> rusqlite::Result<()> {
    db.prepare_cached(sql)?.execute([]).map(|_| ())
}

fn on_snapshot(db: &Connection, work: impl FnOnce(&Connection) -> Answer) -> Answer {
    step(db, "BEGIN")?;
    let answer = guarded(|| work(db));
    let ended = step(db, "COMMIT");
    writer::take_back(db);
    ended?;
    answer
}

/// A fault in one request must not take the database from the others.
fn guarded(work: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Refusal::internal("The server has a defect here")))
}

/// Notes the failures after which going on would only lose more.
fn report(failed: &watch::Sender<Option<String>>, refusal: &Refusal) {
    if let Some(reason) = &refusal.fatal {
        failed.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| reason.clone());
            first
        });
    }
}

/// The reason to stop in a failure of the database, if it is one (`FULL`, `CORRUPT`, `NOTADB`, `IOERR`, read-only).
pub(crate) fn fatal(error: &rusqlite::Error) -> Option<String> {
    let advice = match error.sqlite_error_code()? {
        ErrorCode::DiskFull => "the disk is full: make room and start again",
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "the database is corrupt: restore it from a backup"
        }
        ErrorCode::SystemIoFailure => "the disk does not answer: look at the file system",
        ErrorCode::ReadOnly => {
            "the database may not be written: look at the file's mode and the mount"
        }
        _ => return None,
    };
    Some(format!("{advice} ({error})"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn insert(key: &'static str) -> impl FnOnce(&Connection) -> Answer + Send + 'static {
        move |db| {
            db.execute("INSERT INTO settings VALUES (?1, '')", [key])?;
            Ok(json!({}))
        }
    }

    async fn keys(store: &Store) -> Value {
        let read = store.read(|db| {
            let mut statement = db.prepare("SELECT key FROM settings ORDER BY key")?;
            let keys: Vec<String> = statement
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(json!(keys))
        });
        read.await.unwrap()
    }

    /// How safe what a connection has committed is: `wal`, and 2, which is FULL.
    fn safety(db: &Connection) -> Answer {
        let journal: String = db.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let synchronous: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        Ok(json!([journal, synchronous]))
    }

    #[tokio::test]
    async fn each_connection_that_writes_waits_for_the_disk_at_each_commit() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.write(safety).await.unwrap(), json!(["wal", 2]));
        let beside = open_beside(folder.path()).unwrap();
        assert_eq!(safety(&beside).unwrap(), json!(["wal", 2]));
    }

    #[tokio::test]
    async fn a_refused_request_leaves_nothing_behind_and_its_neighbours_stand() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let refused = store.write(|db| {
            insert("refused")(db)?;
            Err(Refusal::bad(1, "no"))
        });
        let kept = store.write(|db| {
            insert("kept")(db)?;
            Err(Refusal::bad(1, "no").keeping_writes())
        });
        let (plain, refused, kept) = tokio::join!(store.write(insert("plain")), refused, kept);
        assert!(plain.is_ok() && refused.is_err() && kept.is_err());
        assert_eq!(keys(&store).await, json!(["kept", "plain"]));
    }

    #[tokio::test]
    async fn a_panic_in_a_request_fails_that_request_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let broken = store.write(|_| -> Answer { panic!("on purpose") }).await;
        assert_eq!(broken.unwrap_err().code, 500);
        assert!(store.write(insert("after")).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_disk_refuses_the_request_and_names_the_reason_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let full = store.write(|db| {
            db.query_row("PRAGMA max_page_count = 1", [], |_| Ok(()))?;
            db.execute(
                "INSERT INTO settings VALUES ('big', ?1)",
                ["x".repeat(1 << 20)],
            )?;
            Ok(json!({}))
        });
        assert_eq!(full.await.unwrap_err().code, 500);
        let reason = tokio::time::timeout(Duration::from_secs(10), store.failure());
        assert!(reason.await.unwrap().contains("disk is full"));
    }

    #[tokio::test]
    async fn readers_whose_client_has_gone_do_not_use_the_connections_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for _ in 0..READERS * 3 {
            let slow = store.read(|_| {
                std::thread::sleep(Duration::from_millis(50));
                Ok(json!({}))
            });
            let _ = tokio::time::timeout(Duration::from_millis(5), slow).await;
        }
        assert!(store.read(|_| Ok(json!({}))).await.is_ok());
    }

    #[test]
    fn a_corrupt_database_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join(FILE),
            "not a database, but long enough to look like a file".repeat(200),
        )
        .unwrap();
        let error = Store::open(folder.path()).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let db = Connection::open(folder.path().join(FILE)).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(folder.path()).err().unwrap();
        assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    }
}
