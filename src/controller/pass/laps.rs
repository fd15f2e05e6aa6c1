//! How long the parts of a pass take.

use tokio::time::Instant;

/// How long the parts of a pass took, for who looks into a slow one (`--log debug`).
pub(super) struct Laps {
    last: Instant,
    done: Vec<(&'static str, u128)>,
}

impl Laps {
    pub(super) fn start() -> Self {
        Self {
            last: Instant::now(),
            done: Vec::new(),
        }
    }

    pub(super) fn end(&mut self, part: &'static str) {
        self.done.push((part, self.last.elapsed().as_millis()));
        self.last = Instant::now();
    }

    pub(super) fn tell(&self, binding: &str, live: usize, admitted: usize) {
        tracing::debug!(binding, live, admitted, milliseconds = ?self.done, "pass");
    }
}
