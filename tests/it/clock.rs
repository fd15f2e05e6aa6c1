//! Moments in seconds since 1970, as scripts print them.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::Value;

pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs_f64()
}

/// A moment as server and cluster write it.
pub fn told(time: &Value) -> f64 {
    let time = time.as_str().expect("a time");
    let time: Timestamp = time.parse().expect("a time by RFC 3339");
    time.as_microsecond() as f64 / 1e6
}
