//! Pages for browsers: what is queued, who works, what runs; and one task with its log, curves and files.
//!
//! Plain HTML without scripts. The SDK prints the address of a task's page when it starts; that address leads here.

use std::fmt::Write as _;

use rusqlite::params;
use serde_json::Value;

use super::call::Call;
use super::wire::{Answer, Doc, Refusal};
use super::{doc, events, tasks};

/// Tasks, entries and log lines that a page shows at most.
const TASKS: i64 = 100;
const ENTRIES: i64 = 20;
const LINES: i64 = 1000;
/// Curves on a task's page, points of a curve, debug samples.
const CURVES: usize = 48;
const POINTS: i64 = 500;
const SAMPLES: usize = 24;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25em .75em .25em 0;vertical-align:top;\
border-bottom:1px solid #ddd}pre{background:#111;color:#ddd;padding:1em;overflow:auto;max-height:40em}\
svg{background:#fafafa;border:1px solid #ddd}figure{display:inline-block;margin:.5em}figure img{max-width:16em}\
.failed{color:#b00}.completed{color:#070}.in_progress{color:#05a}h1{font-size:1.3em}h2{font-size:1.1em;margin-top:2em}";

/// Which page an address asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Overview,
    Task(String),
}

/// `/`, and `/projects/<project>/tasks/<task>[/...]` as the SDK prints it.
pub(crate) fn page(path: &str) -> Option<Page> {
    if path == "/" {
        return Some(Page::Overview);
    }
    let mut parts = path.strip_prefix("/projects/")?.split('/');
    parts.next()?;
    let kind = parts.next()?;
    let task = parts.next()?;
    (matches!(kind, "tasks" | "experiments") && crate::task::is_object_id(task))
        .then(|| Page::Task(task.to_owned()))
}

/// The page as HTML.
pub(crate) fn html(call: &Call, page: &Page) -> Answer {
    Ok(match page {
        Page::Overview => overview(call)?.into(),
        Page::Task(id) => task(call, id)?.into(),
    })
}

/// Text inside HTML, attributes included.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

fn frame(title: &str, refresh: bool, body: &str) -> String {
    let refresh = if refresh {
        "<meta http-equiv=refresh content=5>"
    } else {
        ""
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>{refresh}<title>{title}</title><style>{STYLE}</style>\
         <body><h1>{title}</h1>{body}",
        title = escape(title)
    )
}

/// A time to the second.
fn moment(text: &str) -> String {
    escape(&text.get(..19).unwrap_or(text).replace('T', " "))
}

fn task_link(id: &str, name: &str) -> String {
    format!(
        "<a href=\"/projects/-/tasks/{}\">{}</a>",
        escape(id),
        escape(if name.is_empty() { id } else { name })
    )
}

// ---- overview ----

fn overview(call: &Call) -> Result<String, Refusal> {
    let body = format!(
        "<h2>Queues</h2>{}<h2>Workers</h2>{}<h2>Tasks</h2>{}",
        queues(call)?,
        workers(call)?,
        recent_tasks(call)?
    );
    Ok(frame("trainyard server", true, &body))
}

fn queues(call: &Call) -> Result<String, Refusal> {
    let mut html = "<table><tr><th>queue<th>waiting<th>first in line".to_owned();
    let sql = "SELECT id, name, (SELECT count(*) FROM entries WHERE queue = id) FROM queues ORDER BY hidden, name";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let next = "SELECT entries.task, coalesce(tasks.name, '') FROM entries LEFT JOIN tasks ON tasks.id = entries.task
                WHERE queue = ?1 ORDER BY position LIMIT ?2";
    let mut next = call.db.prepare_cached(next)?;
    while let Some(row) = rows.next()? {
        let (id, name, count): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let waiting = next
            .query_map(params![id, ENTRIES], |row| {
                Ok(task_link(
                    &row.get::<_, String>(0)?,
                    &row.get::<_, String>(1)?,
                ))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let _ = write!(
            html,
            "<tr><td>{}<td>{count}<td>{}",
            escape(&name),
            waiting.join(", ")
        );
    }
    Ok(html + "</table>")
}

fn workers(call: &Call) -> Result<String, Refusal> {
    let mut html = "<table><tr><th>worker<th>last report<th>task".to_owned();
    let sql = "SELECT doc FROM workers WHERE seen + timeout >= ?1 ORDER BY id LIMIT ?2";
    for worker in documents(call, sql, &[&call.at.as_second(), &TASKS])? {
        let task = doc::text(&worker, "task");
        let running = tasks::find(call.db, task)?.map_or_else(String::new, |found| {
            task_link(task, doc::text(&found, "name"))
        });
        let (id, last) = (
            escape(doc::text(&worker, "id")),
            moment(doc::text(&worker, "last_report_time")),
        );
        let _ = write!(html, "<tr><td>{id}<td>{last}<td>{running}");
    }
    Ok(html + "</table>")
}

fn recent_tasks(call: &Call) -> Result<String, Refusal> {
    let mut html = "<table><tr><th>task<th>status<th>message<th>last update".to_owned();
    let sql = "SELECT doc FROM tasks WHERE hidden = 0 ORDER BY last_update DESC LIMIT ?1";
    for task in documents(call, sql, &[&TASKS])? {
        let text = |key| escape(doc::text(&task, key));
        let link = task_link(doc::text(&task, "id"), doc::text(&task, "name"));
        let (status, message, last) = (
            text("status"),
            text("status_message"),
            moment(doc::text(&task, "last_update")),
        );
        let _ = write!(
            html,
            "<tr><td>{link}<td class={status}>{status}<td>{message}<td>{last}"
        );
    }
    Ok(html + "</table>")
}

fn documents(call: &Call, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Doc>, Refusal> {
    let found = events::log::read(call, sql, values)?;
    Ok(found
        .into_iter()
        .filter_map(|value| {
            if let Value::Object(doc) = value {
                Some(doc)
            } else {
                None
            }
        })
        .collect())
}

// ---- one task ----

fn task(call: &Call, id: &str) -> Result<String, Refusal> {
    let task = tasks::known(call.db, id)?;
    let status = doc::text(&task, "status");
    let mut body = "<p><a href=\"/\">all tasks</a><table>".to_owned();
    for key in [
        "id",
        "status",
        "status_reason",
        "status_message",
        "created",
        "started",
        "completed",
        "last_worker",
    ] {
        let value = doc::text(&task, key);
        if !value.is_empty() {
            let value = if value.ends_with("+00:00") {
                moment(value)
            } else {
                escape(value)
            };
            let _ = write!(
                body,
                "<tr><th>{key}<td class={}>{value}",
                if key == "status" { status } else { "" }
            );
        }
    }
    body += "</table>";
    body += &files(&task);
    body += &curves(call, id)?;
    body += &samples(call, id)?;
    body += &log(call, id)?;
    Ok(frame(
        doc::text(&task, "name"),
        matches!(status, "queued" | "in_progress"),
        &body,
    ))
}

/// A link, if the address is one that a browser may follow.
fn link(address: &str, text: &str) -> String {
    if address.starts_with("http://") || address.starts_with("https://") {
        format!("<a href=\"{}\">{}</a>", escape(address), escape(text))
    } else {
        format!("{} ({})", escape(text), escape(address))
    }
}

fn files(task: &Doc) -> String {
    let artifacts = doc::get(task, "execution.artifacts")
        .and_then(Value::as_array)
        .map(Vec::as_slice);
    let mut html = String::new();
    for artifact in artifacts
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_object)
    {
        let _ = write!(
            html,
            "<li>{}",
            link(doc::text(artifact, "uri"), doc::text(artifact, "key"))
        );
    }
    if html.is_empty() {
        html
    } else {
        format!("<h2>Artifacts</h2><ul>{html}</ul>")
    }
}

/// Each curve as a small picture.
fn curves(call: &Call, id: &str) -> Result<String, Refusal> {
    let all = events::charts::curves(call, id, "iter", POINTS)?;
    let mut html = String::new();
    let mut shown = 0;
    for (metric, variants) in all.as_object().into_iter().flatten() {
        for (variant, curve) in variants.as_object().into_iter().flatten() {
            if shown < CURVES {
                let _ = write!(
                    html,
                    "<figure>{}<figcaption>{} / {}</figcaption></figure>",
                    picture(curve),
                    escape(metric),
                    escape(variant)
                );
            }
            shown += 1;
        }
    }
    Ok(match shown {
        0 => html,
        _ if shown > CURVES => format!("<h2>Scalars ({CURVES} of {shown})</h2>{html}"),
        _ => format!("<h2>Scalars</h2>{html}"),
    })
}

fn picture(curve: &Value) -> String {
    const WIDTH: f64 = 240.0;
    const HEIGHT: f64 = 120.0;
    let numbers = |key: &str| -> Vec<f64> {
        curve[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect()
    };
    let (xs, ys) = (numbers("x"), numbers("y"));
    let span = |values: &[f64]| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, if high > low { high - low } else { 1.0 })
    };
    let ((left, width), (bottom, height)) = (span(&xs), span(&ys));
    let mut points = String::new();
    for (x, y) in xs.iter().zip(&ys) {
        let (x, y) = (
            (x - left) / width * (WIDTH - 8.0) + 4.0,
            HEIGHT - 4.0 - (y - bottom) / height * (HEIGHT - 8.0),
        );
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let last = ys.last().copied().unwrap_or_default();
    format!(
        "<svg width={WIDTH} height={HEIGHT}><polyline points=\"{points}\" fill=none stroke=#05a stroke-width=1.5 />\
         <title>last value {last}</title></svg>"
    )
}

fn samples(call: &Call, id: &str) -> Result<String, Refusal> {
    let urls = events::urls_of(call.db, id)?;
    let mut html = String::new();
    for url in urls.iter().rev().take(SAMPLES) {
        let name = url.rsplit('/').next().unwrap_or(url);
        let picture = [".png", ".jpg", ".jpeg", ".gif", ".webp"]
            .iter()
            .any(|end| name.ends_with(end));
        if picture && (url.starts_with("http://") || url.starts_with("https://")) {
            let (url, name) = (escape(url), escape(name));
            let _ = write!(
                html,
                "<figure><img src=\"{url}\" alt=\"{name}\"><figcaption>{name}</figcaption></figure>"
            );
        } else {
            let _ = write!(html, "<p>{}", link(url, name));
        }
    }
    Ok(if html.is_empty() {
        html
    } else {
        format!("<h2>Debug samples</h2>{html}")
    })
}

fn log(call: &Call, id: &str) -> Result<String, Refusal> {
    let sql = "SELECT doc FROM log WHERE task = ?1 ORDER BY at DESC, id DESC LIMIT ?2";
    let mut text = String::new();
    for line in documents(call, sql, &[&id, &LINES])?.iter().rev() {
        text += &escape(doc::text(line, "msg"));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(format!("<h2>Log</h2><pre>{text}</pre>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_the_sdk_prints_is_a_tasks_page() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            page(&format!("/projects/p/tasks/{id}/output/log")),
            Some(Page::Task(id.to_owned()))
        );
        assert_eq!(page("/"), Some(Page::Overview));
        assert_eq!(page("/projects/p/tasks/x"), None);
        assert_eq!(page("/tasks"), None);
    }

    #[test]
    fn what_users_write_is_never_markup() {
        assert_eq!(
            escape("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
        assert!(!link("javascript:alert(1)", "x").contains("href"));
    }
}
