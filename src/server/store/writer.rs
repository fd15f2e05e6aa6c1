//! The one thread that writes: requests that come in while a transaction is open share its commit.
//!
//! ```text
//! first request ──▶ BEGIN ──▶ it and all that follow closely, each in a savepoint ──▶ COMMIT (fsync) ──▶ all answers
//! ```
//!
//! A wait for the disk takes as long for one request as for a hundred, and callers that were answered together come
//! back nearly together: the transaction stays open for them for a moment, never longer than such a wait takes.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::super::wire::{Answer, Refusal};
use super::{guarded, report, step};

/// How many requests share a commit at most.
const SHARED_COMMIT: usize = 128;
/// The longest that a transaction waits for more requests.
const PATIENCE: Duration = Duration::from_millis(4);

pub(super) type Work = Box<dyn FnOnce(&Connection) -> Answer + Send>;

/// A request that writes.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the latest commits were like: how many requests shared each of the last two, how long the last one took.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    shared: [usize; 2],
    took: Duration,
}

impl Pace {
    /// How long a transaction that holds `have` requests since `age` is kept open for more.
    fn patience(self, have: usize, age: Duration) -> Duration {
        let crowd = self.shared[0].max(self.shared[1]);
        if have < crowd {
            self.took.min(PATIENCE).saturating_sub(age)
        } else {
            Duration::ZERO
        }
    }

    fn after(self, shared: usize, took: Duration) -> Self {
        Self {
            shared: [shared, self.shared[0]],
            took,
        }
    }
}

/// Writes until nobody can ask any more.
pub(super) fn run(db: &Connection, jobs: &Receiver<Job>, failed: &watch::Sender<Option<String>>) {
    let mut pace = Pace::default();
    while let Ok(first) = jobs.recv() {
        pace = write_batch(db, first, jobs, pace, failed);
    }
}

fn write_batch(
    db: &Connection,
    first: Job,
    jobs: &Receiver<Job>,
    pace: Pace,
    failed: &watch::Sender<Option<String>>,
) -> Pace {
    let begun = Instant::now();
    let mut lost = step(db, "BEGIN IMMEDIATE").err().map(Refusal::from);
    let mut answers = Vec::with_capacity(pace.shared[0]);
    let mut next = Some(first);
    while let Some(Job {
        work,
        answer,
        _room,
    }) = next
    {
        let result = match &lost {
            Some(refusal) => Err(refusal.clone()),
            None => in_savepoint(db, work),
        };
        // A failing disk makes SQLite take the whole transaction back, with what the neighbours wrote.
        if lost.is_none() && db.is_autocommit() {
            let unknown = || Refusal::new(500, 102, "Database unavailable: rolled back");
            lost = Some(result.as_ref().err().cloned().unwrap_or_else(unknown));
        }
        answers.push((answer, result));
        next = following(jobs, answers.len(), begun, pace);
    }
    let worked = Instant::now();
    if lost.is_none() {
        lost = step(db, "COMMIT").err().map(Refusal::from);
    }
    take_back(db);
    let pace = pace.after(answers.len(), worked.elapsed());
    for (answer, result) in answers {
        let result = match &lost {
            None => result,
            Some(refusal) => result.and(Err(refusal.clone())),
        };
        if let Err(refusal) = &result {
            report(failed, refusal);
        }
        // The client may have gone; its write stands.
        let _ = answer.send(result);
    }
    pace
}

/// The next request for the transaction that is open, if one comes soon enough.
fn following(jobs: &Receiver<Job>, have: usize, begun: Instant, pace: Pace) -> Option<Job> {
    if have >= SHARED_COMMIT {
        return None;
    }
    if let Ok(job) = jobs.try_recv() {
        return Some(job);
    }
    let patience = pace.patience(have, begun.elapsed());
    if patience.is_zero() {
        return None;
    }
    jobs.recv_timeout(patience).ok()
}

/// Ends a transaction that is still open because something in it failed.
pub(super) fn take_back(db: &Connection) {
    if !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
}

fn in_savepoint(db: &Connection, work: Work) -> Answer {
    step(db, "SAVEPOINT request")?;
    let answer = guarded(|| work(db));
    let keep = answer
        .as_ref()
        .map_or_else(|refusal| refusal.keeps_writes, |_| true);
    let ended = if keep {
        step(db, "RELEASE request")
    } else {
        step(db, "ROLLBACK TO request").and_then(|()| step(db, "RELEASE request"))
    };
    match ended {
        Ok(()) => answer,
        // The request's own failure says more than that of its end.
        Err(error) => {
            take_back(db);
            answer.and(Err(error.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_kept_open_for_those_that_came_before_and_no_longer_than_a_commit_takes() {
        let ms = Duration::from_millis;
        let alone = Pace::default().after(1, ms(3));
        assert_eq!(alone.patience(1, ms(0)), ms(0));
        let crowd = alone.after(30, ms(3)).after(2, ms(3));
        assert_eq!(crowd.patience(5, ms(1)), ms(2));
        assert_eq!(crowd.patience(5, ms(4)), ms(0));
        assert_eq!(crowd.patience(30, ms(1)), ms(0));
        assert_eq!(crowd.after(30, ms(900)).patience(1, ms(0)), PATIENCE);
        assert_eq!(
            crowd.after(1, ms(3)).after(1, ms(3)).patience(1, ms(0)),
            ms(0)
        );
    }
}
