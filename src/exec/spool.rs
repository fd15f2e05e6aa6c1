//! The spool: the file that is the user's stdout and stderr, and the small files beside it.
//!
//! ```text
//! log       raw bytes, appended by every process of the task container; ours are plain lines among them
//! ack.json  written by the uplink: what the server has, and what is on its way there
//! end       written by process 1: the log's final length, once all writers are gone
//! lock      held by process 1 as long as it lives
//! times     written by `prepare` and process 1: how long the log was at which time, for an uplink that was not there
//! ```
//!
//! Process 1 and the uplink may run as different users, so everything here may be written by all; the volume is the
//! pod's own.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::output::{Piece, Position};
use super::small;

/// Version of what stands beside the log.
const VERSION: u32 = 1;
/// Files that another user of the pod must be able to write.
const SHARED_FILE: u32 = 0o666;
const SHARED_FOLDER: u32 = 0o777;

/// How a line of ours begins, among the lines of the task.
pub const NOTE: &str = "trainyard: ";

/// Most bytes of `times`, and how many stamps are kept when it has become longer.
const TIMES_BYTES: u64 = 64 * 1024;
const KEPT_STAMPS: usize = 500;

/// Most bytes of a file beside the log: the task may write there, too, and put other things than files in their place.
/// Ours stay below half of that.
const BESIDE_BYTES: u64 = 1 << 20;

/// How many bytes before a place the log is recognized by.
const TRACE_BYTES: u64 = 64;

/// The last bytes before a place in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    from: u64,
    bytes: Vec<u8>,
}

/// What the uplink knows to be on the server, and what it may or may not have sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    version: u32,
    /// Everything before this place is on the server.
    pub at: Position,
    /// Time of the newest event that was made; the next ones are later.
    pub time: i64,
    /// Written before these pieces are sent, empty once the answer is known.
    pub sending: Vec<Piece>,
}

impl Default for Acknowledged {
    fn default() -> Self {
        Self {
            version: VERSION,
            at: Position::default(),
            time: 0,
            sending: Vec::new(),
        }
    }
}

/// The spool's folder and the open log.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    log: File,
}

impl Spool {
    /// Opens the spool, making folder and log if this is the first of the pod's containers.
    pub fn open(folder: &Path) -> io::Result<Self> {
        shared_folder(folder)?;
        let path = folder.join("log");
        let log = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(SHARED_FILE)
            .open(&path)?;
        // Only the owner may do this, and only the owner needs to: the umask may have taken bits away.
        let _ = log.set_permissions(Permissions::from_mode(SHARED_FILE));
        Ok(Self {
            folder: folder.to_owned(),
            log,
        })
    }

    /// Appends one line of ours. It is one write, so it never lands inside a line that a single write made.
    pub fn line(&self, text: &str) -> io::Result<()> {
        let mut line = String::with_capacity(text.len() + 1);
        line.push_str(text);
        line.push('\n');
        (&self.log).write_all(line.as_bytes())
    }

    /// Appends a remark of ours, on a line of its own even if the task has left its last line unfinished.
    pub fn note(&self, text: &str) -> io::Result<()> {
        let length = self.length()?;
        let mut last = [b'\n'];
        if length > 0 {
            self.log.read_at(&mut last, length - 1)?;
        }
        let start = if last == *b"\n" { "" } else { "\n" };
        self.line(&format!("{start}{NOTE}{text}"))
    }

    /// Records that the log has had its present length at `now` (milliseconds).
    pub fn stamp(&self, now: i64) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(SHARED_FILE);
        let mut times = small::open_plain(&self.folder.join("times"), &mut options)?;
        times.write_all(format!("{} {now}\n", self.length()?).as_bytes())?;
        if times.metadata()?.len() > TIMES_BYTES {
            self.thin_out_stamps()?;
        }
        Ok(())
    }

    /// Forgets the stamps of what is acknowledged, and of the others as many as there are too many.
    fn thin_out_stamps(&self) -> io::Result<()> {
        let done = self.acknowledged()?.at.offset;
        let mut kept = self.stamps();
        kept.retain(|(length, _)| *length > done);
        let step = kept.len().div_ceil(KEPT_STAMPS).max(1);
        // The last of each step: its bytes are not given a time before they were there.
        let last = kept.rchunks(step).rev().filter_map(|chunk| chunk.last());
        let mut text = String::new();
        for (length, time) in last {
            let _ = writeln!(text, "{length} {time}");
        }
        write_shared(&self.folder.join("times"), text.as_bytes())
    }

    /// Lengths of the log at known times, oldest first; what cannot be read is left out.
    pub fn stamps(&self) -> Vec<(u64, i64)> {
        let bytes = small::plain_bytes(&self.folder.join("times"), BESIDE_BYTES);
        let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let (length, time) = line.split_once(' ')?;
                Some((length.parse().ok()?, time.parse().ok()?))
            })
            .collect()
    }

    /// A handle for a process to write to: the same file, opened for append.
    pub fn handle(&self) -> io::Result<File> {
        self.log.try_clone()
    }

    /// Length of the log in bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.log.metadata()?.len())
    }

    /// Reads up to `most` bytes from `offset` into `buffer`, which is overwritten.
    pub fn read(&self, offset: u64, most: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.resize(most, 0);
        let mut filled = 0;
        while filled < most {
            match self
                .log
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(())
    }

    /// What stands just before `offset`, to recognize the log by.
    pub fn trace(&self, offset: u64) -> io::Result<Trace> {
        let from = offset.saturating_sub(TRACE_BYTES);
        let mut bytes = Vec::new();
        self.read(
            from,
            usize::try_from(offset - from).map_err(io::Error::other)?,
            &mut bytes,
        )?;
        Ok(Trace { from, bytes })
    }

    /// Whether the log is still the one of `trace`, and not one that the task has begun anew: `> /dev/stderr` truncates
    /// a file, where it does nothing to a pipe.
    pub fn goes_on_from(&self, trace: &Trace) -> io::Result<bool> {
        let mut bytes = Vec::new();
        self.read(trace.from, trace.bytes.len(), &mut bytes)?;
        Ok(bytes == trace.bytes)
    }

    /// Gives the disk space of what lies before `offset` back, but for some bytes to recognize the log by. The length
    /// stays, the freed bytes read as zeros.
    pub fn free_before(&self, offset: u64) -> io::Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let length = i64::try_from(offset.saturating_sub(TRACE_BYTES)).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(());
        }
        fallocate(&self.log, flags, 0, length).map_err(io::Error::from)
    }

    /// What the uplink has acknowledged; nothing if it has not begun. A file that cannot be read is an error: to
    /// guess would send lines twice.
    pub fn acknowledged(&self) -> io::Result<Acknowledged> {
        match small::plain_bytes(&self.folder.join("ack.json"), BESIDE_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Acknowledged::default()),
            Err(error) => Err(error),
        }
    }

    /// Records what the uplink has acknowledged; after a crash either the old or the new record is found.
    pub fn acknowledge(&self, state: &Acknowledged) -> io::Result<()> {
        let bytes = serde_json::to_vec(state).map_err(io::Error::other)?;
        write_shared(&self.folder.join("ack.json"), &bytes)
    }

    /// Says that nothing will be written after the log's present length, and returns it.
    pub fn finish(&self) -> io::Result<u64> {
        let length = self.length()?;
        write_shared(&self.folder.join("end"), length.to_string().as_bytes())?;
        Ok(length)
    }

    /// Whether process 1 has said that nothing more will be written.
    pub fn finished(&self) -> bool {
        self.folder.join("end").exists()
    }

    /// Takes the lock that says "process 1 lives"; it is held until the process ends, however it ends.
    pub fn lock(&self) -> io::Result<Lock> {
        let file = self.lock_file()?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Lock(file))
    }

    /// Whether a process 1 holds the lock.
    pub fn locked(&self) -> io::Result<bool> {
        let file = self.lock_file()?;
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.mode(SHARED_FILE);
        let file = small::open_plain(&self.folder.join("lock"), &mut options)?;
        let _ = file.set_permissions(Permissions::from_mode(SHARED_FILE));
        Ok(file)
    }
}

/// Held by process 1 as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Makes a folder that every user of the pod may write.
pub fn shared_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // Not ours: whoever made it has already opened it for all.
    let _ = fs::set_permissions(path, Permissions::from_mode(SHARED_FOLDER));
    Ok(())
}

/// Replaces a small file as a whole; readers see the old or the new content, never a part.
pub fn write_shared(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    // A draft of another user may be in the way of `open`; its folder lets us remove it.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(SHARED_FILE)
        .open(&draft)?;
    let _ = file.set_permissions(Permissions::from_mode(SHARED_FILE));
    file.write_all(bytes)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests;
