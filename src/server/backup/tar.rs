//! As much of the tar format as a backup needs: files with long names and any size, so that any `tar` reads it too.
//!
//! A name or size that does not fit the classic header stands in a record of its own before it (POSIX `pax`).

use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// The largest size of the classic header: eleven octal digits.
const CLASSIC_SIZE: u64 = 0o777_7777_7777;
const CLASSIC_NAME: usize = 100;
/// The largest record before a file; more than any name needs.
const LARGEST_RECORD: u64 = 1 << 20;

/// Writes an archive.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a file of exactly `size` bytes.
    pub(super) fn file(
        &mut self,
        name: &str,
        size: u64,
        contents: &mut impl Read,
    ) -> io::Result<()> {
        let mut record = String::new();
        if name.len() > CLASSIC_NAME {
            record += &pair("path", name);
        }
        if size > CLASSIC_SIZE {
            record += &pair("size", &size.to_string());
        }
        if !record.is_empty() {
            self.out
                .write_all(&header("pax", b'x', record.len() as u64))?;
            self.out.write_all(record.as_bytes())?;
            self.pad(record.len() as u64)?;
        }
        self.out.write_all(&header(name, b'0', size))?;
        if io::copy(&mut contents.take(size), &mut self.out)? < size {
            return Err(io::Error::other(format!("{name} became shorter meanwhile")));
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// `<length> key=value\n`, where the length counts itself.
fn pair(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

fn header(name: &str, kind: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    let mut end = name.len().min(CLASSIC_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    put(0, &name.as_bytes()[..end]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", size.min(CLASSIC_SIZE)).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Reads an archive.
pub(super) struct Reader<R> {
    input: R,
    /// What is left of the current file, and of the padding behind it.
    left: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// Name and size of the next file; `None` at the archive's proper end.
    pub(super) fn next(&mut self) -> io::Result<Option<(String, u64)>> {
        let (mut name, mut size) = (None, None);
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            self.input
                .read_exact(&mut block)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => wrong("it is cut off"),
                    _ => error,
                })?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            check(&block)?;
            let length = octal(&block[124..136])?;
            match block[156] {
                b'x' => {
                    let record = self.record(length)?;
                    for (key, value) in record {
                        match key.as_str() {
                            "path" => name = Some(value),
                            "size" => size = value.parse().ok(),
                            _ => {}
                        }
                    }
                }
                b'0' | 0 => {
                    let size = size.unwrap_or(length);
                    self.begin(size);
                    let end = block[..100]
                        .iter()
                        .position(|byte| *byte == 0)
                        .unwrap_or(100);
                    let short = String::from_utf8_lossy(&block[..end]).into_owned();
                    return Ok(Some((name.unwrap_or(short), size)));
                }
                // Folders and the like come with other tars; files bring their own folders.
                _ => self.begin(length),
            }
        }
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped < rest {
            return Err(wrong("it is cut off"));
        }
        Ok(())
    }

    fn record(&mut self, length: u64) -> io::Result<Vec<(String, String)>> {
        if length > LARGEST_RECORD {
            return Err(wrong("a record before a file is too long"));
        }
        self.begin(length);
        let mut text = Vec::new();
        self.copy(&mut text)?;
        let text = String::from_utf8(text).map_err(|_| wrong("a name in it is no text"))?;
        let mut pairs = Vec::new();
        let mut rest = text.as_str();
        while let Some((length, _)) = rest.split_once(' ') {
            let length: usize = length
                .parse()
                .map_err(|_| wrong("a record before a file cannot be read"))?;
            let (Some(line), Some(after)) = (rest.get(..length), rest.get(length..)) else {
                return Err(wrong("a record before a file cannot be read"));
            };
            rest = after;
            let pair = line
                .split_once(' ')
                .and_then(|(_, pair)| pair.split_once('='));
            if let Some((key, value)) = pair {
                pairs.push((key.to_owned(), value.trim_end_matches('\n').to_owned()));
            }
        }
        Ok(pairs)
    }

    /// Copies the current file.
    pub(super) fn copy(&mut self, to: &mut impl Write) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.input).take(self.left), to)?;
        self.left -= copied;
        if self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(field).map_err(|_| wrong("a number in it cannot be read"))?;
    let digits = text.trim_matches(|c: char| c == '\0' || c == ' ');
    u64::from_str_radix(digits, 8).map_err(|_| wrong("a number in it cannot be read"))
}

fn check(block: &[u8; BLOCK]) -> io::Result<()> {
    let outside = block[..148].iter().chain(&block[156..]);
    let sum: u64 = outside.map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ');
    if octal(&block[148..156])? == sum {
        Ok(())
    } else {
        Err(wrong("a checksum in it is wrong"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (name, contents) in files {
            let mut reader = *contents;
            writer
                .file(name, contents.len() as u64, &mut reader)
                .unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let long = format!("files/{}/ä.bin", "x".repeat(200));
        let files: [(&str, &[u8]); 4] = [
            ("a", b""),
            (&long, b"abc"),
            ("b", &[7; 512]),
            ("c", &[8; 513]),
        ];
        let bytes = archive(&files);
        let mut reader = Reader::new(bytes.as_slice());
        for (name, contents) in files {
            assert_eq!(
                reader.next().unwrap(),
                Some((name.to_owned(), contents.len() as u64))
            );
            let mut out = Vec::new();
            reader.copy(&mut out).unwrap();
            assert_eq!(out, contents, "{name}");
        }
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn an_archive_that_is_cut_off_or_altered_is_noticed() {
        let bytes = archive(&[("a", &[1; 600])]);
        for end in [0, 100, 600, 1024, 1536] {
            let mut reader = Reader::new(&bytes[..end]);
            let mut out = Vec::new();
            let read = reader
                .next()
                .and_then(|_| reader.copy(&mut out))
                .and_then(|()| reader.next());
            assert!(read.is_err(), "cut at {end}");
        }
        let mut altered = bytes;
        altered[0] = b'b';
        assert!(Reader::new(altered.as_slice()).next().is_err());
    }

    #[test]
    fn a_records_length_counts_itself() {
        assert_eq!(pair("path", "abc"), "12 path=abc\n");
        let long = pair("path", &"x".repeat(90));
        assert!(long.starts_with(&format!("{} ", long.len())));
    }
}
