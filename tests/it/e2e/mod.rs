//! Scenarios on a real cluster with the real SDK; those of the acceptance list carry its numbers (`s1_…`, `s8_…`).
//! They need what `cargo xtask test` prepares and fail with that sentence where it is missing.

mod abort;
mod crash;
mod experiment;
mod images;
mod limits;
mod refused;
mod s1_first_task;
mod s8_failing_script;
pub mod world;
