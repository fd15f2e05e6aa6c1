//! Jobs and pods of a binding's namespace, as the mirrors have them, and what is known beyond the objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Context;
use super::inquiry::Asker;
use super::memory::Memory;
use super::observe::{self, Identity, Objects};
use super::phases::Phases;
use crate::pod::label;
use crate::task::TaskId;

/// Jobs and pods of the binding's namespace, as the mirrors have them now.
pub(super) struct Live {
    pub objects: HashMap<TaskId, Objects>,
    /// This binding's Jobs that have not ended: what its limits are summed up from.
    pub own_unended: Vec<Arc<Job>>,
    /// Tasks of this binding's Jobs that something may still have to be done about.
    pub own_unsettled: HashSet<TaskId>,
}

impl Live {
    pub fn of(context: &Context, identity: &Identity, namespace: &str) -> Self {
        let mut objects: HashMap<TaskId, Objects> = HashMap::new();
        let mut own_unended = Vec::new();
        let mut own_unsettled = HashSet::new();
        for (task, job) in context.jobs.in_namespace(namespace) {
            if observe::is_ours(identity, &job) {
                let ended = observe::has_ended(&job);
                let settled = job.labels().get(label::STATE).map(String::as_str)
                    == Some(crate::pod::state::SETTLED);
                if !ended {
                    own_unended.push(job.clone());
                }
                if !(ended && settled) {
                    own_unsettled.insert(task.clone());
                }
            }
            objects.entry(task).or_default().jobs.push(job);
        }
        for (task, pod) in context.pods.in_namespace(namespace) {
            objects.entry(task).or_default().pods.push(pod);
        }
        Self {
            objects,
            own_unended,
            own_unsettled,
        }
    }
}

/// How long the phases of a task took whose process has just begun.
fn measure(
    context: &Context,
    phases: &Phases,
    namespace: &str,
    live: &Live,
    job_uid: &str,
    pod: &Pod,
) {
    let Some(job) = live
        .own_unended
        .iter()
        .find(|job| job.metadata.uid.as_deref() == Some(job_uid))
    else {
        return;
    };
    let binding = job.labels().get(label::BINDING).map_or("", String::as_str);
    for (phase, seconds) in phases.of(job, pod) {
        context
            .metrics
            .phase(&format!("{namespace}/{binding}"), phase, seconds);
    }
}

/// Brings what is known beyond the objects up to date; `at_once` for a pass that no other follows.
pub(super) async fn learn(
    context: &Context,
    memory: &mut Memory,
    (namespace, binding): (&str, &str),
    live: &Live,
    at_once: bool,
) {
    let unsettled: HashSet<String> = live
        .own_unsettled
        .iter()
        .filter_map(|task| live.objects.get(task))
        .flat_map(|objects| &objects.jobs)
        .filter_map(|job| job.uid())
        .collect();
    let lore = &mut memory.lore;
    for pod in context.pods.take_gone(namespace, binding) {
        for owner in pod.owner_references() {
            lore.remains.insert(owner.uid.clone(), pod.clone());
        }
    }
    lore.remains.retain(|uid, _| unsettled.contains(uid));
    let uids: HashSet<String> = live
        .own_unended
        .iter()
        .filter_map(|job| job.uid())
        .collect();
    lore.started.retain(|uid| uids.contains(uid));
    let mut pod_of: HashMap<&str, &Arc<Pod>> = HashMap::new();
    for pod in live.objects.values().flat_map(|objects| &objects.pods) {
        for owner in pod.owner_references() {
            pod_of.insert(&owner.uid, pod);
            if uids.contains(&owner.uid)
                && observe::task_container_started(pod)
                && lore.started.insert(owner.uid.clone())
            {
                measure(context, &memory.phases, namespace, live, &owner.uid, pod);
            }
        }
    }
    let released = |job: &&Arc<Job>| job.spec.as_ref().and_then(|spec| spec.suspend) == Some(false);
    let waiting: Vec<(Arc<Job>, Option<Arc<Pod>>)> = live
        .own_unended
        .iter()
        .filter(released)
        .filter(|job| {
            job.metadata
                .uid
                .as_ref()
                .is_some_and(|uid| !lore.started.contains(uid))
        })
        .map(|job| {
            (
                job.clone(),
                pod_of
                    .get(job.metadata.uid.as_deref().unwrap_or_default())
                    .map(|pod| (*pod).clone()),
            )
        })
        .collect();
    let asker = Asker {
        context,
        namespace,
        alarm: context.wakers.of(namespace, binding),
        at_once,
    };
    memory.inquiry.ask(&asker, &waiting, lore).await;
    memory.troubles.look(live, &memory.lore, Timestamp::now());
}
