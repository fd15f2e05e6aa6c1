//! PURE: how a process ended, and why it had to → what is reported, and our own exit code.

use nix::sys::signal::Signal;

use crate::pod;
use crate::stats::gpu::Xid;
use crate::task::Status;

/// Most bytes of log lines in a status message: it is shown in tables.
const MESSAGE_LINES_BYTES: usize = 1024;
/// Most bytes of log lines in the termination message; Kubernetes cuts the whole at 4096.
const TERMINATION_LINES_BYTES: usize = 2048;
/// Most bytes of one sentence of ours.
const SENTENCE_BYTES: usize = 600;

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

/// Facts about the memory of the container, for the sentence about a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Processes that the kernel killed for memory during the run.
    pub kills: u64,
    /// Limit of the container in bytes.
    pub limit: Option<u64>,
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

impl Memory {
    /// That the kernel has killed for memory, by Kubernetes' word for it, which people look for; nothing if it has not.
    fn told(self, node: Option<&str>) -> Option<String> {
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

/// The newest lines that fit into so many bytes, in order; a single one that does not fit is cut.
fn newest(lines: &[String], bytes: usize) -> Vec<String> {
    let mut left = bytes;
    let mut chosen = Vec::new();
    for line in lines.iter().rev() {
        if line.len() >= left {
            if chosen.is_empty() {
                chosen.push(bounded(line, bytes));
            }
            break;
        }
        left -= line.len() + 1;
        chosen.push(line.clone());
    }
    chosen.reverse();
    chosen
}

/// `text`, cut to at most that many bytes at a character's border.
pub fn bounded(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited_with(exit: Exit) -> Outcome {
        outcome(
            &End::Exited {
                exit,
                interrupt: None,
                killed: false,
            },
            Memory::default(),
            None,
        )
    }

    #[test]
    fn success_is_completed_and_exit_code_0() {
        let outcome = exited_with(Exit::Code(0));
        assert_eq!((outcome.report, outcome.code), (Report::Completed, 0));
        assert_eq!(
            outcome.status_message(&["line".into()]),
            "completed successfully"
        );
    }

    #[test]
    fn a_failure_keeps_its_exit_code_and_shows_its_last_lines() {
        let outcome = exited_with(Exit::Code(3));
        assert_eq!((outcome.report, outcome.code), (Report::Failed, 3));
        let lines = ["Traceback".to_owned(), "ValueError: no".to_owned()];
        assert_eq!(
            outcome.status_message(&lines),
            "the process ended with exit code 3; last lines:\nTraceback\nValueError: no"
        );
        let termination = outcome.termination(&lines, true);
        assert_eq!((termination.exit_code, termination.signal), (Some(3), None));
    }

    #[test]
    fn a_code_from_our_own_range_is_the_users_and_told_apart_by_the_termination_message() {
        let outcome = exited_with(Exit::Code(pod::exit::LOST_RACE));
        assert_eq!(outcome.code, pod::exit::LOST_RACE);
        let termination = outcome.termination(&[], true);
        assert_eq!(
            (termination.outcome.as_str(), termination.exit_code),
            ("failed", Some(pod::exit::LOST_RACE))
        );
    }

    #[test]
    fn a_signal_is_named_and_becomes_128_and_its_number() {
        let outcome = exited_with(Exit::Signal(11));
        assert_eq!(outcome.code, 139);
        assert_eq!(
            outcome.message,
            "the process was ended by signal SIGSEGV (invalid memory access)"
        );
        assert_eq!(
            exited_with(Exit::Signal(34)).message,
            "the process was ended by signal 34"
        );
    }

    #[test]
    fn a_kill_for_memory_names_limit_and_node() {
        let memory = Memory {
            kills: 1,
            limit: Some(256 * 1024 * 1024),
        };
        let end = End::Exited {
            exit: Exit::Signal(9),
            interrupt: None,
            killed: false,
        };
        let message = outcome(&end, memory, Some("node-1")).message;
        assert_eq!(
            message,
            "the process was ended by signal SIGKILL: out of memory \
             (OOMKilled; the container's limit is 256 MiB; on node \"node-1\")"
        );
        let unlimited = Memory {
            limit: None,
            ..memory
        };
        assert_eq!(
            outcome(&end, unlimited, None).message,
            "the process was ended by signal SIGKILL: out of memory (OOMKilled)"
        );
        let end = End::Exited {
            exit: Exit::Code(1),
            interrupt: None,
            killed: false,
        };
        assert!(
            outcome(&end, memory, Some("node-1"))
                .message
                .contains("after a child ran out of memory (OOMKilled; ")
        );
    }

    #[test]
    fn preparations_that_ran_out_of_memory_say_so_however_much_else_they_say() {
        let memory = Memory {
            kills: 1,
            limit: Some(256 * 1024 * 1024),
        };
        let told = |sentence: &str| {
            let end = End::Unprepared(sentence.to_owned());
            outcome(&end, memory, Some("node-1")).message
        };
        let killed = "; a process ran out of memory \
            (OOMKilled; the container's limit is 256 MiB; on node \"node-1\")";
        assert_eq!(told("uv failed"), format!("uv failed{killed}"));
        let long = told(&"é".repeat(5000));
        assert!(
            long.len() <= SENTENCE_BYTES && long.ends_with(killed),
            "{long}"
        );
    }

    #[test]
    fn a_run_that_failed_is_called_by_its_category_behind_the_words_of_an_agent() {
        let killed = Memory {
            kills: 1,
            limit: None,
        };
        let exited = |exit, memory| {
            let end = End::Exited {
                exit,
                interrupt: None,
                killed: false,
            };
            outcome(&end, memory, None)
        };
        let none = Memory::default();
        let unprepared = End::Unprepared("no commit".into());
        let fault = Xid {
            gpu: Some(0),
            number: 79,
        };
        for (outcome, reason) in [
            (
                exited(Exit::Code(3), none),
                "worker execution exit code 3, trainyard: exit-code",
            ),
            (
                exited(Exit::Signal(11), none),
                "worker execution signal SIGSEGV (invalid memory access), trainyard: signal",
            ),
            (
                exited(Exit::Signal(9), killed),
                "worker execution signal SIGKILL, trainyard: out-of-memory",
            ),
            (
                exited(Exit::Code(1), killed),
                "worker execution exit code 1, trainyard: out-of-memory",
            ),
            (
                exited(Exit::Code(1), none).with_faults(&[fault]),
                "worker execution exit code 1, trainyard: gpu-fault",
            ),
            (
                outcome(&unprepared, none, None),
                "preparation failed, trainyard: not-prepared",
            ),
            (
                outcome(&unprepared, killed, None),
                "preparation failed, trainyard: out-of-memory",
            ),
            (
                outcome(&End::Unstartable("no such file".into()), none, None),
                "start failed, trainyard: not-prepared",
            ),
            (exited(Exit::Code(0), none), "worker execution done"),
            (
                outcome(&End::Interrupted(Interrupt::Abort), none, None),
                "user abort",
            ),
        ] {
            assert_eq!(outcome.status_reason(), reason);
        }
    }

    #[test]
    fn faults_of_gpus_are_told_where_the_process_failed() {
        let of = |number| Xid {
            gpu: Some(0),
            number,
        };
        let failed = exited_with(Exit::Code(1)).with_faults(&[of(31)]);
        assert!(
            failed
                .message
                .starts_with("the process ended with exit code 1; GPU 0 reported XID 31 ("),
            "{}",
            failed.message
        );
        assert_eq!(failed.termination(&[], true).xid, None);
        let lost = exited_with(Exit::Code(1)).with_faults(&[of(31), of(79)]);
        assert!(
            lost.message
                .contains("XID 79 (the GPU has fallen off the bus): the GPU itself is at fault"),
            "{}",
            lost.message
        );
        assert_eq!(lost.termination(&[], true).xid, Some(79));
        let good = exited_with(Exit::Code(0)).with_faults(&[of(79)]);
        assert_eq!(good.message, "completed successfully");
        assert_eq!(good.termination(&[], true).xid, None);
        let after_a_signal = |exit| {
            let outcome = outcome(&End::Signalled(exit), Memory::default(), None);
            outcome.with_faults(&[of(79)]).termination(&[], false)
        };
        let lost = after_a_signal(Exit::Signal(3));
        assert!(lost.signalled && lost.message.contains("XID 79"));
        assert_eq!(lost.xid, Some(79));
        assert_eq!(after_a_signal(Exit::Code(0)).xid, None);
        let interrupted = outcome(
            &End::Exited {
                exit: Exit::Signal(15),
                interrupt: Some(Interrupt::Shutdown),
                killed: false,
            },
            Memory::default(),
            None,
        );
        let interrupted = interrupted.with_faults(&[of(79)]);
        assert_eq!(interrupted.termination(&[], false).xid, None);
    }

    #[test]
    fn an_abort_stops_whatever_the_process_made_of_it() {
        for exit in [
            Exit::Code(0),
            Exit::Code(1),
            Exit::Signal(15),
            Exit::Signal(9),
        ] {
            let outcome = outcome(
                &End::Exited {
                    exit,
                    interrupt: Some(Interrupt::Abort),
                    killed: false,
                },
                Memory::default(),
                None,
            );
            assert_eq!(
                (outcome.report, outcome.code),
                (Report::Stopped, pod::exit::INTERRUPTED)
            );
        }
    }

    #[test]
    fn an_interruption_leaves_the_status_to_the_controller() {
        for interrupt in [
            Interrupt::Shutdown,
            Interrupt::Foreign("x".into()),
            Interrupt::Ended(Status::Failed),
        ] {
            let outcome = outcome(&End::Interrupted(interrupt), Memory::default(), None);
            assert_eq!(
                (outcome.report, outcome.code),
                (Report::Nothing, pod::exit::INTERRUPTED)
            );
        }
        assert!(Interrupt::Ended(Status::Created).disowns());
        assert!(!Interrupt::Ended(Status::Stopped).disowns());
    }

    #[test]
    fn an_end_after_a_signal_is_told_and_left_to_who_sees_the_pod() {
        for (exit, word, code) in [
            (Exit::Signal(3), "failed", 131),
            (Exit::Code(1), "failed", 1),
            (Exit::Code(0), "completed", 0),
        ] {
            let outcome = outcome(&End::Signalled(exit), Memory::default(), None);
            assert_eq!((outcome.report, outcome.code), (Report::Nothing, code));
            let told = outcome.termination(&[], false);
            assert!(told.signalled && !told.reported);
            assert_eq!(told.outcome, word);
        }
        assert!(
            !exited_with(Exit::Signal(3))
                .termination(&[], true)
                .signalled
        );
    }

    #[test]
    fn what_could_not_be_prepared_fails_with_its_sentence() {
        let outcome = outcome(
            &End::Unprepared("commit abc is not in the repository".into()),
            Memory::default(),
            None,
        );
        assert_eq!(
            (outcome.report, outcome.code),
            (Report::Failed, pod::exit::PREPARE_FAILED)
        );
        assert_eq!(
            outcome.status_message(&["line".into()]),
            "commit abc is not in the repository"
        );
    }

    #[test]
    fn the_termination_message_fits_into_what_kubernetes_keeps() {
        let lines: Vec<String> = (0..500).map(|n| format!("\"é\t line {n}")).collect();
        let outcome = outcome(&End::Unprepared("é".repeat(5000)), Memory::default(), None);
        let message = serde_json::to_string(&outcome.termination(&lines, true)).unwrap();
        assert!(message.len() <= 4096, "{}", message.len());
        assert!(message.contains("line 499"));
        assert_eq!(newest(&["é".repeat(100)], 50)[0].len(), 49);
    }
}
