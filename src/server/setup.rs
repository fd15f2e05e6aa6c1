//! First start: the user, its keys and the `default` queue; and the `clearml.conf` for clients.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use url::Url;

use super::call::iso;
use super::wire::Refusal;
use super::{auth, disk, queues};

/// The file with the first key pair in the data folder.
const KEYS: &str = "keys.json";
pub(super) const USER: &str = "__trainyard__";
const USER_NAME: &str = "trainyard";

/// Why the server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not prepare the database: {0}")]
    Prepare(String),
    #[error("could not write {path:?}")]
    WriteFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("could not read the keys in {path:?}: {why}; delete the file to have a new pair made")]
    ReadKeys { path: PathBuf, why: String },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Prepare(refusal.text)
    }
}

/// A key pair as clients configure it.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Keys {
    pub(crate) access_key: String,
    secret_key: String,
}

/// What is there after every start: a user, a signing key, the `default` queue.
pub(crate) fn ensure_basics(db: &Connection) -> Result<(), Refusal> {
    let now = iso(jiff::Timestamp::now());
    db.execute(
        "INSERT OR IGNORE INTO users (id, name, role, created, preferences) VALUES (?1, ?2, 'user', ?3, '{}')",
        params![USER, USER_NAME, now],
    )?;
    let secret = auth::random_word(64);
    db.execute(
        "INSERT OR IGNORE INTO settings VALUES ('token_secret', ?1)",
        [secret],
    )?;
    let queues: i64 = db.query_row("SELECT count(*) FROM queues", [], |row| row.get(0))?;
    let ever: Option<String> = db
        .query_row(
            "SELECT value FROM settings WHERE key = 'default_queue'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if queues == 0 && ever.is_none() {
        let id = queues::insert(db, "default", &json!([]), &json!(["default"]), &now)?;
        db.execute("INSERT INTO settings VALUES ('default_queue', ?1)", [id])?;
    }
    Ok(())
}

/// Path of the file with the first key pair.
pub(crate) fn keys_path(folder: &Path) -> PathBuf {
    folder.join(KEYS)
}

/// The first key pair: read from the data folder, or made and written there before the database knows it.
pub(crate) fn read_keys(folder: &Path) -> Result<Option<Keys>, Error> {
    let path = keys_path(folder);
    match fs::read(&path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(keys) => Ok(Some(keys)),
            Err(error) => Err(Error::ReadKeys {
                path,
                why: error.to_string(),
            }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::ReadKeys {
            path,
            why: error.to_string(),
        }),
    }
}

/// Makes a key pair and writes its file; if we die in between, the next start finds the file and adds it.
pub(crate) fn make_keys(folder: &Path) -> Result<Keys, Error> {
    let keys = Keys {
        access_key: auth::random_word(20),
        secret_key: auth::random_word(48),
    };
    let text = json!({"access_key": keys.access_key, "secret_key": keys.secret_key}).to_string();
    write_private(&keys_path(folder), &(text + "\n"))?;
    Ok(keys)
}

/// Lets the database accept the pair.
pub(crate) fn accept_keys(db: &Connection, keys: &Keys) -> Result<(), Refusal> {
    db.execute(
        "INSERT INTO credentials (access_key, secret_hash, user, label) VALUES (?1, ?2, ?3, 'first')
         ON CONFLICT (access_key) DO UPDATE SET secret_hash = excluded.secret_hash",
        params![keys.access_key, auth::hash(&keys.secret_key), USER],
    )?;
    Ok(())
}

/// Writes a `clearml.conf` that makes the SDK use this server (`protocol.md` §8.1).
pub(crate) fn write_conf(path: &Path, public: &Url, keys: &Keys) -> Result<(), Error> {
    let base = public.as_str().trim_end_matches('/');
    let text = format!(
        "# Written by trainyard server. Holds secrets: keep it to yourself.\n\
         api {{\n\
         \x20   api_server: \"{base}\"\n\
         \x20   web_server: \"{base}\"\n\
         \x20   files_server: \"{base}/files\"\n\
         \x20   credentials {{\n\
         \x20       \"access_key\": \"{}\"\n\
         \x20       \"secret_key\": \"{}\"\n\
         \x20   }}\n\
         }}\n",
        keys.access_key, keys.secret_key
    );
    write_private(path, &text)
}

/// A file that nobody else may read, replaced as a whole.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::WriteFile {
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        disk::sync_name(path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&new);
        failed(source)
    })
}
