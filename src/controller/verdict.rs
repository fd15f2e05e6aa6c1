//! Why a Job ended or waits: `diagnose`, in the words of the claim and of the task.

use std::sync::Arc;

use serde_json::{Value, json};

use super::observe::Lore;
use super::row::{JobRow, PodRow};
use crate::claim::Cause;
use crate::diagnose::{self, Category, Diagnosis, Fault, Outcome, Waiting};
use crate::pod::annotation;

/// Words of evidence that go into a task's log, in lines.
const EVIDENCE: usize = 20;

/// How a run ended, in words for the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub outcome: Outcome,
    pub reason: String,
    pub message: String,
    /// What the cluster said, for the task's log.
    pub evidence: Vec<String>,
}

impl Ended {
    /// An interruption after which there is no other attempt, since so many were allowed.
    pub fn tell_as_spent(&mut self, budget: i32) {
        let category = self.reason.strip_prefix("trainyard: ");
        let category = category.unwrap_or(&self.reason);
        self.reason = spent_reason(category);
        self.message = spent_message(budget, &format!(": {}", self.message));
    }
}

/// Status reason of a task whose budget of interruptions is spent.
pub(super) fn spent_reason(category: &str) -> String {
    format!("trainyard: interrupted too often, {category}")
}

/// Its status message; `detail` tells the last interruption, or is empty.
pub(super) fn spent_message(budget: i32, detail: &str) -> String {
    format!("interrupted more than {budget} times (maxInterruptions){detail}")
}

/// Whose fault the end was.
pub(super) fn cause(job: &JobRow, pods: &[Arc<PodRow>]) -> Cause {
    let diagnosis = diagnosis(job, pods);
    match (diagnosis.fault, diagnosis.outcome) {
        (Fault::Interruption, _) => Cause::Interruption,
        (Fault::Task, Outcome::Failed) => Cause::Failure,
        (Fault::Task, Outcome::Completed | Outcome::Stopped) => Cause::Task,
    }
}

/// How the run of an ended Job ended.
pub(super) fn ended(job: &JobRow, pods: &[Arc<PodRow>]) -> Ended {
    let diagnosis = diagnosis(job, pods);
    Ended {
        outcome: diagnosis.outcome,
        reason: diagnosis.category.reason(),
        message: diagnosis.message(),
        evidence: diagnosis.evidence.into_iter().take(EVIDENCE).collect(),
    }
}

/// How a run ended, as annotations of its Job. What nobody could tell is null: a merge leaves it out.
pub(super) fn notes(end: &Diagnosis) -> Value {
    let exit_code = end.exit_code.map(|code| code.to_string());
    json!({annotation::ENDED: end.category.as_str(), annotation::EXIT_CODE: exit_code})
}

/// A run whose Job is gone.
pub(super) fn lost() -> Ended {
    Ended {
        outcome: Outcome::Failed,
        reason: "trainyard: lost".into(),
        message: "its Job was deleted while it ran, and its pod could not report".into(),
        evidence: Vec::new(),
    }
}

/// Why a released Job's task container has not started; nothing if it simply is on its way.
pub(super) fn waiting(job: &JobRow, pods: &[Arc<PodRow>], lore: &Lore) -> Option<Waiting> {
    if let Some(words) = lore.kueue.get(&*job.uid) {
        return Some(Waiting {
            category: Category::Quota,
            sentence: words.clone(),
            remedy: None,
            refused: false,
        });
    }
    let events = lore.events.get(&*job.uid);
    let pod = last_pod(&job.uid, pods).map(PodRow::object);
    diagnose::waiting(
        pod.as_deref(),
        events.map(Vec::as_slice).unwrap_or_default(),
    )
}

/// Whether the cluster has accepted the Job and refuses its pod.
pub(super) fn is_refused(events: &[diagnose::Event]) -> bool {
    diagnose::waiting(None, events).is_some_and(|waiting| waiting.refused)
}

pub(super) fn diagnosis(job: &JobRow, pods: &[Arc<PodRow>]) -> Diagnosis {
    let pod = last_pod(&job.uid, pods).map(PodRow::object);
    diagnose::ended(&job.object(), pod.as_deref())
}

/// The youngest pod of a Job.
pub(super) fn last_pod<'a>(job_uid: &str, pods: &'a [Arc<PodRow>]) -> Option<&'a PodRow> {
    pods.iter()
        .filter(|pod| pod.is_owned_by(job_uid))
        .max_by_key(|pod| pod.created)
        .map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::row::Row;

    #[test]
    fn a_job_that_kueue_holds_back_waits_for_quota_and_is_not_refused() {
        let job = json!({"metadata": {"uid": "j"}});
        let job = JobRow::of(serde_json::from_value(job).unwrap());
        let mut lore = Lore::default();
        assert_eq!(waiting(&job, &[], &lore), None);
        lore.kueue.insert("j".to_owned(), "no quota".to_owned());
        let told = waiting(&job, &[], &lore).unwrap();
        assert_eq!(told.category, Category::Quota);
        assert_eq!(told.message(), "no quota");
        assert!(!told.refused);
    }
}
