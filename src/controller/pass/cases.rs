//! The cases of a pass: every task that was observed, with a policy of its own, in the order of the work on them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::claim::{
    Admission, Entry, JobsFact, Observed, OnInterruption, OnPendingTimeout, Phase, Policy, TaskFact,
};
use crate::controller::admit::{self, Admitted, Room, Waiting};
use crate::controller::apply::{Case, Draft};
use crate::controller::live::Live;
use crate::controller::look::Queues;
use crate::controller::observe::Lore;
use crate::controller::patience::Troubles;
use crate::controller::row::JobRow;
use crate::controller::turn::Turn;
use crate::crd::{self, QueueBindingSpec};
use crate::pod::{self, label};
use crate::task::{Status, TaskId};

/// Policy of the binding; admission is each task's own.
pub(super) fn policy(spec: &QueueBindingSpec, retiring: bool) -> Policy {
    let lifecycle = &spec.lifecycle;
    let signed = |time: Duration| SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    let closing = lifecycle.abort_grace_period.duration();
    Policy {
        pending_timeout: signed(lifecycle.pending_timeout.duration()),
        on_pending_timeout: match lifecycle.on_pending_timeout {
            crd::OnPendingTimeout::Requeue => OnPendingTimeout::Requeue,
            crd::OnPendingTimeout::Fail => OnPendingTimeout::Fail,
        },
        on_interruption: match lifecycle.on_interruption {
            crd::OnInterruption::Requeue => OnInterruption::Requeue,
            crd::OnInterruption::Fail => OnInterruption::Fail,
            crd::OnInterruption::Stop => OnInterruption::Stop,
        },
        max_interruptions: u32::try_from(lifecycle.max_interruptions).unwrap_or(0),
        max_failures: u32::try_from(lifecycle.max_failures).unwrap_or(0),
        grace: signed(closing.saturating_add(pod::CLOSING)),
        restore_orphans: false,
        retiring,
        admission: Admission::No("not looked at".into()),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one place joins all that a case is made of"
)]
/// Every task with its own admission, those that were admitted first and in their order. The objects go into the cases.
pub(super) fn cases(
    observed: HashMap<TaskId, Observed>,
    live: &mut Live,
    spec: &QueueBindingSpec,
    policy: &Policy,
    admitted: &Admitted,
    hold: Option<&Waiting>,
    mut jobs: HashMap<TaskId, Draft>,
    (troubles, lore): (&Troubles, &Lore),
) -> Vec<Case> {
    let place: HashMap<&TaskId, usize> = admitted
        .tasks
        .iter()
        .enumerate()
        .map(|(place, task)| (task, place))
        .collect();
    let now = Timestamp::now();
    let mut cases: Vec<Case> = observed
        .into_iter()
        .map(|(task, observed)| {
            let admission = match hold {
                Some(waiting) => Admission::No(waiting.message.clone()),
                None if place.contains_key(&task) => Admission::Yes,
                None if matches!(Phase::of(&observed.facts), Phase::Intended(..)) => {
                    still_fits(spec, &live.own_unended, &task)
                }
                None => Admission::No("there is no room".into()),
            };
            let objects = live.objects.remove(&task).unwrap_or_default();
            let policy = policy.admitting(admission);
            Case {
                observed,
                policy: troubles.policy(&objects, lore, policy),
                objects,
                rendered: jobs.remove(&task),
                turn: place.get(&task).map(|place| Turn::new(now, *place)),
                task,
            }
        })
        .collect();
    // Admitted ones in their order; of the others, which may go back to the front of their queue, the last taken first.
    cases.sort_by_cached_key(|case| {
        let place = place.get(&case.task).copied().unwrap_or(usize::MAX);
        (place, Reverse(Turn::last(&case.objects.jobs)))
    });
    cases
}

/// An intent that is there already was admitted when it was written; limits may have been lowered since.
fn still_fits(spec: &QueueBindingSpec, unended: &[Arc<JobRow>], task: &TaskId) -> Admission {
    let of_task = |job: &&Arc<JobRow>| job.label(label::TASK) == Some(task.as_str());
    let room = Room::of(&spec.limits, unended.iter().filter(|job| !of_task(job)));
    let ask = unended
        .iter()
        .find(of_task)
        .map(|job| admit::ask_of(job))
        .unwrap_or_default();
    match room.fits(&ask) {
        Ok(()) => Admission::Yes,
        Err(waiting) => Admission::No(waiting.message),
    }
}

/// A queued task that is in none of the binding's queues.
pub(super) fn needs_every_queue(case: &Case) -> bool {
    let queued =
        matches!(&case.observed.facts.task, TaskFact::Found(task) if task.status == Status::Queued);
    queued
        && matches!(
            case.observed.facts.entry,
            Entry::Unknown | Entry::Nowhere | Entry::Elsewhere
        )
}

/// Whether a binding that goes has nothing left to give back.
pub(super) fn nothing_claimed(queues: &Queues, cases: &[Case]) -> bool {
    let waits = |case: &Case| match &case.observed.facts.jobs {
        JobsFact::Known(jobs) => jobs.iter().any(|job| job.waits() && !job.other_binding),
        JobsFact::Unknown => true,
    };
    queues.pending.entries.is_empty() && !cases.iter().any(waits)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_executor_that_closes_its_task_has_the_grace_of_the_binding_and_time_to_leave() {
        let grace = |lifecycle: Value| {
            let spec = json!({"queues": [{"name": "gpu"}], "lifecycle": lifecycle});
            policy(&serde_json::from_value(spec).unwrap(), false).grace
        };
        assert_eq!(grace(json!({})), SignedDuration::from_secs(30 + 120));
        assert_eq!(
            grace(json!({"abortGracePeriod": "2m"})),
            SignedDuration::from_secs(120 + 120)
        );
    }
}
