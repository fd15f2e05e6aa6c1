//! Process 1 of the user's image: fence, environment, run, end.

use std::convert::Infallible;
use std::fs;

use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::echo::Echo;
use super::fence::{self, Verdict};
use super::finish::{self, Closing};
use super::outcome::{End, Exit, Interrupt};
use super::process::{Ended, Runner, adopt_orphans, interrupted};
use super::relay::Relay;
use super::settings::Settings;
use super::spool::Spool;
use super::statistics::Statistics;
use super::{client, configuration, environment, memory, token, watch};
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
    let before = memory::read();
    let background = TaskTracker::new();
    let end = tokio::select! {
        end = attempt(&task, &prepared, settings, &client, &background, &mut runner) => end,
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
    let memory = memory::read().since(before);
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

/// From a task that is ours to the end of its process.
async fn attempt(
    task: &Task,
    prepared: &Prepared,
    settings: &Settings,
    client: &Client,
    background: &TaskTracker,
    runner: &mut Runner<'_>,
) -> End {
    if let Some(sentence) = &prepared.failure {
        return End::Unprepared(sentence.clone());
    }
    let mut interrupts = runner.interrupts.clone();
    // Nothing of the user's code has started: what an interrupt leaves half-made may be dropped at once.
    let command = {
        let making = environment::make(task, prepared, settings, client, background, runner);
        tokio::select! {
            command = making => command,
            () = interrupted(&mut interrupts) => Ok(None),
        }
    };
    let command = match command {
        Ok(Some(command)) => command,
        Ok(None) => {
            return runner
                .interrupt()
                .map_or_else(|| End::Interrupted(Interrupt::Shutdown), End::Interrupted);
        }
        Err(failure) => return End::Unprepared(failure.to_string()),
    };
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    // Before there is a process that a signal could be meant for.
    let mut relay = match Relay::listen() {
        Ok(relay) => relay,
        Err(error) => return End::Unstartable(format!("could not listen to signals: {error}")),
    };
    match runner.run_heard(command, &mut relay).await {
        Ok(Ended::Itself(exit)) if relay.has_passed_on(settings.pod_grace) => {
            signalled(exit, client, settings).await
        }
        Ok(Ended::Itself(exit)) => End::Exited {
            exit,
            interrupt: None,
            killed: false,
        },
        Ok(Ended::Interrupted { exit, killed }) => End::Exited {
            exit,
            interrupt: runner.interrupt(),
            killed,
        },
        Err(error) => End::Unstartable(format!("could not start {program}: {error}")),
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
