//! trainyard runs machine-learning experiments from ClearML queues on Kubernetes.
//!
//! One binary holds an operator (`controller`), the executor inside a task's pod (`exec`), and an embedded
//! ClearML-compatible server (`server`):
//!
//! ```text
//! researcher ──enqueue──▶ server ◀──look, take, park── controller ──intent, release──▶ Job
//!                           ▲                                                           │
//!                           └───── fence, status, log, statistics ───── exec in the pod ┘
//! ```
//!
//! Vocabulary: [`task`], [`pod`], [`crd`]. Pure cores decide, without input or output: [`config`], [`claim`],
//! [`render`], [`capacity`], [`diagnose`]. Clients and effects carry out: [`api`], [`telemetry`], [`stats`],
//! [`exec`]. Programs put them together: [`controller`], [`server`]. Imports point downwards only; the table in
//! `docs/architecture.md` says which, and `tests/it/layering.rs` holds it.

pub mod api;
pub mod capacity;
pub mod claim;
pub mod cli;
pub mod config;
pub mod controller;
pub mod crd;
pub mod diagnose;
pub mod exec;
pub mod image;
pub mod pod;
pub mod render;
#[cfg(feature = "server")]
pub mod server;
pub mod stats;
pub mod task;
pub mod telemetry;
