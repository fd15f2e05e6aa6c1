//! The room that a binding's limits and the nodes leave, and why a task waits that finds none.
//!
//! Permits are computed from observed Jobs, never counted up and down: what a Job occupies is read from the Job.

use std::sync::Arc;

use crate::capacity::{self, Ask, Free, InUse, Limits, Wait};
use crate::controller::row::JobRow;
use crate::crd::{LimitsSpec, Resources};
use crate::pod::{annotation, label};

/// Why tasks wait: a word for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::controller) struct Waiting {
    pub reason: &'static str,
    pub message: String,
    /// Whether the task's own user or project has reached a limit: who stands behind it need not wait for that.
    pub own: bool,
}

impl Waiting {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            own: false,
        }
    }

    /// Whether it ends as soon as enough of the binding's own tasks have ended.
    pub fn is_of_limits(&self) -> bool {
        self.reason == LIMIT_REACHED && !self.own
    }
}

/// What is said of a task that the binding's limits hold up.
const LIMIT_REACHED: &str = "LimitReached";

impl From<Wait> for Waiting {
    fn from(wait: Wait) -> Self {
        let reason = match wait {
            Wait::Concurrent { .. } | Wait::Resource { .. } => LIMIT_REACHED,
            Wait::NeverFits { .. } => "NeverFits",
            Wait::NoNode(_) => "NoRoom",
        };
        Self {
            reason,
            message: wait.to_string(),
            own: wait.is_own(),
        }
    }
}

/// What is left of a binding's limits, and of the nodes.
#[derive(Debug, Clone)]
pub(in crate::controller) struct Room {
    limits: Result<Limits, Waiting>,
    in_use: InUse,
    most: Option<usize>,
    /// Whether each user or project has limits of its own.
    grouped: bool,
    /// With `capacity: FreeResources`: what is free on the nodes, or why that is not known.
    nodes: Option<Result<Free, Waiting>>,
}

impl Room {
    /// The limits, and what these Jobs use of them.
    pub fn of<'a>(limits: &LimitsSpec, jobs: impl Iterator<Item = &'a Arc<JobRow>>) -> Self {
        let mut in_use = InUse::default();
        for job in jobs {
            in_use.add(&ask_of(job));
        }
        Self {
            in_use,
            grouped: limits.has_groups(),
            most: limits
                .max_concurrent
                .map(|most| usize::try_from(most).unwrap_or(0)),
            limits: Limits::of(limits)
                .map_err(|error| Waiting::new("LimitUnreadable", format!("spec.{error}"))),
            nodes: None,
        }
    }

    /// The same within what is free on the nodes.
    #[must_use]
    pub fn on(self, nodes: Option<Result<Free, Waiting>>) -> Self {
        Self { nodes, ..self }
    }

    /// Counts one more task.
    pub fn occupy(&mut self, ask: &Ask) {
        self.in_use.add(ask);
        if let (Some(Ok(free)), Some(placement)) = (&mut self.nodes, &ask.placement) {
            free.occupy(placement);
        }
    }

    /// How many more tasks there may be.
    pub fn free(&self) -> Option<usize> {
        self.most
            .map(|most| most.saturating_sub(self.in_use.tasks()))
    }

    /// Whether the limits of a user or project may hold a task up.
    pub fn is_grouped(&self) -> bool {
        self.grouped
    }

    /// Whether one more task that asks for this fits; else the reason to wait.
    pub fn fits(&self, ask: &Ask) -> Result<(), Waiting> {
        let limits = self.limits.as_ref().map_err(Clone::clone)?;
        capacity::admit(limits, &self.in_use, ask)?;
        match (&self.nodes, &ask.placement) {
            (Some(Err(waiting)), _) => Err(waiting.clone()),
            (Some(Ok(free)), Some(placement)) => Ok(free.fits(placement).map_err(Wait::NoNode)?),
            _ => Ok(()),
        }
    }

    /// Whether there is no room for any task, however small.
    pub fn full(&self) -> Result<(), Waiting> {
        self.fits(&Ask::default())
            .or_else(|waiting| if waiting.own { Ok(()) } else { Err(waiting) })
    }
}

/// What a Job occupies of the limits, and whose it is.
pub(in crate::controller) fn ask_of(job: &JobRow) -> Ask {
    let text = job.annotation(annotation::REQUESTS).unwrap_or_default();
    let label = |name: &str| job.label(name).unwrap_or_default().to_owned();
    Ask {
        need: Resources::from_annotation(text).unwrap_or_default(),
        user: label(label::USER),
        project: label(label::PROJECT),
        placement: None,
    }
}
