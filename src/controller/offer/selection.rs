//! Which candidates go: each is rendered, looked at for its image, and admitted while there is room.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use super::image::{self, OfImage, Stays};
use super::made_from;
use crate::api;
use crate::capacity::{Ask, Placement};
use crate::claim::order;
use crate::claim::{Admission, Entry, Observed, Policy, Step, decide};
use crate::controller::admit::{self, Admitted, Head, Room};
use crate::controller::apply::Draft;
use crate::controller::environments::Environments;
use crate::controller::images::{self, Refusal};
use crate::controller::live::Live;
use crate::controller::memory::{Known, Memory};
use crate::controller::observe::Objects;
use crate::controller::rendered_binding;
use crate::controller::scene::Scene;
use crate::crd::{Capacity, Strategy};
use crate::pod::annotation;
use crate::render::{self, Rendered};
use crate::task::{QueueId, TaskId, WorkerId};

/// What was read of the candidates.
pub(in crate::controller) struct Readings<'a> {
    pub observed: &'a HashMap<TaskId, Observed>,
    pub bodies: &'a HashMap<TaskId, api::Body>,
    pub live: &'a Live,
    pub policy: &'a Policy,
}

/// Who goes, their Jobs, and who is refused because of its image.
pub(in crate::controller) struct Selection {
    pub admitted: Admitted,
    pub jobs: HashMap<TaskId, Draft>,
    pub refused: Vec<(TaskId, Refusal)>,
}

/// Renders and admits candidates while there is room.
pub(in crate::controller) fn admit(
    scene: &Scene<'_>,
    memory: &mut Memory,
    (candidates, aged): (
        HashMap<QueueId, VecDeque<TaskId>>,
        &HashMap<TaskId, Timestamp>,
    ),
    readings: &Readings<'_>,
    room: &mut Room,
) -> Selection {
    let (mut jobs, mut refused) = (HashMap::new(), Vec::new());
    let policy = readings.policy.admitting(Admission::Yes);
    let strategy = match scene.binding.spec.strategy {
        Strategy::Priority => order::Strategy::Priority,
        Strategy::RoundRobin => order::Strategy::RoundRobin,
        Strategy::Weighted => order::Strategy::Weighted,
    };
    let Memory {
        asks,
        project_names,
        turns,
        environments,
        ..
    } = memory;
    let head = |task: &TaskId| {
        let overtaken = asks.get(task).map_or(0, |known| known.overtaken);
        let Some(body) = readings.bodies.get(task) else {
            // Not read: it is known and did not fit before.
            return asks.get(task).map_or(Head::Skip, |known| Head::Ready {
                ask: known.ask.clone(),
                overtaken,
            });
        };
        let rendered = |image: OfImage<'_>| {
            let known = (&*project_names, &*environments);
            render(scene, known, readings, &policy, body, image)
        };
        let Some((queue, mut job)) = rendered(OfImage::default()) else {
            return Head::Skip;
        };
        match image::look(scene, queue, &mut job, rendered) {
            Ok(()) => {}
            Err(Stays::Skip) => return Head::Skip,
            Err(Stays::Hold) => return Head::Hold,
            Err(Stays::Waits(reason)) => return Head::Waits(reason),
            Err(Stays::Refused(refusal)) => {
                refused.push((task.clone(), refusal));
                return Head::Skip;
            }
        }
        let ask = ask(scene, body, &job);
        let added = readings
            .observed
            .get(task)
            .and_then(|observed| observed.facts.stamps.entry_added.clone());
        let known = Known {
            overtaken: asks
                .get(task)
                .filter(|known| known.added == added)
                .map_or(0, |known| known.overtaken),
            added,
            made_from: made_from(scene, queue).unwrap_or_default(),
            ask: ask.clone(),
        };
        let overtaken = known.overtaken;
        asks.insert(task.clone(), known);
        jobs.insert(task.clone(), Draft::from(job));
        Head::Ready { ask, overtaken }
    };
    let rules = admit::Rules {
        strategy,
        lanes: &scene.resolved.lanes,
        lookahead: scene.lookahead(),
        aged,
    };
    let admitted = admit::admit(&rules, turns, candidates, room, head);
    for (task, times) in &admitted.overtaken {
        if let Some(known) = asks.get_mut(task) {
            known.overtaken = *times;
        }
    }
    Selection {
        admitted,
        jobs,
        refused,
    }
}

/// What a task asks for, and whose it is.
fn ask(scene: &Scene<'_>, body: &api::Body, job: &Rendered) -> Ask {
    let label = |id: &str| render::LabelValue::of(id).as_str().to_owned();
    let spec = &job.job["spec"]["template"]["spec"];
    Ask {
        need: job.requests.clone(),
        user: label(&body.task.user),
        project: label(&body.task.project),
        placement: (scene.binding.spec.capacity == Capacity::FreeResources)
            .then(|| Placement::of(spec)),
    }
}

/// The Job of a task that is on offer, and its queue; nothing if something else has to happen to it first.
fn render<'a>(
    scene: &Scene<'_>,
    (project_names, environments): (&HashMap<String, String>, &Environments),
    readings: &Readings<'a>,
    policy: &Policy,
    body: &api::Body,
    image: OfImage<'_>,
) -> Option<(&'a QueueId, Rendered)> {
    let task = &body.task.id;
    let observed = readings.observed.get(task)?;
    let Step::Intend {
        attempt,
        returned,
        failures,
        ..
    } = decide(observed, policy, Timestamp::now())
    else {
        return None;
    };
    let Entry::Served { queue } = &observed.facts.entry else {
        return None;
    };
    let template = scene.template(queue)?;
    let spec = &scene.binding.spec;
    let rendered = render::render(&render::Inputs {
        binding: &rendered_binding(scene.binding),
        spec,
        template,
        task: &body.task,
        attempt,
        queue: scene.resolved.queue(queue)?,
        pending_queue: &scene.resolved.pending,
        project_name: project_names
            .get(&body.task.project)
            .map_or("", String::as_str),
        worker: &WorkerId::of_attempt(&scene.identity.worker, task, attempt),
        server: scene.server,
        settings: &scene.context.settings.images,
        returned,
        failures,
        avoid_nodes: &nodes_of(readings.live.objects.get(task)),
        holding_nodes: &environments.nodes_for(template, spec, &body.task),
        remark: image.remark,
        runs: images::runs(scene.uses_entrypoint(queue), image.own),
    });
    Some((queue, rendered))
}

/// Nodes on which earlier attempts ran.
pub(in crate::controller) fn nodes_of(objects: Option<&Objects>) -> Vec<String> {
    let Some(Objects { jobs, pods }) = objects else {
        return Vec::new();
    };
    // A pod that was taken away is gone; where it was stands on its Job.
    let noted = jobs
        .iter()
        .filter_map(|job| job.annotation(annotation::NODE));
    let known = pods.iter().filter_map(|pod| pod.node());
    let mut nodes: Vec<String> = noted.chain(known).map(str::to_owned).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}
