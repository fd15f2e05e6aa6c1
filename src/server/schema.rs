//! The database's tables, and how an older database becomes a newer one.
//!
//! `PRAGMA user_version` counts the migrations that have been run; each runs once, in the transaction that counts it.

use rusqlite::Connection;

use super::events::log::Appended;
use super::store::Error;
use super::wire::{Doc, Refusal};

/// One step from a version to the next: statements, and what statements cannot do. Never changed once released: a
/// later change is a further step.
type Step = (&'static str, fn(&Connection) -> Result<(), Refusal>);

const MIGRATIONS: &[Step] = &[
    (FIRST, |_| Ok(())),
    (COMPACT_EVENTS, compact_log),
    (DOOMED_FILES, |_| Ok(())),
    (FURTHER_INDEXES, |_| Ok(())),
];

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

/// Log lines in blocks, points of curves in small rows, entries in their order; key pairs may end.
const COMPACT_EVENTS: &str = "
ALTER TABLE credentials ADD COLUMN until INTEGER;

ALTER TABLE entries RENAME TO entries_before;
CREATE TABLE entries (
    queue TEXT NOT NULL REFERENCES queues (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    task TEXT NOT NULL,
    added TEXT NOT NULL,
    PRIMARY KEY (queue, position),
    UNIQUE (queue, task)
) STRICT, WITHOUT ROWID;
INSERT INTO entries (queue, position, task, added) SELECT queue, position, task, added FROM entries_before;
DROP TABLE entries_before;
CREATE INDEX entries_by_task ON entries (task);
-- Counts the changes of a queue's entries.
ALTER TABLE queues ADD COLUMN version INTEGER NOT NULL DEFAULT 0;

-- What happened to a queue in one second: how many entries were taken, how long they had waited together.
DROP TABLE queue_samples;
CREATE TABLE queue_samples (
    queue TEXT NOT NULL,
    at INTEGER NOT NULL,
    waited REAL NOT NULL,
    taken INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (queue, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (no INTEGER PRIMARY KEY, task TEXT NOT NULL UNIQUE, lines INTEGER NOT NULL) STRICT;
-- `first` and `last` are the earliest and the latest moment (ms) of the lines in `data`.
CREATE TABLE log_blocks (
    id INTEGER PRIMARY KEY,
    log INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX log_blocks_by_end ON log_blocks (log, last, first);
CREATE INDEX log_blocks_by_start ON log_blocks (log, first, last);

-- One row for each curve: what `last_metrics` shows (§3.1).
CREATE TABLE curves (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    count INTEGER NOT NULL,
    total REAL NOT NULL,
    doc TEXT NOT NULL,
    UNIQUE (task, metric, variant)
) STRICT;
CREATE TABLE sources (id INTEGER PRIMARY KEY, worker TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE points (
    curve INTEGER NOT NULL,
    iter INTEGER NOT NULL,
    at INTEGER NOT NULL,
    value REAL,
    source INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    PRIMARY KEY (curve, iter)
) STRICT, WITHOUT ROWID;

INSERT INTO curves (task, metric, variant, count, total, doc)
    SELECT DISTINCT r.task, r.metric, r.variant, coalesce(s.count, 0), coalesce(s.total, 0), coalesce(s.doc, '{}')
    FROM reports AS r LEFT JOIN series AS s ON s.task = r.task AND s.metric = r.metric AND s.variant = r.variant
    WHERE r.type = 'training_stats_scalar';
INSERT OR IGNORE INTO sources (worker)
    SELECT DISTINCT coalesce(json_extract(doc, '$.worker'), '<unknown>') FROM reports WHERE type = 'training_stats_scalar';
INSERT INTO points (curve, iter, at, value, source, stored)
    SELECT c.id, r.iter, r.at, r.value, s.id, r.at
    FROM reports AS r
    JOIN curves AS c ON c.task = r.task AND c.metric = r.metric AND c.variant = r.variant
    JOIN sources AS s ON s.worker = coalesce(json_extract(r.doc, '$.worker'), '<unknown>')
    WHERE r.type = 'training_stats_scalar' AND r.key = '';
DELETE FROM reports WHERE type = 'training_stats_scalar';
ALTER TABLE reports DROP COLUMN value;
DROP TABLE series;
";

/// Files to take away, and since when (ms).
const DOOMED_FILES: &str =
    "CREATE TABLE doomed_files (path TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

/// What was searched through whole: a task's reports by iteration, samples of one metric, and of all queues, by time.
const FURTHER_INDEXES: &str = "
CREATE INDEX reports_by_iter ON reports (task, type, iter, metric, variant);
CREATE INDEX worker_samples_by_metric ON worker_samples (metric, at);
CREATE INDEX queue_samples_by_time ON queue_samples (at);
";

/// Moves the log lines of the first schema, one row each, into blocks.
fn compact_log(db: &Connection) -> Result<(), Refusal> {
    let tasks = db
        .prepare("SELECT DISTINCT task FROM log")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    let mut statement = db.prepare("SELECT at, doc FROM log WHERE task = ?1 ORDER BY id")?;
    for task in tasks {
        let mut rows = statement.query([&task])?;
        let mut lines = Appended::default();
        while let Some(row) = rows.next()? {
            let mut shared: Doc = serde_json::from_str(&row.get::<_, String>(1)?)?;
            shared.shift_remove("timestamp");
            let text = match shared.get("msg") {
                Some(serde_json::Value::String(text)) => Some(text.clone()),
                _ => None,
            };
            if text.is_some() {
                shared.shift_remove("msg");
            }
            let shared = serde_json::to_string(&shared)?;
            lines.add(&shared, row.get(0)?, text.as_deref());
        }
        lines.store(db, &task)?;
    }
    db.execute_batch("DROP TABLE log")?;
    Ok(())
}

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
    for (step, (sql, further)) in (1_u32..).zip(MIGRATIONS).skip(have) {
        let transaction = db.transaction().map_err(Error::Write)?;
        transaction.execute_batch(sql).map_err(Error::Write)?;
        further(&transaction).map_err(|refusal| Error::Migrate {
            step,
            why: refusal.text,
        })?;
        transaction
            .pragma_update(None, "user_version", step)
            .map_err(Error::Write)?;
        transaction.commit().map_err(Error::Write)?;
    }
    Ok(())
}

/// Whether a database has the newest version, so that another process may work on it.
pub(super) fn is_newest(db: &Connection) -> Result<bool, Error> {
    let found: i64 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(Error::Read)?;
    Ok(usize::try_from(found) == Ok(MIGRATIONS.len()))
}

/// A database of the newest version, for tests.
#[cfg(test)]
pub(super) fn in_memory() -> Connection {
    let mut db = Connection::open_in_memory().expect("a database");
    migrate(&mut db).expect("migrated");
    db
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_the_first_schema_keeps_its_log_and_its_curves() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(FIRST).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        db.execute_batch(
            r#"INSERT INTO log (task, at, doc) VALUES
                ('t', 7, '{"type":"log","level":"INFO","msg":"later","timestamp":7}'),
                ('t', 5, '{"type":"log","level":"INFO","msg":"sooner","timestamp":5}');
            INSERT INTO reports (task, type, metric, variant, iter, key, at, value, doc) VALUES
                ('t', 'training_stats_scalar', 'loss', 'train', 1, '', 5, 0.5, '{"worker":"w"}'),
                ('t', 'training_stats_scalar', 'loss', 'train', 2, '', 6, 0.25, '{"worker":"w"}'),
                ('t', 'plot', 'p', 'v', 0, '', 6, NULL, '{"plot_str":"{}"}');
            INSERT INTO series VALUES ('t', 'loss', 'train', 2, 0.75, '{"value":0.25}');"#,
        )
        .unwrap();
        migrate(&mut db).unwrap();
        assert!(is_newest(&db).unwrap());
        let lines = super::super::events::log::newest(&db, "t", 10).unwrap();
        let texts: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["msg"].as_str())
            .collect();
        assert_eq!(texts, ["sooner", "later"]);
        let points: (i64, f64) = db
            .query_row(
                "SELECT count(*), sum(value) FROM curves JOIN points ON curve = id WHERE metric = 'loss' AND total = 0.75",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(points, (2, 0.75));
        let left: i64 = db
            .query_row("SELECT count(*) FROM reports", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 1);
    }

    #[test]
    fn a_database_of_the_schema_before_keeps_what_it_has_and_gets_the_indexes() {
        let mut db = Connection::open_in_memory().unwrap();
        for (sql, further) in &MIGRATIONS[..3] {
            db.execute_batch(sql).unwrap();
            further(&db).unwrap();
        }
        db.pragma_update(None, "user_version", 3).unwrap();
        db.execute_batch(
            "INSERT INTO reports (task, type, metric, variant, iter, key, at, doc) VALUES ('t', 'plot', 'm', 'v', 1, '', 5, '{}');
             INSERT INTO worker_samples VALUES ('w', 5, 'cpu_usage', '0', 1.0);
             INSERT INTO queue_samples VALUES ('q', 5, 0.0, 1, 2);",
        )
        .unwrap();
        assert!(!is_newest(&db).unwrap());
        migrate(&mut db).unwrap();
        assert!(is_newest(&db).unwrap());
        for table in ["reports", "worker_samples", "queue_samples"] {
            let count = format!("SELECT count(*) FROM {table}");
            let rows: i64 = db.query_row(&count, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 1, "{table}");
        }
        for (sql, index) in [
            (
                "SELECT id FROM reports WHERE task = 't' AND type = 'plot' AND iter <= 5 ORDER BY iter DESC LIMIT 1",
                "reports_by_iter",
            ),
            (
                "SELECT worker, at, value FROM worker_samples WHERE at BETWEEN 1 AND 9 AND metric = 'task'",
                "worker_samples_by_metric",
            ),
            (
                "DELETE FROM queue_samples WHERE at < 5",
                "queue_samples_by_time",
            ),
        ] {
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let step: String = db.query_row(&plan, [], |row| row.get(3)).unwrap();
            assert!(step.contains(index), "{sql}: {step}");
        }
    }
}
