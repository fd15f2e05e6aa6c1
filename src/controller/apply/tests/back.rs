//! A task goes back to its queue.

use super::*;

impl Stage {
    /// The server takes the entry out of its queue and puts the task to the front of another.
    async fn takes_back(&self) {
        for action in [
            "queues.remove_task",
            "tasks.enqueue",
            "queues.move_task_to_front",
        ] {
            self.answers(action, &json!({"removed": 1, "queued": 1, "position": 0}))
                .await;
        }
    }
}

#[tokio::test]
async fn a_task_that_goes_back_stands_behind_those_that_were_taken_before_it() {
    for (other, moved) in [
        ("2026-01-01T00:00:01Z", false),
        ("2025-12-31T23:59:59Z", true),
    ] {
        let stage = Stage::new().await;
        stage.takes_back().await;
        stage
            .answers("queues.move_task_backward", &json!({"position": 1}))
            .await;
        let known = (Turn::new(other.parse().unwrap(), 0), id(&"9".repeat(32)));
        stage
            .returned
            .0
            .lock()
            .await
            .entry(queue('a'))
            .or_default()
            .extend([known]);
        let held = job("held", false);
        stage.cluster.put(&held);
        let mut case = stage.case(Entry::Pending, "queued", &held);
        case.policy.retiring = true;
        let report = stage.carry_out(case).await;
        assert!(report.fault.is_none(), "{report:?}");
        let calls = stage.calls().await;
        assert!(
            calls.contains(&"queues.move_task_to_front".to_owned()),
            "{calls:?}"
        );
        let behind = calls.iter().any(|call| call == "queues.move_task_backward");
        assert_eq!(behind, moved, "{calls:?}");
        assert_eq!(stage.returned.0.lock().await[&queue('a')].len(), 2);
    }
}

#[tokio::test]
async fn a_requeue_ends_where_the_entry_was_not_ours_to_take() {
    let stage = Stage::new().await;
    stage.refuses("queues.remove_task", 703).await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    stage
        .carry_out(stage.case(Entry::Pending, "queued", &dead))
        .await;
    assert_eq!(stage.calls().await, ["queues.remove_task"]);
    assert_eq!(
        stage.cluster.job()["metadata"]["labels"]["trainyard.dev/state"],
        "held"
    );
}

/// It may be all that tells how often its task was tried: it is not one of an ended task yet.
#[tokio::test]
async fn the_job_of_an_attempt_that_another_follows_is_settled_without_an_outcome() {
    let stage = Stage::new().await;
    stage.takes_back().await;
    stage
        .answers("tasks.get_all", &json!({"tasks": [document("queued")]}))
        .await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    let report = stage
        .carry_out(stage.case(Entry::Pending, "queued", &dead))
        .await;
    assert!(report.fault.is_none(), "{report:?}");
    let settled = stage.cluster.job();
    let metadata = &settled["metadata"];
    assert_eq!(metadata["labels"]["trainyard.dev/state"], "settled");
    assert_eq!(
        metadata["annotations"]["trainyard.dev/outcome"],
        Value::Null
    );
}

#[tokio::test]
async fn a_run_is_never_put_back_while_its_job_is_alive() {
    let stage = Stage::new().await;
    stage
        .answers(
            "tasks.get_all",
            &json!({"tasks": [document("in_progress")]}),
        )
        .await;
    // The mirror says ended; the API server says that it runs.
    stage.cluster.put(&job("held", false));
    stage
        .carry_out(stage.case(Entry::Nowhere, "in_progress", &ended(job("held", false))))
        .await;
    assert!(!stage.calls().await.contains(&"tasks.dequeue".to_owned()));
}
