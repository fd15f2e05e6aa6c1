//! Which served queue's head goes first. Pure: the state of turns goes in and comes out.
//!
//! Inside a queue the server's order counts; between queues the binding's strategy does, and before it, where it is
//! asked for, aging: a first task that has waited too long goes next. One call picks one queue; the caller drops a queue
//! whose head does not fit from `waiting` and asks again, so a head that waits costs its queue no turn.

#[cfg(test)]
pub(crate) mod model;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::task::QueueId;

/// How the served queues share the binding (`spec.strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The first of the list that has something waiting.
    Priority,
    /// The next after the one that went last, in the order of the list.
    RoundRobin,
    /// In proportion to the weights, as evenly spread as possible (smooth weighted round robin).
    Weighted,
}

/// A served queue and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    pub queue: QueueId,
    /// Counts for [`Strategy::Weighted`] alone; zero counts as one.
    pub weight: u32,
}

/// Whose turn it was. Lives in memory: a restart only starts the round again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    last: Option<QueueId>,
    /// What each queue is owed, in units of one task times all weights. A queue keeps it while nothing waits in it;
    /// it is bounded, so idle time earns no more than part of one round.
    credit: BTreeMap<QueueId, i64>,
}

/// The queue whose head goes first among those for which `waiting` says yes, and the turns after it has gone.
///
/// A head that has waited beyond the bound of aging goes before all others, whatever the strategy; `aged` says since
/// when it waits, and the one that has waited longest is first. `None`: nothing waits.
pub fn next<'a>(
    strategy: Strategy,
    lanes: &'a [Lane],
    turns: &Turns,
    waiting: impl Fn(&QueueId) -> bool,
    aged: impl Fn(&QueueId) -> Option<Timestamp>,
) -> Option<(&'a QueueId, Turns)> {
    let candidates: Vec<&Lane> = lanes.iter().filter(|lane| waiting(&lane.queue)).collect();
    let oldest = candidates
        .iter()
        .filter_map(|lane| Some((aged(&lane.queue)?, *lane)))
        .min_by_key(|(since, _)| *since)
        .map(|(_, lane)| lane);
    let mut after = turns.clone();
    let chosen = match strategy {
        Strategy::Priority => oldest.or(candidates.first().copied())?,
        // Who goes out of turn leaves the round as it was.
        Strategy::RoundRobin if oldest.is_some() => oldest?,
        Strategy::RoundRobin => {
            let chosen = after_last(lanes, &candidates, turns)?;
            after.last = Some(chosen.queue.clone());
            chosen
        }
        Strategy::Weighted => {
            let (chosen, credit) = most_owed(lanes, &candidates, turns, oldest)?;
            after.credit = credit;
            chosen
        }
    };
    Some((&chosen.queue, after))
}

/// The first candidate behind the queue that went last, wrapping around.
fn after_last<'a>(lanes: &[Lane], candidates: &[&'a Lane], turns: &Turns) -> Option<&'a Lane> {
    let place = |queue: &QueueId| lanes.iter().position(|lane| lane.queue == *queue);
    let last = turns.last.as_ref().and_then(place);
    let behind = candidates
        .iter()
        .find(|lane| last.is_none_or(|last| place(&lane.queue) > Some(last)));
    behind.or(candidates.first()).copied()
}

/// Everybody who waits earns its weight; who has most, or is first for another reason, goes and pays the sum. The first
/// in the list wins a tie.
fn most_owed<'a>(
    lanes: &[Lane],
    candidates: &[&'a Lane],
    turns: &Turns,
    first: Option<&'a Lane>,
) -> Option<(&'a Lane, BTreeMap<QueueId, i64>)> {
    let weight = |lane: &Lane| i64::from(lane.weight.max(1));
    let served = |queue: &QueueId| lanes.iter().any(|lane| lane.queue == *queue);
    let mut credit: BTreeMap<QueueId, i64> = turns
        .credit
        .iter()
        .filter(|(queue, _)| served(queue))
        .map(|(queue, owed)| (queue.clone(), *owed))
        .collect();
    let mut best: Option<(i64, &Lane)> = None;
    for &lane in candidates {
        let owed = credit.entry(lane.queue.clone()).or_default();
        *owed += weight(lane);
        if best.is_none_or(|(most, _)| *owed > most) {
            best = Some((*owed, lane));
        }
    }
    let chosen = first.or(best.map(|(_, lane)| lane))?;
    let sum: i64 = candidates.iter().map(|lane| weight(lane)).sum();
    *credit.entry(chosen.queue.clone()).or_default() -= sum;
    Some((chosen, credit))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec as many;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::model::{By, Rota};
    use super::*;

    fn queue(number: usize) -> QueueId {
        format!("{number:032x}").parse().unwrap()
    }

    fn lanes(weights: &[u32]) -> Vec<Lane> {
        weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| Lane {
                queue: queue(i),
                weight,
            })
            .collect()
    }

    /// Dispatches everything, one task at a time; answers the queues' numbers in order.
    fn dispatch(strategy: Strategy, lanes: &[Lane], mut lengths: Vec<usize>) -> Vec<usize> {
        let mut turns = Turns::default();
        let mut order = Vec::new();
        while let Some((chosen, after)) = next(
            strategy,
            lanes,
            &turns,
            |q| {
                lanes
                    .iter()
                    .zip(&lengths)
                    .any(|(lane, n)| lane.queue == *q && *n > 0)
            },
            |_| None,
        ) {
            let number = lanes.iter().position(|lane| lane.queue == *chosen).unwrap();
            lengths[number] -= 1;
            order.push(number);
            turns = after;
        }
        order
    }

    #[test]
    fn nothing_waiting_is_nobodys_turn() {
        for strategy in [Strategy::Priority, Strategy::RoundRobin, Strategy::Weighted] {
            assert_eq!(
                next(
                    strategy,
                    &lanes(&[1, 2]),
                    &Turns::default(),
                    |_| false,
                    |_| None
                ),
                None
            );
        }
    }

    #[test]
    fn weights_are_spread_not_bunched() {
        let order = dispatch(Strategy::Weighted, &lanes(&[5, 1, 1]), vec![9; 3]);
        assert_eq!(order[..7], [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_queue_that_left_the_binding_is_forgotten() {
        let (_, turns) = next(
            Strategy::Weighted,
            &lanes(&[1, 3]),
            &Turns::default(),
            |_| true,
            |_| None,
        )
        .unwrap();
        let (_, turns) =
            next(Strategy::Weighted, &lanes(&[1]), &turns, |_| true, |_| None).unwrap();
        assert!(!turns.credit.contains_key(&queue(1)));
    }

    /// Shares of a run in which every queue always has something: how far each is off its part, in parts of the whole.
    fn worst_share_error(weights: &[u32], order: &[usize]) -> f64 {
        let sum: u32 = weights.iter().sum();
        weights
            .iter()
            .enumerate()
            .map(|(number, &weight)| {
                let got =
                    order.iter().filter(|&&n| n == number).count() as f64 / order.len() as f64;
                (got - f64::from(weight) / f64::from(sum)).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn over_a_thousand_tasks_shares_are_off_by_less_than_a_part_in_twenty() {
        for weights in [
            vec![3, 1],
            vec![5, 3, 2],
            vec![1; 7],
            vec![1000, 1],
            vec![13, 11, 7, 3, 1],
        ] {
            let lanes = lanes(&weights);
            let mut turns = Turns::default();
            let mut order = Vec::new();
            for _ in 0..1000 {
                let (chosen, after) =
                    next(Strategy::Weighted, &lanes, &turns, |_| true, |_| None).unwrap();
                order.push(lanes.iter().position(|lane| lane.queue == *chosen).unwrap());
                turns = after;
            }
            let error = worst_share_error(&weights, &order);
            assert!(error <= 0.05, "{weights:?}: {error}");
        }
    }

    /// The queues that go where those wait, by the model.
    fn of_model(weights: &[u32], steps: &[Vec<bool>]) -> Vec<Option<usize>> {
        let weights: Vec<i64> = weights.iter().copied().map(i64::from).collect();
        let count = weights.len();
        let mut rota = Rota::new(By::Weights, weights);
        let step = |waits: &Vec<bool>| {
            let waiting: Vec<usize> = (0..count).filter(|&n| waits[n]).collect();
            let chosen = rota.next_of(&waiting)?;
            rota.goes(chosen, &waiting);
            Some(chosen)
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn who_goes_out_of_turn_leaves_the_round_as_it_was_and_pays_its_share() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let ring = lanes(&[1, 1, 1]);
        let all = |_: &QueueId| true;
        let (first, turns) = next(Strategy::RoundRobin, &ring, &Turns::default(), all, |_| {
            None
        })
        .unwrap();
        assert_eq!(first, &queue(0));
        let aged = |q: &QueueId| if *q == queue(2) { at(5) } else { None };
        let (out_of_turn, turns) = next(Strategy::RoundRobin, &ring, &turns, all, aged).unwrap();
        assert_eq!(out_of_turn, &queue(2));
        let (then, _) = next(Strategy::RoundRobin, &ring, &turns, all, |_| None).unwrap();
        assert_eq!(then, &queue(1));
        let (_, turns) = next(
            Strategy::Weighted,
            &lanes(&[3, 1]),
            &Turns::default(),
            all,
            |q| {
                if *q == queue(1) { at(5) } else { None }
            },
        )
        .unwrap();
        assert_eq!(turns.credit[&queue(1)], -3);
        assert_eq!(turns.credit[&queue(0)], 3);
    }

    /// One task goes each second, by strategy and aging; answers how long each one has waited, by queue.
    fn waits(
        strategy: Strategy,
        weights: &[u32],
        arrivals: &[Vec<usize>],
        bound: i64,
    ) -> Vec<(usize, i64, bool)> {
        let lanes = lanes(weights);
        let mut lines: Vec<VecDeque<i64>> = vec![VecDeque::new(); weights.len()];
        let (mut turns, mut gone) = (Turns::default(), Vec::new());
        for second in 0_i64.. {
            if let Some(come) = arrivals.get(usize::try_from(second).unwrap()) {
                for &number in come {
                    lines[number % weights.len()].push_back(second);
                }
            } else if lines.iter().all(VecDeque::is_empty) {
                break;
            }
            let place = |q: &QueueId| lanes.iter().position(|lane| lane.queue == *q).unwrap();
            let over = |since: i64| second - since >= bound;
            let aged = |q: &QueueId| {
                let since = *lines[place(q)].front()?;
                over(since).then(|| Timestamp::from_second(since).unwrap())
            };
            let Some((chosen, after)) = next(
                strategy,
                &lanes,
                &turns,
                |q| !lines[place(q)].is_empty(),
                aged,
            ) else {
                continue;
            };
            let number = place(chosen);
            turns = after;
            let oldest = lines
                .iter()
                .filter_map(VecDeque::front)
                .copied()
                .min()
                .unwrap();
            let since = lines[number].pop_front().unwrap();
            gone.push((number, second - since, !over(oldest) || since == oldest));
        }
        gone
    }

    proptest! {
        #[test]
        fn nobody_goes_before_a_head_that_has_waited_beyond_the_bound(
            weights in many(1u32..9, 1..6), arrivals in many(many(0usize..6, 0..3), 0..60), bound in 0i64..20,
        ) {
            for strategy in [Strategy::Priority, Strategy::RoundRobin, Strategy::Weighted] {
                for (number, waited, oldest_first) in waits(strategy, &weights, &arrivals, bound) {
                    prop_assert!(oldest_first, "{strategy:?}: queue {number} went after {waited} s before an older one");
                }
            }
        }

        #[test]
        fn weighted_order_is_the_models_whoever_comes_and_goes(
            weights in many(1u32..9, 1..6), steps in many(many(proptest::bool::ANY, 6), 0..60),
        ) {
            let lanes = lanes(&weights);
            let mut turns = Turns::default();
            let order: Vec<Option<usize>> = steps.iter().map(|waits| {
                let place = |q: &QueueId| lanes.iter().position(|lane| lane.queue == *q).unwrap();
                let (chosen, after) = next(Strategy::Weighted, &lanes, &turns, |q| waits[place(q)], |_| None)?;
                turns = after;
                Some(place(chosen))
            }).collect();
            prop_assert_eq!(order, of_model(&weights, &steps));
        }

        #[test]
        fn priority_is_the_list_one_queue_after_the_other(lengths in many(0usize..6, 1..5)) {
            let expected: Vec<usize> =
                lengths.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i, n)).collect();
            prop_assert_eq!(dispatch(Strategy::Priority, &lanes(&vec![1; lengths.len()]), lengths), expected);
        }

        #[test]
        fn round_robin_is_a_ring_from_which_empty_queues_drop_out(lengths in many(0usize..6, 1..5)) {
            let mut ring: VecDeque<(usize, usize)> = lengths.iter().copied().enumerate().collect();
            let mut expected = Vec::new();
            while let Some((number, left)) = ring.pop_front() {
                if left > 0 {
                    expected.push(number);
                    ring.push_back((number, left - 1));
                }
            }
            prop_assert_eq!(dispatch(Strategy::RoundRobin, &lanes(&vec![1; lengths.len()]), lengths), expected);
        }

        #[test]
        fn each_round_of_weighted_gives_every_queue_its_weight(
            weights in many(1u32..7, 1..5), rounds in 1usize..4,
        ) {
            let sum: u32 = weights.iter().sum();
            let lengths = weights.iter().map(|&w| w as usize * rounds).collect();
            let order = dispatch(Strategy::Weighted, &lanes(&weights), lengths);
            for round in order.chunks(sum as usize) {
                for (number, &weight) in weights.iter().enumerate() {
                    prop_assert_eq!(round.iter().filter(|&&n| n == number).count(), weight as usize);
                }
            }
        }

        #[test]
        fn whatever_comes_and_goes_nobody_who_waits_is_passed_over_for_long(
            weights in many(1u32..5, 2..5), absent in many(0u8..16, 1..80),
        ) {
            let lanes = lanes(&weights);
            let sum: u32 = weights.iter().sum();
            let mut turns = Turns::default();
            let mut passed_over = 0;
            for mask in absent {
                // Queue 0 always waits, the others as they like.
                let waits = |q: &QueueId| *q == queue(0) || lanes.iter().enumerate()
                    .any(|(i, lane)| lane.queue == *q && mask & (1 << (i - usize::from(i > 0))) == 0);
                let (chosen, after) = next(Strategy::Weighted, &lanes, &turns, waits, |_| None).unwrap();
                passed_over = if *chosen == queue(0) { 0 } else { passed_over + 1 };
                prop_assert!(passed_over <= 2 * sum, "passed over {passed_over} times, weights {weights:?}");
                turns = after;
            }
        }

        #[test]
        fn strategies_dispatch_everything_exactly_once(lengths in many(0usize..6, 1..5)) {
            for strategy in [Strategy::Priority, Strategy::RoundRobin, Strategy::Weighted] {
                let order = dispatch(strategy, &lanes(&vec![2; lengths.len()]), lengths.clone());
                for (number, &n) in lengths.iter().enumerate() {
                    prop_assert_eq!(order.iter().filter(|&&o| o == number).count(), n);
                }
            }
        }
    }
}
