//! Changing queues: making and deleting them, taking entries in and out (§2.4, §4).

use rusqlite::OptionalExtension as _;
use serde_json::{Value, json};

use super::super::auth::COMPANY;
use super::super::call::Call;
use super::super::wire::{Answer, Doc, Refusal, Version};
use super::super::{doc, query, rules, tasks};
use super::{
    append, check, check_name, count, entries, first, insert, known, name_taken, not_in_queue,
    save, take_out,
};

/// `queues.create`
pub(crate) fn create(call: &Call) -> Answer {
    let name = call.text("name")?;
    let tags = query::tags(&call.texts("tags")?);
    let system_tags = query::tags(&call.texts("system_tags")?);
    let id = insert(call.db, name, &tags, &system_tags, &call.now)?;
    if let Some(display) = call.text_or_none("display_name")? {
        let mut queue = known(call.db, &id)?;
        queue.insert("display_name".into(), display.into());
        save(call.db, &queue)?;
    }
    Ok(json!({"id": id}))
}

/// `queues.get_next_task`: removes the first entry and returns it; the task itself is not touched, except that a
/// stopped one becomes queued again (§4).
pub(crate) fn get_next_task(call: &Call) -> Answer {
    let queue = call.text("queue")?;
    check(call.db, queue)?;
    let Some((task, added)) = first(call.db, queue)? else {
        return Ok(json!({}));
    };
    let wanted = call
        .text_or_none("task")?
        .filter(|_| call.plays(Version(2, 21)));
    if wanted.is_some_and(|wanted| wanted != task) {
        return Ok(json!({}));
    }
    take_out(call, queue, &task)?;
    let mut answer = json!({"entry": {"task": task, "added": added}});
    let sql = "SELECT status, user FROM tasks WHERE id = ?1";
    let about: Option<(String, Option<String>)> = call
        .db
        .prepare_cached(sql)?
        .query_row([&task], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((status, user)) = about else {
        return Ok(answer);
    };
    if status == "stopped"
        && let Some(mut doc) = tasks::find(call.db, &task)?
    {
        doc.insert("status".into(), "queued".into());
        tasks::save(call.db, &doc)?;
    }
    if call.flag("get_task_info")? {
        answer["task_info"] = json!({"company": COMPANY, "user": user.unwrap_or_default()});
    }
    Ok(answer)
}

/// `queues.add_task`: neither asks nor changes the task's status.
pub(crate) fn add_task(call: &Call) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    let mut task = tasks::known(call.db, task)?;
    append(call, queue, doc::text(&task, "id"))?;
    if call.flag_or("update_execution_queue", true)? || !call.plays(Version(2, 31)) {
        doc::set(&mut task, "execution.queue", queue.into());
        tasks::touch(call, &mut task);
        tasks::save(call.db, &task)?;
    }
    Ok(json!({"added": 1}))
}

/// `queues.remove_task`
pub(crate) fn remove_task(call: &Call) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    if !take_out(call, queue, task)? {
        return Err(not_in_queue(queue, task));
    }
    if call.flag("update_task_status")? && call.plays(Version(2, 31)) {
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
    call.copy_texts(&["name", "display_name"], &mut fields)?;
    query::copy_tags(call, &mut fields)?;
    if let Some(metadata) = call.object("metadata")? {
        fields.insert("metadata".into(), metadata.clone().into());
    }
    if let Some(name) = fields.get("name").and_then(Value::as_str) {
        check_name(name)?;
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

/// `queues.add_or_update_metadata`
pub(crate) fn add_or_update_metadata(call: &Call) -> Answer {
    let mut queue = known(call.db, call.text("queue")?)?;
    let items = call.objects("metadata")?;
    let replace = call.flag("replace_metadata")?;
    let metadata = doc::object_at(&mut queue, "metadata");
    if replace {
        metadata.clear();
    }
    doc::add_metadata(metadata, &items);
    updated(call, queue)
}

/// `queues.delete_metadata`
pub(crate) fn delete_metadata(call: &Call) -> Answer {
    let mut queue = known(call.db, call.text("queue")?)?;
    let metadata = doc::object_at(&mut queue, "metadata");
    for key in call.texts_required("keys")? {
        metadata.shift_remove(key);
    }
    updated(call, queue)
}

fn updated(call: &Call, mut queue: Doc) -> Answer {
    queue.insert("last_update".into(), call.now.clone().into());
    save(call.db, &queue)?;
    Ok(json!({"updated": 1}))
}
