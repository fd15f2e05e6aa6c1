//! The claim's tests: facts as sentences, here; the table of phases, the steps, and what holds for all facts.

mod phases;
mod properties;
mod steps;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::task::{Attempt, QueueId, Status};

const QUIET_HOURS: i64 = 2;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn queue() -> QueueId {
    "00000000000000000000000000000001".parse().unwrap()
}

fn served() -> Entry {
    Entry::Served { queue: queue() }
}

/// A task that its user has enqueued.
fn task(status: Status) -> TaskState {
    TaskState {
        status,
        stopping: false,
        reason: Reason::Other,
        has_enqueue_status: status == Status::Queued,
        user_queue: UserQueue::Known(queue()),
        mark: By::Nobody,
        last_worker: By::Nobody,
    }
}

/// The same, run by an attempt of ours.
fn run_by(attempt: u32) -> TaskState {
    let us = By::Us(Attempt(attempt));
    TaskState {
        mark: us,
        last_worker: us,
        ..task(Status::InProgress)
    }
}

/// Ended by the pod of this attempt.
fn ended_by(attempt: u32, status: Status) -> TaskState {
    TaskState {
        status,
        ..run_by(attempt)
    }
}

fn job(attempt: u32, state: JobState) -> Job {
    Job {
        attempt: Attempt(attempt),
        state,
        presence: Presence::Present,
        other_binding: false,
        started: false,
        refused: false,
        settled: false,
        returned: false,
        requeues: 0,
        failures: 0,
        created_at: now(),
    }
}

fn intent(attempt: u32) -> Job {
    job(attempt, JobState::Intent)
}

fn held(attempt: u32) -> Job {
    job(attempt, JobState::Held)
}

fn started(attempt: u32) -> Job {
    Job {
        started: true,
        ..held(attempt)
    }
}

fn ended(attempt: u32, cause: Cause) -> Job {
    Job {
        started: true,
        ..job(attempt, JobState::Ended(cause))
    }
}

fn settled(attempt: u32) -> Job {
    Job {
        settled: true,
        ..ended(attempt, Cause::Task)
    }
}

fn facts(entry: Entry, task: TaskState, jobs: &[Job]) -> Facts {
    Facts {
        entry,
        task: TaskFact::Found(task),
        jobs: JobsFact::Known(jobs.to_vec()),
        stamps: Stamps::default(),
    }
}

fn gone(entry: Entry, jobs: &[Job]) -> Facts {
    Facts {
        task: TaskFact::Gone,
        ..facts(entry, task(Status::Created), jobs)
    }
}

fn observed(facts: Facts, quiet: bool) -> Observed {
    let since = if quiet {
        now() - SignedDuration::from_hours(QUIET_HOURS)
    } else {
        now()
    };
    Observed {
        facts,
        read_at: now(),
        unchanged_since: since,
        task_unchanged_since: since,
        jobs_unchanged_since: since,
        this_pass: ThisPass::Nothing,
    }
}

fn policy() -> Policy {
    Policy {
        pending_timeout: SignedDuration::from_hours(1),
        on_pending_timeout: OnPendingTimeout::Requeue,
        on_interruption: OnInterruption::Requeue,
        max_interruptions: 3,
        max_failures: 0,
        grace: SignedDuration::from_secs(30),
        restore_orphans: true,
        retiring: false,
        admission: Admission::Yes,
    }
}

fn fresh(facts: Facts) -> Step {
    decide(&observed(facts, false), &policy(), now())
}

fn quiet(facts: Facts) -> Step {
    decide(&observed(facts, true), &policy(), now())
}

fn waits(step: &Step) -> bool {
    matches!(step, Step::Wait { .. } | Step::Explain(_))
}
