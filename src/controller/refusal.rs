//! Refusal: the cluster has accepted a Job and refuses its pod (quota, policy). Nothing more is taken until it would take
//! one, so that tasks keep their places instead of going to and fro.

use std::time::Duration;

use tokio::time::Instant;

use super::admit::Waiting;
use super::memory::Memory;
use super::scene::Scene;
use super::validate;
use crate::task::QueueId;

/// Nothing is taken for this long at most; then one more task is tried.
const HOLD: Duration = Duration::from_mins(1);
/// How often the cluster is asked, by a dry run, whether it would take a pod now.
const ASKED: Duration = Duration::from_secs(5);

/// What the cluster refused last.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    words: String,
    /// The queue whose template the pod was of.
    queue: QueueId,
    until: Instant,
    /// When to ask next; never if a pod was refused soon after a dry run was not: what tells them apart is in the task.
    next: Option<Instant>,
}

/// The refusals of a binding.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: Option<Refusal>,
    /// When a dry run ended the last one.
    lifted: Option<Instant>,
}

impl Refusals {
    /// A pod of this queue's template was refused.
    pub fn note(&mut self, queue: QueueId, words: String, now: Instant) {
        let in_vain = self
            .lifted
            .is_some_and(|lifted| now.duration_since(lifted) < HOLD * 5);
        self.last = Some(Refusal {
            words,
            queue,
            until: now + HOLD,
            next: (!in_vain).then(|| now + ASKED),
        });
    }

    /// Why nothing is taken, if so.
    pub fn hold(&self, now: Instant) -> Option<Waiting> {
        let refusal = self.last.as_ref().filter(|known| now < known.until)?;
        Some(Waiting::new("PodsRefused", &refusal.words))
    }

    /// The queue whose template is to be tried now.
    fn due(&mut self, now: Instant) -> Option<QueueId> {
        let refusal = self.last.as_mut().filter(|known| now < known.until)?;
        let next = refusal.next.as_mut().filter(|next| **next <= now)?;
        *next = now + ASKED;
        Some(refusal.queue.clone())
    }

    fn lift(&mut self, now: Instant) {
        self.last = None;
        self.lifted = Some(now);
    }
}

/// Ends the hold as soon as the cluster would take a pod of the template again.
pub(super) async fn ask(scene: &Scene<'_>, memory: &mut Memory) {
    let Some(queue) = memory.refusals.due(Instant::now()) else {
        return;
    };
    let Some(template) = scene.template(&queue) else {
        return;
    };
    let (binding, identity) = (scene.binding, scene.identity);
    if validate::takes_pods(scene.context, binding, identity, scene.server, template).await {
        memory.refusals.lift(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> QueueId {
        "f".repeat(32).parse().unwrap()
    }

    #[test]
    fn a_refusal_holds_for_its_time_and_is_asked_about_meanwhile() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        assert!(refusals.hold(start).is_none());
        refusals.note(queue(), "exceeded quota".into(), start);
        assert_eq!(refusals.hold(start).unwrap().message, "exceeded quota");
        assert_eq!(refusals.due(start), None);
        assert_eq!(refusals.due(start + ASKED), Some(queue()));
        assert_eq!(refusals.due(start + ASKED), None, "not twice");
        assert_eq!(refusals.due(start + ASKED * 2), Some(queue()));
        assert!(refusals.hold(start + HOLD).is_none());
        assert_eq!(refusals.due(start + HOLD), None);
    }

    #[test]
    fn what_a_dry_run_cannot_see_is_waited_for() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        refusals.note(queue(), "exceeded quota".into(), start);
        refusals.lift(start + ASKED);
        assert!(refusals.hold(start + ASKED).is_none());
        refusals.note(queue(), "exceeded quota".into(), start + ASKED * 2);
        assert!(refusals.hold(start + ASKED * 3).is_some());
        assert_eq!(refusals.due(start + ASKED * 4), None);
        refusals.note(queue(), "exceeded quota".into(), start + HOLD * 10);
        assert!(refusals.due(start + HOLD * 10 + ASKED).is_some());
    }
}
