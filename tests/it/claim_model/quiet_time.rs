//! The same with real times: the quiet time is longer than all that it has to cover.

#![expect(clippy::unwrap_used, reason = "constants of the test")]

use jiff::{SignedDuration, Timestamp};
use proptest::strategy::Strategy;
use proptest::{collection, prop_assert, prop_oneof, proptest};
use trainyard::claim::policy::{AGENT_START, LATE_DELIVERY};
use trainyard::claim::{
    Admission, By, Cause, Entry, Facts, Job, JobState, JobsFact, Observed, OnInterruption,
    OnPendingTimeout, Policy, Presence, QUIET_TIME, REQUEST_TIMEOUT, Reason, STEP_DEADLINE, Stamps,
    Step, TaskFact, TaskState, ThisPass, UserQueue, decide,
};
use trainyard::pod::FENCE_DEADLINE;
use trainyard::task::{Attempt, Status};

/// Somebody between two calls: when the first read (or call) was begun, and when the last effect came.
fn any_window() -> impl Strategy<Value = (SignedDuration, SignedDuration)> {
    let within =
        |limit: SignedDuration| (0..=limit.as_secs() * 1000).prop_map(SignedDuration::from_millis);
    let fence = SignedDuration::from_secs(FENCE_DEADLINE.as_secs().cast_signed());
    let begun = within(SignedDuration::from_mins(2));
    let lasts = prop_oneof![
        // A step: its last call begins within the deadline and is answered within the timeout.
        (within(STEP_DEADLINE), within(REQUEST_TIMEOUT)).prop_map(|(call, answer)| call + answer),
        within(fence),
        within(AGENT_START),
    ];
    (begun, lasts, within(LATE_DELIVERY))
        .prop_map(|(begun, lasts, late)| (begun, begun + lasts + late))
}

proptest! {
    /// The times are real here: whenever `decide` acts on a task that is queued in no queue, nobody is left inside a
    /// step that began before the facts did.
    #[test]
    fn quiet_time_covers_every_window(
        windows in collection::vec(any_window(), 1..8),
        since in 0i64..120_000,
        looked_after in 0i64..60_000,
        decided_after in 0i64..10_000,
        which in 0usize..3,
    ) {
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let since = SignedDuration::from_millis(since);
        let read = since + SignedDuration::from_millis(looked_after);
        let now = read + SignedDuration::from_millis(decided_after);
        let state = [JobState::Intent, JobState::Held, JobState::Ended(Cause::Interruption)][which];
        let observed = nowhere(state, start + read, start + since);
        let step = decide(&observed, &patient(), start + now);
        if matches!(step, Step::Wait { .. }) {
            prop_assert!(looked_after < QUIET_TIME.as_secs() * 1000 || now - read > STEP_DEADLINE);
        } else {
            for (begun, over) in windows {
                prop_assert!(begun > since || over <= read, "{step:?} while a step of {begun:?} lasts until {over:?}");
            }
        }
    }
}

proptest! {
    /// Whenever `decide` acts on a run whose Job has ended, nobody is left inside a step that began before the task's own
    /// facts did, and no call of its pod is on its way; and it acts as soon as that is sure.
    #[test]
    fn an_ended_run_is_told_when_every_window_and_each_late_call_is_over(
        windows in collection::vec(any_window(), 1..8),
        task_since in 0i64..60_000,
        ended_after in 0i64..60_000,
        look_lasted in 0i64..8_000,
        looked_after in 0i64..30_000,
        decided_after in 0i64..10_000,
        (died_before, late) in (0i64..2_000, 0..=LATE_DELIVERY.as_secs() * 1000),
    ) {
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let millis = SignedDuration::from_millis;
        let task_since = millis(task_since);
        // A look in which the Jobs are read last; the pod has died by then.
        let ended_look = task_since + millis(ended_after);
        let seen = ended_look + millis(look_lasted);
        let arrived = seen - millis(died_before) + millis(late);
        let read = seen + millis(looked_after);
        let now = read + millis(decided_after);
        let observed = Observed {
            unchanged_since: start + ended_look,
            task_unchanged_since: start + task_since,
            jobs_unchanged_since: start + seen,
            ..ended_running(start + read)
        };
        let step = decide(&observed, &patient(), start + now);
        if matches!(step, Step::Wait { .. }) {
            let sure = read - task_since >= QUIET_TIME && read - seen >= LATE_DELIVERY;
            prop_assert!(!sure || now - read > STEP_DEADLINE);
        } else {
            for (begun, over) in windows {
                prop_assert!(begun > task_since || over <= read, "{step:?} while a step of {begun:?} lasts until {over:?}");
            }
            prop_assert!(arrived <= read, "{step:?} while a call of the pod arrives at {arrived:?}");
        }
    }
}

/// A task in progress, as the first attempt of ours, beside its Job that was interrupted.
fn ended_running(read_at: Timestamp) -> Observed {
    let mut observed = nowhere(JobState::Ended(Cause::Interruption), read_at, read_at);
    if let TaskFact::Found(task) = &mut observed.facts.task {
        let us = By::Us(Attempt::FIRST);
        task.status = Status::InProgress;
        (task.mark, task.last_worker) = (us, us);
    }
    observed
}

/// A task queued in no queue beside a Job of its first attempt.
fn nowhere(state: JobState, read_at: Timestamp, unchanged_since: Timestamp) -> Observed {
    let queue = "00000000000000000000000000000001".parse().unwrap();
    let task = TaskState {
        status: Status::Queued,
        stopping: false,
        reason: Reason::Other,
        has_enqueue_status: true,
        user_queue: UserQueue::Known(queue),
        mark: By::Nobody,
        last_worker: By::Nobody,
    };
    let job = Job {
        attempt: Attempt::FIRST,
        state,
        presence: Presence::Present,
        other_binding: false,
        started: false,
        refused: false,
        settled: false,
        returned: false,
        requeues: 0,
        failures: 0,
        created_at: read_at,
    };
    let facts = Facts {
        entry: Entry::Nowhere,
        task: TaskFact::Found(task),
        jobs: JobsFact::Known(vec![job]),
        stamps: Stamps::default(),
    };
    Observed {
        facts,
        read_at,
        unchanged_since,
        task_unchanged_since: unchanged_since,
        jobs_unchanged_since: unchanged_since,
        this_pass: ThisPass::Nothing,
    }
}

fn patient() -> Policy {
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
