//! Steps at odd moments: somebody else was faster, a reading differs, an answer is "no". Everything ordinary is tested
//! on a real cluster; here the API server is a router in this process and the ClearML server is wiremock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::claim::{Admission, Entry, JobsFact, OnInterruption, OnPendingTimeout};
use crate::controller::mirror::{Mirror, Wakers};
use crate::controller::row::PodRow;
use crate::controller::{Own, verdict};
use crate::render;
use crate::task::WorkerId;
use crate::telemetry::metrics::Metrics;

const TASK: &str = "0123456789abcdef0123456789abcdef";
const UID: &str = "6d8d0b0e-0000-0000-0000-000000000000";

/// Jobs by name; a patch with an old resourceVersion is a conflict, as is a wrong UID.
#[derive(Clone, Default)]
struct Cluster {
    jobs: Arc<Mutex<HashMap<String, Value>>>,
    deleted: Arc<Mutex<Vec<Value>>>,
}

impl Cluster {
    fn client(&self) -> kube::Client {
        let one = "/apis/batch/v1/namespaces/{ns}/jobs/{name}";
        let router = Router::new()
            .route(one, get(read).patch(patch).delete(delete))
            .with_state(self.clone());
        kube::Client::new(router, "ns")
    }

    fn put(&self, job: &Value) {
        let name = job["metadata"]["name"].as_str().unwrap().to_owned();
        self.jobs.lock().unwrap().insert(name, job.clone());
    }

    fn job(&self) -> Value {
        self.jobs.lock().unwrap()[&job_name()].clone()
    }
}

async fn read(State(cluster): State<Cluster>, Path((_, name)): Path<(String, String)>) -> Response {
    match cluster.jobs.lock().unwrap().get(&name) {
        Some(job) => axum::Json(job.clone()).into_response(),
        None => refusal(404),
    }
}

async fn patch(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
    body: String,
) -> Response {
    let patch: Value = serde_json::from_str(&body).unwrap();
    let mut jobs = cluster.jobs.lock().unwrap();
    let Some(job) = jobs.get_mut(&name) else {
        return refusal(404);
    };
    for field in ["resourceVersion", "uid"] {
        let wanted = &patch["metadata"][field];
        if !wanted.is_null() && *wanted != job["metadata"][field] {
            return refusal(409);
        }
    }
    merge(job, &patch);
    axum::Json(job.clone()).into_response()
}

async fn delete(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
    body: String,
) -> Response {
    cluster
        .deleted
        .lock()
        .unwrap()
        .push(serde_json::from_str(&body).unwrap());
    match cluster.jobs.lock().unwrap().remove(&name) {
        Some(job) => axum::Json(job).into_response(),
        None => refusal(404),
    }
}

fn refusal(code: u16) -> Response {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    let body = json!({"kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(json!({})), value);
                }
            }
        }
        (into, changes) => *into = changes.clone(),
    }
}

fn job_name() -> String {
    format!("ty-{TASK}-1")
}

fn job(label: &str, suspended: bool) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": job_name(), "namespace": "ns", "uid": "job-1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"trainyard.dev/task": TASK, "trainyard.dev/attempt": "1", "trainyard.dev/state": label},
            "ownerReferences": [{"apiVersion": "trainyard.dev/v1alpha1", "kind": "QueueBinding", "name": "gpu", "uid": UID}],
        },
        "spec": {"suspend": suspended, "template": {}},
    })
}

fn ended(mut job: Value) -> Value {
    job["status"] = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    job
}

fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

fn queue(digit: char) -> QueueId {
    id(&digit.to_string().repeat(32))
}

fn identity() -> Identity {
    Identity {
        uid: UID.into(),
        worker: WorkerId("trainyard:ns.gpu:6d8d0b0e".into()),
    }
}

/// A task document, as the server would give it.
fn document(status: &str) -> Value {
    json!({
        "id": TASK, "status": status, "status_reason": "", "status_message": "", "enqueue_status": "created",
        "execution": {"queue": "a".repeat(32)},
        "runtime": {"_trainyard_attempt": format!("{}:{TASK}:1", identity().worker.0)},
    })
}

/// Both sides, and the one task that steps are carried out on.
struct Stage {
    cluster: Cluster,
    server: MockServer,
    context: Context,
    client: api::Client,
    returned: Returned,
}

impl Stage {
    async fn new() -> Self {
        let (cluster, server) = (Cluster::default(), MockServer::start().await);
        let credentials = api::Credentials::keys("key", "secret");
        let client = api::Client::new(api::Settings::new(server.uri(), credentials, "w")).unwrap();
        let (kube, wakers) = (cluster.client(), Wakers::default());
        let context = Context {
            jobs: Mirror::new(wakers.clone()),
            pods: Mirror::new(wakers.clone()),
            wakers,
            nodes: crate::controller::nodes::Nodes::new(kube.clone(), CancellationToken::new()),
            images: crate::controller::images::Images::with_defaults(kube.clone()),
            servers: crate::controller::together::Servers::default(),
            shares: crate::controller::lease::Shares::new("me"),
            metrics: Metrics::new().unwrap(),
            throttle: crate::controller::throttle::Throttle::default(),
            recorder: Recorder::new(
                kube.clone(),
                Reporter {
                    controller: "t".into(),
                    instance: None,
                },
            ),
            kube,
            settings: Own {
                server: None,
                default_image: None,
                images: render::Settings {
                    image: "i".into(),
                    image_pull_policy: None,
                    image_pull_secrets: Vec::new(),
                },
                worker: "trainyard".into(),
                identity: "me".into(),
            },
        };
        let stage = Self {
            cluster,
            server,
            context,
            client,
            returned: Returned::default(),
        };
        stage
            .answers("auth.login", &json!({"token": "a.b.c"}))
            .await;
        stage
            .answers("events.add_batch", &json!({"added": 1}))
            .await;
        stage
    }

    async fn answers(&self, action: &str, data: &Value) {
        let body = json!({"meta": {"result_code": 200}, "data": data});
        let answer = ResponseTemplate::new(200).set_body_json(body);
        Mock::given(path(format!("/{action}")))
            .respond_with(answer)
            .mount(&self.server)
            .await;
    }

    async fn refuses(&self, action: &str, subcode: u32) {
        let body = json!({"meta": {"result_code": 400, "result_subcode": subcode, "result_msg": "no"}, "data": {}});
        let answer = ResponseTemplate::new(400).set_body_json(body);
        Mock::given(path(format!("/{action}")))
            .respond_with(answer)
            .mount(&self.server)
            .await;
    }

    /// Calls that reached the server, without login and log lines.
    async fn calls(&self) -> Vec<String> {
        let requests = self.server.received_requests().await.unwrap();
        let actions = requests
            .iter()
            .map(|request| request.url.path()[1..].to_owned());
        actions
            .filter(|action| !matches!(action.as_str(), "auth.login" | "events.add_batch"))
            .collect()
    }

    fn case(&self, entry: Entry, status: &str, job: &Value) -> Case {
        let object = Arc::new(JobRow::of(serde_json::from_value(job.clone()).unwrap()));
        let facts = self.facts(status);
        let fact = observe::job_fact(&identity(), &object, &[], &Lore::default(), &verdict::cause)
            .unwrap();
        let now = Timestamp::now();
        Case {
            task: id(TASK),
            observed: Observed {
                facts: rules::Facts {
                    entry,
                    task: TaskFact::Found(observe::task_state(
                        &identity(),
                        &id(TASK),
                        &facts,
                        |_| true,
                    )),
                    jobs: JobsFact::Known(vec![fact]),
                    stamps: rules::Stamps::default(),
                },
                read_at: now,
                unchanged_since: now - jiff::SignedDuration::from_mins(10),
                this_pass: ThisPass::Nothing,
            },
            policy: Policy {
                pending_timeout: jiff::SignedDuration::from_hours(1_000_000),
                on_pending_timeout: OnPendingTimeout::Requeue,
                on_interruption: OnInterruption::Requeue,
                max_interruptions: 3,
                max_failures: 0,
                grace: jiff::SignedDuration::from_secs(30),
                restore_orphans: false,
                retiring: false,
                admission: Admission::Yes,
            },
            objects: Objects {
                jobs: vec![object],
                pods: Vec::new(),
            },
            rendered: None,
            turn: None,
        }
    }

    fn facts(&self, status: &str) -> api::Facts {
        let _ = self;
        let mut document = document(status);
        if status == "queued" {
            document["runtime"] = json!({});
        }
        let task: crate::task::Task = serde_json::from_value(document).unwrap();
        api::Facts {
            id: task.id.clone(),
            status: task.status,
            status_reason: String::new(),
            status_message: String::new(),
            status_changed: None,
            mark: task
                .runtime
                .get(crate::task::MARK)
                .and_then(Value::as_str)
                .map(|mark| WorkerId(mark.into())),
            last_worker: None,
            enqueue_status: task.enqueue_status,
            queue: task.execution.queue.parse().ok(),
        }
    }

    async fn carry_out(&self, case: Case) -> Report {
        let (identity, lore, told) = (identity(), Lore::default(), Told::default());
        let spec: QueueBindingSpec =
            serde_json::from_value(json!({"queues": [{"name": "gpu"}]})).unwrap();
        let resolved = Resolved::fixed(
            vec![render::Queue {
                id: queue('a'),
                name: "gpu".into(),
            }],
            queue('b'),
        );
        let hands = Hands {
            context: &self.context,
            client: &self.client,
            identity: &identity,
            spec: &spec,
            namespace: "ns",
            binding: "gpu",
            resolved: &resolved,
            lore: &lore,
            all_queues_read: true,
            told: &told,
            returned: &self.returned,
            lines: Lines::default(),
        };
        hands.carry_out(case).await.1
    }
}

#[tokio::test]
async fn a_task_that_goes_back_stands_behind_those_that_were_taken_before_it() {
    for (other, moved) in [
        ("2026-01-01T00:00:01Z", false),
        ("2025-12-31T23:59:59Z", true),
    ] {
        let stage = Stage::new().await;
        for action in [
            "queues.remove_task",
            "tasks.enqueue",
            "queues.move_task_to_front",
        ] {
            stage
                .answers(action, &json!({"removed": 1, "queued": 1, "position": 0}))
                .await;
        }
        stage
            .answers("queues.move_task_backward", &json!({"position": 1}))
            .await;
        let known = (Turn::new(other.parse().unwrap(), 0), id(&"9".repeat(32)));
        stage
            .returned
            .0
            .lock()
            .await
            .entry(queue('a'))
            .or_default()
            .extend([known]);
        let held = job("held", false);
        stage.cluster.put(&held);
        let mut case = stage.case(Entry::Pending, "queued", &held);
        case.policy.retiring = true;
        let report = stage.carry_out(case).await;
        assert!(report.fault.is_none(), "{report:?}");
        let calls = stage.calls().await;
        assert!(
            calls.contains(&"queues.move_task_to_front".to_owned()),
            "{calls:?}"
        );
        let behind = calls.iter().any(|call| call == "queues.move_task_backward");
        assert_eq!(behind, moved, "{calls:?}");
        assert_eq!(stage.returned.0.lock().await[&queue('a')].len(), 2);
    }
}

#[tokio::test]
async fn a_release_survives_that_the_job_was_touched_meanwhile() {
    let stage = Stage::new().await;
    let seen = job("intent", true);
    let mut touched = seen.clone();
    touched["metadata"]["resourceVersion"] = json!("8");
    stage.cluster.put(&touched);
    let report = stage
        .carry_out(stage.case(Entry::Pending, "queued", &seen))
        .await;
    assert!(report.released, "{report:?}");
    assert_eq!(stage.cluster.job()["spec"]["suspend"], false);
    assert_eq!(
        stage.cluster.job()["metadata"]["labels"]["trainyard.dev/state"],
        "held"
    );
}

#[tokio::test]
async fn a_job_that_was_made_anew_is_not_released_in_its_place() {
    let stage = Stage::new().await;
    let seen = job("intent", true);
    let mut successor = seen.clone();
    successor["metadata"]["uid"] = json!("job-2");
    stage.cluster.put(&successor);
    let report = stage
        .carry_out(stage.case(Entry::Pending, "queued", &seen))
        .await;
    assert!(!report.released);
    assert_eq!(stage.cluster.job()["spec"]["suspend"], true);
}

#[tokio::test]
async fn a_take_that_somebody_else_won_changes_nothing() {
    let stage = Stage::new().await;
    stage
        .answers("queues.remove_task", &json!({"removed": 0}))
        .await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let report = stage
        .carry_out(stage.case(Entry::Served { queue: queue('a') }, "queued", &intent))
        .await;
    assert!(report.fault.is_none());
    assert_eq!(stage.calls().await, ["queues.remove_task"]);
    assert_eq!(stage.cluster.job(), intent);
}

#[tokio::test]
async fn what_was_taken_is_parked_and_released_in_one_go() {
    let stage = Stage::new().await;
    let mut queued = document("queued");
    queued["runtime"] = json!({});
    stage
        .answers("queues.remove_task", &json!({"removed": 1}))
        .await;
    stage
        .answers("tasks.get_all", &json!({"tasks": [queued]}))
        .await;
    stage.answers("tasks.enqueue", &json!({"queued": 1})).await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let report = stage
        .carry_out(stage.case(Entry::Served { queue: queue('a') }, "queued", &intent))
        .await;
    assert_eq!(report.done, ["take", "park", "release"]);
    assert_eq!(
        stage.calls().await,
        ["queues.remove_task", "tasks.get_all", "tasks.enqueue"]
    );
}

#[tokio::test]
async fn a_task_that_was_aborted_between_take_and_park_is_not_parked() {
    let stage = Stage::new().await;
    stage
        .answers("queues.remove_task", &json!({"removed": 1}))
        .await;
    stage
        .answers("tasks.get_all", &json!({"tasks": [document("stopped")]}))
        .await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let report = stage
        .carry_out(stage.case(Entry::Served { queue: queue('a') }, "queued", &intent))
        .await;
    assert_eq!(report.done, ["take", "withdraw"]);
    let preconditions = stage.cluster.deleted.lock().unwrap()[0]["preconditions"].clone();
    assert_eq!(
        preconditions,
        json!({"uid": "job-1", "resourceVersion": "7"})
    );
    assert!(!stage.calls().await.contains(&"tasks.enqueue".to_owned()));
}

#[tokio::test]
async fn a_withdrawal_is_dropped_when_the_live_reading_says_otherwise() {
    let stage = Stage::new().await;
    let mut queued = document("queued");
    queued["runtime"] = json!({});
    stage
        .answers("tasks.get_all", &json!({"tasks": [queued]}))
        .await;
    let held = job("held", false);
    stage.cluster.put(&held);
    // The look said stopped; meanwhile its user has enqueued it again.
    let mut case = stage.case(Entry::Pending, "stopped", &held);
    if let TaskFact::Found(task) = &mut case.observed.facts.task {
        task.mark = rules::By::Nobody;
    }
    stage.carry_out(case).await;
    assert!(stage.cluster.deleted.lock().unwrap().is_empty());
    assert_eq!(stage.calls().await, ["tasks.get_all"]);
}

#[tokio::test]
async fn a_refusal_to_settle_means_that_somebody_else_has_ended_it() {
    let stage = Stage::new().await;
    stage
        .answers(
            "tasks.get_all",
            &json!({"tasks": [document("in_progress")]}),
        )
        .await;
    stage.refuses("tasks.failed", 110).await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
    case.policy.on_interruption = OnInterruption::Fail;
    let report = stage.carry_out(case).await;
    assert!(report.fault.is_none(), "{report:?}");
    assert_eq!(
        stage.cluster.job()["metadata"]["labels"]["trainyard.dev/state"],
        "settled"
    );
    assert_eq!(
        stage.cluster.job()["spec"]["ttlSecondsAfterFinished"],
        86400
    );
    // Its pod is gone: no exit code can be told.
    assert_eq!(
        stage.cluster.job()["metadata"]["annotations"],
        json!({"trainyard.dev/ended": "pod-deleted"})
    );
}

#[tokio::test]
async fn a_settled_job_carries_category_and_exit_code_of_its_end() {
    let stage = Stage::new().await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    let mut case = stage.case(Entry::Nowhere, "failed", &dead);
    let pod = json!({
        "metadata": {"name": "pod", "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(), "uid": "job-1"},
        ]},
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"phase": "Failed", "containerStatuses": [{
            "name": "task", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 3, "reason": "Error"}},
        }]},
    });
    let pod = PodRow::of(serde_json::from_value(pod).unwrap());
    case.objects.pods = vec![Arc::new(pod)];
    let report = stage.carry_out(case).await;
    assert!(report.fault.is_none(), "{report:?}");
    assert!(stage.calls().await.is_empty());
    assert_eq!(
        stage.cluster.job()["metadata"]["annotations"],
        json!({"trainyard.dev/ended": "exit-code", "trainyard.dev/exit-code": "3", "trainyard.dev/node": "node-1"})
    );
}

#[tokio::test]
async fn a_requeue_ends_where_the_entry_was_not_ours_to_take() {
    let stage = Stage::new().await;
    stage.refuses("queues.remove_task", 703).await;
    let dead = ended(job("held", false));
    stage.cluster.put(&dead);
    stage
        .carry_out(stage.case(Entry::Pending, "queued", &dead))
        .await;
    assert_eq!(stage.calls().await, ["queues.remove_task"]);
    assert_eq!(
        stage.cluster.job()["metadata"]["labels"]["trainyard.dev/state"],
        "held"
    );
}

#[tokio::test]
async fn a_run_is_never_put_back_while_its_job_is_alive() {
    let stage = Stage::new().await;
    stage
        .answers(
            "tasks.get_all",
            &json!({"tasks": [document("in_progress")]}),
        )
        .await;
    // The mirror says ended; the API server says that it runs.
    stage.cluster.put(&job("held", false));
    stage
        .carry_out(stage.case(Entry::Nowhere, "in_progress", &ended(job("held", false))))
        .await;
    assert!(!stage.calls().await.contains(&"tasks.dequeue".to_owned()));
}

#[tokio::test]
async fn a_step_that_comes_too_late_sends_nothing() {
    let stage = Stage::new().await;
    let intent = job("intent", true);
    stage.cluster.put(&intent);
    let mut case = stage.case(Entry::Served { queue: queue('a') }, "queued", &intent);
    case.observed.read_at -= rules::STEP_DEADLINE + jiff::SignedDuration::from_secs(1);
    stage.carry_out(case).await;
    assert!(stage.calls().await.is_empty());
}

/// Between look and write a plain agent may have run the task, and left the mark of our dead attempt on it.
#[tokio::test]
async fn a_run_that_was_begun_since_the_look_is_neither_ended_nor_undone() {
    for (interruption, call) in [
        (OnInterruption::Requeue, "tasks.dequeue"),
        (OnInterruption::Fail, "tasks.failed"),
        (OnInterruption::Stop, "tasks.stopped"),
    ] {
        for (written, ends) in [(false, true), (true, false)] {
            let stage = Stage::new().await;
            let mut live = document("in_progress");
            live["status_changed"] = json!(if written { "later" } else { "at the look" });
            stage
                .answers("tasks.get_all", &json!({"tasks": [live]}))
                .await;
            for call in ["tasks.dequeue", "tasks.failed", "tasks.stopped"] {
                stage.answers(call, &json!({"updated": 1})).await;
            }
            let dead = ended(job("held", false));
            stage.cluster.put(&dead);
            let mut case = stage.case(Entry::Nowhere, "in_progress", &dead);
            case.observed.facts.stamps.status_changed = Some("at the look".to_owned());
            case.policy.on_interruption = interruption;
            stage.carry_out(case).await;
            let calls = stage.calls().await;
            assert_eq!(calls.contains(&call.to_owned()), ends, "{calls:?}");
        }
    }
}
