//! A stage: one namespace and one controller, which dies at some of its points and is started again each time.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::FAREWELLS;
use crate::e2e::cgroup::kill_whole_container;
use crate::e2e::kwok::Kwok;
use crate::e2e::played::{Part, Player};
use crate::e2e::world::{PATIENCE, World, merge};

/// How often the controller dies at each point.
pub const TIMES: u32 = 2;
/// Seconds until a stage has to be over: quiet times follow each other, on a machine that others use too.
const LIMIT: u64 = 900;

/// What a stage dies at, and the work that leads there.
pub struct Plan {
    pub name: &'static str,
    pub points: &'static [&'static str],
    /// Whether its pods run on the real node.
    pub is_real: bool,
    pub work: fn(&mut Stage),
}

/// What the code of a task does.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Ends,
    /// The first attempt stays until it is taken away or finished, the next one ends.
    StaysOnce,
}

impl Act {
    fn part(self, attempt: u32) -> Part {
        match self {
            Self::StaysOnce if attempt == 1 => Part::Completes(600_000),
            Self::Ends | Self::StaysOnce => Part::Completes(200),
        }
    }

    /// The same as Python that counts its run and then waits.
    fn source(self, world: &World) -> String {
        let wait = match self {
            Self::Ends => "0",
            Self::StaysOnce => "600 * (os.environ['TRAINYARD_ATTEMPT'] == '1')",
        };
        format!(
            "{}import time\ntime.sleep({wait})\n",
            world.counter.python("ran")
        )
    }
}

/// What became of a stage, or of all.
#[derive(Debug, Default)]
pub struct Outcome {
    pub tasks: usize,
    pub kills: usize,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub unspent: Vec<String>,
}

impl Outcome {
    pub fn add(&mut self, name: &str, other: Self) {
        let named = |all: Vec<String>| all.into_iter().map(move |text| format!("{name}: {text}"));
        self.tasks += other.tasks;
        self.kills += other.kills;
        self.lost.extend(named(other.lost));
        self.doubled.extend(named(other.doubled));
        self.unspent.extend(named(other.unspent));
    }
}

/// What has to become of a task.
struct Expected {
    name: String,
    status: &'static str,
    runs: usize,
}

pub struct Stage {
    pub world: World,
    /// Absent where pods are real.
    player: Option<Player>,
    acts: Arc<Mutex<HashMap<String, Act>>>,
    /// What bindings need beside their own settings.
    patch: Value,
    name: &'static str,
    points: &'static [&'static str],
    folder: PathBuf,
    deadline: Instant,
    /// How often it ended, and how often it was ended by the test itself.
    deaths: usize,
    own_kills: usize,
    tasks: BTreeMap<String, Expected>,
    /// So that names are never used twice.
    number: usize,
}

/// Whether the controller of this world leads for some binding.
fn leads(world: &World) -> bool {
    let (_, text) = world.probe("/metrics");
    let mut lines = text.lines();
    lines.any(|line| line.starts_with("trainyard_leader{") && line.ends_with(" 1"))
}

/// Plays one stage to its end.
pub fn play(plan: &Plan, base: &World, kwok: &Kwok) -> Outcome {
    let begun = Instant::now();
    let mut stage = Stage::new(plan, base, kwok);
    (plan.work)(&mut stage);
    // What is under way comes to its end.
    let deadline = stage.deadline;
    while Instant::now() < deadline && !(stage.open().is_empty() && stage.unspent().is_empty()) {
        stage.until(1, |_| false);
    }
    let outcome = stage.outcome();
    println!(
        "{}: {} tasks, {} kills in {} s",
        plan.name,
        outcome.tasks,
        outcome.kills,
        begun.elapsed().as_secs()
    );
    outcome
}

impl Stage {
    fn new(plan: &Plan, base: &World, kwok: &Kwok) -> Self {
        let namespace = format!("{}-{}", base.namespace, plan.name);
        let mut world = base.neighbour(&namespace, &base.place.kubeconfig);
        let folder = world.dir.path().join("faults");
        fs::create_dir(&folder).expect("folder is made");
        let variable = (
            "TRAINYARD_FAULTS".to_owned(),
            folder.to_string_lossy().into_owned(),
        );
        world.environment.push(variable);
        let acts: Arc<Mutex<HashMap<String, Act>>> = Arc::default();
        let known = Arc::clone(&acts);
        let script = move |task: &str, attempt| {
            let act = known.lock().expect("acts lock").get(task).copied();
            act.unwrap_or(Act::Ends).part(attempt)
        };
        let kubeconfig = base.place.kubeconfig.clone();
        let player = (!plan.is_real).then(|| Player::start(&world, &kubeconfig, script));
        let mut patch = if plan.is_real {
            json!({})
        } else {
            kwok.binding_patch()
        };
        merge(&mut patch, &json!({"limits": {"maxConcurrent": 20}}));
        let mut stage = Self {
            world,
            player,
            acts,
            patch,
            name: plan.name,
            points: plan.points,
            folder,
            deadline: Instant::now() + Duration::from_secs(LIMIT),
            deaths: 0,
            own_kills: 0,
            tasks: BTreeMap::new(),
            number: 0,
        };
        let on_its_way = |point: &&&str| !FAREWELLS.contains(*point);
        for point in plan.points.iter().filter(on_its_way) {
            stage.set(point, TIMES);
        }
        stage.world.start_controller();
        stage
    }

    pub fn set(&self, point: &str, times: u32) {
        let file = self.folder.join(point.replace('/', "."));
        fs::write(file, times.to_string()).expect("point is written");
    }

    /// How often the controller has still to die at this point.
    pub fn left(&self, point: &str) -> u32 {
        fs::read_to_string(self.folder.join(point.replace('/', ".")))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }

    pub fn unspent(&self) -> Vec<String> {
        let left = |point: &&&str| self.left(point) > 0;
        let names = self.points.iter().filter(left);
        names.map(|point| (*point).to_owned()).collect()
    }

    /// Starts the controller again if it has died.
    pub fn revive(&mut self) {
        if self.world.controller().has_ended() {
            self.deaths += 1;
            self.world.start_controller();
        }
    }

    /// Ends the controller at a moment of the test's choice.
    pub fn kill(&mut self) {
        self.revive();
        self.world.kill_controller();
        self.own_kills += 1;
        self.world.start_controller();
    }

    /// SIGTERM: it gives its Lease back, and dies at this point of that; or at another one, just before it heard.
    pub fn farewell(&mut self, point: &str) {
        self.set(point, 1);
        for _ in 0..5 {
            assert!(self.until(60, leads), "the controller leads");
            let before = self.all_left();
            self.world.terminate_controller();
            self.deaths += usize::from(self.all_left() < before);
            self.world.start_controller();
            if self.left(point) == 0 {
                return;
            }
        }
        panic!("it never came to {point} on SIGTERM");
    }

    /// How often the controller has still to die at all.
    fn all_left(&self) -> u32 {
        self.points.iter().map(|point| self.left(point)).sum()
    }

    /// Polls while the controller is kept alive; `false` when time is up.
    pub fn until(&mut self, seconds: u64, mut probe: impl FnMut(&World) -> bool) -> bool {
        // Short ones are pauses.
        let patience = if seconds < 60 { 1 } else { PATIENCE };
        let deadline = Instant::now() + Duration::from_secs(seconds) * patience;
        while Instant::now() < deadline {
            self.revive();
            if probe(&self.world) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// Waits until these points are spent.
    pub fn until_spent(&mut self, seconds: u64, points: &[&str]) -> bool {
        let folder = self.folder.clone();
        let left = move |point: &&str| {
            fs::read_to_string(folder.join(point.replace('/', ".")))
                .is_ok_and(|text| text.trim() != "0")
        };
        self.until(seconds, |_| !points.iter().any(&left))
    }

    /// Waits until it has to die only so often at this point.
    pub fn until_left(&mut self, seconds: u64, point: &str, left: u32) {
        let file = self.folder.join(point.replace('/', "."));
        let count = || fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok();
        self.until(seconds, |_| count().is_some_and(|count| count <= left));
    }

    pub fn expect(&mut self, task: &str, name: &str, status: &'static str, runs: usize) {
        let name = name.to_owned();
        let expected = Expected { name, status, runs };
        self.tasks.insert(task.to_owned(), expected);
    }

    /// The server is shared with the other stages.
    pub fn name(&mut self, word: &str) -> String {
        self.number += 1;
        format!("{}-{word}-{}", self.name, self.number)
    }

    /// A binding of this name.
    pub fn binding(&self, name: &str, patch: &Value) -> Value {
        let mut whole = self.patch.clone();
        merge(&mut whole, patch);
        self.world.binding(name, &[name], &whole)
    }

    /// The same, made or changed.
    pub fn set_binding(&self, name: &str, patch: &Value) {
        self.world.apply(&self.binding(name, patch));
    }

    /// A binding with a queue of its own name.
    pub fn bind(&mut self, word: &str, patch: &Value) -> String {
        let name = self.name(word);
        self.world.queue(&name);
        self.set_binding(&name, patch);
        name
    }

    /// Creates and enqueues a task.
    pub fn run(&self, name: &str, act: Act, queue: &str) -> String {
        self.run_with(name, act, queue, &json!({}))
    }

    /// The same with this merged into the task.
    pub fn run_with(&self, name: &str, act: Act, queue: &str, patch: &Value) -> String {
        let source = act.source(&self.world);
        let task = self.world.create(name, &source, patch);
        self.acts
            .lock()
            .expect("acts lock")
            .insert(task.clone(), act);
        self.world.enqueue(&task, queue);
        task
    }

    /// How often the code of each task has begun.
    fn runs(&self) -> HashMap<String, usize> {
        let mut runs: HashMap<String, usize> = HashMap::new();
        let tasks: Vec<String> = if let Some(player) = &self.player {
            player.runs().into_iter().map(|run| run.task).collect()
        } else {
            let lines = self.world.counter.lines().into_iter();
            lines
                .filter_map(|line| Some(line.strip_prefix("ran ")?.to_owned()))
                .collect()
        };
        for task in tasks {
            *runs.entry(task).or_default() += 1;
        }
        runs
    }

    /// Waits until the code of these tasks has begun.
    pub fn until_begun(&mut self, tasks: &[String]) {
        let deadline = Instant::now() + Duration::from_secs(200) * PATIENCE;
        loop {
            self.revive();
            let runs = self.runs();
            if tasks.iter().all(|task| runs.contains_key(task)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not all of {tasks:?} begin: {runs:?}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The task's pod dies as a whole, so that the controller has to write the end.
    pub fn die(&self, task: &str) {
        match &self.player {
            Some(player) => player.die(task),
            None => kill_whole_container(&self.world.running_pod(task), "task"),
        }
    }

    /// The code of a task whose pod is played comes to a good end.
    pub fn finish(&self, task: &str) {
        let player = self.player.as_ref().expect("pods are played");
        player.finish(task);
    }

    /// Tasks that are not where they should be.
    pub fn open(&self) -> Vec<String> {
        if self.tasks.is_empty() {
            return Vec::new();
        }
        let ids: Vec<&String> = self.tasks.keys().collect();
        let answer = self.world.call(
            "tasks.get_all",
            &json!({"id": ids, "only_fields": ["id", "status"], "page_size": 500}),
        );
        let all = answer["tasks"].as_array().cloned().unwrap_or_default();
        assert_eq!(all.len(), ids.len(), "no task is gone from the server");
        all.iter()
            .filter_map(|task| {
                let id = task["id"].as_str()?;
                (task["status"] != self.tasks[id].status).then(|| id.to_owned())
            })
            .collect()
    }

    fn outcome(&mut self) -> Outcome {
        let open = self.open();
        for task in &open {
            self.world.tell(task);
        }
        let lost = |task: &String| {
            let known = &self.tasks[task];
            let status = self.world.status(task);
            format!("{} {task} is {status}, not {}", known.name, known.status)
        };
        let lost = open.iter().map(lost).collect();
        let runs = self.runs();
        let mut doubled = Vec::new();
        for (task, expected) in &self.tasks {
            let ran = runs.get(task).copied().unwrap_or(0);
            if ran != expected.runs {
                let (name, wanted) = (&expected.name, expected.runs);
                doubled.push(format!("{name} {task} ran {ran} times, not {wanted}"));
            }
        }
        for job in self.world.jobs() {
            let labels = &job["metadata"]["labels"];
            let known = ["trainyard.dev/task", "trainyard.dev/ahead"]
                .iter()
                .filter_map(|label| labels[label].as_str())
                .any(|task| self.tasks.contains_key(task));
            assert!(known, "a Job without task: {}", job["metadata"]["name"]);
        }
        // Each death was asked for: the controller does not die of anything else.
        let unspent = self.unspent();
        if unspent.is_empty() {
            let asked = self.points.len() * usize::try_from(TIMES).expect("a count");
            // A point is written as spent just before the process ends.
            let deadline = Instant::now() + Duration::from_secs(20);
            while self.deaths + self.own_kills < asked && Instant::now() < deadline {
                self.revive();
                std::thread::sleep(Duration::from_millis(50));
            }
            let log = fs::read_to_string(&self.world.controller().log).unwrap_or_default();
            // One that died just before it was killed by the test counts as killed.
            assert!(
                self.deaths <= asked && self.deaths + self.own_kills >= asked,
                "{} deaths and {} kills, {asked} deaths asked for: {log}",
                self.deaths,
                self.own_kills
            );
        }
        Outcome {
            tasks: self.tasks.len(),
            kills: self.deaths + self.own_kills,
            lost,
            doubled,
            unspent,
        }
    }
}
