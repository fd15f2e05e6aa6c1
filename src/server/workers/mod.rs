//! The `workers` service: who can run tasks, what they run, and how busy they are (`protocol.md` §2.5, §5).

pub(crate) mod stats;

use std::collections::HashMap;

use regex::Regex;
use rusqlite::{OptionalExtension as _, params};
use serde_json::{Value, json};

use super::auth::{COMPANY, COMPANY_NAME};
use super::call::{Call, iso, required};
use super::query;
use super::wire::{Answer, Doc, Refusal};
use super::{doc, queues, rules, tasks};

/// How long a registration lives unless it says otherwise, in seconds (§5.2).
const TIMEOUT: i64 = 600;
/// How long samples of a worker's machine are kept, in seconds.
const KEPT: i64 = 14 * 24 * 3600;
/// Metrics of one report that are stored, how long their names may be, and of how many parts (cores, GPUs) each.
const METRICS: usize = 100;
const LONGEST_METRIC: usize = 200;
const PARTS: usize = 1024;

// ---- rows ----

/// A worker is stored under its user and its id: one id used by two users is two workers (§5.1).
fn row_id(call: &Call, worker: &str) -> String {
    format!("worker_{COMPANY}_{}_{worker}", call.user())
}

fn find(call: &Call, worker: &str) -> Result<Option<Doc>, Refusal> {
    query::one(
        call.db,
        "SELECT doc FROM workers WHERE id = ?1",
        &row_id(call, worker),
    )
}

fn save(call: &Call, worker: &Doc, timeout: i64) -> Result<(), Refusal> {
    call.db
        .prepare_cached(
            "INSERT OR REPLACE INTO workers (id, doc, seen, timeout) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            doc::text(worker, "key"),
            serde_json::to_string(worker)?,
            call.at.as_second(),
            timeout
        ])?;
    Ok(())
}

fn new_worker(call: &Call, id: &str) -> Doc {
    let mut worker = Doc::new();
    for (key, value) in [
        ("id", json!(id)),
        ("key", json!(row_id(call, id))),
        ("user", json!(call.user())),
        ("ip", json!(call.request.ip)),
        ("queues", json!([])),
        ("register_time", json!(call.now)),
        ("register_timeout", json!(TIMEOUT)),
        ("last_activity_time", json!(call.now)),
        ("last_report_time", json!(call.now)),
        ("tags", json!([])),
        ("system_tags", json!([])),
    ] {
        worker.insert(key.into(), value);
    }
    worker
}

/// Workers whose registration has not run out.
fn alive(call: &Call) -> Result<Vec<Doc>, Refusal> {
    let sql = "SELECT doc FROM workers WHERE seen + timeout >= ?1 ORDER BY id";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([call.at.as_second()])?;
    let mut workers = Vec::new();
    while let Some(row) = rows.next()? {
        workers.push(serde_json::from_str(&row.get::<_, String>(0)?)?);
    }
    Ok(workers)
}

/// Whether a live worker serves the queue.
pub(super) fn is_watched(call: &Call, queue: &str) -> Result<bool, Refusal> {
    Ok(alive(call)?
        .iter()
        .any(|worker| doc::strings(worker, "queues").contains(&queue)))
}

/// Workers by the queues they serve, as `queues.get_all_ex` shows them.
pub(super) fn by_queue(call: &Call) -> Result<HashMap<String, Vec<Value>>, Refusal> {
    let mut by_queue: HashMap<String, Vec<Value>> = HashMap::new();
    for worker in alive(call)? {
        let mut shown = json!({"name": worker["id"], "ip": worker["ip"], "key": worker["key"]});
        if let Some(task) = worker.get("task") {
            shown["task"] = task.clone();
        }
        for queue in doc::strings(&worker, "queues") {
            by_queue
                .entry(queue.to_owned())
                .or_default()
                .push(shown.clone());
        }
    }
    Ok(by_queue)
}

// ---- endpoints ----

/// `workers.register`: a repeat replaces everything.
pub(crate) fn register(call: &Call) -> Answer {
    let id = call.text("worker")?;
    let served = call.texts("queues")?;
    queues::check_all(call.db, &served)?;
    let timeout = call
        .int("timeout")?
        .unwrap_or(TIMEOUT)
        .clamp(1, 7 * 24 * 3600);
    let mut worker = new_worker(call, id);
    worker.insert("queues".into(), json!(served));
    worker.insert("register_timeout".into(), timeout.into());
    for key in ["tags", "system_tags"] {
        worker.insert(key.into(), query::tags(&call.texts(key)?));
    }
    save(call, &worker, timeout)?;
    Ok(json!({}))
}

/// `workers.unregister`
pub(crate) fn unregister(call: &Call) -> Answer {
    call.db.execute(
        "DELETE FROM workers WHERE id = ?1",
        [row_id(call, call.text("worker")?)],
    )?;
    Ok(json!({}))
}

/// `workers.status_report` (§5.2)
pub(crate) fn status_report(call: &Call) -> Answer {
    let id = call.text("worker")?;
    let at = call
        .int("timestamp")?
        .ok_or_else(|| required("timestamp"))?;
    let task = call.text_or_none("task")?.filter(|task| !task.is_empty());
    let mut worker = find(call, id)?.unwrap_or_else(|| new_worker(call, id));
    let served = call.texts("queues")?;
    if !served.is_empty() {
        worker.insert("queues".into(), json!(served));
    }
    query::copy_tags(call, &mut worker)?;
    worker.insert("ip".into(), call.request.ip.clone().into());
    worker.insert("last_report_time".into(), call.now.clone().into());
    worker.shift_remove("task");
    worker.shift_remove("queue");
    if let Some(queue) = call
        .text_or_none("queue")?
        .filter(|queue| !queue.is_empty())
    {
        worker.insert("queue".into(), queue.into());
    }
    if let Some(task) = task {
        worker.insert("task".into(), task.into());
        worker.insert("last_activity_time".into(), call.now.clone().into());
        note_on_task(call, task, id)?;
    }
    let timeout = query::int_at(&worker, "register_timeout").max(1);
    save(call, &worker, timeout)?;
    // A clock that is ahead would keep its samples from ever being thrown away.
    let at = (at / 1000).min(call.at.as_second());
    store_samples(call, id, at, task.is_some())?;
    Ok(json!({}))
}

/// The task knows its worker, in any status (§5.2).
fn note_on_task(call: &Call, task: &str, worker: &str) -> Result<(), Refusal> {
    let mut task = tasks::known(call.db, task)?;
    task.insert("last_worker".into(), worker.into());
    task.insert("last_worker_report".into(), call.now.clone().into());
    tasks::touch(call, &mut task);
    if let Some(seconds) = rules::active_duration(&task, call.at) {
        task.insert("active_duration".into(), seconds.into());
    }
    tasks::save(call.db, &task)
}

/// Samples of the machine, one row per number but nought, which the real server does not store either (§5.4); the
/// metric `task` says whether one was run.
fn store_samples(call: &Call, worker: &str, at: i64, busy: bool) -> Result<(), Refusal> {
    let sql =
        "INSERT INTO worker_samples (worker, at, metric, part, value) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = call.db.prepare_cached(sql)?;
    statement.execute(params![worker, at, "task", "", f64::from(u8::from(busy))])?;
    let metrics = call.object("machine_stats")?.into_iter().flatten();
    let metrics = metrics.filter(|(metric, _)| metric.len() <= LONGEST_METRIC);
    for (metric, value) in metrics.take(METRICS) {
        match value {
            Value::Array(parts) => {
                for (part, value) in parts.iter().enumerate().take(PARTS) {
                    if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
                        statement.execute(params![worker, at, metric, part.to_string(), value])?;
                    }
                }
            }
            value => {
                if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
                    statement.execute(params![worker, at, metric, "", value])?;
                }
            }
        }
    }
    Ok(())
}

/// Throws old samples and registrations away; the watchdog calls it.
pub(super) fn clean(call: &Call) -> Result<(), Refusal> {
    let now = call.at.as_second();
    call.db
        .execute("DELETE FROM worker_samples WHERE at < ?1", [now - KEPT])?;
    call.db
        .execute("DELETE FROM queue_samples WHERE at < ?1", [now - KEPT])?;
    call.db.execute(
        "DELETE FROM workers WHERE seen + timeout < ?1",
        [now - 24 * 3600],
    )?;
    Ok(())
}

/// `workers.get_all`
pub(crate) fn get_all(call: &Call) -> Answer {
    let mut workers = Vec::new();
    for worker in selected(call)? {
        workers.push(shown(call, &worker)?);
    }
    Ok(json!({"workers": workers}))
}

/// `workers.get_count`
pub(crate) fn get_count(call: &Call) -> Answer {
    Ok(json!({"count": selected(call)?.len()}))
}

fn selected(call: &Call) -> Result<Vec<Doc>, Refusal> {
    let last_seen = call.int("last_seen")?.unwrap_or(3600);
    let named = call
        .text_or_none("worker_pattern")?
        .map(pattern)
        .transpose()?;
    let (tags, system_tags) = (call.texts("tags")?, call.texts("system_tags")?);
    let since = iso(call
        .at
        .saturating_sub(jiff::SignedDuration::from_secs(last_seen))
        .unwrap_or(call.at));
    let mut workers = alive(call)?;
    workers.retain(|worker| {
        let has = |key: &str, wanted: &[&str]| {
            wanted.is_empty()
                || doc::strings(worker, key)
                    .iter()
                    .any(|tag| wanted.contains(tag))
        };
        (last_seen <= 0 || doc::text(worker, "last_report_time") >= since.as_str())
            && named
                .as_ref()
                .is_none_or(|named| named.is_match(doc::text(worker, "id")))
            && has("tags", &tags)
            && has("system_tags", &system_tags)
    });
    Ok(workers)
}

/// A pattern in which `*` stands for anything.
fn pattern(text: &str) -> Result<Regex, Refusal> {
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    Regex::new(&format!("(?s)^{}$", parts.join(".*")))
        .map_err(|error| Refusal::bad(16, format!("Invalid field value: worker_pattern: {error}")))
}

fn shown(call: &Call, worker: &Doc) -> Answer {
    let user = doc::text(worker, "user");
    let name = call
        .app
        .auth
        .user(user)
        .map_or_else(|| user.to_owned(), |known| known.name);
    let mut shown = doc::project(
        worker,
        &[
            "id",
            "ip",
            "key",
            "register_time",
            "register_timeout",
            "last_activity_time",
            "last_report_time",
            "tags",
            "system_tags",
        ],
    );
    shown.insert("user".into(), json!({"id": user, "name": name}));
    shown.insert(
        "company".into(),
        json!({"id": COMPANY, "name": COMPANY_NAME}),
    );
    let served = doc::strings(worker, "queues")
        .into_iter()
        .map(|id| queue_of(call, id))
        .collect::<Result<Vec<_>, _>>()?;
    shown.insert("queues".into(), served.into_iter().flatten().collect());
    if let Some(queue) = queue_of(call, doc::text(worker, "queue"))? {
        shown.insert("queue".into(), queue);
    }
    if let Some(task) = tasks::find(call.db, doc::text(worker, "task"))? {
        let started: Option<jiff::Timestamp> = doc::text(&task, "started").parse().ok();
        let running = started.map_or(0, |since| {
            (call.at.as_millisecond() - since.as_millisecond()).max(0)
        });
        shown.insert(
            "task".into(),
            json!({
                "id": task["id"],
                "name": task["name"],
                "running_time": running,
                "last_iteration": task["last_iteration"],
            }),
        );
        let project = doc::text(&task, "project");
        if let Some(name) = tasks::read::name_of(call.db, "projects", project)? {
            shown.insert("project".into(), json!({"id": project, "name": name}));
        }
    }
    Ok(shown.into())
}

fn queue_of(call: &Call, id: &str) -> Result<Option<Value>, Refusal> {
    let Some(name) = tasks::read::name_of(call.db, "queues", id)? else {
        return Ok(None);
    };
    let count: i64 = call.db.query_row(
        "SELECT count(*) FROM entries WHERE queue = ?1",
        [id],
        |row| row.get(0),
    )?;
    let mut shown = json!({"id": id, "name": name, "num_tasks": count});
    let sql =
        "SELECT entries.task, tasks.name FROM entries LEFT JOIN tasks ON tasks.id = entries.task
               WHERE queue = ?1 ORDER BY position LIMIT 1";
    let next: Option<(String, Option<String>)> = call
        .db
        .prepare_cached(sql)?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((task, name)) = next {
        shown["next_task"] = json!({"id": task});
        if let Some(name) = name {
            shown["next_task"]["name"] = name.into();
        }
    }
    Ok(Some(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let like = |text: &str, wanted: &str| pattern(wanted).unwrap().is_match(text);
        assert!(like("host:gpu0", "host:*"));
        assert!(like("host:gpu0", "*gpu*"));
        assert!(!like("host:gpu0", "other*"));
        assert!(like("host", "host") && !like("host", "hos"));
    }
}
