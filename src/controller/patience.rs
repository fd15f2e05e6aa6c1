//! Patience: since when a pod has not started for the same cause, and how long that is waited for.
//!
//! In memory: a process that starts anew is patient anew.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::live::Live;
use super::observe::{Lore, Objects};
use super::row::JobRow;
use super::verdict;
use crate::claim::{Cause, OnPendingTimeout, Policy};
use crate::diagnose::{Category, Patience, patience};

/// What stands in the way of Jobs that do not start, and since when, by the Job's UID.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    by_job: HashMap<String, (Category, Timestamp)>,
    /// The binding takes nothing for now: what has not started is not waited for.
    closed: bool,
}

impl Troubles {
    /// Takes in what the mirrors and Events say now.
    pub fn look(&mut self, live: &Live, lore: &Lore, now: Timestamp) {
        let mut seen = HashMap::new();
        for job in &live.own_unended {
            if lore.started.contains(&*job.uid) {
                continue;
            }
            let pods = task_of(job)
                .and_then(|task| live.objects.get(&task))
                .map(|objects| objects.pods.as_slice())
                .unwrap_or_default();
            let Some(waiting) = verdict::waiting(job, pods, lore) else {
                continue;
            };
            let since = self
                .by_job
                .get(&*job.uid)
                .filter(|(category, _)| *category == waiting.category)
                .map_or(now, |(_, since)| *since);
            seen.insert(job.uid.to_string(), (waiting.category, since));
        }
        self.by_job = seen;
    }

    /// Whether the binding takes nothing for now because it is meant to: suspended, or outside its hours.
    pub fn close(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// How many Jobs wait for each cause.
    pub fn count(&self) -> HashMap<Category, u64> {
        let mut counts = HashMap::new();
        for (category, _) in self.by_job.values() {
            *counts.entry(*category).or_default() += 1;
        }
        counts
    }

    /// The policy for the task of these Jobs: patience ends earlier where waiting is of little use, and what failed by
    /// its own fault before its code began is not tried again.
    pub fn policy(&self, objects: &Objects, lore: &Lore, policy: Policy) -> Policy {
        let youngest = objects.jobs.iter().max_by_key(|job| job.created);
        match youngest {
            None => policy,
            Some(job) if job.has_ended() => {
                match verdict::cause(job, &lore.pods_or_remains(job, &objects.pods)) {
                    Cause::Task | Cause::Failure => Policy {
                        max_interruptions: 0,
                        ..policy
                    },
                    Cause::Interruption => policy,
                }
            }
            Some(job) => self.while_waiting(job, policy),
        }
    }

    fn while_waiting(&self, job: &JobRow, policy: Policy) -> Policy {
        if self.closed {
            // Whatever keeps it from starting: it would start in a binding that is to start nothing.
            return Policy {
                pending_timeout: SignedDuration::ZERO,
                on_pending_timeout: OnPendingTimeout::Requeue,
                ..policy
            };
        }
        let Some((category, since)) = self.by_job.get(&*job.uid) else {
            return policy;
        };
        let (most, fails) = match patience(*category) {
            Patience::AsBound => return policy,
            Patience::Then(most) => (most, false),
            Patience::ThenFail(most) => (most, true),
        };
        // `decide` counts from the creation of the Job.
        let created = job.created.unwrap_or(*since);
        let most = since.duration_since(created) + signed(most);
        if most >= policy.pending_timeout {
            return policy;
        }
        Policy {
            pending_timeout: most,
            on_pending_timeout: if fails {
                OnPendingTimeout::Fail
            } else {
                policy.on_pending_timeout
            },
            ..policy
        }
    }
}

fn task_of(job: &JobRow) -> Option<crate::task::TaskId> {
    job.label(crate::pod::label::TASK)?.parse().ok()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::claim::{Admission, OnInterruption};
    use crate::controller::row::Row;

    fn policy() -> Policy {
        Policy {
            pending_timeout: SignedDuration::from_hours(1),
            on_pending_timeout: OnPendingTimeout::Requeue,
            on_interruption: OnInterruption::Requeue,
            max_interruptions: 3,
            max_failures: 0,
            grace: SignedDuration::from_secs(30),
            restore_orphans: false,
            retiring: false,
            admission: Admission::Yes,
        }
    }

    fn job() -> JobRow {
        let job = json!({"metadata": {"uid": "j", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        JobRow::of(serde_json::from_value(job).unwrap())
    }

    fn after(category: Category, seconds: i64) -> Policy {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let troubles = Troubles {
            by_job: HashMap::from([(
                "j".to_owned(),
                (category, since + SignedDuration::from_secs(seconds)),
            )]),
            closed: false,
        };
        troubles.while_waiting(&job(), policy())
    }

    #[test]
    fn patience_with_a_missing_image_counts_from_when_that_was_found_out() {
        let policy = after(Category::ImageMissing, 600);
        assert_eq!(policy.pending_timeout, SignedDuration::from_secs(630));
        assert_eq!(policy.on_pending_timeout, OnPendingTimeout::Fail);
    }

    #[test]
    fn a_registry_that_is_down_may_come_back_another_time() {
        let policy = after(Category::ImagePull, 5);
        assert_eq!(policy.pending_timeout, SignedDuration::from_secs(605));
        assert_eq!(policy.on_pending_timeout, OnPendingTimeout::Requeue);
    }

    #[test]
    fn a_binding_that_takes_nothing_gives_back_what_has_not_started_and_fails_none_of_it() {
        let mut troubles = Troubles::default();
        let fails = Policy {
            on_pending_timeout: OnPendingTimeout::Fail,
            ..policy()
        };
        assert_eq!(troubles.while_waiting(&job(), fails.clone()), fails);
        troubles.close(true);
        let closed = troubles.while_waiting(&job(), fails.clone());
        assert_eq!(closed.pending_timeout, SignedDuration::ZERO);
        assert_eq!(closed.on_pending_timeout, OnPendingTimeout::Requeue);
        troubles.close(false);
        assert_eq!(troubles.while_waiting(&job(), fails.clone()), fails);
    }

    #[test]
    fn room_is_waited_for_as_the_binding_says_and_never_longer() {
        assert_eq!(after(Category::Unschedulable, 5), policy());
        assert_eq!(after(Category::ImageRateLimit, 3000), policy());
    }
}
