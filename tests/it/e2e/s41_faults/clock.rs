//! How soon a task says what the cluster shows: both are looked at from outside, again and again.

use std::time::{Duration, Instant};

use serde_json::Value;
use trainyard::claim::QUIET_TIME;
use trainyard::diagnose::Category;

use crate::e2e::world::World;
use crate::times;

/// The stated figure: a task says what is wrong so soon after the cluster shows it; five times of it are allowed.
const TOLD: Duration = Duration::from_secs(10);
/// Listing all objects takes its time on a machine with little of it.
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// What the cluster showed at one moment.
pub(in crate::e2e) struct Look {
    at: Instant,
    objects: Vec<Value>,
}

impl Look {
    pub(in crate::e2e) fn new(world: &World) -> Self {
        // What it shows was there before the answer came.
        let at = Instant::now();
        let all = world.get(&["jobs,pods,events"]);
        Self {
            at,
            objects: list(&all["items"]).to_vec(),
        }
    }

    pub(in crate::e2e) fn is_old(&self) -> bool {
        self.at.elapsed() > BETWEEN_LOOKS
    }

    /// Whether it showed that something is wrong with this task. That its pod waits counts only for causes of waiting:
    /// any pod may have trouble on its way.
    fn shows(&self, task: &str, category: Category) -> bool {
        let waits = Category::OF_WAITING.contains(&category);
        self.objects
            .iter()
            .any(|object| match object["kind"].as_str() {
                Some("Pod") => {
                    is_of(object, task)
                        && (is_ending(object) || (waits && waits_in_vain(object, category)))
                }
                Some("Job") => is_of(object, task) && has_failed(object),
                Some("Event") => {
                    waits
                        && object["type"] == "Warning"
                        && is_about(object, task)
                        && is_reason_of(category, object["reason"].as_str())
                }
                _ => false,
            })
    }
}

/// When the cluster was first seen to show what is wrong with a task, and the task to say so.
#[derive(Default)]
pub(in crate::e2e) struct Clock {
    shown: Option<Instant>,
    told: Option<Instant>,
}

impl Clock {
    /// Takes in one look, and whether the task says it by now.
    pub(in crate::e2e) fn note(
        &mut self,
        world: &World,
        look: &mut Look,
        (task, category): (&str, Category),
        is_told: bool,
    ) {
        if is_told && self.told.is_none() {
            self.told = Some(Instant::now());
            // The last look may be from before it could be seen.
            if self.shown.is_none() && !look.shows(task, category) {
                *look = Look::new(world);
            }
        }
        if self.shown.is_none() && look.shows(task, category) {
            self.shown = Some(look.at);
        }
    }

    pub(in crate::e2e) fn was_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// How long the task took to say it; nothing if nobody could have seen it before the task said it.
    pub(in crate::e2e) fn late(&self) -> Duration {
        match (self.shown, self.told) {
            (Some(shown), Some(told)) => told.saturating_duration_since(shown),
            _ => Duration::ZERO,
        }
    }

    /// Tells how long the task took that has come to this, where the cluster was seen to show it. `runs` is when it was
    /// seen to run first.
    pub(super) fn tell(&self, task: &Value, runs: Option<Instant>) {
        let Some(shown) = self.shown else {
            return;
        };
        let was_old = runs.is_some_and(|runs| shown.saturating_duration_since(runs) > quiet_time());
        let what = match (is_told_for_its_pod(task), was_old) {
            (true, true) => "the same of a run whose pod could not say it",
            (true, false) => {
                "the same of such a run that had just begun, where the quiet time comes first"
            }
            (false, _) => "a task says what is wrong once the cluster shows it",
        };
        let late = self.late().as_secs_f64();
        times::told("S41", what, late, TOLD.as_secs_f64());
    }

    pub(in crate::e2e) fn is_too_late(&self) -> bool {
        self.late() > TOLD * 5
    }
}

/// How long a run has to have lasted for its end to be told without a wait for the time when it began.
pub(super) fn quiet_time() -> Duration {
    Duration::try_from(QUIET_TIME).expect("a quiet time is positive")
}

/// Whether the controller itself said how a run ended: before its task has stood for the quiet time it cannot tell one of
/// its own from a plain agent's (`docs/claim.md`).
fn is_told_for_its_pod(task: &Value) -> bool {
    let reason = task["status_reason"].as_str().unwrap_or_default();
    !task["started"].is_null() && reason.starts_with("trainyard: ")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_of(object: &Value, task: &str) -> bool {
    object["metadata"]["labels"]["trainyard.dev/task"] == task
}

/// Names of Jobs, and so of their pods, hold the task's id.
fn is_about(event: &Value, task: &str) -> bool {
    let name = event["involvedObject"]["name"].as_str();
    name.is_some_and(|name| name.contains(task))
}

fn holds(object: &Value, conditions: &[&str]) -> bool {
    list(&object["status"]["conditions"]).iter().any(|known| {
        known["status"] == "True" && conditions.iter().any(|wanted| known["type"] == *wanted)
    })
}

fn has_failed(job: &Value) -> bool {
    holds(job, &["Failed", "FailureTarget"])
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let status = &pod["status"];
    list(&status["initContainerStatuses"])
        .iter()
        .chain(list(&status["containerStatuses"]))
}

/// The pod is taken away, or a part of it has failed.
fn is_ending(pod: &Value) -> bool {
    let failed = |container: &Value| {
        let code = container["state"]["terminated"]["exitCode"].as_i64();
        code.is_some_and(|code| code != 0)
    };
    pod["status"]["phase"] == "Failed"
        || !pod["metadata"]["deletionTimestamp"].is_null()
        || holds(pod, &["DisruptionTarget"])
        || containers(pod).any(failed)
}

/// Whether a container or an Event with this reason shows what a pod of this category waits for: on a busy node it may wait
/// for something else before.
fn is_reason_of(category: Category, reason: Option<&str>) -> bool {
    let reasons: &[&str] = match category {
        Category::Unschedulable => &["FailedScheduling"],
        Category::Quota | Category::Policy => &["FailedCreate"],
        Category::Volume => &["FailedMount", "FailedAttachVolume", "FailedMapVolume"],
        Category::Configuration => &["CreateContainerConfigError", "Failed"],
        Category::ImageMissing
        | Category::ImageAccess
        | Category::ImageRateLimit
        | Category::ImagePlatform
        | Category::ImagePull
        | Category::ImageName => &[
            "ErrImagePull",
            "ImagePullBackOff",
            "ErrImageNeverPull",
            "InvalidImageName",
            "Failed",
            "InspectFailed",
        ],
        _ => return reason.is_some(),
    };
    reason.is_some_and(|reason| reasons.contains(&reason))
}

/// The pod waits for more than its turn.
fn waits_in_vain(pod: &Value, category: Category) -> bool {
    let unplaced = list(&pod["status"]["conditions"])
        .iter()
        .any(|known| known["type"] == "PodScheduled" && known["status"] == "False");
    let stuck = |container: &Value| {
        let reason = container["state"]["waiting"]["reason"].as_str();
        let usual = ["ContainerCreating", "PodInitializing"];
        reason.is_some_and(|reason| !usual.contains(&reason)) && is_reason_of(category, reason)
    };
    (category == Category::Unschedulable && unplaced) || containers(pod).any(stuck)
}
