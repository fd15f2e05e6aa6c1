//! The join of facts, one odd world per test.

mod looks;

use serde_json::{Value, json};

use super::*;
use crate::api::{Entry as ServerEntry, QueueEntries};
use crate::claim::Phase;
use crate::controller::row::Row;
use crate::controller::tests::{TASK, id, identity, merge, queue};

fn entries(queue: QueueId, tasks: &[&str]) -> QueueEntries {
    let entries = tasks
        .iter()
        .map(|task| ServerEntry {
            task: id(task),
            added: Some("then".into()),
        })
        .collect();
    QueueEntries {
        id: queue,
        entries,
        cut: false,
    }
}

fn queues(served: &[&str], pending: &[&str]) -> Queues {
    Queues {
        read_at: Timestamp::UNIX_EPOCH,
        served: vec![entries(queue('a'), served)],
        pending: entries(queue('b'), pending),
        gone: Vec::new(),
        every: None,
    }
}

fn facts_in(status: Status) -> api::Facts {
    api::Facts {
        id: id(TASK),
        status,
        status_reason: String::new(),
        status_message: String::new(),
        status_changed: None,
        mark: None,
        last_worker: None,
        enqueue_status: Some(Status::Created),
        queue: Some(queue('a')),
    }
}

fn job(changes: &Value) -> Arc<JobRow> {
    let mut job = crate::controller::tests::job("held", false);
    merge(&mut job, changes);
    Arc::new(JobRow::of(serde_json::from_value(job).unwrap()))
}

fn pod(changes: &Value) -> Arc<PodRow> {
    let mut pod = json!({
        "metadata": {
            "name": "pod", "namespace": "ns", "labels": {"trainyard.dev/task": TASK, "trainyard.dev/attempt": "1"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "job-1"}],
        },
    });
    merge(&mut pod, changes);
    Arc::new(PodRow::of(serde_json::from_value(pod).unwrap()))
}

/// The facts of [`TASK`] in a world of these queues, this reading and these objects.
fn facts(queues: &Queues, read: impl Into<Option<Read>>, objects: Objects) -> Facts {
    facts_after(&mut Deleted::default(), queues, read, objects)
}

/// The same after looks that have found these queues deleted.
fn facts_after(
    deleted: &mut Deleted,
    queues: &Queues,
    read: impl Into<Option<Read>>,
    objects: Objects,
) -> Facts {
    let index = Index::of(queues);
    let tasks: HashMap<TaskId, Read> = read
        .into()
        .into_iter()
        .map(|read| (id(TASK), read))
        .collect();
    deleted.learn(queues, &index, &tasks);
    let objects = HashMap::from([(id(TASK), objects)]);
    let (identity, lore) = (identity(), Lore::default());
    Sight {
        identity: &identity,
        queues,
        index: &index,
        deleted,
        tasks: &tasks,
        objects: &objects,
        sound: true,
        lore: &lore,
        cause: &|_, _| Cause::Failure,
    }
    .facts(&id(TASK))
}

fn found(status: Status) -> Read {
    Read::Found(facts_in(status).into())
}

fn jobs_of(facts: &Facts) -> Vec<Job> {
    match &facts.jobs {
        JobsFact::Known(jobs) => jobs.clone(),
        JobsFact::Unknown => panic!("unknown"),
    }
}

#[test]
fn a_queued_task_that_an_ordinary_look_misses_is_unknown_not_nowhere() {
    let facts = facts(&queues(&[], &[]), found(Status::Queued), Objects::default());
    assert_eq!(facts.entry, Entry::Unknown);
    assert_eq!(Phase::of(&facts), Phase::Unclear);
}

#[test]
fn a_running_task_needs_no_look_into_every_queue() {
    let facts = facts(
        &queues(&[], &[]),
        found(Status::InProgress),
        Objects::default(),
    );
    assert_eq!(facts.entry, Entry::Nowhere);
}

#[test]
fn only_a_look_into_every_queue_tells_nowhere_from_elsewhere() {
    let mut queues = queues(&[], &[]);
    queues.every = Some(vec![entries(queue('a'), &[])].into());
    assert_eq!(
        facts(&queues, found(Status::Queued), Objects::default()).entry,
        Entry::Nowhere
    );
    queues.every = Some(vec![entries(queue('c'), &[TASK]), entries(queue('b'), &[TASK])].into());
    assert_eq!(
        facts(&queues, found(Status::Queued), Objects::default()).entry,
        Entry::Elsewhere
    );
}

#[test]
fn a_task_that_stands_in_two_queues_counts_where_others_can_take_it() {
    let facts = facts(
        &queues(&[TASK], &[TASK]),
        found(Status::Queued),
        Objects::default(),
    );
    assert_eq!(facts.entry, Entry::Served { queue: queue('a') });
}

#[test]
fn what_was_not_read_is_unknown_and_what_the_server_does_not_know_is_gone() {
    assert_eq!(
        facts(&queues(&[TASK], &[]), None, Objects::default()).task,
        TaskFact::Unknown
    );
    assert_eq!(
        facts(
            &queues(&[TASK], &[]),
            Some(Read::Unreadable),
            Objects::default()
        )
        .task,
        TaskFact::Unknown
    );
    assert_eq!(
        facts(&queues(&[TASK], &[]), Some(Read::Gone), Objects::default()).task,
        TaskFact::Gone
    );
}

#[test]
fn a_mark_of_this_binding_is_ours_and_another_clusters_is_not() {
    let mut with_mark = facts_in(Status::InProgress);
    with_mark.mark = Some(WorkerId::of_attempt(
        &identity().worker,
        &id(TASK),
        Attempt(2),
    ));
    with_mark.last_worker = Some(WorkerId(format!("trainyard:ns.gpu:ffffffff:{TASK}:2")));
    match facts(
        &queues(&[], &[]),
        Some(Read::Found(with_mark.into())),
        Objects::default(),
    )
    .task
    {
        TaskFact::Found(task) => assert_eq!(
            (task.mark, task.last_worker),
            (By::Us(Attempt(2)), By::Other)
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_intent_is_suspended_and_labelled_as_one() {
    let state = |changes: Value| {
        let objects = Objects {
            jobs: vec![job(&changes)],
            pods: Vec::new(),
        };
        jobs_of(&facts(
            &queues(&[TASK], &[]),
            found(Status::Queued),
            objects,
        ))[0]
            .state
    };
    assert_eq!(
        state(
            json!({"metadata": {"labels": {"trainyard.dev/state": "intent"}}, "spec": {"suspend": true}})
        ),
        JobState::Intent
    );
    assert_eq!(
        state(json!({"metadata": {"labels": {"trainyard.dev/state": "intent"}}})),
        JobState::Held
    );
    assert_eq!(state(json!({"spec": {"suspend": true}})), JobState::Held);
    assert_eq!(
        state(json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}})),
        JobState::Ended(Cause::Failure)
    );
}

#[test]
fn a_job_of_another_binding_is_told_apart_by_its_owner() {
    let foreign = job(&json!({"metadata": {"ownerReferences": null}}));
    let objects = Objects {
        jobs: vec![foreign],
        pods: Vec::new(),
    };
    let facts = facts(&queues(&[TASK], &[]), found(Status::Queued), objects);
    assert!(jobs_of(&facts)[0].other_binding);
    assert_eq!(Phase::of(&facts), Phase::Occupied);
}

#[test]
fn only_the_task_container_counts_as_started() {
    let started = |name: &str| {
        let running = json!({"status": {"containerStatuses": [
            {"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
        ]}});
        let objects = Objects {
            jobs: vec![job(&json!({}))],
            pods: vec![pod(&running)],
        };
        jobs_of(&facts(
            &queues(&[], &[TASK]),
            found(Status::Queued),
            objects,
        ))[0]
            .started
    };
    assert!(started("task"));
    assert!(!started("uplink"));
}

#[test]
fn the_end_of_a_short_script_is_its_own_before_the_kubelet_tells_of_its_start() {
    let mut ended = facts_in(Status::Failed);
    ended.mark = Some(WorkerId::of_attempt(
        &identity().worker,
        &id(TASK),
        Attempt(1),
    ));
    let objects = Objects {
        jobs: vec![job(&json!({}))],
        pods: vec![pod(&json!({}))],
    };
    let facts = facts(&queues(&[], &[]), Some(Read::Found(ended.into())), objects);
    assert!(!jobs_of(&facts)[0].started);
    assert!(matches!(Phase::of(&facts), Phase::Closing(_)));
}

#[test]
fn a_pod_that_outlives_its_job_counts_as_the_job() {
    let objects = Objects {
        jobs: Vec::new(),
        pods: vec![pod(&json!({}))],
    };
    let facts = facts(&queues(&[TASK], &[]), found(Status::Queued), objects);
    assert_eq!(jobs_of(&facts)[0].presence, Presence::PodOnly);
    assert_eq!(Phase::of(&facts), Phase::Deleting);
}

#[test]
fn unknown_facts_neither_confirm_nor_end_what_was_seen_before() {
    let mut tracker = Tracker::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    let nowhere = {
        let mut queues = queues(&[], &[]);
        queues.every = Some(Vec::new().into());
        facts(&queues, found(Status::Queued), Objects::default())
    };
    let unknown = facts(&queues(&[], &[]), found(Status::Queued), Objects::default());
    assert_eq!(
        tracker
            .observe(&id(TASK), nowhere.clone(), at(10), at(10))
            .unchanged_since,
        at(10)
    );
    assert_eq!(
        tracker
            .observe(&id(TASK), unknown, at(15), at(15))
            .unchanged_since,
        at(15)
    );
    assert_eq!(
        tracker
            .observe(&id(TASK), nowhere.clone(), at(20), at(20))
            .unchanged_since,
        at(10)
    );
    let offered = facts(
        &queues(&[TASK], &[]),
        found(Status::Queued),
        Objects::default(),
    );
    assert_eq!(
        tracker
            .observe(&id(TASK), offered, at(21), at(21))
            .unchanged_since,
        at(21)
    );
    assert_eq!(
        tracker
            .observe(&id(TASK), nowhere, at(22), at(22))
            .unchanged_since,
        at(22)
    );
}

#[test]
fn a_jobs_end_begins_its_own_wait_and_not_that_of_its_task() {
    let mut tracker = Tracker::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    let with = |state: JobState, status_changed: &str| {
        let objects = Objects {
            jobs: vec![job(&json!({}))],
            pods: Vec::new(),
        };
        let mut facts = facts(&queues(&[], &[]), found(Status::InProgress), objects);
        facts.stamps.status_changed = Some(status_changed.into());
        if let JobsFact::Known(jobs) = &mut facts.jobs {
            jobs[0].state = state;
        }
        facts
    };
    let lost = JobState::Ended(Cause::Interruption);
    let mut since = |facts: Facts, read: i64, seen: i64| {
        let observed = tracker.observe(&id(TASK), facts, at(read), at(seen));
        let times = [
            observed.unchanged_since,
            observed.task_unchanged_since,
            observed.jobs_unchanged_since,
        ];
        times.map(Timestamp::as_second)
    };
    assert_eq!(since(with(JobState::Held, "then"), 10, 11), [10, 10, 11]);
    assert_eq!(
        since(with(lost, "then"), 40, 43),
        [40, 10, 43],
        "it may have ended while the look lasted"
    );
    assert_eq!(since(with(lost, "then"), 44, 45), [40, 10, 43]);
    let unread = Facts {
        jobs: JobsFact::Unknown,
        ..with(lost, "then")
    };
    assert_eq!(since(unread, 46, 47), [46, 46, 47]);
    assert_eq!(since(with(lost, "then"), 48, 49), [40, 10, 43]);
    assert_eq!(
        since(with(lost, "later"), 50, 51),
        [50, 50, 43],
        "somebody has written the task"
    );
}

#[test]
fn an_eviction_that_no_controller_saw_is_known_by_the_task_that_says_it_runs() {
    let evicted = json!({
        "spec": {"suspend": true},
        "status": {"conditions": [{"type": "Suspended", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let state_of = |status: Status, attempt: u32, pods: Vec<Arc<PodRow>>| {
        let mut read = facts_in(status);
        let worker = WorkerId::of_attempt(&identity().worker, &id(TASK), Attempt(attempt));
        read.mark = Some(worker);
        let objects = Objects {
            jobs: vec![job(&evicted)],
            pods,
        };
        jobs_of(&facts(&queues(&[], &[]), Read::Found(read.into()), objects))[0].state
    };
    let over = JobState::Ended(Cause::Interruption);
    assert_eq!(state_of(Status::InProgress, 1, Vec::new()), over);
    // Its pod is still there; another attempt runs; it waits for quota and never ran.
    for (status, attempt, pods) in [
        (Status::InProgress, 1, vec![pod(&json!({}))]),
        (Status::InProgress, 2, Vec::new()),
        (Status::Queued, 1, Vec::new()),
    ] {
        assert_eq!(state_of(status, attempt, pods), JobState::Held);
    }
}
