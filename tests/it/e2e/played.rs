//! Pods on simulated nodes that the test plays: the real fence, then an end of the test's choice, at the server and in
//! the pod's status. No process runs, so that thousands of tasks pass on a small machine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trainyard::api;
use trainyard::exec::fence;
use trainyard::exec::settings::Settings;
use trainyard::pod::exit;

use super::second;
use super::world::World;

/// What becomes of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Runs for so many milliseconds and reports a good end.
    Completes(u64),
    /// Runs until [`Player::release`] and reports a good end.
    Held,
    /// Runs and reports a failure.
    Fails,
    /// Ends before it has asked for its entry.
    DiesBefore,
    /// Starts, and ends without a word.
    DiesSilently,
    /// Starts, and is deleted by hand.
    IsDeleted,
    /// Is deleted by hand before it has asked for its entry.
    IsDeletedBefore,
}

/// A pod that passed the fence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    pub task: String,
    pub attempt: u32,
    pub worker: String,
}

type Script = dyn Fn(&str, u32) -> Part + Send + Sync;

struct Stage {
    pods: Api<Pod>,
    url: String,
    keys: [String; 2],
    script: Box<Script>,
    released: CancellationToken,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    runs: Vec<Run>,
    gone: HashSet<String>,
    /// The pod that runs each task.
    pods: HashMap<String, Pod>,
}

/// Plays every pod of a namespace until the value goes.
pub struct Player {
    stage: Arc<Stage>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
    thread: Option<JoinHandle<()>>,
}

impl Player {
    /// `script` says what becomes of a task's attempt.
    pub fn start(
        world: &World,
        kubeconfig: &str,
        script: impl Fn(&str, u32) -> Part + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let client = runtime.block_on(client(kubeconfig));
        let stage = Arc::new(Stage {
            pods: Api::namespaced(client, &world.namespace),
            url: world.url.clone(),
            keys: [world.key.clone(), world.secret.clone()],
            script: Box::new(script),
            released: CancellationToken::new(),
            seen: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (played, until) = (Arc::clone(&stage), stop.clone());
        let handle = runtime.handle().clone();
        let thread = thread::spawn(move || {
            runtime.block_on(follow(played, until));
            runtime.shutdown_background();
        });
        Self {
            stage,
            stop,
            runtime: handle,
            thread: Some(thread),
        }
    }

    pub fn runs(&self) -> Vec<Run> {
        self.stage.seen.lock().expect("player lock").runs.clone()
    }

    /// Lets every [`Part::Held`] end.
    pub fn release(&self) {
        self.stage.released.cancel();
    }

    /// The pod that runs the task, which does no more by itself.
    fn stopped(&self, task: &str) -> Pod {
        let mut seen = self.stage.seen.lock().expect("player lock");
        let pod = seen.pods.remove(task).expect("the task runs");
        seen.gone.insert(pod.uid().unwrap_or_default());
        pod
    }

    /// The task's pod dies as a whole, without a word.
    pub fn die(&self, task: &str) {
        let pod = self.stopped(task);
        self.runtime.block_on(end(&self.stage, &pod, 137));
    }

    /// The task's code comes to a good end, long before its time.
    pub fn finish(&self, task: &str) {
        let pod = self.stopped(task);
        let settings = settings(&self.stage, &pod);
        self.runtime.block_on(async {
            let client = client_of(&self.stage, &settings);
            let _ = client.completed(&settings.task, "played", "").await;
            end(&self.stage, &pod, 0).await;
        });
    }

    /// Tasks that ran more often than their ends allow: only an end without a word brings another run.
    pub fn doubled(&self) -> Vec<String> {
        let mut ran: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        for run in self.runs() {
            let part = (self.stage.script)(&run.task, run.attempt);
            ran.entry(run.task).or_default().push(part);
        }
        let is_doubled = |parts: &Vec<Part>| {
            let before_last = parts.len().saturating_sub(1);
            parts[..before_last]
                .iter()
                .any(|part| !matches!(part, Part::IsDeleted))
        };
        ran.iter()
            .filter(|(_, parts)| is_doubled(parts))
            .map(|(task, parts)| format!("{task} ran as {parts:?}"))
            .collect()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A client of a cluster, for tests that look often.
pub async fn client(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("config");
    Client::try_from(config).expect("client")
}

async fn follow(stage: Arc<Stage>, stop: CancellationToken) {
    let labels = "app.kubernetes.io/managed-by=trainyard,app.kubernetes.io/component=task";
    let events = watcher(
        stage.pods.clone(),
        watcher::Config::default().labels(labels),
    )
    .default_backoff();
    let mut events = std::pin::pin!(events.take_until(stop.cancelled_owned()));
    let mut played = HashSet::new();
    while let Some(event) = events.next().await {
        let pod = match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => pod,
            Ok(Event::Delete(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                stage.seen.lock().expect("player lock").gone.insert(uid);
                continue;
            }
            _ => continue,
        };
        let uid = pod.uid().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        // Nobody else plays the kubelet of this node.
        let is_ours = node == Some(second::NODE);
        if pod.metadata.deletion_timestamp.is_some() {
            stage.seen.lock().expect("player lock").gone.insert(uid);
            if is_ours {
                // It ends first, and goes once the Job's controller has counted it.
                if !matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
                    end(&stage, &pod, 137).await;
                }
                delete(&stage, &pod.name_any()).await;
            }
        } else if is_ours && phase.as_deref() == Some("Pending") {
            begin(&stage, &pod).await;
        } else if phase.as_deref() == Some("Running") && played.insert(uid) {
            tokio::spawn(play(Arc::clone(&stage), pod));
        }
    }
}

/// What the controller has told the pod.
fn settings(stage: &Stage, pod: &Pod) -> Settings {
    let containers = pod.spec.as_ref().map(|spec| &spec.containers);
    let variables = containers.into_iter().flatten().flat_map(|container| {
        let all = container.env.iter().flatten();
        all.filter_map(|known| Some((known.name.clone(), known.value.clone()?)))
    });
    let mut variables: BTreeMap<String, String> = variables.collect();
    let [key, secret] = &stage.keys;
    variables.insert("CLEARML_API_ACCESS_KEY".into(), key.clone());
    variables.insert("CLEARML_API_SECRET_KEY".into(), secret.clone());
    Settings::from_variables(variables).expect("the pod is told all that it needs")
}

/// How the pod speaks to the server.
fn client_of(stage: &Stage, settings: &Settings) -> api::Client {
    let [key, secret] = &stage.keys;
    let credentials = api::Credentials::keys(key.clone(), secret.clone());
    let settings = api::Settings::new(&stage.url, credentials, &settings.worker.0);
    api::Client::new(settings).expect("client")
}

async fn play(stage: Arc<Stage>, pod: Pod) {
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let settings = settings(&stage, &pod);
    let (task, attempt) = (settings.task.to_string(), settings.attempt.0);
    let part = (stage.script)(&task, attempt);
    match part {
        Part::DiesBefore => return end(&stage, &pod, 1).await,
        Part::IsDeletedBefore => return delete(&stage, &name).await,
        _ => {}
    }
    let client = client_of(&stage, &settings);
    if fence::pass(&client, &settings).await.is_err() {
        return end(&stage, &pod, exit::LOST_RACE).await;
    }
    let run = Run {
        task,
        attempt,
        worker: settings.worker.0.clone(),
    };
    {
        let mut seen = stage.seen.lock().expect("player lock");
        seen.pods.insert(run.task.clone(), pod.clone());
        seen.runs.push(run);
    }
    let id = &settings.task;
    match part {
        Part::Completes(_) | Part::Held => {
            match part {
                Part::Completes(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                _ => stage.released.cancelled().await,
            }
            // A pod that was taken away reports nothing.
            if !stage.seen.lock().expect("player lock").gone.contains(&uid) {
                let _ = client.completed(id, "played", "").await;
                end(&stage, &pod, 0).await;
            }
        }
        Part::Fails => {
            let _ = client.failed(id, "played", "exit code 1").await;
            end(&stage, &pod, 1).await;
        }
        Part::IsDeleted => delete(&stage, &name).await,
        Part::DiesBefore | Part::IsDeletedBefore | Part::DiesSilently => {
            end(&stage, &pod, 137).await;
        }
    }
}

async fn delete(stage: &Stage, pod: &str) {
    let now = DeleteParams::default().grace_period(0);
    let _ = stage.pods.delete(pod, &now).await;
}

/// The pod's status as the kubelet writes it when containers run.
async fn begin(stage: &Stage, pod: &Pod) {
    let now = jiff::Timestamp::now().to_string();
    let state = json!({"running": {"startedAt": now}});
    write(
        stage,
        pod,
        &json!({"phase": "Running", "startTime": now, "podIP": "10.255.0.2",
        "containerStatuses": containers(pod, &state, true)}),
    )
    .await;
}

/// The pod's status as the kubelet leaves it.
async fn end(stage: &Stage, pod: &Pod, code: i32) {
    let now = jiff::Timestamp::now().to_string();
    let began = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.clone());
    let began = began.map_or_else(|| now.clone(), |time| time.0.to_string());
    let reason = if code == 0 { "Completed" } else { "Error" };
    let state = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": now}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let status = json!({"phase": phase, "containerStatuses": containers(pod, &state, false)});
    write(stage, pod, &status).await;
}

fn containers(pod: &Pod, state: &Value, runs: bool) -> Vec<Value> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.clone());
    let status = |container: k8s_openapi::api::core::v1::Container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": runs,
            "started": runs, "restartCount": 0, "state": state,
        })
    };
    containers.into_iter().flatten().map(status).collect()
}

async fn write(stage: &Stage, pod: &Pod, status: &Value) {
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
    let (name, params) = (pod.name_any(), PatchParams::default());
    let mut last = String::new();
    for _ in 0..30 {
        match stage
            .pods
            .patch_status(&name, &params, &Patch::Strategic(&patch))
            .await
        {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    eprintln!("the status of pod {name} could not be written: {last}");
}

/// How many of the tasks there are in each status, in one question for five hundred.
pub fn statuses(world: &World, tasks: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for (_, status) in each_status(world, tasks) {
        *counts.entry(status).or_default() += 1;
    }
    counts
}

/// Each task with its status; without those that are gone.
pub fn each_status(world: &World, tasks: &[String]) -> HashMap<String, String> {
    let mut all = HashMap::new();
    for ids in tasks.chunks(500) {
        let answer = world.call(
            "tasks.get_all",
            &json!({"id": ids, "only_fields": ["id", "status"], "page_size": 500}),
        );
        for task in answer["tasks"].as_array().expect("tasks") {
            let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
            all.insert(text("id"), text("status"));
        }
    }
    all
}
