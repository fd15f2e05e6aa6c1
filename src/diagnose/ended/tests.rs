use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;

fn job(reason: &str) -> Job {
    serde_json::from_value(json!({
        "metadata": { "name": "ty" },
        "spec": { "activeDeadlineSeconds": 60, "template": {} },
        "status": { "conditions": [{ "type": "Failed", "status": "True", "reason": reason, "message": "m" }] },
    }))
    .unwrap()
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": {
            "nodeName": "node-1",
            "containers": [{ "name": "task", "resources": { "limits": { "memory": "256Mi" } } }],
        },
        "status": status,
    }))
    .unwrap()
}

fn terminated(reason: &str, exit_code: i32, message: &str) -> Value {
    json!({ "phase": "Failed", "containerStatuses": [{
        "name": "task", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "reason": reason, "exitCode": exit_code, "message": message } },
    }] })
}

/// The script ended with exit code 1, and of that was said too.
fn said_with(field: &str, value: &Value) -> String {
    let mut said: Value = serde_json::from_str(&said("failed", Some(1), None)).unwrap();
    said[field] = value.clone();
    said.to_string()
}

fn said(outcome: &str, exit_code: Option<i32>, signal: Option<i32>) -> String {
    json!({
        "version": 1, "outcome": outcome, "message": format!("it {outcome}"), "exit_code": exit_code,
        "signal": signal, "reported": true, "last_lines": ["Traceback", "ValueError"],
    })
    .to_string()
}

fn disrupted(reason: &str) -> Value {
    let mut status = terminated("Error", 137, "");
    status["conditions"] = json!([{ "type": "DisruptionTarget", "status": "True", "reason": reason, "message": "words" }]);
    status
}

fn with_reason(reason: &str, message: &str) -> Value {
    json!({ "phase": "Failed", "reason": reason, "message": message })
}

/// What a kubelet that ends a pod writes since Kubernetes 1.26.
fn by_kubelet(reason: &str) -> Value {
    let mut status = with_reason(reason, "words");
    status["conditions"] = disrupted("TerminationByKubelet")["conditions"].clone();
    status
}

/// The same, evicted because its containers together took more of the disk than they may.
fn over_limit(status: &Value) -> Value {
    let mut status = status.clone();
    status["reason"] = json!("Evicted");
    status["message"] =
        json!("Pod ephemeral local storage usage exceeds the total limit of containers 22Gi. ");
    status
}

fn init_failed(name: &str, reason: &str) -> Value {
    json!({ "phase": "Failed", "initContainerStatuses": [{
        "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "reason": reason, "exitCode": 1, "message": "no" } },
    }] })
}

#[test]
fn each_end_has_its_category_and_fault() {
    use Category::*;
    use Fault::{Interruption, Task};

    let backoff = || job("BackoffLimitExceeded");
    for (name, job, status, category, fault) in vec![
        (
            "told completed",
            backoff(),
            terminated("Completed", 0, &said("completed", Some(0), None)),
            Completed,
            Task,
        ),
        (
            "told exit code",
            backoff(),
            terminated("Error", 3, &said("failed", Some(3), None)),
            ExitCode,
            Task,
        ),
        (
            "a code of our own range",
            backoff(),
            terminated("Error", 212, &said("failed", Some(212), None)),
            ExitCode,
            Task,
        ),
        (
            "told signal",
            backoff(),
            terminated("Error", 139, &said("failed", None, Some(11))),
            Signal,
            Task,
        ),
        (
            "told child's memory",
            backoff(),
            terminated("Error", 1, &said_with("out_of_memory", &json!(true))),
            OutOfMemory,
            Task,
        ),
        (
            "memory that Kubernetes alone knows of",
            backoff(),
            terminated("OOMKilled", 1, &said_with("reported", &json!(false))),
            OutOfMemory,
            Task,
        ),
        (
            "the same where the task says it otherwise",
            backoff(),
            terminated("OOMKilled", 137, &said("failed", None, Some(9))),
            Signal,
            Task,
        ),
        (
            "told a GPU's fault",
            backoff(),
            terminated("Error", 1, &said_with("xid", &json!(79))),
            GpuFault,
            Task,
        ),
        (
            "told not prepared",
            backoff(),
            terminated("Error", 212, &said("failed", None, None)),
            NotPrepared,
            Task,
        ),
        (
            "told stopped",
            backoff(),
            terminated("Error", 143, &said("stopped", None, Some(15))),
            Aborted,
            Task,
        ),
        (
            "told lost race",
            backoff(),
            terminated("Error", 211, &said("lost-race", None, None)),
            LostRace,
            Interruption,
        ),
        (
            "told internal",
            backoff(),
            terminated("Error", 210, &said("internal", None, None)),
            Executor,
            Interruption,
        ),
        (
            "told taken over",
            backoff(),
            terminated("Error", 213, &said("interrupted", None, None)),
            TakenOver,
            Interruption,
        ),
        (
            "told interrupted by the deadline",
            job("DeadlineExceeded"),
            terminated("Error", 213, &said("interrupted", None, None)),
            Deadline,
            Task,
        ),
        (
            "deadline",
            job("DeadlineExceeded"),
            terminated("Error", 137, ""),
            Deadline,
            Task,
        ),
        (
            "memory",
            backoff(),
            terminated("OOMKilled", 137, "last lines"),
            OutOfMemory,
            Task,
        ),
        (
            "killed",
            backoff(),
            terminated("Error", 137, ""),
            Killed,
            Task,
        ),
        (
            "untold signal",
            backoff(),
            terminated("Error", 139, ""),
            Signal,
            Task,
        ),
        (
            "untold exit code",
            backoff(),
            terminated("Error", 3, "not json"),
            ExitCode,
            Task,
        ),
        (
            "start error",
            backoff(),
            terminated("StartError", 128, "exec format error"),
            NotStarted,
            Task,
        ),
        (
            "restarted node",
            backoff(),
            terminated("ContainerStatusUnknown", 137, ""),
            NodeLost,
            Interruption,
        ),
        (
            "preempted",
            backoff(),
            disrupted("PreemptionByScheduler"),
            Preempted,
            Interruption,
        ),
        (
            "drained",
            backoff(),
            disrupted("EvictionByEvictionAPI"),
            Evicted,
            Interruption,
        ),
        (
            "tainted",
            backoff(),
            disrupted("DeletionByTaintManager"),
            NodeLost,
            Interruption,
        ),
        (
            "node deleted",
            backoff(),
            disrupted("DeletionByPodGC"),
            NodeLost,
            Interruption,
        ),
        (
            "shut down by kubelet",
            backoff(),
            disrupted("TerminationByKubelet"),
            NodeShutdown,
            Interruption,
        ),
        (
            "evicted by kubelet",
            backoff(),
            by_kubelet("Evicted"),
            Evicted,
            Interruption,
        ),
        (
            "preempted by kubelet",
            backoff(),
            by_kubelet("Preempting"),
            Preempted,
            Interruption,
        ),
        (
            "disk pressure",
            backoff(),
            with_reason(
                "Evicted",
                "The node was low on resource: ephemeral-storage.",
            ),
            Evicted,
            Interruption,
        ),
        (
            "a volume over its limit",
            backoff(),
            with_reason(
                "Evicted",
                "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ",
            ),
            StorageLimit,
            Task,
        ),
        (
            "told interrupted by a limit of its disk",
            backoff(),
            over_limit(&terminated("Error", 213, &said("interrupted", None, None))),
            StorageLimit,
            Task,
        ),
        (
            "node lost",
            backoff(),
            with_reason("NodeLost", ""),
            NodeLost,
            Interruption,
        ),
        (
            "shutdown",
            backoff(),
            with_reason("Terminated", "imminent node shutdown"),
            NodeShutdown,
            Interruption,
        ),
        (
            "no gpu on the node",
            backoff(),
            with_reason("UnexpectedAdmissionError", "no healthy devices"),
            NodeRefused,
            Interruption,
        ),
        (
            "no cpu on the node",
            backoff(),
            with_reason("OutOfcpu", ""),
            NodeRefused,
            Interruption,
        ),
        (
            "prepare broke",
            backoff(),
            init_failed("prepare", "Error"),
            Executor,
            Interruption,
        ),
        (
            "prepare's memory",
            backoff(),
            init_failed("prepare", "OOMKilled"),
            OutOfMemory,
            Task,
        ),
        (
            "user's init container",
            backoff(),
            init_failed("fetch", "Error"),
            NotPrepared,
            Task,
        ),
        (
            "nothing known",
            backoff(),
            json!({ "phase": "Failed" }),
            Unknown,
            Interruption,
        ),
    ] {
        let found = ended(&job, Some(&pod(&status)));
        assert_eq!(
            (found.category, found.fault),
            (category, fault),
            "{name}: {found:?}"
        );
        assert!(
            !found.sentence.is_empty() && !found.sentence.ends_with('.'),
            "{name}: {}",
            found.sentence
        );
    }
}

/// As with an image whose STOPSIGNAL is one that a script may also get from somebody.
#[test]
fn an_end_after_a_signal_counts_as_what_became_of_the_pod() {
    let backoff = job("BackoffLimitExceeded");
    let gone = |status: &Value| {
        let mut pod = pod(status);
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        pod
    };
    let mut signalled: Value = serde_json::from_str(&said("failed", None, Some(3))).unwrap();
    signalled["signalled"] = json!(true);
    signalled["reported"] = json!(false);
    let died = terminated("Error", 131, &signalled.to_string());
    let mut beside_a_fault = signalled.clone();
    beside_a_fault["xid"] = json!(79);
    let lost = terminated("Error", 131, &beside_a_fault.to_string());
    signalled["outcome"] = json!("completed");
    let completed = terminated("Completed", 0, &signalled.to_string());
    let mut drained = died.clone();
    drained["conditions"] = disrupted("EvictionByEvictionAPI")["conditions"].clone();
    for (job, pod, category, fault) in vec![
        (&backoff, pod(&died), Category::Signal, Fault::Task),
        (&backoff, pod(&lost), Category::GpuFault, Fault::Task),
        (
            &backoff,
            gone(&lost),
            Category::PodDeleted,
            Fault::Interruption,
        ),
        (&backoff, pod(&completed), Category::Completed, Fault::Task),
        (
            &backoff,
            pod(&drained),
            Category::Evicted,
            Fault::Interruption,
        ),
        (
            &backoff,
            gone(&died),
            Category::PodDeleted,
            Fault::Interruption,
        ),
        (
            &backoff,
            gone(&completed),
            Category::PodDeleted,
            Fault::Interruption,
        ),
        (
            &job("DeadlineExceeded"),
            gone(&died),
            Category::Deadline,
            Fault::Task,
        ),
        // Process 1 itself died of it.
        (
            &backoff,
            gone(&terminated("Error", 131, "")),
            Category::PodDeleted,
            Fault::Interruption,
        ),
    ] {
        let found = ended(job, Some(&pod));
        assert_eq!(
            (found.category, found.fault),
            (category, fault),
            "{found:?}"
        );
        assert!(!found.reported);
    }
    // The executor's own word for it stands where no signal came.
    let failed = gone(&terminated("Error", 3, &said("failed", Some(3), None)));
    assert_eq!(ended(&backoff, Some(&failed)).category, Category::ExitCode);
}

#[test]
fn memory_names_limit_and_node() {
    let found = ended(
        &job("BackoffLimitExceeded"),
        Some(&pod(&terminated("OOMKilled", 137, ""))),
    );
    assert_eq!(
        found.sentence,
        "container \"task\" was killed because it used more than its limit of 256Mi on node \"node-1\" (OOMKilled)"
    );
    assert!(
        found
            .message()
            .contains("hint: raise resources.limits.memory")
    );
    assert_eq!(found.exit_code, Some(137));
    assert!(!found.reported);
}

#[test]
fn a_limit_of_the_disk_is_named_with_its_remedy() {
    let message = |volume: &str| {
        let words = format!("Usage of EmptyDir volume {volume:?} exceeds the limit \"16Gi\". ");
        let status = with_reason("Evicted", &words);
        ended(&job("BackoffLimitExceeded"), Some(&pod(&status))).message()
    };
    assert_eq!(
        message(crate::pod::SPOOL_VOLUME),
        "more output of the task waits for the server than its pod may keep on node \"node-1\": \
         Usage of EmptyDir volume \"trainyard-spool\" exceeds the limit \"16Gi\" \
         (hint: see why the server takes no log lines, or write less to stdout and stderr)"
    );
    assert!(message(crate::pod::CACHE_VOLUME).contains("hint: raise environment.cache.sizeLimit"));
    assert!(message("data").contains("hint: raise its sizeLimit in the template"));
}

#[test]
fn what_the_executor_told_is_taken_over() {
    let message = said("failed", Some(3), None);
    let found = ended(
        &job("BackoffLimitExceeded"),
        Some(&pod(&terminated("Error", 3, &message))),
    );
    assert_eq!(found.sentence, "it failed");
    assert_eq!(found.exit_code, Some(3));
    assert!(found.reported);
    assert_eq!(found.last_lines, ["Traceback", "ValueError"]);
    assert_eq!(
        found.evidence,
        [
            "Job failed: BackoffLimitExceeded: m",
            "pod p: phase Failed, node node-1",
            "container task: Error, exit code 3",
        ]
    );
}

#[test]
fn stopped_and_completed_are_outcomes_of_their_own() {
    let outcome = |word| {
        let status = terminated("Error", 1, &said(word, None, None));
        ended(&job("BackoffLimitExceeded"), Some(&pod(&status))).outcome
    };
    assert_eq!(outcome("stopped"), Outcome::Stopped);
    assert_eq!(outcome("completed"), Outcome::Completed);
    assert_eq!(outcome("failed"), Outcome::Failed);
}

#[test]
fn a_deleted_pod_is_an_interruption_also_when_it_had_to_be_killed() {
    for exit_code in [137, 143] {
        let mut pod = pod(&terminated("Error", exit_code, ""));
        pod.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let found = ended(&job("BackoffLimitExceeded"), Some(&pod));
        assert_eq!(
            (found.category, found.fault),
            (Category::PodDeleted, Fault::Interruption)
        );
    }
}

#[test]
fn a_pod_that_is_gone_was_deleted_unless_the_job_is_complete() {
    assert_eq!(
        ended(&job("BackoffLimitExceeded"), None).category,
        Category::PodDeleted
    );
    let complete = serde_json::from_value(json!({
        "metadata": {}, "status": { "conditions": [{ "type": "Complete", "status": "True" }] },
    }));
    assert_eq!(ended(&complete.unwrap(), None).outcome, Outcome::Completed);
}

#[test]
fn the_container_is_found_by_the_name_that_render_left() {
    let mut pod = pod(&terminated("Error", 5, ""));
    pod.metadata.annotations = Some(
        [(
            "kubectl.kubernetes.io/default-container".to_owned(),
            "main".to_owned(),
        )]
        .into(),
    );
    assert_eq!(ended(&job("x"), Some(&pod)).category, Category::Unknown);
    if let Some(statuses) = pod
        .status
        .as_mut()
        .and_then(|status| status.container_statuses.as_mut())
    {
        statuses[0].name = "main".into();
    }
    assert_eq!(ended(&job("x"), Some(&pod)).exit_code, Some(5));
}

#[test]
fn a_termination_message_of_a_later_version_is_still_read() {
    let message =
        said("failed", Some(7), None).replace("\"version\":1", "\"version\":2,\"new\":true");
    let found = ended(&job("x"), Some(&pod(&terminated("Error", 7, &message))));
    assert_eq!(found.exit_code, Some(7));
    assert!(found.reported);
}
