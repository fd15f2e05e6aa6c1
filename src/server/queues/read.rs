//! Looking at queues: lists, entries, numbers (§2.4).

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::super::auth::COMPANY;
use super::super::call::{Call, required};
use super::super::query::{Hidden, Query};
use super::super::wire::{Answer, Doc, Refusal};
use super::super::{doc, versions, workers};
use super::{count, default_queue, entries, first, known};

/// A queue with its entries.
fn shown(call: &Call, mut queue: Doc, limit: i64) -> Result<Doc, Refusal> {
    let list = entries(call.db, doc::text(&queue, "id"), limit)?;
    queue.insert("entries".into(), list.into());
    versions::metadata_for(call.request.version, &mut queue);
    Ok(queue)
}

/// `queues.get_by_id`
pub(crate) fn get_by_id(call: &Call) -> Answer {
    // This call names the queue in its text alone, without error data (seen on a real server).
    let queue = known(call.db, call.text("queue")?).map_err(|refusal| Refusal {
        data: None,
        ..refusal
    })?;
    let limit = call.int("max_task_entries")?.unwrap_or(0);
    Ok(json!({"queue": shown(call, queue, limit)?}))
}

/// `queues.get_all`: the answer is JSON already.
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
    let mut lists = Vec::new();
    if query.shows("entries") && !part {
        for queue in &found {
            let id = doc::text(queue, "id");
            lists.push(call.app.entries.text(call.db, id, limit.unwrap_or(0))?);
        }
    }
    let entries: usize = lists.iter().map(|list| list.len()).sum();
    let returned = found.len();
    let mut text = String::with_capacity(entries + returned * 500 + 50);
    text += "{\"queues\":[";
    for (i, mut queue) in found.into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        if part {
            queue = shown(call, queue, 0)?;
            text += &serde_json::to_string(&query.cut(queue))?;
            continue;
        }
        versions::metadata_for(call.request.version, &mut queue);
        text += &serde_json::to_string(&query.cut(queue))?;
        if let Some(list) = lists.get(i) {
            // Entries come last, as text: there may be thousands.
            text.pop();
            text += if text.ends_with('{') {
                "\"entries\":"
            } else {
                ",\"entries\":"
            };
            text += list;
            text.push('}');
        }
    }
    text.push(']');
    if let Some(next) = query.next(returned) {
        text += ",\"scroll_id\":\"";
        text += &next;
        text.push('"');
    }
    text.push('}');
    Ok(text.into())
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
    let returned = queues.len();
    Ok(query.paged(json!({"queues": queues}), returned))
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

/// What happened to a queue in one step of time: begin of the step (ms), waiting time, length.
type Step = (i64, f64, i64);

/// `queues.get_queue_metrics`: waiting times and lengths in steps of `interval` seconds, of each queue that is named,
/// else of all queues together.
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
    if from >= to {
        let text = "Invalid field value (from_date must be less than to_date)";
        return Err(Refusal::bad(16, text));
    }
    let named = call.texts("queue_ids")?;
    let which = if named.is_empty() {
        "?4 = ?4"
    } else {
        "queue IN (SELECT value FROM json_each(?4))"
    };
    let sql = format!(
        "SELECT queue, at / ?3 * ?3 * 1000, coalesce(sum(waited) / nullif(sum(taken), 0), 0.0), max(length)
         FROM queue_samples WHERE at BETWEEN ?1 AND ?2 AND {which} GROUP BY 1, 2 ORDER BY 1, 2"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![from, to, step, json!(named).to_string()])?;
    let mut queues: Vec<(String, Vec<Step>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (queue, step): (String, Step) = (row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?));
        match queues.last_mut() {
            Some((last, steps)) if *last == queue => steps.push(step),
            _ => queues.push((queue, vec![step])),
        }
    }
    if named.is_empty() {
        queues = vec![("total".to_owned(), together(queues))];
    }
    let shown: Vec<Value> = queues
        .into_iter()
        .map(|(queue, steps)| {
            let dates: Vec<i64> = steps.iter().map(|step| step.0).collect();
            let waits: Vec<f64> = steps.iter().map(|step| step.1).collect();
            let lengths: Vec<i64> = steps.iter().map(|step| step.2).collect();
            json!({"queue": queue, "dates": dates, "avg_waiting_times": waits, "queue_lengths": lengths})
        })
        .collect();
    Ok(json!({"queues": shown}))
}

/// All queues as one: lengths added up, waiting times weighted by them; a queue of which a step says nothing is as it
/// was before.
fn together(queues: Vec<(String, Vec<Step>)>) -> Vec<Step> {
    let mut at: BTreeMap<i64, Vec<(usize, f64, i64)>> = BTreeMap::new();
    for (number, (_, steps)) in queues.into_iter().enumerate() {
        for (date, wait, length) in steps {
            at.entry(date).or_default().push((number, wait, length));
        }
    }
    let mut latest: BTreeMap<usize, (f64, i64)> = BTreeMap::new();
    at.into_iter()
        .map(|(date, changes)| {
            latest.extend(
                changes
                    .into_iter()
                    .map(|(queue, wait, length)| (queue, (wait, length))),
            );
            let length: i64 = latest.values().map(|(_, length)| length).sum();
            let weighted: f64 = latest
                .values()
                .map(|(wait, length)| wait * *length as f64)
                .sum();
            let wait = if length > 0 {
                weighted / length as f64
            } else {
                0.0
            };
            (date, wait, length)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_queues_together_remember_those_that_a_step_does_not_name() {
        let queues = vec![
            ("a".to_owned(), vec![(1000, 2.0, 3), (3000, 4.0, 0)]),
            ("b".to_owned(), vec![(2000, 6.0, 1)]),
        ];
        assert_eq!(
            together(queues),
            [(1000, 2.0, 3), (2000, 3.0, 4), (3000, 6.0, 1)]
        );
    }
}
