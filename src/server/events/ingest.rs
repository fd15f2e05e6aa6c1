//! Taking events in (§2.6): what each line is, whose it is, and what it changes on the task.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::params;
use serde_json::{Value, json};

use super::super::line::{Line, LogLine};
use super::log::Appended;
use super::points::Curves;
use super::{
    Answer, Call, Doc, IMAGE, LOG, MACHINE, PLOT, Refusal, SCALAR, VECTOR, doc, int_at, integer,
    is_locked, md5, models, tasks,
};

/// `events.add_batch`: NDJSON, or one object as a batch of one (§1.9).
pub(crate) fn add_batch(call: &Call) -> Answer {
    match &call.request.lines {
        Some(lines) => store(call, lines.iter().map(Event::from)),
        None => store(call, std::iter::once(Event::Other(&call.request.body))),
    }
}

/// `events.add`
pub(crate) fn add(call: &Call) -> Answer {
    add_batch(call)
}

/// A line of a batch, or the one event of a request.
enum Event<'e> {
    Log(&'e LogLine),
    Other(&'e Doc),
}

impl<'e> From<&'e Line> for Event<'e> {
    fn from(line: &'e Line) -> Self {
        match line {
            Line::Log(line) => Event::Log(line),
            Line::Other(doc) => Event::Other(doc),
        }
    }
}

/// What the lines of one request did to one task.
struct Touched {
    /// The task's document; `None` for a model.
    task: Option<Doc>,
    locked: bool,
    last_iteration: i64,
    log: Appended,
    /// The newest report of each metric and kind, in ms.
    latest: HashMap<(String, &'static str), i64>,
    /// The same of the log lines in their usual form.
    latest_log: Option<(String, i64)>,
    lines: usize,
    /// What the last log line shared with others, and its JSON.
    shared: Option<(LogLine, String)>,
}

/// Everything that one request changes, until it is written.
struct Batch<'e> {
    /// By id, and whether that is a model's: a task may have the same one.
    touched: HashMap<(&'e str, bool), Option<Touched>>,
    curves: Curves,
    /// How many lines were not taken, by the text that says why: each line may have one of its own.
    errors: Doc,
}

fn store<'e>(call: &Call, events: impl Iterator<Item = Event<'e>>) -> Answer {
    let mut batch = Batch {
        touched: HashMap::new(),
        curves: Curves::default(),
        errors: Doc::new(),
    };
    let mut added = 0_u64;
    for event in events {
        let outcome = match event {
            Event::Log(line) => append(call, line, &mut batch)?,
            Event::Other(event) => take(call, event, &mut batch)?,
        };
        match outcome {
            Ok(()) => added += 1,
            Err(text) => {
                let count = batch.errors.entry(text).or_insert(0.into());
                *count = (count.as_u64().unwrap_or(0) + 1).into();
            }
        }
    }
    if added == 0 {
        let texts: Vec<String> = batch
            .errors
            .iter()
            .map(|(text, count)| format!("{text}={count}"))
            .collect();
        return Err(Refusal::bad(
            131,
            format!("Events not added: {}", texts.join(", ")),
        ));
    }
    batch.curves.store(call)?;
    for ((id, _), seen) in batch.touched {
        if let Some(seen) = seen {
            finish(call, id, seen)?;
        }
    }
    let failed: u64 = batch.errors.values().filter_map(Value::as_u64).sum();
    Ok(json!({"added": added, "errors": failed, "errors_info": batch.errors}))
}

/// Writes the log lines of a task, and what the events changed on it.
fn finish(call: &Call, id: &str, mut seen: Touched) -> Result<(), Refusal> {
    if seen.lines > 0 {
        std::mem::take(&mut seen.log).store(call.db, id)?;
    }
    let Some(mut task) = seen.task else {
        return Ok(());
    };
    let of_log = seen.latest_log.map(|(metric, at)| ((metric, LOG), at));
    for ((metric, kind), at) in seen.latest.into_iter().chain(of_log) {
        note_stats(&mut task, &metric, kind, at);
    }
    tasks::refresh(call, &mut task);
    let last = int_at(&task, "last_iteration").max(seen.last_iteration);
    task.insert("last_iteration".into(), last.into());
    tasks::save(call.db, &task)
}

/// The task that an event is about, or the text that says why it is not taken.
fn about<'b, 'e>(
    call: &Call,
    batch: &'b mut Batch<'e>,
    id: &'e str,
    of_model: bool,
    unlocked: bool,
) -> Result<Result<&'b mut Touched, String>, Refusal> {
    let found = match batch.touched.entry((id, of_model)) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(find(call, id, of_model)?),
    };
    Ok(match found {
        Some(seen) if unlocked || !seen.locked => Ok(seen),
        _ => Err(format!("Invalid task id {id}")),
    })
}

/// A log line in its usual form.
fn append<'e>(
    call: &Call,
    line: &'e LogLine,
    batch: &mut Batch<'e>,
) -> Result<Result<(), String>, Refusal> {
    if line.task.is_empty() {
        return Ok(Err("Event must have a 'task' field".into()));
    }
    let seen = match about(call, batch, &line.task, line.of_model, line.unlocked)? {
        Ok(seen) => seen,
        Err(text) => return Ok(Err(text)),
    };
    let at = line.at.unwrap_or_else(|| call.at.as_millisecond());
    match &seen.shared {
        Some((like, shared)) if like.shares_with(line) => seen.log.add(shared, at, line.text()),
        _ => {
            let shared = Value::Object(complete(call, line.shared())).to_string();
            seen.log.add(&shared, at, line.text());
            seen.shared = Some((line.without_text(), shared));
        }
    }
    seen.lines += 1;
    match &mut seen.latest_log {
        Some((metric, latest)) if metric == line.metric() => *latest = at,
        other => {
            let before = other.replace((line.metric().to_owned(), at));
            seen.latest
                .extend(before.map(|(metric, at)| ((metric, LOG), at)));
        }
    }
    Ok(Ok(()))
}

/// Any other event; the inner error is a line's own fault.
fn take<'e>(
    call: &Call,
    event: &'e Doc,
    batch: &mut Batch<'e>,
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
    let Some(kind) = [LOG, SCALAR, VECTOR, IMAGE, PLOT]
        .into_iter()
        .find(|known| *known == kind)
    else {
        return Ok(Err(format!("Invalid event type {kind}")));
    };
    let flag = |key| event.get(key).and_then(Value::as_bool).unwrap_or(false);
    let seen = match about(call, batch, id, flag("model_event"), flag("allow_locked"))? {
        Ok(seen) => seen,
        Err(text) => return Ok(Err(text)),
    };
    let at = event
        .get("timestamp")
        .and_then(integer)
        .unwrap_or_else(|| call.at.as_millisecond());
    let metric = doc::text(event, "metric");
    if kind != LOG && !MACHINE.contains(&metric) {
        seen.last_iteration = seen.last_iteration.max(int_at(event, "iter"));
    }
    match kind {
        SCALAR => batch.curves.add(call, id, event, at)?,
        LOG => {
            let mut shared = event.clone();
            shared.shift_remove("timestamp");
            let text = match event.get("msg") {
                Some(Value::String(text)) => Some(text.as_str()),
                _ => None,
            };
            if text.is_some() {
                shared.shift_remove("msg");
            }
            let shared = Value::Object(complete(call, shared)).to_string();
            seen.log.add(&shared, at, text);
            seen.lines += 1;
            seen.latest.insert((metric.to_owned(), kind), at);
        }
        kind => {
            seen.latest.insert((metric.to_owned(), kind), at);
            report(call, id, kind, at, event)?;
        }
    }
    Ok(Ok(()))
}

fn find(call: &Call, id: &str, of_model: bool) -> Result<Option<Touched>, Refusal> {
    let touched = |task: Option<Doc>, locked| Touched {
        task,
        locked,
        last_iteration: 0,
        log: Appended::default(),
        latest: HashMap::new(),
        latest_log: None,
        lines: 0,
        shared: None,
    };
    if of_model {
        let known = models::find(call.db, id)?;
        return Ok(known.map(|_| touched(None, false)));
    }
    Ok(tasks::find(call.db, id)?.map(|task| {
        let locked = is_locked(&task);
        touched(Some(task), locked)
    }))
}

/// Adds what an event has when it is read back (§2.6), but for its moment.
fn complete(call: &Call, mut event: Doc) -> Doc {
    event.retain(|key, value| {
        !value.is_null() && !["method", "allow_locked"].contains(&key.as_str())
    });
    event.entry("model_event").or_insert(false.into());
    event.insert("@timestamp".into(), call.now.clone().into());
    event.entry("worker").or_insert_with(|| worker(call).into());
    event.entry("metric").or_insert_with(|| "".into());
    event.entry("variant").or_insert_with(|| "".into());
    event
}

/// The worker of events that name none.
pub(super) fn worker<'a>(call: &Call<'a>) -> &'a str {
    call.request.worker.as_deref().unwrap_or("<unknown>")
}

/// Writes a plot, an image or a vector; the same identity overwrites (§2.6).
fn report(call: &Call, task: &str, kind: &str, at: i64, event: &Doc) -> Result<(), Refusal> {
    let mut kept = complete(call, event.clone());
    kept.insert("timestamp".into(), at.into());
    if kind == VECTOR
        && let Some(values) = kept.shift_remove("values")
    {
        kept.insert("value".into(), values);
    }
    call.db
        .prepare_cached(
            "INSERT INTO reports (task, type, metric, variant, iter, key, at, doc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (task, type, metric, variant, iter, key)
             DO UPDATE SET at = excluded.at, doc = excluded.doc",
        )?
        .execute(params![
            task,
            kind,
            doc::text(event, "metric"),
            doc::text(event, "variant"),
            int_at(event, "iter"),
            doc::text(event, "key"),
            at,
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
