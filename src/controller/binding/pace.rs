//! How soon a binding looks again: the idle period, less while something is on its way, and how early events may wake it.

use std::time::Duration;

use tokio::time::Instant;

use crate::controller::look::CANDIDATES;
use crate::controller::pass::Passed;

/// Between two looks when nothing is on its way.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// Between two looks when something is.
const BUSY: Duration = Duration::from_millis(250);
/// After a pass that took longer than that.
const BREATH: Duration = Duration::from_millis(50);
/// Events may wake a pass early, but not more often than this.
const WAKE: Duration = Duration::from_millis(100);
/// Nor sooner than this many times as long as the last pass took: with thousands of live Jobs there is always an event,
/// and looking at all of them for each would be most of what the machine does. The idle period is the longest such rest.
const REST: u32 = 2;

/// The wait after a pass that has led to this.
pub(super) fn after(passed: &Passed, retiring: bool) -> Duration {
    // Where so many went, more may be there to go at once.
    if passed.admitted * 2 >= CANDIDATES {
        WAKE
    } else if passed.busy || retiring {
        BUSY
    } else {
        IDLE
    }
}

/// What is left of a wait at the end of the pass. While something is on its way, looks are so far apart, however long a
/// pass has taken.
pub(super) fn left_of(wait: Duration, begun: Instant, ended: Instant) -> Duration {
    if wait == IDLE {
        wait
    } else {
        (begun + wait).saturating_duration_since(ended).max(BREATH)
    }
}

/// From when on an event may wake the next pass, after one that began and ended then.
pub(super) fn woken_at(begun: Instant, ended: Instant) -> Instant {
    let took = ended.saturating_duration_since(begun);
    (begun + WAKE).max(ended + (took * REST).min(IDLE))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::LONGEST;
    use super::*;
    use crate::api::Backoff;

    #[test]
    fn a_look_comes_each_second_and_each_quarter_of_one_while_something_is_on_its_way() {
        let millis = |admitted, busy, retiring| {
            let passed = Passed {
                busy,
                admitted,
                ..Passed::default()
            };
            after(&passed, retiring).as_millis()
        };
        assert_eq!(millis(0, false, false), 1000);
        assert_eq!(millis(3, true, false), 250);
        assert_eq!(millis(0, false, true), 250);
        assert_eq!(millis(CANDIDATES, true, false), 100, "more may be there");
    }

    #[test]
    fn looks_that_something_waits_for_do_not_drift_apart_by_how_long_a_pass_takes() {
        let begun = Instant::now();
        let left = |wait, took: u64| {
            let ended = begun + Duration::from_millis(took);
            left_of(wait, begun, ended).as_millis()
        };
        assert_eq!(left(BUSY, 60), 190);
        assert_eq!(left(BUSY, 400), 50, "a breath");
        assert_eq!(left(WAKE, 10), 90);
        assert_eq!(left(IDLE, 400), 1000, "from its end on");
    }

    #[test]
    fn after_failures_it_waits_up_to_half_a_minute_by_chance_and_as_long_as_it_is_asked_to() {
        let late = |_| {
            let mut backoff = Backoff::new(LONGEST);
            for _ in 0..8 {
                backoff.next(None);
            }
            backoff.next(None)
        };
        let many: BTreeSet<Duration> = (0..20).map(late).collect();
        assert!(
            many.len() > 1,
            "loops that failed together do not come back together"
        );
        let longest = Duration::from_secs(30);
        assert!(
            many.iter()
                .all(|wait| (longest / 2..=longest).contains(wait))
        );
        let asked = Duration::from_mins(2);
        assert_eq!(Backoff::new(LONGEST).next(Some(asked)), asked);
    }

    #[test]
    fn events_wake_a_short_pass_at_once_and_a_long_one_after_a_rest() {
        let begun = Instant::now();
        let rest = |took: u64| {
            let ended = begun + Duration::from_millis(took);
            woken_at(begun, ended).duration_since(ended).as_millis()
        };
        assert_eq!(rest(0), 100, "since it began");
        assert_eq!(rest(20), 80);
        assert_eq!(rest(60), 120);
        assert_eq!(rest(400), 800);
        assert_eq!(rest(3000), 1000);
    }
}
