//! Kueue: quota is left to it. The queue label goes onto a Job at its release, never before its task is taken.
//!
//! ```text
//! intent (no label) ──take, park──▶ release: label ──Kueue: suspend false──▶ pod
//! ```
//!
//! Kueue admits any Job that carries its label, so an intent must not get one by other ways either: a default LocalQueue
//! and `manageJobsWithoutQueueName` would run it before its task is taken. Both are looked for, and then nothing is
//! taken. Source: Kueue, "Run a Kubernetes Job", "Setup LocalQueueDefaulting", "Configuration".

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use super::admit::Waiting;
use super::cluster::{call, pointed};
use super::fault;
use super::row::JobRow;
use super::scene::Scene;
use super::status::FIELD_MANAGER;
use crate::crd::{Capacity, QueueBindingSpec};
use crate::pod::{label, state};

/// The label by which Kueue takes hold of a Job.
pub(super) const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// The label of a Workload with the UID of its Job.
const JOB_UID: &str = "kueue.x-k8s.io/job-uid";
/// Name of the LocalQueue that Jobs without a label get where defaulting is on.
const DEFAULT_QUEUE: &str = "default";
/// Versions of the API, newest first.
const VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// How often the set-up is looked at, and Workloads are read.
const AGAIN: Duration = Duration::from_secs(30);
const WORKLOADS: Duration = Duration::from_secs(5);
const MOST_WORKLOADS: u32 = 500;

/// What is known of Kueue in a binding's namespace.
#[derive(Default)]
pub(super) struct Kueue {
    judged: Option<(String, Instant, Result<(), Waiting>)>,
    version: Option<&'static str>,
    read: Option<Instant>,
}

/// The LocalQueue that released Jobs are handed to, if the binding leaves quota to Kueue.
pub(super) fn queue_of(spec: &QueueBindingSpec) -> Option<&str> {
    let name = spec.kueue_queue_name.as_deref();
    name.filter(|_| spec.capacity == Capacity::Kueue)
}

/// The operation of a JSON patch that lets an intent run.
pub(super) fn release(spec: &QueueBindingSpec) -> Value {
    match queue_of(spec) {
        Some(queue) => {
            let path = format!("/metadata/labels/{}", pointed(QUEUE_LABEL));
            json!({"op": "add", "path": path, "value": queue})
        }
        None => json!({"op": "add", "path": "/spec/suspend", "value": false}),
    }
}

impl Kueue {
    /// Whether intents are safe from Kueue, and released Jobs come to its queue; else why nothing is taken.
    pub async fn judge(&mut self, scene: &Scene<'_>) -> Result<(), Waiting> {
        let spec = &scene.binding.spec;
        if spec.job.labels.contains_key(QUEUE_LABEL) {
            return Err(Waiting::new(
                "UnsafeKueue",
                format!(
                    "spec.job.labels sets {QUEUE_LABEL}: Kueue would run Jobs before their tasks are taken; \
                     use capacity Kueue with kueueQueueName"
                ),
            ));
        }
        if spec.capacity != Capacity::Kueue {
            return Ok(());
        }
        let Some(queue) = queue_of(spec) else {
            return Err(Waiting::new(
                "NoLocalQueue",
                "capacity Kueue needs spec.kueueQueueName, the LocalQueue that Jobs are handed to",
            ));
        };
        let namespace = scene.binding.namespace().unwrap_or_default();
        let now = Instant::now();
        if let Some((known, until, verdict)) = &self.judged
            && known == queue
            && now < *until
        {
            return verdict.clone();
        }
        let verdict = self.look(scene, &namespace, queue).await;
        self.judged = Some((queue.to_owned(), now + AGAIN, verdict.clone()));
        verdict
    }

    async fn look(
        &mut self,
        scene: &Scene<'_>,
        namespace: &str,
        queue: &str,
    ) -> Result<(), Waiting> {
        let context = scene.context;
        let queues = self.local_queues(context, namespace).await?;
        if queues.iter().any(|name| name == DEFAULT_QUEUE) {
            return Err(Waiting::new(
                "UnsafeKueue",
                format!(
                    "namespace {namespace:?} has a LocalQueue {DEFAULT_QUEUE:?}, which Kueue gives to every Job \
                     without one: it would run Jobs before their tasks are taken; name it otherwise"
                ),
            ));
        }
        if !queues.iter().any(|name| name == queue) {
            return Err(Waiting::new(
                "NoLocalQueue",
                format!(
                    "there is no LocalQueue {queue:?} in namespace {namespace:?} (spec.kueueQueueName)"
                ),
            ));
        }
        let probe = probe(namespace);
        let answer = dry_run(context, namespace, &probe).await?;
        manages_unlabelled(&answer).map_or(Ok(()), Err)
    }

    async fn local_queues(
        &mut self,
        context: &Context,
        namespace: &str,
    ) -> Result<Vec<String>, Waiting> {
        for version in VERSIONS {
            let api = objects(context, namespace, version, "LocalQueue");
            let listed =
                call(api.list_metadata(&ListParams::default().limit(MOST_WORKLOADS))).await;
            fault::point!("kueue/queues-listed");
            match listed {
                Ok(list) => {
                    self.version = Some(version);
                    return Ok(list.items.iter().map(ResourceExt::name_any).collect());
                }
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_verdict() => {
                    return Err(Waiting::new(
                        "RightMissing",
                        format!(
                            "capacity Kueue needs the right to list LocalQueues (chart: rbac.kueue): {error}"
                        ),
                    ));
                }
                Err(error) => {
                    return Err(Waiting::new(
                        "KueueNotSeen",
                        format!("LocalQueues could not be listed: {error}"),
                    ));
                }
            }
        }
        Err(Waiting::new(
            "KueueMissing",
            "capacity Kueue: the cluster has no LocalQueues; install Kueue, or choose another capacity",
        ))
    }

    /// Reads what Kueue says of released Jobs that wait for it, by the Job's UID.
    pub async fn explain(
        &mut self,
        scene: &Scene<'_>,
        waiting: &[Arc<JobRow>],
        words: &mut HashMap<String, String>,
    ) {
        let waits = |uid: &String| waiting.iter().any(|job| *job.uid == **uid);
        words.retain(|uid, _| waits(uid));
        let now = Instant::now();
        let Some(version) = self.version else { return };
        if waiting.is_empty() || self.read.is_some_and(|read| now < read + WORKLOADS) {
            return;
        }
        self.read = Some(now);
        let namespace = scene.binding.namespace().unwrap_or_default();
        let api = objects(scene.context, &namespace, version, "Workload");
        let workloads = match call(api.list(&ListParams::default().limit(MOST_WORKLOADS))).await {
            Ok(list) => list.items,
            Err(error) => {
                tracing::debug!(%error, "workloads of Kueue were not read");
                return;
            }
        };
        fault::point!("kueue/workloads-listed");
        for workload in workloads {
            let by_label = workload.labels().get(JOB_UID).cloned();
            let uids = by_label.into_iter().chain(
                workload
                    .owner_references()
                    .iter()
                    .map(|owner| owner.uid.clone()),
            );
            if let Some(uid) = uids.into_iter().find(waits) {
                words.insert(uid, told(&workload.data["status"]["conditions"]));
            }
        }
    }
}

/// Released Jobs that Kueue holds back.
pub(super) fn held_back(jobs: &[Arc<JobRow>]) -> Vec<Arc<JobRow>> {
    jobs.iter()
        .filter(|job| job.label(QUEUE_LABEL).is_some() && job.is_suspended())
        .filter(|job| job.label(label::STATE) == Some(state::HELD))
        .cloned()
        .collect()
}

/// Deletes Jobs that were suspended while they ran (Kueue evicted them) once their tasks are requeued or settled: another
/// attempt is a Job of its own, and this one must not run again.
pub(super) async fn clear_evicted(context: &Context, namespace: &str, jobs: &[Arc<JobRow>]) {
    let settled = |job: &&Arc<JobRow>| {
        job.label(label::STATE) == Some(state::SETTLED)
            && job.is_suspended()
            && !job.has_ended()
            && !job.is_deleting()
    };
    let api: Api<Job> = Api::namespaced(context.kube.clone(), namespace);
    for job in jobs.iter().filter(settled) {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(job.uid.to_string()),
                resource_version: None,
            }),
            ..DeleteParams::foreground()
        };
        match call(api.delete(&job.name, &params)).await {
            Ok(_) => {
                fault::point!("evicted/job-deleted");
                tracing::info!(job = %job.name, "Job that was suspended while it ran is deleted");
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(job = %job.name, %error, "suspended Job could not be deleted");
            }
        }
    }
}

fn objects(context: &Context, namespace: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("kueue.x-k8s.io", version, kind);
    Api::namespaced_with(
        context.kube.clone(),
        namespace,
        &ApiResource::from_gvk(&kind),
    )
}

/// A Job without the label that would run at once. It is never made, only judged by admission.
fn probe(namespace: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "generateName": "trainyard-kueue-probe-", "namespace": namespace },
        "spec": { "suspend": false, "template": { "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": false,
            "containers": [{ "name": "task", "image": "probe" }],
        } } },
    })
}

async fn dry_run(context: &Context, namespace: &str, job: &Value) -> Result<Value, Waiting> {
    let path = format!(
        "/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All&fieldManager={FIELD_MANAGER}"
    );
    let not_seen = |error: &dyn std::fmt::Display| {
        let message =
            format!("whether Kueue takes Jobs without a queue could not be found out: {error}");
        Waiting::new("KueueNotSeen", message)
    };
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(job.to_string().into_bytes())
        .map_err(|error| not_seen(&error))?;
    let answer = call(context.kube.request::<Value>(request)).await;
    fault::point!("kueue/dry-run");
    answer.map_err(|error| not_seen(&error))
}

/// Whether admission has laid hands on a Job that carries no label of Kueue.
fn manages_unlabelled(answer: &Value) -> Option<Waiting> {
    let labelled = answer["metadata"]["labels"][QUEUE_LABEL].as_str();
    let why = match (labelled, &answer["spec"]["suspend"]) {
        (Some(queue), _) => format!(
            "Kueue gives LocalQueue {queue:?} to every Job of this namespace that names none"
        ),
        (None, Value::Bool(true)) => {
            "Kueue takes every Job of this namespace (manageJobsWithoutQueueName)".to_owned()
        }
        _ => return None,
    };
    Some(Waiting::new(
        "UnsafeKueue",
        format!("{why}: it would run Jobs before their tasks are taken; nothing is taken"),
    ))
}

/// What the conditions of a Workload say to people.
fn told(conditions: &Value) -> String {
    let conditions: Vec<&Value> = conditions.as_array().into_iter().flatten().collect();
    let of = |kind: &str| {
        conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .copied()
    };
    let text = |condition: &Value| {
        let words = condition["message"]
            .as_str()
            .filter(|words| !words.is_empty());
        words
            .or(condition["reason"].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let holds = |condition: &&Value| condition["status"] == "True";
    if let Some(evicted) = of("Evicted").filter(holds) {
        return format!("Kueue has evicted it: {}", text(evicted));
    }
    match (of("QuotaReserved"), of("Admitted")) {
        (_, Some(admitted)) if holds(&admitted) => {
            "admitted by Kueue, waits for its pod".to_owned()
        }
        (Some(reserved), _) if holds(&reserved) => {
            format!(
                "Kueue has reserved quota, not admitted yet: {}",
                of("Admitted").map_or_else(String::new, text)
            )
        }
        (Some(reserved), _) => format!("waiting for quota of Kueue: {}", text(reserved)),
        (None, _) => "waiting for quota of Kueue".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: &Value) -> QueueBindingSpec {
        let mut whole = json!({ "queues": [{ "name": "gpu" }] });
        for (name, field) in value.as_object().unwrap() {
            whole[name] = field.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_label_takes_the_place_of_the_release_and_only_with_kueue() {
        assert_eq!(
            release(&spec(
                &json!({ "capacity": "Kueue", "kueueQueueName": "team" })
            )),
            json!({"op": "add", "path": "/metadata/labels/kueue.x-k8s.io~1queue-name", "value": "team"})
        );
        assert_eq!(
            release(&spec(&json!({ "kueueQueueName": "team" }))),
            json!({"op": "add", "path": "/spec/suspend", "value": false})
        );
    }

    #[test]
    fn admission_that_takes_unlabelled_jobs_is_recognised() {
        let answer = |labels: Value, suspend: bool| json!({ "metadata": { "labels": labels }, "spec": { "suspend": suspend } });
        assert_eq!(
            manages_unlabelled(&answer(json!({ "team": "a" }), false)),
            None
        );
        let labelled = manages_unlabelled(&answer(
            json!({ "kueue.x-k8s.io/queue-name": "default" }),
            false,
        ))
        .unwrap();
        assert!(
            labelled.message.contains("LocalQueue \"default\""),
            "{labelled:?}"
        );
        let taken = manages_unlabelled(&answer(Value::Null, true)).unwrap();
        assert!(
            taken.message.contains("manageJobsWithoutQueueName"),
            "{taken:?}"
        );
    }

    #[test]
    fn conditions_of_a_workload_are_told_in_words() {
        let condition = |kind: &str, status: &str, message: &str| json!({ "type": kind, "status": status, "message": message });
        for (conditions, words) in [
            (json!([]), "waiting for quota of Kueue"),
            (
                json!([condition(
                    "QuotaReserved",
                    "False",
                    "insufficient quota for nvidia.com/gpu"
                )]),
                "waiting for quota of Kueue: insufficient quota for nvidia.com/gpu",
            ),
            (
                json!([
                    condition("QuotaReserved", "True", "reserved"),
                    condition("Admitted", "True", "")
                ]),
                "admitted by Kueue, waits for its pod",
            ),
            (
                json!([
                    condition("QuotaReserved", "False", "x"),
                    condition("Evicted", "True", "preempted by a higher one")
                ]),
                "Kueue has evicted it: preempted by a higher one",
            ),
        ] {
            assert_eq!(told(&conditions), words);
        }
    }
}
