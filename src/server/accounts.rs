//! Users and their keys, from the command line: `trainyard server user add|list|remove`.
//!
//! Works on the data folder, whether a server runs on it or not; a running one learns of a change within seconds.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::call::iso;
use super::wire::{Refusal, new_id};
use super::{auth, store};

/// What a user may do (§1.8, 403/20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Everything but what concerns other users and the server itself.
    User,
    /// Everything, and act for others.
    Admin,
    /// Look, but change nothing.
    Guest,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::Guest => "guest",
        }
    }
}

/// Why users could not be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("could not read or write users: {0}")]
    Database(String),
    #[error("there is a user named {0:?} already: choose another name, or remove that one first")]
    Taken(String),
    #[error("no user is named {0:?}; `trainyard server user list` shows those there are")]
    Unknown(String),
    #[error(
        "{0:?} is the server's own first user, without whom it does not start: it cannot be removed"
    )]
    First(String),
    #[error("a user's name must have 1 to 100 characters, not {0}")]
    Name(usize),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Database(refusal.text)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// A key pair as it is shown once; only a hash of the secret is kept.
pub struct KeyPair {
    pub access_key: String,
    pub secret_key: String,
}

/// A user as `list` shows it.
#[derive(Debug)]
pub struct User {
    pub name: String,
    pub role: String,
    pub keys: Vec<Key>,
}

/// A key pair without its secret.
#[derive(Debug)]
pub struct Key {
    access: String,
    /// Second from which on it counts no more.
    until: Option<i64>,
    last_used: Option<String>,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            access,
            until,
            last_used,
        } = self;
        write!(f, "{access}, ")?;
        match last_used {
            Some(at) => write!(f, "last used {at}")?,
            None => write!(f, "never used")?,
        }
        let Some(until) = until else { return Ok(()) };
        let over = *until <= jiff::Timestamp::now().as_second();
        let word = if over { "ended" } else { "ends" };
        match jiff::Timestamp::from_second(*until) {
            Ok(at) => write!(f, ", {word} {}", iso(at)),
            Err(_) => Ok(()),
        }
    }
}

/// Begins a change. A server may be writing: the change waits for it before it looks at anything, since what it had seen
/// could no more be written once the server has.
fn begin(db: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Adds a user with a key pair that ends after `days`, or never.
pub fn add(data: &Path, name: &str, role: Role, days: Option<u32>) -> Result<KeyPair, Error> {
    let length = name.trim().chars().count();
    if !(1..=100).contains(&length) {
        return Err(Error::Name(length));
    }
    let mut db = store::open_beside(data)?;
    let change = begin(&mut db)?;
    if id_of(&change, name)?.is_some() {
        return Err(Error::Taken(name.to_owned()));
    }
    let id = new_id();
    let now = iso(jiff::Timestamp::now());
    change.execute(
        "INSERT INTO users (id, name, role, created, preferences) VALUES (?1, ?2, ?3, ?4, '{}')",
        params![id, name, role.as_str(), now],
    )?;
    let pair = new_pair(&change, &id, days)?;
    change.commit()?;
    Ok(pair)
}

/// Adds a further key pair for a user.
pub fn add_key(data: &Path, name: &str, days: Option<u32>) -> Result<KeyPair, Error> {
    let mut db = store::open_beside(data)?;
    let change = begin(&mut db)?;
    let id = id_of(&change, name)?.ok_or_else(|| Error::Unknown(name.to_owned()))?;
    let pair = new_pair(&change, &id, days)?;
    change.commit()?;
    Ok(pair)
}

fn new_pair(db: &Connection, user: &str, days: Option<u32>) -> Result<KeyPair, Error> {
    let (access_key, secret_key) = auth::add_pair(db, user, "command line")?;
    let now = jiff::Timestamp::now().as_second();
    let until = days.map(|days| now + i64::from(days) * 24 * 3600);
    db.execute(
        "UPDATE credentials SET until = ?2 WHERE access_key = ?1",
        params![access_key, until],
    )?;
    Ok(KeyPair {
        access_key,
        secret_key,
    })
}

/// All users, by name.
pub fn list(data: &Path) -> Result<Vec<User>, Error> {
    let db = store::open_beside(data)?;
    let mut statement = db.prepare("SELECT id, name, role FROM users ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut users = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let mut keys = db.prepare(
            "SELECT access_key, until, last_used FROM credentials WHERE user = ?1 ORDER BY access_key",
        )?;
        let keys = keys
            .query_map([id], |row| {
                Ok(Key {
                    access: row.get(0)?,
                    until: row.get(1)?,
                    last_used: row.get(2)?,
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        users.push(User {
            name: row.get(1)?,
            role: row.get(2)?,
            keys,
        });
    }
    Ok(users)
}

/// Takes a user away: keys and tokens count no more, tasks stay.
pub fn remove(data: &Path, name: &str) -> Result<(), Error> {
    let mut db = store::open_beside(data)?;
    let change = begin(&mut db)?;
    let id = id_of(&change, name)?.ok_or_else(|| Error::Unknown(name.to_owned()))?;
    if id == super::setup::USER {
        return Err(Error::First(name.to_owned()));
    }
    change.execute("DELETE FROM credentials WHERE user = ?1", [&id])?;
    change.execute("DELETE FROM users WHERE id = ?1", [&id])?;
    auth::note_change(&change)?;
    change.commit()?;
    Ok(())
}

fn id_of(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT id FROM users WHERE name = ?1", [name], |row| {
        row.get(0)
    })
    .optional()
}
