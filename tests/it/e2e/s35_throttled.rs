//! S35: an API server that answers 429 with `Retry-After`, then one that is 5 s late and drops its watches each 10 s; a
//! ClearML server that answers 429.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::gate::{Asked, Fate, Gate};
use super::kwok::Kwok;
use super::played::{Part, Player, statuses};
use super::s36_scale::{enqueue, resident};
use super::taken::{nowhere, until_taken};
use super::world::{PATIENCE, World, wait};
use crate::exec::proxy::{Fate as Lost, Proxy};
use crate::long;

/// Tasks that run and tasks that wait; `TRAINYARD_S35_TASKS` says how many of each, 1,000 in the long form.
fn number() -> usize {
    long::size("TRAINYARD_S35_TASKS", 40)
}

/// What is asked for while everything is refused, and while half is.
const RETRY_AFTER: u64 = 10;
const RETRY_SOON: u64 = 3;
/// What a busy controller has on its way before it hears an answer comes within so many seconds.
const ON_ITS_WAY: u64 = 5;

/// Everything is refused but the status of bindings, where people see it.
fn throttles(asked: &Asked, seconds: u64) -> Fate {
    if asked.path.ends_with("/status") {
        Fate::Pass
    } else {
        Fate::Throttle(seconds)
    }
}

/// Half of all that changes something is refused, and each list.
fn throttles_half() -> impl FnMut(&Asked) -> Fate + Send {
    let mut count = 0_u32;
    move |asked| {
        count += 1;
        let is_list =
            asked.method == http::Method::GET && !asked.is_watch && asked.path.ends_with('s');
        if is_list || (!asked.is_watch && count.is_multiple_of(2)) {
            throttles(asked, RETRY_SOON)
        } else {
            Fate::Pass
        }
    }
}

fn slow(asked: &Asked) -> Fate {
    if asked.is_watch {
        Fate::CutAfter(Duration::from_secs(10))
    } else {
        Fate::Late(Duration::from_secs(5))
    }
}

/// Waits until `Ready` says this.
fn until_ready_is(world: &World, status: &str, reason: &str) {
    let deadline = Instant::now() + Duration::from_secs(120) * PATIENCE;
    loop {
        let ready = world.condition("gpu", "Ready");
        if ready["status"] == status && ready["reason"] == reason {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not {status}, {reason}: {ready:#}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn s35_a_throttled_and_slow_api_server_is_obeyed_and_told_and_everything_ends_right() {
    let number = number();
    let mut world = World::new("s35");
    let kwok = Kwok::start(&world, 2);
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| {
        Part::Completes(20_000)
    });
    let gate = Gate::start(&world.place.kubeconfig, world.dir.path(), |_| Fate::Pass);
    let kubeconfig = gate.kubeconfig.display().to_string();
    world
        .environment
        .push(("KUBECONFIG".to_owned(), kubeconfig));
    let mut patch = kwok.binding_patch();
    patch["limits"]["maxConcurrent"] = json!(number);
    world.queue("gpu");
    world.start_controller();
    world.bind("gpu", &["gpu"], &patch);
    world.until_ready("gpu");
    let first = Instant::now();
    let tasks = enqueue(&world, number * 2);
    wait("half of them run", 240, || {
        (player.runs().len() >= number).then_some(())
    });
    let normal = resident(&mut world);
    // The controller makes no pods: what it asks for there is the dry run of the template, once for all tasks, and again
    // only where a slow machine has left it without an answer.
    let asked = gate.asked();
    let is_dry_run =
        |asked: &&Asked| asked.method == http::Method::POST && asked.path.ends_with("/pods");
    let dry_runs = asked.iter().filter(is_dry_run).count();
    assert!(
        (1..=2).contains(&dry_runs),
        "{dry_runs} of one template for {number} tasks"
    );

    // Whole: nothing goes, and little is asked.
    let begun = Instant::now();
    gate.set(|asked| throttles(asked, RETRY_AFTER));
    std::thread::sleep(Duration::from_secs(RETRY_AFTER * 3));
    let asked: Vec<Asked> = gate
        .asked()
        .into_iter()
        .filter(|asked| asked.at > begun)
        .collect();
    let refused: Vec<&Asked> = asked
        .iter()
        .filter(|asked| asked.fate != Fate::Pass)
        .collect();
    println!(
        "{} requests in {} s of Retry-After {RETRY_AFTER}",
        refused.len(),
        RETRY_AFTER * 3
    );
    // What was on its way at the first answer may still come; after that each wave waits.
    let too_early = refused.iter().filter(|asked| {
        let told = refused.iter().filter(|known| known.at < asked.at);
        told.clone().any(|known| {
            let since = asked.at.duration_since(known.at);
            since > Duration::from_secs(ON_ITS_WAY) && since < Duration::from_secs(RETRY_AFTER - 1)
        })
    });
    assert_eq!(
        too_early.count(),
        0,
        "requests that did not wait: {refused:#?}"
    );

    // Half: what passes tells of it.
    gate.set(throttles_half());
    until_ready_is(&world, "False", "Throttled");
    println!("Throttled after {:.0} s", begun.elapsed().as_secs_f64());

    // Slow, with watches that end.
    gate.set(slow);
    std::thread::sleep(Duration::from_secs(25));
    let under_load = resident(&mut world);

    gate.set(|_| Fate::Pass);
    let begun = Instant::now();
    until_ready_is(&world, "True", "Serving");
    println!(
        "Ready {:.0} s after it was over",
        begun.elapsed().as_secs_f64()
    );
    wait("all tasks end", 300, || {
        (statuses(&world, &tasks).get("completed") == Some(&tasks.len())).then_some(())
    });
    let after = resident(&mut world);
    let (runs, doubled) = (player.runs(), player.doubled());
    let ran: HashSet<&str> = runs.iter().map(|run| run.task.as_str()).collect();
    println!("resident: {normal:.0} MiB, {under_load:.0} MiB under load, {after:.0} MiB after it");
    println!(
        "{} tasks, no kills, in {} s: lost {}, doubled {}",
        tasks.len(),
        first.elapsed().as_secs(),
        tasks.len() - ran.len(),
        doubled.len()
    );
    assert_eq!(runs.len(), tasks.len(), "each ran once");
    assert!(doubled.is_empty(), "{doubled:?}");
    assert!(under_load.max(after) < normal * 2.0, "memory stays bounded");
    drop(kwok);
}

#[test]
fn s35_a_server_that_asks_for_patience_is_asked_no_sooner_and_served_on_afterwards() {
    const ASKED: u64 = 4;
    let mut world = World::new("s35-server");
    let busy = Arc::new(AtomicBool::new(false));
    let is_busy = Arc::clone(&busy);
    let proxy = Proxy::start(&world.url, move |_| {
        if is_busy.load(Ordering::Relaxed) {
            Lost::Patience(ASKED)
        } else {
            Lost::Pass
        }
    });
    world.queue("gpu");
    world.start_controller();
    world.bind(
        "gpu",
        &["gpu"],
        &json!({"server": {"apiUrl": proxy.url}, "template": nowhere(&world, &json!({}))}),
    );
    world.until_ready("gpu");
    busy.store(true, Ordering::Relaxed);
    let begun = SystemTime::now();
    wait("the condition says so", 30, || {
        let condition = world.condition("gpu", "ServerReachable");
        (condition["status"] == "False").then_some(condition)
    });
    // A while in which an idle controller would look each second.
    let rest = Duration::from_secs(ASKED * 4);
    std::thread::sleep(rest.saturating_sub(begun.elapsed().unwrap_or_default()));
    let asked = proxy
        .passed()
        .iter()
        .filter(|passed| passed.at > begun)
        .count();
    let waited = begun.elapsed().unwrap_or_default().as_secs();
    println!("{asked} requests in {waited} s of Retry-After {ASKED}");
    // One that polls and one that reports, each no sooner than it is asked to.
    let most = 1 + 2 * usize::try_from(waited.div_ceil(ASKED)).expect("a count");
    assert!((2..=most).contains(&asked), "{asked} requests of {most}");
    busy.store(false, Ordering::Relaxed);
    let task = world.run("afterwards", "print(1)\n", "gpu");
    until_taken(&world, 1, 60);
    assert!(!world.job_of(&task).is_null());
    world.until_ready("gpu");
}
