//! The one integration binary: pure checks over the whole crate, and scenarios on real programs.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by a panic and tells by printing"
)]

mod alerts;
mod bench;
mod chart;
mod claim_model;
mod clients;
mod clock;
mod conf;
mod e2e;
mod exec;
mod failures;
mod faults;
mod generated;
mod git;
mod init;
mod layering;
mod long;
mod nvml;
mod page;
mod process;
mod python;
mod s57_server;
mod scenarios;
mod server_admin;
mod server_durability;
mod server_events;
mod server_facts;
mod server_fuzz;
mod server_http;
mod server_kills;
mod server_pipelines;
mod server_protocol;
mod server_retention;
mod server_tags;
mod server_tasks;
mod server_traffic;
mod server_trains;
mod server_workers;
mod server_world;
mod shared;
mod silent;
mod sources;
mod times;
mod whole;
