//! Waiting for what is to come, as long as it may take on a busy machine.

use std::thread;
use std::time::{Duration, Instant};

/// Waits are written as on a quiet machine; one that others use too gets so many times as long. Where time itself is
/// what a test asserts, it measures it.
pub const PATIENCE: u32 = 3;

/// Between two looks: a fraction of the time waited so far, so that what takes long is not asked for all the while.
/// Many who wait side by side would else be most of what the API server does.
fn pause(waited: Duration) -> Duration {
    (waited / 8).clamp(Duration::from_millis(200), Duration::from_millis(800))
}

/// Polls until `probe` gives a value; fails with what `what` says when `seconds` have passed.
pub fn wait<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(seconds) * PATIENCE,
            "waited {} s in vain for: {what}",
            waited.as_secs()
        );
        thread::sleep(pause(waited));
    }
}
