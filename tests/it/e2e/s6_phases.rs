//! S6 (c): an abort while code is fetched, packages are installed or the setup script runs, in real pods.

use serde_json::{Value, json};

use super::s6_abort::until_gone;
use super::s42_cache::MAKING;
use super::world::{World, wait};
use crate::silent;

/// Whether the pod's init container is at its work.
fn prepares(world: &World, task: &str) -> bool {
    let pod = world.pod_of(task);
    let statuses = pod["status"]["initContainerStatuses"].as_array();
    statuses.is_some_and(|all| {
        all.iter()
            .any(|status| status["name"] == "prepare" && !status["state"]["running"].is_null())
    })
}

/// The three tasks, enqueued: one whose repository, one whose package index never answers, one whose setup script lasts.
fn tasks(world: &World, silent: &str) -> [String; 3] {
    let task = |name: &str, queue: &str, patch: &Value| {
        let task = world.create(name, &world.counter.python("ran"), patch);
        world.enqueue(&task, queue);
        task
    };
    let repository = json!({"script": {
        "repository": format!("http://{silent}/train.git"), "diff": "", "entry_point": "train.py",
        "version_num": "0123456789abcdef0123456789abcdef01234567",
    }});
    let package = json!({"script": {"requirements": {"pip": "joblib\n"}}});
    [
        task("fetches code", "gpu", &repository),
        task("installs packages", "gpu", &package),
        task("runs the setup script", "setup", &json!({})),
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
    let [fetches, installs, sets_up] = tasks(&world, &silent);
    wait("code is being fetched", 90, || {
        prepares(&world, &fetches).then_some(())
    });
    wait("packages are being installed", 90, || {
        let log = world.log(&installs);
        log.iter()
            .any(|line| line.starts_with(MAKING))
            .then_some(())
    });
    wait("the setup script runs", 90, || {
        let log = world.log(&sets_up);
        log.iter().any(|line| line == "preparing").then_some(())
    });
    for (task, phase, written) in [
        (&fetches, "an abort while code is fetched", ""),
        (&installs, "an abort while packages are installed", ""),
        (&sets_up, "an abort of the setup script", "preparing\n"),
    ] {
        world.call("tasks.stop", &json!({"task": task}));
        until_gone(&world, task, phase);
        assert_eq!(world.until_ended(task, 20)["status"], "stopped", "{phase}");
        world.has_written(task, written);
    }
    assert!(world.counter.lines().is_empty(), "no code has begun");
}
