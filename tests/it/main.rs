//! The one integration binary: pure checks over the whole crate, and scenarios on real programs.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by a panic and tells by printing"
)]

mod bench;
mod chart;
mod claim_model;
mod e2e;
mod exec;
mod generated;
mod git;
mod layering;
mod nvml;
mod python;
mod server_durability;
mod server_facts;
mod server_http;
mod server_world;
