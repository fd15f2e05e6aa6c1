//! What holds for all facts.

use proptest::prelude::{Just, Strategy, any};
use proptest::{collection, option, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

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
        Just(Reason::Retried),
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
        Just(JobState::Ended(Cause::Failure)),
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
    fn that_a_task_has_stood_apart_from_its_jobs_matters_to_an_ended_run_alone(facts in any_facts()) {
        let young = Observed { unchanged_since: now(), ..observed(facts.clone(), true) };
        let step = decide(&young, &policy(), now());
        if matches!(Phase::of(&facts), Phase::EndedRunning(..)) {
            prop_assert_eq!(step, quiet(facts));
        } else {
            prop_assert_eq!(step, fresh(facts));
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
