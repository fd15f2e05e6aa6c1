//! Shares: who holds how many Leases, and who asks whom for one. Decides only; the keeper carries out.
//!
//! ```text
//! a holds at least two more than b ─▶ b writes on a Lease of a's that it wants it ─▶ a's renewal conflicts, a reads it
//!   still two more ─▶ a gives it up, kept free for b ─▶ b takes it at its next look (nobody for 6 s: who comes first)
//!   else           ─▶ a renews it without the wish
//! ```
//!
//! A replica knows what it has read: the Leases that others hold, and its own. Each that is handed over brings two of
//! them nearer to each other, and none is once no two are further apart than one. So all end at the bindings by the
//! replicas, rounded down or up, and then nothing moves any more. One alone reads nothing and asks nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::DURATION;

/// A wish that is not granted within this time is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// What was given up for one replica is left to it by all others for so long.
const RESERVED: Duration = Duration::from_secs(6);
/// Who has missed a renewal may be dead: it is not asked.
const SILENT: Duration = Duration::from_secs(6);

/// Whether a replica with so many Leases (`ours`) asks one with so many (`theirs`) for one of them.
pub(super) fn wish(ours: usize, theirs: usize) -> bool {
    theirs >= ours + 2
}

/// Whether a replica with so many Leases (`ours`) gives one of them to one with so many (`theirs`) that asks for it.
pub(super) fn gives(ours: usize, theirs: usize) -> bool {
    ours >= theirs + 2
}

/// A Lease as it was just read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read<'a> {
    pub holder: Option<&'a str>,
    pub wanted_by: Option<&'a str>,
    /// For how long we have seen its spec as it is.
    pub unchanged: Duration,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn<'a> {
    /// Take it, or renew it; if somebody wanted it, that is declined.
    Take,
    /// It is another replica's, or is kept free for one.
    Leave,
    /// It is that of a replica which holds too many: ask for it.
    Ask,
    /// It is ours, and this replica is to have it.
    Give(&'a str),
}

/// What one replica knows of who holds the Leases. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::controller) struct Shares {
    /// Name of this replica.
    identity: Arc<str>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Who held each binding's Lease when it was last seen, or was about to; by the binding's UID.
    holders: HashMap<String, String>,
    /// The binding whose Lease we have asked for, and when.
    asked: Option<(String, Instant)>,
}

impl Known {
    fn saw(&mut self, binding: &str, holder: &str) {
        self.holders.insert(binding.to_owned(), holder.to_owned());
    }

    /// Number of Leases that this replica holds.
    fn count(&self, replica: &str) -> usize {
        let all = self.holders.values();
        all.filter(|holder| holder.as_str() == replica).count()
    }

    /// Whether a wish of ours is still to be answered.
    fn waits(&self, now: Instant) -> bool {
        self.asked
            .as_ref()
            .is_some_and(|(_, since)| now.duration_since(*since) < PATIENCE)
    }
}

impl Shares {
    pub fn new(identity: &str) -> Self {
        Self {
            identity: identity.into(),
            known: Arc::default(),
        }
    }

    /// Name of this replica.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with a binding's Lease. Takes in what was read, and what follows as done.
    pub(super) fn turn<'a>(&self, binding: &str, read: Read<'a>, now: Instant) -> Turn<'a> {
        let ours = self.identity();
        let wanted_by = read.wanted_by.filter(|other| *other != ours);
        let mut known = self.known();
        let Some(holder) = read.holder else {
            return match wanted_by {
                Some(other) if read.unchanged < RESERVED => {
                    known.saw(binding, other);
                    Turn::Leave
                }
                _ => Turn::Take,
            };
        };
        known.saw(binding, holder);
        if holder == ours {
            return match wanted_by {
                Some(other) if gives(known.count(ours), known.count(other)) => {
                    // From now on it counts as theirs: two wishes are not granted by one surplus.
                    known.saw(binding, other);
                    Turn::Give(other)
                }
                _ => Turn::Take,
            };
        }
        if read.unchanged >= DURATION {
            return Turn::Take;
        }
        let may_ask = read.wanted_by.is_none() && read.unchanged < SILENT && !known.waits(now);
        if may_ask && wish(known.count(ours), known.count(holder)) {
            known.asked = Some((binding.to_owned(), now));
            return Turn::Ask;
        }
        Turn::Leave
    }

    /// Notes that we hold a binding's Lease.
    pub(super) fn holds(&self, binding: &str) {
        let mut known = self.known();
        known.saw(binding, &self.identity);
        known.asked = known.asked.take().filter(|(asked, _)| asked != binding);
    }

    /// Notes that a wish did not come through: another may be made at once.
    pub(super) fn withdraw(&self) {
        self.known().asked = None;
    }

    /// Forgets a binding that is gone.
    pub(super) fn forget(&self, binding: &str) {
        self.known().holders.remove(binding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    /// From one look of anybody to the next.
    const APART: Duration = Duration::from_millis(200);

    /// A Lease on the API server: numbers of replicas.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Lease {
        holder: Option<usize>,
        wanted_by: Option<usize>,
    }

    /// Replicas of which none dies, in front of the same Leases.
    struct World {
        replicas: Vec<Shares>,
        leases: Vec<Lease>,
        now: Instant,
    }

    impl World {
        fn new(replicas: usize, holders: impl Iterator<Item = Option<usize>>) -> Self {
            let wanted_by = None;
            Self {
                replicas: NAMES[..replicas].iter().copied().map(Shares::new).collect(),
                leases: holders.map(|holder| Lease { holder, wanted_by }).collect(),
                now: Instant::now(),
            }
        }

        /// One replica reads one Lease and does what follows; whether that changes it.
        fn look(&mut self, replica: usize, lease: usize) -> bool {
            self.now += APART;
            let (shares, binding) = (&self.replicas[replica], lease.to_string());
            let before = self.leases[lease];
            let read = Read {
                holder: before.holder.map(|holder| NAMES[holder]),
                wanted_by: before.wanted_by.map(|other| NAMES[other]),
                unchanged: Duration::ZERO,
            };
            let after = match shares.turn(&binding, read, self.now) {
                Turn::Take => {
                    shares.holds(&binding);
                    Lease {
                        holder: Some(replica),
                        wanted_by: None,
                    }
                }
                Turn::Leave => before,
                Turn::Ask => Lease {
                    wanted_by: Some(replica),
                    ..before
                },
                Turn::Give(_) => Lease {
                    holder: None,
                    ..before
                },
            };
            self.leases[lease] = after;
            after != before
        }

        /// All look at everything until nothing has changed for longer than a wish lasts; how often something did.
        fn settle(&mut self) -> usize {
            let (mut changes, mut last) = (0, self.now);
            while self.now.duration_since(last) <= PATIENCE + PATIENCE / 4 {
                // Beside no Lease at all there is nothing to look at, and time passes too.
                self.now += APART;
                for replica in 0..self.replicas.len() {
                    for lease in 0..self.leases.len() {
                        if self.look(replica, lease) {
                            (changes, last) = (changes + 1, self.now);
                        }
                    }
                }
                assert!(changes < 200, "no end: {:?}", self.leases);
            }
            changes
        }

        /// Ends at equal shares without a wish, and stays there.
        fn assert_settles(&mut self) {
            self.settle();
            let (leases, replicas) = (self.leases.len(), self.replicas.len());
            for replica in 0..replicas {
                let held = self.leases.iter();
                let held = held.filter(|lease| lease.holder == Some(replica)).count();
                let fair = leases / replicas..=leases.div_ceil(replicas);
                assert!(fair.contains(&held), "{:?}", self.leases);
            }
            assert!(self.leases.iter().all(|lease| lease.wanted_by.is_none()));
            assert_eq!(self.settle(), 0, "{:?}", self.leases);
        }
    }

    #[test]
    fn what_one_wishes_the_other_gives_and_it_is_not_wished_back() {
        for ours in 0..20 {
            for theirs in 0..20 {
                assert_eq!(wish(ours, theirs), gives(theirs, ours));
                assert!(!wish(ours, theirs) || !wish(theirs - 1, ours + 1));
            }
        }
    }

    #[test]
    fn whoever_holds_them_first_all_end_at_equal_shares() {
        for replicas in 1..=4_usize {
            for leases in 0..=5 {
                for mut code in 0..replicas.pow(leases) {
                    let holders = (0..leases).map(|_| {
                        let holder = code % replicas;
                        code /= replicas;
                        Some(holder)
                    });
                    World::new(replicas, holders).assert_settles();
                }
            }
        }
    }

    #[test]
    fn a_replica_that_comes_costs_no_more_than_its_share_of_moves() {
        let mut world = World::new(2, [Some(0); 6].into_iter());
        // For each of three: asked for, given up, taken.
        assert_eq!(world.settle(), 9);
        let mut alone = World::new(1, [None; 6].into_iter());
        assert_eq!(alone.settle(), 6);
    }

    #[test]
    fn one_is_asked_for_at_a_time_and_of_nobody_who_is_silent() {
        let (shares, now) = (Shares::new("b"), Instant::now());
        let of_a = |unchanged| Read {
            holder: Some("a"),
            wanted_by: None,
            unchanged,
        };
        let fresh = of_a(Duration::ZERO);
        assert_eq!(shares.turn("1", fresh, now), Turn::Leave, "only one more");
        assert_eq!(shares.turn("2", of_a(SILENT), now), Turn::Leave);
        assert_eq!(shares.turn("2", fresh, now), Turn::Ask);
        assert_eq!(shares.turn("3", fresh, now), Turn::Leave, "it waits");
        assert_eq!(shares.turn("3", fresh, now + PATIENCE), Turn::Ask);
        assert_eq!(shares.turn("3", of_a(DURATION), now), Turn::Take, "dead");
    }

    #[test]
    fn what_is_kept_free_for_one_is_left_alone_by_others_for_a_while() {
        let (wanter, other) = (Shares::new("b"), Shares::new("c"));
        let free = |unchanged| Read {
            holder: None,
            wanted_by: Some("b"),
            unchanged,
        };
        let (now, fresh) = (Instant::now(), free(Duration::ZERO));
        assert_eq!(wanter.turn("1", fresh, now), Turn::Take);
        assert_eq!(other.turn("1", fresh, now), Turn::Leave);
        assert_eq!(other.turn("1", free(RESERVED), now), Turn::Take);
    }

    proptest::proptest! {
        #[test]
        fn whatever_each_has_seen_first_all_end_at_equal_shares(
            replicas in 1_usize..5,
            holders in proptest::collection::vec(proptest::option::of(0_usize..4), 0..13),
            looks in proptest::collection::vec((0_usize..4, 0_usize..12), 0..100),
        ) {
            let leases = holders.len();
            let held = holders.into_iter().map(|holder| holder.map(|holder| holder % replicas));
            let mut world = World::new(replicas, held);
            for (replica, lease) in looks.into_iter().filter(|_| leases > 0) {
                world.look(replica % replicas, lease % leases);
            }
            world.assert_settles();
        }
    }
}
