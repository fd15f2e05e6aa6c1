//! The executor's three programs on this host against the embedded server: what a pod does, without a cluster.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a scenario that cannot go on has failed"
)]

mod end;
mod fence;
mod link;
mod log;
mod pod;
mod prepare;
mod proxy;
mod server;
mod statistics;
