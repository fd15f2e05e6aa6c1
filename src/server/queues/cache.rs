//! The entries of queues as JSON text, kept until the queue changes.
//!
//! Controllers look at all their queues every second, and most have not changed: such a look costs a copy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::super::wire::Refusal;

/// Bytes of all kept texts together.
const LARGEST: usize = 32 << 20;
/// What a text costs beside its bytes, about: of an empty queue there may be one for each limit that somebody asks for.
const EACH: usize = 256;

/// What is kept: by queue and limit, the version of the queue and the text.
#[derive(Default)]
pub(crate) struct Entries {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    texts: HashMap<(String, i64), (i64, Arc<str>)>,
    bytes: usize,
}

impl Entries {
    /// The list of a queue's entries: all, the first `limit`, or the last `-limit`.
    pub(super) fn text(
        &self,
        db: &Connection,
        queue: &str,
        limit: i64,
    ) -> Result<Arc<str>, Refusal> {
        let version: i64 = db
            .prepare_cached("SELECT version FROM queues WHERE id = ?1")?
            .query_row([queue], |row| row.get(0))?;
        let name = (queue.to_owned(), limit);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, text)) = kept.texts.get(&name)
            && *of == version
        {
            return Ok(Arc::clone(text));
        }
        drop(kept);
        let text: Arc<str> = read(db, queue, limit)?.into();
        kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that looks at an older state does not displace a newer one.
        if kept.texts.get(&name).is_some_and(|(of, _)| *of > version) {
            return Ok(text);
        }
        kept.bytes += text.len() + EACH;
        if let Some((_, before)) = kept.texts.insert(name, (version, Arc::clone(&text))) {
            kept.bytes -= before.len() + EACH;
        }
        if kept.bytes > LARGEST {
            *kept = Kept::default();
        }
        Ok(text)
    }
}

fn read(db: &Connection, queue: &str, limit: i64) -> Result<String, Refusal> {
    let sql = if limit < 0 {
        "SELECT task, added FROM (SELECT task, added, position FROM entries WHERE queue = ?1
         ORDER BY position DESC LIMIT ?2) ORDER BY position"
    } else {
        "SELECT task, added FROM entries WHERE queue = ?1 ORDER BY position LIMIT ?2"
    };
    let count = if limit == 0 {
        -1
    } else {
        limit.saturating_abs()
    };
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![queue, count])?;
    let mut text = Vec::from(*b"[");
    while let Some(row) = rows.next()? {
        let column = |i| -> Result<&str, rusqlite::Error> { Ok(row.get_ref(i)?.as_str()?) };
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(b"{\"task\":");
        serde_json::to_writer(&mut text, column(0)?)?;
        text.extend_from_slice(b",\"added\":");
        serde_json::to_writer(&mut text, column(1)?)?;
        text.push(b'}');
    }
    text.push(b']');
    String::from_utf8(text).map_err(|_| Refusal::internal("An entry is no text"))
}
