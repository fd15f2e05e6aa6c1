//! A task is claimed: its entry is taken, its Job released.

use std::time::Duration;

use super::*;
use crate::controller::apply::claim::BEGINS;

#[tokio::test]
async fn a_release_is_one_write_and_no_read_though_the_job_was_touched_meanwhile() {
    let stage = Stage::new().await;
    let seen = job("intent", true);
    let mut touched = seen.clone();
    touched["metadata"]["resourceVersion"] = json!("8");
    touched["status"] = json!({"conditions": [{"type": "Suspended", "status": "True"}]});
    stage.cluster.put(&touched);
    let report = stage
        .carry_out(stage.case(Entry::Pending, "queued", &seen))
        .await;
    assert!(report.released, "{report:?}");
    assert_eq!(*stage.cluster.verbs.lock().unwrap(), ["patch"]);
    touched["spec"]["suspend"] = json!(false);
    touched["metadata"]["labels"]["trainyard.dev/state"] = json!("held");
    assert_eq!(stage.cluster.job(), touched, "all else is as it was");
}

#[tokio::test]
async fn only_the_intent_that_was_seen_is_released() {
    let seen = job("intent", true);
    let [mut successor, mut deleted, mut released] = [seen.clone(), seen.clone(), seen.clone()];
    successor["metadata"]["uid"] = json!("job-2");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    released["metadata"]["labels"]["trainyard.dev/state"] = json!("held");
    for there in [successor, deleted, released] {
        let stage = Stage::new().await;
        stage.cluster.put(&there);
        let report = stage
            .carry_out(stage.case(Entry::Pending, "queued", &seen))
            .await;
        assert!(!report.released && report.fault.is_none(), "{report:?}");
        assert_eq!(stage.cluster.job(), there);
    }
}

#[tokio::test]
async fn a_take_that_somebody_else_won_changes_nothing() {
    let stage = Stage::new().await;
    stage
        .answers("queues.remove_task", &json!({"removed": 0}))
        .await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let report = stage
        .carry_out(stage.case(Entry::Served { queue: queue('a') }, "queued", &intent))
        .await;
    assert!(report.fault.is_none());
    assert_eq!(stage.calls().await, ["queues.remove_task"]);
    assert_eq!(stage.cluster.job(), intent);
}

/// A server that gives the entry to who asks for it.
async fn giving() -> Stage {
    let stage = Stage::new().await;
    let mut queued = document("queued");
    queued["runtime"] = json!({});
    stage
        .answers("queues.remove_task", &json!({"removed": 1}))
        .await;
    stage
        .answers("tasks.get_all", &json!({"tasks": [queued]}))
        .await;
    stage.answers("tasks.enqueue", &json!({"queued": 1})).await;
    stage
}

#[tokio::test]
async fn who_is_admitted_gets_its_job_before_its_entry_is_taken() {
    let stage = giving().await;
    let report = stage.carry_out(stage.offered()).await;
    assert_eq!(report.done, ["intend", "take", "park", "release"]);
    assert!(report.created && report.released);
    assert_eq!(
        stage.cluster.job()["metadata"]["labels"]["trainyard.dev/state"],
        "held"
    );
}

#[tokio::test]
async fn a_claim_that_would_begin_late_in_its_pass_is_left_to_the_next() {
    let stage = giving().await;
    let begun = Instant::now() - BEGINS - Duration::from_millis(1);
    let report = stage.carry_out_since(begun, stage.offered()).await;
    assert!(matches!(report.fault, Some(Fault::Left)), "{report:?}");
    assert!(stage.cluster.is_empty() && stage.calls().await.is_empty());
    // What was begun is brought to its end.
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let entry = Entry::Served { queue: queue('a') };
    let case = stage.case(entry, "queued", &intent);
    let report = stage.carry_out_since(begun, case).await;
    assert_eq!(report.done, ["take", "park", "release"]);
}

#[tokio::test]
async fn what_was_taken_is_parked_and_released_in_one_go() {
    let stage = giving().await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let report = stage
        .carry_out(stage.case(Entry::Served { queue: queue('a') }, "queued", &intent))
        .await;
    assert_eq!(report.done, ["take", "park", "release"]);
    assert_eq!(
        stage.calls().await,
        ["queues.remove_task", "tasks.get_all", "tasks.enqueue"]
    );
}

#[tokio::test]
async fn a_task_that_was_aborted_between_take_and_park_is_not_parked() {
    let stage = Stage::new().await;
    stage
        .answers("queues.remove_task", &json!({"removed": 1}))
        .await;
    stage
        .answers("tasks.get_all", &json!({"tasks": [document("stopped")]}))
        .await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let report = stage
        .carry_out(stage.case(Entry::Served { queue: queue('a') }, "queued", &intent))
        .await;
    assert_eq!(report.done, ["take", "withdraw"]);
    let preconditions = stage.cluster.deleted.lock().unwrap()[0]["preconditions"].clone();
    assert_eq!(
        preconditions,
        json!({"uid": "job-1", "resourceVersion": "7"})
    );
    assert!(!stage.calls().await.contains(&"tasks.enqueue".to_owned()));
}

#[tokio::test]
async fn a_step_that_comes_too_late_sends_nothing() {
    let stage = Stage::new().await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let mut case = stage.case(Entry::Served { queue: queue('a') }, "queued", &intent);
    case.observed.read_at -= rules::STEP_DEADLINE + jiff::SignedDuration::from_secs(1);
    stage.carry_out(case).await;
    assert!(stage.calls().await.is_empty());
}
