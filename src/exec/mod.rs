//! Runs one task to its end, inside its pod (`architecture.md` §8).

pub mod diff;
pub mod echo;
pub mod failure;
pub mod fence;
pub mod git;
pub mod outcome;
pub mod output;
pub mod plan;
pub mod process;
pub mod python;
pub mod settings;
pub mod spool;
pub mod tool;
pub mod uplink;
pub mod watch;
mod words;
