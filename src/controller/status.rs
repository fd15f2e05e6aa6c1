//! What the controller says about a binding: conditions with reasons, counters, and an Event for each change.
//!
//! Conditions are written when they change, counters at most every [`COUNTERS`]; by server-side apply under our own
//! field manager, so nobody else's fields are touched. What was told by an Event is remembered in [`told`].

mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use self::told::Told;
use super::cluster::{self, call};
use super::fault;
use crate::crd::{QueueBinding, QueueBindingStatus, QueueStatus, condition};

/// Name under which our fields are applied.
pub(super) const FIELD_MANAGER: &str = "trainyard";
/// Counters alone are written no more often than this.
const COUNTERS: Duration = Duration::from_secs(10);

/// Conditions that have to hold for a binding to be ready, in the order in which they are told.
const REQUIRED: [&str; 4] = [
    condition::CREDENTIALS_VALID,
    condition::SERVER_REACHABLE,
    condition::QUEUES_RESOLVED,
    condition::TEMPLATE_VALID,
];

/// A condition that does not hold: which one, a word for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub condition: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Trouble {
    pub fn new(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            condition,
            reason,
            message: cluster::bounded(&message.into()),
        }
    }
}

impl From<&crate::api::Error> for Trouble {
    /// What a failed call says about the binding.
    fn from(error: &crate::api::Error) -> Self {
        use crate::api::Error;
        let (condition, reason) = match error {
            Error::Refused { http: 401, .. } => (condition::CREDENTIALS_VALID, "Refused"),
            Error::Refused { http: 403, .. } => (condition::CREDENTIALS_VALID, "NotAllowed"),
            Error::Refused { .. } => (condition::SERVER_REACHABLE, "CallRefused"),
            Error::Transient { .. } => (condition::SERVER_REACHABLE, "NoAnswer"),
            Error::Protocol { .. } => (condition::SERVER_REACHABLE, "NotUnderstood"),
        };
        Self::new(condition, reason, error.to_string())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What one pass found out about the binding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Verdicts {
    by_type: BTreeMap<&'static str, (Truth, String, String)>,
    /// Why all goes slowly, if it does.
    throttled: Option<&'static str>,
}

impl Verdicts {
    /// The condition holds.
    pub fn holds(&mut self, condition: &'static str, reason: &str, message: impl Into<String>) {
        self.by_type
            .insert(condition, (Truth::True, reason.to_owned(), message.into()));
    }

    /// The condition does not hold.
    pub fn fails(&mut self, trouble: Trouble) {
        self.by_type.insert(
            trouble.condition,
            (Truth::False, trouble.reason.to_owned(), trouble.message),
        );
    }

    /// Whether the condition holds cannot be told yet.
    pub fn undecided(&mut self, trouble: Trouble) {
        self.by_type.insert(
            trouble.condition,
            (Truth::Unknown, trouble.reason.to_owned(), trouble.message),
        );
    }

    /// The API server holds us back, in these words: nothing is wrong with the binding, and yet it is not ready.
    pub fn throttled(&mut self, words: Option<&'static str>) {
        self.throttled = words;
    }

    /// All conditions for the metric: 1 true, 0 false, -1 unknown.
    pub fn values(&self) -> Vec<(&'static str, i64)> {
        self.complete()
            .into_iter()
            .map(|(condition, (truth, ..))| {
                let value = match truth {
                    Truth::True => 1,
                    Truth::False => 0,
                    Truth::Unknown => -1,
                };
                (condition, value)
            })
            .collect()
    }

    /// All conditions, what was not looked at as unknown, and `Ready` as their sum.
    fn complete(&self) -> BTreeMap<&'static str, (Truth, String, String)> {
        let mut all = self.by_type.clone();
        let others = [condition::CAPACITY_AVAILABLE, condition::NOTHING_STRANDED];
        for condition in REQUIRED.into_iter().chain(others) {
            all.entry(condition).or_insert_with(|| {
                (
                    Truth::Unknown,
                    "NotLookedAt".into(),
                    "not looked at, because of the other conditions".into(),
                )
            });
        }
        let first_not = REQUIRED
            .into_iter()
            .find(|name| all[name].0 == Truth::False);
        let not_known = REQUIRED
            .into_iter()
            .find(|name| all[name].0 == Truth::Unknown);
        // What else does not hold may only be what could not be read.
        let ready = match (self.throttled, first_not, not_known) {
            (Some(words), ..) => (Truth::False, "Throttled".into(), words.into()),
            (None, Some(name), _) => (Truth::False, name.to_owned() + "False", all[name].2.clone()),
            (None, None, Some(name)) => (
                Truth::Unknown,
                name.to_owned() + "Unknown",
                all[name].2.clone(),
            ),
            (None, None, None) => (
                Truth::True,
                "Serving".into(),
                "tasks of these queues are taken".into(),
            ),
        };
        all.insert(condition::READY, ready);
        all
    }
}

/// How many tasks stand where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Counters {
    pub queues: Vec<QueueStatus>,
    pub last_dispatch: Option<Timestamp>,
}

/// Writes the status of one binding.
pub(super) struct Writer {
    api: Api<QueueBinding>,
    recorder: Recorder,
    written: Option<(QueueBindingStatus, Instant)>,
    told: Told,
}

impl Writer {
    pub fn new(api: Api<QueueBinding>, recorder: Recorder) -> Self {
        Self {
            api,
            recorder,
            written: None,
            told: Told::default(),
        }
    }

    /// Writes what has changed, if it is due. `counters` is `None` where the queues could not be read.
    pub async fn write(
        &mut self,
        binding: &QueueBinding,
        verdicts: &Verdicts,
        counters: Option<&Counters>,
    ) -> Result<(), cluster::Error> {
        let now = Instant::now();
        let before = self
            .written
            .as_ref()
            .map(|(status, _)| status)
            .or(binding.status.as_ref());
        let wanted = status(binding, verdicts, counters, before, Timestamp::now());
        let conditions_changed = before.is_none_or(|before| {
            before.conditions != wanted.conditions
                || before.observed_generation != wanted.observed_generation
        });
        let counters_due = self
            .written
            .as_ref()
            .is_none_or(|(_, at)| now.duration_since(*at) >= COUNTERS);
        if before == Some(&wanted) || !(conditions_changed || counters_due) {
            return Ok(());
        }
        // What could not be written is not told either.
        let mut told = self.told.clone();
        let changes = told.changes(before, &wanted);
        let patch = json!({
            "apiVersion": QueueBinding::api_version(&()), "kind": QueueBinding::kind(&()),
            "metadata": {"name": binding.name_any()},
            "status": wanted,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        call(
            self.api
                .patch_status(&binding.name_any(), &params, &Patch::Apply(&patch)),
        )
        .await?;
        fault::point!("status/written");
        self.written = Some((wanted, now));
        self.told = told;
        for (type_, condition) in changes {
            log(binding, type_, &condition);
            self.event(binding, type_, &condition.reason, &condition.message)
                .await;
        }
        Ok(())
    }

    /// Publishes an Event on the binding; that it could not be is logged, nothing rests on it.
    pub async fn event(&self, binding: &QueueBinding, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.chars().take(128).collect(),
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = call(self.recorder.publish(&event, &binding.object_ref(&()))).await {
            tracing::debug!(binding = %binding.name_any(), %error, "event was not published");
        }
        fault::point!("status/event-published");
    }
}

/// The words of a condition that came to fail, or that recovered, for who reads the log alone.
fn log(binding: &QueueBinding, type_: EventType, condition: &Condition) {
    let namespace = binding.namespace().unwrap_or_default();
    let (name, reason) = (binding.name_any(), &condition.reason);
    let (type_of, words) = (&condition.type_, &condition.message);
    match type_ {
        EventType::Warning => {
            tracing::warn!(
                namespace, binding = name, condition = %type_of, %reason, error = %words, "condition does not hold"
            );
        }
        EventType::Normal => {
            tracing::info!(namespace, binding = name, condition = %type_of, %reason, "condition holds again");
        }
    }
}

/// The status that says this; a condition keeps the time of its last change.
fn status(
    binding: &QueueBinding,
    verdicts: &Verdicts,
    counters: Option<&Counters>,
    before: Option<&QueueBindingStatus>,
    now: Timestamp,
) -> QueueBindingStatus {
    let generation = binding.metadata.generation;
    let conditions = verdicts
        .complete()
        .into_iter()
        .map(|(type_, (truth, reason, message))| {
            let earlier = before
                .and_then(|before| before.conditions.iter().find(|known| known.type_ == type_));
            let since = earlier
                .filter(|known| known.status == truth.as_str())
                .map(|known| known.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: truth.as_str().to_owned(),
                reason,
                message,
                observed_generation: generation,
                last_transition_time: since.unwrap_or(Time(whole_second(now))),
            }
        })
        .collect();
    let mut status = QueueBindingStatus {
        observed_generation: generation,
        conditions,
        ..before.cloned().unwrap_or_default()
    };
    if let Some(counters) = counters {
        status.queue_names = Some(
            counters
                .queues
                .iter()
                .map(|queue| queue.name.as_str())
                .collect::<Vec<_>>()
                .join(","),
        );
        status.queued = Some(counters.queues.iter().map(|queue| queue.queued).sum());
        status.running = Some(counters.queues.iter().map(|queue| queue.running).sum());
        status.queues.clone_from(&counters.queues);
        if let Some(last) = counters.last_dispatch {
            status.last_dispatch_time = Some(Time(whole_second(last)));
        }
    }
    status
}

/// Kubernetes keeps whole seconds; what it would cut off must not count as a change.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> QueueBinding {
        serde_json::from_value(json!({
            "metadata": {"name": "gpu", "generation": 3}, "spec": {"queues": [{"name": "gpu"}]},
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn of<'a>(status: &'a QueueBindingStatus, type_: &str) -> &'a Condition {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
            .unwrap()
    }

    fn all_well() -> Verdicts {
        let mut verdicts = Verdicts::default();
        for condition in REQUIRED {
            verdicts.holds(condition, "Fine", "");
        }
        verdicts
    }

    #[test]
    fn a_binding_is_ready_when_all_that_is_needed_holds() {
        let status = status(&binding(), &all_well(), None, None, at(5));
        assert_eq!(of(&status, "Ready").status, "True");
        assert_eq!(of(&status, "CapacityAvailable").status, "Unknown");
        assert_eq!(of(&status, "Ready").observed_generation, Some(3));
    }

    #[test]
    fn ready_repeats_the_first_reason_against_it() {
        let mut verdicts = all_well();
        verdicts.fails(Trouble::new(
            condition::TEMPLATE_VALID,
            "Invalid",
            "spec.template.spec: no",
        ));
        let status = status(&binding(), &verdicts, None, None, at(5));
        let ready = of(&status, "Ready");
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "TemplateValidFalse")
        );
        assert_eq!(ready.message, "spec.template.spec: no");
    }

    #[test]
    fn a_binding_that_the_api_server_holds_back_says_so_before_all_else() {
        let mut verdicts = all_well();
        for _ in 0..2 {
            verdicts.throttled(Some("slowly"));
            let status = status(&binding(), &verdicts, None, None, at(5));
            let ready = of(&status, "Ready");
            assert_eq!(
                (ready.status.as_str(), ready.reason.as_str()),
                ("False", "Throttled")
            );
            verdicts.fails(Trouble::new(condition::CREDENTIALS_VALID, "NotRead", "no"));
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let first = status(&binding(), &all_well(), None, None, at(5));
        let second = status(&binding(), &all_well(), None, Some(&first), at(9));
        assert_eq!(second, first);
        let third = status(&binding(), &Verdicts::default(), None, Some(&first), at(9));
        assert_eq!(of(&third, "Ready").last_transition_time, Time(at(9)));
    }

    #[test]
    fn counters_stay_as_they_were_while_the_server_cannot_be_read() {
        let counters = Counters {
            queues: vec![QueueStatus {
                name: "gpu".into(),
                queued: 4,
                running: 2,
                ..QueueStatus::default()
            }],
            last_dispatch: Some(at(1)),
        };
        let first = status(&binding(), &all_well(), Some(&counters), None, at(5));
        let second = status(&binding(), &Verdicts::default(), None, Some(&first), at(6));
        assert_eq!((second.queued, second.running), (Some(4), Some(2)));
    }
}
