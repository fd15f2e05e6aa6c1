//! Task, template and settings → Job. Pure: no call, no clock.
//!
//! ```text
//! template (as written) ──check──▶ Template ─┐
//! task, binding, queue, server, settings ────┴─render──▶ Rendered { job, notes, requests }
//! ```
//!
//! All that can be wrong is an error of [`Template::check`], with the path of the field; [`render`] then always gives
//! a Job. The Job is a JSON value, not a typed one: a typed one would drop what it does not know, and a template may
//! use any field of the cluster's version. What a task asked for and does not get is a note, told in its log.

mod affinity;
mod ahead;
mod cache;
mod check;
mod containers;
mod docker;
mod entrypoint;
mod environment;
mod fields;
mod image;
mod job;
mod merge;
mod names;
mod notes;
mod origin;
mod overlay;
mod resources;
mod template;
mod volumes;
mod wishes;

pub use ahead::{Ahead, ahead};
pub use cache::EnvironmentKey;
pub use entrypoint::{OwnCommand, Runs};
pub use job::{
    Binding, Inputs, Queue, Rendered, Server, Settings, dry_run_pod, render, requests_of,
};
pub use names::{JobName, LabelValue};
pub use origin::{Field, Origin, origins};
pub use resources::{CLAIMS, pod_requests};
pub use template::{Patch, Source, Template, TemplateError, merge_templates, parse_yaml};

#[cfg(test)]
mod tests;
