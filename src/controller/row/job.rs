//! What is kept of a Job.

use std::ops::Deref;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::lean::{JobObject, Lean};
use super::{Head, Notes, Row};
use crate::controller::kueue::QUEUE_LABEL;
use crate::pod::{annotation, label, state};

/// A Job: its claim, and how far it is.
#[derive(Debug, Clone, Default)]
pub(in crate::controller) struct JobRow {
    head: Head,
    labels: Notes,
    annotations: Notes,
    suspended: bool,
    /// Of pods that run or are on their way out.
    pods: i32,
    deadline_s: Option<i64>,
    started: Option<Timestamp>,
    /// Those that hold.
    conditions: Box<[JobCondition]>,
}

impl Row for JobRow {
    type Object = JobObject;

    /// Keeps of the spec what it says of the Job itself; the template's requests are an annotation.
    fn of(Lean(job): JobObject) -> Self {
        const LABELS: [&str; 8] = [
            QUEUE_LABEL,
            label::TASK,
            label::QUEUE,
            label::BINDING,
            label::PROJECT,
            label::USER,
            label::ATTEMPT,
            label::STATE,
        ];
        const ANNOTATIONS: [&str; 8] = [
            annotation::RETURNED,
            annotation::TURN,
            annotation::REQUEUES,
            annotation::FAILURES,
            annotation::NODE,
            annotation::ENVIRONMENT,
            annotation::REQUESTS,
            annotation::OUTCOME,
        ];
        let status = job.status.unwrap_or_default();
        let conditions = status.conditions.into_iter().flatten();
        Self {
            head: Head::of(&job.metadata),
            labels: Notes::of(job.metadata.labels, &LABELS),
            annotations: Notes::of(job.metadata.annotations, &ANNOTATIONS),
            suspended: job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true),
            pods: status.active.unwrap_or(0) + status.terminating.unwrap_or(0),
            deadline_s: job.spec.and_then(|spec| spec.active_deadline_seconds),
            started: status.start_time.map(|time| time.0),
            conditions: conditions
                .filter(|condition| condition.status == "True")
                .collect(),
        }
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

impl Deref for JobRow {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl JobRow {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// When its controller began with it; a suspended one has not begun.
    pub fn started(&self) -> Option<Timestamp> {
        self.started
    }

    fn holds(&self, condition: &str) -> bool {
        self.conditions.iter().any(|known| known.type_ == condition)
    }

    fn end(&self) -> Option<&JobCondition> {
        let is_end = |name: &str| name == "Complete" || name == "Failed";
        self.conditions.iter().find(|known| is_end(&known.type_))
    }

    /// Complete or failed; its pods have ended then.
    pub fn has_ended(&self) -> bool {
        self.end().is_some()
    }

    /// Whether it ended as it should.
    pub fn is_complete(&self) -> bool {
        self.holds("Complete")
    }

    /// When it has ended.
    pub fn ended(&self) -> Option<Timestamp> {
        let at = self.end()?.last_transition_time.as_ref();
        at.map(|time| time.0)
    }

    /// Suspended after its release, by Kueue that evicts it or by hand, and no pod of it is left. Where the task says that
    /// this attempt ran, the attempt is over: another pod of it would not pass the fence, since the entry is no longer
    /// pending.
    pub fn is_evicted(&self) -> bool {
        let released = self.label(label::STATE) != Some(state::INTENT);
        released && self.suspended && self.holds("Suspended") && self.pods == 0
    }

    /// The Job with what a diagnosis reads of it.
    pub fn object(&self) -> Job {
        Job {
            metadata: ObjectMeta {
                name: Some(self.head.name.as_ref().to_owned()),
                uid: Some(self.head.uid.as_ref().to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                suspend: Some(self.suspended),
                active_deadline_seconds: self.deadline_s,
                ..JobSpec::default()
            }),
            status: Some(JobStatus {
                conditions: Some(self.conditions.to_vec()),
                ..JobStatus::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn row(job: Value) -> JobRow {
        JobRow::of(serde_json::from_value(job).unwrap())
    }

    #[test]
    fn labels_and_annotations_that_somebody_reads_are_kept() {
        let row = row(json!({
            "metadata": {
                "name": "j", "uid": "u", "resourceVersion": "7", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {label::TASK: "t", "team": "vision", QUEUE_LABEL: "q", label::USER: "", label::STATE: "held"},
                "annotations": {annotation::TURN: "now", "long": "words"},
                "ownerReferences": [{"apiVersion": "v", "kind": "QueueBinding", "name": "gpu", "uid": "b"}],
            },
            "spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "task"}]}}},
        }));
        assert_eq!(
            (row.label(label::TASK), row.label("team")),
            (Some("t"), None)
        );
        assert_eq!(row.label(QUEUE_LABEL), Some("q"));
        assert_eq!(
            (row.label(label::USER), row.label(label::PROJECT)),
            (Some(""), None)
        );
        assert_eq!(row.label(label::STATE), Some("held"));
        assert_eq!(row.annotation(annotation::TURN), Some("now"));
        assert_eq!(row.annotation("long"), None);
        assert!(row.is_suspended() && row.is_deleting() && row.is_owned_by("b"));
        assert_eq!((&*row.name, &*row.uid, row.version()), ("j", "u", 7));
    }

    #[test]
    fn only_conditions_that_hold_are_kept() {
        let row = row(json!({"metadata": {}, "status": {"conditions": [
            {"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"},
        ]}}));
        assert!(row.has_ended());
        let conditions = row.object().status.unwrap().conditions.unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].reason.as_deref(), Some("DeadlineExceeded"));
    }

    #[test]
    fn a_released_job_that_is_suspended_without_pods_is_evicted_and_one_that_never_ran_only_waits()
    {
        let job = |state: &str, status: Value| {
            row(json!({
                "metadata": { "labels": { "trainyard.dev/state": state } },
                "spec": { "suspend": true, "template": {} }, "status": status,
            }))
        };
        let suspended = json!([{ "type": "Suspended", "status": "True" }]);
        let none_left = json!({ "conditions": suspended });
        assert!(job("held", none_left.clone()).is_evicted());
        assert!(!job("intent", none_left).is_evicted());
        for left in ["active", "terminating"] {
            let mut status = json!({ "conditions": suspended });
            status[left] = 1.into();
            assert!(!job("held", status).is_evicted(), "{left}");
        }
        // Suspended a moment ago, and its controller has not seen it: pods may still run.
        assert!(!job("held", json!({ "active": 0 })).is_evicted());
    }
}
