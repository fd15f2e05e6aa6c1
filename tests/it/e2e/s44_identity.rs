//! S44: two clusters with equal release, namespace and binding names work on one server. The second is a control plane
//! of its own (`second`): etcd, API server, controller-manager. Pods of both are played.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kwok::Kwok;
use super::played::{Part, Player, Run, statuses};
use super::s36_scale::enqueue;
use super::second::ControlPlane;
use super::world::{World, merge, wait};

const PERMITS: usize = 4;

const STAYS: Part = Part::Completes(600_000);

/// One of four stays for ever.
fn part(task: &str, _: u32) -> Part {
    match task.as_bytes()[31] {
        b'0' | b'4' | b'8' | b'c' => STAYS,
        _ => Part::Completes(500),
    }
}

fn bind(world: &World, mut patch: Value) {
    merge(
        &mut patch,
        &json!({"limits": {"maxConcurrent": PERMITS}, "lifecycle": {"ttlAfterSuccess": "10s"}}),
    );
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
}

/// Ids of the bindings' workers, as people see them.
fn binding_workers(world: &World) -> BTreeSet<String> {
    let suffix = format!(":{}.gpu:", world.namespace);
    let workers = world.call("workers.get_all", &json!({}));
    let ids = workers["workers"].as_array().expect("workers").iter();
    ids.filter_map(|worker| worker["id"].as_str())
        .filter(|id| id.contains(&suffix) && id.matches(':').count() == 2)
        .map(str::to_owned)
        .collect()
}

/// Tasks of Jobs that have not ended.
fn live(world: &World) -> BTreeSet<String> {
    let is_live = |job: &&Value| {
        let ended = job["status"]["conditions"].to_string();
        !ended.contains("\"Complete\"") && !ended.contains("\"Failed\"")
    };
    let jobs = world.jobs();
    let tasks = jobs.iter().filter(is_live);
    tasks
        .filter_map(|job| {
            job["metadata"]["labels"]["trainyard.dev/task"]
                .as_str()
                .map(str::to_owned)
        })
        .collect()
}

#[test]
fn s44_equal_names_in_two_clusters_never_clash_and_old_jobs_are_still_counted() {
    let mut one = World::new("s44");
    let kwok = Kwok::start(&one, 1);
    let second = ControlPlane::start(&one.place);
    let mut two = one.neighbour(&one.namespace.clone(), &second.kubeconfig);
    // Not the number of the process, nor the name of the machine.
    for world in [&mut one, &mut two] {
        world
            .environment
            .push(("TRAINYARD_IDENTITY".to_owned(), "trainyard-0".to_owned()));
    }
    one.queue("gpu");
    one.start_controller();
    two.start_controller();
    bind(&one, kwok.binding_patch());
    bind(&two, ControlPlane::binding_patch());
    let players = [
        Player::start(&one, &one.place.kubeconfig, part),
        Player::start(&two, &second.kubeconfig, part),
    ];
    let is_staying = |task: &String| part(task, 1) == STAYS;
    let mut tasks = Vec::new();
    // So many that stay that both clusters are full in the end.
    while tasks.len() < 24 || tasks.iter().filter(|task| is_staying(task)).count() < PERMITS * 2 + 2
    {
        tasks.extend(enqueue(&one, 1));
    }
    let runs = || -> Vec<Run> { players.iter().flat_map(Player::runs).collect() };
    wait("both clusters are full of what stays", 180, || {
        let ran: BTreeSet<String> = runs().into_iter().map(|run| run.task).collect();
        let count = ran.iter().filter(|task| is_staying(task)).count();
        (count == PERMITS * 2).then_some(())
    });

    // New processes with new names: what runs is still theirs.
    let before = [live(&one), live(&two)];
    assert_eq!(
        before.each_ref().map(BTreeSet::len),
        [PERMITS; 2],
        "{before:?}"
    );
    for world in [&mut one, &mut two] {
        world.kill_controller();
        world
            .environment
            .push(("TRAINYARD_IDENTITY".to_owned(), "trainyard-1".to_owned()));
        world.start_controller();
    }
    for world in [&one, &two] {
        wait("the new process leads", 75, || {
            let lease = world.get(&["lease", "trainyard-gpu"]);
            (lease["spec"]["holderIdentity"] == "trainyard-1").then_some(())
        });
        let label = format!("binding=\"{}/gpu\"", world.namespace);
        wait("it counts what runs", 60, || {
            let counted = world.metric("trainyard_tasks", &[&label]);
            ((counted - 4.0).abs() < 0.1).then_some(())
        });
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(
        [live(&one), live(&two)],
        before,
        "nothing is taken beyond the limit"
    );

    // Its end is written and cleaned up by those who came later: the first cluster's are aborted by their user.
    let gone = before[0].first().expect("one runs").clone();
    one.call("tasks.stop", &json!({"task": gone}));
    wait("the Job of before the restart goes", 60, || {
        one.job_of(&gone).is_null().then_some(())
    });

    let workers = binding_workers(&one);
    assert_eq!(workers.len(), 2, "one worker for each binding: {workers:?}");
    let mut by_worker: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_task: BTreeMap<String, usize> = BTreeMap::new();
    for run in runs() {
        *by_worker.entry(run.worker).or_default() += 1;
        *by_task.entry(run.task).or_default() += 1;
    }
    assert!(
        by_worker.values().all(|count| *count == 1),
        "worker ids are never shared: {by_worker:?}"
    );
    assert!(
        by_task.values().all(|count| *count == 1),
        "each ran once: {by_task:?}"
    );
    for (world, player) in [&one, &two].into_iter().zip(&players) {
        let uid = world.get(&["queuebinding", "gpu"])["metadata"]["uid"].to_string();
        let short = &uid[1..9];
        let own = player.runs();
        assert!(!own.is_empty(), "both clusters run tasks");
        assert!(
            own.iter().all(|run| run.worker.contains(short)),
            "each by its own binding"
        );
    }
    println!(
        "{} runs in two clusters, {} worker ids, statuses {:?}",
        by_task.len(),
        by_worker.len(),
        statuses(&one, &tasks)
    );
    drop(kwok);
}
