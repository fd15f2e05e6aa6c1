//! Signals that mean nothing to us go to the task's process group as they come: the script may have a use for them.
//!
//! SIGTERM and SIGINT end the run (see [`super::watch`]). Left out is what stops a process until somebody at a terminal
//! lets it go on (SIGTSTP, SIGTTIN, SIGTTOU), and what tells of a fault or a timer of our own.
//!
//! One of these may be the STOPSIGNAL of the image: then it comes in place of SIGTERM where the pod is being ended, and
//! nothing in the container tells it from one that somebody has sent. So the end of a process that follows it is left to
//! the controller, who sees the pod (`diagnose::ended`).

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::Instant;

/// What is passed on.
const PASSED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// Hears the signals that are for the task; by default none.
#[derive(Debug, Default)]
pub struct Relay {
    streams: Vec<(Signal, unix::Signal)>,
    /// When one that may end a process was passed on last.
    last: Option<Instant>,
}

impl Relay {
    /// Listens from now on; what came before is for nobody.
    pub fn listen() -> io::Result<Self> {
        let streams = PASSED
            .into_iter()
            .map(|signal| {
                let kind = SignalKind::from_raw(signal as i32);
                unix::signal(kind).map(|stream| (signal, stream))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            streams,
            last: None,
        })
    }

    /// The next one that comes.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(context) == Poll::Ready(Some(())) {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Hands a signal to the whole group.
    pub fn pass_on(&mut self, signal: Signal, group: Pid) {
        tracing::debug!(%signal, "passed on to the task");
        if !matches!(signal, Signal::SIGWINCH | Signal::SIGCONT) {
            self.last = Some(Instant::now());
        }
        let _ = killpg(group, signal);
    }

    /// Whether one that may end a process was passed on within this time.
    pub fn has_passed_on(&self, within: Duration) -> bool {
        self.last.is_some_and(|last| last.elapsed() <= within)
    }
}
