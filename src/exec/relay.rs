//! Signals that mean nothing to us go to the task's process group as they come: the script may have a use for them.
//!
//! SIGTERM and SIGINT end the run (see [`super::watch`]). Left out is what stops a process until somebody at a terminal
//! lets it go on (SIGTSTP, SIGTTIN, SIGTTOU), and what tells of a fault or a timer of our own.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{self, SignalKind};

/// What is passed on.
const PASSED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// Hears the signals that are for the task.
#[derive(Debug)]
pub struct Relay {
    streams: Vec<(Signal, unix::Signal)>,
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
        Ok(Self { streams })
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
}

/// Hands a signal to the whole group.
pub fn pass_on(signal: Signal, group: Pid) {
    tracing::debug!(%signal, "passed on to the task");
    let _ = killpg(group, signal);
}

/// Whether a process that died of this signal may have got it from us.
pub fn passes_on(number: i32) -> bool {
    PASSED.iter().any(|signal| *signal as i32 == number)
}
