//! TBD

pub mod failure;
pub mod plan;
mod words;
