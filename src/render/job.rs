//! `render`: the Job of one attempt.

use serde_json::{Map, Value, json};

use super::cache::EnvironmentKey;
use super::entrypoint::Runs;
use super::fields::{at, items, list, object};
use super::names::{JobName, LabelValue};
use super::notes::{Notes, shorten};
use super::resources::pod_requests;
use super::template::Template;
use super::volumes::Volume;
use super::wishes::Wishes;
use super::{affinity, containers, docker, environment, image, overlay, volumes};
use crate::crd::{FileRef, GROUP, QueueBindingSpec, Resources};
use crate::pod::{self, annotation, component, label};
use crate::task::{Attempt, QueueId, Task, WorkerId};

/// What is rendered from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub binding: &'a Binding,
    pub spec: &'a QueueBindingSpec,
    pub template: &'a Template,
    pub task: &'a Task,
    pub attempt: Attempt,
    /// The queue that the task was offered in.
    pub queue: &'a Queue,
    /// The binding's pending queue.
    pub pending_queue: &'a QueueId,
    /// Name of the task's project; empty if it is not known.
    pub project_name: &'a str,
    /// Worker id of this attempt.
    pub worker: &'a WorkerId,
    pub server: &'a Server,
    pub settings: &'a Settings,
    /// Whether the task carries a reason of ours (claim rule 5).
    pub returned: bool,
    /// How many attempts in a row before this one failed by their own fault.
    pub failures: u32,
    /// Nodes of earlier attempts, to be avoided if others have room.
    pub avoid_nodes: &'a [String],
    /// Nodes whose cache holds the task's environment, to be preferred if they have room.
    pub holding_nodes: &'a [String],
    /// What else there is to tell in the task's log.
    pub remark: Option<&'a str>,
    /// What the task's container runs.
    pub runs: Runs<'a>,
}

impl Inputs<'_> {
    /// Which environment the task runs with, if it runs with one of ours and that matters.
    pub(super) fn environment(&self) -> Option<EnvironmentKey> {
        (self.runs == Runs::Code)
            .then(|| EnvironmentKey::of(self.template, self.spec, self.task))
            .flatten()
    }

    /// What runs instead of the task's code, as far as it is known.
    pub(super) fn argv(&self) -> Option<Vec<String>> {
        self.runs.argv(self.template.container()?)
    }
}

/// The binding that a Job belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

/// A served queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub id: QueueId,
    pub name: String,
}

/// The server as pods reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub api_url: String,
    pub web_url: Option<String>,
    pub files_url: Option<String>,
    /// Secret in the binding's namespace with the keys of `pod::ACCESS_KEY_KEY` and `pod::SECRET_KEY_KEY`.
    pub credentials_secret: String,
    pub ca_bundle: Option<FileRef>,
    /// The HTTP proxy on the way to it.
    pub proxy: Option<String>,
}

/// What the controller says about its own images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of `prepare` and `uplink`.
    pub image: String,
    pub image_pull_policy: Option<String>,
    /// Pull secrets that are added to each pod.
    pub image_pull_secrets: Vec<String>,
}

/// A Job, and what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub name: JobName,
    /// The Job as JSON, every field of the template in it; suspended, state `intent`.
    pub job: Value,
    /// What is told in the task's log; the pod gets it too and tells it after the fence.
    pub notes: Vec<String>,
    pub image: String,
    /// Why the image that the task asks for is not allowed, if so.
    pub image_refused: Option<String>,
    /// What its pod requests of a node; also an annotation of the Job.
    pub requests: Resources,
    /// What runs instead of the task's code (`useEntrypoint`); nothing where it is the code, and where the image's own
    /// command has to be known first.
    pub argv: Option<Vec<String>>,
}

impl Rendered {
    /// The same Job for a task of which so many attempts in a row before this one ended in a requeue.
    #[must_use]
    pub fn with_requeues(mut self, requeues: u32) -> Self {
        self.job["metadata"]["annotations"][annotation::REQUEUES] = json!(requeues.to_string());
        self
    }

    /// The same Job, taken at this turn.
    #[must_use]
    pub fn with_turn(mut self, turn: &str) -> Self {
        self.job["metadata"]["annotations"][annotation::TURN] = json!(turn);
        self
    }
}

/// The longest name that is kept as an annotation, in bytes.
const LONGEST_NAME: usize = 512;

/// The Job of one attempt. Equal inputs give equal Jobs.
pub fn render(inputs: &Inputs<'_>) -> Rendered {
    let Inputs {
        template,
        spec,
        task,
        ..
    } = *inputs;
    let mut notes = Notes::default();
    if inputs.runs == Runs::Code && template.container().is_some_and(has_command) {
        notes.add("command and args of the template's task container are replaced by the executor");
    }
    for note in &template.notes {
        notes.add(note.clone());
    }
    let (image, image_refused) = match image::choose(template, spec, task) {
        Ok(image) => (image, None),
        Err(refusal) => (template.image.clone(), Some(refusal)),
    };
    if let Some(refusal) = &image_refused {
        notes.add(image::refused_note(refusal, template));
    }
    if let Some(remark) = inputs.remark {
        notes.add(remark);
    }
    let raw = Value::Object(template.spec.clone());
    let container = items(&raw, &["containers"])[template.task].clone();
    let wishes = wishes(inputs, &raw, &container, &mut notes);
    if !task.container.setup_shell_script.trim().is_empty() && !spec.overrides.setup_script {
        notes.add(
            "the setup script of the task's container is refused \
             (hint: the binding's overrides.setupScript allows it)",
        );
    }
    let mut pod_spec = template.spec.clone();
    let volumes = volumes::of(inputs, wishes.shm_size);
    let mut fields = container.as_object().cloned().unwrap_or_default();
    overlay::on_container(&mut fields, &wishes);
    let user = containers::user(&pod_spec, &Value::Object(fields.clone()));
    let proxies = environment::proxies(&fields);
    let container = containers::task(fields, &image, &wishes.env, &volumes, inputs, &mut notes);
    let notes = notes.into_lines();
    list(&mut pod_spec, "containers")[template.task] = container;
    let limited = containers::storage_is_limited(&pod_spec);
    let prepare = containers::prepare(inputs, user, &volumes, &proxies, &notes, limited);
    let uplink = containers::uplink(inputs, user, &volumes, &proxies, limited);
    list(&mut pod_spec, "initContainers").extend([prepare, uplink]);
    overlay::on_pod(&mut pod_spec, &wishes);
    pod_fields(&mut pod_spec, inputs, volumes);
    let pod_spec = Value::Object(pod_spec);
    let requests = pod_requests(&pod_spec);
    let name = JobName::of(&task.id, inputs.attempt);
    let job = job(inputs, &name, &pod_spec, &requests);
    Rendered {
        name,
        job,
        notes,
        image,
        image_refused,
        requests,
        argv: inputs.argv(),
    }
}

fn has_command(container: &Value) -> bool {
    ["command", "args"]
        .iter()
        .any(|field| at(container, &[field]).is_some())
}

/// What the task asks for and the binding allows.
fn wishes(inputs: &Inputs<'_>, pod: &Value, container: &Value, notes: &mut Notes) -> Wishes {
    let overrides = &inputs.spec.overrides;
    let mut wishes = Wishes::default();
    let reader = docker::Reader {
        overrides,
        pod,
        container,
    };
    reader.read(&inputs.task.container.arguments, &mut wishes, notes);
    wishes.read_parameters(inputs.task, overrides, notes);
    let mounted = |path: &str| {
        containers::mounts(container, path) || wishes.volumes.iter().any(|extra| extra.path == path)
    };
    if wishes.shm_size.is_some() && mounted("/dev/shm") {
        notes.add(
            "container argument --shm-size is not honoured: something is mounted at /dev/shm already",
        );
        wishes.shm_size = None;
    }
    wishes
}

/// The Pod that the Job would make, for a strict dry run: the API server judges a template only as a Pod.
pub fn dry_run_pod(rendered: &Rendered) -> Value {
    let mut metadata = rendered.job["spec"]["template"]["metadata"].clone();
    metadata["generateName"] = json!("trainyard-dry-run-");
    metadata["namespace"] = rendered.job["metadata"]["namespace"].clone();
    let spec = &rendered.job["spec"]["template"]["spec"];
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// The fields of the pod beside its containers.
fn pod_fields(spec: &mut Map<String, Value>, inputs: &Inputs<'_>, volumes: Vec<Volume>) {
    let sources = volumes.into_iter().map(|volume| volume.source);
    list(spec, "volumes").extend(sources.filter(|source| !source.is_null()));
    let pull_secrets = &inputs.settings.image_pull_secrets;
    if !pull_secrets.is_empty() {
        let secrets = list(spec, "imagePullSecrets");
        let added: Vec<Value> = pull_secrets
            .iter()
            .map(|name| json!({ "name": name }))
            .collect();
        let new: Vec<Value> = added
            .into_iter()
            .filter(|secret| !secrets.contains(secret))
            .collect();
        secrets.extend(new);
    }
    let grace = environment::pod_grace_seconds(inputs);
    spec.insert("terminationGracePeriodSeconds".into(), json!(grace));
    spec.insert("restartPolicy".into(), json!("Never"));
    spec.insert(
        "serviceAccountName".into(),
        json!(inputs.template.service_account),
    );
    spec.insert("automountServiceAccountToken".into(), json!(false));
    affinity::lay(spec, inputs);
}

fn job(inputs: &Inputs<'_>, name: &JobName, pod_spec: &Value, requests: &Resources) -> Value {
    let mut pod_metadata = inputs.template.metadata.clone();
    let pod_labels = object(&mut pod_metadata, "labels");
    let [app, instance, managed_by, component] = app_labels(inputs);
    for (key, value) in [app, instance] {
        // The template may have names of its own; nothing of ours selects by these two.
        pod_labels.entry(key).or_insert(value);
    }
    pod_labels.extend([managed_by, component]);
    pod_labels.extend(own_labels(inputs));
    let pod_annotations = object(&mut pod_metadata, "annotations");
    pod_annotations.insert(
        "kubectl.kubernetes.io/default-container".into(),
        json!(inputs.template.task_container()),
    );
    pod_annotations.extend(name_annotations(inputs));

    let mut spec = json!({
        "suspend": true,
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "podReplacementPolicy": "Failed",
        "template": { "metadata": pod_metadata, "spec": pod_spec },
    });
    if let Some(seconds) = inputs.spec.job.active_deadline_seconds {
        spec["activeDeadlineSeconds"] = json!(seconds);
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name.as_str(),
            "namespace": inputs.binding.namespace,
            "labels": job_labels(inputs),
            "annotations": job_annotations(inputs, requests),
            "ownerReferences": [{
                "apiVersion": format!("{GROUP}/v1alpha1"),
                "kind": "QueueBinding",
                "name": inputs.binding.name,
                "uid": inputs.binding.uid,
                "controller": true,
                "blockOwnerDeletion": false,
            }],
        },
        "spec": spec,
    })
}

fn job_labels(inputs: &Inputs<'_>) -> Map<String, Value> {
    let mut labels: Map<String, Value> = inputs
        .spec
        .job
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    labels.extend(app_labels(inputs));
    labels.extend(own_labels(inputs));
    labels.insert(label::STATE.into(), json!(pod::state::INTENT));
    labels
}

fn job_annotations(inputs: &Inputs<'_>, requests: &Resources) -> Map<String, Value> {
    let mut annotations: Map<String, Value> = inputs
        .spec
        .job
        .annotations
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    annotations.extend(name_annotations(inputs));
    annotations.insert(annotation::TEMPLATE.into(), json!(inputs.template.hash()));
    annotations.insert(annotation::REQUESTS.into(), json!(requests.to_annotation()));
    if let Some(key) = inputs.environment() {
        annotations.insert(annotation::ENVIRONMENT.into(), json!(key.to_string()));
    }
    if inputs.returned {
        annotations.insert(annotation::RETURNED.into(), json!("true"));
    }
    if inputs.failures > 0 {
        let failures = inputs.failures.to_string();
        annotations.insert(annotation::FAILURES.into(), json!(failures));
    }
    annotations
}

/// The labels that Kubernetes recommends.
pub(super) fn app_labels(inputs: &Inputs<'_>) -> [(String, Value); 4] {
    [
        ("app.kubernetes.io/name".into(), json!("trainyard")),
        (
            "app.kubernetes.io/instance".into(),
            label_value(&inputs.binding.name),
        ),
        ("app.kubernetes.io/managed-by".into(), json!("trainyard")),
        (component::LABEL.into(), json!(component::TASK)),
    ]
}

/// Our labels, on Jobs and pods; ids as values. What is not known is left out.
pub(super) fn own_labels(inputs: &Inputs<'_>) -> impl Iterator<Item = (String, Value)> {
    let task = inputs.task;
    let labels = [
        (label::TASK, label_value(task.id.as_str())),
        (label::ATTEMPT, json!(inputs.attempt.to_string())),
        (label::BINDING, label_value(&inputs.binding.name)),
        (label::QUEUE, label_value(inputs.queue.id.as_str())),
        (label::PROJECT, label_value(&task.project)),
        (label::USER, label_value(&task.user)),
        (label::PARENT, label_value(&task.parent)),
    ];
    labels
        .into_iter()
        .filter(|(_, value)| value != "")
        .map(|(key, value)| (key.to_owned(), value))
}

/// Names, which are no label values.
fn name_annotations(inputs: &Inputs<'_>) -> impl Iterator<Item = (String, Value)> {
    let names = [
        (annotation::TASK_NAME, inputs.task.name.as_str()),
        (annotation::QUEUE_NAME, inputs.queue.name.as_str()),
        (annotation::PROJECT_NAME, inputs.project_name),
    ];
    names
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(key, name)| (key.to_owned(), json!(shorten(name, LONGEST_NAME))))
}

fn label_value(text: &str) -> Value {
    json!(LabelValue::of(text).as_str())
}

/// The requests that a Job carries as an annotation; [`Rendered::requests`] of an observed Job.
pub fn requests_of(job: &Value) -> Option<Resources> {
    let text = at(job, &["metadata", "annotations", annotation::REQUESTS])?.as_str()?;
    Resources::from_annotation(text).ok()
}
