//! Jobs and pods of a binding's namespace, as the mirrors have them, and what is known beyond the objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::Context;
use super::inquiry::Asker;
use super::memory::Memory;
use super::observe::{self, Identity, Objects};
use super::phases::Phases;
use super::row::{JobRow, PodRow};
use crate::pod::label;
use crate::task::TaskId;

/// Jobs and pods of the binding's namespace, as the mirrors have them now.
#[derive(Default)]
pub(super) struct Live {
    pub objects: HashMap<TaskId, Objects>,
    /// This binding's Jobs that have not ended: what its limits are summed up from.
    pub own_unended: Vec<Arc<JobRow>>,
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
                let ended = job.has_ended();
                let settled = job.label(label::STATE) == Some(crate::pod::state::SETTLED);
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
fn measure(context: &Context, phases: &Phases, namespace: &str, job: &JobRow, pod: &PodRow) {
    let binding = job.label(label::BINDING).unwrap_or_default();
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
    let unsettled: HashSet<&str> = live
        .own_unsettled
        .iter()
        .filter_map(|task| live.objects.get(task))
        .flat_map(|objects| &objects.jobs)
        .map(|job| &*job.uid)
        .collect();
    let lore = &mut memory.lore;
    for pod in context.pods.take_gone(namespace, binding) {
        for owner in &pod.owners {
            lore.remains.insert(owner.to_string(), pod.clone());
        }
    }
    lore.remains
        .retain(|uid, _| unsettled.contains(uid.as_str()));
    let unended: HashMap<&str, &JobRow> = live
        .own_unended
        .iter()
        .map(|job| (&*job.uid, &**job))
        .collect();
    lore.started
        .retain(|uid| unended.contains_key(uid.as_str()));
    let mut pod_of: HashMap<&str, &Arc<PodRow>> = HashMap::new();
    for pod in live.objects.values().flat_map(|objects| &objects.pods) {
        for owner in &pod.owners {
            pod_of.insert(owner, pod);
            if let Some(job) = unended.get(&**owner)
                && pod.has_started()
                && !lore.started.contains(&**owner)
            {
                lore.started.insert(owner.to_string());
                measure(context, &memory.phases, namespace, job, pod);
            }
        }
    }
    let waiting: Vec<(Arc<JobRow>, Option<Arc<PodRow>>)> = live
        .own_unended
        .iter()
        .filter(|job| !job.is_suspended() && !lore.started.contains(&*job.uid))
        .map(|job| {
            let pod = pod_of.get(&*job.uid).map(|pod| (*pod).clone());
            (job.clone(), pod)
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
