//! Admit: which offered tasks may be taken in this pass. Pure but for the turns that it is handed.
//!
//! Permits are computed from observed Jobs, never counted up and down: what a Job occupies is read from the Job.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use crate::capacity::{self, InUse, Limits, Wait};
use crate::claim::order::{self, Lane, Strategy, Turns};
use crate::crd::{LimitsSpec, Resources};
use crate::pod::annotation;
use crate::task::{QueueId, TaskId};

/// Why tasks wait: a word for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub reason: &'static str,
    pub message: String,
}

impl Waiting {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl From<Wait> for Waiting {
    fn from(wait: Wait) -> Self {
        let reason = match wait {
            Wait::Concurrent { .. } | Wait::Resource { .. } => "LimitReached",
            Wait::NeverFits { .. } => "NeverFits",
        };
        Self::new(reason, wait.to_string())
    }
}

/// What is left of a binding's limits.
#[derive(Debug, Clone)]
pub(super) struct Room {
    limits: Result<Limits, Waiting>,
    in_use: InUse,
    most: Option<usize>,
}

impl Room {
    /// The limits, and what these Jobs use of them.
    pub fn of<'a>(limits: &LimitsSpec, jobs: impl Iterator<Item = &'a Arc<Job>>) -> Self {
        let mut in_use = InUse::default();
        for job in jobs {
            in_use.add(&requests(job));
        }
        Self {
            in_use,
            most: limits
                .max_concurrent
                .map(|most| usize::try_from(most).unwrap_or(0)),
            limits: Limits::of(limits)
                .map_err(|error| Waiting::new("LimitUnreadable", error.to_string())),
        }
    }

    /// Counts one more task that needs this.
    pub fn occupy(&mut self, need: &Resources) {
        self.in_use.add(need);
    }

    /// How many more tasks there may be.
    pub fn free(&self) -> Option<usize> {
        self.most.map(|most| most.saturating_sub(self.in_use.tasks))
    }

    /// Whether one more task that needs this fits; else the reason to wait.
    pub fn fits(&self, need: &Resources) -> Result<(), Waiting> {
        let limits = self.limits.as_ref().map_err(Clone::clone)?;
        Ok(capacity::admit(limits, &self.in_use, need)?)
    }

    /// Whether there is no room for any task, however small.
    pub fn full(&self) -> Result<(), Waiting> {
        self.fits(&Resources::default())
    }
}

/// What a Job's pod requests, from its annotation.
pub(super) fn requests(job: &Job) -> Resources {
    let text = job
        .annotations()
        .get(annotation::REQUESTS)
        .map_or("", String::as_str);
    Resources::from_annotation(text).unwrap_or_default()
}

/// Whether a head of a queue may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// Offered, and needs this.
    Ready(Resources),
    /// Something else has to happen to this entry first; who stands behind it need not wait for that.
    Skip,
}

/// Who goes, in order; and why the first of those who stay has to wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    pub tasks: Vec<TaskId>,
    pub waiting: Option<Waiting>,
}

/// Picks tasks by the binding's strategy while there is room. A head that does not fit holds its own queue alone.
pub(super) fn admit(
    strategy: Strategy,
    lanes: &[Lane],
    turns: &mut Turns,
    mut queues: HashMap<QueueId, VecDeque<TaskId>>,
    room: &mut Room,
    mut head: impl FnMut(&TaskId) -> Head,
) -> Admitted {
    let mut admitted = Admitted::default();
    loop {
        let next = order::next(strategy, lanes, turns, |queue| {
            queues.get(queue).is_some_and(|waiting| !waiting.is_empty())
        });
        let Some((queue, after)) = next else {
            return admitted;
        };
        let Some(waiting) = queues.get_mut(queue) else {
            return admitted;
        };
        let Some(task) = waiting.front().cloned() else {
            return admitted;
        };
        match head(&task) {
            Head::Skip => {
                waiting.pop_front();
            }
            Head::Ready(need) => match room.fits(&need) {
                Ok(()) => {
                    room.occupy(&need);
                    waiting.pop_front();
                    *turns = after;
                    admitted.tasks.push(task);
                }
                Err(reason) => {
                    waiting.clear();
                    admitted.waiting.get_or_insert(reason);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::Quantity;

    fn queue(number: u32) -> QueueId {
        format!("{number:032x}").parse().unwrap()
    }

    fn task(number: u32) -> TaskId {
        format!("{number:032x}").parse().unwrap()
    }

    fn limits(max: Option<i32>, gpus: Option<&str>) -> LimitsSpec {
        serde_json::from_value(match gpus {
            Some(gpus) => json!({"maxConcurrent": max, "resources": {"nvidia.com/gpu": gpus}}),
            None => json!({"maxConcurrent": max}),
        })
        .unwrap()
    }

    fn need(gpus: i64) -> Resources {
        Resources::from_iter([("nvidia.com/gpu".to_owned(), Quantity::whole(gpus))])
    }

    fn job(gpus: u32) -> Arc<Job> {
        let annotations = json!({"trainyard.dev/requests": format!("cpu=1,nvidia.com/gpu={gpus}")});
        Arc::new(serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap())
    }

    #[test]
    fn room_is_what_observed_jobs_leave() {
        let room = Room::of(&limits(Some(3), Some("4")), [job(1), job(2)].iter());
        assert_eq!(room.free(), Some(1));
        assert_eq!(room.fits(&need(1)), Ok(()));
        assert_eq!(room.fits(&need(2)).unwrap_err().reason, "LimitReached");
        assert_eq!(room.fits(&need(5)).unwrap_err().reason, "NeverFits");
        assert_eq!(room.full(), Ok(()));
        assert!(
            Room::of(&limits(Some(2), None), [job(1), job(2)].iter())
                .full()
                .is_err()
        );
    }

    fn run(lengths: &[u32], room: &mut Room, head: impl FnMut(&TaskId) -> Head) -> Admitted {
        let lanes: Vec<Lane> = (0..)
            .zip(lengths)
            .map(|(i, _)| Lane {
                queue: queue(i),
                weight: 1,
            })
            .collect();
        let queues = (0..)
            .zip(lengths)
            .map(|(i, n)| (queue(i), (0..*n).map(|k| task(i * 100 + k)).collect()))
            .collect();
        admit(
            Strategy::Priority,
            &lanes,
            &mut Turns::default(),
            queues,
            room,
            head,
        )
    }

    #[test]
    fn tasks_go_in_order_until_the_room_is_used_up() {
        let mut room = Room::of(&limits(Some(2), None), [].iter());
        let admitted = run(&[1, 5], &mut room, |_| Head::Ready(Resources::default()));
        assert_eq!(admitted.tasks, [task(0), task(100)]);
        assert!(
            admitted
                .waiting
                .unwrap()
                .message
                .contains("one of 2 running tasks")
        );
    }

    #[test]
    fn a_head_that_does_not_fit_holds_its_own_queue_alone() {
        let mut room = Room::of(&limits(None, Some("2")), [].iter());
        let admitted = run(&[2, 2], &mut room, |id| {
            Head::Ready(need(if *id == task(0) { 8 } else { 1 }))
        });
        assert_eq!(admitted.tasks, [task(100), task(101)]);
    }

    #[test]
    fn an_entry_that_is_not_on_offer_holds_nobody() {
        let mut room = Room::of(&limits(Some(1), None), [].iter());
        let admitted = run(&[3], &mut room, |id| {
            if *id == task(0) {
                Head::Skip
            } else {
                Head::Ready(Resources::default())
            }
        });
        assert_eq!(admitted.tasks, [task(1)]);
    }
}
