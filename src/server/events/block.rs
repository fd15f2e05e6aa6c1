//! Log lines as they are stored: many in one row, what they share written once. Pure.
//!
//! ```text
//! block  = length of the head (4 bytes) · head · lines
//! head   = JSON: the members that lines share, as a list of documents
//! line   = which of the documents · milliseconds since the line before · length of the text + 1, or 0 · text
//! ```
//!
//! Numbers of a line are variable-length, seven bits a byte, lowest first; the milliseconds are zigzag-coded.

use std::collections::HashMap;

use serde_json::Value;

use super::super::wire::Doc;

/// One block holds at most so many lines, and about so many bytes.
const LINES: i64 = 1000;
const BYTES: usize = 256 << 10;
/// What a written line has beside its head and its text.
const FURTHER: usize = 40;

/// A block that is being filled.
#[derive(Default)]
pub(super) struct Builder {
    heads: Vec<String>,
    known: HashMap<String, usize>,
    lines: Vec<u8>,
    last: i64,
    pub(super) count: i64,
    /// Earliest and latest moment.
    pub(super) span: (i64, i64),
}

impl Builder {
    /// Adds a line: the JSON of what it shares with others, its moment and its text.
    pub(super) fn add(&mut self, shared: &str, at: i64, text: Option<&str>) {
        let head = if let Some(head) = self.known.get(shared) {
            *head
        } else {
            self.heads.push(shared.to_owned());
            self.known.insert(shared.to_owned(), self.heads.len() - 1);
            self.heads.len() - 1
        };
        put(&mut self.lines, head as u64);
        put(&mut self.lines, zigzag(at.wrapping_sub(self.last)));
        put(
            &mut self.lines,
            text.map_or(0, |text| text.len() as u64 + 1),
        );
        self.lines
            .extend_from_slice(text.unwrap_or_default().as_bytes());
        self.span = if self.count == 0 {
            (at, at)
        } else {
            (self.span.0.min(at), self.span.1.max(at))
        };
        self.last = at;
        self.count += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= LINES || self.lines.len() >= BYTES
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let head = format!("[{}]", self.heads.join(","));
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(4 + head.len() + self.lines.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.lines);
        bytes
    }
}

/// A block that was read.
pub(super) struct Block {
    heads: Vec<Doc>,
    /// The same as JSON, without the closing brace.
    written: Vec<String>,
    texts: Vec<u8>,
    lines: Vec<Place>,
}

/// Where a line stands in its block.
#[derive(Clone, Copy)]
struct Place {
    at: i64,
    head: u32,
    /// Start and end of the text; both 0 if there is none.
    text: (u32, u32),
}

impl Block {
    /// Reads a block; `None` if it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (head, texts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let heads: Vec<Doc> = serde_json::from_slice(head).ok()?;
        let mut rest = texts;
        let mut lines = Vec::new();
        let mut at = 0_i64;
        while !rest.is_empty() {
            let head = u32::try_from(take(&mut rest)?).ok()?;
            at = at.wrapping_add(unzigzag(take(&mut rest)?));
            let length = usize::try_from(take(&mut rest)?).ok()?;
            let mut text = (0, 0);
            if let Some(length) = length.checked_sub(1) {
                let start = texts.len() - rest.len();
                rest = rest.get(length..)?;
                text = (
                    u32::try_from(start).ok()?,
                    u32::try_from(start + length).ok()?,
                );
                // An empty text is told from none by where it stands: none stands at 0.
            }
            heads.get(head as usize)?;
            lines.push(Place { at, head, text });
        }
        let texts = texts.to_vec();
        let written = heads.iter().map(|head| {
            let mut text = serde_json::to_string(head).ok()?;
            text.pop();
            Some(text)
        });
        Some(Self {
            written: written.collect::<Option<_>>()?,
            heads,
            texts,
            lines,
        })
    }

    /// The moments of the lines, in order of arrival.
    pub(super) fn moments(&self) -> impl Iterator<Item = i64> + '_ {
        self.lines.iter().map(|line| line.at)
    }

    /// About how many bytes a line is when it is written.
    pub(super) fn weight(&self, line: usize) -> usize {
        self.lines.get(line).map_or(0, |place| {
            let (start, end) = place.text;
            self.written[place.head as usize].len() + (end - start) as usize + FURTHER
        })
    }

    /// A line as it was reported.
    pub(super) fn event(&self, line: usize) -> Doc {
        let Some(place) = self.lines.get(line) else {
            return Doc::new();
        };
        let mut event = self.heads[place.head as usize].clone();
        event.insert("timestamp".into(), place.at.into());
        if let Some(text) = self.text(line) {
            event.insert("msg".into(), Value::String(text.into_owned()));
        }
        event
    }

    /// The same as JSON, at the end of `out`.
    pub(super) fn write(&self, line: usize, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let Some(place) = self.lines.get(line) else {
            out.extend_from_slice(b"{}");
            return Ok(());
        };
        let head = &self.written[place.head as usize];
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(if head.len() > 1 {
            b",\"timestamp\":"
        } else {
            b"\"timestamp\":"
        });
        out.extend_from_slice(place.at.to_string().as_bytes());
        if let Some(text) = self.text(line) {
            out.extend_from_slice(b",\"msg\":");
            serde_json::to_writer(&mut *out, &text)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// The text of a line, if it has one.
    pub(super) fn text(&self, line: usize) -> Option<std::borrow::Cow<'_, str>> {
        let (start, end) = self.lines.get(line)?.text;
        (start > 0)
            .then(|| self.texts.get(start as usize..end as usize))
            .flatten()
            .map(String::from_utf8_lossy)
    }
}

fn zigzag(number: i64) -> u64 {
    (number.cast_unsigned() << 1) ^ (number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_stored_is_what_is_read(
            lines in prop::collection::vec((any::<i64>(), 0..3_usize, prop::option::of(".{0,40}")), 0..50)
        ) {
            let heads = [r#"{"level":"INFO"}"#, r#"{"level":"ERROR","worker":"w"}"#, "{}"];
            let mut builder = Builder::default();
            for (at, head, text) in &lines {
                builder.add(heads[*head], *at, text.as_deref());
            }
            let block = Block::read(&builder.bytes()).unwrap();
            prop_assert_eq!(block.moments().collect::<Vec<_>>(), lines.iter().map(|line| line.0).collect::<Vec<_>>());
            for (i, (at, head, text)) in lines.iter().enumerate() {
                let mut event: Doc = serde_json::from_str(heads[*head]).unwrap();
                event.insert("timestamp".into(), (*at).into());
                if let Some(text) = text {
                    event.insert("msg".into(), text.as_str().into());
                }
                let mut written = Vec::new();
                block.write(i, &mut written).unwrap();
                prop_assert_eq!(&serde_json::from_slice::<Doc>(&written).unwrap(), &event);
                prop_assert_eq!(block.event(i), event);
            }
        }

        #[test]
        fn odd_bytes_are_no_block_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Block::read(&bytes);
        }
    }
}
