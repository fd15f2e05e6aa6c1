//! The executor's three programs on this host against the embedded server: what a pod does, without a cluster.

mod end;
mod fence;
mod log;
mod pod;
mod proxy;
mod server;
mod statistics;
