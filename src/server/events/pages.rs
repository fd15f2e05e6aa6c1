//! Pages of a log: cut between moments, never inside one, so that the next page begins where this one ends.
//!
//! ```text
//! blocks, nearest first ──▶ lines ──▶ cut ──▶ page, until no later block can add to it
//! ```
//!
//! The one exception is a moment that alone has more lines or bytes than a page: what is too much of it is not shown.

use std::rc::Rc;

use rusqlite::Connection;

use super::block::Block;
use super::log::number_of;
use super::{Answer, Doc, Refusal};

/// Bytes of a page, about.
pub(super) const PAGE_BYTES: usize = 16 << 20;
/// Lines of one and the same moment that a page holds at most beyond its size.
const AT_ONCE: usize = 100_000;
/// Up to so many blocks are sorted with their contents.
const FEW: i64 = 4;
/// [`Way::On`] where only few blocks are left, as for whoever follows a log: found from the end of the log. The index
/// in order would be searched through from its beginning.
const LAST_BLOCKS: &str = "SELECT id, first, data FROM log_blocks INDEXED BY log_blocks_by_end
    WHERE log = ?1 AND last > ?2 ORDER BY first, last, id";

/// Which way a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Newest first.
    Back,
    /// Oldest first.
    On,
}

impl Way {
    /// Blocks with lines beyond a moment, nearest first. Left to itself SQLite takes the other index, which narrows
    /// the blocks down, and sorts all of them with their contents for a page that needs two.
    fn blocks(self) -> &'static str {
        match self {
            Self::Back => {
                "SELECT id, last, data FROM log_blocks INDEXED BY log_blocks_by_end
                 WHERE log = ?1 AND first < ?2 ORDER BY last DESC, first DESC, id DESC"
            }
            Self::On => {
                "SELECT id, first, data FROM log_blocks INDEXED BY log_blocks_by_start
                 WHERE log = ?1 AND last > ?2 ORDER BY first, last, id"
            }
        }
    }
}

/// How much a page holds: it ends with the moment that reaches `lines`, or before the one that goes beyond `bytes`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    lines: usize,
    bytes: usize,
}

impl Size {
    pub(super) fn of_lines(lines: usize) -> Self {
        Self {
            lines,
            bytes: PAGE_BYTES,
        }
    }
}

/// Lines in reading direction, and where the page ends.
#[derive(Default)]
pub(super) struct Page {
    pub(super) lines: Vec<Line>,
    bytes: usize,
    /// The last moment that the page shows, once it is full.
    edge: Option<i64>,
    /// Not all lines of that moment are shown: it alone is too large.
    capped: bool,
    /// It has fewer lines than were asked for because they are long: there may be more.
    short: bool,
}

pub(super) struct Line {
    pub(super) at: i64,
    /// Orders lines of one moment: as they arrived.
    row: i64,
    place: usize,
    pub(super) bytes: usize,
    /// Goes with the last of its lines.
    block: Rc<Block>,
}

impl Line {
    /// As it was reported.
    pub(super) fn event(&self) -> Doc {
        self.block.event(self.place)
    }
}

impl Page {
    /// The answer, as JSON that is written already: pages are large. `more` stands in those alone whose number of lines
    /// would say wrongly that the log ends.
    pub(super) fn written(&self, total: i64) -> Answer {
        let mut out = Vec::with_capacity(self.bytes + self.bytes / 8);
        out.extend_from_slice(b"{\"events\":[");
        for (i, line) in self.lines.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            line.block.write(line.place, &mut out)?;
        }
        let more = if self.short { ",\"more\":true" } else { "" };
        let returned = self.lines.len();
        let end = format!("],\"returned\":{returned},\"total\":{total}{more}}}");
        out.extend_from_slice(end.as_bytes());
        let text =
            String::from_utf8(out).map_err(|_| Refusal::internal("A log line is no text"))?;
        Ok(text.into())
    }

    /// Puts the lines in order and drops those that the page has no room for. They lie beyond its edge, so what is read
    /// later brings none of them back, and a page from the edge on has them all.
    fn cut(&mut self, size: Size, way: Way) {
        let order = |line: &Line| (line.at, line.row, line.place);
        match way {
            Way::On => self.lines.sort_unstable_by_key(order),
            Way::Back => self
                .lines
                .sort_unstable_by_key(|line| std::cmp::Reverse(order(line))),
        }
        let (mut end, mut bytes, mut full, mut capped) = (0, 0, false, false);
        for moment in self.lines.chunk_by(|line, next| line.at == next.at) {
            let more: usize = moment.iter().map(|line| line.bytes).sum();
            full = end >= size.lines || (end > 0 && bytes + more > size.bytes);
            if full {
                break;
            }
            let fitting = fitting(moment, size.bytes - bytes).max(1);
            let taken = fitting.min(size.lines + AT_ONCE - end);
            bytes += more;
            end += taken;
            capped = taken < moment.len();
            if capped {
                break;
            }
        }
        self.lines.truncate(end);
        self.bytes = self.lines.iter().map(|line| line.bytes).sum();
        if full || capped || end >= size.lines || bytes >= size.bytes {
            self.edge = self.lines.last().map(|line| line.at);
            self.capped = capped;
        }
    }
}

/// How many of the lines, from the first on, have no more than so many bytes together.
fn fitting(lines: &[Line], bytes: usize) -> usize {
    let mut sum = 0;
    lines
        .iter()
        .take_while(|line| {
            sum += line.bytes;
            sum <= bytes
        })
        .count()
}

/// Whether a log has no more than a few blocks with lines after a moment.
fn few_follow(db: &Connection, log: i64, start: i64) -> Result<bool, Refusal> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM log_blocks INDEXED BY log_blocks_by_end
               WHERE log = ?1 AND last > ?2 LIMIT ?3)";
    let found: i64 = db
        .prepare_cached(sql)?
        .query_row([log, start, FEW + 1], |row| row.get(0))?;
    Ok(found <= FEW)
}

/// The nearest lines strictly beyond `start`, as many as the page holds, with all of the last one's moment.
pub(super) fn page(
    db: &Connection,
    task: &str,
    size: Size,
    way: Way,
    start: Option<i64>,
) -> Result<Page, Refusal> {
    let mut page = Page::default();
    let Some(log) = number_of(db, task)? else {
        return Ok(page);
    };
    let start = start.unwrap_or(match way {
        Way::Back => i64::MAX,
        Way::On => i64::MIN,
    });
    let beyond = |at: i64, edge: i64| match way {
        Way::Back => at < edge,
        Way::On => at > edge,
    };
    let blocks = match way {
        Way::On if few_follow(db, log, start)? => LAST_BLOCKS,
        way => way.blocks(),
    };
    let mut statement = db.prepare_cached(blocks)?;
    let mut rows = statement.query([log, start])?;
    while let Some(row) = rows.next()? {
        let (id, nearest): (i64, i64) = (row.get(0)?, row.get(1)?);
        // Neither this block nor a later one has lines that the page could still show.
        if page
            .edge
            .is_some_and(|edge| beyond(nearest, edge) || (page.capped && nearest == edge))
        {
            break;
        }
        let data = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        let block = Block::read(data).ok_or_else(|| {
            Refusal::internal(format!("A block of the log of task {task} cannot be read"))
        })?;
        let block = Rc::new(block);
        for (place, at) in block.moments().enumerate() {
            if beyond(at, start) && page.edge.is_none_or(|edge| !beyond(at, edge)) {
                let bytes = block.weight(place);
                page.bytes += bytes;
                page.lines.push(Line {
                    at,
                    row: id,
                    place,
                    bytes,
                    block: Rc::clone(&block),
                });
            }
        }
        if page.lines.len() >= size.lines || page.bytes >= size.bytes {
            page.cut(size, way);
        }
    }
    page.cut(size, way);
    page.short = page.edge.is_some() && page.lines.len() < size.lines;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::StatementStatus;

    use super::super::log::Appended;
    use super::*;

    /// Lines as they arrive together: moment, and how long the text is.
    type Batch = Vec<(i64, usize)>;

    /// A log of these batches; each text begins with the number of its line.
    fn log(batches: &[Batch]) -> Connection {
        let db = super::super::super::schema::in_memory();
        let mut number = 0;
        for batch in batches {
            let mut lines = Appended::default();
            for (at, length) in batch {
                let text = format!("{number} {}", "x".repeat(*length));
                lines.add("{}", *at, Some(&text));
                number += 1;
            }
            lines.store(&db, "t").unwrap();
        }
        db
    }

    /// All pages of a log: moments and numbers of their lines, and their bytes.
    fn walk(db: &Connection, size: Size, way: Way) -> Vec<(Vec<(i64, usize)>, usize)> {
        let (mut pages, mut start) = (Vec::new(), None);
        loop {
            let page = page(db, "t", size, way, start).unwrap();
            let Some(last) = page.lines.last() else {
                return pages;
            };
            start = Some(last.at);
            let number = |line: &Line| {
                let text = line.block.text(line.place).unwrap();
                text.split(' ').next().unwrap().parse::<usize>().unwrap()
            };
            let lines = page.lines.iter().map(|line| (line.at, number(line)));
            pages.push((lines.collect(), page.bytes));
        }
    }

    fn numbered(batches: &[Batch]) -> Vec<(i64, usize)> {
        let moments = batches.iter().flatten().map(|line| line.0);
        let mut lines: Vec<(i64, usize)> = moments.zip(0..).collect();
        lines.sort_unstable();
        lines
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn pages_show_each_line_once_and_no_more_than_they_hold(
            batches in prop::collection::vec(prop::collection::vec((0..30_i64, 0..60_usize), 1..12), 1..12),
            lines in 1..9_usize,
            bytes in 1..1000_usize,
        ) {
            let db = log(&batches);
            let expected = numbered(&batches);
            // What the largest moment takes always fits in.
            let heaviest = expected.chunk_by(|line, next| line.0 == next.0).map(|moment| moment.len() * 110).max();
            let size = Size { lines, bytes: bytes.max(heaviest.unwrap_or(0)) };
            for way in [Way::On, Way::Back] {
                let pages = walk(&db, size, way);
                for (page, taken) in &pages {
                    prop_assert!(*taken <= size.bytes, "{} of {}", taken, size.bytes);
                    let last = page[page.len() - 1].0;
                    prop_assert!(page.iter().filter(|line| line.0 != last).count() < lines);
                }
                let mut shown: Vec<(i64, usize)> = pages.into_iter().flat_map(|(page, _)| page).collect();
                if way == Way::Back {
                    shown.reverse();
                }
                prop_assert_eq!(&shown, &expected);
            }
        }

        #[test]
        fn a_moment_that_alone_is_too_large_is_cut_and_the_others_are_whole(
            batches in prop::collection::vec(prop::collection::vec((0..5_i64, 0..60_usize), 1..12), 1..12),
            bytes in 1..500_usize,
        ) {
            let db = log(&batches);
            let size = Size { lines: 1000, bytes };
            for way in [Way::On, Way::Back] {
                let mut shown: Vec<(i64, usize)> = Vec::new();
                for (page, taken) in walk(&db, size, way) {
                    prop_assert!(taken <= bytes || page.len() == 1);
                    shown.extend(page);
                }
                let mut once = shown.clone();
                once.sort_unstable();
                once.dedup();
                prop_assert_eq!(once.len(), shown.len());
                for moment in numbered(&batches).chunk_by(|line, next| line.0 == next.0) {
                    let have = shown.iter().filter(|line| line.0 == moment[0].0).count();
                    prop_assert!(have >= 1);
                    prop_assert!(have == moment.len() || moment.len() * 110 > bytes);
                }
            }
        }
    }

    #[test]
    fn a_page_of_long_lines_is_short() {
        let long = |at| vec![(at, 64 << 10); 4];
        let batches: Vec<Batch> = (0..100).map(long).collect();
        let db = log(&batches);
        for way in [Way::On, Way::Back] {
            let pages = walk(&db, Size::of_lines(5000), way);
            let counts: Vec<usize> = pages.iter().map(|(lines, _)| lines.len()).collect();
            assert_eq!(counts.iter().sum::<usize>(), 400);
            assert!(counts.len() > 1 && counts.iter().all(|count| count % 4 == 0));
            let first = page(&db, "t", Size::of_lines(5000), way, None).unwrap();
            let answer = first.written(400).unwrap();
            assert!(answer.as_str().unwrap().ends_with(",\"more\":true}"));
            let few = page(&db, "t", Size::of_lines(4), way, None).unwrap();
            let answer = few.written(400).unwrap();
            assert!(answer.as_str().unwrap().ends_with("\"total\":400}"));
            assert!(pages.iter().all(|(_, bytes)| *bytes <= PAGE_BYTES));
        }
    }

    #[test]
    fn a_page_is_read_in_the_order_of_an_index_not_sorted() {
        let db = super::super::super::schema::in_memory();
        for way in [Way::Back, Way::On] {
            let plan = format!("EXPLAIN QUERY PLAN {}", way.blocks());
            let steps = db
                .prepare(&plan)
                .unwrap()
                .query_map([1, 2], |row| row.get(3))
                .unwrap()
                .collect::<Result<Vec<String>, _>>()
                .unwrap();
            assert!(
                steps.iter().all(|step| !step.contains("TEMP B-TREE")),
                "{steps:?}"
            );
        }
    }

    #[test]
    fn who_follows_a_log_is_not_made_to_wait_for_all_that_is_known() {
        let batches: Vec<Batch> = (0..2000).map(|at| vec![(at, 5)]).collect();
        let db = log(&batches);
        for start in [1000, 1990, 1997] {
            let next = page(&db, "t", Size::of_lines(3), Way::On, Some(start)).unwrap();
            let moments: Vec<i64> = next.lines.iter().map(|line| line.at).collect();
            let all: Vec<i64> = (start + 1..2000).take(3).collect();
            assert_eq!(moments, all);
        }
        let steps = |sql: &str| {
            let statement = db.prepare_cached(sql).unwrap();
            statement.get_status(StatementStatus::VmStep)
        };
        let before = steps(Way::On.blocks());
        assert!(before > 1000, "in the middle the index in order is used");
        page(&db, "t", Size::of_lines(3), Way::On, Some(1997)).unwrap();
        assert_eq!(steps(Way::On.blocks()), before);
        assert!((1..1000).contains(&steps(LAST_BLOCKS)));
    }
}
