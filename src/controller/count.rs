//! Counts requests to the Kubernetes API server, and tells what it warns of, as a layer under the client.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower::{Layer, Service};

use super::warn::Warnings;
use crate::telemetry::metrics::Metrics;

/// Lays the count over a client's service.
#[derive(Debug, Clone)]
pub(super) struct Counting(pub Metrics, pub Warnings);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            metrics: self.0.clone(),
            warnings: self.1.clone(),
        }
    }
}

/// A service whose requests are counted.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    inner: S,
    metrics: Metrics,
    warnings: Warnings,
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (path, query) = (request.uri().path(), request.uri().query());
        let (verb, resource) = (
            verb(request.method(), path, query.unwrap_or_default()),
            resource(path),
        );
        let (metrics, warnings) = (self.metrics.clone(), self.warnings.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                warnings.note(&resource, response.headers());
            }
            let outcome = match &answer {
                Err(_) => "no-answer",
                Ok(response) => match response.status().as_u16() {
                    200..400 => "ok",
                    404 => "not-found",
                    409 => "conflict",
                    429 => "throttled",
                    400..500 => "refused",
                    _ => "failed",
                },
            };
            metrics.kubernetes_request(verb, &resource, outcome);
            answer
        })
    }
}

/// The verb as Kubernetes names it.
fn verb(method: &Method, path: &str, query: &str) -> &'static str {
    let watches = query
        .split('&')
        .any(|part| part.starts_with("watch=") && part != "watch=false");
    match *method {
        Method::GET if watches => "watch",
        Method::GET if names_one(path) => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// The kind of object, in the plural, with its part: `jobs`, `pods/log`, `queuebindings/status`.
fn resource(path: &str) -> String {
    let parts = below_namespace(path);
    match parts.as_slice() {
        [] => "other".to_owned(),
        [kind, _, part, ..] => format!("{kind}/{part}"),
        [kind, ..] => (*kind).to_owned(),
    }
}

fn names_one(path: &str) -> bool {
    below_namespace(path).len() >= 2
}

/// The parts of a path that name kind, object and part of it.
fn below_namespace(path: &str) -> Vec<&str> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    match rest {
        ["namespaces", _, below @ ..] if !below.is_empty() => below.to_vec(),
        rest => rest.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_by_verb_and_kind_and_never_by_name() {
        let jobs = "/apis/batch/v1/namespaces/ns/jobs";
        for (method, path, query, expected) in [
            (Method::GET, jobs, "watch=true&x=1", ("watch", "jobs")),
            (Method::GET, jobs, "limit=100", ("list", "jobs")),
            (Method::GET, "/apis/batch/v1/jobs", "", ("list", "jobs")),
            (Method::POST, jobs, "", ("create", "jobs")),
            (
                Method::PATCH,
                "/apis/batch/v1/namespaces/ns/jobs/ty-1",
                "",
                ("patch", "jobs"),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/ns/pods/p/log",
                "container=task",
                ("get", "pods/log"),
            ),
            (
                Method::PATCH,
                "/apis/trainyard.dev/v1alpha1/namespaces/ns/queuebindings/gpu/status",
                "",
                ("patch", "queuebindings/status"),
            ),
            (Method::GET, "/version", "", ("list", "other")),
        ] {
            assert_eq!(
                (verb(&method, path, query), resource(path).as_str()),
                expected,
                "{path}"
            );
        }
    }
}
