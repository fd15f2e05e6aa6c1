//! Keeps cluster and queues in agreement.
mod cluster;
mod lease;
mod mirror;
