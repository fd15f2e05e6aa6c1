//! Foresight: what the next pass over a binding would do, without doing it. The same looks, the same decisions, tied
//! hands: nothing is written on either side, and no Lease is needed.

use std::time::Duration;

use kube::ResourceExt;
use tokio::time::Instant;

use super::admit::Waiting;
use super::apply::Case;
use super::binding::Loop;
use super::images;
use super::offer;
use super::pass;
use super::preview::{self, Preview};
use super::resolve::{self, Making};
use super::scene::{Dry, Scene};
use super::status::Trouble;
use super::{Context, dereference, validate};
use crate::claim::{Entry, Step, TaskFact, UserQueue, next_attempt};
use crate::crd::{QueueBinding, condition};
use crate::image::Finding;
use crate::render;
use crate::task::{QueueId, TaskId, WorkerId};

/// How long the watches may take until Jobs and pods are known.
const PATIENCE: Duration = Duration::from_secs(20);

/// What would be done about one task.
pub(super) struct Foreseen {
    pub case: Case,
    pub step: Step,
}

/// What a pass would do.
pub(super) struct Foresight {
    pub foreseen: Vec<Foreseen>,
    /// Why the first of those who wait has to.
    pub waiting: Option<Waiting>,
    pub served: Vec<render::Queue>,
}

/// Waits until Jobs and pods are known.
pub(super) async fn until_sound(context: &Context) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !(context.jobs.sound() && context.pods.sound()) {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

impl Loop {
    /// What the next pass would do; with `about`, this task is looked at wherever it stands.
    pub async fn foresee(
        &mut self,
        binding: &QueueBinding,
        about: Option<&TaskId>,
    ) -> Result<Foresight, Trouble> {
        dereference::connect(&self.context, binding, &self.identity, &mut self.connection).await?;
        let Some(connection) = &self.connection else {
            return Err(unconnected());
        };
        let (client, server) = (connection.client.clone(), connection.server.clone());
        let templates = validate::validate(
            &self.context,
            binding,
            &self.identity,
            Some(&server),
            &mut self.checked,
        )
        .await;
        let generation = binding.metadata.generation.unwrap_or_default();
        resolve::resolve(
            &client,
            &connection.seat,
            &binding.spec,
            generation,
            &self.identity,
            &mut self.resolved,
            Making::Forbidden,
        )
        .await
        .map_err(|error| Trouble::from(&error))?;
        let Some(resolved) = &self.resolved else {
            return Err(unconnected());
        };
        let scene = Scene {
            context: &self.context,
            binding,
            identity: &self.identity,
            client: &client,
            seat: &connection.seat,
            server: &server,
            resolved,
            templates: &templates,
            retiring: binding.metadata.deletion_timestamp.is_some(),
            dry: Some(Dry {
                about: about.cloned(),
            }),
        };
        let passed = loop {
            let passed = pass::pass(&scene, &mut self.memory)
                .await
                .map_err(|error| Trouble::from(&error))?;
            // Where it has asked what images run by themselves, the next one knows.
            if !self.context.images.settle().await {
                break passed;
            }
        };
        // What would be refused does not wait.
        let refused = passed
            .rejected
            .into_iter()
            .find(|(task, _)| Some(task) == about)
            .map(|(_, why)| Waiting::new("ImageRefused", why));
        Ok(Foresight {
            foreseen: passed.foreseen,
            // A template that was refused is a better reason than that there is none.
            waiting: templates
                .verdict(&binding.spec.queues)
                .err()
                .map(|trouble| Waiting::new(trouble.reason, trouble.message))
                .or(refused)
                .or(passed.waiting),
            served: resolved.served.clone(),
        })
    }

    /// The Job that would be made of this task now, whatever stands against it; and what is to be said about it.
    pub async fn job_of(
        &mut self,
        binding: &QueueBinding,
        task: &TaskId,
    ) -> Result<Preview, Trouble> {
        let trouble =
            |message: String| Trouble::new(condition::TEMPLATE_VALID, "NotRendered", message);
        let foresight = self.foresee(binding, Some(task)).await?;
        let (Some(connection), Some(resolved)) = (&self.connection, &self.resolved) else {
            return Err(unconnected());
        };
        let bodies = connection
            .client
            .task_bodies(std::slice::from_ref(task), true)
            .await
            .map_err(|error| Trouble::from(&error))?;
        let Some(body) = bodies.tasks.first() else {
            return Err(trouble(format!("the server knows no readable task {task}")));
        };
        let templates = validate::validate(
            &self.context,
            binding,
            &self.identity,
            Some(&connection.server),
            &mut self.checked,
        )
        .await;
        let seen = foresight
            .foreseen
            .iter()
            .find(|seen| seen.case.task == *task);
        let mut notes = Vec::new();
        let queue = match seen.and_then(|seen| queue_of(&seen.case)) {
            Some(id) if resolved.queue(&id).is_some() => id,
            _ => {
                let Some(first) = resolved.served.first() else {
                    return Err(trouble("no queue of the binding exists".into()));
                };
                notes.push(format!(
                    "the task is in no queue of binding {:?}; rendered as if it were in {:?}",
                    binding.name_any(),
                    first.name
                ));
                first.id.clone()
            }
        };
        let (attempt, requeues, failures) = match seen.map(|seen| &seen.step) {
            Some(Step::Intend {
                attempt,
                requeues,
                failures,
                ..
            }) => (*attempt, *requeues, *failures),
            _ => (
                seen.map_or(crate::task::Attempt::FIRST, |seen| {
                    next_attempt(&seen.case.observed.facts)
                }),
                0,
                0,
            ),
        };
        let returned = matches!(
            seen.map(|seen| &seen.case.observed.facts.task),
            Some(TaskFact::Found(state)) if state.reason.may_be_ours()
        );
        let project = &body.task.project;
        let names = if project.is_empty() {
            std::collections::HashMap::new()
        } else {
            connection
                .client
                .project_names(std::slice::from_ref(project))
                .await
                .map_err(|error| Trouble::from(&error))?
                .into_iter()
                .collect()
        };
        let place = resolved.place(&queue);
        let (Some(queue), Some(place)) = (resolved.queue(&queue), place) else {
            return Err(unconnected());
        };
        let Some(template) = templates.of(place) else {
            let verdict = templates.verdict(&binding.spec.queues);
            return Err(verdict.err().unwrap_or_else(unconnected));
        };
        let worker = WorkerId::of_attempt(&self.identity.worker, task, attempt);
        let avoid_nodes = offer::nodes_of(seen.map(|seen| &seen.case.objects));
        let holding_nodes = self
            .memory
            .environments
            .nodes_for(template, &binding.spec, &body.task);
        let binding_of_job = super::rendered_binding(binding);
        let of_queue = binding.spec.queues.get(place);
        let use_entrypoint = of_queue.is_some_and(|queue| queue.use_entrypoint);
        let mut inputs = render::Inputs {
            binding: &binding_of_job,
            spec: &binding.spec,
            template,
            task: &body.task,
            attempt,
            queue,
            pending_queue: &resolved.pending,
            project_name: names.get(project).map_or("", String::as_str),
            worker: &worker,
            server: &connection.server,
            settings: &self.context.settings.images,
            returned,
            failures,
            avoid_nodes: &avoid_nodes,
            holding_nodes: &holding_nodes,
            remark: None,
            runs: images::runs(use_entrypoint, None),
        };
        let own = preview::own_command(&self.context, &inputs).await;
        if let Some(Finding::There(command)) = &own {
            inputs.runs = images::runs(use_entrypoint, Some(command));
        }
        let rendered = render::render(&inputs);
        notes.extend(preview::of_command(&rendered, own.as_ref()));
        let rendered = match requeues {
            0 => rendered,
            _ => rendered.with_requeues(requeues),
        };
        let patch = of_queue.and_then(|queue| queue.template_patch.as_ref());
        let fields = render::origins(&rendered.job, &inputs, patch);
        notes.extend(rendered.notes);
        Ok(Preview {
            job: rendered.job,
            fields,
            notes,
            image_refused: rendered.image_refused,
        })
    }
}

/// The served queue that a task stands in, or is meant for.
fn queue_of(case: &Case) -> Option<QueueId> {
    if let Entry::Served { queue } = &case.observed.facts.entry {
        return Some(queue.clone());
    }
    match &case.observed.facts.task {
        TaskFact::Found(task) => match &task.user_queue {
            UserQueue::Known(queue) => Some(queue.clone()),
            UserQueue::Unset | UserQueue::Gone => None,
        },
        TaskFact::Unknown | TaskFact::Gone => None,
    }
}

fn unconnected() -> Trouble {
    Trouble::new(
        condition::SERVER_REACHABLE,
        "NoAnswer",
        "there is no connection to the server",
    )
}
