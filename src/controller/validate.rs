//! Validate: the template of a binding, by our own check and by the API server's strict dry run, once for each hash.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::call;
use super::observe::Identity;
use super::status::{FIELD_MANAGER, Trouble};
use super::{Context, dereference};
use crate::crd::{FileKind, FileRef, Quantity, QueueBinding, condition};
use crate::render::{self, Source, Template};
use crate::task::{Attempt, QueueId, Task, WorkerId};

/// How often a ConfigMap with a template is read again, and a refused template is judged again: what it refers to
/// (service account, policy, quota) may have changed.
const AGAIN: Duration = Duration::from_secs(30);

/// Reason while there is no verdict.
pub(super) const NOT_JUDGED: &str = "NotJudged";

/// A template with the verdict on it.
#[derive(Debug)]
pub(super) struct Checked {
    made_from: String,
    next: Instant,
    verdict: Result<Arc<Template>, Trouble>,
}

/// The binding's template, if it can be used. Judged again when it changes, or from time to time if it was refused.
pub(super) async fn validate(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    server: Option<&render::Server>,
    checked: &mut Option<Checked>,
) -> Result<Arc<Template>, Trouble> {
    let now = Instant::now();
    let generation = binding.metadata.generation.unwrap_or_default();
    let prefix = format!("{generation}/{}/", server.is_some());
    if let Some(known) = checked
        .as_ref()
        .filter(|known| known.made_from.starts_with(&prefix) && now < known.next)
    {
        return known.verdict.clone();
    }
    let verdict = judge(context, binding, identity, server, checked.as_ref()).await;
    let made_from = match &verdict {
        Ok(template) => format!("{prefix}{}", template.hash()),
        Err(_) => prefix,
    };
    let fixed = verdict.is_ok() && binding.spec.template_ref.is_none();
    let undecided = matches!(&verdict, Err(trouble) if trouble.reason == NOT_JUDGED);
    // A template that is written in the binding changes with its generation alone.
    let next = now
        + if fixed {
            AGAIN * 20
        } else if undecided {
            AGAIN / 10
        } else {
            AGAIN
        };
    *checked = Some(Checked {
        made_from,
        next,
        verdict: verdict.clone(),
    });
    verdict
}

async fn judge(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    server: Option<&render::Server>,
    before: Option<&Checked>,
) -> Result<Arc<Template>, Trouble> {
    let refused =
        |reason, message: String| Trouble::new(condition::TEMPLATE_VALID, reason, message);
    let from_map = match &binding.spec.template_ref {
        None => None,
        Some(reference) => {
            let file = FileRef {
                kind: FileKind::ConfigMap,
                name: reference.name.clone(),
                key: reference.key.clone(),
            };
            let namespace = binding.namespace().unwrap_or_default();
            let (bytes, _) = dereference::file(context, &namespace, &file)
                .await
                .map_err(|message| {
                    refused("TemplateMissing", format!("spec.templateRef: {message}"))
                })?;
            let value =
                render::parse_template(&String::from_utf8_lossy(&bytes)).map_err(|message| {
                    refused(
                        "NotYaml",
                        format!(
                            "spec.templateRef: key {:?} of ConfigMap {:?}: {message}",
                            file.key, file.name
                        ),
                    )
                })?;
            Some((reference, value))
        }
    };
    let source = match (&from_map, &binding.spec.template) {
        (Some((reference, value)), _) => Source::ConfigMap {
            name: &reference.name,
            key: &reference.key,
            value,
        },
        (None, Some(template)) => Source::Inline(template),
        (None, None) => Source::BuiltIn,
    };
    let template = Template::check(
        source,
        &binding.spec,
        context.settings.default_image.as_deref(),
    )
    .map_err(|errors| {
        let lines: Vec<String> = errors.iter().take(5).map(ToString::to_string).collect();
        refused("Invalid", lines.join("; "))
    })?;
    let template = Arc::new(template);
    // Without a server there is nothing to render with; the dry run follows when there is one.
    let Some(server) = server else {
        return Err(refused(
            NOT_JUDGED,
            "the template is judged when the server is known".into(),
        ));
    };
    let judged_before = before
        .and_then(|known| known.verdict.as_ref().ok())
        .is_some_and(|known| known.hash() == template.hash());
    if !judged_before {
        let pod = pod(context, binding, identity, server, &template);
        dry_run(context, &pod)
            .await
            .map_err(|(reason, mut message)| {
                // The API server names the field, but for amounts that it cannot read.
                if let Some(path) = unreadable_amount(&pod["spec"], "spec.template.spec") {
                    message = format!("{path} is no amount such as 500m or 64Gi: {message}");
                }
                refused(
                    reason,
                    format!("the API server refuses pods of spec.template: {message}"),
                )
            })?;
    }
    Ok(template)
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
        avoid_nodes: &[],
    });
    render::dry_run_pod(&rendered)
}

/// Path of the first amount of a resource that is none. The API server refuses it without saying which one it is.
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
                            .then(|| format!("{path}[{name:?}]"))
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
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = format!(
        "/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict&fieldManager={FIELD_MANAGER}"
    );
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(pod.to_string().into_bytes())
        .map_err(|error| (NOT_JUDGED, error.to_string()))?;
    match call(context.kube.request::<Value>(request)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_quota() => Ok(()),
        Err(error) if error.is_verdict() => Err(("RefusedByCluster", error.to_string())),
        Err(error) => Err((NOT_JUDGED, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_that_is_none_is_found_with_its_path() {
        let pod = json!({"containers": [
            {"name": "a", "resources": {"limits": {"cpu": 2, "memory": "64Mi"}}},
            {"name": "b", "resources": {"requests": {"nvidia.com/gpu": "one"}}},
        ]});
        assert_eq!(
            unreadable_amount(&pod, "spec").unwrap(),
            r#"spec.containers[1].resources.requests["nvidia.com/gpu"]"#
        );
        assert_eq!(unreadable_amount(&pod["containers"][0], "x"), None);
    }
}
