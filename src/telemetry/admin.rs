//! Probes and metrics over HTTP: `/livez`, `/readyz`, `/metrics`. One [`Readiness`] value answers both probes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

/// How one part of the process is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// Not ready yet, or not at the moment, for this reason; it will recover by itself.
    Waiting(String),
    /// It will not recover: the process has to be started again.
    Dead(String),
}

/// How every part of the process is doing. A clone is the same value.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Health>>>,
}

impl Readiness {
    /// Notes how `part` is doing.
    pub fn set(&self, part: &'static str, health: Health) {
        self.parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, health);
    }

    /// `Err` names every part that is not ready. Without any part nothing has been started yet.
    pub fn ready(&self) -> Result<(), String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.is_empty() {
            return Err("starting".to_owned());
        }
        told(parts.iter().filter_map(|(part, health)| match health {
            Health::Ready => None,
            Health::Waiting(reason) | Health::Dead(reason) => Some(format!("{part}: {reason}")),
        }))
    }

    /// `Err` names every part that will not recover.
    pub fn live(&self) -> Result<(), String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        told(parts.iter().filter_map(|(part, health)| match health {
            Health::Dead(reason) => Some(format!("{part}: {reason}")),
            Health::Ready | Health::Waiting(_) => None,
        }))
    }
}

fn told(reasons: impl Iterator<Item = String>) -> Result<(), String> {
    let text = reasons.collect::<Vec<_>>().join("\n");
    if text.is_empty() { Ok(()) } else { Err(text) }
}

/// Answers probes and scrapes until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route(
            "/livez",
            get(|State((readiness, _)): State<Shared>| async move { probe(readiness.live()) }),
        )
        .route(
            "/readyz",
            get(|State((readiness, _)): State<Shared>| async move { probe(readiness.ready()) }),
        )
        .route(
            "/metrics",
            get(|State((_, metrics)): State<Shared>| async move { scrape(&metrics) }),
        )
        .with_state((readiness, metrics));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

type Shared = (Readiness, Metrics);

fn probe(answer: Result<(), String>) -> Response {
    match answer {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons + "\n").into_response(),
    }
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_part_makes_the_process_unready_but_not_dead() {
        let readiness = Readiness::default();
        assert!(readiness.ready().is_err());
        readiness.set("watch", Health::Waiting("first list".into()));
        assert_eq!(readiness.ready(), Err("watch: first list".into()));
        assert_eq!(readiness.live(), Ok(()));
        readiness.set("watch", Health::Ready);
        assert_eq!(readiness.ready(), Ok(()));
        readiness.set("watch", Health::Dead("ended".into()));
        assert!(readiness.live().is_err() && readiness.ready().is_err());
    }

    #[tokio::test]
    async fn probes_and_metrics_are_served_until_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        readiness.set("part", Health::Ready);
        let server = tokio::spawn(serve(
            listener,
            readiness,
            Metrics::new().unwrap(),
            shutdown.clone(),
        ));
        for (page, expected) in [
            ("livez", "ok"),
            ("readyz", "ok"),
            ("metrics", "trainyard_build_info"),
        ] {
            let text = reqwest::get(format!("{url}/{page}"))
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            assert!(text.contains(expected), "{page}: {text}");
        }
        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
