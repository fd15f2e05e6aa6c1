//! Steps at odd moments: somebody else was faster, a reading differs, an answer is "no". Everything ordinary is tested
//! on a real cluster; here the API server is a router in this process and the ClearML server is wiremock.

mod api_server;
mod back;
mod claim;
mod end;
mod last_events;

use std::sync::Arc;

use serde_json::{Value, json};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use self::api_server::Cluster;
use super::*;
use crate::claim::{Admission, Entry, JobsFact, OnInterruption, OnPendingTimeout, TaskFact};
use crate::controller::row::{JobRow, Row as _};
use crate::controller::tests::{TASK, context, id, identity, job, job_name, queue};
use crate::controller::{observe, verdict};
use crate::render::{self, JobName};
use crate::task::{Attempt, WorkerId};

fn ended(mut job: Value) -> Value {
    job["status"] = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    job
}

/// A task document, as the server would give it.
fn document(status: &str) -> Value {
    json!({
        "id": TASK, "status": status, "status_reason": "", "status_message": "", "enqueue_status": "created",
        "execution": {"queue": "a".repeat(32)},
        "runtime": {"_trainyard_attempt": format!("{}:{TASK}:1", identity().worker.0)},
    })
}

/// The Job of the first attempt, as it is made for an admitted task.
pub(super) fn rendered() -> render::Rendered {
    render::Rendered {
        name: JobName::of(&id(TASK), Attempt::FIRST),
        job: job("intent", true),
        notes: Vec::new(),
        image: "i".into(),
        image_refused: None,
        requests: crate::crd::Resources::default(),
        argv: None,
    }
}

/// Both sides, and the one task that steps are carried out on.
struct Stage {
    cluster: Cluster,
    server: MockServer,
    context: Context,
    client: api::Client,
    returned: Returned,
    /// Whether the look has read every queue.
    all_queues_read: bool,
}

impl Stage {
    async fn new() -> Self {
        let (cluster, server) = (Cluster::default(), MockServer::start().await);
        let credentials = api::Credentials::keys("key", "secret");
        let client = api::Client::new(api::Settings::new(server.uri(), credentials, "w")).unwrap();
        let context = context(cluster.client());
        let stage = Self {
            cluster,
            server,
            context,
            client,
            returned: Returned::default(),
            all_queues_read: true,
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
                task_unchanged_since: now - jiff::SignedDuration::from_mins(10),
                jobs_unchanged_since: now - jiff::SignedDuration::from_mins(10),
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

    /// A task on offer that was admitted.
    fn offered(&self) -> Case {
        let entry = Entry::Served { queue: queue('a') };
        let mut case = self.case(entry, "queued", &job("intent", true));
        case.observed.facts.jobs = JobsFact::Known(Vec::new());
        case.objects = Objects::default();
        case.rendered = Some(rendered().into());
        case
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
        self.carry_out_since(Instant::now(), case).await
    }

    /// In a pass whose first step began then.
    async fn carry_out_since(&self, begun: Instant, case: Case) -> Report {
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
            all_queues_read: self.all_queues_read,
            told: &told,
            returned: &self.returned,
            lines: Lines::default(),
            readers: Readers::default(),
            begun,
        };
        hands.carry_out(case).await.1
    }
}
