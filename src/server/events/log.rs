//! A task's log (§2.6): lines in blocks, read as pages.
//!
//! ```text
//! batch ──▶ one block per task: first and last moment, number of lines, the lines (block.rs)
//! page  ◀── blocks from the asked moment on, nearest first                                     (pages.rs)
//! ```
//!
//! Blocks of one log may overlap: clients have clocks of their own, and several of them write at once.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::super::wire::{Answer, Refusal, Version};
use super::block::{Block, Builder};
use super::pages::{PAGE_BYTES, Size, Way, page};
use super::{Call, check_task};

/// Lines per page: usual, and at most.
const PAGE: i64 = 5000;
const LARGEST: usize = 10_000;
/// The version that pages by moments; older ones page by position.
const BY_MOMENT: Version = Version(2, 9);
/// The version since which a request says at which end of the log it begins.
const BY_END: Version = Version(1, 7);
/// How many characters of a log `download_task_log` gives.
const DOWNLOAD: usize = 64 << 20;

// ---- rows ----

pub(super) fn number_of(db: &Connection, task: &str) -> Result<Option<i64>, Refusal> {
    Ok(db
        .prepare_cached("SELECT no FROM logs WHERE task = ?1")?
        .query_row([task], |row| row.get(0))
        .optional()?)
}

/// How many lines a task's log has.
pub(in super::super) fn count(db: &Connection, task: &str) -> Result<i64, Refusal> {
    Ok(db
        .prepare_cached("SELECT lines FROM logs WHERE task = ?1")?
        .query_row([task], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}

/// The lines of one request for one task, on their way into blocks.
#[derive(Default)]
pub(in super::super) struct Appended {
    full: Vec<Builder>,
    open: Builder,
}

impl Appended {
    pub(in super::super) fn add(&mut self, shared: &str, at: i64, text: Option<&str>) {
        if self.open.is_full() {
            self.full.push(std::mem::take(&mut self.open));
        }
        self.open.add(shared, at, text);
    }

    pub(in super::super) fn store(mut self, db: &Connection, task: &str) -> Result<(), Refusal> {
        self.full.push(self.open);
        let lines: i64 = self.full.iter().map(|block| block.count).sum();
        let log: i64 = db
            .prepare_cached(
                "INSERT INTO logs (task, lines) VALUES (?1, ?2)
                 ON CONFLICT (task) DO UPDATE SET lines = lines + excluded.lines RETURNING no",
            )?
            .query_row(params![task, lines], |row| row.get(0))?;
        let mut insert = db.prepare_cached(
            "INSERT INTO log_blocks (log, first, last, lines, data) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for block in &self.full {
            let (first, last) = block.span;
            insert.execute(params![log, first, last, block.count, block.bytes()])?;
        }
        Ok(())
    }
}

/// Everything of a task.
pub(super) fn delete_of(db: &Connection, task: &str) -> Result<(), Refusal> {
    if let Some(log) = number_of(db, task)? {
        db.prepare_cached("DELETE FROM log_blocks WHERE log = ?1")?
            .execute([log])?;
        db.prepare_cached("DELETE FROM logs WHERE no = ?1")?
            .execute([log])?;
    }
    Ok(())
}

/// Throws lines away that are older than a moment (in ms), block by block and at most `most` blocks; returns how many
/// blocks those were.
pub(in super::super) fn forget_before(
    db: &Connection,
    until: i64,
    most: i64,
) -> Result<usize, Refusal> {
    let sql = "SELECT id, log, lines FROM log_blocks WHERE last < ?1 LIMIT ?2";
    let old = db
        .prepare_cached(sql)?
        .query_map([until, most], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<Vec<(i64, i64, i64)>, _>>()?;
    let mut delete = db.prepare_cached("DELETE FROM log_blocks WHERE id = ?1")?;
    let mut note = db.prepare_cached("UPDATE logs SET lines = lines - ?2 WHERE no = ?1")?;
    for (id, log, lines) in old.iter().copied() {
        delete.execute([id])?;
        note.execute([log, lines])?;
    }
    Ok(old.len())
}

// ---- pages ----

/// Lines by their position from one end of the log: `skip`, then at most `size`.
pub(super) fn by_position(
    db: &Connection,
    task: &str,
    newest_first: bool,
    skip: i64,
    size: i64,
) -> Result<Vec<Value>, Refusal> {
    let way = if newest_first { Way::Back } else { Way::On };
    let mut skip = usize::try_from(skip).unwrap_or(0);
    let size = usize::try_from(size).unwrap_or(0);
    let (mut found, mut start, mut bytes) = (Vec::new(), None, 0);
    while found.len() < size && bytes < PAGE_BYTES {
        let page = page(db, task, Size::of_lines(LARGEST), way, start)?;
        let Some(last) = page.lines.last() else { break };
        start = Some(last.at);
        for line in page.lines.iter().skip(skip).take(size - found.len()) {
            if bytes >= PAGE_BYTES {
                break;
            }
            bytes += line.bytes;
            found.push(Value::Object(line.event()));
        }
        skip = skip.saturating_sub(page.lines.len());
    }
    Ok(found)
}

/// The newest lines, oldest of them first.
#[cfg(test)]
pub(in super::super) fn newest(
    db: &Connection,
    task: &str,
    size: usize,
) -> Result<Vec<Value>, Refusal> {
    let page = page(db, task, Size::of_lines(size), Way::Back, None)?;
    let lines = page.lines.iter().take(size);
    let mut events: Vec<Value> = lines.map(|line| Value::Object(line.event())).collect();
    events.reverse();
    Ok(events)
}

// ---- endpoints ----

/// `events.get_task_log`: the answer is JSON already.
pub(crate) fn get_task_log(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let size = call.int("batch_size")?.unwrap_or(PAGE);
    let size = usize::try_from(size).unwrap_or(0).clamp(1, LARGEST);
    let total = count(call.db, task)?;
    let ascending = match call.text_or_none("order")? {
        Some("asc") => Some(true),
        Some("desc") => Some(false),
        Some(other) => return Err(Refusal::invalid(format_args!("unknown order: {other}"))),
        None => None,
    };
    if call.request.version < BY_MOMENT {
        return by_scroll(call, task, size, total, ascending == Some(true));
    }
    let earlier = call.flag_or("navigate_earlier", true)?;
    let way = if earlier { Way::Back } else { Way::On };
    let start = call.int("from_timestamp")?;
    let mut page = page(call.db, task, Size::of_lines(size), way, start)?;
    // The page holds the same lines whatever the order: `order` only turns it round.
    if ascending.unwrap_or(!earlier) == earlier {
        page.lines.reverse();
    }
    page.written(total)
}

/// Versions before 2.9: pages from one end, continued by a position. From 1.7 on `from` says which end, and `order`
/// only turns a page round; before, `order` says both.
fn by_scroll(call: &Call, task: &str, size: usize, total: i64, ascending: bool) -> Answer {
    let from = super::scroll(call)?;
    let size = i64::try_from(size).unwrap_or(PAGE);
    let from_the_newest = if call.request.version < BY_END {
        !ascending
    } else {
        !matches!(call.text_or_none("from")?, None | Some("" | "head"))
    };
    let mut events = by_position(call.db, task, from_the_newest, from, size)?;
    let next = from.saturating_add(i64::try_from(events.len()).unwrap_or(0));
    if from_the_newest == ascending {
        events.reverse();
    }
    let answer = json!({"events": events, "returned": events.len(), "total": total, "scroll_id": next.to_string()});
    Ok(answer.to_string().into())
}

/// What a line of a downloaded log may show, and how it looks when nothing is said.
const SHOWN: [&str; 5] = ["asctime", "timestamp", "level", "worker", "msg"];
const FORMAT: &str = "{asctime} {worker} {level} {msg}";

/// `events.download_task_log`: the log as one text, each line as JSON or in the form asked for. The envelope is left
/// away by the router.
pub(crate) fn download_task_log(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let kind = call.text_or_none("line_type")?.unwrap_or("json");
    let format = if kind.eq_ignore_ascii_case("json") {
        None
    } else {
        Some(line_format(
            call.text_or_none("line_format")?.unwrap_or(FORMAT),
        )?)
    };
    let (mut text, mut start) = (String::new(), None);
    'all: loop {
        let page = page(call.db, task, Size::of_lines(LARGEST), Way::On, start)?;
        let Some(last) = page.lines.last() else { break };
        start = Some(last.at);
        for line in &page.lines {
            if text.len() > DOWNLOAD {
                text += "... cut here: read the rest by events.get_task_log\n";
                break 'all;
            }
            let mut event = line.event();
            let at = event.get("timestamp").cloned().unwrap_or_default();
            if let Some(format) = format {
                event.insert("asctime".into(), at);
                add_formatted(&mut text, format, &event);
            } else {
                event.retain(|key, _| !["timestamp", "type", "task"].contains(&key.as_str()));
                event.insert("asctime".into(), at);
                text += &Value::Object(event).to_string();
            }
            text.push('\n');
        }
    }
    Ok(text.into())
}

/// The form of a line, which may name nothing but what a line has.
fn line_format(format: &str) -> Result<&str, Refusal> {
    let bad = |why: String| Refusal::bad(16, format!("Invalid field value ({why})"));
    let format = format.trim_end_matches('\n');
    if format.is_empty() {
        return Err(Refusal::bad(
            11,
            "Missing required fields (line_format is required for plain text lines)",
        ));
    }
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('{') {
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| bad("invalid line format".into()))?;
        if !SHOWN.contains(&name) {
            return Err(bad(format!(
                "undefined placeholders in line format): placeholders={name}"
            )));
        }
        rest = after;
    }
    Ok(format)
}

/// Adds a line in the form asked for: `{member}` stands for a member of the event. A form may name a long member any
/// number of times: once the text is longer than may be downloaded, the rest of its line is left out.
fn add_formatted(line: &mut String, format: &str, event: &super::Doc) {
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        if line.len() > DOWNLOAD {
            return;
        }
        *line += before;
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        match event.get(name) {
            Some(Value::String(text)) => *line += text.trim_end_matches('\n'),
            Some(other) => *line += &other.to_string(),
            None => {}
        }
        rest = after;
    }
    *line += rest;
}

/// `events.clear_task_log`: all lines, or those older than `threshold_sec`.
pub(crate) fn clear_task_log(call: &Call) -> Answer {
    let task = call.text("task")?;
    super::check_unlocked(call, task)?;
    let before = count(call.db, task)?;
    let Some(seconds) = call.int("threshold_sec")? else {
        delete_of(call.db, task)?;
        return Ok(json!({"deleted": before}));
    };
    let until = call
        .at
        .as_millisecond()
        .saturating_sub(seconds.saturating_mul(1000));
    if let Some(log) = number_of(call.db, task)? {
        cut_before(call.db, log, until)?;
        call.db.execute(
            "DELETE FROM log_blocks WHERE log = ?1 AND last < ?2",
            [log, until],
        )?;
        let left = "SELECT coalesce(sum(lines), 0) FROM log_blocks WHERE log = ?1";
        call.db.execute(
            &format!("UPDATE logs SET lines = ({left}) WHERE no = ?1"),
            [log],
        )?;
    }
    Ok(json!({"deleted": before - count(call.db, task)?}))
}

/// Takes the lines before a moment out of the blocks that lie around it.
fn cut_before(db: &Connection, log: i64, until: i64) -> Result<(), Refusal> {
    let sql = "SELECT id, data FROM log_blocks WHERE log = ?1 AND first < ?2 AND last >= ?2";
    let around = db
        .prepare(sql)?
        .query_map([log, until], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?;
    for (id, data) in around {
        let Some(block) = Block::read(&data) else {
            continue;
        };
        let mut left = Builder::default();
        for (place, at) in block.moments().enumerate().filter(|(_, at)| *at >= until) {
            let text = block.text(place);
            let mut shared = block.event(place);
            shared.shift_remove("timestamp");
            if text.is_some() {
                shared.shift_remove("msg");
            }
            left.add(&Value::Object(shared).to_string(), at, text.as_deref());
        }
        db.execute(
            "UPDATE log_blocks SET first = ?2, last = ?3, lines = ?4, data = ?5 WHERE id = ?1",
            params![id, left.span.0, left.span.1, left.count, left.bytes()],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_blocks_are_forgotten_a_few_at_a_time_and_no_young_one() {
        let db = super::super::super::schema::in_memory();
        for (task, at) in [("a", 1), ("b", 2), ("a", 3), ("a", 9)] {
            let mut lines = Appended::default();
            lines.add("{}", at, Some("one"));
            lines.add("{}", at, Some("other"));
            lines.store(&db, task).unwrap();
        }
        let left = || (count(&db, "a").unwrap(), count(&db, "b").unwrap());
        assert_eq!(forget_before(&db, 5, 2).unwrap(), 2);
        assert_eq!(left(), (4, 0));
        assert_eq!(forget_before(&db, 5, 2).unwrap(), 1);
        assert_eq!(left(), (2, 0));
        assert_eq!(forget_before(&db, 5, 2).unwrap(), 0);
        assert_eq!(newest(&db, "a", 10).unwrap().len(), 2);
    }

    #[test]
    fn a_form_that_repeats_a_long_line_is_cut_where_the_download_is() {
        let mut event = super::super::Doc::new();
        event.insert("msg".into(), "x".repeat(1 << 20).into());
        let mut text = String::new();
        add_formatted(&mut text, &"{msg}".repeat(200), &event);
        assert!(text.len() > DOWNLOAD);
        assert!(text.len() <= DOWNLOAD + (1 << 20), "{}", text.len());
    }
}
