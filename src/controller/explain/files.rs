//! Explain from files alone: a binding, a task's document and, where they are given, objects as `kubectl get` prints them.
//! Nobody is asked, so what else runs, what nodes have free and what registries say stays unknown, and is not guessed.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{AskError, Explanation, Fact, not_ready};
use crate::capacity::Ask;
use crate::config::Settings;
use crate::controller::admit::Room;
use crate::controller::preview::{self, Preview};
use crate::controller::{cluster, hours};
use crate::crd::{ImageCheck, QueueBinding, Resources};
use crate::diagnose::{self, Diagnosis};
use crate::pod::{annotation, label};
use crate::task::{Status, Task, TaskId};

/// Events that are repeated.
const EVENTS: usize = 5;

/// Explains a task from its document, a binding, and objects of the cluster.
pub fn explain_offline(
    settings: Settings,
    binding: &QueueBinding,
    document: &Value,
    objects: &[Value],
) -> Result<Explanation, AskError> {
    let task = preview::task_of(document)?;
    let found = Found::of(&task.id, objects);
    let preview = preview::preview_offline(settings, binding, document);
    let name = match binding.namespace() {
        Some(namespace) => format!("{namespace}/{}", binding.name_any()),
        None => binding.name_any(),
    };
    Ok(Explanation {
        task: task.id.to_string(),
        answer: answer(binding, &task, &found, &preview, Timestamp::now()),
        binding: Some(name),
        phase: None,
        step: None,
        facts: facts(&task, &found, &preview),
    })
}

/// What the files hold of a task's last attempt.
#[derive(Default)]
struct Found {
    job: Option<Job>,
    pod: Option<Pod>,
    /// Of Job and pod, oldest first.
    events: Vec<diagnose::Event>,
}

impl Found {
    fn of(task: &TaskId, objects: &[Value]) -> Self {
        let all: Vec<&Value> = objects.iter().flat_map(items).collect();
        let is_of_task =
            |object: &Value| object["metadata"]["labels"][label::TASK] == task.as_str();
        let job: Option<Job> = youngest(&all, "Job", is_of_task);
        let job_uid = job.as_ref().and_then(|job| job.metadata.uid.clone());
        let is_of_job = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            let mut owners = owners.into_iter().flatten();
            is_of_task(object) && owners.any(|owner| owner["uid"].as_str() == job_uid.as_deref())
        };
        let pod: Option<Pod> = job.as_ref().and_then(|_| youngest(&all, "Pod", is_of_job));
        let pod_uid = pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let uids: Vec<String> = job_uid.into_iter().chain(pod_uid).collect();
        Self {
            job,
            pod,
            events: events(&all, &uids),
        }
    }

    /// How the last attempt ended, if it has.
    fn ended(&self) -> Option<Diagnosis> {
        let job = self.job.as_ref().filter(|job| has_ended(job))?;
        Some(diagnose::ended(job, self.pod.as_ref()))
    }
}

/// The objects of a document: those of a list, or the one that it is.
fn items(document: &Value) -> Vec<&Value> {
    match document["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![document],
    }
}

/// The youngest readable object of this kind that is meant.
fn youngest<T: DeserializeOwned>(
    all: &[&Value],
    kind: &str,
    is_meant: impl Fn(&Value) -> bool,
) -> Option<T> {
    let meant = all.iter().copied();
    let meant = meant.filter(|&object| object["kind"] == kind && is_meant(object));
    let created = |object: &Value| {
        let created = &object["metadata"]["creationTimestamp"];
        created.as_str().map(str::to_owned)
    };
    let youngest = meant.max_by_key(|&object| created(object))?;
    serde_json::from_value(youngest.clone()).ok()
}

/// Events about these objects, of either API that has them.
fn events(all: &[&Value], uids: &[String]) -> Vec<diagnose::Event> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_about = |event: &Value| {
        ["involvedObject", "regarding"]
            .iter()
            .any(|about| uids.contains(&text(&event[*about]["uid"])))
    };
    let when = |event: &Value| {
        let last = [&event["lastTimestamp"], &event["eventTime"]];
        let known = last.into_iter().find_map(Value::as_str);
        known.map_or_else(
            || text(&event["metadata"]["creationTimestamp"]),
            str::to_owned,
        )
    };
    let mut events: Vec<(String, diagnose::Event)> = all
        .iter()
        .copied()
        .filter(|&object| object["kind"] == "Event" && is_about(object))
        .map(|event| {
            let message = text(&event["message"]);
            let field_path = ["involvedObject", "regarding"]
                .iter()
                .find_map(|about| event[*about]["fieldPath"].as_str());
            let told = diagnose::Event {
                reason: text(&event["reason"]),
                message: if message.is_empty() {
                    text(&event["note"])
                } else {
                    message
                },
                warning: event["type"] == "Warning",
                container: field_path
                    .and_then(diagnose::container_of)
                    .map(str::to_owned),
            };
            (when(event), told)
        })
        .collect();
    events.sort_by(|one, other| one.0.cmp(&other.0));
    events.into_iter().map(|(_, event)| event).collect()
}

fn has_ended(job: &Job) -> bool {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|known| {
        known.status == "True" && (known.type_ == "Complete" || known.type_ == "Failed")
    })
}

/// The one sentence.
fn answer(
    binding: &QueueBinding,
    task: &Task,
    found: &Found,
    preview: &Result<Preview, AskError>,
    now: Timestamp,
) -> String {
    let ended = found.ended().map(|end| end.message());
    match (task.status, ended, &found.job) {
        (Status::Created, ..) => "it is not enqueued".into(),
        (Status::Queued | Status::InProgress, Some(how), _) => {
            format!("its pod has ended, and what follows is decided after the quiet time: {how}")
        }
        (Status::Queued, None, Some(_)) => {
            match diagnose::waiting(found.pod.as_ref(), &found.events) {
                Some(why) => {
                    format!("it is taken, and its pod does not start: {}", why.message())
                }
                None => "it is taken, and its pod is on its way".into(),
            }
        }
        (Status::Queued, None, None) => queued(binding, preview, now),
        (Status::InProgress, None, Some(_)) => "it runs".into(),
        (Status::InProgress, None, None) => {
            "it says that it runs, and no Job of it is in these files".into()
        }
        (status, Some(how), _) => format!("it is {status}: {how}"),
        (status, None, _) if task.status_message.is_empty() => format!("it is {status}"),
        (status, None, _) => format!("it is {status}: {}", task.status_message),
    }
}

/// Why a task that has no Job waits, as far as the binding itself tells.
fn queued(binding: &QueueBinding, preview: &Result<Preview, AskError>, now: Timestamp) -> String {
    let spec = &binding.spec;
    if binding.metadata.deletion_timestamp.is_some() {
        return "it waits in its queue: the binding is being deleted".into();
    }
    if let Some(why) = not_ready(binding) {
        return format!("it waits in its queue because the binding is not ready: {why}");
    }
    if let Some(closed) = hours::hold(spec.suspend, &spec.schedule, now) {
        return format!("it waits in its queue: {}", closed.message);
    }
    let preview = match preview {
        Ok(preview) => preview,
        // What stands elsewhere is not known to be wrong.
        Err(_) if spec.template_ref.is_some() => return unhindered(),
        Err(why) => return format!("it waits in its queue: {why}"),
    };
    if let (Some(ImageCheck::Enforce), Some(why)) = (spec.image_check, &preview.image_refused) {
        return format!("it is failed when its turn comes: {why} (imageCheck: Enforce)");
    }
    let room = Room::of(&spec.limits, std::iter::empty());
    match room.fits(&ask_of(&preview.job)) {
        Err(waiting) => format!("it waits in its queue: {}", waiting.message),
        Ok(()) => unhindered(),
    }
}

fn unhindered() -> String {
    "nothing in these files keeps it from being taken; what else runs, the nodes and the registries were not asked"
        .into()
}

/// What a Job that would be made occupies of the limits, and whose it is.
fn ask_of(job: &Value) -> Ask {
    let text = |kind: &str, name: &str| {
        let value = &job["metadata"][kind][name];
        value.as_str().unwrap_or_default().to_owned()
    };
    let requests = text("annotations", annotation::REQUESTS);
    Ask {
        need: Resources::from_annotation(&requests).unwrap_or_default(),
        user: text("labels", label::USER),
        project: text("labels", label::PROJECT),
        placement: None,
    }
}

/// What was found in the files, in order.
fn facts(task: &Task, found: &Found, preview: &Result<Preview, AskError>) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |about, found: String| {
        let found = cluster::bounded(&found);
        facts.push(Fact { about, found });
    };
    add("status", task.status.to_string());
    if !task.status_reason.is_empty() {
        add("reason", task.status_reason.clone());
    }
    if let Some(job) = &found.job {
        let state = match job.spec.as_ref().and_then(|spec| spec.suspend) {
            _ if has_ended(job) => "ended",
            Some(true) => "not released",
            Some(false) | None => "released",
        };
        add("job", format!("{}: {state}", job.name_any()));
    }
    for line in found.ended().into_iter().flat_map(|end| end.evidence) {
        add("evidence", line);
    }
    for event in found.events.iter().rev().take(EVENTS) {
        add("event", format!("{}: {}", event.reason, event.message));
    }
    if let Some(pod) = &found.pod {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let (phase, node) = (phase.unwrap_or("unknown"), node.unwrap_or("no node"));
        add("pod", format!("{}: {phase}, {node}", pod.name_any()));
    }
    let notes = match preview {
        Ok(preview) => preview.notes.clone(),
        Err(error) => vec![error.to_string()],
    };
    for note in notes {
        add("note", note);
    }
    facts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::tests::{TASK, job};

    fn binding(spec: &Value) -> QueueBinding {
        let mut all = json!({"queues": [{"name": "gpu"}]});
        for (name, value) in spec.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "gpu"}, "spec": all})).unwrap()
    }

    fn task(status: &str) -> Task {
        let document = json!({"id": TASK, "status": status, "status_message": "as told"});
        preview::task_of(&document).unwrap()
    }

    fn rendered() -> Preview {
        Preview {
            job: json!({"metadata": {"annotations": {"trainyard.dev/requests": "nvidia.com/gpu=2"}}}),
            fields: Vec::new(),
            notes: Vec::new(),
            image_refused: Some("image \"x\" is not allowed here".into()),
        }
    }

    fn of_binding(spec: &Value) -> String {
        let found = Found::default();
        let now = Timestamp::UNIX_EPOCH;
        answer(
            &binding(spec),
            &task("queued"),
            &found,
            &Ok(rendered()),
            now,
        )
    }

    #[test]
    fn what_the_binding_itself_holds_up_is_told_and_nothing_is_guessed() {
        for (spec, words) in [
            (json!({"suspend": true}), "the binding is suspended"),
            (
                json!({"schedule": [{"from": "10:00", "to": "11:00"}]}),
                "outside the hours",
            ),
            (
                json!({"limits": {"resources": {"nvidia.com/gpu": 1}}}),
                "cannot run here: 2 of nvidia.com/gpu asked for",
            ),
            (
                json!({"imageCheck": "Enforce"}),
                "it is failed when its turn",
            ),
            (json!({}), "nothing in these files keeps it"),
        ] {
            let told = of_binding(&spec);
            assert!(told.contains(words), "{spec}: {told}");
        }
        let refused = Err(AskError::Other("the template is refused".into()));
        let found = Found::default();
        let now = Timestamp::UNIX_EPOCH;
        let told = answer(&binding(&json!({})), &task("queued"), &found, &refused, now);
        assert_eq!(told, "it waits in its queue: the template is refused");
    }

    #[test]
    fn jobs_pods_and_events_are_found_in_lists_of_any_kind() {
        let mut done = job("held", false);
        done["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
        done["metadata"]["uid"] = json!("job-2");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {
                "name": "pod", "uid": "pod-2", "labels": {"trainyard.dev/task": TASK},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "job-2"}],
            },
            "status": {"phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            }]},
        });
        let event = |uid: &str, message: &str| {
            json!({
                "kind": "Event", "regarding": {"uid": uid}, "reason": "FailedScheduling", "type": "Warning",
                "note": message, "eventTime": "2026-01-02T00:00:01Z",
            })
        };
        let list = json!({"kind": "List", "items": [
            job("settled", false), done, pod, event("pod-2", "ours"), event("pod-1", "another's"),
        ]});
        let found = Found::of(&task("queued").id, &[list]);
        let uid = found.job.as_ref().and_then(|job| job.metadata.uid.clone());
        assert_eq!(uid.as_deref(), Some("job-2"), "the youngest");
        let messages: Vec<&str> = found.events.iter().map(|event| &*event.message).collect();
        assert_eq!(messages, ["ours"]);
        let told = |status: &str, found: &Found| {
            let now = Timestamp::UNIX_EPOCH;
            answer(
                &binding(&json!({})),
                &task(status),
                found,
                &Ok(rendered()),
                now,
            )
        };
        let waits = told("queued", &found);
        assert!(
            waits.starts_with("it is taken, and its pod does not start"),
            "{waits}"
        );
        assert!(waits.contains("nvidia.com/gpu"), "{waits}");
        assert_eq!(told("in_progress", &found), "it runs");
        let nothing = Found::default();
        assert_eq!(told("failed", &nothing), "it is failed: as told");
        assert_eq!(told("created", &nothing), "it is not enqueued");
    }
}
