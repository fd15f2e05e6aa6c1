//! The page for people in a real browser: headless Chromium, driven by WebDriver over plain HTTP, against the embedded
//! server. Each test clicks and types as a person would, and asks the API whether it came about.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a scenario that cannot go on has failed"
)]

mod actions;
mod browser;
mod charts;
mod controls;
mod copying;
mod edit;
mod filters;
mod list;
mod log;
mod look;
mod places;
mod polls;
mod pool;
mod queues;
mod signin;
mod workers;
pub mod world;
