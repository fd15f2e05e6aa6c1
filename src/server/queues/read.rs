//! Looking at queues: lists, entries, numbers (§2.4).

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::super::auth::COMPANY;
use super::super::call::{Call, required};
use super::super::query::{Hidden, Query};
use super::super::wire::{Answer, Doc, Refusal, Version};
use super::super::{doc, workers};
use super::{count, default_queue, entries, first, known};

/// A queue with its entries.
fn shown(call: &Call, mut queue: Doc, limit: i64) -> Result<Doc, Refusal> {
    let list = entries(call.db, doc::text(&queue, "id"), limit)?;
    queue.insert("entries".into(), list.into());
    shape(call, &mut queue);
    Ok(queue)
}

/// Older clients know `metadata` as a list (§1.7).
fn shape(call: &Call, queue: &mut Doc) {
    if call.request.version < Version(2, 13) && queue.contains_key("metadata") {
        queue.insert("metadata".into(), json!([]));
    }
}

/// `queues.get_by_id`
pub(crate) fn get_by_id(call: &Call) -> Answer {
    let queue = known(call.db, call.text("queue")?)?;
    let limit = call.int("max_task_entries")?.unwrap_or(0);
    Ok(json!({"queue": shown(call, queue, limit)?}))
}

/// `queues.get_all`
pub(crate) fn get_all(call: &Call) -> Answer {
    let (query, found) = select(call)?;
    let limit = call.int("max_task_entries")?;
    let part = query
        .only_fields
        .iter()
        .any(|field| field.starts_with("entries."));
    if part && limit.is_some() {
        return Err(Refusal::new(
            500,
            1,
            "max_task_entries and a part of entries in only_fields exclude each other",
        ));
    }
    let mut queues = Vec::new();
    for mut queue in found {
        if query.shows("entries") {
            queue = shown(call, queue, limit.unwrap_or(0))?;
        } else {
            shape(call, &mut queue);
        }
        queues.push(query.cut(queue));
    }
    Ok(json!({"queues": queues}))
}

/// `queues.get_all_ex`
pub(crate) fn get_all_ex(call: &Call) -> Answer {
    let (query, found) = select(call)?;
    let limit = call.int("max_task_entries")?;
    let workers = workers::by_queue(call)?;
    let mut queues = Vec::new();
    for queue in found {
        let mut queue = shown(call, queue, limit.unwrap_or(0))?;
        let id = doc::text(&queue, "id").to_owned();
        queue.insert("company".into(), json!({"id": COMPANY}));
        queue.insert(
            "workers".into(),
            workers.get(&id).cloned().unwrap_or_default().into(),
        );
        name_tasks(call.db, &mut queue)?;
        let cut = if limit.is_some() {
            queue
        } else {
            query.cut_with_id(queue)
        };
        queues.push(cut);
    }
    Ok(json!({"queues": queues}))
}

/// Entries name their tasks: `{task: {id, name}}`.
fn name_tasks(db: &Connection, queue: &mut Doc) -> Result<(), Refusal> {
    let mut statement = db.prepare_cached("SELECT name FROM tasks WHERE id = ?1")?;
    let Some(Value::Array(entries)) = queue.get_mut("entries") else {
        return Ok(());
    };
    for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
        let id = doc::text(entry, "task").to_owned();
        let name: Option<String> = statement.query_row([&id], |row| row.get(0)).optional()?;
        let mut task = Doc::new();
        task.insert("id".into(), id.into());
        if let Some(name) = name {
            task.insert("name".into(), name.into());
        }
        entry.insert("task".into(), task.into());
    }
    Ok(())
}

fn select<'a>(call: &Call<'a>) -> Result<(Query<'a>, Vec<Doc>), Refusal> {
    let query = Query::read(call, &["tags", "system_tags"])?;
    // Hidden queues are shown when asked for by id or name (§1.13).
    let hidden = if query.search_hidden || !query.ids.is_empty() || query.name.is_some() {
        Hidden::Shown
    } else {
        Hidden::LeftOut
    };
    let found = query.run(call.db, "queues", hidden, &[])?;
    Ok((query, found))
}

/// `queues.get_default`
pub(crate) fn get_default(call: &Call) -> Answer {
    let (id, name) = default_queue(call.db)?;
    Ok(json!({"id": id, "name": name}))
}

/// `queues.peek_task`
pub(crate) fn peek_task(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    known(call.db, queue)?;
    Ok(json!({"task": first(call.db, queue)?.map(|(task, _)| task)}))
}

/// `queues.get_num_entries`
pub(crate) fn get_num_entries(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    known(call.db, queue)?;
    Ok(json!({"num": count(call.db, queue)?}))
}

/// `queues.get_queue_metrics`: waiting times and lengths in steps of `interval` seconds.
pub(crate) fn get_queue_metrics(call: &Call) -> Answer {
    let number = |key: &str| {
        call.value(key)
            .and_then(Value::as_f64)
            .ok_or_else(|| required(key))
    };
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
    let (from, to, step) = (
        number("from_date")? as i64,
        number("to_date")? as i64,
        (number("interval")? as i64).max(1),
    );
    let mut ids: Vec<String> = call
        .texts("queue_ids")?
        .into_iter()
        .map(str::to_owned)
        .collect();
    if ids.is_empty() {
        let mut statement = call
            .db
            .prepare_cached("SELECT id FROM queues ORDER BY id")?;
        ids = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
    }
    let mut queues = Vec::new();
    for id in ids {
        let sql = "SELECT at / ?4 * ?4, avg(waited), max(length) FROM queue_samples
                   WHERE queue = ?1 AND at BETWEEN ?2 AND ?3 GROUP BY 1 ORDER BY 1";
        let mut statement = call.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![id, from, to, step])?;
        let mut columns: HashMap<&str, Vec<Value>> = HashMap::new();
        while let Some(row) = rows.next()? {
            columns
                .entry("dates")
                .or_default()
                .push(row.get::<_, i64>(0)?.into());
            columns
                .entry("waits")
                .or_default()
                .push(row.get::<_, f64>(1)?.into());
            columns
                .entry("lengths")
                .or_default()
                .push(row.get::<_, i64>(2)?.into());
        }
        let mut column = |name| columns.remove(name).unwrap_or_default();
        queues.push(json!({
            "queue": id,
            "dates": column("dates"),
            "avg_waiting_times": column("waits"),
            "queue_lengths": column("lengths"),
        }));
    }
    Ok(json!({"queues": queues}))
}
