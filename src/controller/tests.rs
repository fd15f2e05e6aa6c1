//! What tests of several parts share: who is who, what loops use, and objects as the API server gives them.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kube::runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::mirror::{Mirror, Wakers};
use super::observe::Identity;
use super::throttle::Throttle;
use super::{Context, Own, images, lease, nodes, together};
use crate::render;
use crate::task::{QueueId, WorkerId};
use crate::telemetry::metrics::Metrics;

pub(super) const TASK: &str = "0123456789abcdef0123456789abcdef";
/// UID of the binding.
const UID: &str = "6d8d0b0e-0000-0000-0000-000000000000";

pub(super) fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

pub(super) fn queue(digit: char) -> QueueId {
    id(&digit.to_string().repeat(32))
}

pub(super) fn identity() -> Identity {
    Identity {
        uid: UID.into(),
        worker: WorkerId("trainyard:ns.gpu:6d8d0b0e".into()),
    }
}

/// What every loop uses, with this API server.
pub(super) fn context(kube: kube::Client) -> Context {
    let wakers = Wakers::default();
    let reporter = Reporter {
        controller: "t".into(),
        instance: None,
    };
    Context {
        jobs: Mirror::new(wakers.clone()),
        pods: Mirror::new(wakers.clone()),
        wakers,
        nodes: nodes::Nodes::new(kube.clone(), CancellationToken::new()),
        images: images::Images::with_defaults(kube.clone()),
        servers: together::Servers::default(),
        shares: lease::Shares::new("me"),
        metrics: Metrics::new().unwrap(),
        throttle: Throttle::default(),
        recorder: Recorder::new(kube.clone(), reporter),
        kube,
        writes: Semaphore::new(1),
        askers: Arc::new(Semaphore::new(1)),
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
    }
}

pub(super) fn job_name() -> String {
    format!("ty-{TASK}-1")
}

/// The Job of the first attempt of [`TASK`].
pub(super) fn job(state: &str, suspended: bool) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": job_name(), "namespace": "ns", "uid": "job-1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"trainyard.dev/task": TASK, "trainyard.dev/attempt": "1", "trainyard.dev/state": state},
            "ownerReferences": [{"apiVersion": "trainyard.dev/v1alpha1", "kind": "QueueBinding", "name": "gpu", "uid": UID}],
        },
        "spec": {"suspend": suspended, "template": {}},
    })
}

/// A pod whose container runs, with the times of each stage on the way there.
pub(super) fn begun_pod() -> Value {
    json!({
        "metadata": {},
        "status": {
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:03Z"}],
            "initContainerStatuses": [{"name": "prepare", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:00:07Z"}}}],
            "containerStatuses": [{"name": "task", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:15Z"}}}],
        },
    })
}

/// A merge patch, as the API server applies it.
pub(super) fn merge(into: &mut Value, changes: &Value) {
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

/// What the API server answers where there is no such object (404), where it was changed meanwhile (409), or where a test
/// of a patch fails (422).
pub(super) fn refusal(code: u16) -> Response {
    let reason = match code {
        404 => "NotFound",
        422 => "Invalid",
        _ => "Conflict",
    };
    let body = json!({"kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason});
    (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
}
