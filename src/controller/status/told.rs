//! Told: which faults of a binding people have heard of, so that each is told once, and its end once.
//!
//! A condition may be unknown between its fault and its end, or between a fault and the same again: nobody could look.
//! Nothing is told of that, and nothing forgotten.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;

use crate::crd::{QueueBindingStatus, condition};

/// The conditions that were told to fail and not yet to hold again, with the words they were told in.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(BTreeMap<String, String>);

impl Told {
    /// What there is to tell once `wanted` is written: a warning of each new fault, a normal word of each end.
    pub fn changes(
        &mut self,
        before: Option<&QueueBindingStatus>,
        wanted: &QueueBindingStatus,
    ) -> Vec<(EventType, Condition)> {
        self.remember(before);
        let mut changes = Vec::new();
        for condition in wanted.conditions.iter().filter(|known| is_told(known)) {
            let (kind, words) = (&condition.type_, &condition.message);
            match condition.status.as_str() {
                "False" => {
                    let known = self.0.insert(kind.clone(), words.clone());
                    if known.as_ref() != Some(words) {
                        changes.push((EventType::Warning, condition.clone()));
                    }
                }
                "True" if self.0.remove(kind).is_some() => {
                    changes.push((EventType::Normal, condition.clone()));
                }
                _ => {}
            }
        }
        changes
    }

    /// What stands in the status already, an earlier process has told.
    fn remember(&mut self, before: Option<&QueueBindingStatus>) {
        let conditions = before.into_iter().flat_map(|status| &status.conditions);
        for known in conditions.filter(|known| is_told(known) && known.status == "False") {
            let kind = known.type_.clone();
            self.0.entry(kind).or_insert_with(|| known.message.clone());
        }
    }
}

/// That there is no room comes and goes; `Ready` repeats what another condition says.
fn is_told(condition: &Condition) -> bool {
    condition.type_ != condition::READY && condition.type_ != condition::CAPACITY_AVAILABLE
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status(truth: &str, message: &str) -> QueueBindingStatus {
        let condition = Condition {
            type_: condition::CREDENTIALS_VALID.to_owned(),
            status: truth.to_owned(),
            reason: "Any".to_owned(),
            message: message.to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        QueueBindingStatus {
            conditions: vec![condition],
            ..QueueBindingStatus::default()
        }
    }

    /// What is told of these statuses, one written after the other, from what the binding says first.
    fn told(first: Option<&QueueBindingStatus>, written: &[QueueBindingStatus]) -> Vec<EventType> {
        let mut told = Told::default();
        let mut before = first;
        let mut all = Vec::new();
        for wanted in written {
            let changes = told.changes(before, wanted);
            all.extend(changes.into_iter().map(|(type_, _)| type_));
            before = Some(wanted);
        }
        all
    }

    #[test]
    fn an_event_tells_a_fault_once_and_its_end_once() {
        let (fine, faulty) = (status("True", ""), status("False", "no"));
        assert!(told(None, &[fine.clone(), fine.clone()]).is_empty());
        let all = told(
            None,
            &[fine.clone(), faulty.clone(), faulty, fine.clone(), fine],
        );
        assert_eq!(all, [EventType::Warning, EventType::Normal]);
        let other = [status("False", "no"), status("False", "no, and why")];
        assert_eq!(told(None, &other).len(), 2, "other words are news");
    }

    #[test]
    fn what_nobody_could_look_at_meanwhile_is_neither_told_again_nor_forgotten() {
        let [fine, faulty, unknown] = [("True", ""), ("False", "no"), ("Unknown", "")]
            .map(|(truth, words)| status(truth, words));
        let written = [
            faulty.clone(),
            unknown.clone(),
            faulty.clone(),
            unknown.clone(),
            fine.clone(),
        ];
        assert_eq!(
            told(None, &written),
            [EventType::Warning, EventType::Normal]
        );
        // An earlier process has told the fault.
        let end = told(Some(&faulty), &[unknown.clone(), fine.clone()]);
        assert_eq!(end, [EventType::Normal]);
        assert!(told(Some(&unknown), &[fine]).is_empty());
    }
}
