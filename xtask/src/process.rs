//! Processes by identity, not by number alone: a number is used again, a number with its start time is not.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that was started here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// In clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// Which boot: numbers and ticks repeat after one.
    pub boot: String,
}

impl Identity {
    /// The identity of a process that lives now.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start) = stat(pid)?;
        (state != 'Z').then(|| Self {
            pid,
            start,
            boot: boot(),
        })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal, if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it is gone; `false` when it still lives after `limit`.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// SIGTERM, then SIGKILL after `grace`; returns when it is gone.
    pub fn end(&self, grace: Duration) {
        if !grace.is_zero() {
            self.signal(Signal::SIGTERM);
            if self.wait_gone(grace) {
                return;
            }
        }
        self.signal(Signal::SIGKILL);
        self.wait_gone(Duration::from_secs(5));
    }
}

/// State letter and start time. The name in brackets may hold spaces and brackets: cut after the last one.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Living processes whose program's file name is one of `programs` and whose command line names `folder`.
pub fn of_folder(programs: &[&str], folder: &Path) -> Vec<Identity> {
    let folder = format!("{}/", folder.display());
    pids()
        .into_iter()
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default();
            programs.contains(&program) && line.contains(&*folder)
        })
        .filter_map(Identity::of)
        .collect()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_another_start_time_is_another_process() {
        let me = Identity::of(std::process::id().cast_signed()).expect("this process lives");
        assert!(me.is_alive());
        assert!(
            !Identity {
                start: me.start + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !Identity {
                boot: "another".into(),
                ..me
            }
            .is_alive()
        );
    }
}
