//! The `events` service (`protocol.md` §2.6): what runs report, and how it is read back.
//!
//! ```text
//! add, add_batch ──▶ log rows (appended)                    log.rs      pages of the log
//!                └─▶ report rows (by identity, overwritten)  charts.rs  curves, plots, debug samples
//!                         └─▶ one series row per curve       series.rs  last_metrics and the latest values
//! ```

pub(crate) mod charts;
pub(crate) mod log;
pub(crate) mod series;

use std::collections::HashMap;

use md5::{Digest as _, Md5};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::call::{Call, integer, iso};
use super::query::int_at;
use super::wire::{Answer, Doc, Refusal};
use super::{doc, models, tasks};
use crate::task::Status;

/// Metrics of the machine never advance the task's last iteration (§2.6).
const MACHINE: [&str; 2] = [":monitor:machine", ":monitor:gpu"];

/// Kinds of events; a log line is only ever appended.
const LOG: &str = "log";
pub(super) const SCALAR: &str = "training_stats_scalar";
pub(super) const PLOT: &str = "plot";
pub(super) const IMAGE: &str = "training_debug_image";
const VECTOR: &str = "training_stats_vector";

/// Lower-case hex of the MD5 of a name, as the keys of `last_metrics` and `metric_stats` are (§3.1).
pub(super) fn md5(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(32);
    for byte in Md5::digest(text.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Everything reported for a task (or a model).
pub(super) fn delete_of(db: &Connection, task: &str) -> Result<(), Refusal> {
    for table in ["log", "reports", "series"] {
        db.prepare_cached(&format!("DELETE FROM {table} WHERE task = ?1"))?
            .execute([task])?;
    }
    Ok(())
}

/// Addresses of the debug samples of a task.
pub(super) fn urls_of(db: &Connection, task: &str) -> Result<Vec<String>, Refusal> {
    let sql = "SELECT json_extract(doc, '$.url') FROM reports WHERE task = ?1 AND type = ?2";
    let mut statement = db.prepare_cached(sql)?;
    let urls = statement.query_map([task, IMAGE], |row| row.get::<_, Option<String>>(0))?;
    Ok(urls
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

// ---- endpoints ----

/// `events.add_batch`: NDJSON, or one object as a batch of one (§1.9).
pub(crate) fn add_batch(call: &Call) -> Answer {
    match &call.request.lines {
        Some(lines) => store(call, lines),
        None => store(call, std::slice::from_ref(&call.request.body)),
    }
}

/// `events.add`
pub(crate) fn add(call: &Call) -> Answer {
    add_batch(call)
}

/// What the lines of one batch did to one task.
struct Touched {
    /// The task's document; `None` for a model.
    task: Option<Doc>,
    locked: bool,
    last_iteration: i64,
}

fn store(call: &Call, lines: &[Doc]) -> Answer {
    let mut touched: HashMap<&str, Option<Touched>> = HashMap::new();
    let mut errors: Vec<(String, u64)> = Vec::new();
    let mut added = 0_u64;
    for event in lines {
        match store_one(call, event, &mut touched)? {
            Ok(()) => added += 1,
            Err(text) => match errors.iter_mut().find(|(known, _)| *known == text) {
                Some((_, count)) => *count += 1,
                None => errors.push((text, 1)),
            },
        }
    }
    if added == 0 {
        let texts: Vec<String> = errors
            .iter()
            .map(|(text, count)| format!("{text}={count}"))
            .collect();
        return Err(Refusal::bad(
            131,
            format!("Events not added: {}", texts.join(", ")),
        ));
    }
    for seen in touched.into_values().flatten() {
        if let Some(mut task) = seen.task {
            tasks::refresh(call, &mut task);
            let last = int_at(&task, "last_iteration").max(seen.last_iteration);
            task.insert("last_iteration".into(), last.into());
            tasks::save(call.db, &task)?;
        }
    }
    let failed: u64 = errors.iter().map(|(_, count)| count).sum();
    let info: Doc = errors
        .into_iter()
        .map(|(text, count)| (text, count.into()))
        .collect();
    Ok(json!({"added": added, "errors": failed, "errors_info": info}))
}

/// Stores one event; the inner error is a line's own fault.
fn store_one<'e>(
    call: &Call,
    event: &'e Doc,
    touched: &mut HashMap<&'e str, Option<Touched>>,
) -> Result<Result<(), String>, Refusal> {
    let own = |key| {
        event
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let Some(kind) = own("type") else {
        return Ok(Err("Event must have a 'type' field".into()));
    };
    let Some(id) = own("task") else {
        return Ok(Err("Event must have a 'task' field".into()));
    };
    if ![LOG, SCALAR, VECTOR, IMAGE, PLOT].contains(&kind) {
        return Ok(Err(format!("Invalid event type {kind}")));
    }
    let of_model = event
        .get("model_event")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    if !touched.contains_key(id) {
        touched.insert(id, find(call, id, of_model)?);
    }
    let unlocked = event
        .get("allow_locked")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let Some(Some(seen)) = touched
        .get_mut(id)
        .filter(|seen| seen.as_ref().is_some_and(|s| unlocked || !s.locked))
    else {
        return Ok(Err(format!("Invalid task id {id}")));
    };
    let at = event
        .get("timestamp")
        .and_then(integer)
        .unwrap_or_else(|| call.at.as_millisecond());
    let event = read_back(call, event, at);
    if kind == LOG {
        append_log(call.db, id, at, &event)?;
    } else {
        report(call.db, id, kind, at, &event)?;
        if !MACHINE.contains(&doc::text(&event, "metric")) {
            seen.last_iteration = seen.last_iteration.max(int_at(&event, "iter"));
        }
    }
    if kind != SCALAR
        && let Some(task) = &mut seen.task
    {
        note_stats(task, doc::text(&event, "metric"), kind, at);
    }
    Ok(Ok(()))
}

fn find(call: &Call, id: &str, of_model: bool) -> Result<Option<Touched>, Refusal> {
    if of_model {
        let known = models::find(call.db, id)?.is_some();
        return Ok(known.then_some(Touched {
            task: None,
            locked: false,
            last_iteration: 0,
        }));
    }
    Ok(tasks::find(call.db, id)?.map(|task| {
        let status = super::rules::status(&task);
        let locked = matches!(status, Status::Publishing | Status::Published);
        Touched {
            task: Some(task),
            locked,
            last_iteration: 0,
        }
    }))
}

/// An event as it will be read back (§2.6).
fn read_back(call: &Call, event: &Doc, at: i64) -> Doc {
    let mut event = event.clone();
    event.retain(|key, value| {
        !value.is_null() && !["method", "allow_locked"].contains(&key.as_str())
    });
    event.insert("timestamp".into(), at.into());
    event.entry("model_event").or_insert(false.into());
    event.insert("@timestamp".into(), call.now.clone().into());
    let worker = || {
        call.request
            .worker
            .clone()
            .unwrap_or_else(|| "<unknown>".into())
            .into()
    };
    event.entry("worker").or_insert_with(worker);
    event.entry("metric").or_insert_with(|| "".into());
    event.entry("variant").or_insert_with(|| "".into());
    event
}

fn append_log(db: &Connection, task: &str, at: i64, event: &Doc) -> Result<(), Refusal> {
    db.prepare_cached("INSERT INTO log (task, at, doc) VALUES (?1, ?2, ?3)")?
        .execute(params![task, at, serde_json::to_string(event)?])?;
    Ok(())
}

/// Writes a report; the same identity overwrites (§2.6).
fn report(db: &Connection, task: &str, kind: &str, at: i64, event: &Doc) -> Result<(), Refusal> {
    let (metric, variant) = (doc::text(event, "metric"), doc::text(event, "variant"));
    let (iter, key) = (int_at(event, "iter"), doc::text(event, "key"));
    let value = event.get("value").and_then(Value::as_f64);
    let mut kept = event.clone();
    if kind == VECTOR
        && let Some(values) = kept.shift_remove("values")
    {
        kept.insert("value".into(), values);
    }
    if kind == SCALAR {
        // Everything but the worker stands in columns.
        kept.retain(|key, _| key == "worker" || key == "@timestamp");
        let before = "SELECT value FROM reports
                      WHERE task = ?1 AND type = ?2 AND metric = ?3 AND variant = ?4 AND iter = ?5 AND key = ''";
        let before: Option<Option<f64>> = db
            .prepare_cached(before)?
            .query_row(params![task, kind, metric, variant, iter], |row| row.get(0))
            .optional()?;
        if let Some(value) = value {
            series::add(db, task, event, value, iter, before.flatten())?;
        }
    }
    db.prepare_cached(
        "INSERT INTO reports (task, type, metric, variant, iter, key, at, value, doc)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (task, type, metric, variant, iter, key)
         DO UPDATE SET at = excluded.at, value = excluded.value, doc = excluded.doc",
    )?
    .execute(params![
        task,
        kind,
        metric,
        variant,
        iter,
        key,
        at,
        value,
        serde_json::to_string(&kept)?
    ])?;
    Ok(())
}

/// `metric_stats` of the task (§3.1).
fn note_stats(task: &mut Doc, metric: &str, kind: &str, at: i64) {
    let stats = doc::object_at(doc::object_at(task, "metric_stats"), &md5(metric));
    stats.insert("metric".into(), metric.into());
    doc::object_at(doc::object_at(stats, "event_stats_by_type"), kind)
        .insert("last_update".into(), at.into());
}

/// A number as the real server gives it back: rounded to 32 bits (§2.6).
pub(super) fn rounded(value: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "the rounding is the point")]
    let value = value as f32;
    f64::from(value)
}

/// A time in milliseconds as documents carry it.
pub(super) fn iso_of_millis(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at)
        .map(iso)
        .unwrap_or_default()
}

/// A report row as an event.
pub(super) fn event_of(row: &rusqlite::Row<'_>) -> Result<Doc, Refusal> {
    let (task, kind): (String, String) = (row.get("task")?, row.get("type")?);
    let mut event: Doc = serde_json::from_str(&row.get::<_, String>("doc")?)?;
    if kind == SCALAR {
        event.insert("task".into(), task.into());
        event.insert("type".into(), kind.into());
        event.insert("metric".into(), row.get::<_, String>("metric")?.into());
        event.insert("variant".into(), row.get::<_, String>("variant")?.into());
        event.insert("iter".into(), row.get::<_, i64>("iter")?.into());
        event.insert("timestamp".into(), row.get::<_, i64>("at")?.into());
        event.insert(
            "value".into(),
            json!(row.get::<_, Option<f64>>("value")?.map(rounded)),
        );
        event.insert("model_event".into(), false.into());
    }
    Ok(event)
}

/// A number that continues a list: the position from which on.
pub(super) fn scroll(call: &Call) -> Result<i64, Refusal> {
    match call.text_or_none("scroll_id")? {
        None | Some("") => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| Refusal::bad(12, "Invalid scroll_id")),
    }
}

/// The task, or 400/101: events are asked for by task, or by model.
pub(super) fn check_task(call: &Call, id: &str) -> Result<(), Refusal> {
    if call.flag("model_events")? {
        models::known(call.db, id)?;
    } else {
        tasks::known(call.db, id)?;
    }
    Ok(())
}
