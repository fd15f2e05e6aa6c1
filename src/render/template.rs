//! The pod template of a binding: checked once, then carried as a type that cannot be wrong.
//!
//! Only what we touch or rely on is checked, in [`super::check`]. Every other field is the API server's to judge, by a strict dry run
//! of [`super::dry_run_pod`], so that fields of newer Kubernetes versions work.

use std::fmt;

use serde_json::{Map, Value, json};

use super::check::Check;
use super::fields::text;
use super::merge::merge;
use crate::crd::QueueBindingSpec;
use crate::pod;

/// Where a template comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// None was given.
    BuiltIn,
    /// `spec.template`.
    Inline(&'a Value),
    /// `spec.templateRef`, read from the ConfigMap and parsed by [`parse_yaml`].
    ConfigMap {
        name: &'a str,
        key: &'a str,
        value: &'a Value,
    },
}

/// What a queue changes of the template (`spec.queues[].templatePatch`).
#[derive(Debug, Clone, Copy)]
pub struct Patch<'a> {
    /// Place of the queue in `spec.queues`.
    pub queue: usize,
    pub value: &'a Value,
}

/// What is wrong with a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TemplateError {
    /// Path of the field, such as `spec.template.spec.containers[1].name`.
    pub path: String,
    /// One sentence.
    pub message: String,
}

/// A template that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub(super) metadata: Map<String, Value>,
    pub(super) spec: Map<String, Value>,
    /// Place of the container that runs the experiment in `spec.containers`.
    pub(super) task: usize,
    /// Image of that container, or the controller's default.
    pub(super) image: String,
    pub(super) service_account: String,
    pub(super) notes: Vec<String>,
    pub(super) hash: String,
}

impl Template {
    /// Checks a template with the patch of a queue laid over it; the errors name fields by their path in the binding
    /// or in the ConfigMap.
    pub fn check(
        source: Source<'_>,
        patch: Option<Patch<'_>>,
        spec: &QueueBindingSpec,
        default_image: Option<&str>,
    ) -> Result<Self, Vec<TemplateError>> {
        let built_in = json!({});
        let (root, raw) = match source {
            Source::BuiltIn => ("spec.template".to_owned(), &built_in),
            Source::Inline(value) => ("spec.template".to_owned(), value),
            Source::ConfigMap { name, key, value } => (
                format!("spec.templateRef (ConfigMap {name:?}, key {key:?}): template"),
                value,
            ),
        };
        let merged;
        let (root, raw) = match patch {
            None => (root, raw),
            Some(Patch { queue, value }) => {
                let path = format!("spec.queues[{queue}].templatePatch");
                merged = merge(raw, value, &path)
                    .map_err(|(path, message)| vec![TemplateError { path, message }])?;
                (format!("{path} over {root}"), &merged)
            }
        };
        let mut check = Check::default();
        let template = check.template(&root, raw, spec, default_image);
        match template {
            Some(template) if check.errors.is_empty() => Ok(template),
            _ => Err(check.errors),
        }
    }

    /// A hash of all that the template says: one dry run for each.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Name of the container that runs the experiment.
    pub fn task_container(&self) -> &str {
        self.container()
            .and_then(|c| text(c, &["name"]))
            .unwrap_or(pod::TASK)
    }

    /// That container, as it is written.
    pub(super) fn container(&self) -> Option<&Value> {
        self.spec.get("containers")?.get(self.task)
    }
}

/// A queue's patch merged over a template as the API server does it; the error says where and what.
pub fn merge_templates(template: &Value, patch: &Value) -> Result<Value, TemplateError> {
    merge(template, patch, "templatePatch")
        .map_err(|(path, message)| TemplateError { path, message })
}

/// Reads YAML as kubectl does, also what JSON is; the error names the line.
pub fn parse_yaml(yaml: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options::<Value>(yaml, options).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or("is not YAML").to_owned()
    })
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template {}", self.hash)
    }
}
