//! Each row of the table of phases, as facts and meaning; and that the table is total.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::{Just, Strategy, any};
use proptest::{collection, option, prop_assert, prop_oneof, proptest};

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

/// The name of a phase, for tables.
fn name(facts: &Facts) -> String {
    let phase = format!("{:?}", Phase::of(facts));
    phase.split('(').next().unwrap().to_owned()
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
        this_pass: ThisPass::Nothing,
    }
}

fn policy() -> Policy {
    Policy {
        pending_timeout: SignedDuration::from_hours(1),
        on_pending_timeout: OnPendingTimeout::Requeue,
        on_interruption: OnInterruption::Requeue,
        max_interruptions: 3,
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

#[test]
fn a_job_is_released_at_once_only_as_a_first_attempt_in_the_pass_that_parked_it() {
    let release = |job: Job, this_pass| {
        let facts = facts(Entry::Pending, task(Status::Queued), &[job]);
        decide(
            &Observed {
                this_pass,
                ..observed(facts, false)
            },
            &policy(),
            now(),
        )
    };
    assert_eq!(
        release(intent(1), ThisPass::TookAndParked),
        Step::Release {
            attempt: Attempt(1)
        }
    );
    assert!(waits(&release(intent(1), ThisPass::Nothing)));
    assert!(waits(&release(intent(1), ThisPass::Took)));
    assert!(waits(&release(intent(2), ThisPass::TookAndParked)));
    let returned = Job {
        returned: true,
        ..intent(1)
    };
    assert!(waits(&release(returned.clone(), ThisPass::TookAndParked)));
    assert_eq!(
        quiet(facts(Entry::Pending, task(Status::Queued), &[returned])),
        Step::Release {
            attempt: Attempt(1)
        }
    );
}

#[test]
fn nowhere_is_acted_on_only_after_quiet_time_but_for_the_pass_that_took() {
    let attempt = Attempt(1);
    let nowhere = |jobs: &[Job]| facts(Entry::Nowhere, task(Status::Queued), jobs);
    let requeue = |pending| Step::Requeue {
        attempt,
        queue: queue(),
        pending,
        running: false,
    };
    let took = Observed {
        this_pass: ThisPass::Took,
        ..observed(nowhere(&[intent(1)]), false)
    };
    assert_eq!(decide(&took, &policy(), now()), Step::Park { attempt });
    assert!(waits(&fresh(nowhere(&[intent(1)]))));
    assert_eq!(quiet(nowhere(&[intent(1)])), Step::Park { attempt });
    assert!(waits(&fresh(nowhere(&[held(1)]))));
    assert_eq!(quiet(nowhere(&[held(1)])), requeue(false));
    assert!(
        waits(&quiet(nowhere(&[started(1)]))),
        "the fence has its own deadline"
    );
    assert!(waits(&fresh(nowhere(&[ended(1, Cause::Interruption)]))));
    assert_eq!(
        quiet(nowhere(&[ended(1, Cause::Interruption)])),
        requeue(false)
    );
    assert!(waits(&fresh(nowhere(&[]))));
    assert_eq!(
        quiet(nowhere(&[])),
        Step::Restore {
            queue: queue(),
            pending: false
        }
    );
    let parked = facts(
        Entry::Pending,
        task(Status::Queued),
        &[ended(1, Cause::Interruption)],
    );
    assert_eq!(fresh(parked), requeue(true), "the entry itself is the lock");
}

#[test]
fn an_orphan_waits_many_quiet_times_and_only_if_asked_for() {
    let orphan = facts(Entry::Nowhere, task(Status::Queued), &[]);
    let since = now() - QUIET_TIME * 2;
    let young = Observed {
        unchanged_since: since,
        ..observed(orphan.clone(), true)
    };
    assert!(waits(&decide(&young, &policy(), now())));
    let not_asked = Policy {
        restore_orphans: false,
        ..policy()
    };
    assert!(waits(&decide(&observed(orphan, true), &not_asked, now())));
}

#[test]
fn what_is_not_admitted_stays_in_the_users_queue() {
    let full = policy().admitting(Admission::No("8 of 8 run".into()));
    let offered = observed(facts(served(), task(Status::Queued), &[]), true);
    let why = Why::NotAdmitted("8 of 8 run".into());
    assert_eq!(decide(&offered, &full, now()), Step::Explain(why));
    let intended = observed(facts(served(), task(Status::Queued), &[intent(1)]), true);
    assert_eq!(
        decide(&intended, &full, now()),
        Step::Withdraw {
            attempt: Attempt(1)
        }
    );
    let take = Step::Take {
        queue: queue(),
        attempt: Attempt(1),
    };
    assert_eq!(decide(&intended, &policy(), now()), take);
}

#[test]
fn an_entry_that_was_read_before_its_users_dequeue_is_not_taken_up() {
    let task = TaskState {
        has_enqueue_status: false,
        ..task(Status::Queued)
    };
    assert!(waits(&fresh(facts(served(), task.clone(), &[]))));
    assert!(!waits(&quiet(facts(served(), task, &[]))));
}

#[test]
fn an_intent_remembers_that_and_how_often_the_task_came_back() {
    let offered = |reason, requeues| {
        let before = Job {
            requeues,
            ..settled(1)
        };
        fresh(facts(
            served(),
            TaskState {
                reason,
                ..task(Status::Queued)
            },
            &[before],
        ))
    };
    let attempt = Attempt(2);
    assert_eq!(
        offered(Reason::Other, 2),
        Step::Intend {
            attempt,
            returned: false,
            requeues: 0
        }
    );
    assert_eq!(
        offered(Reason::Requeued, 2),
        Step::Intend {
            attempt,
            returned: true,
            requeues: 3
        }
    );
    assert_eq!(
        offered(Reason::Restored, 2),
        Step::Intend {
            attempt,
            returned: true,
            requeues: 2
        }
    );
    assert_eq!(
        offered(Reason::FailedEnqueueing, 2),
        Step::Intend {
            attempt,
            returned: true,
            requeues: 2
        }
    );
}

#[test]
fn a_pod_that_does_not_start_is_explained_pulled_back_or_given_up() {
    let attempt = Attempt(1);
    let waiting = |job: Job| facts(Entry::Pending, task(Status::Queued), &[job]);
    let old = Job {
        created_at: now() - SignedDuration::from_hours(3),
        ..held(1)
    };
    let refused = Job {
        refused: true,
        ..held(1)
    };
    let pull_back = Step::PullBack {
        attempt,
        queue: queue(),
    };
    assert_eq!(
        quiet(waiting(held(1))),
        Step::Explain(Why::PodWaits { attempt })
    );
    assert_eq!(quiet(waiting(refused.clone())), pull_back);
    assert!(waits(&fresh(waiting(refused.clone()))));
    assert_eq!(quiet(waiting(old.clone())), pull_back);
    let fail = Policy {
        on_pending_timeout: OnPendingTimeout::Fail,
        ..policy()
    };
    let reason = GiveUpReason::PendingTimeout;
    let give_up = Step::GiveUp {
        attempt: Some(attempt),
        pending: true,
        reason,
    };
    assert_eq!(
        decide(&observed(waiting(old.clone()), true), &fail, now()),
        give_up
    );
    assert!(waits(&fresh(waiting(old))));
    let retiring = Policy {
        retiring: true,
        ..policy()
    };
    assert_eq!(
        decide(&observed(waiting(held(1)), true), &retiring, now()),
        pull_back
    );
}

#[test]
fn where_the_users_queue_is_gone_the_task_is_given_up() {
    for user_queue in [UserQueue::Gone, UserQueue::Unset] {
        let queued = TaskState {
            user_queue,
            ..task(Status::Queued)
        };
        let reason = GiveUpReason::QueueGone;
        let give_up = |attempt, pending| Step::GiveUp {
            attempt,
            pending,
            reason,
        };
        let one = Some(Attempt(1));
        let lost = ended(1, Cause::Interruption);
        assert_eq!(
            quiet(facts(Entry::Nowhere, queued.clone(), &[held(1)])),
            give_up(one, false)
        );
        assert_eq!(
            quiet(facts(Entry::Pending, queued.clone(), &[lost])),
            give_up(one, true)
        );
        assert_eq!(
            quiet(facts(Entry::Pending, queued.clone(), &[])),
            give_up(None, true)
        );
        assert_eq!(
            quiet(facts(Entry::Nowhere, queued, &[])),
            give_up(None, false)
        );
    }
}

#[test]
fn an_ended_run_is_settled_or_requeued_by_cause_wish_and_budget() {
    let attempt = Attempt(1);
    let step = |job: Job, task: TaskState, policy: &Policy| {
        decide(
            &observed(facts(Entry::Nowhere, task, &[job]), true),
            policy,
            now(),
        )
    };
    let settle = |how| Step::Settle { attempt, how };
    let requeue = Step::Requeue {
        attempt,
        queue: queue(),
        pending: false,
        running: true,
    };
    let lost = || ended(1, Cause::Interruption);
    assert_eq!(step(lost(), run_by(1), &policy()), requeue);
    assert_eq!(
        step(ended(1, Cause::Task), run_by(1), &policy()),
        settle(Settlement::AsEnded)
    );
    let stopping = TaskState {
        stopping: true,
        ..run_by(1)
    };
    assert_eq!(
        step(lost(), stopping, &policy()),
        settle(Settlement::AsEnded),
        "an abort is not undone"
    );
    let spent = Job {
        requeues: 3,
        ..lost()
    };
    assert_eq!(
        step(spent, run_by(1), &policy()),
        settle(Settlement::Failed)
    );
    let gone = TaskState {
        user_queue: UserQueue::Gone,
        ..run_by(1)
    };
    assert_eq!(step(lost(), gone, &policy()), settle(Settlement::Failed));
    let wish = |on_interruption| Policy {
        on_interruption,
        ..policy()
    };
    assert_eq!(
        step(lost(), run_by(1), &wish(OnInterruption::Fail)),
        settle(Settlement::Failed)
    );
    assert_eq!(
        step(lost(), run_by(1), &wish(OnInterruption::Stop)),
        settle(Settlement::Stopped)
    );
    assert!(waits(&fresh(facts(Entry::Nowhere, run_by(1), &[lost()]))));
}

#[test]
fn a_pod_that_never_gets_to_run_is_given_up_when_the_budget_is_spent() {
    let spent = Job {
        requeues: 3,
        ..ended(4, Cause::Interruption)
    };
    let reason = GiveUpReason::InterruptionsSpent;
    assert_eq!(
        fresh(facts(Entry::Pending, task(Status::Queued), &[spent])),
        Step::GiveUp {
            attempt: Some(Attempt(4)),
            pending: true,
            reason
        }
    );
}

#[test]
fn an_executor_may_end_by_itself_for_its_grace_period() {
    let closing = facts(Entry::Nowhere, task(Status::Completed), &[started(1)]);
    assert!(waits(&fresh(closing.clone())));
    assert_eq!(
        quiet(closing),
        Step::Withdraw {
            attempt: Attempt(1)
        }
    );
    let aborted = facts(Entry::Nowhere, task(Status::Stopped), &[started(1)]);
    assert_eq!(
        fresh(aborted),
        Step::Withdraw {
            attempt: Attempt(1)
        },
        "an abort is at once"
    );
}

#[test]
fn facts_that_are_too_old_lead_to_a_new_look_alone() {
    let take = observed(facts(served(), task(Status::Queued), &[intent(1)]), true);
    let late = now() + STEP_DEADLINE + SignedDuration::from_millis(1);
    assert!(waits(&decide(&take, &policy(), late)));
    assert!(!waits(&decide(&take, &policy(), now() + STEP_DEADLINE)));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        Just(Entry::Unknown),
        Just(Entry::Nowhere),
        Just(served()),
        Just(Entry::Pending),
        Just(Entry::Elsewhere),
    ]
}

fn any_by() -> impl Strategy<Value = By> {
    prop_oneof![
        Just(By::Nobody),
        Just(By::Other),
        (1u32..4).prop_map(|n| By::Us(Attempt(n)))
    ]
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Created),
        Just(Status::Queued),
        Just(Status::Queued),
        Just(Status::InProgress),
        Just(Status::Stopped),
        Just(Status::Failed),
        Just(Status::Completed),
        Just(Status::Published),
        Just(Status::Unknown),
    ]
}

fn any_task() -> impl Strategy<Value = TaskState> {
    let reason = prop_oneof![
        Just(Reason::Other),
        Just(Reason::Requeued),
        Just(Reason::Restored),
        Just(Reason::FailedEnqueueing)
    ];
    let user_queue = prop_oneof![
        Just(UserQueue::Known(queue())),
        Just(UserQueue::Gone),
        Just(UserQueue::Unset)
    ];
    (
        any_status(),
        any::<bool>(),
        reason,
        any::<bool>(),
        user_queue,
        any_by(),
        any_by(),
    )
        .prop_map(
            |(status, stopping, reason, has_enqueue_status, user_queue, mark, last_worker)| {
                TaskState {
                    status,
                    stopping,
                    reason,
                    has_enqueue_status,
                    user_queue,
                    mark,
                    last_worker,
                }
            },
        )
}

fn any_job() -> impl Strategy<Value = Job> {
    let state = prop_oneof![
        Just(JobState::Intent),
        Just(JobState::Held),
        Just(JobState::Ended(Cause::Task)),
        Just(JobState::Ended(Cause::Interruption)),
    ];
    let presence = prop_oneof![8 => Just(Presence::Present), 1 => Just(Presence::Deleting)];
    (1u32..4, state, presence, any::<bool>(), any::<bool>()).prop_map(
        |(attempt, state, presence, started, settled)| Job {
            presence,
            started,
            settled,
            ..job(attempt, state)
        },
    )
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let jobs = collection::vec(any_job(), 0..4);
    (any_entry(), option::weighted(0.9, any_task()), jobs).prop_map(|(entry, task, jobs)| Facts {
        entry,
        task: task.map_or(TaskFact::Gone, TaskFact::Found),
        jobs: JobsFact::Known(jobs),
        stamps: Stamps::default(),
    })
}

proptest! {
    #[test]
    fn no_step_speaks_of_a_job_that_is_not_there(facts in any_facts(), unchanged in any::<bool>()) {
        let step = decide(&observed(facts.clone(), unchanged), &policy(), now());
        let JobsFact::Known(jobs) = &facts.jobs else { unreachable!() };
        let there = |attempt: Attempt, fits: fn(&Job) -> bool| {
            jobs.iter().any(|job| job.attempt == attempt && job.present() && fits(job))
        };
        let sound = match step {
            Step::Take { attempt, .. } | Step::Park { attempt } | Step::Release { attempt } => {
                there(attempt, Job::intent)
            }
            Step::Withdraw { attempt } => there(attempt, |job| !job.ended()),
            Step::PullBack { attempt, .. } => there(attempt, Job::waits),
            Step::Requeue { attempt, .. } => there(attempt, |job| job.ended() || job.waits()),
            Step::SettlePatchOnly { attempt } => there(attempt, |job| job.ended() && !job.settled),
            Step::Intend { attempt, .. } => jobs.iter().all(|job| job.attempt < attempt && job.ended()),
            Step::GiveUp { attempt: Some(attempt), .. } => there(attempt, |job| job.ended() || job.waits()),
            Step::GiveUp { attempt: None, .. } | Step::Restore { .. } => jobs.is_empty(),
            Step::Settle { .. }
            | Step::Wait { .. }
            | Step::Explain(_)
            | Step::Dequeue
            | Step::TakeEntry { .. } => true,
        };
        prop_assert!(sound, "{step:?}");
    }

    #[test]
    fn a_user_code_that_may_run_is_never_touched_while_all_is_well(facts in any_facts()) {
        if let Phase::Running(job) = Phase::of(&facts) {
            let TaskFact::Found(task) = &facts.task else { unreachable!() };
            prop_assert!(task.is_of(job) && job.held());
            prop_assert!(waits(&decide(&observed(facts.clone(), true), &policy(), now())));
        }
    }

    #[test]
    fn an_unknown_fact_leads_to_nothing(facts in any_facts(), which in 0..3) {
        let facts = match which {
            0 => Facts { entry: Entry::Unknown, ..facts },
            1 => Facts { task: TaskFact::Unknown, ..facts },
            _ => Facts { jobs: JobsFact::Unknown, ..facts },
        };
        prop_assert!(waits(&quiet(facts)));
    }
}
