//! The database's tables, and how an older database becomes a newer one.
//!
//! `PRAGMA user_version` counts the migrations that have been run; each runs once, in the transaction that counts it.

use rusqlite::Connection;

use super::store::Error;

/// One step from a version to the next. Never changed once released: a later change is a further step.
const MIGRATIONS: &[&str] = &[FIRST];

const FIRST: &str = "
-- Documents as the API shows them, beside the columns that queries need.
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    doc TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    project TEXT,
    parent TEXT,
    user TEXT,
    created TEXT NOT NULL,
    last_update TEXT NOT NULL,
    hidden INTEGER NOT NULL
) STRICT;
CREATE INDEX tasks_by_status ON tasks (status, created);
CREATE INDEX tasks_by_project ON tasks (project, created);
CREATE INDEX tasks_by_parent ON tasks (parent) WHERE parent IS NOT NULL;
CREATE INDEX tasks_by_update ON tasks (last_update);

CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, doc TEXT NOT NULL, hidden INTEGER NOT NULL) STRICT;
CREATE TABLE models (
    id TEXT PRIMARY KEY,
    doc TEXT NOT NULL,
    name TEXT NOT NULL,
    uri TEXT,
    project TEXT,
    task TEXT,
    created TEXT NOT NULL,
    hidden INTEGER NOT NULL
) STRICT;
CREATE INDEX models_by_task ON models (task) WHERE task IS NOT NULL;
CREATE INDEX models_by_project ON models (project);

CREATE TABLE queues (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, doc TEXT NOT NULL, hidden INTEGER NOT NULL) STRICT;
-- Order inside a queue is the order of `position`; a task stands at most once in a queue.
CREATE TABLE entries (
    queue TEXT NOT NULL REFERENCES queues (id) ON DELETE CASCADE,
    task TEXT NOT NULL,
    added TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (queue, task)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX entries_in_order ON entries (queue, position);
CREATE INDEX entries_by_task ON entries (task);
-- How long entries waited, for queues.get_queue_metrics.
CREATE TABLE queue_samples (queue TEXT NOT NULL, at INTEGER NOT NULL, waited REAL NOT NULL, length INTEGER NOT NULL) STRICT;
CREATE INDEX queue_samples_in_order ON queue_samples (queue, at);

CREATE TABLE workers (id TEXT PRIMARY KEY, doc TEXT NOT NULL, seen INTEGER NOT NULL, timeout INTEGER NOT NULL) STRICT;
CREATE TABLE worker_samples (
    worker TEXT NOT NULL,
    at INTEGER NOT NULL,
    metric TEXT NOT NULL,
    part TEXT NOT NULL,
    value REAL NOT NULL
) STRICT;
CREATE INDEX worker_samples_in_order ON worker_samples (at, worker);

-- Log lines are only ever appended; everything else reported is identified by what it is about.
CREATE TABLE log (id INTEGER PRIMARY KEY, task TEXT NOT NULL, at INTEGER NOT NULL, doc TEXT NOT NULL) STRICT;
CREATE INDEX log_in_order ON log (task, at, id);
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    type TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    iter INTEGER NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    value REAL,
    doc TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX reports_identity ON reports (task, type, metric, variant, iter, key);
-- One row for each scalar's series: what `last_metrics` shows (§3.1).
CREATE TABLE series (
    task TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    count INTEGER NOT NULL,
    total REAL NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (task, metric, variant)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, created TEXT NOT NULL, preferences TEXT NOT NULL) STRICT;
CREATE TABLE credentials (
    access_key TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    user TEXT NOT NULL REFERENCES users (id),
    label TEXT,
    last_used TEXT,
    last_used_from TEXT
) STRICT;
CREATE TABLE revoked_sessions (session TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
";

/// Brings the database to the newest version; one from a newer program is refused.
pub(super) fn migrate(db: &mut Connection) -> Result<(), Error> {
    let newest = MIGRATIONS.len();
    let found: i64 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(Error::Read)?;
    let have = usize::try_from(found).unwrap_or(usize::MAX);
    if have > newest {
        return Err(Error::Newer { found, newest });
    }
    for (step, sql) in (1_u32..).zip(MIGRATIONS).skip(have) {
        let transaction = db.transaction().map_err(Error::Write)?;
        transaction.execute_batch(sql).map_err(Error::Write)?;
        transaction
            .pragma_update(None, "user_version", step)
            .map_err(Error::Write)?;
        transaction.commit().map_err(Error::Write)?;
    }
    Ok(())
}
