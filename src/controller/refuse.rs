//! Refuse: fails tasks that their image cannot run, before anything is made for them.
//!
//! Death after `dequeue`: the task is failed and in no queue; a line of its log is lost.

use std::collections::HashMap;

use jiff::Timestamp;

use super::fault;
use super::images::Refusal;
use super::scene::Scene;
use crate::api::{Error, Event};
use crate::claim::{Observed, STEP_DEADLINE};
use crate::task::{Status, TaskId};

/// Status reason of a refused task.
const REASON: &str = "image refused";

/// Fails these tasks unless somebody has written their status since the look; answers whom.
pub(super) async fn refuse(
    scene: &Scene<'_>,
    observed: &HashMap<TaskId, Observed>,
    tasks: Vec<(TaskId, Refusal)>,
) -> Result<Vec<(TaskId, String)>, Error> {
    let mut failed = Vec::new();
    for (task, Refusal { why, by }) in tasks {
        let Some(seen) = observed.get(&task) else {
            continue;
        };
        let unwritten = |changed: &Option<String>| *changed == seen.facts.stamps.status_changed;
        let found = scene.client.task_facts(std::slice::from_ref(&task)).await?;
        fault::point!("refuse/task-read");
        let still = found.tasks.first().is_some_and(|facts| {
            facts.status == Status::Queued && unwritten(&facts.status_changed)
        });
        let in_time = Timestamp::now().duration_since(seen.read_at) <= STEP_DEADLINE;
        if !(still && in_time) {
            continue;
        }
        let message = format!("{why} ({by})");
        if !scene
            .client
            .dequeue(&task, Some(Status::Failed), REASON, &message)
            .await?
        {
            continue;
        }
        fault::point!("refuse/dequeued");
        let binding = &scene.binding.metadata.name;
        tracing::info!(%task, binding, why, "task refused because of its image");
        let line = Event::Log {
            task: task.clone(),
            worker: scene.identity.worker.clone(),
            level: "ERROR",
            msg: format!("the task is failed before a pod was made: {message}\n"),
            timestamp: Timestamp::now().as_millisecond(),
        };
        if let Err(error) = scene.client.add_events(&[line]).await {
            tracing::debug!(%task, %error, "line was not added to the task's log");
        }
        fault::point!("refuse/told");
        failed.push((task, why));
    }
    Ok(failed)
}
