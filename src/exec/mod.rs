//! TBD

pub mod diff;
pub mod failure;
pub mod git;
pub mod plan;
pub mod python;
pub mod tool;
mod words;
