use serde_json::{Value, json};

use super::*;

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "task", "image": "r/i:t" }], "initContainers": [{ "name": "prepare", "image": "ours:1" }] },
        "status": status,
    }))
    .unwrap()
}

fn container_waits(reason: &str, message: &str) -> Pod {
    pod(&json!({ "containerStatuses": [{
        "name": "task", "image": "r/i:t", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": reason, "message": message } },
    }] }))
}

fn event(reason: &str, message: &str) -> Event {
    Event {
        reason: reason.into(),
        message: message.into(),
        warning: true,
        container: None,
    }
}

/// The same of a container.
fn event_of(container: &str, reason: &str, message: &str) -> Event {
    Event {
        container: Some(container.into()),
        ..event(reason, message)
    }
}

#[test]
fn the_missing_resource_is_named() {
    let pod = pod(&json!({ "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 2 Insufficient memory. preemption: 0/2 nodes are available",
    }] }));
    let waiting = waiting(Some(&pod), &[]).unwrap();
    assert_eq!(waiting.category, Category::Unschedulable);
    assert!(
        waiting
            .sentence
            .starts_with("no node has enough nvidia.com/gpu and memory free: 0/2"),
        "{waiting:?}"
    );
    assert!(!waiting.refused);
}

#[test]
fn taints_selectors_and_claims_have_their_remedies() {
    for (message, remedy) in [
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: only}.",
            "toleration",
        ),
        (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "labels",
        ),
        ("persistentvolumeclaim \"data\" not found", "volumes"),
    ] {
        let found = unschedulable(message);
        assert!(
            found.remedy.as_deref().unwrap().contains(remedy),
            "{found:?}"
        );
    }
}

#[test]
fn every_reason_of_a_waiting_container_has_its_category() {
    for (reason, message, category) in [
        (
            "ImagePullBackOff",
            "Back-off pulling image \"r/i:t\": ErrImagePull: r/i:t: not found",
            Category::ImageMissing,
        ),
        ("ErrImagePull", "401 Unauthorized", Category::ImageAccess),
        (
            "ErrImageNeverPull",
            "Container image is not present with pull policy of Never",
            Category::ImageMissing,
        ),
        (
            "InvalidImageName",
            "couldn't parse image name \"r/I:t\"",
            Category::ImageName,
        ),
        (
            "CreateContainerConfigError",
            "secret \"keys\" not found",
            Category::Configuration,
        ),
        (
            "CreateContainerError",
            "context deadline exceeded",
            Category::NotStarted,
        ),
        (
            "RunContainerError",
            "exec: no such file",
            Category::NotStarted,
        ),
        (
            "CrashLoopBackOff",
            "back-off 10s restarting failed container",
            Category::NotStarted,
        ),
    ] {
        let found = waiting(Some(&container_waits(reason, message)), &[]).unwrap();
        assert_eq!(found.category, category, "{reason}");
        assert!(found.sentence.contains(message), "{}", found.sentence);
    }
}

#[test]
fn a_missing_secret_is_said_with_what_to_do() {
    let found = waiting(
        Some(&container_waits(
            "CreateContainerConfigError",
            "secret \"keys\" not found",
        )),
        &[],
    )
    .unwrap();
    assert_eq!(
        found.sentence,
        "container \"task\" cannot be made: secret \"keys\" not found"
    );
    assert_eq!(
        found.remedy.unwrap(),
        "make the Secret in the namespace of the binding, with that key"
    );
}

#[test]
fn a_pod_on_its_way_waits_for_nothing() {
    assert_eq!(
        waiting(Some(&container_waits("PodInitializing", "")), &[]),
        None
    );
    assert_eq!(
        waiting(
            Some(&container_waits("ContainerCreating", "")),
            &[event("Pulling", "Pulling image")]
        ),
        None
    );
    assert_eq!(
        waiting(None, &[event("SuccessfulCreate", "Created pod: p")]),
        None
    );
}

#[test]
fn what_the_kubelet_posts_of_a_container_is_told_before_the_status_says_it() {
    let on_its_way = container_waits("PodInitializing", "");
    for (status, message, posted) in [
        (
            "ErrImagePull",
            "rpc error: code = NotFound desc = r/i:t: not found",
            "Failed to pull image \"r/i:t\": rpc error: code = NotFound desc = r/i:t: not found",
        ),
        (
            "CreateContainerConfigError",
            "secret \"keys\" not found",
            "Error: secret \"keys\" not found",
        ),
    ] {
        let by_status = waiting(Some(&container_waits(status, message)), &[]);
        assert!(by_status.is_some(), "{status}");
        let events = [
            event_of("prepare", "Started", "Container started"),
            event_of("task", "Pulling", "Pulling image"),
            event_of("task", "Failed", posted),
            event_of("task", "Failed", &format!("Error: {status}")),
            // Another container that goes on says nothing of this one.
            event_of("other", "Started", "Container started"),
        ];
        assert_eq!(waiting(Some(&on_its_way), &events), by_status, "{status}");
        let again = [event_of("task", "Pulling", "Pulling image")];
        let tried_again = [events.as_slice(), &again].concat();
        assert_eq!(waiting(Some(&on_its_way), &tried_again), None, "{status}");
    }
}

#[test]
fn a_container_that_runs_is_not_held_up_by_what_was_posted_before() {
    let runs = pod(&json!({ "containerStatuses": [{
        "name": "task", "image": "r/i:t", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "running": { "startedAt": null } },
    }] }));
    let posted = [event_of(
        "task",
        "Failed",
        "Error: secret \"keys\" not found",
    )];
    assert_eq!(waiting(Some(&runs), &posted), None);
}

#[test]
fn a_refused_pod_is_told_from_one_that_waits() {
    for (message, category) in [
        (
            "Error creating: pods \"p\" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 2, limited: 2",
            Category::Quota,
        ),
        (
            "Error creating: pods \"p\" is forbidden: failed quota: mem: must specify limits.memory for: task",
            Category::Quota,
        ),
        (
            "Error creating: pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
            Category::Policy,
        ),
        (
            "Error creating: pods \"p\" is forbidden: error looking up service account ml/x: serviceaccount \"x\" not found",
            Category::Configuration,
        ),
        (
            "Error creating: admission webhook \"w\" denied the request: no",
            Category::Policy,
        ),
    ] {
        let found = waiting(None, &[event("FailedCreate", message)]).unwrap();
        assert_eq!(found.category, category, "{message}");
        assert!(
            found.refused && found.sentence.contains(message),
            "{found:?}"
        );
    }
}

#[test]
fn trouble_on_the_node_is_taken_from_the_newest_event() {
    let creating = container_waits("ContainerCreating", "");
    let events = [
        event(
            "FailedMount",
            "MountVolume.SetUp failed for volume \"data\": secret \"old\" not found",
        ),
        event(
            "FailedMount",
            "MountVolume.SetUp failed for volume \"data\": secret \"new\" not found",
        ),
    ];
    let found = waiting(Some(&creating), &events).unwrap();
    assert_eq!(found.category, Category::Volume);
    assert!(found.sentence.contains("new"), "{}", found.sentence);
}
