//! The `events` service (`protocol.md` §2.6): what runs report, and how it is read back.
//!
//! ```text
//! add, add_batch ─▶ wire.rs (lines) ─▶ ingest.rs ─┬─▶ log lines, in blocks            block.rs, log.rs, pages.rs (read)
//!                                                 ├─▶ points of curves, one row each  points.rs, curves.rs (read)
//!                                                 │      └─▶ one row per curve        series.rs: last_metrics
//!                                                 └─▶ plots, images, vectors          charts.rs, samples.rs, room.rs (read)
//!
//! watchdog.rs ─▶ what is old: lines in log.rs, the rest in forget.rs
//! ```
//!
//! Log lines are only ever appended; everything else has an identity, and a repeat overwrites.

mod block;
pub(crate) mod charts;
pub(crate) mod curves;
pub(crate) mod forget;
pub(crate) mod ingest;
pub(crate) mod log;
mod pages;
mod points;
mod room;
pub(crate) mod samples;
pub(crate) mod series;

use md5::{Digest as _, Md5};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::auth::COMPANY;
use super::call::{Call, integer, iso};
use super::query::int_at;
use super::wire::{Answer, Doc, Refusal};
use super::{doc, models, tasks};
use crate::task::Status;

/// Metrics of the machine never advance the task's last iteration (§2.6).
const MACHINE: [&str; 2] = [":monitor:machine", ":monitor:gpu"];

/// Kinds of events.
pub(super) const LOG: &str = "log";
pub(super) const SCALAR: &str = "training_stats_scalar";
pub(super) const PLOT: &str = "plot";
pub(super) const IMAGE: &str = "training_debug_image";
const VECTOR: &str = "training_stats_vector";

/// Iteration of a value that was reported once for the whole run (§2.6).
const SINGLE: i64 = -2_147_483_648;

/// Events of one answer, at most.
const LARGEST: i64 = 10_000;
/// Tasks whose curves or plots are compared in one answer, at most.
const MOST_TASKS: usize = 1000;

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
    log::delete_of(db, task)?;
    points::delete_of(db, task)?;
    db.prepare_cached("DELETE FROM reports WHERE task = ?1")?
        .execute([task])?;
    Ok(())
}

/// The address in the document of a debug sample. A client may have put anything there.
const URL: &str = "CAST(json_extract(doc, '$.url') AS TEXT)";

/// Addresses of the debug samples of a task.
pub(super) fn urls_of(db: &Connection, task: &str) -> Result<Vec<String>, Refusal> {
    let sql = format!("SELECT {URL} FROM reports WHERE task = ?1 AND type = ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let urls = statement.query_map([task, IMAGE], |row| row.get::<_, Option<String>>(0))?;
    Ok(urls
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// A number of a curve as the real server gives it back, rounded to 32 bits (§2.6): its index computes with such. An
/// event is given back as it came.
fn rounded(value: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "the rounding is the point")]
    let value = value as f32;
    f64::from(value)
}

/// A time in milliseconds as documents carry it.
fn iso_of_millis(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at)
        .map(iso)
        .unwrap_or_default()
}

/// The text in a column of a row.
fn text_of<'r>(row: &'r rusqlite::Row<'_>, column: &str) -> Result<&'r str, Refusal> {
    Ok(row
        .get_ref(column)?
        .as_str()
        .map_err(rusqlite::Error::from)?)
}

/// A report row (plot, image, vector) as an event.
fn event_of(row: &rusqlite::Row<'_>) -> Result<Doc, Refusal> {
    Ok(serde_json::from_str(text_of(row, "doc")?)?)
}

/// A number that continues a list: the position from which on.
pub(super) fn scroll(call: &Call) -> Result<i64, Refusal> {
    match call.text_or_none("scroll_id")? {
        None | Some("") => Ok(0),
        Some(text) => text
            .parse()
            .ok()
            .filter(|position| *position >= 0)
            .ok_or_else(|| Refusal::bad(12, "Invalid scroll_id")),
    }
}

/// The task, or 400/101: events are asked for by task, or by model.
fn check_task(call: &Call, id: &str) -> Result<(), Refusal> {
    if call.flag("model_events")? {
        models::known(call.db, id)?;
    } else {
        tasks::known(call.db, id)?;
    }
    Ok(())
}

/// The tasks (or models) that the request names, all of them known; a text may name several, with commas.
fn check_tasks<'a>(call: &Call<'a>) -> Result<Vec<&'a str>, Refusal> {
    let ids = named_tasks(call)?;
    let of_models = call.flag("model_events")?;
    let mut missing = Vec::new();
    for id in &ids {
        let known = if of_models {
            models::find(call.db, id)?.is_some()
        } else {
            tasks::find(call.db, id)?.is_some()
        };
        if !known {
            missing.push(*id);
        }
    }
    if missing.is_empty() {
        return Ok(ids);
    }
    let (subcode, what) = if of_models {
        (201, "Invalid model id")
    } else {
        (101, "Invalid task id")
    };
    let text = format!("{what}: company={COMPANY}, ids=({})", missing.join(", "));
    Err(Refusal::bad(subcode, text))
}

/// The same where each of them may have much to show: too many are refused.
fn check_few_tasks<'a>(call: &Call<'a>) -> Result<Vec<&'a str>, Refusal> {
    if named_tasks(call)?.len() > MOST_TASKS {
        let text = "error for field 'tasks'. there are more than";
        return Err(Refusal::invalid(format_args!("{text} {MOST_TASKS}")));
    }
    check_tasks(call)
}

fn named_tasks<'a>(call: &Call<'a>) -> Result<Vec<&'a str>, Refusal> {
    let ids = call.texts_required("tasks")?;
    Ok(match ids.as_slice() {
        [several] => several.split(',').map(str::trim).collect(),
        _ => ids,
    })
}

/// The name of a task, or of a model when the request is about models.
fn name_of(call: &Call, id: &str) -> Result<Value, Refusal> {
    let found = if call.flag("model_events")? {
        models::find(call.db, id)?
    } else {
        tasks::find(call.db, id)?
    };
    Ok(found.map_or(Value::Null, |mut found| found["name"].take()))
}

/// The task, which must not be published unless the request says so.
fn check_unlocked(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let task = tasks::known(call.db, id)?;
    if is_locked(&task) && !call.flag("allow_locked")? {
        return Err(published(101, "task", id));
    }
    Ok(task)
}

/// 400: what was reported for something that is published stays.
fn published(subcode: u16, kind: &str, id: &str) -> Refusal {
    let text = format!("Cannot update events for a published {kind}: company={COMPANY}, id={id}");
    Refusal::bad(subcode, text)
}

fn is_locked(task: &Doc) -> bool {
    matches!(
        super::rules::status(task),
        Status::Publishing | Status::Published
    )
}

/// `events.delete_for_task`
pub(crate) fn delete_for_task(call: &Call) -> Answer {
    let task = check_unlocked(call, call.text("task")?)?;
    delete_of(call.db, doc::text(&task, "id"))?;
    Ok(json!({"deleted": true}))
}

/// `events.delete_for_model`
pub(crate) fn delete_for_model(call: &Call) -> Answer {
    let model = models::known(call.db, call.text("model")?)?;
    let ready = model.get("ready").and_then(Value::as_bool) == Some(true);
    if ready && !call.flag("allow_locked")? {
        return Err(published(201, "model", doc::text(&model, "id")));
    }
    delete_of(call.db, doc::text(&model, "id"))?;
    Ok(json!({"deleted": true}))
}

/// `events.clear_scroll`: a scroll is a position here, nothing is kept for it.
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
pub(crate) fn clear_scroll(_: &Call) -> Answer {
    Ok(json!({}))
}
