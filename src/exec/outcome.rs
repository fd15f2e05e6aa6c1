//! PURE: how a process ended, and why it had to → what is reported, and our own exit code.
//!
//! What goes in, with the words for it, is in `facts`; `cut` keeps texts to the room that there is for them.

mod cut;
mod facts;

pub use self::cut::bounded;
use self::cut::newest;
pub use self::facts::{End, Exit, Interrupt, Memory};
use crate::pod;
use crate::stats::gpu::Xid;

/// Most bytes of log lines in a status message: it is shown in tables.
const MESSAGE_LINES_BYTES: usize = 1024;
/// Most bytes of log lines in the termination message; Kubernetes cuts the whole at 4096.
const TERMINATION_LINES_BYTES: usize = 2048;
/// Most bytes of one sentence of ours.
const SENTENCE_BYTES: usize = 600;

/// What is written to the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    Completed,
    Failed,
    Stopped,
    /// Nothing: the status is somebody else's to write.
    Nothing,
}

/// What follows from an [`End`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub report: Report,
    /// What an agent would say.
    reason: String,
    pub message: String,
    /// Our own exit code.
    pub code: i32,
    pub exit: Option<Exit>,
    /// The word in the termination message.
    word: &'static str,
    /// A fault of a GPU itself that may be why it failed.
    xid: Option<Xid>,
    /// A signal that came from outside may be behind it.
    pub signalled: bool,
    /// It failed, and the kernel killed for memory during the run.
    out_of_memory: bool,
}

/// Decides how a run on this node is reported.
pub fn outcome(end: &End, memory: Memory, node: Option<&str>) -> Outcome {
    match end {
        End::Exited {
            exit,
            interrupt: Some(interrupt),
            killed,
        } => {
            let how = if *killed {
                "killed after its grace period".to_owned()
            } else {
                exit.describe()
            };
            Outcome {
                exit: Some(*exit),
                ..interrupted(interrupt, &format!(" ({how})"))
            }
        }
        End::Exited {
            exit,
            interrupt: None,
            ..
        } => exited(*exit, memory, node),
        End::Signalled(exit) => Outcome {
            report: Report::Nothing,
            signalled: true,
            ..exited(*exit, memory, node)
        },
        End::Interrupted(interrupt) => interrupted(interrupt, " before its code was started"),
        End::Unprepared(sentence) => unprepared(sentence, memory, node),
        End::Unstartable(sentence) => {
            failed("start failed", sentence, pod::exit::PREPARE_FAILED, None)
        }
    }
}

fn unprepared(sentence: &str, memory: Memory, node: Option<&str>) -> Outcome {
    let killed = memory
        .told(node)
        .map(|told| format!("; a process ran out of memory {told}"))
        .unwrap_or_default();
    let most = SENTENCE_BYTES.saturating_sub(killed.len());
    let sentence = bounded(sentence, most) + &killed;
    Outcome {
        out_of_memory: memory.kills > 0,
        ..failed(
            "preparation failed",
            &sentence,
            pod::exit::PREPARE_FAILED,
            None,
        )
    }
}

fn exited(exit: Exit, memory: Memory, node: Option<&str>) -> Outcome {
    if exit == Exit::Code(0) {
        let (reason, message) = (
            "worker execution done".to_owned(),
            "completed successfully".to_owned(),
        );
        return Outcome {
            report: Report::Completed,
            reason,
            message,
            code: 0,
            exit: Some(exit),
            word: "completed",
            xid: None,
            signalled: false,
            out_of_memory: false,
        };
    }
    let mut sentence = match exit {
        Exit::Code(_) => format!("the process ended with {}", exit.describe()),
        Exit::Signal(_) => format!("the process was ended by {}", exit.describe()),
    };
    if let Some(told) = memory.told(node) {
        sentence.push_str(if exit == Exit::Signal(9) {
            ": out of memory "
        } else {
            ", after a child ran out of memory "
        });
        sentence.push_str(&told);
    }
    Outcome {
        out_of_memory: memory.kills > 0,
        ..failed(
            &format!("worker execution {}", exit.describe()),
            &sentence,
            exit.code(),
            Some(exit),
        )
    }
}

fn interrupted(interrupt: &Interrupt, how: &str) -> Outcome {
    let (report, word, reason) = match interrupt {
        Interrupt::Abort => (Report::Stopped, "stopped", "user abort"),
        Interrupt::Shutdown => (Report::Nothing, "interrupted", "interrupted"),
        _ => (Report::Nothing, "stopped", "no longer ours"),
    };
    let message = bounded(&format!("{}{how}", interrupt.describe()), SENTENCE_BYTES);
    Outcome {
        report,
        reason: reason.to_owned(),
        message,
        code: pod::exit::INTERRUPTED,
        exit: None,
        word,
        xid: None,
        signalled: false,
        out_of_memory: false,
    }
}

fn failed(reason: &str, sentence: &str, code: i32, exit: Option<Exit>) -> Outcome {
    let message = bounded(sentence, SENTENCE_BYTES);
    Outcome {
        report: Report::Failed,
        reason: reason.to_owned(),
        message,
        code,
        exit,
        word: "failed",
        xid: None,
        signalled: false,
        out_of_memory: false,
    }
}

impl Outcome {
    /// The same with the faults that GPUs had during the run: where its process failed they may be why.
    #[must_use]
    pub fn with_faults(mut self, faults: &[Xid]) -> Self {
        // Its word, not its report: an end after a signal is the controller's to report, and to tell of the fault.
        if self.word != "failed" || self.exit.is_none() || faults.is_empty() {
            return self;
        }
        let told: Vec<String> = faults.iter().map(|xid| xid.describe()).collect();
        let mut message = format!("{}; {}", self.message, told.join(", "));
        self.xid = faults.iter().copied().find(|xid| xid.is_of_the_gpu());
        if self.xid.is_some() {
            message.push_str(": the GPU itself is at fault (hint: have it looked at)");
        }
        self.message = bounded(&message, SENTENCE_BYTES);
        self
    }

    /// The status reason of the task: what an agent would say, and behind it what the end of one that failed is called.
    pub fn status_reason(&self) -> String {
        if self.report != Report::Failed {
            return self.reason.clone();
        }
        let category = self.termination(&[], true).failure();
        format!("{}, {}", self.reason, category.reason())
    }

    /// The status message of the task: the sentence, and for a process that failed its last lines.
    pub fn status_message(&self, last_lines: &[String]) -> String {
        if self.report != Report::Failed || self.exit.is_none() || last_lines.is_empty() {
            return self.message.clone();
        }
        format!(
            "{}; last lines:\n{}",
            self.message,
            newest(last_lines, MESSAGE_LINES_BYTES).join("\n")
        )
    }

    /// What the diagnosis reads when the pod has ended.
    pub fn termination(&self, last_lines: &[String], reported: bool) -> pod::Termination {
        pod::Termination {
            version: pod::VERSION,
            outcome: self.word.to_owned(),
            message: self.message.clone(),
            exit_code: match self.exit {
                Some(Exit::Code(code)) => Some(code),
                _ => None,
            },
            signal: match self.exit {
                Some(Exit::Signal(signal)) => Some(signal),
                _ => None,
            },
            reported,
            last_lines: newest(last_lines, TERMINATION_LINES_BYTES),
            first_line: None,
            xid: self.xid.map(|xid| xid.number),
            signalled: self.signalled,
            out_of_memory: self.out_of_memory,
        }
    }
}

#[cfg(test)]
mod tests;
