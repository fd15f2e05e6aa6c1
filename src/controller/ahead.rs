//! Look-ahead: while tasks wait for room, the environments of the first of them are made in the cache, one after the
//! other, each by a Job that is no attempt of the task.
//!
//! ```text
//! waits for 10 s ──▶ read ──▶ made before? ─no─▶ one under way? ─no─▶ Job ──ended──▶ where it ran is remembered
//! ```
//!
//! Nothing is written to a task, and nothing of it waits for such a Job: where one fails or comes too late, the task makes
//! its environment itself. Jobs name the task and the environment, so that one is never made twice, and are found by their
//! labels, so that a process that starts anew goes on where the other was.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::cluster::{self, Once, call};
use super::environments::Environments;
use super::fault;
use super::live::Live;
use super::look::Queues;
use super::memory::Memory;
use super::observe;
use super::rendered_binding;
use super::row::{JobObject, JobRow, Row as _};
use super::scene::Scene;
use super::status::FIELD_MANAGER;
use crate::api::{self, Entry};
use crate::pod::{annotation, component, label};
use crate::render::{self, EnvironmentKey, LabelValue};
use crate::task::{Attempt, QueueId, Status, Task, TaskId, WorkerId};

/// How long a task waits before anything is made for it: most find room sooner.
const WAITED: SignedDuration = SignedDuration::from_secs(10);
/// Between two looks at the Jobs.
const AGAIN: Duration = Duration::from_secs(3);
/// A Job that has not ended by then never will: it is held back by somebody else.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// What is remembered of look-ahead. All of it may be lost: the Jobs are looked at again.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Tasks for which nothing more is done, and when their entries were added: another entry is another wish.
    done: HashMap<TaskId, Option<String>>,
    /// Jobs whose end was taken in.
    ended: HashSet<Box<str>>,
    /// Whether it is known that no Job is under way.
    idle: bool,
    next: Option<Instant>,
    failing: Once,
}

/// Why a look at the Jobs came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Server(#[from] api::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
}

/// The first tasks that wait, and the queue of each.
type Waiting<'a> = Vec<(&'a QueueId, &'a Entry)>;

/// Takes the look-ahead one step further, if it is wanted and time for it. `short` tells whether there is no room for
/// those who wait.
pub(super) async fn go_on(
    scene: &Scene<'_>,
    memory: &mut Memory,
    (queues, live): (&Queues, &Live),
    admitted: &[TaskId],
    short: bool,
) {
    let most = scene.binding.spec.environment.cache.tasks_ahead();
    let now = Instant::now();
    if most == 0 || scene.retiring || memory.ahead.next.is_some_and(|next| now < next) {
        return;
    }
    forget(&mut memory.ahead.done, queues);
    let passed_over = |task: &TaskId| admitted.contains(task) || live.own_unsettled.contains(task);
    let serves = |queue: &QueueId| scene.template(queue).is_some() && !scene.uses_entrypoint(queue);
    let mut waiting = if short {
        waiting(queues, most, serves, passed_over)
    } else {
        Vec::new()
    };
    waiting.retain(|(_, entry)| memory.ahead.done.get(&entry.task) != Some(&entry.added));
    if waiting.is_empty() && memory.ahead.idle {
        return;
    }
    memory.ahead.next = Some(now + AGAIN);
    match step(scene, memory, waiting).await {
        Ok(()) => memory.ahead.failing.over(),
        Err(trouble) => {
            let error = trouble.to_string();
            if memory.ahead.failing.is_new(&error) {
                let binding = scene.binding.name_any();
                tracing::warn!(binding, error, "no environment is made ahead");
            }
        }
    }
}

/// Drops what is known of entries that are gone.
fn forget(done: &mut HashMap<TaskId, Option<String>>, queues: &Queues) {
    if done.is_empty() {
        return;
    }
    let entries = queues.served.iter().flat_map(|queue| &queue.entries);
    let standing: HashSet<&TaskId> = entries.map(|entry| &entry.task).collect();
    done.retain(|task, _| standing.contains(task));
}

/// Of the first so many tasks that stand in the queues those that have waited long enough.
fn waiting(
    queues: &Queues,
    most: usize,
    serves: impl Fn(&QueueId) -> bool,
    passed_over: impl Fn(&TaskId) -> bool,
) -> Waiting<'_> {
    let has_waited = |entry: &Entry| {
        let added = entry.added.as_deref();
        let added = added.and_then(|text| text.parse::<Timestamp>().ok());
        added.is_some_and(|added| queues.read_at.duration_since(added) >= WAITED)
    };
    queues
        .served
        .iter()
        .filter(|queue| serves(&queue.id))
        .flat_map(|queue| queue.entries.iter().map(move |entry| (&queue.id, entry)))
        .filter(|(_, entry)| !passed_over(&entry.task))
        .take(most)
        .filter(|(_, entry)| has_waited(entry))
        .collect()
}

/// Takes in what Jobs have ended, and creates the next if none is under way.
async fn step(scene: &Scene<'_>, memory: &mut Memory, waiting: Waiting<'_>) -> Result<(), Trouble> {
    let jobs = jobs(scene).await?;
    learn(scene, memory, &jobs).await?;
    let now = Timestamp::now();
    memory.ahead.idle = !jobs.iter().any(|job| is_under_way(job, now));
    if waiting.is_empty() || !memory.ahead.idle {
        return Ok(());
    }
    let ids: Vec<TaskId> = waiting
        .iter()
        .map(|(_, entry)| entry.task.clone())
        .collect();
    let bodies = scene.client.task_bodies(&ids, true).await?.tasks;
    fault::point!("ahead/tasks-read");
    for (queue, entry) in waiting {
        let body = bodies.iter().find(|body| body.task.id == entry.task);
        let body = body.filter(|body| body.facts.status == Status::Queued);
        let made = body.and_then(|body| rendered(scene, memory, queue, &body.task));
        let created = match made {
            Some(made) if !jobs.iter().any(|job| *job.name == *made.name) => {
                create(scene, &entry.task, &made).await?
            }
            _ => false,
        };
        let done = &mut memory.ahead.done;
        done.insert(entry.task.clone(), entry.added.clone());
        if created {
            memory.ahead.idle = false;
            break;
        }
    }
    Ok(())
}

/// Whether a Job may still make something.
fn is_under_way(job: &JobRow, now: Timestamp) -> bool {
    let is_young = |created| now.duration_since(created) < LONGEST;
    !job.has_ended() && job.created.is_none_or(is_young)
}

/// The Jobs of this binding that make environments.
async fn jobs(scene: &Scene<'_>) -> Result<Vec<JobRow>, cluster::Error> {
    let jobs: Api<JobObject> = Api::namespaced(scene.context.kube.clone(), &namespace(scene));
    let found = call(jobs.list(&ours(scene))).await?.items;
    fault::point!("ahead/jobs-listed");
    let found = found.into_iter().map(JobRow::of);
    Ok(found
        .filter(|job| observe::is_ours(scene.identity, job))
        .collect())
}

fn namespace(scene: &Scene<'_>) -> String {
    scene.binding.namespace().unwrap_or_default()
}

/// Selects what makes environments for this binding, and for one of the same name that is gone.
fn ours(scene: &Scene<'_>) -> ListParams {
    let (kind, ahead) = (component::LABEL, component::AHEAD);
    let (of, binding) = (label::BINDING, LabelValue::of(&scene.binding.name_any()));
    ListParams::default().labels(&format!("{kind}={ahead},{of}={binding}"))
}

/// Remembers what Jobs have made, and where; for that their pods are read.
async fn learn(
    scene: &Scene<'_>,
    memory: &mut Memory,
    jobs: &[JobRow],
) -> Result<(), cluster::Error> {
    let known = &mut memory.ahead.ended;
    known.retain(|name| jobs.iter().any(|job| job.name == *name));
    let new: Vec<&JobRow> = jobs
        .iter()
        .filter(|job| job.has_ended() && !known.contains(&job.name))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(scene.context.kube.clone(), &namespace(scene));
    let pods = call(pods.list(&ours(scene))).await?.items;
    fault::point!("ahead/pods-listed");
    for job in new {
        known.insert(job.name.clone());
        if job.is_complete() {
            remember(&mut memory.environments, job, &pods);
        }
    }
    Ok(())
}

/// Remembers what one Job has made.
fn remember(environments: &mut Environments, job: &JobRow, pods: &[Pod]) {
    let Some(key) = job.annotation(annotation::ENVIRONMENT) else {
        return;
    };
    let of_job = |pod: &&Pod| {
        let owners = pod.owner_references();
        owners.iter().any(|owner| *owner.uid == *job.uid)
    };
    let node = pods
        .iter()
        .find(of_job)
        .and_then(|pod| pod.spec.as_ref()?.node_name.as_deref());
    environments.note(key, node, job.created.unwrap_or_default());
}

/// The Job for the environment of this task; nothing if there is nothing to make.
fn rendered(
    scene: &Scene<'_>,
    memory: &Memory,
    queue: &QueueId,
    task: &Task,
) -> Option<render::Ahead> {
    let (template, spec) = (scene.template(queue)?, &scene.binding.spec);
    let key = EnvironmentKey::of(template, spec, task)?;
    if memory.environments.has(&key) {
        return None;
    }
    let project_name = memory.project_names.get(&task.project);
    // No attempt has this number.
    let attempt = Attempt(0);
    render::ahead(&render::Inputs {
        binding: &rendered_binding(scene.binding),
        spec,
        template,
        task,
        attempt,
        queue: scene.resolved.queue(queue)?,
        pending_queue: &scene.resolved.pending,
        project_name: project_name.map_or("", String::as_str),
        worker: &WorkerId::of_attempt(&scene.identity.worker, &task.id, attempt),
        server: scene.server,
        settings: &scene.context.settings.images,
        returned: false,
        failures: 0,
        avoid_nodes: &[],
        holding_nodes: &memory.environments.nodes_for(template, spec, task),
        remark: None,
        runs: render::Runs::Code,
    })
}

/// Creates a Job; whether it is there then.
///
/// Death after it: the next process finds it by its labels.
async fn create(
    scene: &Scene<'_>,
    task: &TaskId,
    made: &render::Ahead,
) -> Result<bool, cluster::Error> {
    let path = format!(
        "/apis/batch/v1/namespaces/{}/jobs?fieldManager={FIELD_MANAGER}",
        namespace(scene)
    );
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(made.job.to_string().into_bytes())
        .map_err(|error| cluster::Error::Transport(error.to_string()))?;
    let permit = scene.context.writes.acquire().await;
    let created = call(scene.context.kube.request::<JobObject>(request)).await;
    drop(permit);
    let (binding, job) = (scene.binding.name_any(), &made.name);
    match created {
        Ok(_) => {
            fault::point!("ahead/created");
            tracing::info!(%task, binding, job, "the environment of a waiting task is made ahead");
            Ok(true)
        }
        Err(error) if error.is_conflict() => Ok(true),
        // The task's own Job may be taken; where it is not, that is told there.
        Err(error) if error.is_verdict() => {
            tracing::warn!(%task, binding, job, %error, "the API server refuses to make an environment ahead");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
