//! Deletion of a binding: the finalizer stays until what was taken has gone back and running Jobs stay or go as
//! `deletionPolicy` says.

use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::Context;
use super::cluster::{Error, call};
use super::fault;
use super::observe::{self, Identity};
use super::resolve::Resolved;
use super::row::{JobObject, JobRow};
use super::status::FIELD_MANAGER;
use crate::api::Client;
use crate::crd::{DeletionPolicy, QueueBinding};
use crate::task::TaskId;

const FINALIZER: &str = "trainyard.dev/return-tasks";

/// Whether our finalizer is on the binding.
pub(super) fn is_held(binding: &QueueBinding) -> bool {
    binding.finalizers().iter().any(|name| name == FINALIZER)
}

/// Puts the finalizer on the binding, before anything is taken.
pub(super) async fn hold(api: &Api<QueueBinding>, binding: &QueueBinding) -> Result<(), Error> {
    let mut finalizers = binding.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    write(api, binding, &finalizers).await
}

/// Takes the finalizer off: the binding may go.
pub(super) async fn let_go(api: &Api<QueueBinding>, binding: &QueueBinding) -> Result<(), Error> {
    let finalizers: Vec<String> = binding
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .cloned()
        .collect();
    write(api, binding, &finalizers).await
}

/// The resourceVersion keeps a list that somebody else has changed from being overwritten.
async fn write(
    api: &Api<QueueBinding>,
    binding: &QueueBinding,
    finalizers: &[String],
) -> Result<(), Error> {
    let patch = json!({
        "metadata": {"resourceVersion": binding.resource_version(), "finalizers": finalizers},
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let answer = call(api.patch(&binding.name_any(), &params, &Patch::Merge(&patch))).await;
    fault::point!("binding/finalizers-written");
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        // The next version of the object is on its way to us.
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// With `Delete`: aborts running tasks, so that their Jobs are withdrawn with grace. Answers whether none is left.
pub(super) async fn stop_running(
    context: &Context,
    client: &Client,
    binding: &QueueBinding,
    identity: &Identity,
) -> bool {
    if binding.spec.deletion_policy == DeletionPolicy::Orphan {
        return true;
    }
    let running = own_jobs(context, binding, identity);
    let message = format!(
        "binding {} was deleted (deletionPolicy Delete)",
        binding.name_any()
    );
    let mut left = false;
    for (task, job) in running.iter().filter(|(_, job)| !job.has_ended()) {
        left = true;
        if !job.is_deleting() {
            // A refusal means that it has ended, or does not run yet: passes bring the latter back.
            let _ = client
                .stopped(task, "trainyard: binding deleted", &message)
                .await;
            fault::point!("binding/task-stopped");
        }
    }
    !left
}

/// Before the finalizer goes: running Jobs lose their owner, or the garbage collector would take them along; the
/// pending queue is deleted. Answers whether all of it is done.
pub(super) async fn clean_up(
    context: &Context,
    client: &Client,
    resolved: &Resolved,
    binding: &QueueBinding,
    identity: &Identity,
) -> Result<bool, Error> {
    let namespace = binding.namespace().unwrap_or_default();
    let jobs: Api<JobObject> = Api::namespaced(context.kube.clone(), &namespace);
    for (_, job) in own_jobs(context, binding, identity) {
        // Nobody will settle it any more: its pod reports for itself, and the Job goes when that has ended.
        let seconds = binding.spec.lifecycle.ttl_after_failure.whole_seconds();
        let patch = json!({
            "metadata": {"uid": job.uid, "ownerReferences": null},
            "spec": {"ttlSecondsAfterFinished": i32::try_from(seconds).unwrap_or(i32::MAX)},
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        match call(jobs.patch(&job.name, &params, &Patch::Merge(&patch))).await {
            Ok(orphan) => {
                fault::point!("binding/job-orphaned");
                context.jobs.note(orphan);
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    // 701: gone already. 702: an entry came back to it, the next pass takes care.
    let answer = client.delete_queue(&resolved.pending).await;
    fault::point!("binding/queue-deleted");
    Ok(match answer {
        Ok(()) => true,
        Err(error) => error.is(400, 701),
    })
}

/// The binding's Jobs.
pub(super) fn own_jobs(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
) -> Vec<(TaskId, Arc<JobRow>)> {
    let namespace = binding.namespace().unwrap_or_default();
    let mut jobs = context.jobs.in_namespace(&namespace);
    jobs.retain(|(_, job)| observe::is_ours(identity, job));
    jobs
}
