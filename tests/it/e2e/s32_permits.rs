//! S32: a binding's permits never leak. Calls to both servers fail at random, done or not done; pods die before their
//! fence, after it, and by hand; users abort. `TRAINYARD_S32_TASKS` says how many tasks pass; 5,000 are the long form.
//! Then some more end [one at a time](alone).

mod alone;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rand::Rng;
use serde_json::json;

use super::gate::{Asked, Fate, Gate};
use super::kwok::Kwok;
use super::played::{Part, Player, client, each_status};
use super::s36_scale::enqueue;
use super::world::{PATIENCE, World, wait};
use crate::exec::proxy::{Fate as Lost, Proxy};
use crate::long;

const PERMITS: usize = 5;

/// Those of the short form.
const TASKS: usize = 100;

fn number() -> usize {
    long::size("TRAINYARD_S32_TASKS", TASKS)
}

/// What becomes of a task's pod, by the last two digits of its id: a few of 256 in each way.
fn part(task: &str, attempt: u32) -> Part {
    match (&task[30..], attempt) {
        ("00" | "01", _) => Part::DiesBefore,
        ("02" | "03", 1) => Part::IsDeletedBefore,
        ("04" | "05" | "06" | "07", 1) => Part::IsDeleted,
        ("08" | "09" | "0a" | "0b", _) => Part::DiesSilently,
        (last, _) if last.starts_with('1') => Part::Fails,
        _ => Part::Completes(200),
    }
}

/// One call in so many that changes something fails; half of them are done all the same.
const ONE_IN: u32 = 60;

/// Fails calls to the API server that name a Job.
fn cluster_fails(asked: &Asked) -> Fate {
    let changes = asked.method != Method::GET && asked.path.contains("/jobs");
    if !changes || !rand::rng().random_ratio(1, ONE_IN) {
        return Fate::Pass;
    }
    if rand::rng().random_bool(0.5) {
        Fate::Fail
    } else {
        Fate::DoneButFail
    }
}

/// Fails calls to the ClearML server that a step makes.
fn server_fails(action: &str) -> Lost {
    let is_of_step = [
        "queues.remove_task",
        "tasks.enqueue",
        "tasks.dequeue",
        "tasks.failed",
    ];
    let is_of_step = is_of_step.contains(&action) || action.starts_with("queues.move");
    if !is_of_step || !rand::rng().random_ratio(1, ONE_IN) {
        return Lost::Pass;
    }
    match rand::rng().random_range(0..3) {
        0 => Lost::LoseRequest,
        1 => Lost::LoseAnswer,
        _ => Lost::Unavailable,
    }
}

/// Jobs as the API server has them, asked often.
pub struct Jobs {
    api: Api<Job>,
    runtime: tokio::runtime::Runtime,
}

impl Jobs {
    pub fn of(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let client = runtime.block_on(client(&world.place.kubeconfig));
        let api = Api::namespaced(client, &world.namespace);
        Self { api, runtime }
    }

    /// Those that have not ended: what holds a permit.
    pub fn holders(&self) -> HashSet<String> {
        let all = ListParams::default();
        let listed = self.runtime.block_on(self.api.list(&all));
        let jobs = listed.expect("Jobs are listed").items;
        let is_over = |job: &Job| {
            let status = job.status.as_ref();
            let mut conditions = status
                .and_then(|status| status.conditions.as_ref())
                .into_iter()
                .flatten();
            conditions.any(|known| {
                (known.type_ == "Complete" || known.type_ == "Failed") && known.status == "True"
            })
        };
        let held = jobs.iter().filter(|job| !is_over(job));
        held.map(ResourceExt::name_any).collect()
    }
}

/// The limiter's own count.
fn counted(world: &World) -> usize {
    let (status, text) = world.probe("/metrics");
    if status != 200 {
        return usize::MAX;
    }
    let label = format!("binding=\"{}/gpu\"", world.namespace);
    text.lines()
        .filter(|line| line.starts_with("trainyard_tasks{") && line.contains(&label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

/// Until cluster and limiter say the same; a permit that leaked would differ for ever.
fn until_they_agree(world: &World, jobs: &Jobs) {
    let begun = Instant::now();
    loop {
        let before = jobs.holders();
        let count = counted(world);
        let after = jobs.holders();
        assert!(after.len() <= PERMITS, "{} hold a permit", after.len());
        if before == after && count == after.len() {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60) * PATIENCE,
            "the limiter counts {count}, the cluster has {after:?}"
        );
        // Often, because it lasts for a moment only while tasks come and go.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[derive(Default)]
struct Passed {
    tasks: Vec<String>,
    aborted: HashSet<String>,
    /// How often the counts were compared, and the most tasks that ended between two comparisons.
    compared: usize,
    between: usize,
}

/// How long it took until three of four tasks had ended, and until all had: the last ones wait for quiet times.
#[derive(Debug)]
struct Took {
    most: Duration,
    all: Duration,
}

/// Lets so many tasks pass and aborts some of them; each end that is seen is followed by a comparison of the counts.
fn pass(world: &World, jobs: &Jobs, count: usize, passed: &mut Passed) -> Took {
    let begun = Instant::now();
    let tasks = enqueue(world, count);
    let each = Duration::from_secs(2) * u32::try_from(count).expect("a count");
    let limit = (Duration::from_secs(240) + each) * PATIENCE;
    for task in tasks.iter().step_by(20) {
        world.call("tasks.stop", &json!({"task": task}));
        passed.aborted.insert(task.clone());
    }
    // Only what has not ended is asked for, so that a look costs the same however many have passed.
    let mut open = tasks.clone();
    let (mut ended, mut most) = (0, None);
    while ended < count {
        let statuses = each_status(world, &open);
        open.retain(|task| !matches!(statuses[task].as_str(), "completed" | "failed" | "stopped"));
        let now = count - open.len();
        if now > ended {
            // Those that are stopped in their queue end all at once.
            passed.between = passed.between.max(now - ended);
            passed.compared += 1;
            ended = now;
            until_they_agree(world, jobs);
        }
        if ended * 4 >= count * 3 {
            most.get_or_insert_with(|| begun.elapsed());
        }
        if begun.elapsed() > limit {
            world.tell(open.first().expect("one is open"));
            panic!("after {:?}: {} are open", begun.elapsed(), open.len());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    passed.tasks.extend(tasks);
    let all = begun.elapsed();
    let most = most.unwrap_or(all);
    Took { most, all }
}

#[test]
fn s32_permits_never_leak_whatever_fails() {
    let half = number() / 2;
    let mut world = World::new("s32");
    let kwok = Kwok::start(&world, 1);
    // Tasks that begin while this is set run until they are ended one by one.
    let held = Arc::new(AtomicBool::new(false));
    let hold = Arc::clone(&held);
    let player = Player::start(&world, &world.place.kubeconfig, move |task, attempt| {
        if hold.load(Ordering::SeqCst) {
            Part::Held
        } else {
            part(task, attempt)
        }
    });
    let gate = Gate::start(&world.place.kubeconfig, world.dir.path(), cluster_fails);
    let proxy = Proxy::start(&world.url, server_fails);
    let kubeconfig = gate.kubeconfig.display().to_string();
    world
        .environment
        .push(("KUBECONFIG".to_owned(), kubeconfig));
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(PERMITS);
    patch["lifecycle"] = json!({"ttlAfterSuccess": "5s", "ttlAfterFailure": "5s"});
    patch["server"] = json!({"apiUrl": proxy.url});
    world.queue("gpu");
    world.start_controller();
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");

    let begun = Instant::now();
    let jobs = Jobs::of(&world);
    let mut passed = Passed::default();
    let first = pass(&world, &jobs, half, &mut passed);
    world.kill_controller();
    world.start_controller();
    let second = pass(&world, &jobs, half, &mut passed);
    let injected = gate
        .asked()
        .iter()
        .filter(|asked| asked.fate != Fate::Pass)
        .count();

    // Nothing holds a permit, and all of them are there.
    wait("no permit is held", 120, || {
        jobs.holders().is_empty().then_some(())
    });
    until_they_agree(&world, &jobs);
    let doubled = player.doubled();
    held.store(true, Ordering::SeqCst);
    let alone = alone::pass(&world, &jobs, &player);
    println!("{alone} runs ended one by one, and each time both counted the same");
    gate.set(|_| Fate::Pass);
    drop(player);
    let stays = enqueue(&world, PERMITS + 3);
    wait("every permit is used", 120, || {
        (jobs.holders().len() == PERMITS).then_some(())
    });
    until_they_agree(&world, &jobs);
    assert_eq!(world.entries("gpu").len(), stays.len() - PERMITS);

    println!(
        "first half {:.0} s, three of four in {:.0} s; second half {:.0} s, three of four in {:.0} s; counts compared {} times, after {} ends at most",
        first.all.as_secs_f64(),
        first.most.as_secs_f64(),
        second.all.as_secs_f64(),
        second.most.as_secs_f64(),
        passed.compared,
        passed.between
    );
    let is_right = |task: &String, status: &str| match part(task, 1) {
        _ if passed.aborted.contains(task) && status == "stopped" => true,
        Part::Fails | Part::DiesSilently | Part::DiesBefore => status == "failed",
        Part::Completes(_) | Part::Held | Part::IsDeletedBefore | Part::IsDeleted => {
            status == "completed"
        }
    };
    let lost: Vec<String> = passed
        .tasks
        .iter()
        .map(|task| (task, world.status(task)))
        .filter(|(task, status)| !is_right(task, status))
        .map(|(task, status)| format!("{task}, {:?}, is {status}", part(task, 1)))
        .collect();
    println!(
        "{} tasks, {injected} failed calls to the API server, 1 kill in {} s: permits {PERMITS}, lost {}, doubled {}",
        passed.tasks.len(),
        begun.elapsed().as_secs(),
        lost.len(),
        doubled.len()
    );
    assert!(injected > 0, "no call to the API server was let fail");
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(doubled.is_empty(), "{doubled:?}");
    // A few tasks that wait for quiet times are as long as many that do not, and so is a busy machine: the pace of the
    // short form says nothing.
    assert!(
        number() <= TASKS || second.most < first.most * 2 + Duration::from_secs(20),
        "it does not become slower: {first:?}, {second:?}"
    );
    drop(kwok);
}
