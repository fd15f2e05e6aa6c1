//! The `queues` service: ordered lists of entries (`protocol.md` §2.4, §4).

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::auth::COMPANY;
use super::call::Call;
use super::doc;
use super::query::{self, Hidden, Query};
use super::rules;
use super::wire::{Answer, Doc, Refusal, Version, new_id};
use super::{tasks, workers};

/// The system tag that hides a queue from lists (§4.1).
const HIDDEN_TAG: &str = "k8s-glue";

// ---- rows ----

/// Makes a queue; its name must be free.
pub(super) fn insert(
    db: &Connection,
    name: &str,
    tags: Value,
    system_tags: Value,
    now: &str,
) -> Result<String, Refusal> {
    if name.chars().count() < 3 {
        return Err(Refusal::bad(
            800,
            "Data validation error (queue name is too short, at least 3 characters)",
        ));
    }
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

/// 400/801 of §1.8.
pub(super) fn name_taken(name: &str) -> Refusal {
    let text = "Value combination already exists (unique field already contains this value)";
    Refusal::bad(801, format!("{text}: name={name}, company={COMPANY}"))
}

fn save(db: &Connection, queue: &Doc) -> Result<(), Refusal> {
    let hidden = doc::strings(queue, "system_tags").contains(&HIDDEN_TAG);
    db.prepare_cached(
        "INSERT INTO queues (id, name, doc, hidden) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, doc = excluded.doc, hidden = excluded.hidden",
    )?
    .execute(params![doc::text(queue, "id"), doc::text(queue, "name"), serde_json::to_string(queue)?, hidden])?;
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

/// 400/701 with the ids that are no queues.
pub(super) fn check_all(db: &Connection, ids: &[&str]) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    for id in ids {
        if find(db, id)?.is_none() {
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
    db.prepare_cached("UPDATE queues SET doc = json_set(doc, '$.last_update', ?2) WHERE id = ?1")?
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
    have.map_or_else(|| insert(db, name, json!([]), json!([]), now), Ok)
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
    known(call.db, queue)?;
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
    sample(call, queue, &added)?;
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

/// How long an entry waited and how many remain, for `queues.get_queue_metrics`.
fn sample(call: &Call, queue: &str, added: &str) -> Result<(), Refusal> {
    let since: Option<jiff::Timestamp> = added.parse().ok();
    let waited = since.map_or(0.0, |since| call.at.duration_since(since).as_secs_f64());
    call.db
        .prepare_cached(
            "INSERT INTO queue_samples SELECT ?1, ?2, ?3, count(*) FROM entries WHERE queue = ?1",
        )?
        .execute(params![queue, call.at.as_second(), waited])?;
    Ok(())
}

/// Entries in order: all, the first `limit`, or the last `-limit`.
fn entries(db: &Connection, queue: &str, limit: i64) -> Result<Vec<Value>, Refusal> {
    let order = if limit < 0 { "DESC" } else { "" };
    let count = if limit == 0 { -1 } else { limit.abs() };
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

/// Older clients know `metadata` as a list (§1.7).
fn shown(call: &Call, mut queue: Doc, limit: i64) -> Answer {
    let list = entries(call.db, doc::text(&queue, "id"), limit)?;
    queue.insert("entries".into(), list.into());
    if call.request.version < Version(2, 13) && queue.contains_key("metadata") {
        queue.insert("metadata".into(), json!([]));
    }
    Ok(queue.into())
}

// ---- endpoints ----

/// `queues.create`
pub(crate) fn create(call: &Call) -> Answer {
    let name = call.text("name")?;
    let tags = query::tags(&call.texts("tags")?);
    let system_tags = query::tags(&call.texts("system_tags")?);
    let id = insert(call.db, name, tags, system_tags, &call.now)?;
    if let Some(display) = call.text_or_none("display_name")? {
        let mut queue = known(call.db, &id)?;
        queue.insert("display_name".into(), display.into());
        save(call.db, &queue)?;
    }
    Ok(json!({"id": id}))
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
    for queue in found {
        if let Value::Object(queue) = shown(call, queue, limit.unwrap_or(0))? {
            queues.push(query.cut(queue));
        }
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
        let Value::Object(mut queue) = shown(call, queue, limit.unwrap_or(0))? else {
            continue;
        };
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

/// `queues.get_next_task`: removes the first entry and returns it; the task itself is not touched, except that a
/// stopped one becomes queued again (§4).
pub(crate) fn get_next_task(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    known(call.db, queue)?;
    let Some((task, added)) = first(call.db, queue)? else {
        return Ok(json!({}));
    };
    if call
        .text_or_none("task")?
        .is_some_and(|wanted| wanted != task)
    {
        return Ok(json!({}));
    }
    take_out(call, queue, &task)?;
    let mut answer = json!({"entry": {"task": task, "added": added}});
    if let Some(mut doc) = tasks::find(call.db, &task)? {
        if doc::text(&doc, "status") == "stopped" {
            doc.insert("status".into(), "queued".into());
            tasks::save(call.db, &doc)?;
        }
        if call.flag("get_task_info")? {
            answer["task_info"] = json!({"company": COMPANY, "user": doc::text(&doc, "user")});
        }
    }
    Ok(answer)
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

/// `queues.add_task`: neither asks nor changes the task's status.
pub(crate) fn add_task(call: &Call) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    let mut task = tasks::known(call.db, task)?;
    append(call, queue, doc::text(&task, "id"))?;
    if call.flag_or("update_execution_queue", true)? {
        doc::set(&mut task, "execution.queue", queue.into());
        tasks::touch(call, &mut task);
        tasks::save(call.db, &task)?;
    }
    Ok(json!({"added": 1}))
}

fn not_in_queue(queue: &str, task: &str) -> Refusal {
    let text = "Invalid queue id or task not in queue";
    Refusal::bad(
        703,
        format!("{text}: task={task}, id={queue}, company={COMPANY}"),
    )
}

/// `queues.remove_task`
pub(crate) fn remove_task(call: &Call) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    if !take_out(call, queue, task)? {
        return Err(not_in_queue(queue, task));
    }
    if call.flag("update_task_status")? {
        set_back(
            call,
            queue,
            task,
            format!("Task was removed from the queue {queue}"),
        )?;
    }
    Ok(json!({"removed": 1}))
}

/// Gives a task whose entry went away its status from before; false if `execution.queue` names another queue.
fn set_back(call: &Call, queue: &str, task: &str, reason: String) -> Result<bool, Refusal> {
    let Some(mut task) = tasks::find(call.db, task)? else {
        return Ok(false);
    };
    let Some(change) = rules::back_from_queue(&task, queue, reason) else {
        return Ok(false);
    };
    change.apply(&mut task, &call.now, call.user());
    tasks::save(call.db, &task)?;
    Ok(true)
}

/// `queues.clear_queue`
pub(crate) fn clear_queue(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    known(call.db, queue)?;
    Ok(json!({"removed_tasks": clear(call, queue, &format!("Queue {queue} was cleared"))?}))
}

/// Empties a queue; returns the tasks whose status was set back.
fn clear(call: &Call, queue: &str, reason: &str) -> Result<Vec<String>, Refusal> {
    let mut set_back_tasks = Vec::new();
    for entry in entries(call.db, queue, 0)? {
        let task = entry["task"].as_str().unwrap_or_default();
        take_out(call, queue, task)?;
        if set_back(call, queue, task, reason.to_owned())? {
            set_back_tasks.push(task.to_owned());
        }
    }
    Ok(set_back_tasks)
}

/// `queues.delete`
pub(crate) fn delete(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    known(call.db, queue)?;
    if !call.flag("force")? && count(call.db, queue)? > 0 {
        return Err(Refusal::bad(
            702,
            format!("Queue is not empty (use force=true to delete): id={queue}"),
        ));
    }
    clear(call, queue, &format!("Queue {queue} was deleted"))?;
    call.db
        .execute("DELETE FROM queue_samples WHERE queue = ?1", [queue])?;
    call.db
        .execute("DELETE FROM queues WHERE id = ?1", [queue])?;
    Ok(json!({"deleted": 1}))
}

/// `queues.update`
pub(crate) fn update(call: &Call) -> Answer {
    let mut queue = known(call.db, call.text("queue")?)?;
    let mut fields = Doc::new();
    for key in ["name", "display_name"] {
        if let Some(text) = call.text_or_none(key)? {
            fields.insert(key.into(), text.into());
        }
    }
    for key in ["tags", "system_tags"] {
        if call.value(key).is_some() {
            fields.insert(key.into(), query::tags(&call.texts(key)?));
        }
    }
    if let Some(metadata) = call.object("metadata")? {
        fields.insert("metadata".into(), metadata.clone().into());
    }
    if let Some(name) = fields.get("name").and_then(Value::as_str) {
        let sql = "SELECT 1 FROM queues WHERE name = ?1 AND id <> ?2";
        let taken: Option<i64> = call
            .db
            .query_row(sql, [name, doc::text(&queue, "id")], |row| row.get(0))
            .optional()?;
        if taken.is_some() {
            return Err(name_taken(name));
        }
    }
    queue.extend(fields.clone());
    queue.insert("last_update".into(), call.now.clone().into());
    save(call.db, &queue)?;
    Ok(json!({"updated": 1, "fields": fields}))
}

/// Where a move puts an entry that stands at `from` among `len`.
enum Move {
    Front,
    Back,
    By(i64),
}

fn move_task(call: &Call, to: &Move) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    let mut statement = call
        .db
        .prepare_cached("SELECT task FROM entries WHERE queue = ?1 ORDER BY position")?;
    let mut order = statement
        .query_map([queue], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    drop(statement);
    let from = order
        .iter()
        .position(|have| have == task)
        .ok_or_else(|| not_in_queue(queue, task))?;
    let last = order.len() - 1;
    let position = match to {
        Move::Front => 0,
        Move::Back => last,
        Move::By(steps) => from
            .saturating_add_signed(isize::try_from(*steps).unwrap_or_default())
            .min(last),
    };
    let moved = order.remove(from);
    order.insert(position, moved);
    // Only what lies between the two places changes, by way of negative positions, which are never in use.
    let (low, high) = (from.min(position), from.max(position));
    let mut statement = call
        .db
        .prepare_cached("SELECT position FROM entries WHERE queue = ?1 ORDER BY position")?;
    let places = statement
        .query_map([queue], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    drop(statement);
    let mut place = call
        .db
        .prepare_cached("UPDATE entries SET position = ?3 WHERE queue = ?1 AND task = ?2")?;
    for (task, to) in order[low..=high].iter().zip(&places[low..=high]) {
        place.execute(params![queue, task, -to])?;
    }
    for (task, to) in order[low..=high].iter().zip(&places[low..=high]) {
        place.execute(params![queue, task, to])?;
    }
    touch(call.db, queue, &call.now)?;
    Ok(json!({"position": position}))
}

/// `queues.move_task_to_front`
pub(crate) fn move_to_front(call: &Call) -> Answer {
    move_task(call, &Move::Front)
}

/// `queues.move_task_to_back`
pub(crate) fn move_to_back(call: &Call) -> Answer {
    move_task(call, &Move::Back)
}

/// `queues.move_task_forward`: towards the head.
pub(crate) fn move_forward(call: &Call) -> Answer {
    move_task(call, &Move::By(-call.int("count")?.unwrap_or(1).max(0)))
}

/// `queues.move_task_backward`
pub(crate) fn move_backward(call: &Call) -> Answer {
    move_task(call, &Move::By(call.int("count")?.unwrap_or(1).max(0)))
}

/// `queues.get_queue_metrics`: waiting times and lengths in steps of `interval` seconds.
pub(crate) fn get_queue_metrics(call: &Call) -> Answer {
    let number = |key: &str| {
        call.value(key)
            .and_then(Value::as_f64)
            .ok_or_else(|| super::call::required(key))
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
