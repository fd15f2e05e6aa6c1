//! What Events about a pod are to be expected, and what they say before the pod's status does.
//!
//! The kubelet posts them beside the pod's status, so that one may come a little later than the status that goes with
//! it. Or earlier: a container that cannot be made is written into the status at the kubelet's next visit to the pod,
//! which is 10 to 15 s after one that has failed, unless another container of the pod changes.

use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod};

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

/// What the containers that are held up say in the pod's status, as warnings: where the kubelet's own come too late.
pub fn warnings_in_status(pod: &Pod) -> Vec<Event> {
    let all = init_containers(pod).iter().chain(containers(pod));
    all.filter(|status| is_held_up(status))
        .filter_map(|status| {
            let waiting = status.state.as_ref()?.waiting.as_ref()?;
            Some(Event {
                reason: waiting.reason.clone()?,
                message: waiting.message.clone().unwrap_or_default(),
                warning: true,
                container: Some(status.name.clone()),
            })
        })
        .collect()
}

/// For what a container waits by this Event, in the words that its status will have; nothing where the Event leaves open
/// which of several reasons that will be.
///
/// Source: Kubernetes, `pkg/kubelet/images/image_manager.go`, `pkg/kubelet/kuberuntime/kuberuntime_container.go`.
pub(super) fn announced(event: &Event) -> Option<ContainerStateWaiting> {
    if !event.warning {
        return None;
    }
    let message = event.message.as_str();
    let (reason, words) = match event.reason.as_str() {
        "Failed" => match message.strip_prefix("Failed to pull image ") {
            Some(pull) => {
                let (_image, words) = pull.split_once("\": ")?;
                ("ErrImagePull", words)
            }
            None => ("CreateContainerConfigError", unconfigured(message)?),
        },
        "ErrImageNeverPull" => ("ErrImageNeverPull", message),
        "InspectFailed" if message.starts_with("Failed to apply default image tag") => {
            ("InvalidImageName", message)
        }
        _ => return None,
    };
    Some(ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message: Some(words.to_owned()),
    })
}

/// What a container lacks that its template names. Whatever the runtime refuses is posted in the same way.
fn unconfigured(message: &str) -> Option<&str> {
    let words = message.strip_prefix("Error: ")?;
    let is_named = words.starts_with("secret \"") || words.starts_with("configmap \"");
    let is_missing = is_named && words.ends_with("not found");
    let others = ["couldn't find key ", "container has runAsNonRoot "];
    let is_other = others.iter().any(|begin| words.starts_with(begin));
    (is_missing || is_other).then_some(words)
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
            container: None,
        }
    }

    #[test]
    fn what_holds_a_container_up_is_a_warning_of_the_status_and_its_turn_is_none() {
        let said = |reason: &str| {
            let all = warnings_in_status(&pod(reason)).into_iter();
            all.map(|event| (event.reason, event.container.unwrap(), event.warning))
                .collect::<Vec<_>>()
        };
        let of_task = ("ErrImagePull".to_owned(), "task".to_owned(), true);
        assert_eq!(said("ErrImagePull"), [of_task]);
        assert_eq!(said("ContainerCreating"), []);
    }

    #[test]
    fn what_the_kubelet_posts_first_is_told_in_the_words_of_the_status_that_follows() {
        let said = |reason: &str, message: &str, warning| {
            let event = Event {
                message: message.into(),
                ..event(reason, warning)
            };
            announced(&event).map(|waiting| (waiting.reason.unwrap(), waiting.message.unwrap()))
        };
        for (posted, message, reason, words) in [
            (
                "Failed",
                "Failed to pull image \"r:5000/i:t\": rpc error: code = NotFound desc = r:5000/i:t: not found",
                "ErrImagePull",
                "rpc error: code = NotFound desc = r:5000/i:t: not found",
            ),
            (
                "Failed",
                "Error: secret \"keys\" not found",
                "CreateContainerConfigError",
                "secret \"keys\" not found",
            ),
            (
                "Failed",
                "Error: couldn't find key x in ConfigMap ml/settings",
                "CreateContainerConfigError",
                "couldn't find key x in ConfigMap ml/settings",
            ),
            (
                "ErrImageNeverPull",
                "Container image \"r/i:t\" is not present with pull policy of Never",
                "ErrImageNeverPull",
                "Container image \"r/i:t\" is not present with pull policy of Never",
            ),
            (
                "InspectFailed",
                "Failed to apply default image tag \"r/I:t\": couldn't parse image name",
                "InvalidImageName",
                "Failed to apply default image tag \"r/I:t\": couldn't parse image name",
            ),
        ] {
            let wanted = Some((reason.to_owned(), words.to_owned()));
            assert_eq!(said(posted, message, true), wanted, "{message}");
        }
        // The runtime's words, and what is only repeated, may have another reason in the status.
        for message in [
            "Error: ErrImagePull",
            "Error: failed to create containerd task: exec: \"/secret\": not found",
        ] {
            assert_eq!(said("Failed", message, true), None, "{message}");
        }
        let normal = said("Failed", "Error: secret \"keys\" not found", false);
        assert_eq!(normal, None, "no warning");
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
