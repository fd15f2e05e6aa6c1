//! Adopt: ends of runs whose binding was deleted with `Orphan` while they ran. Their pods report for themselves; one that
//! died without a word would leave its task in progress. A binding of the same name writes that end.
//!
//! Such a Job has no owner. Whose it was stands in its label, and in the task's mark, which names the binding too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::cluster::call;
use super::observe::Identity;
use super::row::{JobObject, JobRow, PodRow};
use super::status::FIELD_MANAGER;
use super::{Context, fault, verdict};
use crate::api::{self, Client, Facts};
use crate::claim::QUIET_TIME;
use crate::diagnose::Outcome;
use crate::pod::{label, state};
use crate::task::{Attempt, Status, TaskId, WorkerId};

/// How often they are looked for.
const PERIOD: Duration = Duration::from_secs(10);

/// Ended runs without an owner, and since when their tasks were seen as they are.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    next: Option<Instant>,
    seen: HashMap<String, (Option<String>, Timestamp)>,
}

/// An ended Job that nobody owns.
struct Ward {
    task: TaskId,
    attempt: Attempt,
    job: Arc<JobRow>,
    pods: Vec<Arc<PodRow>>,
}

impl Adoption {
    /// Settles what has stood unchanged for the quiet time. Tasks are read only once their Jobs have ended, so that nothing
    /// is known of how long they stood before.
    pub async fn settle(
        &mut self,
        context: &Context,
        client: &Client,
        identity: &Identity,
        namespace: &str,
        binding_label: &str,
    ) -> Result<(), api::Error> {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) || !context.jobs.sound() {
            return Ok(());
        }
        self.next = Some(now + PERIOD);
        let wards = wards(context, namespace, binding_label);
        let uids: Vec<&str> = wards.iter().map(|ward| &*ward.job.uid).collect();
        self.seen.retain(|uid, _| uids.contains(&uid.as_str()));
        for ward in wards {
            self.one(context, client, identity, namespace, &ward)
                .await?;
        }
        Ok(())
    }

    async fn one(
        &mut self,
        context: &Context,
        client: &Client,
        identity: &Identity,
        namespace: &str,
        ward: &Ward,
    ) -> Result<(), api::Error> {
        let read_at = Timestamp::now();
        let found = client.task_facts(std::slice::from_ref(&ward.task)).await?;
        fault::point!("adopt/task-read");
        if !found.unreadable.is_empty() {
            return Ok(());
        }
        let runs = found
            .tasks
            .first()
            .filter(|facts| facts.status == Status::InProgress && is_run_of(identity, facts, ward));
        if let Some(facts) = runs {
            let (_, since) = self
                .seen
                .entry(ward.job.uid.to_string())
                .and_modify(|known| {
                    if known.0 != facts.status_changed {
                        *known = (facts.status_changed.clone(), read_at);
                    }
                })
                .or_insert_with(|| (facts.status_changed.clone(), read_at));
            if read_at.duration_since(*since) < QUIET_TIME {
                return Ok(());
            }
            write_end(client, ward).await?;
        } else if found
            .tasks
            .first()
            .is_some_and(|facts| facts.status == Status::InProgress)
        {
            // Somebody else's run by now.
            tracing::debug!(task = %ward.task, "run of an orphaned Job is another's");
        }
        mark(context, namespace, ward).await;
        Ok(())
    }
}

/// Ended Jobs of a binding of this name that nobody owns and that are not settled.
fn wards(context: &Context, namespace: &str, binding_label: &str) -> Vec<Ward> {
    let pods = context.pods.in_namespace(namespace);
    let jobs = context.jobs.in_namespace(namespace).into_iter();
    jobs.filter(|(_, job)| {
        job.owners.is_empty()
            && job.has_ended()
            && job.label(label::BINDING) == Some(binding_label)
            && job.label(label::STATE) == Some(state::HELD)
    })
    .filter_map(|(task, job)| {
        let attempt = Attempt(job.label(label::ATTEMPT)?.parse().ok()?);
        let own = pods
            .iter()
            .filter(|(of, _)| *of == task)
            .map(|(_, pod)| pod.clone())
            .collect();
        Some(Ward {
            task,
            attempt,
            job,
            pods: own,
        })
    })
    .collect()
}

/// Whether the task runs as this attempt of a binding of our name: the worker ids differ in the binding's UID alone.
fn is_run_of(identity: &Identity, facts: &Facts, ward: &Ward) -> bool {
    let of_name = |worker: &WorkerId| {
        let (Some((ours, _)), Some((theirs, _))) = (
            identity.worker.0.rsplit_once(':'),
            worker
                .0
                .strip_suffix(&format!(":{}:{}", ward.task, ward.attempt))
                .and_then(|base| base.rsplit_once(':')),
        ) else {
            return false;
        };
        ours == theirs
    };
    let named = [facts.mark.as_ref(), facts.last_worker.as_ref()];
    named.iter().any(Option::is_some) && named.into_iter().flatten().all(of_name)
}

async fn write_end(client: &Client, ward: &Ward) -> Result<(), api::Error> {
    let ended = verdict::ended(&ward.job, &ward.pods);
    let (task, reason, message) = (&ward.task, &ended.reason, &ended.message);
    let answer = match ended.outcome {
        Outcome::Completed => client.completed(task, reason, message).await,
        Outcome::Failed => client.failed(task, reason, message).await,
        Outcome::Stopped => client.stopped(task, reason, message).await,
    };
    fault::point!("adopt/written");
    match answer {
        // Somebody else has ended it.
        Err(error) if error.is(400, 110) || error.is(400, 121) || error.is_unknown_task() => Ok(()),
        answer => answer,
    }
}

/// The end is stored. That this could not be noted is no harm: it is tried again.
async fn mark(context: &Context, namespace: &str, ward: &Ward) {
    let jobs: Api<JobObject> = Api::namespaced(context.kube.clone(), namespace);
    let notes = verdict::notes(&verdict::diagnosis(&ward.job, &ward.pods));
    let patch = json!({
        "metadata": {"uid": ward.job.uid, "labels": {label::STATE: state::SETTLED}, "annotations": notes},
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let answer = call(jobs.patch(&ward.job.name, &params, &Patch::Merge(&patch))).await;
    fault::point!("adopt/marked");
    match answer {
        Ok(job) => context.jobs.note(job),
        Err(error) => {
            tracing::debug!(task = %ward.task, %error, "orphaned Job was not marked as settled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::TASK;

    fn ward() -> Ward {
        Ward {
            task: TASK.parse().unwrap(),
            attempt: Attempt(2),
            job: Arc::new(JobRow::default()),
            pods: Vec::new(),
        }
    }

    fn facts(mark: Option<&str>, last_worker: Option<&str>) -> Facts {
        Facts {
            id: ward().task,
            status: Status::InProgress,
            status_reason: String::new(),
            status_message: String::new(),
            status_changed: None,
            mark: mark.map(|text| WorkerId(text.into())),
            last_worker: last_worker.map(|text| WorkerId(text.into())),
            enqueue_status: None,
            queue: None,
        }
    }

    #[test]
    fn a_run_is_of_a_binding_of_the_same_name_whatever_its_uid() {
        let identity = Identity {
            uid: "bbbbbbbb-1".into(),
            worker: WorkerId("trainyard:ns.gpu:bbbbbbbb".into()),
        };
        let is = |mark, last| is_run_of(&identity, &facts(mark, last), &ward());
        let earlier = format!("trainyard:ns.gpu:aaaaaaaa:{TASK}:2");
        assert!(is(Some(&earlier), None) && is(None, Some(&earlier)));
        assert!(!is(None, None));
        assert!(!is(Some(&earlier), Some("host:gpu0")));
        for other in [
            format!("trainyard:ns.gpu:aaaaaaaa:{TASK}:1"),
            format!("trainyard:ns.cpu:aaaaaaaa:{TASK}:2"),
            format!("other:ns.gpu:aaaaaaaa:{TASK}:2"),
        ] {
            let found = is_run_of(&identity, &facts(Some(&other), None), &ward());
            assert!(!found, "{other}");
        }
    }
}
