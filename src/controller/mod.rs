//! Keeps cluster and queues in agreement.
mod cluster;
mod lease;
mod look;
mod mirror;
mod observe;
