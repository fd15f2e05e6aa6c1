//! Post scripts, of `clearml.conf` and of the binding: they run after the task's process, where it ran and with its
//! variables, whatever it ended with. How the task ends is decided by then.
//!
//! ```text
//! process ended by itself      ──▶ scripts, until there is an interrupt
//! process ended by an interrupt ──▶ scripts, for what is left of its grace
//! task no longer ours          ──▶ nothing: another attempt may be at work on what they would tidy up
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;
use super::finish::disowned;
use super::outcome::{End, Exit, Interrupt};
use super::process::{Ended, Runner};
use super::script::Script;
use super::settings::Settings;
use super::start::DEFAULT_PATH;
use crate::config::agent::Agent;

/// The key of `clearml.conf`; known here alone.
const OF_CONF: &str = "agent.post_script";
/// Tells a script what the task's process ended with, as a shell would: 128 and its number for a signal.
const EXIT_CODE: &str = "TRAINYARD_EXIT_CODE";
/// Least time for the scripts after an interrupt, where the process has used up its grace.
pub const LEAST: Duration = Duration::from_secs(3);
/// The part of that time between SIGTERM and SIGKILL.
const PARTING: Duration = Duration::from_secs(1);

/// The scripts, and what they run in.
pub struct Post {
    scripts: Vec<Script>,
    folder: PathBuf,
    variables: BTreeMap<OsString, OsString>,
}

impl Post {
    /// The scripts that come after this process: that of `clearml.conf`, then the binding's, whose setup script came first.
    pub fn of(settings: &Settings, agent: &Agent, process: &Command) -> Self {
        let of_binding = settings
            .post_script
            .as_deref()
            .map(|text| Script::of_binding(text, "post script", "environment.postScript"));
        let process = process.as_std();
        let variables = process.get_envs();
        let variables =
            variables.filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let of_conf = Script::of_conf(agent, OF_CONF);
        Self {
            scripts: of_conf.into_iter().chain(of_binding).collect(),
            folder: process.get_current_dir().unwrap_or(Path::new("/")).into(),
            variables: variables.collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.scripts.is_empty()
    }

    /// Runs them after a process that has ended like this, within this time if there is a limit. The answer is how the run
    /// has ended: no script changes that, but the task may have been taken from us meanwhile.
    pub async fn run(&self, end: End, limit: Option<Duration>, runner: &Runner<'_>) -> End {
        let (End::Exited { exit, .. } | End::Signalled(exit)) = end else {
            return end;
        };
        if self.is_empty() || disowned(&end) || taken(runner).is_some() {
            return end;
        }
        // An interrupt that came while the process ended by itself.
        let limit = limit.or_else(|| runner.interrupt().map(|_| runner.grace));
        let until = limit.map(|left| Instant::now() + left.max(LEAST).saturating_sub(PARTING));
        for script in &self.scripts {
            let told = match runner.interrupt().filter(|_| until.is_none()) {
                Some(why) => Some(format!("{} is not run: {}", script.whose, why.describe())),
                None => self.one(script, exit, until, runner).await,
            };
            if taken(runner).is_none()
                && let Some(told) = told
                && let Err(error) = runner.spool.note(&told)
            {
                tracing::warn!(%error, "could not write to the spool");
            }
        }
        match taken(runner) {
            Some(interrupt) => End::Exited {
                exit,
                interrupt: Some(interrupt),
                killed: false,
            },
            None => end,
        }
    }

    /// Runs one of them; what there is to tell of its end.
    async fn one(
        &self,
        script: &Script,
        exit: Exit,
        until: Option<Instant>,
        runner: &Runner<'_>,
    ) -> Option<String> {
        let whose = &script.whose;
        let command = match self.command(script, exit) {
            Ok(command) => command,
            Err(failure) => return Some(failure.to_string()),
        };
        let ended = match until {
            Some(until) => within(until, command, runner).await,
            None => runner.clone().run(command).await,
        };
        Some(match ended {
            Ok(Ended::Itself(Exit::Code(0))) => return None,
            Ok(Ended::Itself(exit)) => format!(
                "{whose} ended with {}: how the task ends is up to its code alone",
                exit.describe()
            ),
            Ok(Ended::Interrupted { .. }) => {
                let why = runner.interrupt().map(|why| why.describe());
                let why = why.unwrap_or_else(|| "its time was over".to_owned());
                format!("{whose} was ended before it was done: {why}")
            }
            Err(error) => format!("{whose} could not be started: {error}"),
        })
    }

    fn command(&self, script: &Script, exit: Exit) -> Result<Command, Failure> {
        let path = self.variables.get(OsStr::new("PATH"));
        let path = path.map_or(DEFAULT_PATH.into(), |path| path.to_string_lossy());
        // The task may have removed its own.
        let folder = if self.folder.is_dir() {
            self.folder.as_path()
        } else {
            Path::new("/")
        };
        let mut command = Command::new(script.shell(&path)?);
        command
            .arg("-c")
            .arg(&script.text)
            .current_dir(folder)
            .env_clear()
            .envs(&self.variables)
            .env(EXIT_CODE, exit.code().to_string());
        Ok(command)
    }
}

/// The interrupt after which the task is no longer ours, if there is one.
fn taken(runner: &Runner<'_>) -> Option<Interrupt> {
    runner.interrupt().filter(Interrupt::disowns)
}

/// Runs a command that is told to end then.
async fn within(until: Instant, command: Command, runner: &Runner<'_>) -> io::Result<Ended> {
    let over = Sender::new(None);
    let mut bounded = Runner {
        interrupts: over.subscribe(),
        grace: PARTING,
        ..runner.clone()
    };
    let timer = async {
        sleep_until(until).await;
        over.send_replace(runner.interrupt().or(Some(Interrupt::Shutdown)));
        pending::<Infallible>().await
    };
    tokio::select! {
        ended = bounded.run(command) => ended,
        never = timer => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::spool::Spool;

    struct Pod {
        folder: tempfile::TempDir,
        deadline: PathBuf,
        spool: Spool,
        send: Sender<Option<Interrupt>>,
    }

    impl Pod {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                deadline: folder.path().join("deadline"),
                spool: Spool::open(&folder.path().join("spool")).unwrap(),
                folder,
                send: Sender::new(None),
            }
        }

        async fn after(&self, scripts: &[&str], end: End, limit: Option<Duration>) -> End {
            let post = Post {
                scripts: scripts
                    .iter()
                    .map(|text| Script::of_binding(text, "post script", "environment.postScript"))
                    .collect(),
                folder: self.folder.path().to_owned(),
                variables: BTreeMap::from([
                    ("PATH".into(), DEFAULT_PATH.into()),
                    ("OF_TASK".into(), "known".into()),
                ]),
            };
            let runner = Runner {
                spool: &self.spool,
                interrupts: self.send.subscribe(),
                grace: Duration::from_secs(20),
                deadline: &self.deadline,
            };
            post.run(end, limit, &runner).await
        }

        fn log(&self) -> String {
            let mut bytes = Vec::new();
            self.spool.read(0, 1 << 20, &mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        }
    }

    fn exited(exit: Exit, interrupt: Option<Interrupt>) -> End {
        End::Exited {
            exit,
            interrupt,
            killed: false,
        }
    }

    #[tokio::test]
    async fn they_know_what_the_process_ended_with_and_change_nothing_about_it() {
        let pod = Pod::new();
        for exit in [Exit::Code(0), Exit::Code(3), Exit::Signal(11)] {
            let end = exited(exit, None);
            let scripts = ["echo $OF_TASK $TRAINYARD_EXIT_CODE; exit 9", "echo next"];
            assert_eq!(pod.after(&scripts, end.clone(), None).await, end);
        }
        let told = "trainyard: the post script of the binding ended with exit code 9: \
                    how the task ends is up to its code alone";
        let each = ["0", "3", "139"].map(|code| format!("known {code}\n{told}\nnext\n"));
        assert_eq!(pod.log(), each.concat());
    }

    #[tokio::test]
    async fn after_an_interrupt_they_have_what_is_left_of_the_grace_and_a_moment_at_least() {
        let pod = Pod::new();
        pod.send.send_replace(Some(Interrupt::Abort));
        let end = exited(Exit::Signal(9), Some(Interrupt::Abort));
        let begun = Instant::now();
        let scripts = ["echo tidied", "echo waits; exec sleep 1000"];
        let limit = Some(Duration::ZERO);
        assert_eq!(pod.after(&scripts, end.clone(), limit).await, end);
        let took = begun.elapsed();
        let least = LEAST.saturating_sub(PARTING);
        let right = least..Duration::from_secs(60);
        assert!(right.contains(&took), "{took:?}");
        assert_eq!(
            pod.log(),
            "tidied\nwaits\n\
             trainyard: the post script of the binding was ended before it was done: the task was aborted\n"
        );
    }

    #[tokio::test]
    async fn an_abort_ends_them_and_the_process_has_ended_as_it_has() {
        let pod = Pod::new();
        let end = exited(Exit::Code(0), None);
        let scripts = ["echo waits; exec sleep 1000", "echo never"];
        let aborted = async {
            while pod.log().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pod.send.send_replace(Some(Interrupt::Abort));
        };
        let both = async { tokio::join!(pod.after(&scripts, end.clone(), None), aborted).0 };
        let after = tokio::time::timeout(Duration::from_secs(60), both).await;
        assert_eq!(after.unwrap(), end);
        let of = "trainyard: the post script of the binding";
        assert_eq!(
            pod.log(),
            format!(
                "waits\n{of} was ended before it was done: the task was aborted\n\
                 {of} is not run: the task was aborted\n"
            )
        );
    }

    #[tokio::test]
    async fn nothing_is_run_or_written_for_a_task_that_is_no_longer_ours() {
        let pod = Pod::new();
        let taken = exited(Exit::Code(1), Some(Interrupt::Deleted));
        let end = pod.after(&["echo never"], taken.clone(), Some(Duration::from_secs(9)));
        assert_eq!(end.await, taken);
        for end in [
            End::Unprepared("no".to_owned()),
            End::Unstartable("no".to_owned()),
            End::Interrupted(Interrupt::Abort),
        ] {
            assert_eq!(pod.after(&["echo never"], end.clone(), None).await, end);
        }
        pod.send.send_replace(Some(Interrupt::Deleted));
        let end = exited(Exit::Code(0), None);
        assert_eq!(pod.after(&["echo never"], end.clone(), None).await, end);
        assert_eq!(pod.log(), "");
    }

    #[tokio::test]
    async fn a_task_that_is_taken_while_they_run_is_not_ours_to_report() {
        let pod = Pod::new();
        let taken = async {
            while pod.log().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            pod.send.send_replace(Some(Interrupt::Deleted));
        };
        let scripts = ["echo waits; exec sleep 1000"];
        let end = pod.after(&scripts, End::Signalled(Exit::Code(0)), None);
        let both = async { tokio::join!(end, taken).0 };
        let after = tokio::time::timeout(Duration::from_secs(60), both).await;
        let expected = exited(Exit::Code(0), Some(Interrupt::Deleted));
        assert_eq!(after.unwrap(), expected);
        assert_eq!(pod.log(), "waits\n");
    }
}
