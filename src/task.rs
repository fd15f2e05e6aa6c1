//! Vocabulary: what a task, a queue and a worker are called and look like on a ClearML server.
//!
//! Source: `protocol.md` §3 (the task document) and §5.1 (worker ids). Nothing here knows about HTTP or Kubernetes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An id or name that is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not 32 lower-case hexadecimal digits")]
pub struct BadId {
    kind: &'static str,
    value: String,
}

/// Whether `text` is a ClearML object id: 32 lower-case hexadecimal digits (§1.12).
pub fn is_object_id(text: &str) -> bool {
    text.len() == 32
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// Its digits lie in the value itself: a pass of the controller has a dozen copies of the id of each live task.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// The 32 digits.
            pub fn as_str(&self) -> &str {
                // Digits are text: nothing else is ever stored.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                match <[u8; 32]>::try_from(text.as_bytes()) {
                    Ok(digits) if is_object_id(text) => Ok(Self(digits)),
                    _ => Err(BadId { kind: $kind, value: text.chars().take(80).collect() }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }
    };
}

object_id!(
    /// Id of a task on the server.
    TaskId,
    "task id"
);
object_id!(
    /// Id of a queue on the server.
    QueueId,
    "queue id"
);

/// Name under which something reports to the server as able to run tasks (§5.1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl WorkerId {
    /// The worker id of one attempt's pod: `<controller's worker id>:<task>:<attempt>`.
    ///
    /// The attempt is part of it so that a report of one attempt is never taken for another's.
    pub fn of_attempt(controller: &WorkerId, task: &TaskId, attempt: Attempt) -> Self {
        Self(format!("{}:{task}:{attempt}", controller.0))
    }

    /// If this id was made by [`WorkerId::of_attempt`] for `task` (by any controller): that attempt.
    pub fn attempt_of(&self, task: &TaskId) -> Option<Attempt> {
        let (rest, attempt) = self.0.rsplit_once(':')?;
        rest.strip_suffix(task.as_str())?.strip_suffix(':')?;
        attempt.parse().ok().map(Attempt)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a run of one task; the first is 1. Part of Job name, labels, mark and worker id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first attempt.
    pub const FIRST: Attempt = Attempt(1);

    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Status of a task (§3.1, §3.4). A word that is not known is kept apart as [`Status::Unknown`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Created,
    Queued,
    InProgress,
    Stopped,
    Publishing,
    Published,
    Closed,
    Failed,
    Completed,
    #[default]
    #[serde(other)]
    Unknown,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Stopped => "stopped",
            Self::Publishing => "publishing",
            Self::Published => "published",
            Self::Closed => "closed",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status message by which the server tells a running task to stop (§2.3, `tasks.stop`).
pub const STOPPING: &str = "stopping";

/// Key in a task's `runtime` that carries the attempt's mark (`<worker id of the attempt>`), written inside the fence.
pub const MARK: &str = "_trainyard_attempt";

/// What is to be run (§3.2). Empty strings stand for absent members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    #[serde(deserialize_with = "null_as_default")]
    pub binary: String,
    #[serde(deserialize_with = "null_as_default")]
    pub repository: String,
    #[serde(deserialize_with = "null_as_default")]
    pub branch: String,
    #[serde(deserialize_with = "null_as_default")]
    pub tag: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version_num: String,
    #[serde(deserialize_with = "null_as_default")]
    pub entry_point: String,
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    pub diff: String,
    #[serde(deserialize_with = "null_as_default")]
    pub requirements: Map<String, Value>,
}

/// The container that the task asks for (§3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    #[serde(deserialize_with = "null_as_default")]
    pub image: String,
    #[serde(deserialize_with = "null_as_default")]
    pub arguments: String,
    #[serde(deserialize_with = "null_as_default")]
    pub setup_shell_script: String,
}

/// The part of `execution` that matters here (§3.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Execution {
    #[serde(deserialize_with = "null_as_default")]
    pub queue: String,
}

/// A task as the server describes it, reduced to what rendering and running need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// `training`, `testing`, ...
    #[serde(default, rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub status: Status,
    #[serde(default, deserialize_with = "null_as_default")]
    pub status_reason: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub status_message: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub project: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub user: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub parent: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub script: Script,
    #[serde(default, deserialize_with = "null_as_default")]
    pub container: Container,
    #[serde(default, deserialize_with = "null_as_default")]
    pub execution: Execution,
    #[serde(default, deserialize_with = "null_as_default")]
    pub runtime: Map<String, Value>,
    /// Sections of named items, each `{section, name, value, type, description}`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub hyperparams: Map<String, Value>,
    #[serde(default)]
    pub last_worker: Option<WorkerId>,
    #[serde(default)]
    pub enqueue_status: Option<Status>,
}

/// The server's own status reason after an enqueue that it rolled back (§4); the roll-back drops `enqueue_status`.
pub const FAILED_ENQUEUEING: &str = "failed enqueueing";

/// The server omits unset members and sometimes sends null (§1.12); both mean the default.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_id() -> TaskId {
        "0123456789abcdef0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn only_32_lower_case_hex_digits_are_an_id() {
        assert!(
            "0123456789ABCDEF0123456789abcdef"
                .parse::<TaskId>()
                .is_err()
        );
        assert!("0123".parse::<QueueId>().is_err());
        assert_eq!(task_id().to_string().len(), 32);
    }

    #[test]
    fn an_id_is_told_and_compared_as_its_text() {
        let id = task_id();
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            (id.as_str(), String::from(id.clone()).as_str()),
            (text, text)
        );
        assert_eq!(format!("{id} {id:?}"), format!("{text} TaskId({text:?})"));
        let written = serde_json::to_value(&id).unwrap();
        assert_eq!(written, serde_json::json!(text));
        assert_eq!(serde_json::from_value::<TaskId>(written).unwrap(), id);
        let last: TaskId = "f".repeat(32).parse().unwrap();
        assert!(id < last);
    }

    #[test]
    fn worker_id_of_an_attempt_can_be_read_back() {
        let worker =
            WorkerId::of_attempt(&WorkerId("cluster:ns/gpu".into()), &task_id(), Attempt(3));
        assert_eq!(worker.attempt_of(&task_id()), Some(Attempt(3)));
        let other = "fedcba9876543210fedcba9876543210".parse().unwrap();
        assert_eq!(worker.attempt_of(&other), None);
        assert_eq!(WorkerId("host:gpu0".into()).attempt_of(&task_id()), None);
    }

    #[test]
    fn null_and_absent_members_of_a_task_are_defaults() {
        let text = r#"{"id":"0123456789abcdef0123456789abcdef","script":null,"container":{"image":null},"status":"odd"}"#;
        let task: Task = serde_json::from_str(text).unwrap();
        assert_eq!(task.status, Status::Unknown);
        assert_eq!(task.container, Container::default());
    }
}
