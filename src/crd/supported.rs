//! Fields that the schema knows and this version does not honour yet: told, never dropped in silence.

use super::QueueBindingSpec;

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

/// Docker arguments that have a counterpart in a pod, where `overrides.containerArguments` lists them.
pub const CONTAINER_ARGUMENTS: &[&str] = &[
    "add-host",
    "cap-add",
    "cap-drop",
    "cpus",
    "dns",
    "dns-search",
    "entrypoint",
    "env",
    "gpus",
    "hostname",
    "ipc",
    "memory",
    "mount",
    "network",
    "pid",
    "privileged",
    "read-only",
    "shm-size",
    "tmpfs",
    "user",
    "volume",
    "workdir",
];

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
    let cache = &spec.environment.cache;
    note(
        cache.ahead.unwrap_or(0) > 0 && !cache.is_kept(),
        "spec.environment.cache.ahead",
        "nothing is made ahead without claimName or hostPath: a cache that ends with its pod is of use to nobody else",
    );
    let overrides = &spec.overrides;
    for (index, argument) in overrides.container_arguments.iter().enumerate() {
        note(
            !CONTAINER_ARGUMENTS.contains(&argument.as_str()),
            &format!("spec.overrides.containerArguments[{index}]"),
            &format!("{argument:?} has no counterpart in a pod, tasks that ask for it are told so"),
        );
    }
    notes
}
