//! What was written, and whether the server has it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::super::pod::Pod;

/// Copies the spool before what the server has is freed.
pub struct Follower {
    finish: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u8>>,
}

impl Follower {
    pub fn start(pod: &Pod<'_>) -> Self {
        let spool: PathBuf = pod.path("root/spool/log");
        let log = File::open(&spool).expect("prepare has made the spool");
        let finish = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&finish);
        let thread = thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                let last = told.load(Ordering::Acquire);
                let read = log
                    .read_at(&mut buffer, bytes.len() as u64)
                    .expect("the spool is read");
                bytes.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    if last {
                        return bytes;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { finish, thread }
    }

    /// All bytes that were ever written; nothing where it was too slow to see them all.
    pub fn finish(self) -> Option<Vec<u8>> {
        self.finish.store(true, Ordering::Release);
        let bytes = self.thread.join().expect("the follower ends");
        // No writer writes zeros: a hole was made before it was copied, which says nothing about the log.
        (!bytes.contains(&0)).then_some(bytes)
    }
}

/// How many lines each writer knows to be written.
pub fn receipts(pod: &Pod<'_>) -> BTreeMap<String, usize> {
    let files = fs::read_dir(pod.path("root/code")).expect("the code folder");
    let receipts = files.flatten().filter_map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        let writer = name.strip_prefix("receipt.")?.to_owned();
        let count = fs::read_to_string(file.path()).expect("a receipt");
        // Killed between making it and writing the first line.
        Some((writer, count.trim().parse().unwrap_or(0)))
    });
    receipts.collect()
}

/// The documented rule for carriage returns, once more and in other words than the product's.
pub fn folded(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (mut line, ended) = (&rest[..end.unwrap_or(rest.len())], end.is_some());
        rest = &rest[end.map_or(rest.len(), |at| at + 1)..];
        while let [shorter @ .., b'\r'] = line {
            line = shorter;
        }
        let kept = line
            .split(|byte| *byte == b'\r')
            .next_back()
            .unwrap_or_default();
        text += &String::from_utf8_lossy(kept);
        if ended {
            text.push('\n');
        }
    }
    text
}

/// Everything that is wrong with `log`, in words.
pub fn judge(written: &[u8], log: &str, receipts: &BTreeMap<String, usize>) -> Vec<String> {
    let mut wrong = Vec::new();
    let wanted = folded(written);
    if let Some(difference) = difference(&wanted, log) {
        wrong.push(difference);
    }
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for (writer, number) in numbered(log) {
        let next = numbers.entry(writer).or_default();
        if number != *next {
            wrong.push(format!("{writer} goes from line {next} to {number}"));
            break;
        }
        *next += 1;
    }
    for (writer, count) in receipts {
        let there = numbers.get(writer.as_str()).copied().unwrap_or_default();
        if there < *count {
            wrong.push(format!(
                "{writer} has written {count} lines, {there} are there"
            ));
        }
    }
    if receipts.is_empty() {
        wrong.push("nothing was written".to_owned());
    }
    wrong
}

/// The marks `<WRITER:NUMBER>`, wherever in a line they stand.
fn numbered(log: &str) -> impl Iterator<Item = (&str, usize)> {
    log.split('<').skip(1).filter_map(|rest| {
        let (writer, number) = rest.split_once('>')?.0.split_once(':')?;
        Some((writer, number.parse().ok()?))
    })
}

fn difference(wanted: &str, found: &str) -> Option<String> {
    if wanted == found {
        return None;
    }
    let at = wanted
        .bytes()
        .zip(found.bytes())
        .position(|(wanted, found)| wanted != found)
        .unwrap_or(wanted.len().min(found.len()));
    let around = |text: &str| {
        let bytes = &text.as_bytes()[at.saturating_sub(60)..text.len().min(at + 100)];
        String::from_utf8_lossy(bytes).into_owned()
    };
    Some(format!(
        "{} bytes for {}, the first difference is at {at}: {:?} for {:?}",
        found.len(),
        wanted.len(),
        around(found),
        around(wanted)
    ))
}

#[test]
fn the_judge_sees_what_is_lost_doubled_and_swapped() {
    let log = "<a:0> x\n<b:0> y\n<a:1> z\n";
    let receipts = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert!(judge(b"\r1%\r<a:0> x\r\n<b:0> y\n<a:1> z\n", log, &receipts).is_empty());
    for other in [
        "<a:0> x\n<a:1> z\n",
        "<a:0> x\n<b:0> y\n<a:1> z\n<a:1> z\n",
        "<a:1> z\n<b:0> y\n<a:0> x\n",
        "<a:0> x\n<b:0> y\n<a:1> z",
    ] {
        assert!(
            !judge(log.as_bytes(), other, &receipts).is_empty(),
            "{other}"
        );
    }
    assert_eq!(judge(&log.as_bytes()[..16], &log[..16], &receipts).len(), 1);
}
