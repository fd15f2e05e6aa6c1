//! The executor's three programs on this host against the embedded server: what a pod does, without a cluster.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a scenario that cannot go on has failed"
)]

mod alone;
mod build;
mod end;
pub mod fence;
mod kinds;
mod link;
mod log;
mod matrix;
mod others;
mod outage;
pub mod pod;
mod prepare;
pub mod proxy;
mod requirements;
pub mod s22;
pub mod s2_gpus;
mod s6;
mod scripts;
pub mod server;
mod signals;
mod statistics;
mod torch;
