//! Ordinary looks and looks at every queue: what only the latter can tell does not change with the kind of the look.

use jiff::SignedDuration;

use super::*;
use crate::claim::{Admission, OnInterruption, OnPendingTimeout, Policy, Step, decide};

/// A look that finds the task in the queues `places`, among which all but a (served) and b (pending) are foreign; and
/// the same look where it reads every queue of `existing` too.
fn ordinary_and_every(existing: &[char], places: &[char]) -> [Queues; 2] {
    let (here, away): (&[&str], &[&str]) = (&[TASK], &[]);
    let of = |digit: char| if places.contains(&digit) { here } else { away };
    [false, true].map(|all| {
        let every: Vec<QueueEntries> = existing
            .iter()
            .map(|digit| entries(queue(*digit), of(*digit)))
            .collect();
        Queues {
            every: all.then(|| every.into()),
            ..queues(of('a'), of('b'))
        }
    })
}

/// A run of attempt 1 whose user chose this queue.
fn run_of_queue(digit: char) -> api::Facts {
    let worker = WorkerId::of_attempt(&identity().worker, &id(TASK), Attempt::FIRST);
    api::Facts {
        mark: Some(worker),
        queue: Some(queue(digit)),
        ..facts_in(Status::InProgress)
    }
}

#[test]
fn a_deleted_user_queue_stays_gone_for_looks_that_cannot_tell() {
    let mut deleted = Deleted::default();
    let mut user_queue = |queues: &Queues| {
        let read = Read::Found(run_of_queue('d').into());
        match facts_after(&mut deleted, queues, read, Objects::default()).task {
            TaskFact::Found(task) => task.user_queue,
            other => panic!("{other:?}"),
        }
    };
    let there = UserQueue::Known(queue('d'));
    let [ordinary, without] = ordinary_and_every(&['a', 'b'], &[]);
    let [_, with] = ordinary_and_every(&['a', 'b', 'd'], &[]);
    assert_eq!(user_queue(&ordinary), there, "nobody has looked");
    assert_eq!(user_queue(&without), UserQueue::Gone);
    assert_eq!(user_queue(&ordinary), UserQueue::Gone);
    assert_eq!(user_queue(&with), there, "a backup was brought back");
    assert_eq!(user_queue(&ordinary), there);
    // A served queue is asked for by its id, until it does not answer and is served no more.
    let unanswered = Queues {
        gone: vec![queue('d')],
        ..queues(&[], &[])
    };
    assert_eq!(user_queue(&unanswered), UserQueue::Gone);
    assert_eq!(user_queue(&ordinary), UserQueue::Gone);
    let served = Queues {
        served: vec![entries(queue('d'), &[])],
        ..queues(&[], &[])
    };
    assert_eq!(user_queue(&served), there);
}

#[test]
fn a_queue_that_was_made_after_the_last_look_at_all_is_no_deleted_one() {
    let mut deleted = Deleted::default();
    let [ordinary, every] = ordinary_and_every(&['a', 'b'], &[]);
    let mut user_queue = |queues: &Queues, digit: char| {
        let read = Read::Found(run_of_queue(digit).into());
        match facts_after(&mut deleted, queues, read, Objects::default()).task {
            TaskFact::Found(task) => task.user_queue,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(user_queue(&every, 'd'), UserQueue::Gone);
    assert_eq!(user_queue(&ordinary, 'e'), UserQueue::Known(queue('e')));
}

#[test]
fn an_ended_run_is_settled_though_its_queue_was_deleted() {
    let policy = Policy {
        pending_timeout: SignedDuration::from_hours(1),
        on_pending_timeout: OnPendingTimeout::Requeue,
        on_interruption: OnInterruption::Requeue,
        max_interruptions: 3,
        max_failures: 3,
        grace: SignedDuration::from_secs(30),
        restore_orphans: false,
        retiring: false,
        admission: Admission::Yes,
    };
    let failed = json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}});
    let (mut deleted, mut tracker) = (Deleted::default(), Tracker::default());
    let [ordinary, every] = ordinary_and_every(&['a', 'b'], &[]);
    let mut all = false;
    let mut settled = None;
    for second in 0..120 {
        let objects = Objects {
            jobs: vec![job(&failed)],
            pods: Vec::new(),
        };
        let look = if all { &every } else { &ordinary };
        let read = Read::Found(run_of_queue('d').into());
        let facts = facts_after(&mut deleted, look, read, objects);
        let now = Timestamp::from_second(second).unwrap();
        let observed = tracker.observe(&id(TASK), facts, now, now);
        let step = decide(&observed, &policy, now);
        if all && matches!(step, Step::Settle { .. }) {
            settled = Some(second);
            break;
        }
        // Either rests on a look at every queue, which is the next one.
        all = matches!(step, Step::Requeue { .. } | Step::Settle { .. });
    }
    assert!(settled.is_some(), "it stays in progress for good");
}

#[test]
fn a_foreign_entry_is_no_matter_of_a_task_that_is_not_queued() {
    for (places, entry) in [
        (&['c'][..], Entry::Nowhere),
        (&['b', 'c'][..], Entry::Pending),
        (&['a', 'c'][..], Entry::Served { queue: queue('a') }),
    ] {
        for read in [
            found(Status::InProgress),
            found(Status::Failed),
            found(Status::Stopped),
            Read::Gone,
        ] {
            let [ordinary, every] = ordinary_and_every(&['a', 'b', 'c'], places)
                .map(|queues| facts(&queues, read.clone(), Objects::default()));
            assert_eq!(ordinary, every, "{places:?}");
            assert_eq!(every.entry, entry, "{places:?}");
        }
        let [_, every] = ordinary_and_every(&['a', 'b', 'c'], places);
        let queued = facts(&every, found(Status::Queued), Objects::default());
        assert_eq!(queued.entry, Entry::Elsewhere, "{places:?}");
    }
}

#[test]
fn of_two_served_queues_the_bindings_first_counts_in_both_kinds_of_look() {
    let both = |all: bool| {
        // The server answers in the order of ids.
        let every = vec![entries(queue('a'), &[TASK]), entries(queue('c'), &[TASK])];
        Queues {
            served: vec![entries(queue('c'), &[TASK]), entries(queue('a'), &[TASK])],
            every: all.then(|| every.into()),
            ..queues(&[], &[])
        }
    };
    for all in [false, true] {
        let facts = facts(&both(all), found(Status::Queued), Objects::default());
        assert_eq!(facts.entry, Entry::Served { queue: queue('c') }, "{all}");
    }
}

#[test]
fn a_stranded_task_is_told_until_a_look_that_can_tell_finds_it_in_a_queue() {
    let [ordinary, every] = ordinary_and_every(&['a', 'b', 'c'], &[]);
    let [_, elsewhere] = ordinary_and_every(&['a', 'b', 'c'], &['c']);
    let [back, _] = ordinary_and_every(&['a', 'b', 'c'], &['a']);
    let queued = || Some(found(Status::Queued));
    let (mut stranded, mut tracker) = (Stranded::default(), Tracker::default());
    let mut told = |second: i64, look: &Queues, read: Option<Read>| {
        let facts = facts(look, read, Objects::default());
        let now = Timestamp::from_second(second).unwrap();
        let observed = tracker.observe(&id(TASK), facts, now, now);
        !stranded
            .learn([(&id(TASK), &observed)].into_iter())
            .is_empty()
    };
    assert!(!told(0, &every, queued()), "it has just been popped");
    assert!(!told(60, &ordinary, queued()), "no look has found it");
    assert!(told(61, &every, queued()));
    for second in 62..70 {
        assert!(told(second, &ordinary, queued()), "second {second}");
    }
    assert!(told(70, &ordinary, Some(Read::Unreadable)));
    assert!(told(71, &every, queued()));
    assert!(!told(72, &elsewhere, queued()), "enqueued elsewhere");
    assert!(!told(73, &ordinary, queued()));
    assert!(!told(74, &every, queued()), "popped again");
    assert!(told(140, &every, queued()));
    assert!(!told(141, &back, queued()), "enqueued again");
    assert!(!told(142, &every, queued()), "popped once more");
    assert!(told(220, &every, queued()));
    assert!(!told(221, &ordinary, Some(found(Status::InProgress))));
    assert!(!told(222, &ordinary, queued()));
    assert!(stranded.learn(std::iter::empty()).is_empty());
}
