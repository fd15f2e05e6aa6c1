//! The Jobs and Events of an API server, as a router in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::controller::tests::{job_name, merge, refusal};

/// Jobs by name; a merge patch with an old resourceVersion is a conflict, as is a wrong UID.
#[derive(Clone, Default)]
pub(super) struct Cluster {
    jobs: Arc<Mutex<HashMap<String, Value>>>,
    /// Verbs of requests about one Job that is there already.
    pub verbs: Arc<Mutex<Vec<&'static str>>>,
    pub deleted: Arc<Mutex<Vec<Value>>>,
    /// Answers to those who read Events, one after the other; the last one stays. `None`: nobody may read them.
    pub events: Arc<Mutex<Option<Vec<Vec<Value>>>>>,
    /// What was asked for by those who read Events.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    pub fn client(&self) -> kube::Client {
        let all = "/apis/batch/v1/namespaces/{ns}/jobs";
        let one = "/apis/batch/v1/namespaces/{ns}/jobs/{name}";
        let router = Router::new()
            .route(all, post(create))
            .route(one, get(read).patch(patch).delete(delete))
            .route("/api/v1/namespaces/{ns}/events", get(events))
            .with_state(self.clone());
        kube::Client::new(router, "ns")
    }

    pub fn put(&self, job: &Value) {
        let name = job["metadata"]["name"].as_str().unwrap().to_owned();
        self.jobs.lock().unwrap().insert(name, job.clone());
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.lock().unwrap().is_empty()
    }

    pub fn job(&self) -> Value {
        self.jobs.lock().unwrap()[&job_name()].clone()
    }
}

async fn read(State(cluster): State<Cluster>, Path((_, name)): Path<(String, String)>) -> Response {
    cluster.verbs.lock().unwrap().push("get");
    match cluster.jobs.lock().unwrap().get(&name) {
        Some(job) => axum::Json(job.clone()).into_response(),
        None => refusal(404),
    }
}

async fn events(State(cluster): State<Cluster>, RawQuery(query): RawQuery) -> Response {
    let mut asked = cluster.asked.lock().unwrap();
    asked.push(query.unwrap_or_default());
    let answers = cluster.events.lock().unwrap();
    let Some(answers) = &*answers else {
        return refusal(403);
    };
    let items = answers.get(asked.len() - 1).or(answers.last());
    let list =
        json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": items.unwrap()});
    axum::Json(list).into_response()
}

async fn create(State(cluster): State<Cluster>, body: String) -> Response {
    let job: Value = serde_json::from_str(&body).unwrap();
    cluster.put(&job);
    axum::Json(job).into_response()
}

async fn patch(
    State(cluster): State<Cluster>,
    Path((_, name)): Path<(String, String)>,
    body: String,
) -> Response {
    cluster.verbs.lock().unwrap().push("patch");
    let patch: Value = serde_json::from_str(&body).unwrap();
    let mut jobs = cluster.jobs.lock().unwrap();
    let Some(job) = jobs.get_mut(&name) else {
        return refusal(404);
    };
    if let Some(operations) = patch.as_array() {
        return match operated(job, operations) {
            Some(changed) => {
                job.clone_from(&changed);
                axum::Json(changed).into_response()
            }
            None => refusal(422),
        };
    }
    for field in ["resourceVersion", "uid"] {
        let wanted = &patch["metadata"][field];
        if !wanted.is_null() && *wanted != job["metadata"][field] {
            return refusal(409);
        }
    }
    merge(job, &patch);
    axum::Json(job.clone()).into_response()
}

/// What a JSON patch makes of a Job; nothing where one of its tests fails. What is not there is null.
fn operated(job: &Value, operations: &[Value]) -> Option<Value> {
    let mut job = job.clone();
    for operation in operations {
        let (path, value) = (operation["path"].as_str().unwrap(), &operation["value"]);
        match operation["op"].as_str().unwrap() {
            "test" if job.pointer(path).unwrap_or(&Value::Null) != value => return None,
            "test" => {}
            "add" => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                let key = key.replace("~1", "/").replace("~0", "~");
                job.pointer_mut(parent).unwrap()[key] = value.clone();
            }
            other => panic!("{other} is not played"),
        }
    }
    Some(job)
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
