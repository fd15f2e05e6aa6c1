//! Pages of a task's log (§2.6): newest first, or onwards from a moment; cut between timestamps, never inside one.

use rusqlite::params;
use serde_json::{Value, json};

use super::super::wire::{Answer, Doc, Refusal, Version};
use super::{Call, check_task};

/// Lines per page: usual, and at most.
const PAGE: i64 = 5000;
const LARGEST: i64 = 10_000;
/// The version that pages by moments; older ones page by position.
const BY_MOMENT: Version = Version(2, 9);
/// How many characters of a log `download_task_log` gives.
const DOWNLOAD: usize = 32 << 20;

/// `events.get_task_log`
pub(crate) fn get_task_log(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let size = call.int("batch_size")?.unwrap_or(PAGE).clamp(1, LARGEST);
    let total: i64 = call
        .db
        .prepare_cached("SELECT count(*) FROM log WHERE task = ?1")?
        .query_row([task], |row| row.get(0))?;
    if call.request.version < BY_MOMENT {
        return by_position(call, task, size, total);
    }
    let earlier = call.flag_or("navigate_earlier", true)?;
    let from = call.int("from_timestamp")?;
    let mut events = by_moment(call, task, size, earlier, from)?;
    // The page holds the same lines whatever the order: `order` only turns it round.
    let ascending = match call.text_or_none("order")? {
        Some("asc") => true,
        Some("desc") => false,
        Some(other) => return Err(Refusal::invalid(format_args!("unknown order: {other}"))),
        None => !earlier,
    };
    if ascending == earlier {
        events.reverse();
    }
    Ok(json!({"events": events, "returned": events.len(), "total": total}))
}

/// One page, in reading direction, with all lines of its last timestamp.
fn by_moment(
    call: &Call,
    task: &str,
    size: i64,
    earlier: bool,
    from: Option<i64>,
) -> Result<Vec<Value>, Refusal> {
    let (beyond, within, order) = if earlier {
        ("<", ">=", "DESC")
    } else {
        (">", "<=", "")
    };
    let start = from.unwrap_or(if earlier { i64::MAX } else { i64::MIN });
    let last = format!(
        "SELECT at FROM log WHERE task = ?1 AND at {beyond} ?2 ORDER BY at {order}, id {order} LIMIT 1 OFFSET ?3"
    );
    let mut statement = call.db.prepare_cached(&last)?;
    let mut last = statement.query(params![task, start, size - 1])?;
    let end: i64 = match last.next()? {
        Some(row) => row.get(0)?,
        None if earlier => i64::MIN,
        None => i64::MAX,
    };
    let page = format!(
        "SELECT doc FROM log WHERE task = ?1 AND at {beyond} ?2 AND at {within} ?3 ORDER BY at {order}, id {order} LIMIT ?4"
    );
    read(call, &page, params![task, start, end, LARGEST])
}

/// Versions before 2.9: pages from the oldest on, each newest first, continued by a position.
fn by_position(call: &Call, task: &str, size: i64, total: i64) -> Answer {
    let from = super::scroll(call)?;
    let mut events = read(
        call,
        "SELECT doc FROM log WHERE task = ?1 ORDER BY at, id LIMIT ?2 OFFSET ?3",
        params![task, size, from],
    )?;
    let next = from.saturating_add(i64::try_from(events.len()).unwrap_or(0));
    if call.text_or_none("order")? != Some("asc") {
        events.reverse();
    }
    Ok(
        json!({"events": events, "returned": events.len(), "total": total, "scroll_id": next.to_string()}),
    )
}

/// Documents of a statement's rows.
pub(in super::super) fn read(
    call: &Call,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Value>, Refusal> {
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        events.push(serde_json::from_str(text)?);
    }
    Ok(events)
}

/// `events.download_task_log`: the log as one text. The envelope is left away by the router.
pub(crate) fn download_task_log(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let as_json = call.text_or_none("line_type")? == Some("json");
    let mut statement = call
        .db
        .prepare_cached("SELECT doc FROM log WHERE task = ?1 ORDER BY at, id")?;
    let mut rows = statement.query([task])?;
    let mut text = String::new();
    while let Some(row) = rows.next()? {
        let line: Doc = serde_json::from_str(&row.get::<_, String>(0)?)?;
        if as_json {
            text += &Value::Object(line).to_string();
        } else {
            text += super::doc::text(&line, "msg").trim_end_matches('\n');
        }
        text.push('\n');
        if text.len() > DOWNLOAD {
            text += "... cut here: read the rest by events.get_task_log\n";
            break;
        }
    }
    Ok(text.into())
}
