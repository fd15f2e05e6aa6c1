//! What its image means for a task on offer: the image check, and the command that the image runs by itself.

use crate::controller::admit::Waiting;
use crate::controller::images::{self, Asked, Judged, Refusal};
use crate::controller::scene::Scene;
use crate::image::Command;
use crate::render::Rendered;
use crate::task::QueueId;

/// What is known of a task's image.
#[derive(Clone, Copy, Default)]
pub(super) struct OfImage<'a> {
    /// What is to be told in the task's log.
    pub remark: Option<&'a str>,
    pub own: Option<&'a Command>,
}

/// Why a task does not go because of its image.
pub(super) enum Stays {
    Skip,
    Hold,
    Waits(Waiting),
    Refused(Refusal),
}

/// Asks about the image of a Job, which is rendered again with what is found out.
pub(super) fn look<'q>(
    scene: &Scene<'_>,
    queue: &QueueId,
    job: &mut Rendered,
    rendered: impl Fn(OfImage<'_>) -> Option<(&'q QueueId, Rendered)>,
) -> Result<(), Stays> {
    let remark = match images::judge(scene, job) {
        Judged::Go(remark) => remark,
        Judged::Refused(why) => {
            let by = "imageCheck: Enforce";
            return Err(Stays::Refused(Refusal { why, by }));
        }
        Judged::NotYet => return Err(Stays::Hold),
        Judged::Late => return Err(Stays::Skip),
    };
    let use_entrypoint = scene.uses_entrypoint(queue);
    let own = if use_entrypoint && job.argv.is_none() {
        match images::own_command(scene, job) {
            Asked::Known(command) => Some(command),
            Asked::NotYet => return Err(Stays::Hold),
            Asked::Waits(waiting) => return Err(Stays::Waits(waiting)),
        }
    } else {
        None
    };
    if remark.is_some() || own.is_some() {
        let found = OfImage {
            remark: remark.as_deref(),
            own: own.as_ref(),
        };
        if let Some((_, told)) = rendered(found) {
            *job = told;
        }
    }
    match &job.argv {
        Some(argv) if argv.is_empty() => Err(Stays::Refused(Refusal {
            why: images::without_command(&job.image),
            by: "useEntrypoint",
        })),
        // Its task is not to be taken any more.
        None if use_entrypoint => Err(Stays::Skip),
        _ => Ok(()),
    }
}
