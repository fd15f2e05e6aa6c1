//! The sidecar: spool → log events on the server, each line exactly once, whatever is killed or lost on the way.
//!
//! ```text
//! log ──read──▶ pieces ──recorded as "sending"──▶ events.add_batch ──answer──▶ recorded as acknowledged
//!                                                        │ no answer
//!                                                        ▼
//!                               read the log back, drop what is there, send the rest
//! ```
//!
//! The server appends log events without looking, so nothing is ever sent twice on a guess. Each event of an attempt
//! has a time of its own and the attempt's worker id: by the two an event that was stored is recognized. Nothing is
//! sent before the start fence was passed, and nothing any more once the task is no longer ours.

mod batch;
mod marks;
mod sender;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::batch::{Batch, Reader};
use self::marks::Marks;
use self::sender::{Before, Sender};
use super::fence::{self, Verdict};
use super::output::{EVENT_BYTES, Position, Secrets, Tail};
use super::settings::Settings;
use super::spool::{Acknowledged, Spool, Trace};
use crate::api::Client;

/// How often the spool's length is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Small output is collected for so long.
const COLLECT: Duration = Duration::from_millis(400);
/// How often the lock of process 1 is looked at.
const LIFE_POLL: Duration = Duration::from_secs(1);
/// A process 1 that is killed lets go of its lock before the kernel has killed the others of its container; what they
/// write until then still belongs to its last line.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// An unfinished line is shown as it is when it has stood for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A sidecar that ends before it is told to would be started again.
const LINGER: Duration = Duration::from_mins(1);

/// Sends the spool until the pod ends; `stop` is Kubernetes' SIGTERM. What could not be sent within the grace period
/// stays where it is, for the next start of this container.
pub async fn run(
    settings: &Settings,
    client: Client,
    secrets: Secrets,
    stop: &CancellationToken,
) -> io::Result<()> {
    let spool = Spool::open(&settings.layout.spool())?;
    if !passed_fence(settings, stop).await {
        return Ok(());
    }
    let sender = Sender {
        client,
        task: settings.task.clone(),
        worker: settings.worker.clone(),
    };
    let mut uplink = Uplink::new(settings, &spool, &secrets, sender)?;
    tokio::select! {
        ended = uplink.work(stop) => ended,
        () = grace_over(stop, settings.grace) => {
            tracing::error!("grace period over before all of the log was sent");
            Ok(())
        }
    }
}

/// Waits for process 1 to pass the fence; `false` if the pod ends first.
async fn passed_fence(settings: &Settings, stop: &CancellationToken) -> bool {
    while fence::verdict(&settings.layout) != Some(Verdict::Passed) {
        tokio::select! {
            () = sleep(POLL) => {}
            () = stop.cancelled() => return fence::verdict(&settings.layout) == Some(Verdict::Passed),
        }
    }
    true
}

/// Notes when which bytes were there while a request is on its way.
async fn keep_time(spool: &Spool, marks: &Mutex<Marks>) -> io::Result<()> {
    loop {
        observe(spool, marks)?;
        sleep(POLL).await;
    }
}

fn observe(spool: &Spool, marks: &Mutex<Marks>) -> io::Result<()> {
    let length = spool.length()?;
    let now = Timestamp::now().as_millisecond();
    marks
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .observe(length, now);
    Ok(())
}

async fn grace_over(stop: &CancellationToken, grace: Duration) {
    stop.cancelled().await;
    sleep(grace).await;
}

struct Uplink<'a> {
    settings: &'a Settings,
    spool: &'a Spool,
    reader: Reader<'a>,
    sender: Sender,
    marks: Arc<Mutex<Marks>>,
    state: Acknowledged,
    /// What stands before the acknowledged place.
    trace: Trace,
    /// Since when the unfinished line at this offset has been standing.
    standing: (u64, Instant),
    sent_at: Option<Instant>,
    /// Since when process 1 is known not to live.
    dead: Option<Instant>,
    looked_at: Option<Instant>,
}

impl<'a> Uplink<'a> {
    fn new(
        settings: &'a Settings,
        spool: &'a Spool,
        secrets: &'a Secrets,
        sender: Sender,
    ) -> io::Result<Self> {
        let state = spool.acknowledged()?;
        let mut marks = Marks::default();
        for (length, time) in spool.stamps() {
            marks.observe(length, time);
        }
        marks.forget_before(state.at.offset);
        Ok(Self {
            settings,
            spool,
            reader: Reader {
                spool,
                secrets,
                buffer: Vec::new(),
            },
            sender,
            marks: Arc::new(Mutex::new(marks)),
            trace: spool.trace(state.at.offset)?,
            state,
            standing: (0, Instant::now()),
            sent_at: None,
            dead: None,
            looked_at: None,
        })
    }

    async fn work(&mut self, stop: &CancellationToken) -> io::Result<()> {
        self.settle_what_was_under_way().await?;
        let mut drained_at = None;
        let mut goal = None;
        loop {
            if fence::verdict(&self.settings.layout) == Some(Verdict::Lost) {
                // No longer our task: its log is not ours to write. There is nothing left to do but to wait.
                stop.cancelled().await;
                return Ok(());
            }
            let stopping = stop.is_cancelled();
            let over = self.over(stopping)?;
            let more = self.send_next(over, stopping).await?;
            let drained = self.state.at.offset >= self.length();
            // While process 1 lives, what it writes after the signal is for the next start of this container.
            let reached =
                stopping && !over && self.state.at.offset >= *goal.get_or_insert(self.length());
            if stopping && (drained || reached || (!more && !over)) {
                return Ok(());
            }
            if more {
                continue;
            }
            if over && drained {
                let until = *drained_at.get_or_insert_with(|| Instant::now() + LINGER);
                let told = timeout_at(until.min(Instant::now() + LIFE_POLL), stop.cancelled())
                    .await
                    .is_ok();
                if !told && Instant::now() >= until {
                    return Ok(());
                }
            } else {
                drained_at = None;
                let _ = tokio::time::timeout(POLL, stop.cancelled()).await;
            }
        }
    }

    /// A predecessor of this process died between recording a batch and recording its answer.
    async fn settle_what_was_under_way(&mut self) -> io::Result<()> {
        if self.state.sending.is_empty() {
            return Ok(());
        }
        let batch = self.reader.again(&self.state.sending)?;
        self.send(batch, Before::Uncertain).await?;
        self.acknowledge()
    }

    /// Whether nobody writes to the spool any more. Kubernetes stops us when the task's container is gone as a whole.
    fn over(&mut self, stopping: bool) -> io::Result<bool> {
        if self.spool.finished() {
            return Ok(true);
        }
        let due = self.looked_at.is_none_or(|at| at.elapsed() >= LIFE_POLL);
        if stopping || due {
            let now = Instant::now();
            self.looked_at = Some(now);
            self.dead = if self.spool.locked()? {
                None
            } else {
                self.dead.or(Some(now))
            };
        }
        Ok(self
            .dead
            .is_some_and(|since| stopping || since.elapsed() >= LAST_WORDS))
    }

    /// Sends what is there, if it is worth a request; returns whether there may be more at once.
    async fn send_next(&mut self, over: bool, stopping: bool) -> io::Result<bool> {
        // After this look a final length is final.
        observe(self.spool, &self.marks)?;
        let length = self.length();
        if length != self.state.at.offset && !self.spool.goes_on_from(&self.trace)? {
            tracing::warn!("the task has begun its output anew");
            self.state.at = Position::default();
            self.trace = Trace::default();
        }
        let pending = length.saturating_sub(self.state.at.offset);
        let collecting =
            self.sent_at.is_some_and(|at| at.elapsed() < COLLECT) && pending < EVENT_BYTES as u64;
        if pending == 0 {
            self.standing = (self.state.at.offset, Instant::now());
        }
        if pending == 0 || (collecting && !over && !stopping) {
            return Ok(false);
        }
        let before = self.state.at;
        let tail = self.tail(over);
        let batch = {
            let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            self.reader.next(&mut self.state, &marks, tail)?
        };
        // The task may have begun it anew since: then this does not continue what was sent.
        if !self.spool.goes_on_from(&self.trace)? {
            self.state.at = before;
            return Ok(true);
        }
        if batch.pieces.is_empty() {
            self.retrace()?;
            return Ok(self.state.at != before);
        }
        self.deliver(batch).await?;
        Ok(true)
    }

    fn tail(&mut self, over: bool) -> Tail {
        if over {
            return Tail::Final;
        }
        if self.standing.0 != self.state.at.offset {
            self.standing = (self.state.at.offset, Instant::now());
        }
        if self.standing.1.elapsed() >= PATIENCE {
            Tail::Stale
        } else {
            Tail::Open
        }
    }

    /// Records, sends, records again: a death in between is settled by [`Self::settle_what_was_under_way`].
    async fn deliver(&mut self, batch: Batch) -> io::Result<()> {
        self.state.sending.clone_from(&batch.pieces);
        self.spool.acknowledge(&self.state)?;
        self.send(batch, Before::Fresh).await?;
        self.sent_at = Some(Instant::now());
        self.acknowledge()
    }

    async fn send(&self, batch: Batch, before: Before) -> io::Result<()> {
        tokio::select! {
            () = self.sender.send(batch, before) => Ok(()),
            failed = keep_time(self.spool, &self.marks) => failed,
        }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        if let Some(last) = self.state.sending.last() {
            self.state.time = last.time;
            self.state.at = last.to;
        }
        self.state.sending.clear();
        self.retrace()?;
        self.spool.acknowledge(&self.state)?;
        self.marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .forget_before(self.state.at.offset);
        Ok(())
    }

    /// Remembers what stands before the place that was reached. If the task has begun its output anew meanwhile, the old
    /// trace stays, by which that is seen.
    fn retrace(&mut self) -> io::Result<()> {
        let trace = self.spool.trace(self.state.at.offset)?;
        if self.spool.goes_on_from(&self.trace)? {
            self.trace = trace;
        }
        Ok(())
    }

    fn length(&self) -> u64 {
        self.marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .length()
    }
}
