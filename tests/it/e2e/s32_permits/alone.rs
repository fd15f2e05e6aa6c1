//! Runs that end one at a time, in each of some ways: after each the limiter's count is the cluster's, before the next one
//! ends. `TRAINYARD_S32_ALONE` says how many.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::json;

use super::{Jobs, until_they_agree};
use crate::e2e::played::{Player, Run, each_status};
use crate::e2e::s36_scale::enqueue;
use crate::e2e::world::{World, wait};
use crate::long;

/// Those of the short form.
const TASKS: usize = 8;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    /// Its pod dies without a word.
    Died,
    /// Its pod is deleted by hand: another attempt follows.
    Deleted,
    Aborted,
}

const ENDS: [End; 4] = [End::Deleted, End::Died, End::Aborted, End::Completed];

impl End {
    fn make(self, world: &World, player: &Player, task: &str) {
        match self {
            Self::Completed => player.finish(task),
            Self::Died => player.die(task),
            Self::Deleted => {
                let pod = world.pod_of(task);
                let name = pod["metadata"]["name"].as_str().expect("its pod is there");
                world.delete("pod", name);
            }
            Self::Aborted => {
                world.call("tasks.stop", &json!({"task": task}));
            }
        }
    }

    /// Whether this is the status of the task in the end. Of an abort the pod would tell, which here is only played.
    fn leads_to(self, status: &str) -> bool {
        match self {
            Self::Completed | Self::Deleted => status == "completed",
            Self::Died => status == "failed",
            Self::Aborted => true,
        }
    }
}

/// Lets tasks run, whose pods `player` holds, and ends them; how often that was followed by a comparison.
pub(super) fn pass(world: &World, jobs: &Jobs, player: &Player) -> usize {
    let count = long::size("TRAINYARD_S32_ALONE", TASKS);
    let tasks = enqueue(world, count);
    let mut wanted = BTreeMap::new();
    let (mut open, mut over): (HashSet<&String>, BTreeSet<Run>) =
        (tasks.iter().collect(), BTreeSet::new());
    while !open.is_empty() {
        let run = wait("another task runs", 120, || {
            let mut runs = player.runs().into_iter();
            runs.find(|run| open.contains(&run.task) && !over.contains(run))
        });
        let end = if run.attempt == 1 {
            ENDS[wanted.len() % ENDS.len()]
        } else {
            End::Completed
        };
        end.make(world, player, &run.task);
        let job = format!("ty-{}-{}", run.task, run.attempt);
        wait(&format!("{job} holds no permit: {end:?}"), 60, || {
            (!jobs.holders().contains(&job)).then_some(())
        });
        until_they_agree(world, jobs);
        if end != End::Deleted {
            open.remove(&run.task);
        }
        wanted.entry(run.task.clone()).or_insert(end);
        over.insert(run);
    }
    wait("each has the status of its end", 120, || {
        let statuses = each_status(world, &tasks);
        let is_right = |(task, end): (&String, &End)| end.leads_to(&statuses[task]);
        wanted.iter().all(is_right).then_some(())
    });
    let runs = player.runs();
    let ran = runs.iter().filter(|run| tasks.contains(&run.task)).count();
    assert_eq!(ran, over.len(), "nothing ran beside");
    over.len()
}
