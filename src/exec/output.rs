//! PURE: bytes of the spool → pieces → the text of log events.
//!
//! A *piece* is a stretch of the spool that becomes one event. Its text depends on nothing but its bytes and whether
//! it continues a line, so that a piece that was written down before it was sent can be made again after a crash.
//!
//! The rule for carriage returns (`protocol.md` §7.9, documented for users): within a line only what stands after the
//! last carriage return is kept; `\r\n` is a line end. A line longer than [`EVENT_BYTES`], or one that stays
//! unfinished for long, is sent in parts; a carriage return after such a part begins a new line.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Most bytes of the spool that one event shows.
pub const EVENT_BYTES: usize = 64 * 1024;
/// What stands in the place of a secret.
const MASK: &str = "****";
/// Shorter values are no secrets worth hiding, and hiding them would tear holes into every log.
const SHORTEST_SECRET: usize = 6;

/// A place in the spool between two pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Bytes before this place.
    pub offset: u64,
    /// Whether a part of the line that goes on here was already sent.
    pub continues: bool,
}

/// A stretch of the spool that becomes one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    pub from: Position,
    pub to: Position,
    /// Time of the event in milliseconds; no two pieces of one spool share one.
    pub time: i64,
}

/// What the next bytes of the spool allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// That many bytes are one event; `open` if they end within a line.
    Send { bytes: usize, open: bool },
    /// That many bytes were overwritten by carriage returns: nobody needs to see them.
    Skip(usize),
    /// Wait for the end of the line.
    Wait,
}

/// How much is known about what follows the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// More may come.
    Open,
    /// The last line has waited long enough.
    Stale,
    /// Nothing will come: the writers are gone.
    Final,
}

/// Decides what the first event of `window` is; `full` if the window cannot grow.
pub fn cut(window: &[u8], full: bool, tail: Tail, secrets: &Secrets) -> Cut {
    if window.is_empty() {
        return Cut::Wait;
    }
    let reach = window.len().min(EVENT_BYTES);
    if let Some(end) = window[..reach].iter().rposition(|byte| *byte == b'\n') {
        return Cut::Send {
            bytes: end + 1,
            open: false,
        };
    }
    let line_end = window.iter().position(|byte| *byte == b'\n');
    let line = &window[..line_end.unwrap_or(window.len())];
    let shown = shown_from(line);
    if line.len() - shown > EVENT_BYTES {
        return Cut::Send {
            bytes: safe_end(line, shown + EVENT_BYTES, secrets),
            open: true,
        };
    }
    match (line_end, tail) {
        (Some(end), _) => Cut::Send {
            bytes: end + 1,
            open: false,
        },
        (None, Tail::Final) => Cut::Send {
            bytes: line.len(),
            open: true,
        },
        (None, Tail::Stale) => match whole_characters(line) {
            0 => Cut::Wait,
            bytes => Cut::Send { bytes, open: true },
        },
        // The return itself stays, to say that a new line begins.
        (None, Tail::Open) if full && shown > 1 => Cut::Skip(shown - 1),
        (None, Tail::Open) => Cut::Wait,
    }
}

/// The text that an event shows for `bytes`; `continues` if a part of their first line was sent before.
pub fn text(bytes: &[u8], continues: bool, secrets: &Secrets) -> String {
    let mut text = String::with_capacity(bytes.len() + 1);
    for (index, part) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (line, ended) = match part.strip_suffix(b"\n") {
            Some(line) => (line, true),
            None => (part, false),
        };
        let shown = shown_from(line);
        if shown > 0 && index == 0 && continues {
            text.push('\n');
        }
        let line = without_trailing_returns(&line[shown..]);
        text.push_str(&String::from_utf8_lossy(line));
        if ended {
            text.push('\n');
        }
    }
    secrets.mask(text)
}

/// Where the visible part of a line begins: after the last carriage return that is followed by text.
fn shown_from(line: &[u8]) -> usize {
    let kept = without_trailing_returns(line);
    kept.iter()
        .rposition(|byte| *byte == b'\r')
        .map_or(0, |at| at + 1)
}

fn without_trailing_returns(line: &[u8]) -> &[u8] {
    let returns = line.iter().rev().take_while(|byte| **byte == b'\r').count();
    &line[..line.len() - returns]
}

/// How many bytes of `line` form whole characters: a character cut in the middle at the end is left out.
fn whole_characters(line: &[u8]) -> usize {
    let tail = line.len().saturating_sub(3);
    for start in (tail..line.len()).rev() {
        let width = match line[start] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => 1,
        };
        return if start + width > line.len() {
            start
        } else {
            line.len()
        };
    }
    line.len()
}

/// A place at or before `end` that splits neither a character nor a secret.
fn safe_end(line: &[u8], end: usize, secrets: &Secrets) -> usize {
    let end = secrets.end_before(line, end);
    match whole_characters(&line[..end]) {
        0 => end,
        whole => whole,
    }
}

/// Values that no log line may show.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Hides these values; empty and very short ones are left out.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut values: Vec<String> = values
            .into_iter()
            .filter(|value| value.len() >= SHORTEST_SECRET)
            .collect();
        // A value that holds another one goes first, or its rest would stay readable.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self(values)
    }

    /// These and more values.
    #[must_use]
    pub fn with(self, more: impl IntoIterator<Item = String>) -> Self {
        Self::new(self.0.into_iter().chain(more))
    }

    /// `text` with every secret replaced.
    pub fn mask(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| {
            if text.contains(secret.as_str()) {
                text.replace(secret.as_str(), MASK)
            } else {
                text
            }
        })
    }

    /// The same for bytes as they are.
    pub fn mask_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut masked = Cow::Borrowed(bytes);
        for secret in self.0.iter().map(String::as_bytes) {
            if let Some(replaced) = replace(&masked, secret) {
                masked = Cow::Owned(replaced);
            }
        }
        masked
    }

    /// The last place at or before `end` that does not lie inside a secret.
    fn end_before(&self, line: &[u8], end: usize) -> usize {
        let mut end = end;
        for secret in self.0.iter().map(String::as_bytes) {
            let first = end.saturating_sub(secret.len() - 1);
            for start in first..end {
                if start > 0 && line[start..].starts_with(secret) {
                    end = start;
                    break;
                }
            }
        }
        end
    }
}

/// `bytes` with each `secret` masked; `None` if there is none.
fn replace(bytes: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let first = *secret.first()?;
    let mut replaced: Option<Vec<u8>> = None;
    let (mut copied, mut at) = (0, 0);
    while let Some(step) = bytes[at..].iter().position(|byte| *byte == first) {
        at += step;
        if bytes[at..].starts_with(secret) {
            let replaced = replaced.get_or_insert_default();
            replaced.extend_from_slice(&bytes[copied..at]);
            replaced.extend_from_slice(MASK.as_bytes());
            at += secret.len();
            copied = at;
        } else {
            at += 1;
        }
    }
    let mut replaced = replaced?;
    replaced.extend_from_slice(&bytes[copied..]);
    Some(replaced)
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8]) -> String {
        text(bytes, false, &Secrets::default())
    }

    /// Cuts all of `bytes` as the uplink does, `step` more bytes becoming visible each time.
    fn log_of(bytes: &[u8], step: usize, secrets: &Secrets) -> String {
        const WINDOW: usize = 4 * EVENT_BYTES;
        let (mut log, mut seen, mut at) = (String::new(), 0, Position::default());
        loop {
            let start = usize::try_from(at.offset).unwrap();
            let window = &bytes[start..seen.min(start + WINDOW)];
            let tail = if seen == bytes.len() {
                Tail::Final
            } else {
                Tail::Open
            };
            match cut(window, window.len() == WINDOW, tail, secrets) {
                Cut::Send { bytes: count, open } => {
                    assert!(count > 0);
                    let event = text(&window[..count], at.continues, secrets);
                    assert!(event.len() <= 3 * EVENT_BYTES + 1, "{}", event.len());
                    log.push_str(&event);
                    at = Position {
                        offset: at.offset + count as u64,
                        continues: open,
                    };
                }
                Cut::Skip(count) => at.offset += count as u64,
                Cut::Wait if seen == bytes.len() => return log,
                Cut::Wait => seen = (seen + step).min(bytes.len()),
            }
        }
    }

    #[test]
    fn whole_lines_go_together_and_the_unfinished_one_waits() {
        let none = Secrets::default();
        assert_eq!(
            cut(b"one\ntwo\nthr", false, Tail::Open, &none),
            Cut::Send {
                bytes: 8,
                open: false
            }
        );
        assert_eq!(cut(b"thr", false, Tail::Open, &none), Cut::Wait);
        assert_eq!(
            cut(b"thr", false, Tail::Stale, &none),
            Cut::Send {
                bytes: 3,
                open: true
            }
        );
        assert_eq!(
            cut(b"thr", false, Tail::Final, &none),
            Cut::Send {
                bytes: 3,
                open: true
            }
        );
        assert_eq!(cut(b"", false, Tail::Final, &none), Cut::Wait);
    }

    #[test]
    fn of_a_progress_bar_only_the_last_state_is_kept() {
        assert_eq!(shown(b"  0%\r 50%\r100%\ndone\n"), "100%\ndone\n");
        assert_eq!(shown(b"10%\r20%\r\n"), "20%\n");
        assert_eq!(shown(b"10%\r20%\r"), "20%");
        assert_eq!(shown(b"windows\r\nlines\r\n"), "windows\nlines\n");
    }

    #[test]
    fn a_progress_bar_longer_than_the_window_is_skipped_not_kept_in_memory() {
        let bar: Vec<u8> = (0..20_000)
            .flat_map(|n| format!("\r{n:>60}").into_bytes())
            .collect();
        let mut log = bar.clone();
        log.extend_from_slice(b"\nend\n");
        assert_eq!(
            log_of(&log, 1000, &Secrets::default()),
            format!("{:>60}\nend\n", 19_999)
        );
    }

    #[test]
    fn a_carriage_return_after_a_part_that_was_sent_begins_a_new_line() {
        assert_eq!(text(b" more\rnew\n", true, &Secrets::default()), "\nnew\n");
        assert_eq!(text(b" more\n", true, &Secrets::default()), " more\n");
    }

    #[test]
    fn a_character_cut_in_the_middle_waits_for_its_rest() {
        let none = Secrets::default();
        let euro = "a€".as_bytes();
        assert_eq!(
            cut(&euro[..3], false, Tail::Stale, &none),
            Cut::Send {
                bytes: 1,
                open: true
            }
        );
        assert_eq!(
            cut(euro, false, Tail::Stale, &none),
            Cut::Send {
                bytes: 4,
                open: true
            }
        );
        assert_eq!(cut(&euro[1..3], false, Tail::Stale, &none), Cut::Wait);
        assert_eq!(
            cut(&euro[1..3], false, Tail::Final, &none),
            Cut::Send {
                bytes: 2,
                open: true
            }
        );
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_colours_stay() {
        assert_eq!(shown(b"\xff\xfe\n"), "\u{fffd}\u{fffd}\n");
        assert_eq!(shown(b"\x1b[31mred\x1b[0m\n"), "\u{1b}[31mred\u{1b}[0m\n");
    }

    #[test]
    fn secrets_are_masked_also_where_a_long_line_is_split() {
        let secrets = Secrets::new(["s3cr3t-value".to_owned(), "ab".to_owned(), String::new()]);
        assert_eq!(
            secrets.mask("key=s3cr3t-value ab".to_owned()),
            "key=**** ab"
        );
        assert_eq!(
            *secrets.mask_bytes(b"ss3cr3t-value\xffs3cr3t-values3"),
            *b"s****\xff****s3"
        );
        let mut line = vec![b'x'; EVENT_BYTES - 5];
        line.extend_from_slice(b"s3cr3t-value");
        line.extend_from_slice(&[b'y'; 100]);
        line.push(b'\n');
        let log = log_of(&line, 1 << 20, &secrets);
        assert!(log.contains("x****y"), "{}", &log[log.len() - 130..]);
        assert!(!format!("{secrets:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_line_of_ten_megabytes_arrives_whole() {
        let mut line = "0123456789abcdé".repeat(700_000).into_bytes();
        line.push(b'\n');
        assert_eq!(
            log_of(&line, 1 << 20, &Secrets::default()).into_bytes(),
            line
        );
    }

    proptest! {
        #[test]
        fn whatever_is_written_arrives_once_and_in_order(
            lines in prop::collection::vec("[a-zé€ \t]{0,40}", 0..60),
            step in 1_usize..200,
            last in prop::bool::ANY,
        ) {
            let mut written = lines.join("\n");
            if last { written.push('\n'); }
            prop_assert_eq!(log_of(written.as_bytes(), step, &Secrets::default()), written);
        }

        #[test]
        fn no_bytes_make_it_stumble(bytes in prop::collection::vec(any::<u8>(), 0..2000), step in 1_usize..500) {
            let once = log_of(&bytes, step, &Secrets::default());
            let whole = log_of(&bytes, bytes.len().max(1), &Secrets::default());
            prop_assert_eq!(once, whole);
        }
    }
}
