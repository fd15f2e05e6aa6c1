//! Which step a phase leads to, by time, policy and budget.

use super::*;

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
        failed: false,
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
fn an_intent_remembers_that_and_how_often_the_task_came_back_and_why() {
    let offered = |reason| {
        let before = Job {
            requeues: 2,
            failures: 1,
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
    let intend = |returned, requeues, failures| Step::Intend {
        attempt: Attempt(2),
        returned,
        requeues,
        failures,
    };
    assert_eq!(offered(Reason::Other), intend(false, 0, 0));
    assert_eq!(offered(Reason::Requeued), intend(true, 3, 1));
    assert_eq!(offered(Reason::Retried), intend(true, 2, 2));
    assert_eq!(offered(Reason::Restored), intend(true, 2, 1));
    assert_eq!(offered(Reason::FailedEnqueueing), intend(true, 2, 1));
}

#[test]
fn a_failed_run_that_left_its_end_to_us_is_tried_again_within_its_own_budget() {
    let step = |job: Job, task: TaskState, max_failures| {
        let policy = Policy {
            max_failures,
            ..policy()
        };
        let facts = facts(Entry::Nowhere, task, &[job]);
        decide(&observed(facts, true), &policy, now())
    };
    let failed = |requeues, failures| Job {
        requeues,
        failures,
        ..ended(1, Cause::Failure)
    };
    let retry = Step::Requeue {
        attempt: Attempt(1),
        queue: queue(),
        pending: false,
        running: true,
        failed: true,
    };
    let settle = Step::Settle {
        attempt: Attempt(1),
        how: Settlement::AsEnded,
    };
    assert_eq!(step(failed(0, 0), run_by(1), 0), settle, "only if asked");
    assert_eq!(
        step(failed(3, 0), run_by(1), 1),
        retry,
        "interruptions are counted apart"
    );
    assert_eq!(step(failed(0, 1), run_by(1), 1), settle, "budget spent");
    let stopping = TaskState {
        stopping: true,
        ..run_by(1)
    };
    assert_eq!(step(failed(0, 0), stopping, 1), settle, "aborted");
    assert_eq!(
        step(ended(1, Cause::Task), run_by(1), 1),
        settle,
        "completed, and the pod could not say so"
    );
    let gone = TaskState {
        user_queue: UserQueue::Gone,
        ..run_by(1)
    };
    assert_eq!(step(failed(0, 0), gone, 1), settle, "no queue to go to");
    assert_eq!(
        step(failed(0, 0), ended_by(1, Status::Failed), 1),
        Step::SettlePatchOnly {
            attempt: Attempt(1)
        },
        "a status that was reported is the user's to change"
    );
}

#[test]
fn a_retry_that_died_between_its_calls_goes_on_as_one() {
    let task = TaskState {
        reason: Reason::Retried,
        has_enqueue_status: false,
        ..task(Status::Queued)
    };
    let spent = Job {
        requeues: 3,
        ..ended(1, Cause::Failure)
    };
    assert_eq!(
        quiet(facts(Entry::Nowhere, task, &[spent])),
        Step::Requeue {
            attempt: Attempt(1),
            queue: queue(),
            pending: false,
            running: false,
            failed: true,
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
        failed: false,
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
fn an_ended_run_waits_for_the_quiet_time_of_its_task_and_for_late_calls_of_its_pod() {
    let late = policy::LATE_DELIVERY;
    let moment = SignedDuration::from_millis(1);
    let lost = ended(1, Cause::Interruption);
    let after =
        |task: TaskState, jobs: &[Job], task_stood: SignedDuration, jobs_stood: SignedDuration| {
            let young = observed(facts(Entry::Nowhere, task, jobs), false);
            let observed = Observed {
                task_unchanged_since: now() - task_stood,
                jobs_unchanged_since: now() - jobs_stood,
                ..young
            };
            decide(&observed, &policy(), now())
        };
    let lost = std::slice::from_ref(&lost);
    let ran = |task_stood, jobs_stood| after(run_by(1), lost, task_stood, jobs_stood);
    let requeue = Step::Requeue {
        attempt: Attempt(1),
        queue: queue(),
        pending: false,
        running: true,
        failed: false,
    };
    assert_eq!(ran(QUIET_TIME, late), requeue);
    let wait = |left: SignedDuration| Step::Wait {
        until: Some(now() + left),
    };
    assert_eq!(ran(QUIET_TIME * 9, late - moment), wait(moment));
    assert_eq!(ran(QUIET_TIME - moment, late), wait(moment));
    assert_eq!(
        ran(QUIET_TIME - moment, late - moment * 2),
        wait(moment * 2),
        "the later of both"
    );
    // Without its Job, or queued: all of the facts have to stand.
    let long = QUIET_TIME * 9;
    assert!(waits(&after(run_by(1), &[], long, long)));
    assert!(waits(&after(task(Status::Queued), lost, long, long)));
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

/// What is still to come is not a matter of the status: the end of the log, the exit code, the Job's time to live.
#[test]
fn a_run_whose_sdk_has_ended_its_task_is_withdrawn_only_when_its_executor_is_overdue() {
    let overdue = SignedDuration::from_secs(130);
    let policy = Policy {
        grace: overdue,
        ..policy()
    };
    let ran = |status, job, since: SignedDuration| {
        let facts = facts(Entry::Nowhere, ended_by(1, status), &[job]);
        let mut observed = observed(facts, false);
        observed.unchanged_since = now() - since;
        decide(&observed, &policy, now())
    };
    for status in [Status::Completed, Status::Failed] {
        // Its start may not have been seen.
        for job in [held(1), started(1)] {
            for seconds in [0, 33, 129] {
                let step = ran(status, job.clone(), SignedDuration::from_secs(seconds));
                assert!(waits(&step), "{status} for {seconds} s: {step:?}");
            }
            let attempt = Attempt(1);
            assert_eq!(ran(status, job, overdue), Step::Withdraw { attempt });
        }
        // It has left by itself, and nothing but the mark is missing.
        let attempt = Attempt(1);
        let left = ran(status, ended(1, Cause::Task), SignedDuration::ZERO);
        assert_eq!(left, Step::SettlePatchOnly { attempt });
    }
}

#[test]
fn facts_that_are_too_old_lead_to_a_new_look_alone() {
    let take = observed(facts(served(), task(Status::Queued), &[intent(1)]), true);
    let late = now() + STEP_DEADLINE + SignedDuration::from_millis(1);
    assert!(waits(&decide(&take, &policy(), late)));
    assert!(!waits(&decide(&take, &policy(), now() + STEP_DEADLINE)));
}
