//! Waiting between attempts, and repeating what may be repeated.

use std::future::Future;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::Error;

/// Waits between attempts: doubling from a quarter of a second, capped, half of it random.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    cap: Duration,
}

impl Backoff {
    /// A back-off that never waits longer than `cap`, unless the server asks for it.
    pub fn new(cap: Duration) -> Self {
        Self {
            next: Duration::from_millis(250),
            cap,
        }
    }

    /// The next wait; what the server asked for is never undercut.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let base = self.next.min(self.cap);
        self.next = (self.next * 2).min(self.cap);
        let wait = base / 2 + base.mul_f64(rand::rng().random_range(0.0..0.5));
        retry_after.map_or(wait, |asked| asked.max(wait))
    }

    /// Starts again with short waits, after a success.
    pub fn reset(&mut self) {
        self.next = Duration::from_millis(250);
    }
}

/// Repeats `call` while its failure is transient and `until` has not come. Only for calls that may be repeated.
pub async fn retry<T, F, C>(until: Instant, mut call: C) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
    C: FnMut() -> F,
{
    let mut backoff = Backoff::new(Duration::from_secs(10));
    loop {
        match call().await {
            Err(error) if error.is_transient() => {
                let wait = backoff.next(error.retry_after());
                if Instant::now() + wait >= until {
                    return Err(error);
                }
                tokio::time::sleep(wait).await;
            }
            answer => return answer,
        }
    }
}
