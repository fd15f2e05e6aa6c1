//! Validate: the template of a binding, by our own check and by the API server's strict dry run, once for each hash.

mod checked;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::{self, call};
use super::fault;
use super::observe::Identity;
use super::status::{FIELD_MANAGER, Trouble};
use super::{Context, dereference};
use crate::crd::{FileKind, FileRef, Quantity, QueueBinding, QueueSpec, condition};
use crate::render::{self, Patch, Source, Template};
use crate::task::{Attempt, QueueId, Task, WorkerId};
pub(super) use checked::Checked;
use checked::{Verdicts, refusals};

/// How often a ConfigMap with a template is read again, and a refused template is judged again: what it refers to
/// (service account, policy, quota) may have changed.
const AGAIN: Duration = Duration::from_secs(30);
/// How often a ConfigMap is read again whose template was refused: somebody may be mending it.
const MENDED: Duration = Duration::from_secs(5);

/// Reason while there is no verdict.
pub(super) const NOT_JUDGED: &str = "NotJudged";

/// The template of each queue with the verdict on it, by the queue's place in the binding.
#[derive(Debug, Clone)]
pub(super) struct Templates {
    of_queue: Vec<Result<Arc<Template>, Trouble>>,
}

impl Templates {
    /// The template of the queue at this place; nothing if it was refused or not judged.
    pub fn of(&self, place: usize) -> Option<&Arc<Template>> {
        self.of_queue.get(place)?.as_ref().ok()
    }

    /// Whether nothing at all can be taken.
    pub fn none(&self) -> bool {
        self.of_queue.iter().all(Result::is_err)
    }

    /// What there is to say about the templates: their hashes, or what is wrong with them.
    pub fn verdict(&self, queues: &[QueueSpec]) -> Result<String, Trouble> {
        let refused: Vec<(usize, &Trouble)> = self
            .of_queue
            .iter()
            .enumerate()
            .filter_map(|(place, verdict)| Some((place, verdict.as_ref().err()?)))
            .collect();
        let is_refusal = |trouble: &Trouble| trouble.reason != NOT_JUDGED;
        let Some((_, first)) = refused
            .iter()
            .find(|(_, trouble)| is_refusal(trouble))
            .or(refused.first())
        else {
            let mut hashes: Vec<String> = self
                .of_queue
                .iter()
                .flatten()
                .map(ToString::to_string)
                .collect();
            hashes.sort();
            hashes.dedup();
            return Ok(hashes.join(", "));
        };
        // One fault of all of them is told once, that of some with the queues that it holds up.
        let same = refused.len() == self.of_queue.len()
            && refused
                .iter()
                .all(|(_, trouble)| trouble.message == first.message);
        if same {
            return Err((*first).clone());
        }
        let name = |place: usize| queues.get(place).map_or("", |queue| queue.name.as_str());
        let sentences: Vec<String> = refused
            .iter()
            .filter(|(_, trouble)| is_refusal(trouble) == is_refusal(first))
            .take(5)
            .map(|(place, trouble)| format!("queue {:?}: {}", name(*place), trouble.message))
            .collect();
        let others = if refused.len() < self.of_queue.len() {
            "; the other queues are served"
        } else {
            ""
        };
        Err(Trouble::new(
            first.condition,
            first.reason,
            format!("{}{others}", sentences.join("; ")),
        ))
    }
}

/// The binding's templates. Judged again when they change, or from time to time if one was refused.
pub(super) async fn validate(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    server: Option<&render::Server>,
    checked: &mut Option<Checked>,
) -> Arc<Templates> {
    let now = Instant::now();
    let generation = binding.metadata.generation.unwrap_or_default();
    let made_from = format!("{generation}/{}", server.is_some());
    if let Some(known) = checked
        .as_ref()
        .filter(|known| known.made_from == made_from && now < known.next)
    {
        return known.templates.clone();
    }
    let before = checked.as_ref();
    let mut judged = before
        .map(|before| before.verdicts(&made_from, now))
        .unwrap_or_default();
    let templates = judge(context, binding, identity, server, &mut judged).await;
    let next = now + holds_for(&templates, binding.spec.template_ref.is_some());
    let before = checked.take();
    let before = before.map(|before| before.refusals).unwrap_or_default();
    let templates = Arc::new(templates);
    *checked = Some(Checked {
        made_from,
        next,
        templates: templates.clone(),
        refusals: refusals(judged, &before, now),
    });
    templates
}

/// How long these verdicts stand.
fn holds_for(templates: &Templates, is_in_map: bool) -> Duration {
    let verdicts = || templates.of_queue.iter();
    let undecided = verdicts()
        .filter_map(|verdict| verdict.as_ref().err())
        .any(|trouble| trouble.reason == NOT_JUDGED);
    let accepted = verdicts().all(Result::is_ok);
    match (accepted, is_in_map) {
        (false, _) if undecided => AGAIN / 10,
        (false, true) => MENDED,
        // A template that is written in the binding changes with its generation alone.
        (true, false) => AGAIN * 20,
        (true, true) | (false, false) => AGAIN,
    }
}

fn refused(reason: &'static str, message: String) -> Trouble {
    Trouble::new(condition::TEMPLATE_VALID, reason, message)
}

/// The template that a ConfigMap holds, if the binding names one.
async fn from_map(context: &Context, binding: &QueueBinding) -> Result<Option<Value>, Trouble> {
    let Some(reference) = &binding.spec.template_ref else {
        return Ok(None);
    };
    let file = FileRef {
        kind: FileKind::ConfigMap,
        name: reference.name.clone(),
        key: reference.key.clone(),
    };
    let namespace = binding.namespace().unwrap_or_default();
    let (bytes, _) = dereference::file(context, &namespace, &file)
        .await
        .map_err(|message| refused("TemplateMissing", format!("spec.templateRef: {message}")))?;
    let value = render::parse_yaml(&String::from_utf8_lossy(&bytes)).map_err(|message| {
        refused(
            "NotYaml",
            format!(
                "spec.templateRef: key {:?} of ConfigMap {:?}: {message}",
                file.key, file.name
            ),
        )
    })?;
    Ok(Some(value))
}

/// A dry run once for each hash: not of what is judged already, and what it says is added to that.
async fn judge(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    server: Option<&render::Server>,
    judged: &mut Verdicts,
) -> Templates {
    let queues = &binding.spec.queues;
    let of_all = |trouble: Trouble| Templates {
        of_queue: queues.iter().map(|_| Err(trouble.clone())).collect(),
    };
    let from_map = match from_map(context, binding).await {
        Ok(value) => value,
        Err(trouble) => return of_all(trouble),
    };
    let source = match (
        &from_map,
        &binding.spec.template_ref,
        &binding.spec.template,
    ) {
        (Some(value), Some(reference), _) => Source::ConfigMap {
            name: &reference.name,
            key: &reference.key,
            value,
        },
        (_, _, Some(template)) => Source::Inline(template),
        _ => Source::BuiltIn,
    };
    let mut of_queue = Vec::new();
    for (place, queue) in queues.iter().enumerate() {
        let patch = queue.template_patch.as_ref().map(|value| Patch {
            queue: place,
            value,
        });
        let template = match check(context, binding, source, patch) {
            Ok(template) => template,
            Err(trouble) => {
                of_queue.push(Err(trouble));
                continue;
            }
        };
        // Without a server there is nothing to render with; the dry run follows when there is one.
        let Some(server) = server else {
            let message = "the template is judged when the server is known";
            of_queue.push(Err(refused(NOT_JUDGED, message.into())));
            continue;
        };
        if !judged.contains_key(template.hash()) {
            let pod = pod(context, binding, identity, server, &template);
            let verdict = accepted(context, &pod, patch.is_some()).await;
            judged.insert(template.hash().to_owned(), verdict);
        }
        of_queue.push(match judged.get(template.hash()) {
            Some(Err(trouble)) => Err(trouble.clone()),
            _ => Ok(Arc::new(template)),
        });
    }
    Templates { of_queue }
}

/// Our own check.
fn check(
    context: &Context,
    binding: &QueueBinding,
    source: Source<'_>,
    patch: Option<Patch<'_>>,
) -> Result<Template, Trouble> {
    let default_image = context.settings.default_image.as_deref();
    Template::check(source, patch, &binding.spec, default_image).map_err(|errors| {
        let lines: Vec<String> = errors.iter().take(5).map(ToString::to_string).collect();
        refused("Invalid", lines.join("; "))
    })
}

/// The API server's judgement of the pod of a template.
async fn accepted(context: &Context, pod: &Value, patched: bool) -> Result<(), Trouble> {
    dry_run(context, pod)
        .await
        .map_err(|(reason, mut message)| {
            // The API server names the field, but for amounts that it cannot read.
            if let Some(amount) = unreadable_amount(&pod["spec"], "spec.template.spec") {
                message = format!("{amount}, no amount such as 500m or 64Gi: {message}");
            }
            let of = if patched {
                "spec.template with the queue's templatePatch"
            } else {
                "spec.template"
            };
            refused(
                reason,
                format!("the API server refuses pods of {of}: {message}"),
            )
        })
}

/// The pod of a task that asks for nothing.
fn pod(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    server: &render::Server,
    template: &Template,
) -> Value {
    let id = "0".repeat(32);
    let (Ok(task), Ok(queue_id)) = (
        serde_json::from_value::<Task>(json!({"id": id})),
        id.parse::<QueueId>(),
    ) else {
        return Value::Null;
    };
    let rendered = render::render(&render::Inputs {
        binding: &super::rendered_binding(binding),
        spec: &binding.spec,
        template,
        task: &task,
        attempt: Attempt::FIRST,
        queue: &render::Queue {
            id: queue_id.clone(),
            name: "dry-run".into(),
        },
        pending_queue: &queue_id,
        project_name: "",
        worker: &WorkerId::of_attempt(&identity.worker, &task.id, Attempt::FIRST),
        server,
        settings: &context.settings.images,
        returned: false,
        failures: 0,
        avoid_nodes: &[],
        holding_nodes: &[],
        remark: None,
        // What it runs is judged by nobody in the cluster.
        runs: render::Runs::Code,
    });
    render::dry_run_pod(&rendered)
}

/// Path and text of the first amount of a resource that is none. The API server refuses it without saying which one it is.
fn unreadable_amount(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, inner)| {
            let path = format!("{path}.{name}");
            match (name.as_str(), inner) {
                ("limits" | "requests" | "overhead", Value::Object(amounts)) => {
                    amounts.iter().find_map(|(name, amount)| {
                        let text = amount
                            .as_str()
                            .map_or_else(|| amount.to_string(), str::to_owned);
                        text.parse::<Quantity>()
                            .is_err()
                            .then(|| format!("{path}[{name:?}] is {text:?}"))
                    })
                }
                _ => unreadable_amount(inner, &path),
            }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, inner)| unreadable_amount(inner, &format!("{path}[{index}]"))),
        _ => None,
    }
}

/// The API server's own judgement of a pod: unknown fields, wrong values, policies. A full quota is no fault of it.
async fn dry_run(context: &Context, pod: &Value) -> Result<(), (&'static str, String)> {
    match admitted(context, pod).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_quota() => Ok(()),
        Err(error) if error.is_verdict() => Err(("RefusedByCluster", error.to_string())),
        Err(error) => Err((NOT_JUDGED, error.to_string())),
    }
}

/// Whether the cluster would take a pod of this template now, quotas included.
pub(super) async fn takes_pods(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    server: &render::Server,
    template: &Template,
) -> bool {
    let pod = pod(context, binding, identity, server, template);
    admitted(context, &pod).await.is_ok()
}

async fn admitted(context: &Context, pod: &Value) -> Result<(), cluster::Error> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict&fieldManager={FIELD_MANAGER}"
    );
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(pod.to_string().into_bytes())
        .map_err(|error| cluster::Error::Transport(error.to_string()))?;
    let answer = call(context.kube.request::<Value>(request)).await;
    fault::point!("template/dry-run");
    answer.map(drop)
}

#[cfg(test)]
mod tests;
