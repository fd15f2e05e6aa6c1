//! Runs one command of the task in its own process group, and keeps the duties of a process 1.
//!
//! ```text
//! spawn ──▶ wait ──exit──▶ how it ended
//!             │ interrupt
//!             ▼
//!           deadline file, SIGTERM to the group ──grace──▶ SIGKILL to the group
//! ```
//!
//! Other signals that a script may have a use for go to its group as they come (see [`super::relay`]).
//!
//! The deadline file tells a training how much time it has for its checkpoint: its first line is the time of the SIGKILL
//! in seconds since 1970, its second says why. It is there before the signal comes.
//!
//! Why a group: a script starts workers, and an abort is meant for all of them. Why the grace is the group's and not
//! the leader's: a shell dies at once on SIGTERM while the training below it still writes its checkpoint. What is left
//! over, in whatever group or session, is killed by [`sweep`]. Orphans come to us, as process 1 or as subreaper, and
//! are reaped here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use super::outcome::{Exit, Interrupt};
use super::relay::Relay;
use super::spool::{Spool, write_shared};

/// How often orphans are looked for.
const REAP_EVERY: Duration = Duration::from_secs(5);
/// How often a group that was told to stop is looked at.
const GROUP_POLL: Duration = Duration::from_millis(50);
/// Rounds of killing before we believe that somebody is faster in starting processes than we in ending them.
const SWEEP_ROUNDS: usize = 100;

/// Why the run must stop, once it must; the first value decides when, the last one how it is reported.
pub type Interrupts = watch::Receiver<Option<Interrupt>>;

/// What became of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It ended by itself.
    Itself(Exit),
    /// It was interrupted; `killed` if the grace period did not suffice, `left` of it otherwise.
    Interrupted {
        exit: Exit,
        killed: bool,
        left: Duration,
    },
}

/// What every command of a task shares: where its output goes, and what ends it early.
#[derive(Debug, Clone)]
pub struct Runner<'a> {
    pub spool: &'a Spool,
    pub interrupts: Interrupts,
    pub grace: Duration,
    /// The file that says until when the run has to end.
    pub deadline: &'a Path,
}

impl Runner<'_> {
    /// Starts `command` with the spool as its stdout and stderr and waits for its end. An error means that it could not
    /// be started.
    pub async fn run(&mut self, command: Command) -> io::Result<Ended> {
        self.run_heard(command, &mut Relay::default()).await
    }

    /// The same for a command that the signals are for which the relay hears.
    pub async fn run_heard(
        &mut self,
        mut command: Command,
        relay: &mut Relay,
    ) -> io::Result<Ended> {
        command
            .stdin(Stdio::null())
            .stdout(self.spool.handle()?)
            .stderr(self.spool.handle()?)
            .process_group(0);
        let mut child = command.spawn()?;
        let Some(group) = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw)
        else {
            return Err(io::Error::other("the process has no id"));
        };
        let mut reaper = Reaper::default();
        let mut reap = interval(REAP_EVERY);
        loop {
            tokio::select! {
                status = child.wait() => return Ok(Ended::Itself(exit_of(status?))),
                () = interrupted(&mut self.interrupts) => break,
                signal = relay.next() => relay.pass_on(signal, group),
                _ = reap.tick() => reaper.turn(group),
            }
        }
        self.stop(child, group, relay).await
    }

    /// Ends the group: SIGTERM, grace, SIGKILL.
    async fn stop(&self, mut child: Child, group: Pid, relay: &mut Relay) -> io::Result<Ended> {
        self.tell_deadline();
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + self.grace;
        let mut exit = None;
        while Instant::now() < deadline {
            if exit.is_none() {
                exit = child.try_wait()?;
            }
            if exit.is_some() && !group_lives(group) {
                break;
            }
            tokio::select! {
                signal = relay.next() => relay.pass_on(signal, group),
                () = sleep(GROUP_POLL) => {}
            }
        }
        // What cannot be looked at, as where `/proc` is hidden, is not taken for ended.
        let killed = exit.is_none() || group_lives(group);
        if killed {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let status = match exit {
            Some(status) => status,
            None => child.wait().await?,
        };
        Ok(Ended::Interrupted {
            exit: exit_of(status),
            killed,
            left: deadline.saturating_duration_since(Instant::now()),
        })
    }

    /// Writes the deadline file; who does not read it misses nothing but the time left.
    fn tell_deadline(&self) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let until = (now + self.grace).as_secs();
        let why = self
            .interrupt()
            .map(|why| why.describe())
            .unwrap_or_default();
        if let Err(error) = write_shared(self.deadline, format!("{until}\n{why}\n").as_bytes()) {
            tracing::warn!(%error, "could not write the deadline file");
        }
    }

    /// The interrupt that is pending, if any.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.interrupts.borrow().clone()
    }
}

/// Waits until there is an interrupt; for ever if nobody can send one any more.
pub async fn interrupted(interrupts: &mut Interrupts) {
    if interrupts.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Makes orphans of the task come to us where we are not process 1 of the container.
pub fn adopt_orphans() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "could not become the reaper of orphaned processes");
    }
}

/// Kills every process that descends from this one, whatever group or session it is in, and reaps it. Returns how many
/// there were.
pub fn sweep() -> usize {
    let mut killed = BTreeSet::new();
    for _ in 0..SWEEP_ROUNDS {
        let mut alive = 0;
        for process in descendants() {
            if process.zombie {
                reap(process.pid);
            } else {
                alive += 1;
                killed.insert(process.pid);
                let _ = kill(process.pid, Signal::SIGKILL);
            }
        }
        if alive == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if Pid::this().as_raw() == 1 {
        // Process 1 reaches all of its container at once, also where `/proc` does not show it.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
    killed.len()
}

/// Reaps orphans that have been dead for two turns, so that whoever waits for a child of his own comes first.
#[derive(Debug, Default)]
struct Reaper {
    seen: BTreeSet<Pid>,
}

impl Reaper {
    fn turn(&mut self, except: Pid) {
        let own = Pid::this();
        let dead: BTreeSet<Pid> = processes()
            .into_iter()
            .filter(|process| process.zombie && process.parent == own && process.pid != except)
            .map(|process| process.pid)
            .collect();
        for pid in dead.intersection(&self.seen) {
            reap(*pid);
        }
        self.seen = dead;
    }
}

fn reap(pid: Pid) {
    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(status.into_raw()),
    }
}

/// Whether anything of the group runs; zombies, which a signal still reaches, do not count.
fn group_lives(group: Pid) -> bool {
    if killpg(group, None) == Err(Errno::ESRCH) {
        return false;
    }
    processes()
        .into_iter()
        .any(|process| process.group == group && !process.zombie)
}

#[derive(Debug, Clone, Copy)]
struct Process {
    pid: Pid,
    parent: Pid,
    group: Pid,
    zombie: bool,
}

/// Everything below this process, children first.
fn descendants() -> Vec<Process> {
    let all = processes();
    let mut known = BTreeSet::from([Pid::this()]);
    let mut found = Vec::new();
    loop {
        let more: Vec<Process> = all
            .iter()
            .filter(|process| known.contains(&process.parent) && !known.contains(&process.pid))
            .copied()
            .collect();
        if more.is_empty() {
            return found;
        }
        known.extend(more.iter().map(|process| process.pid));
        found.extend(more);
    }
}

/// All processes that can be seen; one that ends while it is looked at is left out.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid: i32 = name.to_str()?.parse().ok()?;
            parse_stat(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
        })
        .collect()
}

/// Reads `/proc/<pid>/stat`; the command in its second field may hold anything, so the last parenthesis counts.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Process {
        pid: Pid::from_raw(pid),
        parent: Pid::from_raw(parent),
        group: Pid::from_raw(group),
        zombie,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    struct Pod {
        _folder: tempfile::TempDir,
        deadline: std::path::PathBuf,
        spool: Spool,
        send: watch::Sender<Option<Interrupt>>,
    }

    impl Pod {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let spool = Spool::open(folder.path()).unwrap();
            Self {
                deadline: folder.path().join("deadline"),
                _folder: folder,
                spool,
                send: watch::Sender::new(None),
            }
        }

        fn runner(&self, grace: Duration) -> Runner<'_> {
            Runner {
                spool: &self.spool,
                interrupts: self.send.subscribe(),
                grace,
                deadline: &self.deadline,
            }
        }

        fn log(&self) -> String {
            let mut bytes = Vec::new();
            self.spool.read(0, 1 << 20, &mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        }

        async fn wait_for(&self, text: &str) {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !self.log().contains(text) {
                assert!(
                    Instant::now() < deadline,
                    "{text:?} never came: {:?}",
                    self.log()
                );
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn both_streams_go_to_the_spool_in_order_and_the_code_is_kept() {
        let pod = Pod::new();
        let ended = pod
            .runner(Duration::ZERO)
            .run(shell("echo one; echo two >&2; exit 3"))
            .await
            .unwrap();
        assert_eq!(ended, Ended::Itself(Exit::Code(3)));
        assert_eq!(pod.log(), "one\ntwo\n");
        let ended = pod
            .runner(Duration::ZERO)
            .run(shell("kill -SEGV $$"))
            .await
            .unwrap();
        assert_eq!(ended, Ended::Itself(Exit::Signal(11)));
        assert!(
            pod.runner(Duration::ZERO)
                .run(Command::new("/no/such/program"))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn an_interrupt_reaches_the_whole_group_and_its_grace_is_the_groups() {
        let pod = Pod::new();
        let mut runner = pod.runner(Duration::from_secs(20));
        // The shell dies at once; the child in the same group takes its time and must be given it.
        let script = "sh -c 'trap \"sleep 0.3; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.02; done' & wait";
        let (ended, ()) = tokio::join!(runner.run(shell(script)), async {
            pod.wait_for("ready").await;
            pod.send.send_replace(Some(Interrupt::Abort));
        });
        let ended = ended.unwrap();
        let Ended::Interrupted { exit, killed, left } = ended else {
            panic!("{ended:?}");
        };
        assert_eq!((exit, killed), (Exit::Signal(15), false));
        assert!(
            !left.is_zero() && left < Duration::from_secs(20),
            "{left:?}"
        );
        assert!(pod.log().ends_with("saved\n"), "{}", pod.log());
        let told = fs::read_to_string(&pod.deadline).unwrap();
        let (until, why) = told.split_once('\n').unwrap();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(
            (now + 10..=now + 20).contains(&until.parse().unwrap()),
            "{told}"
        );
        assert_eq!(why, "the task was aborted\n");
    }

    #[tokio::test]
    async fn who_ignores_sigterm_is_killed_after_the_grace() {
        let pod = Pod::new();
        let mut runner = pod.runner(Duration::from_millis(200));
        let script = "trap '' TERM; echo ready; while :; do sleep 0.02; done";
        let (ended, ()) = tokio::join!(runner.run(shell(script)), async {
            pod.wait_for("ready").await;
            pod.send.send_replace(Some(Interrupt::Shutdown));
        });
        assert_eq!(
            ended.unwrap(),
            Ended::Interrupted {
                exit: Exit::Signal(9),
                killed: true,
                left: Duration::ZERO
            }
        );
        assert_eq!(runner.interrupt(), Some(Interrupt::Shutdown));
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_confuse_the_process_list() {
        let process = parse_stat(7, b"7 (a) Z 1 (b)) S 3 9 9 0").unwrap();
        assert_eq!(
            (process.parent, process.group, process.zombie),
            (Pid::from_raw(3), Pid::from_raw(9), false)
        );
        assert!(parse_stat(7, b"").is_none());
    }
}
