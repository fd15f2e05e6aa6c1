//! Copies the spool to our own stdout (`kubectl logs`), keeps the newest lines for messages, and gives disk space back.
//!
//! A thread of its own: a container's stdout may block, and nothing else may wait for it. Here raw bytes are shown,
//! carriage returns included, as a terminal would get them; secrets are masked.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::outcome::bounded;
use super::output::{Secrets, text};
use super::spool::{NOTE, Spool, Trace};

/// How often the spool is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Most bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// An unfinished line is shown after so long.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many lines are kept for messages, and how much of each.
const KEPT_LINES: usize = 20;
const KEPT_BYTES: usize = 500;
/// Space is given back in steps of this size, and this much is left before what was acknowledged.
const FREE_STEP: u64 = 1024 * 1024;
const FREE_EVERY: Duration = Duration::from_secs(1);
/// How often the log's length is recorded with its time, for an uplink that is not there now.
const STAMP_EVERY: Duration = Duration::from_secs(1);

/// What the log says when the task opens its own output for writing.
const BEGUN_ANEW: &str = "the task has overwritten its own output, as `> /dev/stderr` does; lines that were not sent yet are lost: use `>&2`";

/// The running copy.
#[derive(Debug)]
pub struct Echo {
    last: Arc<Mutex<VecDeque<String>>>,
    first: Arc<OnceLock<Timestamp>>,
    /// A note is about to be written.
    telling: Arc<AtomicBool>,
    /// How often the spool was looked at.
    turns: Arc<AtomicU64>,
    /// Length of the log from which on lines are no longer kept.
    until: Arc<AtomicU64>,
    finish: Arc<AtomicBool>,
    thread: Thread,
    done: mpsc::Receiver<()>,
}

impl Echo {
    /// Starts copying from the spool's beginning.
    pub fn start(
        spool: Spool,
        secrets: Secrets,
        out: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let last = Arc::new(Mutex::new(VecDeque::new()));
        let first = Arc::new(OnceLock::new());
        let telling = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicU64::new(0));
        let until = Arc::new(AtomicU64::new(u64::MAX));
        let finish = Arc::new(AtomicBool::new(false));
        let (ended, done) = mpsc::channel();
        let mut copy = Copy {
            spool,
            secrets,
            out: Some(out),
            at: 0,
            buffer: Vec::new(),
            last: last.clone(),
            first: first.clone(),
            until: until.clone(),
            waiting: Instant::now(),
            freed: 0,
            freed_at: Instant::now(),
            stamped: None,
            trace: Trace::default(),
            telling: telling.clone(),
            told: None,
        };
        let told = finish.clone();
        let counted = turns.clone();
        let hand = thread::Builder::new()
            .name("echo".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                // Asked before the last turn, so that the last turn sees all that was written until then.
                loop {
                    let last_turn = told.load(Ordering::Acquire);
                    let more = copy.turn(last_turn);
                    counted.fetch_add(1, Ordering::AcqRel);
                    if last_turn && !more {
                        break;
                    }
                    if !more {
                        thread::park_timeout(POLL);
                    }
                }
                let _ = ended.send(());
            })?;
        Ok(Self {
            last,
            first,
            telling,
            turns,
            until,
            finish,
            thread: hand.thread().clone(),
            done,
        })
    }

    /// Has the spool looked at now, however short it is after the last look. The answer is for [`Echo::has_told`].
    pub fn look(&self) -> u64 {
        // The turn that runs now may have passed what it would have to see; the one after it has not.
        let seen = self.turns.load(Ordering::Acquire) + 2;
        self.thread.unpark();
        seen
    }

    /// Whether the look that was asked for is done, and no note about it is still to be written: the log is not closed
    /// before.
    pub fn has_told(&self, look: u64) -> bool {
        self.thread.unpark();
        self.turns.load(Ordering::Acquire) >= look && !self.telling.load(Ordering::Acquire)
    }

    /// What the log has beyond this length is shown, but says nothing of how the task's process ended.
    pub fn keep_until(&self, length: u64) {
        self.until.store(length, Ordering::Release);
    }

    /// When the first line of the task's own output was seen, at most a look of the spool after it was written.
    pub fn first_line(&self) -> Option<Timestamp> {
        self.first.get().copied()
    }

    /// Copies what is left, for at most `most`, and returns the newest lines of the task's own output.
    pub fn finish(&self, most: Duration) -> Vec<String> {
        self.finish.store(true, Ordering::Release);
        if self.done.recv_timeout(most).is_err() {
            tracing::warn!("the container's stdout does not take the rest of the log");
        }
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

struct Copy<W> {
    spool: Spool,
    secrets: Secrets,
    /// Absent once nobody reads it.
    out: Option<W>,
    at: u64,
    buffer: Vec<u8>,
    last: Arc<Mutex<VecDeque<String>>>,
    first: Arc<OnceLock<Timestamp>>,
    until: Arc<AtomicU64>,
    waiting: Instant,
    freed: u64,
    freed_at: Instant,
    /// When, and how long the log was then.
    stamped: Option<(Instant, u64)>,
    /// What stands before the place that was copied last.
    trace: Trace,
    telling: Arc<AtomicBool>,
    /// Since when it is known that the task has overwritten its output.
    told: Option<Instant>,
}

impl<W: Write> Copy<W> {
    /// Copies one chunk; whether there may be more at once.
    fn turn(&mut self, last: bool) -> bool {
        let read = self.spool.read(self.at, CHUNK, &mut self.buffer);
        // Looked at after the read: what was read may be of a log that the task has begun anew just before.
        if self.begun_anew() {
            self.at = 0;
            self.freed = 0;
            return true;
        }
        self.tell();
        if read.is_err() {
            return false;
        }
        self.stamp();
        let full = self.buffer.len() == CHUNK;
        let whole = match self.buffer.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if full || last || self.waiting.elapsed() >= PATIENCE => self.buffer.len(),
            None => 0,
        };
        let whole = if last && !full {
            self.buffer.len()
        } else {
            whole
        };
        if whole > 0 {
            self.waiting = Instant::now();
            self.write(whole);
            self.keep(whole);
            self.at += whole as u64;
            let trace = self.spool.trace(self.at).unwrap_or_default();
            // Else the next turn sees by the old one that the task has begun it anew meanwhile.
            if self.spool.goes_on_from(&self.trace).unwrap_or(true) {
                self.trace = trace;
            }
        } else if self.buffer.is_empty() {
            self.waiting = Instant::now();
        }
        self.free();
        full
    }

    /// Tells the next uplink, if this one dies, when what it finds was written.
    fn stamp(&mut self) {
        let seen = self.at + self.buffer.len() as u64;
        let due = self
            .stamped
            .is_none_or(|(at, length)| length != seen && at.elapsed() >= STAMP_EVERY);
        if due && seen > 0 {
            self.stamped = Some((Instant::now(), seen));
            if let Err(error) = self.spool.stamp(Timestamp::now().as_millisecond()) {
                tracing::debug!(%error, "could not record the time of the log's lines");
            }
        }
    }

    /// Whether the task has truncated its own output, which its user is told once.
    fn begun_anew(&mut self) -> bool {
        let grown = self.spool.length().is_ok_and(|length| length != self.at);
        if !grown || self.spool.goes_on_from(&self.trace).unwrap_or(true) {
            return false;
        }
        self.trace = Trace::default();
        if self.told.is_none() {
            self.told = Some(Instant::now());
            self.telling.store(true, Ordering::Release);
        }
        true
    }

    /// Tells what the task has done to its output, once it has had the time to write where it begins anew: it would
    /// overwrite a note that stands there.
    fn tell(&self) {
        let is_due = self.told.is_some_and(|since| since.elapsed() >= PATIENCE);
        if is_due && self.telling.load(Ordering::Acquire) {
            let _ = self.spool.note(BEGUN_ANEW);
            self.telling.store(false, Ordering::Release);
        }
    }

    fn write(&mut self, count: usize) {
        let Some(out) = &mut self.out else { return };
        let bytes = self.secrets.mask_bytes(&self.buffer[..count]);
        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
            self.out = None;
        }
    }

    fn keep(&self, count: usize) {
        let left = self.until.load(Ordering::Acquire).saturating_sub(self.at);
        let count = usize::try_from(left).map_or(count, |left| left.min(count));
        // Only the newest lines count, so only the end of a chunk is looked at.
        let from = count.saturating_sub(2 * KEPT_LINES * KEPT_BYTES);
        let shown = text(&self.buffer[from..count], false, &self.secrets);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for line in shown.lines().map(str::trim_end) {
            if line.is_empty() || line.starts_with(NOTE) {
                continue;
            }
            self.first.get_or_init(Timestamp::now);
            if last.len() == KEPT_LINES {
                last.pop_front();
            }
            last.push_back(bounded(line, KEPT_BYTES));
        }
    }

    /// Frees what both the server and we have seen.
    fn free(&mut self) {
        if self.freed_at.elapsed() < FREE_EVERY || self.at < self.freed + FREE_STEP {
            return;
        }
        self.freed_at = Instant::now();
        let Ok(acknowledged) = self.spool.acknowledged() else {
            return;
        };
        let done = acknowledged.at.offset.min(self.at);
        if done >= self.freed + FREE_STEP && self.spool.free_before(done).is_ok() {
            self.freed = done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn echo(write: impl FnOnce(&Spool)) -> (String, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let shown = Shown::default();
        let secrets = Secrets::new(["topsecret".to_owned()]);
        let echo =
            Echo::start(Spool::open(folder.path()).unwrap(), secrets, shown.clone()).unwrap();
        write(&spool);
        let last = echo.finish(Duration::from_secs(20));
        assert_eq!(echo.first_line().is_some(), !last.is_empty());
        let bytes = shown.0.lock().unwrap().clone();
        (String::from_utf8(bytes).unwrap(), last)
    }

    #[test]
    fn everything_is_shown_as_written_but_secrets() {
        let (shown, last) = echo(|spool| {
            spool.line("a\rb topsecret").unwrap();
            spool.handle().unwrap().write_all(b"no end").unwrap();
        });
        assert_eq!(shown, "a\rb ****\nno end");
        assert_eq!(last, ["b ****", "no end"]);
    }

    #[test]
    fn notes_of_ours_are_no_first_line() {
        let (_, last) = echo(|spool| spool.line(&format!("{NOTE}a note of ours")).unwrap());
        assert!(last.is_empty());
    }

    #[test]
    fn the_newest_lines_of_the_task_are_kept_without_ours() {
        let (shown, last) = echo(|spool| {
            for n in 0..50_000 {
                spool.line(&format!("line {n}")).unwrap();
            }
            spool.line(&format!("{NOTE}a note of ours")).unwrap();
        });
        assert_eq!(shown.lines().count(), 50_001);
        assert_eq!(last.len(), KEPT_LINES);
        assert_eq!(last.last().unwrap(), "line 49999");
    }

    #[test]
    fn lines_behind_the_end_of_the_process_are_shown_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let other = Spool::open(folder.path()).unwrap();
        let shown = Shown::default();
        let echo = Echo::start(other, Secrets::default(), shown.clone()).unwrap();
        spool.line("ValueError").unwrap();
        spool.handle().unwrap().write_all(b"no end").unwrap();
        echo.keep_until(spool.length().unwrap());
        spool.line(" after it").unwrap();
        spool.line("and more").unwrap();
        let last = echo.finish(Duration::from_secs(20));
        assert_eq!(last, ["ValueError", "no end"]);
        let bytes = shown.0.lock().unwrap().clone();
        let shown = String::from_utf8(bytes).unwrap();
        assert_eq!(shown, "ValueError\nno end after it\nand more\n");
    }

    #[test]
    fn an_output_that_is_overwritten_right_before_the_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let other = Spool::open(folder.path()).unwrap();
        let shown = Shown::default();
        let echo = Echo::start(other, Secrets::default(), shown.clone()).unwrap();
        spool.line("before").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while shown.0.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "the first line is shown");
            thread::sleep(POLL);
        }
        let look = || {
            let look = echo.look();
            while !echo.has_told(look) {
                assert!(Instant::now() < deadline, "the look is done");
                thread::sleep(Duration::from_millis(1));
            }
        };
        look();
        std::fs::File::create(folder.path().join("log")).unwrap();
        spool.line("opened anew, and longer than before").unwrap();
        look();
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.contains(BEGUN_ANEW), "{log}");
        echo.finish(Duration::from_secs(20));
    }
}
