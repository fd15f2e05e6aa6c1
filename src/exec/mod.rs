//! Runs one task to its end, inside its pod (`architecture.md` §8).

pub mod echo;
pub mod fence;
pub mod outcome;
pub mod output;
pub mod process;
pub mod settings;
pub mod spool;
pub mod uplink;
pub mod watch;
