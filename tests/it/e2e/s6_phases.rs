//! S6 (c): an abort while code is fetched, packages are installed or the setup script runs, in real pods.

use serde_json::{Value, json};

use super::s6_abort::until_soon_gone;
use super::s42_cache::MAKING;
use super::world::{World, wait};
use crate::silent;

/// Whether a task is in a phase.
type Phase = fn(&World, &str) -> bool;

/// Whether the pod's init container is at its work.
fn prepares(world: &World, task: &str) -> bool {
    let pod = world.pod_of(task);
    let statuses = pod["status"]["initContainerStatuses"].as_array();
    statuses.is_some_and(|all| {
        all.iter()
            .any(|status| status["name"] == "prepare" && !status["state"]["running"].is_null())
    })
}

/// Whether a line of the task's log begins so.
fn has_line(world: &World, task: &str, begin: &str) -> bool {
    world.log(task).iter().any(|line| line.starts_with(begin))
}

/// Each phase with a task that stays in it: one whose repository, one whose package index never answers, one whose setup
/// script lasts. Its name and queue, what is merged into it, whether it is in its phase, and what it writes itself.
fn phases(silent: &str) -> [(&'static str, &'static str, Value, Phase, &'static str); 3] {
    let repository = json!({"script": {
        "repository": format!("http://{silent}/train.git"), "diff": "", "entry_point": "train.py",
        "version_num": "0123456789abcdef0123456789abcdef01234567",
    }});
    let package = json!({"script": {"requirements": {"pip": "joblib\n"}}});
    [
        ("code is fetched", "gpu", repository, prepares, ""),
        (
            "packages are installed",
            "gpu",
            package,
            |world, task| has_line(world, task, MAKING),
            "",
        ),
        (
            "the setup script runs",
            "setup",
            json!({}),
            |world, task| has_line(world, task, "preparing"),
            "preparing\n",
        ),
    ]
}

#[test]
fn s6_an_abort_before_the_code_begins_leaves_nothing_in_any_phase() {
    let mut world = World::new("s6-phases");
    world.start_controller();
    let silent = silent::start(&world.place.gateway);
    for (queue, environment) in [
        (
            "gpu",
            json!({"indexUrl": format!("http://{silent}/simple/")}),
        ),
        (
            "setup",
            json!({"setupScript": "echo preparing\nsleep 600\n"}),
        ),
    ] {
        world.queue(queue);
        world.bind(queue, &[queue], &json!({"environment": environment}));
        world.until_ready(queue);
    }
    // One after the other: git and uv give up at some time.
    for (phase, queue, patch, is_in_it, written) in phases(&silent) {
        let task = world.create(phase, &world.counter.python("ran"), &patch);
        world.enqueue(&task, queue);
        wait(phase, 90, || is_in_it(&world, &task).then_some(()));
        world.call("tasks.stop", &json!({"task": task}));
        until_soon_gone(&world, &task, &format!("an abort while {phase}"));
        assert_eq!(world.until_ended(&task, 20)["status"], "stopped", "{phase}");
        world.has_written(&task, written);
    }
    assert!(world.counter.lines().is_empty(), "no code has begun");
}
