//! PURE: whose memory it is that a GPU holds: the task's, or somebody else's.
//!
//! ```text
//! the driver's list ─┬─ all are visible here ──▶ memory of the task's own processes; others by their names
//!                    └─ some are not ──▶ they are numbered by the node, and whose they are cannot be told
//! memory in use, and no process of the task has a GPU open, twice in a row ──▶ somebody else's
//! ```
//!
//! Which processes a driver lists in a container depends on its age: all of the node by the node's numbers, or those of
//! the container alone, some without their memory. Nothing is claimed that does not hold for both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::stats::report::GpuSample;

/// The list of processes is the dearest of all questions to a driver.
const PERIOD: Duration = Duration::from_secs(10);
/// Less of a GPU's memory than that, in MiB, is nobody's trouble: a driver has some for itself.
const LEAST: f64 = 1024.0;
const MIB_PER_GIB: f64 = 1024.0;

/// A process that the driver names as a user of a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Holder {
    pub pid: u32,
    /// Absent where the driver does not know it.
    pub memory_mib: Option<f64>,
}

/// One GPU, or one slice of it, and who uses it, if that was asked and answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub sample: GpuSample,
    pub holders: Option<Vec<Holder>>,
}

/// A process that is visible here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    /// It descends from this one.
    pub of_task: bool,
}

/// What can be seen of processes from here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub processes: BTreeMap<u32, Process>,
    /// A process of the task has a GPU open, or that cannot be told.
    pub uses: bool,
}

/// Judges each list, and tells once of each GPU that others use, too.
#[derive(Debug, Default)]
pub struct Users {
    /// When the next list is due; absent: with the next sample.
    next: Option<Instant>,
    /// GPUs with memory that seemed to be nobody's of the task. A process that ends in this moment looks like that.
    suspected: BTreeSet<u32>,
    told: BTreeSet<u32>,
    sentences: Vec<String>,
}

impl Users {
    /// Whether the list is to be asked for.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// The samples with the task's own memory; `seen` is asked for only where it matters.
    pub fn judge(
        &mut self,
        now: Instant,
        parts: Vec<Part>,
        seen: impl FnOnce() -> Option<Seen>,
    ) -> Vec<GpuSample> {
        self.next = Some(now + PERIOD);
        let suspected = std::mem::take(&mut self.suspected);
        let in_use = parts.iter().any(|part| {
            let holders = part.holders.as_ref();
            holders.is_some_and(|holders| !holders.is_empty() || used(&part.sample) >= LEAST)
        });
        let seen = if in_use {
            seen()
        } else {
            Some(Seen::default())
        };
        let mut samples = Vec::new();
        for Part {
            mut sample,
            holders,
        } in parts
        {
            if let (Some(holders), Some(seen)) = (&holders, &seen) {
                sample.memory_of_task_mib = of_task(holders, seen);
                self.look_for_others(&sample, holders, seen, &suspected);
            }
            samples.push(sample);
        }
        samples
    }

    /// What is to be told since the last call.
    pub fn sentences(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sentences)
    }

    fn look_for_others(
        &mut self,
        sample: &GpuSample,
        holders: &[Holder],
        seen: &Seen,
        suspected: &BTreeSet<u32>,
    ) {
        if self.told.contains(&sample.index) {
            return;
        }
        let text = match (
            by_name(sample, holders, seen),
            by_memory(sample, holders, seen),
        ) {
            (Some(text), _) => text,
            (None, Some(text)) if suspected.contains(&sample.index) => text,
            (None, Some(_)) => {
                self.suspected.insert(sample.index);
                self.next = None;
                return;
            }
            (None, None) => return,
        };
        self.told.insert(sample.index);
        self.sentences.push(text);
    }
}

fn used(sample: &GpuSample) -> f64 {
    sample.memory_used_mib.unwrap_or(0.0)
}

/// The memory of the task's own processes, unless some of it may be hidden.
fn of_task(holders: &[Holder], seen: &Seen) -> Option<f64> {
    let (mut own, mut any) = (0.0, false);
    for holder in holders {
        // One that is not visible: the numbers are the node's, and one that is visible all the same is another process.
        if seen.processes.get(&holder.pid)?.of_task {
            own += holder.memory_mib?;
            any = true;
        }
    }
    (any || !seen.uses).then_some(own)
}

/// The others among processes that are all visible.
fn by_name(sample: &GpuSample, holders: &[Holder], seen: &Seen) -> Option<String> {
    let mut others = Vec::new();
    for holder in holders {
        let process = seen.processes.get(&holder.pid)?;
        if !process.of_task && holder.memory_mib.is_some_and(|memory| memory >= LEAST) {
            others.push(described(holder, Some(&process.name)));
        }
    }
    (!others.is_empty()).then(|| {
        let others = others.join(", ");
        format!("{}: its memory is held by {others}", not_alone(sample))
    })
}

/// Memory that none of the task's processes can hold, whoever does.
fn by_memory(sample: &GpuSample, holders: &[Holder], seen: &Seen) -> Option<String> {
    let nobodys = !seen.uses && used(sample) >= LEAST;
    let of_task = |holder: &Holder| {
        let process = seen.processes.get(&holder.pid);
        process.is_some_and(|process| process.of_task)
    };
    if !nobodys || holders.iter().any(of_task) {
        return None;
    }
    let mut text = format!(
        "{}: {} GiB of its memory are in use, by no process of the task",
        not_alone(sample),
        gib(used(sample))
    );
    if !holders.is_empty() {
        let others: Vec<String> = holders
            .iter()
            .map(|holder| described(holder, None))
            .collect();
        let _ = write!(text, " (on the node: {})", others.join(", "));
    }
    Some(text)
}

fn not_alone(sample: &GpuSample) -> String {
    format!("GPU {} is not this task's alone", sample.index)
}

/// `process 4711 (python, 30.0 GiB)`.
fn described(holder: &Holder, name: Option<&str>) -> String {
    let memory = holder
        .memory_mib
        .map(|memory| format!("{} GiB", gib(memory)));
    let known: Vec<&str> = name.into_iter().chain(memory.as_deref()).collect();
    if known.is_empty() {
        return format!("process {}", holder.pid);
    }
    format!("process {} ({})", holder.pid, known.join(", "))
}

fn gib(mib: f64) -> String {
    format!("{:.1}", mib / MIB_PER_GIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 20;
    const OTHERS: u32 = 30;
    const UNSEEN: u32 = 5_000_000;

    fn seen(uses: bool) -> Seen {
        let process = |of_task| Process {
            name: "python".to_owned(),
            of_task,
        };
        Seen {
            processes: [(OWN, process(true)), (OTHERS, process(false))].into(),
            uses,
        }
    }

    fn part(used: f64, holders: &[(u32, Option<f64>)]) -> Part {
        let holders = holders
            .iter()
            .map(|&(pid, memory_mib)| Holder { pid, memory_mib });
        Part {
            sample: GpuSample {
                memory_used_mib: Some(used),
                ..GpuSample::default()
            },
            holders: Some(holders.collect()),
        }
    }

    /// What is known of the task's memory, and what is told, when the same is found three times.
    fn judged(part: &Part, uses: bool) -> (Option<f64>, Vec<String>) {
        let mut users = Users::default();
        let mut now = Instant::now();
        let mut memory = None;
        for _ in 0..3 {
            assert!(users.is_due(now));
            let samples = users.judge(now, vec![part.clone()], || Some(seen(uses)));
            memory = samples[0].memory_of_task_mib;
            now += PERIOD;
        }
        (memory, users.sentences())
    }

    #[test]
    fn memory_of_the_task_is_known_where_nothing_can_be_hidden() {
        let (own, others, unseen) = ((OWN, Some(512.0)), (OTHERS, Some(9.0)), (UNSEEN, Some(9.0)));
        for (part, uses, expected) in [
            (part(512.0, &[own]), true, Some(512.0)),
            (part(521.0, &[own, others]), true, Some(512.0)),
            (part(9.0, &[others]), false, Some(0.0)),
            (part(0.0, &[]), false, Some(0.0)),
            // The numbers are the node's: that one of them is ours is chance.
            (part(521.0, &[own, unseen]), true, None),
            // The driver does not know how much.
            (part(521.0, &[(OWN, None)]), true, None),
            // It uses the GPU by way of another process, as with MPS.
            (part(2048.0, &[]), true, None),
        ] {
            let (memory, told) = judged(&part, uses);
            assert_eq!(memory, expected, "{part:?}");
            assert!(told.is_empty(), "{told:?}");
        }
    }

    #[test]
    fn others_are_told_once_as_far_as_they_are_known() {
        for (part, uses, expected) in [
            (
                part(31_744.0, &[(OWN, Some(1024.0)), (OTHERS, Some(30_720.0))]),
                true,
                "its memory is held by process 30 (python, 30.0 GiB)",
            ),
            (
                part(30_720.0, &[]),
                false,
                "30.0 GiB of its memory are in use, by no process of the task",
            ),
            (
                part(30_720.0, &[(UNSEEN, Some(30_720.0))]),
                false,
                "30.0 GiB of its memory are in use, by no process of the task (on the node: process 5000000 (30.0 GiB))",
            ),
            (
                part(30_720.0, &[(UNSEEN, None)]),
                false,
                "30.0 GiB of its memory are in use, by no process of the task (on the node: process 5000000)",
            ),
        ] {
            let (_, told) = judged(&part, uses);
            let expected = format!("GPU 0 is not this task's alone: {expected}");
            assert_eq!(told, [expected]);
        }
    }

    #[test]
    fn nobody_is_blamed_for_what_may_be_the_tasks_own() {
        for (part, uses) in [
            // The node's number of our own process.
            (part(30_720.0, &[(UNSEEN, Some(30_720.0))]), true),
            (part(30_720.0, &[(OWN, None)]), false),
            (part(30_720.0, &[]), true),
            (part(512.0, &[]), false),
            (part(512.0, &[(OTHERS, Some(512.0))]), false),
        ] {
            let (_, told) = judged(&part, uses);
            assert!(told.is_empty(), "{part:?}: {told:?}");
        }
    }

    #[test]
    fn one_look_alone_blames_nobody_and_the_next_is_soon() {
        let mut users = Users::default();
        let begun = Instant::now();
        let soon = begun + Duration::from_secs(1);
        let mut look = |now, used| {
            users.judge(now, vec![part(used, &[])], || Some(seen(false)));
            (users.is_due(now), users.sentences().len())
        };
        // The task's process ended between the two questions; then its memory is free.
        assert_eq!(look(begun, 30_720.0), (true, 0));
        assert_eq!(look(soon, 0.0), (false, 0));
        assert_eq!(look(begun + PERIOD, 30_720.0), (true, 0));
        assert_eq!(look(soon + PERIOD, 30_720.0), (false, 1));
    }

    #[test]
    fn what_the_driver_does_not_list_says_nothing() {
        let mut users = Users::default();
        let mut unlisted = part(30_720.0, &[]);
        unlisted.holders = None;
        let now = Instant::now();
        let samples = users.judge(now, vec![unlisted], || panic!("nothing to look for"));
        assert_eq!(samples[0].memory_of_task_mib, None);
        assert!(users.sentences().is_empty() && !users.is_due(now));
    }
}
