//! What the process tells about itself: log lines, metrics, probes.
//!
//! No global registry: whoever starts a program makes one [`metrics::Metrics`] and one [`admin::Readiness`] and hands
//! them down.

pub mod admin;
pub mod logs;
pub mod metrics;
