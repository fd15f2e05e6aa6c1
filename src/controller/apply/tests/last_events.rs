//! The Events of a pod come to its task's log before the task's end.

use super::*;
use crate::controller::row::PodRow;

fn warning(reason: &str, message: &str) -> Value {
    json!({
        "metadata": {"name": reason}, "involvedObject": {},
        "type": "Warning", "reason": reason, "message": message,
    })
}

/// The Job's pod with a container in this state.
fn pod(phase: &str, state: &Value) -> Arc<PodRow> {
    let pod = json!({
        "metadata": {"name": "pod", "uid": "pod-1", "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(), "uid": "job-1"},
        ]},
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"phase": phase, "containerStatuses": [{
            "name": "task", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]},
    });
    Arc::new(PodRow::of(serde_json::from_value(pod).unwrap()))
}

/// A task whose pod waits for this, and is not waited for any longer.
async fn given_up(stage: &Stage, reason: &str) -> Case {
    let queued = json!({"tasks": [document("queued")]});
    for (action, answer) in [
        ("queues.remove_task", &json!({"removed": 1})),
        ("tasks.get_all", &queued),
        ("tasks.dequeue", &json!({"updated": 1})),
    ] {
        stage.answers(action, answer).await;
    }
    let held = job("held", false);
    stage.cluster.put(&held);
    let mut case = stage.case(Entry::Pending, "queued", &held);
    case.policy.pending_timeout = jiff::SignedDuration::ZERO;
    case.policy.on_pending_timeout = OnPendingTimeout::Fail;
    case.objects.pods = vec![pod("Pending", &json!({"waiting": {"reason": reason}}))];
    case
}

impl Stage {
    fn tells(&self, answers: &[&[Value]]) {
        let answers = answers.iter().copied().map(<[Value]>::to_vec).collect();
        *self.cluster.events.lock().unwrap() = Some(answers);
    }

    /// For what Events were read.
    fn asked(&self) -> Vec<String> {
        self.cluster.asked.lock().unwrap().clone()
    }

    /// The calls of this action that hold these words, as their places among all calls.
    async fn places(&self, action: &str, words: &str) -> Vec<usize> {
        let requests = self.server.received_requests().await.unwrap();
        let fits = |request: &wiremock::Request| {
            let body = String::from_utf8_lossy(&request.body);
            request.url.path() == format!("/{action}") && body.contains(words)
        };
        let all = requests.iter().enumerate();
        all.filter(|(_, request)| fits(request))
            .map(|(place, _)| place)
            .collect()
    }
}

const SAYS: &str = "Kubernetes: Failed: no such image";

#[tokio::test]
async fn what_the_cluster_warns_of_is_in_the_log_before_a_task_is_given_up() {
    let stage = Stage::new().await;
    let case = given_up(&stage, "ErrImagePull").await;
    let normal =
        json!({"metadata": {}, "involvedObject": {}, "type": "Normal", "reason": "Pulling"});
    stage.tells(&[&[normal, warning("Failed", "no such image")]]);
    let report = stage.carry_out(case).await;
    assert_eq!(report.done, ["give-up"], "{report:?}");
    let told = stage.places("events.add_batch", SAYS).await;
    let ended = stage.places("tasks.dequeue", "").await;
    assert_eq!((told.len(), ended.len()), (1, 1));
    assert!(told < ended, "{told:?} {ended:?}");
    let others = stage.places("events.add_batch", "Pulling").await;
    assert!(others.is_empty());
    let asked = stage.asked();
    assert!(asked.len() == 1 && asked[0].contains("pod-1"), "{asked:?}");
}

#[tokio::test]
async fn an_event_that_comes_a_moment_after_the_pods_status_is_waited_for() {
    let stage = Stage::new().await;
    let case = given_up(&stage, "ErrImagePull").await;
    stage.tells(&[&[], &[warning("Failed", "no such image")]]);
    let report = stage.carry_out(case).await;
    assert_eq!(report.done, ["give-up"], "{report:?}");
    let told = stage.places("events.add_batch", SAYS).await;
    assert!(!told.is_empty() && told < stage.places("tasks.dequeue", "").await);
    assert_eq!(stage.asked().len(), 2);
}

#[tokio::test]
async fn an_event_that_never_comes_holds_no_end_up_for_long() {
    let stage = Stage::new().await;
    let case = given_up(&stage, "ErrImagePull").await;
    stage.tells(&[&[warning("FailedMount", "not yet")]]);
    let report = stage.carry_out(case).await;
    assert_eq!(report.done, ["give-up"], "{report:?}");
    assert!(stage.asked().len() > 1, "it was waited for");
    for words in ["FailedMount", "Kubernetes: ErrImagePull"] {
        let told = stage.places("events.add_batch", words).await;
        assert!(!told.is_empty() && told < stage.places("tasks.dequeue", "").await);
    }
}

#[tokio::test]
async fn nothing_is_waited_for_where_no_event_is_to_be_expected() {
    let stage = Stage::new().await;
    let case = given_up(&stage, "ContainerCreating").await;
    stage.tells(&[&[]]);
    let report = stage.carry_out(case).await;
    assert_eq!(report.done, ["give-up"], "{report:?}");
    assert_eq!(stage.asked().len(), 1);
}

#[tokio::test]
async fn without_the_right_to_read_events_a_task_is_given_up_all_the_same() {
    let stage = Stage::new().await;
    let case = given_up(&stage, "ErrImagePull").await;
    let report = stage.carry_out(case).await;
    assert_eq!(report.done, ["give-up"], "{report:?}");
    assert_eq!(stage.places("tasks.dequeue", "image").await.len(), 1);
    assert_eq!(stage.asked().len(), 1);
}

#[tokio::test]
async fn what_the_cluster_warns_of_is_in_the_log_before_a_dead_pods_task_is_ended() {
    let stage = Stage::new().await;
    let running = json!({"tasks": [document("in_progress")]});
    stage.answers("tasks.get_all", &running).await;
    stage.answers("tasks.failed", &json!({"updated": 1})).await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
    case.policy.on_interruption = OnInterruption::Fail;
    let killed = json!({"terminated": {"exitCode": 137, "reason": "Error"}});
    case.objects.pods = vec![pod("Failed", &killed)];
    stage.tells(&[&[warning("Evicted", "low on memory")]]);
    let report = stage.carry_out(case).await;
    assert_eq!(report.done, ["settle"], "{report:?}");
    let said = "Kubernetes: Evicted: low on memory";
    let told = stage.places("events.add_batch", said).await;
    let ended = stage.places("tasks.failed", "").await;
    assert_eq!((told.len(), ended.len()), (1, 1));
    assert!(told < ended, "{told:?} {ended:?}");
}
