//! Where each field of a Job comes from, for `trainyard render --origin`.
//!
//! A field is the task's where the same task without its wishes would get another value or none. Else it is of the
//! document that has it as it is: the queue's patch, the template, the binding's `spec.job`; else trainyard's own.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::job::{Inputs, render};
use super::merge::key_of;
use crate::task::Container;

/// Who has set a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The binding's template, or the built-in one.
    Template,
    /// `templatePatch` of the queue.
    QueuePatch,
    /// `spec.job` of the binding.
    BindingJob,
    /// What the task asks for, and what follows from it.
    Task,
    /// trainyard itself, as the binding's other fields and the settings say.
    Trainyard,
}

impl Origin {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::QueuePatch => "queue's templatePatch",
            Self::BindingJob => "binding's spec.job",
            Self::Task => "task",
            Self::Trainyard => "trainyard",
        }
    }
}

/// A field of a Job: no object, and no list whose items are fields themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Such as `spec.template.spec.containers[task].image`; items of a list that is merged go by their name.
    pub path: String,
    pub value: Value,
    pub origin: Origin,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} = {}  # {}",
            self.path,
            self.value,
            self.origin.as_str()
        )
    }
}

/// All fields of `job`, which was rendered from these inputs; `patch` is that of the queue.
pub fn origins(job: &Value, inputs: &Inputs<'_>, patch: Option<&Value>) -> Vec<Field> {
    let mut wishless = inputs.task.clone();
    wishless.container = Container::default();
    wishless.hyperparams.clear();
    let unasked = render(&Inputs {
        task: &wishless,
        ..*inputs
    });
    // Rendered anew: what was laid on the Job since is nobody's wish.
    let asked = render(inputs);
    let (template, of_jobs) = (inputs.template, &inputs.spec.job);
    let written = [
        (Origin::QueuePatch, json!({ "spec": { "template": patch } })),
        (
            Origin::Template,
            json!({ "spec": { "template": { "metadata": template.metadata, "spec": template.spec } } }),
        ),
        (
            Origin::BindingJob,
            json!({
                "metadata": { "labels": of_jobs.labels, "annotations": of_jobs.annotations },
                "spec": { "activeDeadlineSeconds": of_jobs.active_deadline_seconds },
            }),
        ),
    ];
    let origin = |path: &[Step<'_>], value: &Value| {
        if has(&asked.job, path, value) && !has(&unasked.job, path, value) {
            return Origin::Task;
        }
        written
            .iter()
            .find(|(_, document)| has(document, path, value))
            .map_or(Origin::Trainyard, |(origin, _)| *origin)
    };
    let mut found = Vec::new();
    walk(job, None, &mut Vec::new(), &mut found);
    found
        .into_iter()
        .map(|(path, value)| Field {
            path: shown(&path),
            value: value.clone(),
            origin: origin(&path, value),
        })
        .collect()
}

/// From a value to one that it holds.
#[derive(Debug, Clone, Copy)]
enum Step<'v> {
    Field(&'v str),
    /// The item with this value of this key, of a list that is merged by it.
    Named(&'v str, &'v Value),
    /// The item at this place of another list; such a list has an item if it is anywhere in it.
    At(usize),
}

type Found<'v> = Vec<(Vec<Step<'v>>, &'v Value)>;

/// Finds all fields below `value`, whose items, if it is a list, are known by `key`.
fn walk<'v>(
    value: &'v Value,
    key: Option<&'static str>,
    path: &mut Vec<Step<'v>>,
    found: &mut Found<'v>,
) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            // The path tells the name of an item; only where it is all that the item has it is a field.
            let told = match path.last() {
                Some(Step::Named(key, _)) if fields.len() > 1 => Some(*key),
                _ => None,
            };
            for (name, inner) in fields
                .iter()
                .filter(|(name, _)| Some(name.as_str()) != told)
            {
                path.push(Step::Field(name));
                walk(inner, key_of(name), path, found);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (place, item) in items.iter().enumerate() {
                if let Some((key, name)) = key.and_then(|key| Some((key, item.get(key)?))) {
                    path.push(Step::Named(key, name));
                    walk(item, None, path, found);
                } else {
                    path.push(Step::At(place));
                    found.push((path.clone(), item));
                }
                path.pop();
            }
        }
        value => found.push((path.clone(), value)),
    }
}

/// Whether a document has this value at this path.
fn has(document: &Value, path: &[Step<'_>], value: &Value) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return document == value;
    };
    let mut items = document.as_array().into_iter().flatten();
    match *first {
        Step::Field(name) => document
            .get(name)
            .is_some_and(|inner| has(inner, rest, value)),
        Step::Named(key, name) => {
            items.any(|item| item.get(key) == Some(name) && has(item, rest, value))
        }
        Step::At(_) => items.any(|item| has(item, rest, value)),
    }
}

fn shown(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        let _ = match step {
            Step::Field(name) if name.contains(['.', '/']) => write!(text, "[{name:?}]"),
            Step::Field(name) if text.is_empty() => write!(text, "{name}"),
            Step::Field(name) => write!(text, ".{name}"),
            Step::Named(_, name) => match name.as_str() {
                Some(name) => write!(text, "[{name}]"),
                None => write!(text, "[{name}]"),
            },
            Step::At(place) => write!(text, "[{place}]"),
        };
    }
    text
}
