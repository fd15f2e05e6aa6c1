//! The cache of environments, as Jobs know it: which environment a task runs with, by its key, so that the nodes that
//! hold it can be told.
//!
//! A key is made of what the task's document says; what a repository's files say of packages is only known inside the pod,
//! so the commit stands for them. It decides on nothing but preferences: the executor's own key names the environment.

use std::fmt;

use serde_json::{Map, Value, json};

use super::image;
use super::names::short_hash;
use super::template::Template;
use crate::crd::QueueBindingSpec;
use crate::task::Task;

/// Which environment a task runs with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnvironmentKey {
    /// The same for tasks that list the same packages, whichever version of their code they run.
    pub alike: String,
    /// The same for tasks whose documents say the same of packages and of the code.
    pub exact: String,
}

impl EnvironmentKey {
    /// The key of a task's environment; nothing where the binding has no use for it.
    pub fn of(template: &Template, spec: &QueueBindingSpec, task: &Task) -> Option<Self> {
        let environment = &spec.environment;
        if !environment.cache.tells_environments_apart() {
            return None;
        }
        // One that is refused runs in the template's.
        let image = image::choose(template, spec, task).unwrap_or_else(|_| template.image.clone());
        let script = &task.script;
        let code = json!([
            script.repository,
            script.version_num,
            script.branch,
            script.tag,
            script.working_dir
        ]);
        let listed = listed(&script.requirements);
        let around = json!([image, environment.manager.as_str(), script.binary]);
        let alike = match &listed {
            Some(packages) => json!([around, packages]),
            None => json!([around, code]),
        };
        let exact = json!([around, script.requirements, code]);
        Some(Self {
            alike: short_hash(alike.to_string().as_bytes()),
            exact: short_hash(exact.to_string().as_bytes()),
        })
    }

    /// Both parts of a key that was written as an annotation.
    pub fn parts(text: &str) -> Option<(&str, &str)> {
        text.split_once('.')
    }
}

impl fmt::Display for EnvironmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.alike, self.exact)
    }
}

/// The packages that a task lists: as its author wrote them where it has run before and lists what was installed.
fn listed(requirements: &Map<String, Value>) -> Option<Value> {
    let of = |names: [&str; 2]| {
        names
            .iter()
            .filter_map(|name| requirements.get(*name))
            .find(|packages| !is_nothing(packages))
    };
    let (pip, conda) = (of(["org_pip", "pip"]), of(["org_conda", "conda"]));
    (pip.is_some() || conda.is_some()).then(|| json!([pip, conda]))
}

fn is_nothing(packages: &Value) -> bool {
    match packages {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(lines) => lines.is_empty(),
        _ => false,
    }
}
