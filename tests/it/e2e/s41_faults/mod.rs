//! S41, what the cluster does: one row for each way in which a pod can fail; the task on the server says which it was.
//!
//! S7 (memory), S15 (what does not start) and parts of S9 (what is taken away) are rows of it. Many rows run at once,
//! each on a binding and queue of its own. What one machine cannot bring about, such as the end of a node, happens on
//! simulated ones.

pub(super) mod clock;
mod memory;
mod props;
pub(super) mod registry;
mod rows;
mod simulated;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use trainyard::diagnose::Category;

use super::kwok::Kwok;
use super::world::{PATIENCE, World, merge};
use clock::{Clock, Look};
use props::Props;

/// How one way to fail is brought about, and what the task has to say then.
struct Row {
    /// Name of binding and queue; also of the row.
    name: &'static str,
    /// Merged into the pod spec of the template.
    pod: Value,
    /// Merged into the container of the task.
    container: Value,
    /// Merged into the spec of the binding.
    spec: Value,
    /// Merged into the task.
    task: Value,
    source: &'static str,
    act: Act,
    /// What the task has to be then: `queued` is one that went back.
    status: &'static str,
    /// What `docs/failures.md` calls it; the status reason does too.
    category: Category,
    /// What the status reason has to hold beside that: an agent's words of an end that the pod tells itself, say.
    reason: &'static str,
    /// What the status message has to hold, sentence and remedy; of a task that went back the status reason.
    words: &'static [&'static str],
    /// What its log has to hold.
    evidence: &'static [&'static str],
    /// What its script has printed: the server has this of the task's own output and no byte more. Nothing where only the
    /// container knows it, as times and tracebacks; then `more` compares the two.
    written: Option<&'static str>,
    /// What else has to hold of the task that has ended, by the row's name; it is judged at the end.
    more: Option<fn(&World, &str, &str, &Value)>,
}

/// What is done to the pod of a row.
enum Act {
    Nothing,
    /// On the real node, once its script has begun and has run for a while.
    Begun(fn(&World, &str)),
    /// On a simulated node, once the task has run for a while: what the cluster does to the pod.
    Simulated(fn(&World, &Value)),
    /// The same: the status that its kubelet leaves.
    Leaves(Value),
    /// To its Job, once that is released: what holds it back there.
    Held(fn(&World, &Value)),
}

const SLEEPS: &str = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n";

/// A row in which everything is as usual.
fn row(name: &'static str, category: Category) -> Row {
    Row {
        name,
        pod: json!({}),
        container: json!({}),
        spec: json!({}),
        task: json!({}),
        source: SLEEPS,
        act: Act::Nothing,
        status: "failed",
        category,
        reason: "",
        words: &[],
        evidence: &[],
        written: Some(""),
        more: None,
    }
}

fn table() -> Vec<Row> {
    let parts = [
        rows::does_not_start(),
        rows::bad_images(),
        rows::own_ends(),
        rows::finds_no_place(),
        rows::taken_away(),
        simulated::taken_away(),
        simulated::left_behind(),
    ];
    parts.into_iter().flatten().collect()
}

impl Row {
    /// Whether a status reason says what it has to: the category behind our name, or behind what became of the task.
    fn is_called(&self, reason: &str) -> bool {
        let (_, ours) = reason.split_once("trainyard: ").unwrap_or_default();
        let mut words = ours.split([',', ':']).take(2);
        words.any(|word| word.trim() == self.category.as_str()) && reason.contains(self.reason)
    }

    /// Whether a pod starts on the real node.
    fn starts_here(&self) -> bool {
        let none = [Category::Unschedulable, Category::Quota, Category::Policy];
        self.pod["nodeSelector"].is_null() && !none.contains(&self.category)
    }

    /// Whether its pod is given up when patience with it is over.
    fn gives_up(&self) -> bool {
        self.spec["lifecycle"]["pendingTimeout"] == rows::LATER
    }

    /// Whether the task has come to what it can be judged by.
    fn is_over(&self, status: &str, reason: &str) -> bool {
        let went_back = self.status == "queued" && status == "queued";
        ["failed", "stopped", "completed"].contains(&status)
            || (went_back && self.is_called(reason))
    }

    /// Whether the task says what is wrong: its end does, and while its pod waits its status message.
    fn is_told(&self, document: &Value) -> bool {
        let text = |field: &str| document[field].as_str().unwrap_or_default();
        let (reason, message) = (text("status_reason"), text("status_message"));
        let waits = Category::OF_WAITING.contains(&self.category);
        let mut words = self.words.iter();
        self.is_over(text("status"), reason)
            || (waits && words.any(|words| reason.contains(words) || message.contains(words)))
    }

    /// Does to the task's pod what is to be done, if it is time for it; whether it is done. `runs` is for how long it was
    /// seen to run: what happens to a run is done to one that is older than the quiet time, as most are.
    fn act(&self, world: &World, task: &str, runs: Option<Duration>) -> bool {
        let is_old = runs.is_some_and(|runs| runs > clock::quiet_time());
        match &self.act {
            Act::Nothing => true,
            Act::Begun(act) => {
                let is_time = is_old && world.log(task).iter().any(|line| line == "begun");
                if is_time {
                    act(world, task);
                }
                is_time
            }
            Act::Simulated(_) | Act::Leaves(_) if runs.is_none() => {
                simulated::start(world, task);
                false
            }
            Act::Simulated(act) => {
                if is_old {
                    act(world, &world.pod_of(task));
                }
                is_old
            }
            Act::Leaves(status) => {
                if is_old {
                    simulated::leave(world, &world.pod_of(task), status);
                }
                is_old
            }
            Act::Held(act) => {
                let job = world.job_of(task);
                let is_time = job["metadata"]["labels"]["trainyard.dev/state"] == "held";
                if is_time {
                    act(world, &job);
                }
                is_time
            }
        }
    }
}

fn binding(world: &World, row: &Row) -> Value {
    let mut container = json!({"name": "task", "image": world.place.task_image});
    merge(&mut container, &row.container);
    let mut pod = json!({"containers": [container]});
    merge(&mut pod, &row.pod);
    if let Some(own) = pod["initContainers"].as_array_mut() {
        for container in own {
            container["image"] = json!(world.place.task_image);
        }
    }
    let mut spec = json!({"template": {"spec": pod}});
    merge(&mut spec, &row.spec);
    world.binding(row.name, &[row.name], &spec)
}

#[test]
fn a_category_is_found_in_its_place_alone() {
    let row = Row {
        reason: "exit code 3",
        ..row("exit-code", Category::ExitCode)
    };
    for (reason, called) in [
        ("worker execution exit code 3, trainyard: exit-code", true),
        (
            "trainyard: interrupted too often, exit-code: exit code 3",
            true,
        ),
        ("worker execution exit code 3", false),
        ("worker execution exit code 3, trainyard: signal", false),
        ("exit-code, trainyard: exit code 3", false),
        ("trainyard: exit-code", false),
    ] {
        assert_eq!(row.is_called(reason), called, "{reason}");
    }
}

#[test]
fn the_table_has_a_row_for_each_category() {
    let rows = table();
    assert!(rows.len() >= 25, "only {} rows", rows.len());
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "a name for each row");
    for row in &rows {
        let is_compared = row.written.is_some() || row.more.is_some();
        assert!(is_compared, "{}: nobody compares its log", row.name);
    }
    // No failures, or told to nobody: the task is another's by then.
    let others = [
        Category::Completed,
        Category::Aborted,
        Category::LostRace,
        Category::TakenOver,
    ];
    for category in Category::ALL {
        let has_row = rows.iter().any(|row| row.category == category);
        assert_ne!(has_row, others.contains(&category), "{}", category.as_str());
    }
}

/// A row whose task has not come to its end.
struct Open {
    row: Row,
    task: String,
    begun: Instant,
    /// When it was seen to run first.
    runs: Option<Instant>,
    /// Whether that was done to its pod which is to be done.
    acted: bool,
    /// Whether the patience with its pod was made short.
    hurried: bool,
    clock: Clock,
}

/// A node says what is wrong with a pod when it comes to it, which on a busy one may be late: so long it is waited for.
const CAUSE: Duration = Duration::from_secs(60);

impl Open {
    /// Takes in what the task says, and does to its pod what is to be done; the task once it has come to its end.
    fn follow(&mut self, world: &World, look: &mut Look, said: &Value) -> Option<Value> {
        let told = self.row.is_told(said);
        let of = (self.task.as_str(), self.row.category);
        self.clock.note(world, look, of, told);
        let status = said["status"].as_str().unwrap_or_default();
        let reason = said["status_reason"].as_str().unwrap_or_default();
        if self.row.is_over(status, reason) {
            return Some(world.task(&self.task));
        }
        if status == "in_progress" {
            self.runs.get_or_insert_with(Instant::now);
        }
        let runs = self.runs.map(|since| since.elapsed());
        self.acted = self.acted || self.row.act(world, &self.task, runs);
        // What is to be given up is given up once the task says why its pod waits.
        let is_time = told || self.begun.elapsed() > CAUSE * PATIENCE;
        if self.row.gives_up() && is_time && !self.hurried {
            self.hurried = true;
            let soon = json!({"lifecycle": {"pendingTimeout": rows::SOON}});
            world.edit(self.row.name, &soon);
        }
        None
    }
}

/// So many rows whose pods start on the real node are open at once: all together none of them would start in time.
const AT_ONCE: usize = 12;

/// Enqueues the task of a row, then makes its binding.
fn begin(world: &World, props: &Props<'_>, row: Row) -> Open {
    world.queue(row.name);
    let task = world.create(row.name, row.source, &props.fill(&row.task));
    world.enqueue(&task, row.name);
    world.apply(&props.fill(&binding(world, &row)));
    Open {
        row,
        task,
        begun: Instant::now(),
        runs: None,
        acted: false,
        hurried: false,
        clock: Clock::default(),
    }
}

#[test]
fn s41_each_way_to_fail_is_told_in_the_task() {
    let mut world = World::new("s41");
    world.start_controller();
    let _kwok = Kwok::start(&world, simulated::NODES);
    let props = Props::new(&world);
    // What never starts on the real node begins at once; of the rest, which take turns, what waits longest goes first.
    let (here, elsewhere): (Vec<Row>, Vec<Row>) = table().into_iter().partition(Row::starts_here);
    let elsewhere = elsewhere.into_iter();
    let mut open: Vec<Open> = elsewhere.map(|row| begin(&world, &props, row)).collect();
    let mut rows = here.into_iter();
    let begun = Instant::now();
    let mut look = Look::new(&world);
    let (mut faults, mut ended) = (Vec::new(), Vec::new());
    while begun.elapsed() < Duration::from_secs(600) * PATIENCE {
        let started = open.iter().filter(|one| one.row.starts_here()).count();
        for _ in started..AT_ONCE {
            open.extend(rows.next().map(|row| begin(&world, &props, row)));
        }
        if open.is_empty() {
            break;
        }
        if look.is_old() {
            look = Look::new(&world);
        }
        let ids: Vec<&str> = open.iter().map(|one| one.task.as_str()).collect();
        let said = world.tasks(&ids, &["status", "status_reason", "status_message"]);
        let mut left = Vec::new();
        for mut one in open {
            let said = &said[&one.task];
            let Some(document) = one.follow(&world, &mut look, said) else {
                left.push(one);
                continue;
            };
            faults.extend(judge(&world, &one, &document));
            let (name, after) = (one.row.name, begun.elapsed().as_secs());
            one.clock.tell(&document, one.runs);
            let late = one.clock.late().as_secs_f64();
            println!(
                "{name:>30}: {after:>3} s, told after {late:4.1} s, {:9} {}",
                document["status"].as_str().unwrap_or_default(),
                document["status_reason"].as_str().unwrap_or_default()
            );
            if one.row.more.is_none() {
                // What was given back would only go round again.
                world.delete("queuebinding", name);
            }
            ended.push((one, document));
        }
        open = left;
        std::thread::sleep(Duration::from_millis(500));
    }
    for one in &open {
        world.tell(&one.task);
        faults.push(format!("{}: has not ended", one.row.name));
    }
    faults.extend(rows.map(|row| format!("{}: has not begun", row.name)));
    faults.extend(ended.iter().filter_map(|(one, _)| difference(&world, one)));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // The rest of them told themselves what they came to.
    let shown = ended.iter().filter(|(one, _)| one.clock.was_shown());
    assert!(shown.count() >= 25, "few causes were seen in the cluster");
    for (one, document) in &ended {
        if let Some(judge) = one.row.more {
            judge(&world, one.row.name, &one.task, document);
        }
    }
}

/// What the server has of the task's own output, where that is not what its script has printed.
fn difference(world: &World, one: &Open) -> Option<String> {
    let written = one.row.written?;
    let found = world.output_once(&one.task, |found| found == written);
    let name = one.row.name;
    (found != written).then(|| format!("{name}: the log has {found:?}, not {written:?}"))
}

/// What the task does not say of its row.
fn judge(world: &World, one: &Open, document: &Value) -> Vec<String> {
    let (row, task) = (&one.row, one.task.as_str());
    let (reason, message) = (
        document["status_reason"].as_str().unwrap_or_default(),
        document["status_message"].as_str().unwrap_or_default(),
    );
    let mut faults = Vec::new();
    if one.clock.is_too_late() {
        let late = one.clock.late().as_secs();
        faults.push(format!(
            "{}: told {late} s after the cluster showed it",
            row.name
        ));
    }
    if !row.is_called(reason) {
        let (category, words) = (row.category.as_str(), row.reason);
        faults.push(format!(
            "{}: reason {reason:?} is not {category:?} with {words:?}; {message}",
            row.name
        ));
    }
    let told = if row.status == "queued" {
        reason
    } else {
        message
    };
    for words in row.words {
        if !told.contains(words) {
            faults.push(format!("{}: {words:?} is missing in {told:?}", row.name));
        }
    }
    if document["status"] != row.status {
        faults.push(format!(
            "{}: status {} is not {:?}",
            row.name, document["status"], row.status
        ));
    }
    let deadline = Instant::now() + Duration::from_secs(10) * PATIENCE;
    for words in row.evidence {
        loop {
            let log = world.log(task).join("\n");
            if log.contains(words) {
                break;
            }
            if Instant::now() > deadline {
                faults.push(format!(
                    "{}: {words:?} is missing in the log {log}",
                    row.name
                ));
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    faults
}
