//! What must be right about a template, field by field.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::fields::{at, items, text};
use super::names::short_hash;
use super::template::{Template, TemplateError};
use crate::crd::{QueueBindingSpec, TASK_SERVICE_ACCOUNT};
use crate::pod;

/// Prefix of labels and annotations that are ours alone.
const OWN_KEYS: &str = "trainyard.dev/";
/// Prefix of environment variables that are ours alone.
const OWN_VARIABLES: &str = "TRAINYARD_";
/// Mount paths that are ours alone.
pub(super) const OWN_PATHS: &[&str] = &[
    pod::ROOT,
    "/trainyard-conf",
    "/trainyard-git",
    "/trainyard-index",
    "/trainyard-server",
];

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Check {
    pub(super) errors: Vec<TemplateError>,
}

impl Check {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.errors.push(TemplateError {
            path: path.into(),
            message: message.into(),
        });
    }

    /// The template, if enough of it is right to make one.
    pub(super) fn template(
        &mut self,
        root: &str,
        raw: &Value,
        binding: &QueueBindingSpec,
        default_image: Option<&str>,
    ) -> Option<Template> {
        let fields = self.object(root, raw)?;
        for (name, value) in fields {
            let pasted = match name.as_str() {
                "metadata" | "spec" => true,
                "kind" => matches!(value.as_str(), Some("Pod" | "PodTemplate")),
                "apiVersion" => value.as_str() == Some("v1"),
                _ => false,
            };
            if !pasted {
                self.error(
                    format!("{root}.{name}"),
                    "is not part of a pod template, which has metadata and spec",
                );
            }
        }
        let metadata = self.optional_object(&format!("{root}.metadata"), raw.get("metadata"));
        self.metadata(
            &format!("{root}.metadata"),
            &Value::Object(metadata.clone()),
        );
        let mut spec = self.optional_object(&format!("{root}.spec"), raw.get("spec"));
        if at(&Value::Object(spec.clone()), &["containers"]).is_none() {
            spec.insert("containers".into(), json!([{ "name": pod::TASK }]));
        }
        let path = format!("{root}.spec");
        let spec_value = Value::Object(spec.clone());
        self.pod_spec(&path, &spec_value);
        let task = self.task_container(&path, &spec_value)?;
        let container = &items(&spec_value, &["containers"])[task];
        let container_path = format!("{path}.containers[{task}]");
        self.task_fields(&container_path, container);
        if binding.queues.iter().any(|queue| queue.use_entrypoint) {
            self.command(&container_path, container);
        }
        let image = self.image(&container_path, container, default_image);
        let service_account = self.service_account(&path, &spec_value, binding);
        let hash = short_hash(
            json!([metadata, spec_value, image, service_account])
                .to_string()
                .as_bytes(),
        );
        Some(Template {
            notes: notes_on(&spec_value),
            metadata,
            spec,
            task,
            image: image?,
            service_account,
            hash,
        })
    }

    fn metadata(&mut self, path: &str, metadata: &Value) {
        for name in ["labels", "annotations"] {
            let path = format!("{path}.{name}");
            for (key, value) in self.optional_object(&path, metadata.get(name)) {
                if !value.is_string() {
                    self.error(
                        format!("{path}.{key}"),
                        "must be a text; put numbers and true or false in quotes",
                    );
                }
                if key.starts_with(OWN_KEYS) {
                    self.error(
                        format!("{path}.{key}"),
                        "keys that begin with trainyard.dev/ are the controller's own",
                    );
                }
            }
        }
    }

    /// The fields of the pod that rendering touches.
    fn pod_spec(&mut self, path: &str, spec: &Value) {
        if let Some(policy) =
            at(spec, &["restartPolicy"]).filter(|policy| policy.as_str() != Some("Never"))
        {
            self.error(
                format!("{path}.restartPolicy"),
                format!("must be Never or absent, not {policy}: each attempt is a Job of its own"),
            );
        }
        if let Some(grace) = at(spec, &["terminationGracePeriodSeconds"])
            && grace.as_u64().is_none()
        {
            self.error(
                format!("{path}.terminationGracePeriodSeconds"),
                "must be a whole number, 0 or more",
            );
        }
        self.affinity(path, spec);
        self.list(
            &format!("{path}.imagePullSecrets"),
            at(spec, &["imagePullSecrets"]),
        );
        let volumes = format!("{path}.volumes");
        for (index, volume) in self
            .list(&volumes, at(spec, &["volumes"]))
            .iter()
            .enumerate()
        {
            let name = self.name(&format!("{volumes}[{index}]"), volume);
            if name == pod::VOLUME || name.starts_with("trainyard-") {
                self.error(
                    format!("{volumes}[{index}].name"),
                    format!("{name:?} is the name of a volume of the executor; choose another"),
                );
            }
        }
        let mut seen = HashSet::new();
        for field in ["initContainers", "containers"] {
            let path = format!("{path}.{field}");
            for (index, container) in self.list(&path, at(spec, &[field])).iter().enumerate() {
                let path = format!("{path}[{index}]");
                let name = self.name(&path, container);
                if [pod::PREPARE, pod::UPLINK].contains(&name.as_str()) {
                    self.error(
                        format!("{path}.name"),
                        format!(
                            "{name:?} is the name of a container of the executor; choose another"
                        ),
                    );
                }
                if !seen.insert(name.clone()) {
                    self.error(
                        format!("{path}.name"),
                        format!("{name:?} is used more than once"),
                    );
                }
            }
        }
    }

    fn affinity(&mut self, path: &str, spec: &Value) {
        let path = format!("{path}.affinity");
        let affinity = Value::Object(self.optional_object(&path, spec.get("affinity")));
        let path = format!("{path}.nodeAffinity");
        let node = Value::Object(self.optional_object(&path, affinity.get("nodeAffinity")));
        let field = "preferredDuringSchedulingIgnoredDuringExecution";
        self.list(&format!("{path}.{field}"), at(&node, &[field]));
    }

    /// The place of the container named "task", or of the only one.
    fn task_container(&mut self, path: &str, spec: &Value) -> Option<usize> {
        let path = format!("{path}.containers");
        let containers = items(spec, &["containers"]);
        let named = containers
            .iter()
            .position(|container| text(container, &["name"]) == Some(pod::TASK));
        match (named, containers.len()) {
            (Some(index), _) => Some(index),
            (None, 1) => Some(0),
            (None, 0) => {
                self.error(
                    path,
                    "at least one container must be given, or none of this field",
                );
                None
            }
            (None, count) => {
                self.error(
                    path,
                    format!("no container is named \"task\", and there are {count}; name the one that runs the experiment \"task\""),
                );
                None
            }
        }
    }

    /// The fields of the task's container that rendering touches.
    fn task_fields(&mut self, path: &str, container: &Value) {
        let list = format!("{path}.env");
        for (index, variable) in self.list(&list, at(container, &["env"])).iter().enumerate() {
            let name = self.name(&format!("{list}[{index}]"), variable);
            if name.starts_with(OWN_VARIABLES) {
                self.error(
                    format!("{list}[{index}].name"),
                    format!("{name:?} begins with TRAINYARD_, as the executor's own variables do; choose another"),
                );
            }
        }
        let list = format!("{path}.volumeMounts");
        for (index, mount) in self
            .list(&list, at(container, &["volumeMounts"]))
            .iter()
            .enumerate()
        {
            self.object(&format!("{list}[{index}]"), mount);
            let target = text(mount, &["mountPath"]).unwrap_or_default();
            let under = |own: &&&str| {
                target.trim_end_matches('/') == **own || target.starts_with(&format!("{own}/"))
            };
            if let Some(own) = OWN_PATHS.iter().find(under) {
                self.error(
                    format!("{list}[{index}].mountPath"),
                    format!("{target:?} is in {own}, which is the executor's own; choose another"),
                );
            }
        }
        for field in ["securityContext", "resources"] {
            self.optional_object(&format!("{path}.{field}"), container.get(field));
        }
    }

    /// What takes the place of the image's own command: no dry run sees it, for the Job has ours there.
    fn command(&mut self, path: &str, container: &Value) {
        for field in ["command", "args"] {
            let list = format!("{path}.{field}");
            for (index, word) in self.list(&list, at(container, &[field])).iter().enumerate() {
                if !word.is_string() {
                    self.error(
                        format!("{list}[{index}]"),
                        "must be a text; put numbers and true or false in quotes",
                    );
                }
            }
        }
    }

    fn image(
        &mut self,
        path: &str,
        container: &Value,
        default_image: Option<&str>,
    ) -> Option<String> {
        let path = format!("{path}.image");
        match at(container, &["image"]) {
            Some(Value::String(image)) if !image.trim().is_empty() => Some(image.trim().to_owned()),
            Some(value) if !value.is_string() => {
                self.error(path, "must be a text");
                None
            }
            _ => {
                let image = default_image
                    .map(str::trim)
                    .filter(|image| !image.is_empty());
                if image.is_none() {
                    self.error(
                        path,
                        "no image is given, and the controller has no default image; \
                         give one here, or set TRAINYARD_DEFAULT_IMAGE (chart: tasks.defaultImage)",
                    );
                }
                image.map(str::to_owned)
            }
        }
    }

    fn service_account(&mut self, path: &str, spec: &Value, binding: &QueueBindingSpec) -> String {
        let field = "serviceAccountName";
        let of_template = match at(spec, &[field]) {
            Some(Value::String(name)) if !name.is_empty() => Some(name.clone()),
            None | Some(Value::String(_)) => None,
            Some(_) => {
                self.error(format!("{path}.{field}"), "must be a text");
                None
            }
        };
        let of_binding = binding.identity.service_account_name.clone();
        if let (Some(template), Some(identity)) = (&of_template, &of_binding)
            && template != identity
        {
            self.error(
                "spec.identity.serviceAccountName",
                format!(
                    "{identity:?} contradicts {template:?} in {path}.{field}; give one of them"
                ),
            );
        }
        of_template
            .or(of_binding)
            .unwrap_or_else(|| TASK_SERVICE_ACCOUNT.to_owned())
    }

    fn object<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v Map<String, Value>> {
        if value.as_object().is_none() {
            self.error(path, format!("must be an object, not {}", kind_of(value)));
        }
        value.as_object()
    }

    /// The object, or an empty one if it is absent.
    fn optional_object(&mut self, path: &str, value: Option<&Value>) -> Map<String, Value> {
        match value {
            None | Some(Value::Null) => Map::new(),
            Some(value) => self.object(path, value).cloned().unwrap_or_default(),
        }
    }

    fn list<'v>(&mut self, path: &str, value: Option<&'v Value>) -> &'v [Value] {
        match value {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(value) => {
                self.error(path, format!("must be a list, not {}", kind_of(value)));
                &[]
            }
        }
    }

    /// The name of an item of a list of named things.
    fn name(&mut self, path: &str, item: &Value) -> String {
        if self.object(path, item).is_none() {
            return String::new();
        }
        match text(item, &["name"]) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => {
                self.error(format!("{path}.name"), "must be given");
                String::new()
            }
        }
    }
}

/// What of the template is replaced, in sentences.
fn notes_on(spec: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    if at(spec, &["automountServiceAccountToken"]) == Some(&Value::Bool(true)) {
        notes.push(
            "automountServiceAccountToken of the template is set to false: no API token is mounted"
                .to_owned(),
        );
    }
    notes
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
