//! Process 1 of the user's image: fence, environment, run, scripts after it, end.

use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::echo::Echo;
use super::environment::{self, Ready};
use super::fence::{self, Verdict};
use super::finish::{self, Closing};
use super::outcome::{End, Exit, Interrupt, Memory};
use super::process::{Ended, Runner, adopt_orphans, interrupted};
use super::relay::Relay;
use super::settings::Settings;
use super::spool::Spool;
use super::statistics::Statistics;
use super::{client, configuration, memory, token, watch};
use crate::api::Client;
use crate::pod::{self, Prepared};
use crate::task::Task;

/// Runs the task; the answer is our own exit code.
pub async fn run(settings: &Settings, stop: CancellationToken) -> Result<i32, String> {
    let spool = Spool::open(&settings.layout.spool())
        .map_err(|error| format!("could not open the spool: {error}"))?;
    let _alive = spool
        .lock()
        .map_err(|error| format!("another process 1 holds the spool: {error}"))?;
    let prepared = prepared(settings)?;
    let token = token(settings);
    let secrets = settings.secrets(token.as_deref());
    let client = client(settings, token)?;
    if stop.is_cancelled() {
        let message = "the pod was ended before its task was started";
        return Ok(finish::before_the_fence(
            settings,
            "interrupted",
            message,
            pod::exit::INTERRUPTED,
        ));
    }
    let task = match fence::pass(&client, settings).await {
        Ok(task) => task,
        Err(lost) => {
            tracing::warn!(reason = %lost, "the task is not started here");
            return Ok(finish::before_the_fence(
                settings,
                "lost-race",
                &lost.to_string(),
                pod::exit::LOST_RACE,
            ));
        }
    };
    fence::tell(&settings.layout, Verdict::Passed)
        .map_err(|error| format!("could not tell the uplink: {error}"))?;

    adopt_orphans();
    let settings = &configured(settings);
    let echo = Spool::open(&settings.layout.spool())
        .and_then(|spool| Echo::start(spool, secrets.clone(), std::io::stdout()))
        .map_err(|error| format!("could not copy the log: {error}"))?;
    let interrupts = Sender::new(None);
    let deadline = settings.layout.deadline();
    let mut runner = Runner {
        spool: &spool,
        interrupts: interrupts.subscribe(),
        grace: settings.grace,
        deadline: &deadline,
    };
    let watching = watcher(client.clone(), settings.clone(), stop.clone(), interrupts);
    let mut statistics = Statistics::start(&client, settings, &task);
    let background = TaskTracker::new();
    let (end, memory) = tokio::select! {
        ended = attempt(&task, &prepared, settings, &client, &background, &echo, &mut runner) => ended,
        never = report(statistics.as_mut()) => match never {},
    };
    watching.abort();
    let faults = statistics
        .as_ref()
        .map(Statistics::faults)
        .unwrap_or_default();
    if let Some(mut statistics) = statistics.filter(|_| !finish::disowned(&end)) {
        background.spawn(async move { statistics.report().await });
    }
    let closing = Closing {
        settings,
        client: &client,
        spool: &spool,
        echo: &echo,
        background: &background,
        secrets: &secrets,
        faults: &faults,
    };
    Ok(closing.close(&end, memory, &stop).await)
}

/// The settings with what the configuration says of the run itself; one that cannot be read is told with the environment.
fn configured(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if let Ok(agent) = configuration::read(&settings.inherited) {
        configuration::adjust(&mut settings, &agent);
    }
    settings
}

fn watcher(
    client: Client,
    settings: Settings,
    stop: CancellationToken,
    interrupts: Sender<Option<Interrupt>>,
) -> JoinHandle<()> {
    tokio::spawn(async move { watch::watch(&client, &settings, &stop, &interrupts).await })
}

/// Reports statistics beside the run.
async fn report(statistics: Option<&mut Statistics>) -> Infallible {
    if let Some(statistics) = statistics {
        statistics.run().await;
    }
    std::future::pending().await
}

/// What `prepare` has left.
pub(super) fn prepared(settings: &Settings) -> Result<Prepared, String> {
    let path = settings.layout.prepared();
    let bytes =
        fs::read(&path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("could not understand {}: {error}", path.display()))
}

/// From a task that is ours to the end of its process and of the scripts after that; with the kernel's word on the memory
/// of the process.
async fn attempt(
    task: &Task,
    prepared: &Prepared,
    settings: &Settings,
    client: &Client,
    background: &TaskTracker,
    echo: &Echo,
    runner: &mut Runner<'_>,
) -> (End, Memory) {
    let before = memory::read();
    let making = Box::pin(made(task, prepared, settings, client, background, runner));
    let Ready { command, post } = match making.await {
        Ok(ready) => ready,
        Err(end) => return (end, memory::read().since(before)),
    };
    let (end, limit) = started(command, settings, client, runner).await;
    let memory = memory::read().since(before);
    // What scripts print is none of the lines that the process ended with.
    if !post.is_empty()
        && let Ok(length) = runner.spool.length()
    {
        echo.keep_until(length);
    }
    (post.run(end, limit, runner).await, memory)
}

/// What is started for the task; its end, if there is nothing to start.
async fn made(
    task: &Task,
    prepared: &Prepared,
    settings: &Settings,
    client: &Client,
    background: &TaskTracker,
    runner: &Runner<'_>,
) -> Result<Ready, End> {
    if let Some(sentence) = &prepared.failure {
        return Err(End::Unprepared(sentence.clone()));
    }
    let mut interrupts = runner.interrupts.clone();
    // Nothing of the user's code has started: what an interrupt leaves half-made may be dropped at once.
    let ready = {
        let making = environment::make(task, prepared, settings, client, background, runner);
        tokio::select! {
            ready = making => ready,
            () = interrupted(&mut interrupts) => Ok(None),
        }
    };
    match ready {
        Ok(Some(ready)) => Ok(ready),
        Ok(None) => Err(End::Interrupted(
            runner.interrupt().unwrap_or(Interrupt::Shutdown),
        )),
        Err(failure) => Err(End::Unprepared(failure.to_string())),
    }
}

/// Runs the user's process to its end; with the time that is left for what comes after it, if it was interrupted.
async fn started(
    command: Command,
    settings: &Settings,
    client: &Client,
    runner: &mut Runner<'_>,
) -> (End, Option<Duration>) {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    // Before there is a process that a signal could be meant for.
    let mut relay = match Relay::listen() {
        Ok(relay) => relay,
        Err(error) => {
            let sentence = format!("could not listen to signals: {error}");
            return (End::Unstartable(sentence), None);
        }
    };
    match runner.run_heard(command, &mut relay).await {
        Ok(Ended::Itself(exit)) if relay.has_passed_on(settings.pod_grace) => {
            let end = signalled(exit, client, settings).await;
            let told_to_end = matches!(
                end,
                End::Exited {
                    interrupt: Some(_),
                    ..
                }
            );
            // Since when is not known.
            (end, told_to_end.then_some(Duration::ZERO))
        }
        Ok(Ended::Itself(exit)) => (
            End::Exited {
                exit,
                interrupt: None,
                killed: false,
            },
            None,
        ),
        Ok(Ended::Interrupted { exit, killed, left }) => (
            End::Exited {
                exit,
                interrupt: runner.interrupt(),
                killed,
            },
            Some(left),
        ),
        Err(error) => (
            End::Unstartable(format!("could not start {program}: {error}")),
            None,
        ),
    }
}

/// The end of a process that a signal was passed on to: its pod may have been told to end by it.
async fn signalled(exit: Exit, client: &Client, settings: &Settings) -> End {
    let interrupt = match watch::behind(client, settings).await {
        Some(interrupt @ Interrupt::Ended(_)) if !interrupt.disowns() => None,
        None => return End::Signalled(exit),
        interrupt => interrupt,
    };
    End::Exited {
        exit,
        interrupt,
        killed: false,
    }
}
