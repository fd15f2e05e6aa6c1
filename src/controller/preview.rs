//! Preview: exactly the Job that a binding would make of a task, without making it; from the server and the cluster, or
//! from two files alone.

use std::fmt::Write;

use kube::{Api, ResourceExt};
use serde_json::Value;

use super::binding::Loop;
use super::cluster::find;
use super::dereference;
use super::explain::AskError;
use super::{Context, Own, Stage, foresee, images};
use crate::config::Settings;
use crate::crd::QueueBinding;
use crate::image::{Command, Finding};
use crate::render::{self, Patch, Rendered, Runs, Source, Template};
use crate::task::{Attempt, QueueId, Task, TaskId, WorkerId};

/// A Job as it would be, and what there is to say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    pub job: Value,
    /// Each field of it, with who has set it.
    pub fields: Vec<render::Field>,
    /// What the task asks for and does not get, and what was assumed.
    pub notes: Vec<String>,
    /// Why the task does not get the image that it asks for; under `imageCheck: Enforce` it is failed for that.
    pub image_refused: Option<String>,
}

/// Which binding.
#[derive(Debug, Clone, PartialEq)]
pub enum Which {
    /// The one of this name, from the cluster.
    Name(String),
    /// As it is written; the cluster is asked for its UID, if it has one of this name.
    Given(Box<QueueBinding>),
}

/// The Job of a task that is on the server.
pub async fn preview(settings: Settings, which: Which, task: &TaskId) -> Result<Preview, AskError> {
    let stage = Stage::new(settings).await?;
    let preview = preview_on(&stage, which, task).await;
    stage.end().await;
    preview
}

async fn preview_on(stage: &Stage, which: Which, task: &TaskId) -> Result<Preview, AskError> {
    let name = match &which {
        Which::Name(name) => name.clone(),
        Which::Given(binding) => binding.name_any(),
    };
    let namespace = match &which {
        Which::Given(binding) => binding.namespace(),
        Which::Name(_) => None,
    };
    let namespace = namespace
        .or_else(|| stage.namespace.clone())
        .unwrap_or_else(|| stage.context.kube.default_namespace().to_owned());
    let api: Api<QueueBinding> = Api::namespaced(stage.context.kube.clone(), &namespace);
    let there = find(api.get_opt(&name))
        .await
        .map_err(|error| AskError::List(error.to_string()))?;
    let mut notes = Vec::new();
    let binding = match (which, there) {
        (Which::Name(_), Some(binding)) => binding,
        (Which::Name(_), None) => {
            return Err(AskError::Other(format!(
                "there is no binding {name:?} in namespace {namespace:?}"
            )));
        }
        (Which::Given(mut given), there) => {
            if there.is_none() && given.metadata.uid.is_none() {
                notes.push("the binding is not in the cluster: its UID is left empty".to_owned());
            }
            given.metadata.namespace = Some(namespace);
            if let Some(there) = there {
                given.metadata.uid = there.metadata.uid;
            }
            *given
        }
    };
    if !foresee::until_sound(&stage.context).await {
        notes.push("Jobs and pods could not be listed: earlier attempts are not known".into());
    }
    let mut preview = Loop::new(stage.context.clone(), &binding)
        .job_of(&binding, task)
        .await
        .map_err(|trouble| AskError::Other(trouble.message))?;
    notes.append(&mut preview.notes);
    Ok(Preview { notes, ..preview })
}

/// What the image of this Job runs by itself, asked of its registry; nothing where that is not wanted.
pub(super) async fn own_command(
    context: &Context,
    inputs: &render::Inputs<'_>,
) -> Option<Finding<Command>> {
    if inputs.runs == Runs::Code {
        return None;
    }
    let asking = render::render(inputs);
    if asking.argv.is_some() {
        return None;
    }
    let pod = &asking.job["spec"]["template"]["spec"];
    let namespace = &inputs.binding.namespace;
    let images = &context.images;
    Some(images.command_now(namespace, pod, &asking.image).await)
}

/// What there is to say about a command that is not there to be run.
pub(super) fn of_command(rendered: &Rendered, found: Option<&Finding<Command>>) -> Option<String> {
    match (found, &rendered.argv) {
        (Some(Finding::Refused(why) | Finding::Unknown(why)), _) => Some(format!(
            "what image {} runs by itself (useEntrypoint) is not known, and the task waits for that: {why}",
            rendered.image
        )),
        (_, Some(argv)) if argv.is_empty() => Some(format!(
            "the task is failed: {}",
            images::without_command(&rendered.image)
        )),
        _ => None,
    }
}

/// The task of a document: what `tasks.get_by_id` answers, or the task in it.
pub(super) fn task_of(document: &Value) -> Result<Task, AskError> {
    let document = document.get("task").unwrap_or(document);
    serde_path_to_error::deserialize(document.clone())
        .map_err(|error| AskError::Other(format!("the task's document is not readable: {error}")))
}

/// The Job of a task document, without server and cluster: ids of queues and the binding's UID are unknown then, and
/// are zeros.
pub fn preview_offline(
    settings: Settings,
    binding: &QueueBinding,
    document: &Value,
) -> Result<Preview, AskError> {
    let own = Own::of(settings);
    let task = task_of(document)?;
    let source = match (&binding.spec.template, &binding.spec.template_ref) {
        (_, Some(_)) => {
            return Err(AskError::Other(
                "the template is in a ConfigMap (spec.templateRef): give the task's id instead of a file, so that the cluster is asked".into(),
            ));
        }
        (Some(template), None) => Source::Inline(template),
        (None, None) => Source::BuiltIn,
    };
    let first = binding.spec.queues.first();
    let use_entrypoint = first.is_some_and(|queue| queue.use_entrypoint);
    let patch = first.and_then(|queue| {
        let value = queue.template_patch.as_ref()?;
        Some(Patch { queue: 0, value })
    });
    let template = Template::check(source, patch, &binding.spec, own.default_image.as_deref())
        .map_err(|errors| {
            let mut text = String::from("the template is refused");
            for error in errors.iter().take(5) {
                let _ = write!(text, "; {error}");
            }
            AskError::Other(text)
        })?;
    let zero: QueueId = "0"
        .repeat(32)
        .parse()
        .map_err(|_| AskError::Other("no id".into()))?;
    let name = binding
        .spec
        .queues
        .first()
        .map(|queue| queue.name.clone())
        .unwrap_or_default();
    let queue = render::Queue {
        id: task
            .execution
            .queue
            .parse()
            .unwrap_or_else(|_| zero.clone()),
        name,
    };
    let identity = super::binding::identity(&own.worker, binding);
    let worker = WorkerId::of_attempt(&identity.worker, &task.id, Attempt::FIRST);
    let server = dereference::assumed(binding, own.server.as_ref())
        .map_err(|trouble| AskError::Other(trouble.message))?;
    let inputs = render::Inputs {
        binding: &super::rendered_binding(binding),
        spec: &binding.spec,
        template: &template,
        task: &task,
        attempt: Attempt::FIRST,
        queue: &queue,
        pending_queue: &zero,
        project_name: "",
        worker: &worker,
        server: &server,
        settings: &own.images,
        returned: false,
        failures: 0,
        avoid_nodes: &[],
        holding_nodes: &[],
        remark: None,
        runs: images::runs(use_entrypoint, None),
    };
    let rendered = render::render(&inputs);
    let mut notes = vec![
        "made from files alone: ids of queues, names of projects and earlier attempts are not known"
            .to_owned(),
    ];
    if use_entrypoint && rendered.argv.is_none() {
        notes.push(format!(
            "what image {} runs by itself (useEntrypoint) is asked of its registry, and left out here",
            rendered.image
        ));
    }
    notes.extend(rendered.notes);
    Ok(Preview {
        fields: render::origins(&rendered.job, &inputs, patch.map(|patch| patch.value)),
        job: rendered.job,
        notes,
        image_refused: rendered.image_refused,
    })
}
