//! Fields that the schema knows and this version does not honour yet: told, never dropped in silence.

use super::{Capacity, ImageCheck, QueueBindingSpec};

/// A field of a binding, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNote {
    /// Path of the field, such as `spec.limits.perUser`.
    pub path: String,
    /// One sentence: what is not done, and what happens instead.
    pub sentence: String,
}

impl std::fmt::Display for FieldNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.sentence)
    }
}

/// Docker arguments that are honoured where `overrides.containerArguments` lists them.
pub(crate) const CONTAINER_ARGUMENTS: &[&str] = &["env", "shm-size"];

/// The fields that `spec` sets and that have no effect in this version.
pub fn unsupported(spec: &QueueBindingSpec) -> Vec<FieldNote> {
    let mut notes = Vec::new();
    let mut note = |set: bool, path: &str, sentence: &str| {
        if set {
            notes.push(FieldNote {
                path: path.to_owned(),
                sentence: sentence.to_owned(),
            });
        }
    };
    let server = spec.server.clone().unwrap_or_default();
    note(
        server.proxy_url.is_some(),
        "spec.server.proxyUrl",
        "is used by the controller alone; task pods reach the server directly",
    );
    note(
        spec.lookahead.unwrap_or(0) > 0,
        "spec.lookahead",
        "is not supported yet, each queue is served in strict order",
    );
    note(
        !spec.schedule.is_empty(),
        "spec.schedule",
        "is not supported yet, tasks are taken at all hours",
    );
    note(
        spec.limits.per_user.is_some(),
        "spec.limits.perUser",
        "is not supported yet, only the limits of the binding hold",
    );
    note(
        spec.limits.per_project.is_some(),
        "spec.limits.perProject",
        "is not supported yet, only the limits of the binding hold",
    );
    note(
        spec.capacity == Capacity::Kueue,
        "spec.capacity",
        "Kueue is not supported yet, Jobs are released without it",
    );
    note(
        spec.capacity == Capacity::FreeResources,
        "spec.capacity",
        "FreeResources is not supported yet, room on the nodes is not looked at",
    );
    note(
        spec.image_check
            .is_some_and(|check| check != ImageCheck::Off),
        "spec.imageCheck",
        "is not supported yet, images are not looked up before a task is taken",
    );
    let overrides = &spec.overrides;
    note(
        overrides.resources.is_some(),
        "spec.overrides.resources",
        "is not supported yet, tasks get the template's resources",
    );
    note(
        !overrides.node_selector.is_empty(),
        "spec.overrides.nodeSelector",
        "is not supported yet, tasks get the template's node selector",
    );
    note(
        !overrides.tolerations.is_empty(),
        "spec.overrides.tolerations",
        "is not supported yet, tasks get the template's tolerations",
    );
    note(
        !overrides.priority_class.is_empty(),
        "spec.overrides.priorityClass",
        "is not supported yet, tasks get the template's priority class",
    );
    note(
        overrides.setup_script,
        "spec.overrides.setupScript",
        "is not supported yet, setup scripts of tasks are not run",
    );
    let cache = &spec.environment.cache;
    note(
        cache.size_limit.is_some() && (cache.claim_name.is_some() || cache.host_path.is_some()),
        "spec.environment.cache.sizeLimit",
        "is not enforced on a claim or a folder of the node",
    );
    for (index, argument) in overrides.container_arguments.iter().enumerate() {
        note(
            !CONTAINER_ARGUMENTS.contains(&argument.as_str()),
            &format!("spec.overrides.containerArguments[{index}]"),
            &format!("{argument:?} is not supported yet, tasks that ask for it are told so"),
        );
    }
    for (index, queue) in spec.queues.iter().enumerate() {
        note(
            queue.template_patch.is_some(),
            &format!("spec.queues[{index}].templatePatch"),
            "is not supported yet, tasks of this queue get the template as it is",
        );
    }
    notes
}
