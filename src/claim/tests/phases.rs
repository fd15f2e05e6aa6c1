//! Each row of the table of phases, as facts and meaning.

use super::*;

/// The name of a phase, for tables.
fn name(facts: &Facts) -> String {
    let phase = format!("{:?}", Phase::of(facts));
    phase.split('(').next().unwrap().to_owned()
}

#[test]
fn each_row_of_the_table_has_its_phase() {
    let queued = || task(Status::Queued);
    let aborted = || task(Status::Stopped);
    let over = || task(Status::Completed);
    let stopping = || TaskState {
        stopping: true,
        ..run_by(1)
    };
    let foreign = || TaskState {
        last_worker: By::Other,
        ..task(Status::InProgress)
    };
    let dequeued = || TaskState {
        has_enqueue_status: false,
        ..queued()
    };
    let lost = Cause::Interruption;
    let deleting = |job| Job {
        presence: Presence::Deleting,
        ..job
    };
    let rows: &[(&str, Facts)] = &[
        ("Unclear", facts(Entry::Unknown, queued(), &[])),
        ("Unclear", facts(served(), task(Status::Unknown), &[])),
        (
            "Unclear",
            Facts {
                task: TaskFact::Unknown,
                ..facts(served(), queued(), &[])
            },
        ),
        (
            "Unclear",
            Facts {
                jobs: JobsFact::Unknown,
                ..facts(served(), queued(), &[])
            },
        ),
        ("Deleting", facts(served(), queued(), &[deleting(held(1))])),
        (
            "Deleting",
            gone(
                Entry::Nowhere,
                &[Job {
                    presence: Presence::PodOnly,
                    ..started(1)
                }],
            ),
        ),
        (
            "Occupied",
            facts(
                served(),
                queued(),
                &[Job {
                    other_binding: true,
                    ..started(1)
                }],
            ),
        ),
        (
            "Offered",
            facts(
                served(),
                queued(),
                &[Job {
                    other_binding: true,
                    ..settled(1)
                }],
            ),
        ),
        (
            "Stranded",
            facts(
                Entry::Pending,
                queued(),
                &[Job {
                    other_binding: true,
                    ..settled(1)
                }],
            ),
        ),
        ("Withdrawn", facts(Entry::Pending, aborted(), &[intent(1)])),
        (
            "Withdrawn",
            facts(Entry::Pending, task(Status::Created), &[held(1)]),
        ),
        ("Withdrawn", gone(Entry::Nowhere, &[held(1)])),
        ("Stopping", facts(Entry::Nowhere, stopping(), &[started(1)])),
        ("Stopping", facts(Entry::Nowhere, aborted(), &[started(1)])),
        (
            "Stopping",
            facts(Entry::Nowhere, task(Status::Created), &[started(1)]),
        ),
        ("Stopping", gone(Entry::Nowhere, &[started(1)])),
        ("Closing", facts(Entry::Nowhere, over(), &[started(1)])),
        (
            "Closing",
            facts(Entry::Nowhere, task(Status::Failed), &[started(1)]),
        ),
        (
            "Closing",
            facts(Entry::Nowhere, ended_by(1, Status::Completed), &[held(1)]),
        ),
        (
            "Withdrawn",
            facts(Entry::Nowhere, ended_by(1, Status::Failed), &[held(2)]),
        ),
        (
            "Withdrawn",
            facts(Entry::Nowhere, ended_by(1, Status::Stopped), &[held(1)]),
        ),
        ("Rival", facts(Entry::Elsewhere, queued(), &[intent(1)])),
        ("Rival", facts(Entry::Elsewhere, queued(), &[held(1)])),
        ("Rival", facts(Entry::Nowhere, foreign(), &[intent(1)])),
        ("Rival", facts(Entry::Nowhere, foreign(), &[started(1)])),
        ("Rival", facts(Entry::Nowhere, run_by(1), &[intent(1)])),
        (
            "Rival",
            facts(Entry::Pending, queued(), &[intent(1), held(2)]),
        ),
        ("Parked", facts(Entry::Pending, queued(), &[intent(1)])),
        (
            "Parked",
            facts(Entry::Pending, queued(), &[settled(1), intent(2)]),
        ),
        ("Intended", facts(served(), queued(), &[intent(1)])),
        ("Taken", facts(Entry::Nowhere, queued(), &[intent(1)])),
        ("Waiting", facts(Entry::Pending, queued(), &[held(1)])),
        ("Superseded", facts(served(), queued(), &[held(1)])),
        ("Superseded", facts(served(), queued(), &[started(1)])),
        ("Starting", facts(Entry::Nowhere, queued(), &[held(1)])),
        ("Starting", facts(Entry::Nowhere, queued(), &[started(1)])),
        ("Starting", facts(Entry::Pending, queued(), &[started(1)])),
        ("Running", facts(Entry::Nowhere, run_by(1), &[started(1)])),
        ("Running", facts(served(), run_by(1), &[started(1)])),
        ("TakenOut", facts(Entry::Nowhere, dequeued(), &[])),
        ("TakenOut", facts(Entry::Nowhere, dequeued(), &[settled(1)])),
        (
            "TakenOut",
            facts(Entry::Pending, dequeued(), &[settled(1), intent(2)]),
        ),
        (
            "TakenOut",
            facts(Entry::Pending, dequeued(), &[settled(1), held(2)]),
        ),
        ("Waiting", facts(Entry::Pending, dequeued(), &[held(1)])),
        (
            "Starting",
            facts(Entry::Nowhere, dequeued(), &[settled(1), started(2)]),
        ),
        (
            "EndedQueued",
            facts(Entry::Pending, queued(), &[ended(1, lost)]),
        ),
        (
            "EndedQueued",
            facts(Entry::Nowhere, queued(), &[ended(1, lost)]),
        ),
        (
            "EndedQueued",
            facts(
                Entry::Nowhere,
                TaskState {
                    reason: Reason::Requeued,
                    ..dequeued()
                },
                &[ended(1, lost)],
            ),
        ),
        (
            "EndedQueued",
            facts(
                Entry::Nowhere,
                TaskState {
                    reason: Reason::FailedEnqueueing,
                    ..dequeued()
                },
                &[ended(1, lost)],
            ),
        ),
        (
            "EndedRunning",
            facts(Entry::Nowhere, run_by(1), &[ended(1, lost)]),
        ),
        (
            "EndedRunning",
            facts(Entry::Nowhere, stopping(), &[ended(1, Cause::Task)]),
        ),
        ("Offered", facts(served(), queued(), &[])),
        ("Offered", facts(served(), queued(), &[settled(1)])),
        ("Stranded", facts(Entry::Pending, queued(), &[])),
        ("Lost", facts(Entry::Nowhere, run_by(1), &[])),
        ("Lost", facts(Entry::Nowhere, run_by(2), &[settled(1)])),
        ("Orphan", facts(Entry::Nowhere, queued(), &[])),
        ("Leftover", facts(Entry::Pending, aborted(), &[])),
        ("Leftover", facts(Entry::Pending, over(), &[settled(1)])),
        ("Leftover", gone(served(), &[])),
        ("Leftover", facts(Entry::Pending, foreign(), &[])),
        (
            "Reported",
            facts(Entry::Nowhere, over(), &[ended(1, Cause::Task)]),
        ),
        ("Reported", gone(Entry::Nowhere, &[ended(1, Cause::Task)])),
        ("Closed", facts(Entry::Nowhere, over(), &[settled(1)])),
        ("Closed", facts(Entry::Nowhere, foreign(), &[])),
        ("Closed", facts(Entry::Elsewhere, queued(), &[])),
        ("Closed", facts(served(), over(), &[])),
        ("Closed", facts(Entry::Nowhere, run_by(1), &[settled(1)])),
    ];
    for (expected, facts) in rows {
        assert_eq!(name(facts), *expected, "{facts:?}");
    }
}

#[test]
fn a_run_is_ours_by_mark_or_last_worker_never_against_a_foreign_report() {
    let us = |n| By::Us(Attempt(n));
    let of = |mark, last_worker| {
        TaskState {
            mark,
            last_worker,
            ..task(Status::InProgress)
        }
        .run_of()
    };
    assert_eq!(of(us(2), us(2)), Some(Attempt(2)));
    assert_eq!(
        of(us(2), us(1)),
        Some(Attempt(2)),
        "the mark is written first"
    );
    assert_eq!(of(us(2), By::Nobody), Some(Attempt(2)));
    assert_eq!(
        of(By::Nobody, us(2)),
        Some(Attempt(2)),
        "user code dropped the mark"
    );
    assert_eq!(
        of(us(2), By::Other),
        None,
        "a plain agent runs the task that we once ran"
    );
    assert_eq!(of(By::Other, us(2)), None);
    assert_eq!(of(By::Nobody, By::Nobody), None);
    assert!(!run_by(1).is_of(&settled(1)), "its end is already stored");
}

#[test]
fn the_next_attempt_is_one_more_than_any_that_left_a_trace() {
    let next = |facts: &Facts| phase::next_attempt(facts).0;
    assert_eq!(next(&facts(served(), task(Status::Queued), &[])), 1);
    assert_eq!(
        next(&facts(
            served(),
            task(Status::Queued),
            &[settled(3), settled(1)]
        )),
        4
    );
    assert_eq!(next(&facts(served(), run_by(5), &[settled(1)])), 6);
}
