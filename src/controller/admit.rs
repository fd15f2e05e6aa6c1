//! Admit: which offered tasks may be taken in this pass. Pure but for the turns that it is handed.
//!
//! Permits are computed from observed Jobs, never counted up and down: what a Job occupies is read from the Job.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::capacity::{self, Ask, Free, InUse, Limits, Wait};
use crate::claim::order::{self, Lane, Strategy, Turns};
use crate::crd::{LimitsSpec, Resources};
use crate::pod::{annotation, label};
use crate::task::{QueueId, TaskId};

/// Why tasks wait: a word for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
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
pub(super) struct Room {
    limits: Result<Limits, Waiting>,
    in_use: InUse,
    most: Option<usize>,
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
pub(super) fn ask_of(job: &JobRow) -> Ask {
    let text = job.annotation(annotation::REQUESTS).unwrap_or_default();
    let label = |name: &str| job.label(name).unwrap_or_default().to_owned();
    Ask {
        need: Resources::from_annotation(text).unwrap_or_default(),
        user: label(label::USER),
        project: label(label::PROJECT),
        placement: None,
    }
}

/// Whether a head of a queue may go.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Head {
    /// Offered, asks for this, and was overtaken so often.
    Ready { ask: Ask, overtaken: usize },
    /// Something else has to happen to this entry first; who stands behind it need not wait for that.
    Skip,
    /// It is not known yet whether it may go; nobody of its queue goes before it.
    Hold,
}

/// Who goes, in order; and why the first of those who stay has to wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    pub tasks: Vec<TaskId>,
    pub waiting: Option<Waiting>,
    /// Tasks that were overtaken, and how often by now.
    pub overtaken: HashMap<TaskId, usize>,
}

/// One queue in the course of a pass.
struct Line {
    waiting: VecDeque<TaskId>,
    /// Those that cannot fit, and how often each was overtaken.
    blocked: Vec<(TaskId, usize)>,
    /// How many were tried behind the first of them.
    tried: usize,
}

impl Line {
    /// A try behind a task that cannot fit; the last one ends the line for this pass.
    fn count_try(&mut self, lookahead: usize) {
        if self.blocked.is_empty() {
            return;
        }
        self.tried += 1;
        let spent = self.blocked.iter().any(|(_, times)| *times >= lookahead);
        if spent || self.tried >= lookahead {
            self.waiting.clear();
        }
    }
}

/// By what tasks are picked.
pub(super) struct Rules<'a> {
    pub strategy: Strategy,
    pub lanes: &'a [Lane],
    /// How many tasks may be tried behind one that cannot fit.
    pub lookahead: usize,
    /// Tasks that have waited beyond the bound of aging, and since when.
    pub aged: &'a HashMap<TaskId, Timestamp>,
}

/// Picks tasks by the binding's strategy while there is room. A head that does not fit holds its own queue alone, but
/// for `lookahead` tasks behind it; one that its own user's or project's limit holds up is passed over. Nobody goes
/// before one that has waited beyond the bound of aging and that the binding's own limits hold up.
pub(super) fn admit(
    rules: &Rules<'_>,
    turns: &mut Turns,
    queues: HashMap<QueueId, VecDeque<TaskId>>,
    room: &mut Room,
    mut head: impl FnMut(&TaskId) -> Head,
) -> Admitted {
    let Rules {
        strategy,
        lanes,
        lookahead,
        aged,
    } = *rules;
    let mut lines: HashMap<QueueId, Line> = queues
        .into_iter()
        .map(|(queue, waiting)| {
            let line = Line {
                waiting,
                blocked: Vec::new(),
                tried: 0,
            };
            (queue, line)
        })
        .collect();
    let mut admitted = Admitted::default();
    let mut own = None;
    loop {
        let first = |queue: &QueueId| lines.get(queue)?.waiting.front();
        let next = order::next(
            strategy,
            lanes,
            turns,
            |queue| first(queue).is_some(),
            |queue| aged.get(first(queue)?).copied(),
        );
        let line = next.and_then(|(queue, after)| Some((lines.get_mut(queue)?, after)));
        let Some((line, after)) = line else { break };
        let Some(task) = line.waiting.front().cloned() else {
            break;
        };
        match head(&task) {
            Head::Skip => {
                line.waiting.pop_front();
            }
            Head::Hold => line.waiting.clear(),
            Head::Ready { ask, overtaken } => {
                line.waiting.pop_front();
                match room.fits(&ask) {
                    Ok(()) => {
                        room.occupy(&ask);
                        *turns = after;
                        admitted.tasks.push(task);
                        for (passed, times) in &mut line.blocked {
                            *times += 1;
                            admitted.overtaken.insert(passed.clone(), *times);
                        }
                        line.count_try(lookahead);
                    }
                    Err(reason) if reason.own => {
                        own.get_or_insert(reason);
                    }
                    Err(reason) => {
                        let holds_all = aged.contains_key(&task) && reason.is_of_limits();
                        admitted.waiting.get_or_insert(reason);
                        if holds_all {
                            break;
                        }
                        line.count_try(lookahead);
                        if overtaken >= lookahead || aged.contains_key(&task) {
                            line.waiting.clear();
                        }
                        line.blocked.push((task, overtaken));
                    }
                }
            }
        }
    }
    admitted.waiting = admitted.waiting.or(own);
    admitted
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

    fn need(gpus: i64) -> Ask {
        let need = Resources::from_iter([("nvidia.com/gpu".to_owned(), Quantity::whole(gpus))]);
        Ask {
            need,
            ..Ask::default()
        }
    }

    fn ready(ask: Ask) -> Head {
        Head::Ready { ask, overtaken: 0 }
    }

    fn job(gpus: u32) -> Arc<JobRow> {
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

    fn by_priority<'a>(
        lanes: &'a [Lane],
        lookahead: usize,
        aged: &'a HashMap<TaskId, Timestamp>,
    ) -> Rules<'a> {
        Rules {
            strategy: Strategy::Priority,
            lanes,
            lookahead,
            aged,
        }
    }

    /// Two queues of two tasks each, those of the second one aged; the tasks that go where each asks for so many.
    fn with_aged(limits: &LimitsSpec, asks: [i64; 4], lookahead: usize) -> Admitted {
        let lanes = [0, 1].map(|number| Lane {
            queue: queue(number),
            weight: 1,
        });
        let queues = HashMap::from([0, 1].map(|number| {
            let tasks = (0..2).map(|place| task(number * 2 + place)).collect();
            (queue(number), tasks)
        }));
        let since = Timestamp::from_second(5).unwrap();
        let aged = HashMap::from([(task(2), since), (task(3), since)]);
        let mut room = Room::of(limits, [].iter());
        let asked = |id: &TaskId| (0..4).find(|number| task(*number) == *id).unwrap();
        admit(
            &by_priority(&lanes, lookahead, &aged),
            &mut Turns::default(),
            queues,
            &mut room,
            |id| ready(need(asks[asked(id) as usize])),
        )
    }

    #[test]
    fn who_has_waited_too_long_goes_before_the_queues_above() {
        let admitted = with_aged(&limits(Some(3), None), [0; 4], 0);
        assert_eq!(admitted.tasks, [task(2), task(3), task(0)]);
    }

    #[test]
    fn nobody_goes_before_an_aged_task_that_a_limit_of_the_binding_holds_up() {
        let two = limits(None, Some("2"));
        let admitted = with_aged(&two, [1, 1, 1, 2], 9);
        assert_eq!(admitted.tasks, [task(2)], "the room is kept for task 3");
        assert_eq!(admitted.waiting.unwrap().reason, "LimitReached");
        let never = with_aged(&two, [1, 1, 8, 1], 9);
        assert_eq!(
            never.tasks,
            [task(0), task(1)],
            "what can never go holds up its own queue alone"
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
            &by_priority(&lanes, 0, &HashMap::new()),
            &mut Turns::default(),
            queues,
            room,
            head,
        )
    }

    #[test]
    fn tasks_go_in_order_until_the_room_is_used_up() {
        let mut room = Room::of(&limits(Some(2), None), [].iter());
        let admitted = run(&[1, 5], &mut room, |_| ready(Ask::default()));
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
            ready(need(if *id == task(0) { 8 } else { 1 }))
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
                ready(Ask::default())
            }
        });
        assert_eq!(admitted.tasks, [task(1)]);
    }

    /// One queue of tasks that ask for so many GPUs and belong to these users, in passes that free nothing.
    fn one_queue(
        asks: &[(i64, &str)],
        limits: &LimitsSpec,
        lookahead: usize,
    ) -> (Vec<u32>, Admitted) {
        let lanes = [Lane {
            queue: queue(0),
            weight: 1,
        }];
        let tasks: VecDeque<TaskId> = (0..).zip(asks).map(|(number, _)| task(number)).collect();
        let all = tasks.clone();
        let mut room = Room::of(limits, [].iter());
        let queues = HashMap::from([(queue(0), tasks)]);
        let admitted = admit(
            &by_priority(&lanes, lookahead, &HashMap::new()),
            &mut Turns::default(),
            queues,
            &mut room,
            |id| {
                let (gpus, user) = asks[all.iter().position(|task| task == id).unwrap()];
                ready(Ask {
                    user: user.into(),
                    ..need(gpus)
                })
            },
        );
        let number =
            |id: &TaskId| u32::try_from(all.iter().position(|task| task == id).unwrap()).unwrap();
        (admitted.tasks.iter().map(number).collect(), admitted)
    }

    #[test]
    fn lookahead_tries_so_many_behind_a_head_that_cannot_fit() {
        let four = limits(None, Some("4"));
        let asks = [(1, ""), (8, ""), (1, ""), (1, ""), (1, "")];
        assert_eq!(one_queue(&asks, &four, 0).0, [0]);
        assert_eq!(one_queue(&asks, &four, 1).0, [0, 2]);
        let (order, admitted) = one_queue(&asks, &four, 2);
        assert_eq!(order, [0, 2, 3]);
        assert_eq!(admitted.overtaken, HashMap::from([(task(1), 2)]));
        assert_eq!(one_queue(&asks, &four, 9).0, [0, 2, 3, 4]);
    }

    #[test]
    fn who_was_overtaken_often_enough_is_overtaken_no_more() {
        let lanes = [Lane {
            queue: queue(0),
            weight: 1,
        }];
        let queues = HashMap::from([(queue(0), (0..3).map(task).collect())]);
        let mut room = Room::of(&limits(None, Some("4")), [].iter());
        let admitted = admit(
            &by_priority(&lanes, 2, &HashMap::new()),
            &mut Turns::default(),
            queues,
            &mut room,
            |id| Head::Ready {
                ask: need(if *id == task(0) { 8 } else { 1 }),
                overtaken: usize::from(*id == task(0)),
            },
        );
        assert_eq!(admitted.tasks, [task(1)]);
        assert_eq!(admitted.overtaken[&task(0)], 2);
    }

    #[test]
    fn a_user_at_the_limit_holds_up_nobody_else() {
        let limits: LimitsSpec =
            serde_json::from_value(json!({"perUser": {"maxConcurrent": 1}})).unwrap();
        let asks = [(0, "ann"), (0, "ann"), (0, "bob"), (0, "ann"), (0, "bob")];
        let (order, admitted) = one_queue(&asks, &limits, 0);
        assert_eq!(order, [0, 2]);
        let waiting = admitted.waiting.unwrap();
        assert!(
            waiting.own && waiting.message.contains("limits.perUser.maxConcurrent"),
            "{waiting:?}"
        );
    }

    #[test]
    fn a_head_that_is_not_judged_yet_holds_its_queue() {
        let mut room = Room::of(&limits(None, None), [].iter());
        let admitted = run(&[2, 1], &mut room, |id| {
            if *id == task(0) {
                Head::Hold
            } else {
                ready(Ask::default())
            }
        });
        assert_eq!(admitted.tasks, [task(100)]);
    }

    /// The rule in other words, for one queue without users: go through the queue once; a task goes if it fits what is
    /// left and everybody before it who stays may still be overtaken.
    fn model(asks: &[i64], mut free: i64, lookahead: usize) -> Vec<u32> {
        let mut gone = Vec::new();
        let mut stays: Vec<usize> = Vec::new();
        for (place, asked) in asks.iter().enumerate() {
            if let Some(first) = stays.first() {
                let overtakes =
                    |stayed: &usize| gone.iter().filter(|went| **went as usize > *stayed).count();
                if place - first > lookahead
                    || stays.iter().any(|stayed| overtakes(stayed) >= lookahead)
                {
                    break;
                }
            }
            if *asked <= free {
                free -= asked;
                gone.push(u32::try_from(place).unwrap());
            } else {
                stays.push(place);
            }
        }
        gone
    }

    proptest::proptest! {
        #[test]
        fn the_order_within_a_queue_is_the_models(
            asks in proptest::collection::vec(1_i64..6, 0..14), free in 0_i64..12, lookahead in 0_usize..6,
        ) {
            let limits = limits(None, Some(&free.to_string()));
            let with_user: Vec<(i64, &str)> = asks.iter().map(|asked| (*asked, "")).collect();
            proptest::prop_assert_eq!(one_queue(&with_user, &limits, lookahead).0, model(&asks, free, lookahead));
        }
    }
}
