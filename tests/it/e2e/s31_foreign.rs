//! S31: one queue served by two clusters, a plain `clearml-agent` daemon and the old glue; each of them is killed, the
//! controllers behind each call of a claim in turn.
//!
//! The first cluster is the real one, with real pods; the second is a control plane of its own (`second`), whose pods are
//! played. Daemon and glue are the unmodified programs. `TRAINYARD_S31_TASKS` says how many tasks; 1,000 are the long
//! form.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::json;

use super::glue::{Glue, Packages};
use super::played::{Part, Player, statuses};
use super::s10_fault_points::CLAIM;
use super::second::ControlPlane;
use super::world::{PATIENCE, Proc, World, wait};
use crate::long;

const QUEUE: &str = "shared";

fn number() -> usize {
    long::size("TRAINYARD_S31_TASKS", 36)
}

/// Reports who runs it; the glue's pods have their agent on a volume.
pub(super) fn source(world: &World) -> String {
    let (host, port) = world.counter.address.rsplit_once(':').expect("a port");
    format!(
        "import os, socket\n\
         who = 'pod' if 'TRAINYARD_ATTEMPT' in os.environ else 'glue' if os.path.exists('/opt/agent') else 'daemon'\n\
         c = socket.create_connection(('{host}', {port}), 30)\n\
         c.sendall((who + ' ' + os.environ['CLEARML_TASK_ID'] + '\\n').encode())\n\
         assert c.recv(3) == b'ok\\n'\nc.close()\n"
    )
}

/// The plain agent on this machine; it installs nothing.
fn daemon(world: &World) -> Proc {
    let python = std::env::var("TRAINYARD_E2E_AGENT_PYTHON").expect("the agent's Python is told");
    let home: PathBuf = world.dir.path().join("daemon");
    std::fs::create_dir_all(&home).expect("folder is made");
    let mut command = Command::new(python);
    command
        .args([
            "-m",
            "clearml_agent",
            "daemon",
            "--queue",
            QUEUE,
            "--foreground",
            "--cpu-only",
        ])
        .current_dir(&home)
        .env("HOME", &home)
        .env("CLEARML_CONFIG_FILE", world.dir.path().join("clearml.conf"))
        .env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1")
        .env(
            "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL",
            &world.place.sdk_python,
        )
        .env("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.5")
        .env("CLEARML_AGENT_DISABLE_BOOTSTRAP", "1")
        .env("CLEARML_WORKER_NAME", "daemon")
        .env("PYTHONUNBUFFERED", "1");
    Proc::start(&mut command, &world.dir.path().join("daemon.log"))
}

/// Where the controller of a world dies.
struct Deaths {
    folder: PathBuf,
    /// The point behind which it dies next.
    asked: Option<&'static str>,
    next: usize,
    died: Vec<&'static str>,
}

impl Deaths {
    /// The second of two begins elsewhere than the first.
    fn of(world: &mut World, first: usize) -> Self {
        let folder = world.dir.path().join("faults");
        fs::create_dir(&folder).expect("folder is made");
        let variable = folder.to_string_lossy().into_owned();
        world
            .environment
            .push(("TRAINYARD_FAULTS".to_owned(), variable));
        Self {
            folder,
            asked: None,
            next: first,
            died: Vec::new(),
        }
    }

    fn write(&self, point: &str, times: u32) {
        let file = self.folder.join(point.replace('/', "."));
        fs::write(file, times.to_string()).expect("point is written");
    }

    /// Lets it die behind the next of its calls that leads past the next point.
    fn ask(&mut self) {
        let point = *self.asked.get_or_insert_with(|| {
            let point = CLAIM[self.next % CLAIM.len()];
            self.next += 1;
            point
        });
        self.write(point, 1);
    }

    /// It dies no more.
    fn rest(&self) {
        if let Some(point) = self.asked {
            self.write(point, 0);
        }
    }

    /// Starts it again if it has died.
    fn revive(&mut self, world: &mut World) {
        if world.controller().has_ended() {
            let point = self.asked.take();
            let log = world.controller().log();
            let point = point.unwrap_or_else(|| panic!("it died where nobody asked for it: {log}"));
            // It may have been asked for once more since.
            self.write(point, 0);
            self.died.push(point);
            world.start_controller();
        }
    }
}

/// Whether a task was left by a consumer of the old kind that was killed: started and never ended, or in no queue.
fn is_left_by_foreign(world: &World, task: &str) -> bool {
    let known = world.task(task);
    let status = known["status"].as_str().unwrap_or_default();
    let worker = known["last_worker"].as_str().unwrap_or_default();
    let condition = world.condition(QUEUE, "NothingStranded");
    let told = condition["message"].as_str().unwrap_or_default();
    // It names the first of them alone.
    let named = condition["status"] == "False" && (told.contains(task) || !told.starts_with("1 "));
    match status {
        "in_progress" => !worker.starts_with("trainyard"),
        "queued" => {
            named
                || world
                    .entries(&format!("{QUEUE}-pending"))
                    .iter()
                    .any(|id| id == task)
        }
        _ => false,
    }
}

/// Whether one of these consumers has run something.
fn has_run(world: &World, who: &str) -> bool {
    let lines = world.counter.lines();
    lines.iter().any(|line| line.split(' ').next() == Some(who))
}

/// Whether a pod that the glue made has not ended.
fn has_pods_of_the_glue(world: &World) -> bool {
    let pods = world.get(&["pods"]);
    let pods = pods["items"].as_array().into_iter().flatten();
    let is_open = |pod: &&serde_json::Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        name.starts_with("clearml-id-") && !["Succeeded", "Failed"].contains(&phase)
    };
    pods.filter(is_open).count() > 0
}

#[test]
fn s31_two_clusters_a_daemon_and_the_glue_share_a_queue_and_nothing_runs_twice() {
    let total = number();
    let mut one = World::with_fault_points("s31");
    let second = ControlPlane::start(&one.place);
    let mut two = one.neighbour(&one.namespace.clone(), &second.kubeconfig);
    one.queue(QUEUE);
    let limits = json!({"limits": {"maxConcurrent": 2}});
    let mut deaths = [
        Deaths::of(&mut one, 0),
        Deaths::of(&mut two, CLAIM.len() / 2),
    ];
    one.start_controller();
    two.start_controller();
    one.bind(QUEUE, &[QUEUE], &limits);
    let mut patch = ControlPlane::binding_patch();
    super::world::merge(&mut patch, &limits);
    two.bind(QUEUE, &[QUEUE], &patch);
    one.until_ready(QUEUE);
    two.until_ready(QUEUE);
    let player = Player::start(&two, &second.kubeconfig, |_, _| Part::Completes(3000));
    let mut agent = daemon(&one);
    let mut glue = Some(Glue::start(&one, QUEUE, Packages::Skip));

    let begun = Instant::now();
    let source = source(&one);
    let mut tasks: Vec<String> = (0..total)
        .map(|i| one.run(&format!("task {i}"), &source, QUEUE))
        .collect();
    let (mut turn, mut foreign, mut random) = (0_usize, 0, rand::rng());
    deaths.iter_mut().for_each(Deaths::ask);
    let mut due = begun + Duration::from_secs(4);
    let limit = begun
        + Duration::from_secs(240) * PATIENCE
        + Duration::from_secs(2) * u32::try_from(total).expect("a count");
    let ended = |status: &BTreeMap<String, usize>| -> usize {
        ["completed", "failed", "stopped"]
            .iter()
            .filter_map(|name| status.get(*name))
            .sum()
    };
    let (mut changed, mut more) = ((0, begun), begun);
    loop {
        for (deaths, world) in deaths.iter_mut().zip([&mut one, &mut two]) {
            deaths.revive(world);
        }
        let counts: BTreeMap<String, usize> = statuses(&one, &tasks).into_iter().collect();
        let waiting = one.entries(QUEUE).len();
        // Who is slow to begin finds more to do, so that each of them runs something; one at a time, because the glue takes
        // all that it finds at once.
        let goes_short = waiting == 0
            && tasks.len() < total * 3
            && (player.runs().is_empty()
                || ["pod", "daemon"].iter().any(|who| !has_run(&one, who))
                || !has_run(&one, "glue") && !has_pods_of_the_glue(&one));
        if ended(&counts) == tasks.len() && !goes_short || Instant::now() > limit {
            break;
        }
        if goes_short && Instant::now() > more {
            tasks.push(one.run(&format!("task {}", tasks.len()), &source, QUEUE));
            more = Instant::now() + Duration::from_secs(2);
        }
        if ended(&counts) != changed.0 {
            changed = (ended(&counts), Instant::now());
        }
        // What is still open then has been left by one that was killed, for good. A pod of the glue comes to its end
        // without it, however long it takes to start.
        if waiting == 0
            && changed.1.elapsed() > Duration::from_secs(60)
            && !has_pods_of_the_glue(&one)
        {
            let open = tasks
                .iter()
                .filter(|task| ["queued", "in_progress"].contains(&one.status(task).as_str()));
            if open.clone().all(|task| is_left_by_foreign(&one, task)) {
                break;
            }
        }
        if waiting == 0 {
            deaths.iter().for_each(Deaths::rest);
        }
        if Instant::now() > due && waiting > 0 {
            match turn % 4 {
                which @ (0 | 1) => deaths[which].ask(),
                // It needs as long as a kill is away, or longer: it dies once it has run something.
                2 if has_run(&one, "daemon") => {
                    agent.kill();
                    agent = daemon(&one);
                    foreign += 1;
                }
                // Its pods need longer still.
                3 if has_run(&one, "glue") => {
                    drop(glue.take());
                    glue = Some(Glue::start(&one, QUEUE, Packages::Skip));
                    foreign += 1;
                }
                _ => deaths[0].ask(),
            }
            turn += 1;
            due = Instant::now() + Duration::from_millis(random.random_range(2000..5000));
        }
        std::thread::sleep(Duration::from_millis(500));
    }

    deaths.iter().for_each(Deaths::rest);
    let mut kills = foreign;
    for (deaths, world) in deaths.iter_mut().zip([&mut one, &mut two]) {
        deaths.revive(world);
        println!("a controller died behind {:?}", deaths.died);
        kills += deaths.died.len();
    }
    let mut ran: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in one.counter.lines() {
        let (who, task) = line.split_once(' ').expect("who and task");
        ran.entry(task.to_owned()).or_default().push(who.to_owned());
    }
    for run in player.runs() {
        ran.entry(run.task).or_default().push("played".to_owned());
    }
    let mut by_whom: BTreeMap<&str, usize> = BTreeMap::new();
    for who in ran.values().flatten() {
        *by_whom.entry(who).or_default() += 1;
    }
    let doubled: Vec<_> = ran.iter().filter(|(_, who)| who.len() > 1).collect();
    let (mut left, mut lost) = (Vec::new(), Vec::new());
    for task in &tasks {
        match one.status(task).as_str() {
            "completed" if ran.contains_key(task) => {}
            _ if is_left_by_foreign(&one, task) => left.push(task),
            status => lost.push(format!("{task} is {status}")),
        }
    }
    println!(
        "{} tasks, {kills} kills in {} s: {by_whom:?}, left by a killed foreign consumer {}, lost {}, doubled {}",
        tasks.len(),
        begun.elapsed().as_secs(),
        left.len(),
        lost.len(),
        doubled.len()
    );
    if !lost.is_empty() {
        second.tell();
        eprintln!("daemon: {}", agent.log());
        eprintln!("glue: {}", glue.as_ref().map(Glue::log).unwrap_or_default());
    }
    assert!(doubled.is_empty(), "{doubled:?}");
    assert!(lost.is_empty(), "{lost:#?}");
    // Who is killed between its pop and its start leaves one: more would be ours.
    let queued = left.iter().filter(|task| one.status(task) == "queued");
    let dropped = queued.count();
    assert!(
        dropped <= foreign,
        "{dropped} left queued after {foreign} kills of others: {left:#?}"
    );
    assert!(kills >= 3, "{kills} kills");
    for deaths in &deaths {
        let points: BTreeSet<&str> = deaths.died.iter().copied().collect();
        // In the long form behind each, in both clusters.
        let least = if total < 1000 { 1 } else { CLAIM.len() };
        assert!(points.len() >= least, "{points:?}");
    }
    for who in ["pod", "played", "daemon", "glue"] {
        assert!(
            by_whom.contains_key(who),
            "{who} has run something: {by_whom:?}"
        );
    }
    // What others have run leaves no Job behind, once a controller that has just died was there again.
    let is_left = |job: &serde_json::Value| {
        let task = job["metadata"]["labels"]["trainyard.dev/task"]
            .as_str()
            .unwrap_or_default();
        let foreign = ran
            .get(task)
            .is_some_and(|who| who.iter().any(|who| who == "daemon" || who == "glue"));
        let has_ended = job["status"]["conditions"].to_string().contains("\"True\"");
        foreign && !has_ended
    };
    for world in [&one, &two] {
        wait("no Job is left of a task that another ran", 60, || {
            (!world.jobs().iter().any(is_left)).then_some(())
        });
    }
}
