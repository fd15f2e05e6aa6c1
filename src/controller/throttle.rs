//! What the Kubernetes API server asks for when it has too much to do: 429, and how long to wait.
//!
//! ```text
//! call ─▶ repeat (429, 503, 504) ─▶ count ─▶ hold back while the API server wants it ─▶ API server
//! ```
//!
//! What one request is told holds for all of this process. A call waits within its own time; its step has its deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Waited where the API server does not say how long.
const DEFAULT: Duration = Duration::from_secs(1);
/// Waited at most, whatever it says.
const LONGEST: Duration = Duration::from_mins(1);
/// Answers of 429 that are a state, each within [`APART`] of the one before; fewer are a moment.
const MANY: u32 = 3;
const APART: Duration = Duration::from_secs(10);

/// What the API server asked for last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Throttle {
    asked: Arc<Mutex<Option<Asked>>>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Answers in a row, and when the last one came.
    times: u32,
    last: Instant,
    until: Instant,
}

impl Throttle {
    fn note(&self, wait: Duration, now: Instant) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = asked.filter(|known| now.duration_since(known.last) < APART.max(wait));
        let until = now + wait;
        *asked = Some(Asked {
            times: before.map_or(1, |known| known.times.saturating_add(1)),
            last: now,
            until: before.map_or(until, |known| known.until.max(until)),
        });
    }

    /// When the next request may go.
    fn until(&self) -> Option<Instant> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.map(|known| known.until)
    }

    /// Whether requests are held back again and again: a sentence for people.
    pub fn is_lasting(&self, now: Instant) -> Option<&'static str> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked
            .filter(|known| known.times >= MANY && now < known.until.max(known.last + APART))
            .map(|_| {
                "the Kubernetes API server asks for fewer requests (429): everything takes longer; look for a client that floods it"
            })
    }
}

/// Lays the throttle over a client's service.
#[derive(Debug, Clone)]
pub(super) struct Throttling(pub Throttle);

impl<S> Layer<S> for Throttling {
    type Service = Throttled<S>;

    fn layer(&self, inner: S) -> Throttled<S> {
        Throttled {
            inner,
            throttle: self.0.clone(),
        }
    }
}

/// A service whose requests wait for as long as the API server has asked.
#[derive(Debug, Clone)]
pub(super) struct Throttled<S> {
    inner: S,
    throttle: Throttle,
}

impl<S, A, B> Service<Request<A>> for Throttled<S>
where
    S: Service<Request<A>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    A: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        // The one that is ready is taken along, a fresh one stays.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let throttle = self.throttle.clone();
        Box::pin(async move {
            while let Some(until) = throttle.until().filter(|until| Instant::now() < *until) {
                tokio::time::sleep_until(until).await;
            }
            let answer = inner.call(request).await;
            if let Ok(response) = &answer
                && response.status() == StatusCode::TOO_MANY_REQUESTS
            {
                throttle.note(asked_for(response), Instant::now());
            }
            answer
        })
    }
}

fn asked_for<B>(response: &Response<B>) -> Duration {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(DEFAULT, |seconds| Duration::from_secs(seconds).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn a_moment_is_no_state_and_a_state_passes() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let wait = Duration::from_secs(2);
        throttle.note(wait, start);
        throttle.note(wait, start + APART);
        assert_eq!(throttle.is_lasting(start + APART), None, "too far apart");
        throttle.note(wait, start + APART + wait);
        throttle.note(wait, start + APART + wait * 2);
        let last = start + APART + wait * 2;
        assert!(throttle.is_lasting(last).is_some());
        assert!(throttle.is_lasting(last + APART / 2).is_some());
        assert_eq!(throttle.is_lasting(last + APART), None);
    }

    #[tokio::test]
    async fn what_one_request_is_told_holds_back_the_next() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sent);
        let server = service_fn(move |_: Request<()>| {
            let mut log = log.lock().unwrap();
            log.push(Instant::now());
            let status = if log.len() == 1 { 429 } else { 200 };
            let answer = Response::builder().status(status).header(RETRY_AFTER, "1");
            let answer = answer.body(()).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let client = Throttling(Throttle::default()).layer(server);
        for _ in 0..3 {
            client.clone().oneshot(Request::new(())).await.unwrap();
        }
        let sent = sent.lock().unwrap();
        assert!(sent[1] - sent[0] >= Duration::from_secs(1));
        assert!(sent[2] - sent[1] < Duration::from_secs(1));
    }
}
