//! How much one answer holds: a stored document can be as large as a request.

use rusqlite::Connection;

use super::{Doc, Refusal, event_of, text_of};

/// Bytes of the documents of one answer.
const BYTES: usize = 32 << 20;

/// What an answer has room for. The first document always fits in; once one does not, no more do.
pub(super) struct Room {
    count: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    /// For so many documents.
    pub(super) fn new(count: usize) -> Self {
        Self::of_bytes(count, BYTES)
    }

    /// The same, for documents that are larger in memory than as text.
    pub(super) fn of_bytes(count: usize, bytes: usize) -> Self {
        Self {
            count,
            bytes,
            empty: true,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == 0
    }

    /// Takes the room of a document; false if there is not enough.
    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.count > 0 && (self.empty || bytes <= self.bytes);
        self.count = if fits { self.count - 1 } else { 0 };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        fits
    }

    /// The documents of rows of `reports`, in that order, as many as there is room for.
    pub(super) fn fill(&mut self, db: &Connection, ids: &[i64]) -> Result<Vec<Doc>, Refusal> {
        self.load(db, ids, false)
    }

    /// All of them, whether there is room or not: what may not be parted.
    pub(super) fn fill_whole(&mut self, db: &Connection, ids: &[i64]) -> Result<Vec<Doc>, Refusal> {
        self.load(db, ids, true)
    }

    fn load(&mut self, db: &Connection, ids: &[i64], whole: bool) -> Result<Vec<Doc>, Refusal> {
        let mut statement = db.prepare_cached("SELECT doc FROM reports WHERE id = ?1")?;
        let mut events = Vec::new();
        for id in ids {
            // Before the next document is read: most often nothing is left because of their number.
            if self.is_full() && !whole {
                break;
            }
            let mut rows = statement.query([*id])?;
            let Some(row) = rows.next()? else { continue };
            if !self.takes(text_of(row, "doc")?.len()) && !whole {
                break;
            }
            events.push(event_of(row)?);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_always_fits_in_and_nothing_after_the_first_that_does_not() {
        let mut room = Room::of_bytes(10, 100);
        assert!(room.takes(500));
        assert!(!room.takes(1) && room.is_full());
        let mut room = Room::of_bytes(10, 100);
        assert!(room.takes(60) && room.takes(40) && !room.is_full());
        assert!(!room.takes(1) && !room.takes(0));
        let mut room = Room::of_bytes(1, 100);
        assert!(room.takes(1) && room.is_full() && !room.takes(1));
    }

    #[test]
    fn what_may_not_be_parted_comes_whole_and_closes_the_answer() {
        let db = super::super::super::schema::in_memory();
        for id in 1..=3 {
            let sql = "INSERT INTO reports (id, task, type, metric, variant, iter, key, at, doc)
                       VALUES (?1, 't', 'plot', 'm', 'v', ?1, '', 0, '{\"plot_str\":\"0123456789\"}')";
            db.execute(sql, [id]).unwrap();
        }
        let mut room = Room::of_bytes(10, 30);
        assert_eq!(room.fill(&db, &[1, 2, 3]).unwrap().len(), 1);
        let mut room = Room::of_bytes(10, 30);
        assert_eq!(room.fill_whole(&db, &[1, 2, 3]).unwrap().len(), 3);
        assert!(room.is_full());
        assert_eq!(room.fill(&db, &[1]).unwrap().len(), 0);
    }
}
