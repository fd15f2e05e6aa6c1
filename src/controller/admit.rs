//! Admit: which offered tasks may be taken in this pass. Pure but for the turns that it is handed.
//!
//! Permits are computed from observed Jobs, never counted up and down: what a Job occupies is read from the Job.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use crate::claim::order::{self, Lane, Strategy, Turns};
use crate::crd::{LimitsSpec, Quantity, Resources};
use crate::pod::annotation;
use crate::task::{QueueId, TaskId};

/// Reason while the limits leave no room.
const LIMIT_REACHED: &str = "LimitReached";

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

/// What is left of a binding's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    limit: Option<u32>,
    tasks: u32,
    /// Limit and use by resource name.
    resources: BTreeMap<String, (Quantity, Quantity)>,
}

impl Room {
    /// The limits less what these Jobs occupy. An amount that cannot be read admits nothing: the schema lets none pass.
    pub fn of<'a>(limits: &LimitsSpec, jobs: impl Iterator<Item = &'a Arc<Job>>) -> Self {
        let resources = limits
            .resources
            .iter()
            .map(|(name, amount)| {
                (
                    name.clone(),
                    (amount.0.parse().unwrap_or_default(), Quantity::default()),
                )
            })
            .collect();
        let limit = limits
            .max_concurrent
            .map(|most| u32::try_from(most).unwrap_or(0));
        let mut room = Self {
            limit,
            tasks: 0,
            resources,
        };
        for job in jobs {
            room.occupy(&requests(job));
        }
        room
    }

    /// Counts one more task that needs this.
    pub fn occupy(&mut self, need: &Resources) {
        self.tasks += 1;
        for (name, (_, used)) in &mut self.resources {
            *used = used.plus(need.get(name));
        }
    }

    /// How many more tasks there may be.
    pub fn free(&self) -> Option<u32> {
        self.limit.map(|limit| limit.saturating_sub(self.tasks))
    }

    /// Whether one more task that needs this fits; else the reason to wait.
    pub fn fits(&self, need: &Resources) -> Result<(), Waiting> {
        self.full()?;
        for (name, (limit, used)) in &self.resources {
            let need = need.get(name);
            if !need.is_zero() && used.plus(need) > *limit {
                return Err(Waiting::new(
                    LIMIT_REACHED,
                    format!(
                        "the next task needs {need} {name}, {used} of {limit} are claimed (spec.limits.resources)"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether there is no room for any task, however small.
    pub fn full(&self) -> Result<(), Waiting> {
        match (self.limit, self.free()) {
            (Some(limit), Some(0)) => Err(Waiting::new(
                LIMIT_REACHED,
                format!(
                    "{} of {limit} tasks are claimed or running (spec.limits.maxConcurrent)",
                    self.tasks
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Why what is there already breaks the limits; after a limit was lowered it may.
    pub fn overdrawn(&self) -> Option<Waiting> {
        let told = |message| Some(Waiting::new("LimitExceeded", message));
        if let Some(limit) = self.limit.filter(|limit| self.tasks > *limit) {
            return told(format!(
                "{} tasks are claimed or running, {limit} are allowed (spec.limits.maxConcurrent)",
                self.tasks
            ));
        }
        let (name, (limit, used)) = self
            .resources
            .iter()
            .find(|(_, (limit, used))| used > limit)?;
        told(format!(
            "{used} {name} are claimed, {limit} are allowed (spec.limits.resources)"
        ))
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
        assert!(
            room.fits(&need(2))
                .unwrap_err()
                .message
                .contains("needs 2 nvidia.com/gpu, 3 of 4")
        );
        assert_eq!(room.fits(&Resources::default()), Ok(()));
    }

    #[test]
    fn a_lowered_limit_is_noticed() {
        assert_eq!(
            Room::of(&limits(Some(2), None), [job(1), job(2)].iter()).overdrawn(),
            None
        );
        assert!(
            Room::of(&limits(Some(1), None), [job(1), job(2)].iter())
                .overdrawn()
                .is_some()
        );
        assert!(
            Room::of(&limits(None, Some("2")), [job(1), job(2)].iter())
                .overdrawn()
                .is_some()
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
        assert!(admitted.waiting.unwrap().message.contains("2 of 2 tasks"));
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
