//! The `queues` service: ordered lists of entries (`protocol.md` §2.4, §4). Here: the rows.
//!
//! ```text
//! read.rs    lists, entries, numbers       change.rs  make, delete, take in and out
//! moves.rs   order inside one queue       cache.rs   the entries as text, until they change
//! ```

pub(crate) mod cache;
pub(crate) mod change;
pub(crate) mod moves;
pub(crate) mod read;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::auth::COMPANY;
use super::call::Call;
use super::wire::{Doc, Refusal, new_id};
use super::{doc, query};

/// Whether a queue's document carries one of the tags that hide it from lists (§1.13, §4.1).
const HIDES: &str =
    "EXISTS (SELECT 1 FROM json_each(doc, '$.system_tags') AS tag WHERE tag.value IN
    (SELECT value FROM json_each((SELECT value FROM settings WHERE key = 'hidden_queue_tags'))))";

/// From now on queues with one of these system tags are hidden, those that are there too.
pub(super) fn hide_by(db: &Connection, tags: &[String]) -> Result<(), Refusal> {
    db.execute(
        "INSERT OR REPLACE INTO settings VALUES ('hidden_queue_tags', ?1)",
        [json!(tags).to_string()],
    )?;
    db.execute(
        &format!("UPDATE queues SET hidden = {HIDES} WHERE hidden <> {HIDES}"),
        [],
    )?;
    Ok(())
}

/// Makes a queue; its name must be free.
pub(super) fn insert(
    db: &Connection,
    name: &str,
    tags: &Value,
    system_tags: &Value,
    now: &str,
) -> Result<String, Refusal> {
    check_name(name)?;
    let taken: Option<i64> = db
        .query_row("SELECT 1 FROM queues WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()?;
    if taken.is_some() {
        return Err(name_taken(name));
    }
    let id = new_id();
    let queue = json!({
        "id": id,
        "name": name,
        "company": COMPANY,
        "created": now,
        "tags": tags,
        "system_tags": system_tags,
        "last_update": now,
        "metadata": {},
    });
    let Value::Object(queue) = queue else {
        return Err(Refusal::internal("A queue is not an object"));
    };
    save(db, &queue)?;
    Ok(id)
}

/// 400/800 if a queue may not be called so.
fn check_name(name: &str) -> Result<(), Refusal> {
    if name.chars().count() >= 3 {
        return Ok(());
    }
    let text = "Data validation error (queue name is too short, at least 3 characters)";
    Err(Refusal::bad(800, text))
}

/// 400/801 of §1.8.
pub(super) fn name_taken(name: &str) -> Refusal {
    let text = "Value combination already exists (unique field already contains this value)";
    Refusal::bad(801, format!("{text}: name={name}, company={COMPANY}"))
}

fn save(db: &Connection, queue: &Doc) -> Result<(), Refusal> {
    let id = doc::text(queue, "id");
    db.prepare_cached(
        "INSERT INTO queues (id, name, doc, hidden) VALUES (?1, ?2, ?3, 0)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, doc = excluded.doc",
    )?
    .execute(params![
        id,
        doc::text(queue, "name"),
        serde_json::to_string(queue)?
    ])?;
    db.prepare_cached(&format!("UPDATE queues SET hidden = {HIDES} WHERE id = ?1"))?
        .execute([id])?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: &str) -> Result<Option<Doc>, Refusal> {
    query::one(db, "SELECT doc FROM queues WHERE id = ?1", id)
}

fn unknown(id: &str) -> Refusal {
    Refusal::unknown_id(701, "Invalid queue id", id, COMPANY)
}

fn known(db: &Connection, id: &str) -> Result<Doc, Refusal> {
    find(db, id)?.ok_or_else(|| unknown(id))
}

/// 400/701 if there is no such queue.
fn check(db: &Connection, id: &str) -> Result<(), Refusal> {
    let there = db
        .prepare_cached("SELECT 1 FROM queues WHERE id = ?1")?
        .exists([id])?;
    if there { Ok(()) } else { Err(unknown(id)) }
}

/// 400/701 with the ids that are no queues.
pub(super) fn check_all(db: &Connection, ids: &[&str]) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    for id in ids {
        if check(db, id).is_err() {
            missing.push(*id);
        }
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Refusal::bad(
            701,
            format!("Invalid queue id: ids=({})", missing.join(", ")),
        ))
    }
}

fn touch(db: &Connection, queue: &str, now: &str) -> Result<(), Refusal> {
    db.prepare_cached("UPDATE queues SET doc = json_set(doc, '$.last_update', ?2), version = version + 1 WHERE id = ?1")?
        .execute([queue, now])?;
    Ok(())
}

/// The queue of that name, made if there is none (`tasks.enqueue` with `queue_name`).
pub(super) fn named(db: &Connection, name: &str, now: &str) -> Result<String, Refusal> {
    let have: Option<String> = db
        .query_row("SELECT id FROM queues WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()?;
    have.map_or_else(|| insert(db, name, &json!([]), &json!([]), now), Ok)
}

/// The queue with the system tag `default`: 400/707 if there is none, 400/708 if there are several.
pub(super) fn default_queue(db: &Connection) -> Result<(String, String), Refusal> {
    let sql = "SELECT queues.id, queues.name FROM queues, json_each(queues.doc, '$.system_tags') AS tag WHERE tag.value = 'default'";
    let mut statement = db.prepare_cached(sql)?;
    let found = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(queue), None) => Ok(queue),
        (None, _) => Err(Refusal::bad(707, "No default queue has been set")),
        _ => Err(Refusal::bad(
            708,
            "More than one default queue has been set",
        )),
    }
}

/// Appends an entry: 400/701 for an unknown queue, 400/706 if it stands there already.
pub(super) fn append(call: &Call, queue: &str, task: &str) -> Result<(), Refusal> {
    check(call.db, queue)?;
    let added = call
        .db
        .prepare_cached(
            "INSERT INTO entries (queue, task, added, position)
             SELECT ?1, ?2, ?3, coalesce(max(position), 0) + 1 FROM entries WHERE queue = ?1
             ON CONFLICT (queue, task) DO NOTHING",
        )?
        .execute(params![queue, task, call.now])?;
    if added == 0 {
        return Err(Refusal::bad(
            706,
            format!("Failed adding task to queue since task is already queued: task={task}"),
        ));
    }
    sample(call, queue, None)?;
    touch(call.db, queue, &call.now)
}

/// Takes an entry out; false if there is none.
pub(super) fn take_out(call: &Call, queue: &str, task: &str) -> Result<bool, Refusal> {
    let mut statement = call
        .db
        .prepare_cached("DELETE FROM entries WHERE queue = ?1 AND task = ?2 RETURNING added")?;
    let added: Option<String> = statement
        .query_row([queue, task], |row| row.get(0))
        .optional()?;
    drop(statement);
    let Some(added) = added else { return Ok(false) };
    sample(call, queue, Some(&added))?;
    touch(call.db, queue, &call.now)?;
    Ok(true)
}

/// Takes a task out of every queue but one.
pub(super) fn take_out_of_all(
    call: &Call,
    task: &str,
    but: Option<&str>,
) -> Result<usize, Refusal> {
    let mut statement = call
        .db
        .prepare_cached("SELECT queue FROM entries WHERE task = ?1")?;
    let queues = statement
        .query_map([task], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    let mut removed = 0;
    for queue in queues.iter().filter(|queue| but != Some(queue.as_str())) {
        removed += usize::from(take_out(call, queue, task)?);
    }
    Ok(removed)
}

/// How long entries waited and how many there are, second by second, for `queues.get_queue_metrics`.
fn sample(call: &Call, queue: &str, added: Option<&str>) -> Result<(), Refusal> {
    let since: Option<jiff::Timestamp> = added.and_then(|added| added.parse().ok());
    let waited = since.map_or(0.0, |since| call.at.duration_since(since).as_secs_f64());
    let (at, taken) = (call.at.as_second(), i64::from(added.is_some()));
    let noted = call
        .db
        .prepare_cached(
            "UPDATE queue_samples SET waited = waited + ?3, taken = taken + ?4 WHERE queue = ?1 AND at = ?2",
        )?
        .execute(params![queue, at, waited, taken])?;
    if noted == 0 {
        call.db
            .prepare_cached(
                "INSERT INTO queue_samples SELECT ?1, ?2, ?3, ?4, count(*) FROM entries WHERE queue = ?1",
            )?
            .execute(params![queue, at, waited, taken])?;
    }
    Ok(())
}

/// Entries in order: all, the first `limit`, or the last `-limit`.
fn entries(db: &Connection, queue: &str, limit: i64) -> Result<Vec<Value>, Refusal> {
    let order = if limit < 0 { "DESC" } else { "" };
    let count = if limit == 0 {
        -1
    } else {
        limit.saturating_abs()
    };
    let sql = format!(
        "SELECT task, added FROM entries WHERE queue = ?1 ORDER BY position {order} LIMIT ?2"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![queue, count], |row| {
        Ok(json!({"task": row.get::<_, String>(0)?, "added": row.get::<_, String>(1)?}))
    })?;
    let mut entries = rows.collect::<Result<Vec<_>, _>>()?;
    if limit < 0 {
        entries.reverse();
    }
    Ok(entries)
}

fn count(db: &Connection, queue: &str) -> Result<i64, Refusal> {
    let sql = "SELECT count(*) FROM entries WHERE queue = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([queue], |row| row.get(0))?)
}

fn first(db: &Connection, queue: &str) -> Result<Option<(String, String)>, Refusal> {
    let sql = "SELECT task, added FROM entries WHERE queue = ?1 ORDER BY position LIMIT 1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([queue], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?)
}

/// 400/703.
fn not_in_queue(queue: &str, task: &str) -> Refusal {
    let text = "Invalid queue id or task not in queue";
    Refusal::bad(
        703,
        format!("{text}: task={task}, id={queue}, company={COMPANY}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn no_limit_of_entries_is_too_low_or_too_high() {
        let db = schema::in_memory();
        db.execute_batch(
            "INSERT INTO queues (id, name, doc, hidden) VALUES ('q', 'queue', '{}', 0);
             INSERT INTO entries (queue, position, task, added) VALUES ('q', 1, 'a', ''), ('q', 2, 'b', '');",
        )
        .unwrap();
        for limit in [i64::MIN, -2, 0, 2, i64::MAX] {
            let found = entries(&db, "q", limit).unwrap();
            let tasks: Vec<Value> = found.iter().map(|entry| entry["task"].clone()).collect();
            assert_eq!(tasks, ["a", "b"], "{limit}");
        }
    }
}
