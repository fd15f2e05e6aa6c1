//! A run has ended, or a Job is not wanted any more.

use super::*;
use crate::controller::row::PodRow;

#[tokio::test]
async fn a_withdrawal_is_dropped_when_the_live_reading_says_otherwise() {
    let stage = Stage::new().await;
    let mut queued = document("queued");
    queued["runtime"] = json!({});
    stage
        .answers("tasks.get_all", &json!({"tasks": [queued]}))
        .await;
    let held = job("held", false);
    stage.cluster.put(&held);
    // The look said stopped; meanwhile its user has enqueued it again.
    let mut case = stage.case(Entry::Pending, "stopped", &held);
    if let TaskFact::Found(task) = &mut case.observed.facts.task {
        task.mark = rules::By::Nobody;
    }
    stage.carry_out(case).await;
    assert!(stage.cluster.deleted.lock().unwrap().is_empty());
    assert_eq!(stage.calls().await, ["tasks.get_all"]);
}

#[tokio::test]
async fn a_refusal_to_settle_means_that_somebody_else_has_ended_it() {
    let stage = Stage::new().await;
    stage
        .answers(
            "tasks.get_all",
            &json!({"tasks": [document("in_progress")]}),
        )
        .await;
    stage.refuses("tasks.failed", 110).await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
    case.policy.on_interruption = OnInterruption::Fail;
    let report = stage.carry_out(case).await;
    assert!(report.fault.is_none(), "{report:?}");
    assert_eq!(
        stage.cluster.job()["metadata"]["labels"]["trainyard.dev/state"],
        "settled"
    );
    assert_eq!(
        stage.cluster.job()["spec"]["ttlSecondsAfterFinished"],
        86400
    );
    // Its pod is gone: no exit code can be told.
    assert_eq!(
        stage.cluster.job()["metadata"]["annotations"],
        json!({"trainyard.dev/ended": "pod-deleted", "trainyard.dev/outcome": "failure"})
    );
}

#[tokio::test]
async fn an_interruption_beyond_the_budget_is_told_as_such() {
    for (wish, begins) in [
        (
            OnInterruption::Requeue,
            "trainyard: interrupted too often, pod-deleted",
        ),
        (OnInterruption::Fail, "trainyard: pod-deleted"),
    ] {
        let stage = Stage::new().await;
        let running = json!({"tasks": [document("in_progress")]});
        stage.answers("tasks.get_all", &running).await;
        stage.answers("tasks.failed", &json!({"updated": 1})).await;
        let dead = ended(job("held", false));
        stage.cluster.put(&dead);
        let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
        case.policy.on_interruption = wish;
        case.policy.max_interruptions = 0;
        stage.carry_out(case).await;
        let sent = stage.server.received_requests().await.unwrap();
        let failed = sent
            .iter()
            .find(|request| request.url.path().ends_with("tasks.failed"))
            .expect("the task is failed");
        let body: Value = serde_json::from_slice(&failed.body).unwrap();
        assert_eq!(body["status_reason"], begins);
    }
}

#[tokio::test]
async fn a_run_whose_queue_is_gone_is_ended_by_a_look_at_every_queue_alone() {
    for all in [false, true] {
        let mut stage = Stage::new().await;
        stage.all_queues_read = all;
        let running = json!({"tasks": [document("in_progress")]});
        stage.answers("tasks.get_all", &running).await;
        stage.answers("tasks.failed", &json!({"updated": 1})).await;
        let dead = ended(job("held", false));
        stage.cluster.put(&dead);
        let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
        if let TaskFact::Found(task) = &mut case.observed.facts.task {
            task.user_queue = rules::UserQueue::Gone;
        }
        let report = stage.carry_out(case).await;
        assert_eq!(report.wants_every_queue, !all, "{report:?}");
        let calls = stage.calls().await;
        assert_eq!(calls.contains(&"tasks.failed".to_owned()), all, "{calls:?}");
        assert_eq!(calls.is_empty(), !all, "{calls:?}");
    }
}

#[tokio::test]
async fn a_settled_job_carries_category_and_exit_code_of_its_end() {
    let stage = Stage::new().await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    let mut case = stage.case(Entry::Nowhere, "failed", &dead);
    let pod = json!({
        "metadata": {"name": "pod", "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(), "uid": "job-1"},
        ]},
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"phase": "Failed", "containerStatuses": [{
            "name": "task", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 3, "reason": "Error"}},
        }]},
    });
    let pod = PodRow::of(serde_json::from_value(pod).unwrap());
    case.objects.pods = vec![Arc::new(pod)];
    let report = stage.carry_out(case).await;
    assert!(report.fault.is_none(), "{report:?}");
    assert!(stage.calls().await.is_empty());
    assert_eq!(
        stage.cluster.job()["metadata"]["annotations"],
        json!({
            "trainyard.dev/ended": "exit-code", "trainyard.dev/exit-code": "3", "trainyard.dev/node": "node-1",
            "trainyard.dev/outcome": "failure",
        })
    );
}

/// Between look and write a plain agent may have run the task, and left the mark of our dead attempt on it.
#[tokio::test]
async fn a_run_that_was_begun_since_the_look_is_neither_ended_nor_undone() {
    for (interruption, call) in [
        (OnInterruption::Requeue, "tasks.dequeue"),
        (OnInterruption::Fail, "tasks.failed"),
        (OnInterruption::Stop, "tasks.stopped"),
    ] {
        for (written, ends) in [(false, true), (true, false)] {
            let stage = Stage::new().await;
            let mut live = document("in_progress");
            live["status_changed"] = json!(if written { "later" } else { "at the look" });
            stage
                .answers("tasks.get_all", &json!({"tasks": [live]}))
                .await;
            for call in ["tasks.dequeue", "tasks.failed", "tasks.stopped"] {
                stage.answers(call, &json!({"updated": 1})).await;
            }
            let dead = ended(job("held", false));
            stage.cluster.put(&dead);
            let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
            case.observed.facts.stamps.status_changed = Some("at the look".to_owned());
            case.policy.on_interruption = interruption;
            stage.carry_out(case).await;
            let calls = stage.calls().await;
            assert_eq!(calls.contains(&call.to_owned()), ends, "{calls:?}");
        }
    }
}
