//! Size and speed of the controller, on simulated nodes. `TRAINYARD_BENCH_QUEUED` says how many tasks it takes in one go
//! beside a bare loop, `TRAINYARD_BENCH_JOBS` how many live Jobs it holds; 10,000 of these are the long form. (Beside the
//! incumbent: `bench::incumbent`.)

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, Config, ResourceExt, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::{Value, json};
use trainyard::pod::label;

use super::{Watch, at_least, figure, percentile};
use crate::e2e::played::{Part, Player};
use crate::e2e::s36_scale::{
    enqueue, live, processor, requests_per_task, resident, until_taken, world,
};
use crate::e2e::world::{World, wait};
use crate::{long, process};

fn queued() -> usize {
    long::size("TRAINYARD_BENCH_QUEUED", 2000)
}

fn jobs() -> usize {
    long::size("TRAINYARD_BENCH_JOBS", 1000)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a count"))
}

/// How fast so many Jobs were created, when the last of their pods ran, in seconds after the first write, and how long
/// each took from its creation until its pod ran, on average.
struct Pace {
    per_second: f64,
    all_run: f64,
    to_run: f64,
}

/// Seconds from a Job's creation until its pod runs, by the cluster's own (whole) seconds, on average.
fn to_run(world: &World) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let (jobs, pods) = runtime.block_on(async {
        let client = client(world).await;
        let jobs: Api<Job> = Api::namespaced(client.clone(), &world.namespace);
        let pods: Api<Pod> = Api::namespaced(client, &world.namespace);
        let all = ListParams::default();
        let jobs = jobs.list(&all).await.expect("Jobs are listed").items;
        (jobs, pods.list(&all).await.expect("pods are listed").items)
    });
    let created: HashMap<String, Timestamp> = jobs
        .into_iter()
        .filter_map(|job| Some((job.name_any(), job.metadata.creation_timestamp?.0)))
        .collect();
    let took = |pod: &Pod| -> Option<f64> {
        let state = pod.status.as_ref()?.container_statuses.as_ref()?;
        let running = state.first()?.state.as_ref()?.running.as_ref()?;
        let job = pod.labels().get("batch.kubernetes.io/job-name")?;
        let began = running.started_at.as_ref()?.0;
        Some(began.duration_since(*created.get(job)?).as_secs_f64())
    };
    let all: Vec<f64> = pods.iter().filter_map(took).collect();
    assert_eq!(all.len(), pods.len(), "each pod says since when it runs");
    all.iter().sum::<f64>() / count(all.len())
}

/// A Job as the controller makes it, without what only Kubernetes or the controller itself looks at.
fn sample(world: &World) -> Value {
    let task = enqueue(world, 1).remove(0);
    let mut job = wait("a Job to copy", 60, || {
        let job = world.job_of(&task);
        (!job.is_null()).then_some(job)
    });
    world.call("tasks.stop", &json!({"task": task}));
    wait("the copied Job is gone", 60, || {
        (live(world) == (0, 0)).then_some(())
    });
    let of_kubernetes = |labels: &mut Value| {
        if let Some(labels) = labels.as_object_mut() {
            labels.retain(|name, _| {
                !name.contains("job-name")
                    && !name.contains("controller-uid")
                    && name != label::TASK
            });
        }
    };
    job["spec"]["suspend"] = json!(true);
    job["spec"]["selector"] = Value::Null;
    of_kubernetes(&mut job["spec"]["template"]["metadata"]["labels"]);
    of_kubernetes(&mut job["metadata"]["labels"]);
    job["metadata"]["labels"]["bare"] = json!("true");
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"labels": job["metadata"]["labels"], "annotations": job["metadata"]["annotations"]},
        "spec": job["spec"],
    })
}

/// Seconds from `begun` until so many pods run.
fn until_run(running: &Watch<Instant>, number: usize, begun: Instant) -> f64 {
    let all = wait("all run", 3600, || {
        let all = running.all();
        (all.len() >= number).then_some(all)
    });
    let last = all.into_iter().max().expect("pods run");
    last.duration_since(begun).as_secs_f64()
}

async fn client(world: &World) -> Client {
    let kubeconfig = Kubeconfig::read_from(&world.place.kubeconfig).expect("kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("config");
    Client::try_from(config).expect("client")
}

/// Creates a Job suspended, then lets it run; what is answered is not looked at.
async fn create_and_patch(client: Client, jobs: String, name: String, mut job: Value) {
    job["metadata"]["name"] = json!(name);
    let patch = json!({"spec": {"suspend": false}, "metadata": {"labels": {"state": "held"}}});
    let writes = [
        (Request::post(&jobs), "application/json", job),
        (
            Request::patch(format!("{jobs}/{name}")),
            "application/merge-patch+json",
            patch,
        ),
    ];
    for (request, content, body) in writes {
        let request = request
            .header("content-type", content)
            .body(body.to_string().into_bytes())
            .expect("a request is made");
        client.request_text(request).await.expect("written");
    }
}

/// A loop that does the same writes of the same Jobs: created suspended, then patched; 32 at once, on the same nodes.
fn bare_loop(world: &World, number: usize) -> Pace {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let sample = sample(world);
    let client = runtime.block_on(client(world));
    let jobs = format!("/apis/batch/v1/namespaces/{}/jobs", world.namespace);
    let running = Watch::running(world, Instant::now);
    let begun = Instant::now();
    runtime.block_on(
        futures::stream::iter(0..number).for_each_concurrent(32, |i| {
            create_and_patch(
                client.clone(),
                jobs.clone(),
                format!("bare-{i}"),
                sample.clone(),
            )
        }),
    );
    let per_second = count(number) / begun.elapsed().as_secs_f64();
    let all_run = until_run(&running, number, begun);
    let to_run = to_run(world);
    world.kubectl(&["delete", "jobs", "-l", "bare=true", "--wait=false"]);
    wait("the bare Jobs are gone", 1800, || {
        (live(world) == (0, 0)).then_some(())
    });
    // The API server looks through all of a namespace's for each question: these are not to slow down the other's run.
    let events: Api<Event> = Api::namespaced(client, &world.namespace);
    runtime
        .block_on(events.delete_collection(&DeleteParams::default(), &ListParams::default()))
        .expect("Events are deleted");
    Pace {
        per_second,
        all_run,
        to_run,
    }
}

/// The same by the controller: queued first, so that the pace is its own and not the enqueuer's. Its time begins before
/// it is told that it may.
fn controlled(world: &World, number: usize) -> Pace {
    world.edit("gpu", &json!({"suspend": true}));
    std::thread::sleep(Duration::from_secs(3));
    let before = created(world);
    enqueue(world, number);
    let running = Watch::running(world, Instant::now);
    let begun = Instant::now();
    world.edit("gpu", &json!({"suspend": false}));
    wait("all Jobs are created", 1800, || {
        (created(world) - before >= count(number)).then_some(())
    });
    let per_second = count(number) / begun.elapsed().as_secs_f64();
    let all_run = until_run(&running, number, begun);
    assert_eq!(
        live(world),
        (number, number),
        "each has its Job and its pod"
    );
    let to_run = to_run(world);
    Pace {
        per_second,
        all_run,
        to_run,
    }
}

/// Jobs that the controller has created so far, as it says itself.
fn created(world: &World) -> f64 {
    let of = [r#"resource="jobs""#, r#"verb="create""#, r#"outcome="ok""#];
    world.metric("trainyard_kubernetes_requests_total", &of)
}

/// Requests to the server for each task that name this one alone. Looks are a request for entries, and one each for
/// facts and bodies at most.
fn named_at_launch(world: &World, number: usize) -> f64 {
    let of = |action: &str| {
        let label = format!("action=\"{action}\"");
        world.metric("trainyard_api_requests_total", &[&label])
    };
    let reads = (of("tasks.get_all") - 2.0 * of("queues.get_all")).max(0.0);
    (of("queues.remove_task") + of("tasks.enqueue") + reads) / count(number)
}

#[test]
fn controller_pace_beside_a_bare_loop() {
    let number = queued();
    let (world, _kwok) = world(World::new("bench-pace"), number / 1500 + 2);
    let bare = bare_loop(&world, number);
    let ours = controlled(&world, number);
    let (writes, reads) = requests_per_task(&world, number);
    let named = named_at_launch(&world, number);
    for (name, pace) in [("controller", &ours), ("bare loop", &bare)] {
        println!(
            "{name}: {:.1} Jobs created per second, all {number} pods run after {:.1} s, each {:.1} s after its Job",
            pace.per_second, pace.all_run, pace.to_run
        );
    }
    at_least(
        &format!(
            "Jobs created, {number} queued, in parts of what a bare loop of the same writes creates"
        ),
        "%",
        80.0,
        &[ours.per_second / bare.per_second * 100.0],
    );
    figure(
        &format!(
            "from a Job's creation until its pod runs, mean of {number}, in parts of the bare loop's"
        ),
        "%",
        100.0,
        &[ours.to_run / bare.to_run * 100.0],
    );
    figure(
        &format!("until the pods of all {number} Jobs run, in parts of the bare loop's time"),
        "%",
        100.0,
        &[ours.all_run / bare.all_run * 100.0],
    );
    figure(
        "writes to the API server per task until it runs",
        "",
        3.0,
        &[writes],
    );
    figure(
        "reads from the API server per task until it runs",
        "",
        0.0,
        &[reads],
    );
    figure(
        "requests to the server that name one task, at its launch",
        "",
        3.0,
        &[named],
    );
}

/// Resident memory of the controller once it has nothing to do, in MiB, second by second.
fn memory(world: &mut World) -> Vec<f64> {
    std::thread::sleep(Duration::from_secs(20));
    let second = |_| {
        std::thread::sleep(Duration::from_secs(1));
        resident(world)
    };
    (0..5).map(second).collect()
}

#[test]
fn controller_with_many_live_jobs() {
    let number = jobs();
    let (mut world, _kwok) = world(World::new("bench-scale"), number / 1500 + 2);
    let running = Watch::running(&world, Instant::now);
    let begun = Instant::now();
    enqueue(&world, number);
    until_run(&running, number, begun);
    let goal = if number > 1000 { 64.0 } else { 32.0 };
    figure(
        &format!("controller resident memory, {number} live Jobs"),
        "MiB",
        goal,
        &memory(&mut world),
    );
    println!(
        "at its peak: {:.1} MiB",
        process::peak(world.controller().id())
    );
    let restarts: Vec<f64> = (0..3)
        .map(|_| {
            world.kill_controller();
            world.start_controller();
            until_taken(&world).as_secs_f64()
        })
        .collect();
    figure(
        &format!("restart with {number} live Jobs to first Job"),
        "s",
        5.0,
        &restarts,
    );
    figure(
        &format!("controller resident memory, restarted with {number} live Jobs"),
        "MiB",
        goal,
        &memory(&mut world),
    );
}

/// Seconds from enqueuing to the first sight of the Job, of so many tasks that come after such pauses.
fn to_job(
    world: &World,
    watch: &Watch<Instant>,
    tasks: usize,
    pause: impl Fn(u64) -> u64,
) -> Vec<f64> {
    let queue = world.queue_id("gpu");
    let enqueued: Vec<(String, Instant)> = (0..)
        .take(tasks)
        .map(|i: u64| {
            let task = world.create(&format!("bench {i}"), "print('never')\n", &json!({}));
            std::thread::sleep(Duration::from_millis(pause(i)));
            let begun = Instant::now();
            world.call("tasks.enqueue", &json!({"task": task, "queue": queue}));
            (task, begun)
        })
        .collect();
    let seen = |(task, begun): &(String, Instant)| {
        let at = wait("the Job is seen", 60, || watch.first_job(task));
        at.saturating_duration_since(*begun).as_secs_f64()
    };
    enqueued.iter().map(seen).collect()
}

#[test]
fn controller_enqueue_to_job_created() {
    let samples = jobs().min(100);
    let (world, _kwok) = world(World::new("bench-launch"), 1);
    let watch = Watch::start(&world, "jobs", Instant::now);
    std::thread::sleep(Duration::from_secs(10));
    // Idle: each comes when nothing is on its way any more, at another moment of the second.
    let idle = to_job(&world, &watch, samples, |i| 3000 + i * 137 % 1000);
    figure(
        "idle enqueue to Job created, p50",
        "s",
        1.2,
        &[percentile(&idle, 50)],
    );
    figure(
        "idle enqueue to Job created, p99",
        "s",
        2.5,
        &[percentile(&idle, 99)],
    );
    // Busy: others were taken just before.
    let busy = to_job(&world, &watch, samples, |i| 60 + i * 37 % 100);
    figure(
        "enqueue to Job created, queue busy, p50",
        "s",
        0.3,
        &[percentile(&busy[busy.len() / 10..], 50)],
    );
}

#[test]
fn controller_abort_to_sigterm() {
    let samples = jobs().min(100);
    let (world, _kwok) = world(World::new("bench-abort"), 1);
    // Their code has started, and would go on for long.
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| {
        Part::Completes(3_600_000)
    });
    let tasks = enqueue(&world, samples);
    wait("all run", 300, || {
        (player.runs().len() == samples).then_some(())
    });
    let mut values = Vec::new();
    for (i, task) in (0_u64..).zip(&tasks) {
        // Random moments of the look at what runs.
        std::thread::sleep(Duration::from_millis(500 + i * 137 % 1000));
        let begun = Instant::now();
        world.call("tasks.stop", &json!({"task": task}));
        let is_told = || {
            let pod = world.pod_of(task);
            pod.is_null() || !pod["metadata"]["deletionTimestamp"].is_null()
        };
        while !is_told() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{task} runs on");
            std::thread::sleep(Duration::from_millis(20));
        }
        values.push(begun.elapsed().as_secs_f64());
    }
    for (percent, name) in [(50, "p50"), (99, "p99")] {
        figure(
            &format!("abort to the pod's SIGTERM, {name}"),
            "s",
            2.5,
            &[percentile(&values, percent)],
        );
    }
}

#[test]
fn controller_idle_with_ten_bindings_on_thirty_queues() {
    let mut world = World::new("bench-idle");
    world.start_controller();
    for binding in 0..10 {
        let queues: Vec<String> = (0..3).map(|queue| format!("q{binding}-{queue}")).collect();
        for queue in &queues {
            world.queue(queue);
        }
        let names: Vec<&str> = queues.iter().map(String::as_str).collect();
        world.bind(&format!("b{binding}"), &names, &json!({}));
    }
    for binding in 0..10 {
        world.until_ready(&format!("b{binding}"));
    }
    std::thread::sleep(Duration::from_secs(10));
    let mut shares = Vec::new();
    let mut requests = Vec::new();
    for _ in 0..3 {
        let (used, asked) = (
            processor(&mut world),
            world.metric("trainyard_api_requests_total", &[]),
        );
        let begun = Instant::now();
        std::thread::sleep(Duration::from_secs(20));
        let seconds = begun.elapsed().as_secs_f64();
        shares.push((processor(&mut world) - used) / seconds * 100.0);
        requests.push((world.metric("trainyard_api_requests_total", &[]) - asked) / seconds);
    }
    figure(
        "controller idle, 10 bindings on 30 queues: share of a core",
        "%",
        1.0,
        &shares,
    );
    figure(
        "controller idle, 10 bindings on 30 queues: requests to the server",
        "/s",
        1.0,
        &requests,
    );
}
