//! The controller's pace beside a bare loop of the same writes: both create as many Jobs of one kind on the same nodes.

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

use crate::bench::Watch;
use crate::e2e::s36_scale::{enqueue, live, processor, watches};
use crate::e2e::world::{World, wait};

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("a count"))
}

/// How fast so many Jobs were created, until the last of them was; when the last of their pods ran, in seconds after the
/// first write; how long each took from its creation until its pod ran, on average; and the seconds of processor time
/// that the controller has used until then.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub per_second: f64,
    pub all_run: f64,
    pub to_run: f64,
    pub used: f64,
}

impl Pace {
    /// Halfway between two runs.
    pub fn between(self, other: Self) -> Self {
        Self {
            per_second: f64::midpoint(self.per_second, other.per_second),
            all_run: f64::midpoint(self.all_run, other.all_run),
            to_run: f64::midpoint(self.to_run, other.to_run),
            used: f64::midpoint(self.used, other.used),
        }
    }

    pub fn tell(self, name: &str, number: usize) {
        let created = count(number) / self.per_second;
        println!(
            "{name}: {:.1} Jobs created per second, all {number} pods run after {:.1} s, {:.1} s of them after the last \
             Job, each {:.1} s after its own; the controller used {:.1} s of a core",
            self.per_second,
            self.all_run,
            self.all_run - created,
            self.to_run,
            self.used
        );
    }
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
pub(super) fn until_run(running: &Watch<Instant>, number: usize, begun: Instant) -> f64 {
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

/// Creates a Job suspended, then lets it run; what is answered is not looked at. Says when it was created.
async fn create_and_patch(client: Client, jobs: String, name: String, mut job: Value) -> Instant {
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
    let mut created = None;
    for (request, content, body) in writes {
        let request = request
            .header("content-type", content)
            .body(body.to_string().into_bytes())
            .expect("a request is made");
        client.request_text(request).await.expect("written");
        created = created.or_else(|| Some(Instant::now()));
    }
    created.expect("two writes")
}

/// Takes the cluster back to where it was: no Job, no pod whatever its phase, no Event. What is still being cleaned up
/// would be work beside the next run's, and the API server looks through all Events of a namespace for each question.
pub(super) fn clear(world: &World) {
    wait("Jobs and pods are gone", 1800, || {
        (world.count("jobs", "") == 0 && world.count("pods", "") == 0).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let events: Api<Event> = Api::namespaced(client(world).await, &world.namespace);
        events
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .expect("Events are deleted");
    });
}

/// A loop that does the same writes of the same Jobs: created suspended, then patched; 32 at once, on the same nodes.
pub(super) fn bare_loop(world: &mut World, number: usize) -> Pace {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    let sample = sample(world);
    let client = runtime.block_on(client(world));
    let jobs = format!("/apis/batch/v1/namespaces/{}/jobs", world.namespace);
    let running = Watch::running(world, Instant::now);
    let used = processor(world);
    let begun = Instant::now();
    let writes = futures::stream::iter(0..number)
        .map(|i| {
            create_and_patch(
                client.clone(),
                jobs.clone(),
                format!("bare-{i}"),
                sample.clone(),
            )
        })
        .buffer_unordered(32)
        .fold(begun, |last, created| async move { last.max(created) });
    let created = runtime.block_on(writes);
    let per_second = count(number) / created.duration_since(begun).as_secs_f64();
    let all_run = until_run(&running, number, begun);
    let used = processor(world) - used;
    drop(running);
    let to_run = to_run(world);
    world.kubectl(&["delete", "jobs", "-l", "bare=true", "--wait=false"]);
    clear(world);
    Pace {
        per_second,
        all_run,
        to_run,
        used,
    }
}

/// The same by the controller: queued first, so that the pace is its own and not the enqueuer's. Its time begins before
/// it is told that it may. Answers its tasks too.
pub(super) fn controlled(world: &mut World, number: usize) -> (Pace, Vec<String>) {
    world.edit("gpu", &json!({"suspend": true}));
    std::thread::sleep(Duration::from_secs(3));
    let before = created(world);
    let tasks = enqueue(world, number);
    let running = Watch::running(world, Instant::now);
    let used = processor(world);
    let begun = Instant::now();
    world.edit("gpu", &json!({"suspend": false}));
    until_created(world, before + count(number));
    let per_second = count(number) / begun.elapsed().as_secs_f64();
    let all_run = until_run(&running, number, begun);
    let used = processor(world) - used;
    drop(running);
    assert_eq!(
        live(world),
        (number, number),
        "each has its Job and its pod"
    );
    let to_run = to_run(world);
    let pace = Pace {
        per_second,
        all_run,
        to_run,
        used,
    };
    (pace, tasks)
}

/// Waits until the controller has created so many Jobs, to a tenth of a second: the usual waits look at ever longer
/// distances, while the bare loop knows the moment.
fn until_created(world: &World, number: f64) {
    let deadline = Instant::now() + Duration::from_secs(1800);
    while created(world) < number {
        assert!(Instant::now() < deadline, "all Jobs are created");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Watches of Jobs and pods that were begun so far.
pub(super) fn watched(world: &World) -> f64 {
    watches(world, "jobs") + watches(world, "pods")
}

/// Jobs that the controller has created so far, as it says itself.
fn created(world: &World) -> f64 {
    let of = [r#"resource="jobs""#, r#"verb="create""#, r#"outcome="ok""#];
    world.metric("trainyard_kubernetes_requests_total", &of)
}

/// Requests to the server for each task that name this one alone. Looks are a request for entries, and one each for
/// facts and bodies at most.
pub(super) fn named_at_launch(world: &World, number: usize) -> f64 {
    let of = |action: &str| {
        let label = format!("action=\"{action}\"");
        world.metric("trainyard_api_requests_total", &[&label])
    };
    let reads = (of("tasks.get_all") - 2.0 * of("queues.get_all")).max(0.0);
    (of("queues.remove_task") + of("tasks.enqueue") + reads) / count(number)
}
