//! What is asked of the API server before a task is taken, and how often.

use std::sync::Mutex;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::post;

use super::*;
use crate::controller::tests::{context, identity};

/// The queries of dry runs that came.
type Asked = Arc<Mutex<Vec<String>>>;

/// A loop's side of the dry run, before an API server that takes every pod.
struct Stage {
    context: Context,
    asked: Asked,
    checked: Option<Checked>,
}

async fn accept(
    State(asked): State<Asked>,
    RawQuery(query): RawQuery,
    body: String,
) -> axum::Json<Value> {
    asked.lock().unwrap().push(query.unwrap_or_default());
    axum::Json(serde_json::from_str(&body).unwrap())
}

impl Stage {
    fn new() -> Self {
        let asked = Asked::default();
        let router = Router::new()
            .route("/api/v1/namespaces/{ns}/pods", post(accept))
            .with_state(asked.clone());
        Self {
            context: context(kube::Client::new(router, "ns")),
            asked,
            checked: None,
        }
    }

    /// As many passes as there are tasks to take; how many dry runs they ask for.
    async fn twenty(&mut self, generation: i64, spec: &Value) -> usize {
        let object = json!({
            "apiVersion": "trainyard.dev/v1alpha1", "kind": "QueueBinding",
            "metadata": {"name": "gpu", "namespace": "ns", "uid": identity().uid, "generation": generation},
            "spec": spec,
        });
        let binding: QueueBinding = serde_json::from_value(object).unwrap();
        let server = render::Server {
            api_url: "http://server:8008".into(),
            web_url: None,
            files_url: None,
            credentials_secret: "keys".into(),
            ca_bundle: None,
            proxy: None,
        };
        let before = self.asked.lock().unwrap().len();
        for _ in 0..20 {
            let (context, checked) = (&self.context, &mut self.checked);
            let templates = validate(context, &binding, &identity(), Some(&server), checked).await;
            let verdict = templates.verdict(&binding.spec.queues);
            assert!(verdict.is_ok(), "{verdict:?}");
        }
        self.asked.lock().unwrap().len() - before
    }

    /// The time comes at which templates are judged again.
    fn expire(&mut self) {
        if let Some(checked) = &mut self.checked {
            checked.next = Instant::now();
        }
    }
}

#[tokio::test]
async fn an_accepted_template_is_dry_run_once_for_its_hash_whatever_else_changes() {
    let mut stage = Stage::new();
    let spec = |image: &str, most: u32| {
        json!({
            "queues": [{"name": "one"}, {"name": "two"}], "limits": {"maxConcurrent": most},
            "template": {"spec": {"containers": [{"name": "task", "image": image}]}},
        })
    };
    assert_eq!(
        stage.twenty(1, &spec("i:1", 5)).await,
        1,
        "for both queues and every pass"
    );
    stage.expire();
    assert_eq!(stage.twenty(1, &spec("i:1", 5)).await, 0, "after its time");
    assert_eq!(stage.twenty(2, &spec("i:1", 6)).await, 0, "other limits");
    assert_eq!(stage.twenty(3, &spec("i:2", 6)).await, 1, "another image");
    let mut patched = spec("i:2", 6);
    patched["queues"][1]["templatePatch"] = json!({"spec": {"priorityClassName": "high"}});
    assert_eq!(stage.twenty(4, &patched).await, 1, "one queue's patch");
    let asked = stage.asked.lock().unwrap();
    let is_strict =
        |query: &String| query.contains("dryRun=All") && query.contains("fieldValidation=Strict");
    assert!(asked.iter().all(is_strict), "{asked:?}");
}

#[test]
fn an_amount_that_is_none_is_found_with_its_path() {
    let pod = json!({"containers": [
        {"name": "a", "resources": {"limits": {"cpu": 2, "memory": "64Mi"}}},
        {"name": "b", "resources": {"requests": {"nvidia.com/gpu": "one"}}},
    ]});
    assert_eq!(
        unreadable_amount(&pod, "spec").unwrap(),
        r#"spec.containers[1].resources.requests["nvidia.com/gpu"] is "one""#
    );
    assert_eq!(unreadable_amount(&pod["containers"][0], "x"), None);
}
