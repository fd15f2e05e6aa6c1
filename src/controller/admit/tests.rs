mod traces;

use proptest::collection::vec as many;
use serde_json::json;

use super::*;
use crate::claim::order::model::{By, Model, Spec, Task};
use crate::controller::row::{JobRow, Row};
use crate::crd::{LimitsSpec, Quantity, Resources};

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
    Head::Ready {
        ask: Arc::new(ask),
        overtaken: 0,
    }
}

fn job(gpus: u32) -> Arc<JobRow> {
    let annotations = json!({"trainyard.dev/requests": format!("cpu=1,nvidia.com/gpu={gpus}")});
    let job = json!({"metadata": {"annotations": annotations}});
    Arc::new(JobRow::of(serde_json::from_value(job).unwrap()))
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
    let queues: HashMap<QueueId, Vec<TaskId>> = HashMap::from([0, 1].map(|number| {
        let tasks = (0..2).map(|place| task(number * 2 + place)).collect();
        (queue(number), tasks)
    }));
    let since = Timestamp::from_second(5).unwrap();
    let aged = HashMap::from([(task(2), since), (task(3), since)]);
    let rules = by_priority(&lanes, lookahead, &aged);
    let room = Room::of(limits, [].iter());
    let asked = |id: &TaskId| (0..4).find(|number| task(*number) == *id).unwrap();
    Course::of(rules, &queues, Turns::default(), room)
        .admit(|id| ready(need(asks[asked(id) as usize])))
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

fn run(lengths: &[u32], room: Room, head: impl FnMut(&TaskId) -> Head) -> Admitted {
    let lanes: Vec<Lane> = (0..)
        .zip(lengths)
        .map(|(i, _)| Lane {
            queue: queue(i),
            weight: 1,
        })
        .collect();
    let queues: HashMap<QueueId, Vec<TaskId>> = (0..)
        .zip(lengths)
        .map(|(i, n)| (queue(i), (0..*n).map(|k| task(i * 100 + k)).collect()))
        .collect();
    let aged = HashMap::new();
    let rules = by_priority(&lanes, 0, &aged);
    Course::of(rules, &queues, Turns::default(), room).admit(head)
}

#[test]
fn tasks_go_in_order_until_the_room_is_used_up() {
    let room = Room::of(&limits(Some(2), None), [].iter());
    let admitted = run(&[1, 5], room, |_| ready(Ask::default()));
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
    let room = Room::of(&limits(None, Some("2")), [].iter());
    let admitted = run(&[2, 2], room, |id| {
        ready(need(if *id == task(0) { 8 } else { 1 }))
    });
    assert_eq!(admitted.tasks, [task(100), task(101)]);
}

#[test]
fn an_entry_that_is_not_on_offer_holds_nobody() {
    let room = Room::of(&limits(Some(1), None), [].iter());
    let admitted = run(&[3], room, |id| {
        if *id == task(0) {
            Head::Skip
        } else {
            ready(Ask::default())
        }
    });
    assert_eq!(admitted.tasks, [task(1)]);
}

#[test]
fn a_task_that_waits_for_something_of_its_own_holds_nobody_and_says_why() {
    let waits = |all: u32| {
        let room = Room::of(&limits(None, None), [].iter());
        run(&[3], room, move |id| {
            if (0..all).any(|number| *id == task(number)) {
                Head::Waits(Waiting::new("ImageCommandUnknown", "it is down"))
            } else {
                ready(Ask::default())
            }
        })
    };
    let one = waits(1);
    assert_eq!(one.tasks, [task(1), task(2)]);
    assert_eq!(one.waiting.unwrap().reason, "ImageCommandUnknown");
    assert!(waits(3).tasks.is_empty());
    assert_eq!(waits(0).waiting, None);
}

/// One queue of tasks that ask for so many GPUs and belong to these users, in passes that free nothing.
fn one_queue(asks: &[(i64, &str)], limits: &LimitsSpec, lookahead: usize) -> (Vec<u32>, Admitted) {
    let lanes = [Lane {
        queue: queue(0),
        weight: 1,
    }];
    let all: Vec<TaskId> = (0..).zip(asks).map(|(number, _)| task(number)).collect();
    let queues = HashMap::from([(queue(0), all.clone())]);
    let aged = HashMap::new();
    let rules = by_priority(&lanes, lookahead, &aged);
    let room = Room::of(limits, [].iter());
    let admitted = Course::of(rules, &queues, Turns::default(), room).admit(|id| {
        let (gpus, user) = asks[all.iter().position(|task| task == id).unwrap()];
        ready(Ask {
            user: user.into(),
            ..need(gpus)
        })
    });
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
    let overtaken: Vec<_> = admitted.overtaken(|_| true).collect();
    assert_eq!(overtaken, [(&task(1), 2)]);
    assert_eq!(one_queue(&asks, &four, 9).0, [0, 2, 3, 4]);
}

#[test]
fn who_is_left_to_the_next_pass_has_overtaken_nobody() {
    let four = limits(None, Some("4"));
    let (order, admitted) = one_queue(&[(8, ""), (1, ""), (1, "")], &four, 2);
    assert_eq!(order, [1, 2]);
    let overtaken: Vec<_> = admitted.overtaken(|id| *id != task(2)).collect();
    assert_eq!(overtaken, [(&task(0), 1)]);
}

#[test]
fn who_was_overtaken_often_enough_is_overtaken_no_more() {
    let lanes = [Lane {
        queue: queue(0),
        weight: 1,
    }];
    let tasks: Vec<TaskId> = (0..3).map(task).collect();
    let queues = HashMap::from([(queue(0), tasks)]);
    let aged = HashMap::new();
    let rules = by_priority(&lanes, 2, &aged);
    let room = Room::of(&limits(None, Some("4")), [].iter());
    let admitted = Course::of(rules, &queues, Turns::default(), room).admit(|id| Head::Ready {
        ask: Arc::new(need(if *id == task(0) { 8 } else { 1 })),
        overtaken: usize::from(*id == task(0)),
    });
    assert_eq!(admitted.tasks, [task(1)]);
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
    let room = Room::of(&limits(None, None), [].iter());
    let admitted = run(&[2, 1], room, |id| {
        if *id == task(0) {
            Head::Hold
        } else {
            ready(Ask::default())
        }
    });
    assert_eq!(admitted.tasks, [task(100)]);
}

/// The queues of the tasks that begin, where each pass admits many of each queue and has time for the first alone.
fn one_begins_in_each_pass(strategy: Strategy, weights: &[u32], passes: usize) -> Vec<u32> {
    let lanes: Vec<Lane> = (0..)
        .zip(weights)
        .map(|(number, weight)| Lane {
            queue: queue(number),
            weight: *weight,
        })
        .collect();
    let aged = HashMap::new();
    let rules = Rules {
        strategy,
        ..by_priority(&lanes, 0, &aged)
    };
    let queues: HashMap<QueueId, Vec<TaskId>> = (0..)
        .zip(weights)
        .map(|(number, _)| {
            let tasks = (0..4).map(|place| task(number * 4 + place)).collect();
            (queue(number), tasks)
        })
        .collect();
    let mut turns = Turns::default();
    let one_pass = |_| {
        let room = Room::of(&limits(None, None), [].iter());
        let mut course = Course::of(rules, &queues, turns.clone(), room);
        let admitted = course.admit(|_| ready(Ask::default()));
        assert_eq!(admitted.tasks.len(), weights.len() * 4);
        let first = &admitted.tasks[0];
        turns = admitted.turns_after(|task| task != first).clone();
        u32::from_str_radix(first.as_str(), 16).unwrap() / 4
    };
    (0..passes).map(one_pass).collect()
}

#[test]
fn a_queue_does_not_pay_for_tasks_that_are_left_to_the_next_pass() {
    let round = one_begins_in_each_pass(Strategy::RoundRobin, &[1; 3], 6);
    assert_eq!(round, [0, 1, 2, 0, 1, 2]);
    let shares = one_begins_in_each_pass(Strategy::Weighted, &[3, 1], 8);
    assert_eq!(shares.iter().filter(|queue| **queue == 1).count(), 2);
}

proptest::proptest! {
    #[test]
    fn the_order_within_a_queue_is_the_models(
        asks in many(1_i64..6, 0..14), free in 0_i64..12, lookahead in 0_usize..6,
    ) {
        let limits = limits(None, Some(&free.to_string()));
        let with_user: Vec<(i64, &str)> = asks.iter().map(|asked| (*asked, "")).collect();
        let spec = Spec { by: By::List, weights: vec![1], lookahead, room: free, most: None, each_user: None };
        let tasks = (0..).zip(&asks).map(|(number, size)| Task { number, size: *size, user: 0 });
        let mut model = Model::new(spec, vec![tasks.collect()]);
        proptest::prop_assert_eq!(one_queue(&with_user, &limits, lookahead).0, model.pass());
    }
}
