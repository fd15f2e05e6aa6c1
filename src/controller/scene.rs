//! What a pass happens in: the binding, its server, and what was resolved of both.

use std::sync::Arc;

use super::Context;
use super::observe::Identity;
use super::resolve::Resolved;
use super::together::Seat;
use super::validate::Templates;
use crate::api::Client;
use crate::crd::QueueBinding;
use crate::render::{self, Template};
use crate::task::{QueueId, TaskId};

/// What a pass needs beside its memory.
pub(super) struct Scene<'a> {
    pub context: &'a Context,
    pub binding: &'a QueueBinding,
    pub identity: &'a Identity,
    pub client: &'a Client,
    pub seat: &'a Seat,
    pub server: &'a render::Server,
    pub resolved: &'a Resolved,
    /// Of a queue whose template was refused nothing new is taken.
    pub templates: &'a Templates,
    /// The binding is being deleted.
    pub retiring: bool,
    /// Nothing is carried out, it is only foreseen.
    pub dry: Option<Dry>,
}

/// What a pass with tied hands is made for.
pub(super) struct Dry {
    /// This task is looked at wherever it stands.
    pub about: Option<TaskId>,
}

impl Scene<'_> {
    /// The template of a served queue; nothing if it was refused.
    pub fn template(&self, queue: &QueueId) -> Option<&Arc<Template>> {
        self.templates.of(self.resolved.place(queue)?)
    }

    /// Whether a served queue runs the image's own command.
    pub fn uses_entrypoint(&self, queue: &QueueId) -> bool {
        let place = self.resolved.place(queue);
        place
            .and_then(|place| self.binding.spec.queues.get(place))
            .is_some_and(|queue| queue.use_entrypoint)
    }

    /// How many tasks may be tried behind one that cannot fit.
    pub fn lookahead(&self) -> usize {
        usize::try_from(self.binding.spec.lookahead.unwrap_or(0)).unwrap_or(0)
    }
}
