//! The task's container in a process namespace of its own, as a runtime makes it: its process 1 takes all others along.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::pod::{Pod, family};
use super::super::server::{Proc, wait};

/// Who gets a SIGKILL; an eviction begins with a SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    Uplink,
    Child,
    Script,
    ProcessOne,
    /// All of the container at once, as cgroup v2 does it when memory runs out.
    Container,
    Eviction,
}

impl Kill {
    /// Those that end the container.
    pub const LAST: [Self; 4] = [
        Self::Script,
        Self::ProcessOne,
        Self::Container,
        Self::Eviction,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Child => "child",
            Self::Script => "script",
            Self::ProcessOne => "process 1",
            Self::Container => "container",
            Self::Eviction => "eviction",
        }
    }
}

/// Sidecar and container of one pod.
pub struct Contained<'a> {
    pod: &'a Pod<'a>,
    uplink: Proc,
    container: Proc,
}

impl<'a> Contained<'a> {
    pub fn start(pod: &'a Pod<'a>) -> Self {
        let uplink = pod.uplink();
        let container = pod.start_by(&ISOLATED);
        Self {
            pod,
            uplink,
            container,
        }
    }

    /// Waits until both writers have written.
    pub fn until_writing(&self) {
        for name in ["receipt.script.0", "receipt.child.0"] {
            self.pod.wait_for_file(name);
        }
    }

    pub fn start_uplink(&mut self) {
        self.uplink = self.pod.uplink();
    }

    /// Kills, and gives what was killed; nothing if it was gone already.
    pub fn kill(&mut self, which: Kill) -> Option<Kill> {
        let members = self.members();
        let of = |wanted: &str| {
            let found = members.iter().copied().filter(|pid| role(*pid) == wanted);
            found.collect::<Vec<Pid>>()
        };
        let hit = match which {
            Kill::Uplink => {
                self.uplink.signal(Signal::SIGKILL);
                self.uplink.end(10) == -9
            }
            Kill::Child => send(&of("child"), Signal::SIGKILL),
            Kill::Script => send(&of("script"), Signal::SIGKILL),
            Kill::ProcessOne => send(&of("process 1"), Signal::SIGKILL),
            Kill::Eviction => send(&of("process 1"), Signal::SIGTERM),
            Kill::Container => {
                // Held still first, so that none sees another die.
                send(&members, Signal::SIGSTOP);
                let last: Vec<Pid> = members.iter().rev().copied().collect();
                send(&last, Signal::SIGKILL)
            }
        };
        hit.then_some(which)
    }

    /// The container's processes, process 1 first; without the program that made the namespace.
    fn members(&self) -> Vec<Pid> {
        family(self.container.id()).into_iter().skip(1).collect()
    }

    /// Waits until the container has ended.
    pub fn until_over(&mut self, seconds: u64) {
        self.container.end(seconds);
    }

    /// Ends the sidecar as Kubernetes does after the container's end; its exit code.
    pub fn stop_uplink(&mut self, seconds: u64) -> i32 {
        // As process 1 of its container it is spared a signal that comes before it listens; here it is not.
        let id = self.uplink.id();
        wait("the uplink listens to SIGTERM", 30, || {
            listens(id, Signal::SIGTERM).then_some(())
        });
        self.uplink.signal(Signal::SIGTERM);
        self.uplink.end(seconds)
    }
}

/// Makes its program process 1 of a namespace of its own.
const ISOLATED: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whether the process has a handler for this signal.
fn listens(id: i32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.unwrap_or(0) & (1 << (signal as u64 - 1)) != 0
}

fn send(to: &[Pid], signal: Signal) -> bool {
    let hit = to.iter().filter(|pid| kill(**pid, signal).is_ok());
    hit.count() > 0
}

/// What a process of the container is, by its command line.
fn role(pid: Pid) -> &'static str {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    if line.contains("\0child.") {
        "child"
    } else if line.contains("--in-pod") {
        "process 1"
    } else if line.contains("script.py") {
        "script"
    } else {
        ""
    }
}
