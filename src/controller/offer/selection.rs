//! Which candidates go: each is rendered, looked at for its image, and admitted while there is room.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::image::{self, OfImage, Stays};
use super::{Offer, made_from, remembered, rules};
use crate::api;
use crate::capacity::{Ask, Placement};
use crate::claim::{Entry, Observed, Policy, Step, decide};
use crate::controller::admit::{Admitted, Course, Head, Room};
use crate::controller::apply::Draft;
use crate::controller::images::{self, Refusal};
use crate::controller::live::Live;
use crate::controller::memory::{Known, Memory};
use crate::controller::observe::Objects;
use crate::controller::rendered_binding;
use crate::controller::scene::Scene;
use crate::crd::Capacity;
use crate::pod::annotation;
use crate::render::{self, Rendered};
use crate::task::{QueueId, TaskId, WorkerId};

/// What was read of the candidates.
pub(in crate::controller) struct Readings<'a> {
    pub observed: &'a HashMap<TaskId, Observed>,
    pub bodies: &'a HashMap<TaskId, api::Body>,
    pub live: &'a Live,
    /// With everybody admitted.
    pub policy: &'a Policy,
}

/// What was found out about candidates whose turn came: their Jobs, and who is refused because of its image.
#[derive(Default)]
pub(in crate::controller) struct Judged {
    heads: HashMap<TaskId, Head>,
    pub jobs: HashMap<TaskId, Draft>,
    pub refused: Vec<(TaskId, Refusal)>,
}

impl Judged {
    /// What is known of a task without a closer look at what was read of it.
    fn glance(&self, offer: &Offer, asks: &HashMap<TaskId, Known>, task: &TaskId) -> Head {
        match self.heads.get(task) {
            Some(head) => head.clone(),
            None if offer.read.contains(task) => Head::Skip,
            None => remembered(asks, task),
        }
    }
}

/// Renders and admits candidates while there is room, as far as they were read; `offer` then knows who has to be read
/// before more can be decided.
pub(in crate::controller) fn admit(
    scene: &Scene<'_>,
    memory: &mut Memory,
    offer: &mut Offer,
    readings: &Readings<'_>,
    room: &Room,
    judged: &mut Judged,
) -> Admitted {
    let rules = rules(scene, &offer.aged);
    let turns = memory.turns.clone();
    let mut course = Course::of(rules, &offer.lines, turns, room.clone());
    let admitted = course.admit(|task| match readings.bodies.get(task) {
        Some(body) if !judged.heads.contains_key(task) => {
            let head = judge(scene, memory, readings, judged, body);
            judged.heads.insert(task.clone(), head.clone());
            head
        }
        _ => judged.glance(offer, &memory.asks, task),
    });
    offer.unread = course.wanted(&admitted, offer.rounds, |task| {
        judged.glance(offer, &memory.asks, task)
    });
    admitted
}

/// Whether a task that was read may go; with the Job that it would get.
fn judge(
    scene: &Scene<'_>,
    memory: &mut Memory,
    readings: &Readings<'_>,
    judged: &mut Judged,
    body: &api::Body,
) -> Head {
    let task = &body.task.id;
    let rendered = |image: OfImage<'_>| render(scene, memory, readings, body, image);
    let Some((queue, mut job)) = rendered(OfImage::default()) else {
        return Head::Skip;
    };
    match image::look(scene, queue, &mut job, rendered) {
        Ok(()) => {}
        Err(Stays::Skip) => return Head::Skip,
        Err(Stays::Hold) => return Head::Hold,
        Err(Stays::Waits(reason)) => return Head::Waits(reason),
        Err(Stays::Refused(refusal)) => {
            judged.refused.push((task.clone(), refusal));
            return Head::Skip;
        }
    }
    let (ask, overtaken) = keep(scene, memory, readings, (queue, body), &job);
    judged.jobs.insert(task.clone(), Draft::from(job));
    Head::Ready { ask, overtaken }
}

/// Keeps what those ask for that were read and whose turn did not come: else they would be read again. Where one before
/// them waits for the answer of a registry, the images of the next few are looked up meanwhile.
pub(in crate::controller) fn remember(
    scene: &Scene<'_>,
    memory: &mut Memory,
    offer: &Offer,
    readings: &Readings<'_>,
    judged: &Judged,
) {
    let is_judged = |body: &&api::Body| judged.heads.contains_key(&body.task.id);
    let is_held_up = judged.heads.values().any(|head| *head == Head::Hold);
    let bodies = readings.bodies.values();
    let mut bodies: Vec<&api::Body> = bodies.filter(|body| !is_judged(body)).collect();
    if is_held_up {
        let places = places(offer);
        bodies.sort_by_key(|body| places.get(&body.task.id).copied());
    }
    for body in bodies {
        let rendered = render(scene, memory, readings, body, OfImage::default());
        if let Some((queue, job)) = rendered {
            keep(scene, memory, readings, (queue, body), &job);
            if is_held_up {
                images::look_ahead(scene, &job);
            }
        }
    }
}

/// The place of each task in its queue.
fn places(offer: &Offer) -> HashMap<&TaskId, usize> {
    let lines = offer.lines.values();
    lines.flat_map(|line| line.iter().zip(0..)).collect()
}

/// Keeps what a task asks for; answers it, and how often it was overtaken.
fn keep(
    scene: &Scene<'_>,
    memory: &mut Memory,
    readings: &Readings<'_>,
    (queue, body): (&QueueId, &api::Body),
    job: &Rendered,
) -> (Arc<Ask>, usize) {
    let task = &body.task.id;
    let ask = Arc::new(ask(scene, body, job));
    let observed = readings.observed.get(task);
    let added = observed.and_then(|observed| observed.facts.stamps.entry_added.clone());
    let before = memory.asks.get(task).filter(|known| known.added == added);
    let overtaken = before.map_or(0, |known| known.overtaken);
    let known = Known {
        added,
        made_from: made_from(scene, queue).unwrap_or_default(),
        ask: Some(ask.clone()),
        overtaken,
    };
    memory.asks.insert(task.clone(), known);
    (ask, overtaken)
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
    memory: &Memory,
    readings: &Readings<'a>,
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
    } = decide(observed, readings.policy, Timestamp::now())
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
        project_name: memory
            .project_names
            .get(&body.task.project)
            .map_or("", String::as_str),
        worker: &WorkerId::of_attempt(&scene.identity.worker, task, attempt),
        server: scene.server,
        settings: &scene.context.settings.images,
        returned,
        failures,
        avoid_nodes: &nodes_of(readings.live.objects.get(task)),
        holding_nodes: &memory.environments.nodes_for(template, spec, &body.task),
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
