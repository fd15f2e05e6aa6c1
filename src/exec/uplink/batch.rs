//! What of the spool goes into the next request.

use std::io;

use super::marks::Marks;
use crate::exec::output::{Cut, EVENT_BYTES, Piece, Position, Secrets, Tail, cut, text};
use crate::exec::spool::{Acknowledged, Spool};

/// Most bytes of the spool that one request carries.
const WINDOW: usize = 4 * EVENT_BYTES;
/// Most bytes of one request; ClearML's own front and many proxies stop at 1 MiB.
const REQUEST_BYTES: usize = 900 * 1024;
/// Bytes of one event beside its text.
const EVENT_OVERHEAD: usize = 400;

/// Log events ready to be sent.
#[derive(Debug, Default)]
pub struct Batch {
    pub pieces: Vec<Piece>,
    pub texts: Vec<String>,
}

/// Reads the spool in bounded windows.
#[derive(Debug)]
pub struct Reader<'a> {
    pub spool: &'a Spool,
    pub secrets: &'a Secrets,
    pub buffer: Vec<u8>,
}

impl Reader<'_> {
    /// The next batch after what is acknowledged; empty if there is nothing to send yet. Bytes that nobody needs to see
    /// are passed over, which moves `state.at`.
    pub fn next(
        &mut self,
        state: &mut Acknowledged,
        marks: &Marks,
        tail: Tail,
    ) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let mut at = state.at;
        let mut time = state.time;
        let mut size = 0;
        self.fill(at.offset, marks.length())?;
        let whole = at.offset + self.buffer.len() as u64 == marks.length();
        loop {
            let start = usize::try_from(at.offset - state.at.offset).map_err(io::Error::other)?;
            let rest = &self.buffer[start..];
            let (seen, seen_at) = first_seen(rest, at.offset, marks);
            let tail = if whole && seen == rest.len() {
                tail
            } else {
                Tail::Open
            };
            match cut(
                &rest[..seen],
                start == 0 && seen == WINDOW,
                tail,
                self.secrets,
            ) {
                Cut::Wait => return Ok(batch),
                Cut::Skip(bytes) => {
                    state.at.offset += bytes as u64;
                    return Ok(batch);
                }
                Cut::Send { bytes, open } => {
                    let message = text(&rest[..bytes], at.continues, self.secrets);
                    size += escaped(&message) + EVENT_OVERHEAD;
                    if size > REQUEST_BYTES && !batch.pieces.is_empty() {
                        return Ok(batch);
                    }
                    time = seen_at.max(time + 1);
                    let to = Position {
                        offset: at.offset + bytes as u64,
                        continues: open,
                    };
                    batch.pieces.push(Piece { from: at, to, time });
                    batch.texts.push(message);
                    at = to;
                }
            }
        }
    }

    /// The same batch again, from what was recorded before it was sent.
    pub fn again(&mut self, pieces: &[Piece]) -> io::Result<Batch> {
        let mut batch = Batch {
            pieces: pieces.to_vec(),
            texts: Vec::new(),
        };
        for piece in pieces {
            self.fill(piece.from.offset, piece.to.offset)?;
            batch
                .texts
                .push(text(&self.buffer, piece.from.continues, self.secrets));
        }
        Ok(batch)
    }

    fn fill(&mut self, from: u64, to: u64) -> io::Result<()> {
        let most = usize::try_from(to.saturating_sub(from))
            .unwrap_or(WINDOW)
            .min(WINDOW);
        self.spool.read(from, most, &mut self.buffer)
    }
}

/// How many of the bytes at `offset` were there when the first of their lines was complete, and when that was.
fn first_seen(bytes: &[u8], offset: u64, marks: &Marks) -> (usize, i64) {
    let first_line = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |at| at + 1);
    match marks.covering(offset + first_line as u64) {
        Some((end, time)) => {
            let seen = usize::try_from(end - offset).unwrap_or(bytes.len());
            (seen.min(bytes.len()), time)
        }
        None => (bytes.len(), 0),
    }
}

/// Bytes of a text inside a JSON string.
fn escaped(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        spool: Spool,
        secrets: Secrets,
        marks: Marks,
        state: Acknowledged,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let spool = Spool::open(folder.path()).unwrap();
            let (secrets, marks, state) = (
                Secrets::default(),
                Marks::default(),
                Acknowledged::default(),
            );
            Self {
                _folder: folder,
                spool,
                secrets,
                marks,
                state,
            }
        }

        fn write(&mut self, bytes: &[u8], now: i64) {
            self.spool.handle().unwrap().write_all(bytes).unwrap();
            self.marks.observe(self.spool.length().unwrap(), now);
        }

        fn next(&mut self, tail: Tail) -> Batch {
            let mut reader = Reader {
                spool: &self.spool,
                secrets: &self.secrets,
                buffer: Vec::new(),
            };
            let batch = reader.next(&mut self.state, &self.marks, tail).unwrap();
            assert_eq!(reader.again(&batch.pieces).unwrap().texts, batch.texts);
            batch
        }

        fn acknowledge(&mut self, batch: &Batch) {
            if let Some(last) = batch.pieces.last() {
                self.state.at = last.to;
                self.state.time = last.time;
            }
        }
    }

    #[test]
    fn lines_keep_the_time_at_which_they_were_complete() {
        let mut fixture = Fixture::new();
        fixture.write(b"one\ntwo\nthr", 100);
        fixture.write(b"ee\nfour", 200);
        let batch = fixture.next(Tail::Open);
        assert_eq!(batch.texts, ["one\ntwo\n", "three\n"]);
        assert_eq!(
            batch
                .pieces
                .iter()
                .map(|piece| piece.time)
                .collect::<Vec<_>>(),
            [100, 200]
        );
        fixture.acknowledge(&batch);
        assert!(fixture.next(Tail::Open).pieces.is_empty());
        let last = fixture.next(Tail::Final);
        assert_eq!(last.texts, ["four"]);
        assert_eq!(last.pieces[0].time, 201);
    }

    #[test]
    fn no_request_is_larger_than_a_proxy_lets_through() {
        let mut fixture = Fixture::new();
        let line = [b"\x1b".repeat(100).as_slice(), b"\n"].concat();
        fixture.write(&line.repeat(10_000), 1);
        let mut sent = 0;
        loop {
            let batch = fixture.next(Tail::Open);
            if batch.pieces.is_empty() {
                break;
            }
            let body: usize = batch
                .texts
                .iter()
                .map(|text| serde_json::to_string(text).unwrap().len())
                .sum();
            assert!(body <= REQUEST_BYTES, "{body}");
            sent += batch.texts.iter().map(String::len).sum::<usize>();
            fixture.acknowledge(&batch);
        }
        assert_eq!(sent, 1_010_000);
    }

    #[test]
    fn a_progress_bar_without_end_is_passed_over() {
        let mut fixture = Fixture::new();
        fixture.write(&b"\r 10% of something".repeat(20_000), 1);
        assert!(fixture.next(Tail::Open).pieces.is_empty());
        let passed = fixture.state.at.offset;
        assert!(passed > 250_000, "{passed}");
        assert!(fixture.next(Tail::Open).pieces.is_empty());
        assert_eq!(fixture.next(Tail::Stale).texts, [" 10% of something"]);
    }
}
