//! What Events about a pod are to be expected.
//!
//! The kubelet posts them beside the pod's status, so that one may come a little later than the status that goes with
//! it, or a little earlier.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::Event;
use super::facts::{containers, init_containers};

/// Warnings from before any container: of the scheduler, of volumes and of the sandbox.
const BEFORE: [&str; 6] = [
    "FailedScheduling",
    "FailedMount",
    "FailedAttachVolume",
    "FailedMapVolume",
    "FailedCreatePodSandBox",
    "NetworkNotReady",
];
/// What a container says that only waits for its turn.
const ITS_TURN: [&str; 2] = ["PodInitializing", "ContainerCreating"];

/// Whether a container of the pod waits for a cause that the kubelet warns of, and that warning is none of these Events.
pub fn warning_is_missing(pod: &Pod, events: &[Event]) -> bool {
    let of_container = |event: &Event| event.warning && !BEFORE.contains(&event.reason.as_str());
    let mut all = init_containers(pod).iter().chain(containers(pod));
    all.any(is_held_up) && !events.iter().any(of_container)
}

fn is_held_up(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    reason.is_some_and(|reason| !ITS_TURN.contains(&reason))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(reason: &str) -> Pod {
        let status = |name: &str, reason: &str| {
            json!({
                "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason}},
            })
        };
        serde_json::from_value(json!({"metadata": {}, "status": {
            "initContainerStatuses": [status("prepare", "PodInitializing")],
            "containerStatuses": [status("task", reason)],
        }}))
        .unwrap()
    }

    fn event(reason: &str, warning: bool) -> Event {
        Event {
            reason: reason.into(),
            message: String::new(),
            warning,
        }
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_warned_of() {
        let waits = pod("ErrImagePull");
        assert!(warning_is_missing(&waits, &[]));
        let others = [event("Pulling", false), event("FailedMount", true)];
        assert!(warning_is_missing(&waits, &others));
        assert!(!warning_is_missing(&waits, &[event("Failed", true)]));
    }

    #[test]
    fn a_container_that_waits_for_its_turn_is_warned_of_by_nobody() {
        assert!(!warning_is_missing(&pod("ContainerCreating"), &[]));
        let nothing: Pod = serde_json::from_value(json!({"metadata": {}})).unwrap();
        assert!(!warning_is_missing(&nothing, &[]));
    }
}
