//! The order in which tasks were taken, so that those that go back stand in it again.
//!
//! Each Job carries its turn. Tasks go back one at a time, each behind those at the head of its queue that went back
//! before it and had been taken earlier. Order alone rests on it, never safety: what was forgotten goes to the front.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::row::JobRow;
use crate::api::QueueEntries;
use crate::pod::annotation;
use crate::task::{QueueId, TaskId};

/// When a task was taken, and as which of several; compares as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(String);

impl Turn {
    /// The turn of the task that is taken as the `place`-th of a pass.
    pub fn new(pass: Timestamp, place: usize) -> Self {
        Self(format!("{pass:.6}/{place:04}"))
    }

    /// What the Job says; one that was made before turns were kept goes by its own time.
    pub fn of(job: &JobRow) -> Option<Self> {
        let noted = job.annotation(annotation::TURN);
        let noted = noted.map(|text| Self(text.to_owned()));
        noted.or_else(|| Some(Self::new(job.created?, 0)))
    }

    /// The turn of a task by the last of its Jobs.
    pub fn last(jobs: &[Arc<JobRow>]) -> Option<Self> {
        let last = jobs.iter().max_by_key(|job| job.created)?;
        Self::of(last)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Tasks that went back and stand at the head of their queue, by their turn. Locked while one goes back: of two at once
/// each would be put before the other.
#[derive(Debug, Default)]
pub(super) struct Returned(pub Mutex<HashMap<QueueId, BTreeMap<Turn, TaskId>>>);

impl Returned {
    /// Forgets what does not stand at the head of its queue any more: it was taken, or its user moved it.
    pub fn keep(&mut self, queues: &[QueueEntries]) {
        self.0.get_mut().retain(|id, tasks| {
            let Some(queue) = queues.iter().find(|queue| queue.id == *id) else {
                return false;
            };
            let is_known = |task: &TaskId| tasks.values().any(|known| known == task);
            let entries = queue.entries.iter().map(|entry| &entry.task);
            let head: Vec<TaskId> = entries
                .clone()
                .take_while(|task| is_known(task))
                .cloned()
                .collect();
            // All that was read of a longer queue: the others stand behind it.
            if !(queue.cut && head.len() == entries.count()) {
                tasks.retain(|_, task| head.contains(task));
            }
            !tasks.is_empty()
        });
    }
}

/// How many of those that went back stand before a task of this turn.
pub(super) fn before(tasks: &BTreeMap<Turn, TaskId>, turn: &Turn, task: &TaskId) -> usize {
    let earlier = tasks.range(..turn);
    earlier.filter(|(_, known)| *known != task).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Entry;

    fn task(digit: char) -> TaskId {
        digit.to_string().repeat(32).parse().unwrap()
    }

    fn queue(tasks: &[char], cut: bool) -> QueueEntries {
        QueueEntries {
            id: "f".repeat(32).parse().unwrap(),
            entries: tasks
                .iter()
                .map(|digit| Entry {
                    task: task(*digit),
                    added: None,
                })
                .collect(),
            cut,
        }
    }

    fn turn(second: i64, place: usize) -> Turn {
        Turn::new(Timestamp::from_second(second).unwrap(), place)
    }

    fn returned(tasks: &[(i64, char)]) -> Returned {
        let tasks = tasks
            .iter()
            .map(|(second, digit)| (turn(*second, 0), task(*digit)))
            .collect();
        Returned(Mutex::new(HashMap::from([(queue(&[], false).id, tasks)])))
    }

    fn known(mut returned: Returned) -> Vec<TaskId> {
        let queues = std::mem::take(returned.0.get_mut());
        queues
            .into_values()
            .flat_map(BTreeMap::into_values)
            .collect()
    }

    #[test]
    fn turns_compare_by_pass_and_then_by_place() {
        let text = |second, place| turn(second, place).as_str().to_owned();
        assert_eq!(text(1_800_000_000, 3), "2027-01-15T08:00:00.000000Z/0003");
        assert!(turn(5, 9) < turn(5, 10));
        assert!(turn(5, 1000) < turn(6, 0));
        assert!(
            Turn::new("2027-01-15T08:00:00.999999Z".parse().unwrap(), 0) < turn(1_800_000_001, 0)
        );
    }

    #[test]
    fn a_task_goes_behind_those_that_were_taken_before_it() {
        let mut all = returned(&[(10, '1'), (20, '2'), (30, '3')]);
        let tasks = all.0.get_mut().values().next().unwrap();
        assert_eq!(before(tasks, &turn(5, 0), &task('a')), 0);
        assert_eq!(before(tasks, &turn(25, 0), &task('a')), 2);
        assert_eq!(before(tasks, &turn(40, 0), &task('a')), 3);
        assert_eq!(
            before(tasks, &turn(40, 0), &task('2')),
            2,
            "not behind itself"
        );
    }

    #[test]
    fn only_the_head_of_a_queue_counts() {
        let all = [(10, '1'), (20, '2')];
        let after = |queues: &[QueueEntries]| {
            let mut returned = returned(&all);
            returned.keep(queues);
            known(returned)
        };
        assert_eq!(after(&[queue(&['1', '2', '9'], true)]).len(), 2);
        assert_eq!(after(&[queue(&['1', '9', '2'], false)]), [task('1')]);
        assert_eq!(after(&[queue(&['9', '1', '2'], false)]), []);
        assert_eq!(after(&[queue(&['2'], false)]), [task('2')]);
        assert_eq!(
            after(&[queue(&['1'], true)]).len(),
            2,
            "the other may stand behind it"
        );
        assert_eq!(after(&[]), []);
    }
}
