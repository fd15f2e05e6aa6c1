//! PURE: the facts about a run's end, and the words for each: how its process ended, what interrupted it, what its
//! memory came to.

use nix::sys::signal::Signal;

use crate::task::Status;

/// How the user's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// What a shell would report: the code, or 128 and the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// The words for it: `exit code 3`, `signal SIGSEGV (invalid memory access)`.
    pub fn describe(self) -> String {
        let number = match self {
            Self::Code(code) => return format!("exit code {code}"),
            Self::Signal(number) => number,
        };
        let Ok(signal) = Signal::try_from(number) else {
            return format!("signal {number}");
        };
        let meaning = match signal {
            Signal::SIGSEGV => " (invalid memory access)",
            Signal::SIGBUS => " (bus error: often a full /dev/shm)",
            Signal::SIGABRT => " (aborted by the program or one of its libraries)",
            Signal::SIGILL => " (illegal instruction: built for another CPU)",
            Signal::SIGFPE => " (arithmetic error)",
            _ => "",
        };
        format!("signal {signal}{meaning}")
    }
}

/// Why a run had to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupt {
    /// The user asked for it.
    Abort,
    /// The pod is being ended, and nobody asked the task to stop: a drain, an eviction, a deleted pod.
    Shutdown,
    /// The task is no longer in progress: somebody else has ended or reset it.
    Ended(Status),
    /// The task runs under another attempt's mark.
    Foreign(String),
    /// The task is gone from the server.
    Deleted,
}

impl Interrupt {
    /// Whether the task is no longer ours: neither its status nor its log may be written.
    pub fn disowns(&self) -> bool {
        matches!(
            self,
            Self::Ended(Status::Created | Status::Queued) | Self::Foreign(_) | Self::Deleted
        )
    }

    /// The line that the log shows when the run is interrupted.
    pub fn describe(&self) -> String {
        match self {
            Self::Abort => "the task was aborted".to_owned(),
            Self::Shutdown => "the pod is being ended".to_owned(),
            Self::Ended(status) => {
                format!("the task's status was changed to {status} by somebody else")
            }
            Self::Foreign(mark) => format!("the task is now run by {mark}"),
            Self::Deleted => "the task was deleted".to_owned(),
        }
    }
}

/// How a run came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The user's process ended; with the interrupt that was pending, if any, and whether it had to be killed.
    Exited {
        exit: Exit,
        interrupt: Option<Interrupt>,
        killed: bool,
    },
    /// The user's process ended not long after a signal that was passed on to it: only the pod tells whether it was being
    /// ended by that.
    Signalled(Exit),
    /// Interrupted before the user's process began.
    Interrupted(Interrupt),
    /// Code or environment could not be prepared, in one sentence.
    Unprepared(String),
    /// The user's process could not be started, in one sentence.
    Unstartable(String),
}

/// Facts about the memory of the container, for the sentence about a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Processes that the kernel killed for memory during the run.
    pub kills: u64,
    /// Limit of the container in bytes.
    pub limit: Option<u64>,
}

impl Memory {
    /// That the kernel has killed for memory, by Kubernetes' word for it, which people look for; nothing if it has not.
    pub(super) fn told(self, node: Option<&str>) -> Option<String> {
        if self.kills == 0 {
            return None;
        }
        let limit = self.limit.map(|limit| {
            let mebibytes = limit / (1024 * 1024);
            format!("; the container's limit is {mebibytes} MiB")
        });
        let node = node.map(|node| format!("; on node {node:?}"));
        let (limit, node) = (limit.unwrap_or_default(), node.unwrap_or_default());
        Some(format!("(OOMKilled{limit}{node})"))
    }
}
