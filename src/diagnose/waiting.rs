//! Why a pod does not start yet.

use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, Pod};

use super::announced::announced;
use super::facts::{condition, containers, image, init_containers};
use super::image::pull_failure;
use super::{Category, Event, one_line, quoting, with_remedy};

/// Why a pod does not start yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub category: Category,
    /// One sentence, with the words of Kubernetes in it.
    pub sentence: String,
    /// What to do, if that is known.
    pub remedy: Option<String>,
    /// The cluster has accepted the Job and refuses its pod: the task can be pulled back.
    pub refused: bool,
}

impl Waiting {
    fn new(category: Category, sentence: String) -> Self {
        Self {
            category,
            sentence,
            remedy: None,
            refused: false,
        }
    }

    fn remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }

    /// The sentence and, where there is one, the remedy: what people read in the task's status message.
    pub fn message(&self) -> String {
        with_remedy(&self.sentence, self.remedy.as_deref())
    }
}

/// Why a Job's pod does not start, from the pod (if there is one) and the Events about Job and pod, oldest first.
/// Nothing if it simply is on its way.
pub fn waiting(pod: Option<&Pod>, events: &[Event]) -> Option<Waiting> {
    let Some(pod) = pod else {
        return events.iter().rev().find_map(refused_pod);
    };
    if let Some(waiting) = unscheduled(pod) {
        return Some(waiting);
    }
    let all = init_containers(pod).iter().chain(containers(pod));
    for status in all {
        if let Some(reason) = status
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref())
            && let Some(waiting) = container(pod, status, reason)
        {
            return Some(waiting);
        }
    }
    let started = containers(pod)
        .iter()
        .any(|status| status.started == Some(true));
    if started {
        return None;
    }
    ahead_of_status(pod, events).or_else(|| {
        // What the node went on with is over.
        events
            .iter()
            .rev()
            .take_while(|event| !went_on(event))
            .find_map(trouble_on_the_node)
    })
}

/// What the Events say of a container that is still on its way by its status, which may follow only 15 s later.
fn ahead_of_status(pod: &Pod, events: &[Event]) -> Option<Waiting> {
    let mut all = init_containers(pod).iter().chain(containers(pod));
    all.find_map(|status| {
        status.state.as_ref()?.waiting.as_ref()?;
        let name = Some(status.name.as_str());
        let newest_first = events.iter().rev();
        let told = newest_first
            .filter(|event| event.container.as_deref() == name)
            .take_while(|event| !went_on(event))
            .find_map(announced)?;
        container(pod, status, &told)
    })
}

/// The pod is not on a node yet.
fn unscheduled(pod: &Pod) -> Option<Waiting> {
    let scheduled =
        condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let message = one_line(scheduled.message.as_deref().unwrap_or_default());
    match scheduled.reason.as_deref() {
        Some("SchedulingGated") => Some(Waiting::new(
            Category::Unschedulable,
            "the pod's scheduling gates are not lifted yet".into(),
        )),
        _ => Some(unschedulable(&message)),
    }
}

fn unschedulable(message: &str) -> Waiting {
    let missing = insufficient(message);
    let sentence = if missing.is_empty() {
        quoting("no node takes the pod", message)
    } else {
        quoting(
            format!("no node has enough {} free", missing.join(" and ")),
            message,
        )
    };
    let waiting = Waiting::new(Category::Unschedulable, sentence);
    let lower = message.to_lowercase();
    if !missing.is_empty() {
        return waiting.remedy("it starts when there is room; ask for less, or add nodes");
    }
    // Nodes may differ in what is wrong with them: all of it is told.
    let mut remedies = Vec::new();
    if lower.contains("affinity") || lower.contains("selector") {
        remedies
            .push("no node has the labels that the template's node selector or affinity asks for");
    }
    if lower.contains("taint") {
        remedies.push("give the template a toleration for the taint, or remove it from a node");
    }
    if lower.contains("persistentvolumeclaim") || lower.contains("volume") {
        remedies.push("check the template's volumes and their claims");
    }
    if remedies.is_empty() {
        waiting
    } else {
        waiting.remedy(&remedies.join("; "))
    }
}

/// The resources that the scheduler says are missing: `Insufficient nvidia.com/gpu`.
fn insufficient(message: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for part in message.split("Insufficient ").skip(1) {
        let name = part
            .split([',', ' ', ';'])
            .next()
            .unwrap_or_default()
            .trim_end_matches('.');
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A container that waits for more than its turn.
fn container(
    pod: &Pod,
    status: &ContainerStatus,
    waiting: &ContainerStateWaiting,
) -> Option<Waiting> {
    let message = one_line(waiting.message.as_deref().unwrap_or_default());
    let name = &status.name;
    let image = image(pod, name).unwrap_or(&status.image);
    match waiting.reason.as_deref()? {
        "ImagePullBackOff"
        | "ErrImagePull"
        | "RegistryUnavailable"
        | "ImageInspectError"
        | "SignatureValidationFailed" => {
            let (category, remedy) = pull_failure(&message);
            let waiting = Waiting::new(
                category,
                quoting(
                    format!("image {image:?} of container {name:?} cannot be pulled"),
                    &message,
                ),
            );
            Some(match remedy {
                Some(remedy) => waiting.remedy(remedy),
                None => waiting,
            })
        }
        "ErrImageNeverPull" => {
            let sentence = quoting(
                format!(
                    "image {image:?} of container {name:?} is not on the node, and is never pulled"
                ),
                &message,
            );
            Some(
                Waiting::new(Category::ImageMissing, sentence)
                    .remedy("set imagePullPolicy to IfNotPresent, or bring the image to the node"),
            )
        }
        "InvalidImageName" => {
            let sentence = quoting(
                format!("image {image:?} of container {name:?} is no image name"),
                &message,
            );
            Some(
                Waiting::new(Category::ImageName, sentence)
                    .remedy("correct the name in the template or in the task"),
            )
        }
        "CreateContainerConfigError" => {
            let sentence = quoting(format!("container {name:?} cannot be made"), &message);
            Some(
                Waiting::new(Category::Configuration, sentence)
                    .remedy(configuration_remedy(&message)),
            )
        }
        reason @ ("CreateContainerError"
        | "RunContainerError"
        | "PostStartHookError"
        | "PreCreateHookError"
        | "PreStartHookError") => Some(Waiting::new(
            Category::NotStarted,
            quoting(
                format!("container {name:?} cannot be started ({reason})"),
                &message,
            ),
        )),
        "CrashLoopBackOff" => Some(Waiting::new(
            Category::NotStarted,
            quoting(format!("container {name:?} ends again and again"), &message),
        )),
        _ => None,
    }
}

fn configuration_remedy(message: &str) -> &'static str {
    let lower = message.to_lowercase();
    if lower.contains("secret") {
        "make the Secret in the namespace of the binding, with that key"
    } else if lower.contains("configmap") {
        "make the ConfigMap in the namespace of the binding, with that key"
    } else if lower.contains("runasnonroot") || lower.contains("non-root") {
        "the image runs as root and the template forbids it; set securityContext.runAsUser"
    } else {
        "check the environment variables and volumes of the template"
    }
}

/// The Job controller could not make the pod.
fn refused_pod(event: &Event) -> Option<Waiting> {
    if event.reason != "FailedCreate" {
        return None;
    }
    let message = one_line(&event.message);
    let lower = message.to_lowercase();
    let mut waiting = if lower.contains("exceeded quota") {
        Waiting::new(
            Category::Quota,
            quoting("the namespace's quota has no room for the pod", &message),
        )
        .remedy("it starts when there is room; ask for less, or raise the quota")
    } else if lower.contains("must specify limits") || lower.contains("failed quota") {
        Waiting::new(
            Category::Quota,
            quoting(
                "the namespace's quota asks for limits that the pod does not have",
                &message,
            ),
        )
        .remedy("set resources in the template, or defaults by a LimitRange")
    } else if lower.contains("podsecurity") {
        Waiting::new(
            Category::Policy,
            quoting(
                "the namespace's pod security level forbids the pod",
                &message,
            ),
        )
        .remedy("set the securityContext that the message names in the template")
    } else if lower.contains("serviceaccount") || lower.contains("service account") {
        Waiting::new(Category::Configuration, quoting("the pod's service account is missing", &message))
            .remedy("make the ServiceAccount in the namespace of the binding, or name another in spec.identity")
    } else {
        Waiting::new(
            Category::Policy,
            quoting("the cluster refuses the pod", &message),
        )
    };
    waiting.refused = true;
    Some(waiting)
}

/// The node is beyond volumes and sandbox.
fn went_on(event: &Event) -> bool {
    ["Pulling", "Pulled", "Created", "Started"].contains(&event.reason.as_str())
}

/// The pod has its node, and something there stands in its way.
fn trouble_on_the_node(event: &Event) -> Option<Waiting> {
    let message = one_line(&event.message);
    match event.reason.as_str() {
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => {
            let waiting = Waiting::new(
                Category::Volume,
                quoting("a volume cannot be mounted", &message),
            );
            Some(waiting.remedy(if message.contains("not found") {
                "make the object that the message names in the namespace of the binding"
            } else {
                "check the template's volumes and their claims"
            }))
        }
        "FailedCreatePodSandBox" => Some(Waiting::new(
            Category::NotStarted,
            quoting("the node cannot make the pod's sandbox", &message),
        )),
        "FailedScheduling" => Some(unschedulable(&message)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
