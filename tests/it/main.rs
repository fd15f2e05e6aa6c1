//! The one integration binary: pure checks over the whole crate, and scenarios on real programs.

mod bench;
mod e2e;
mod generated;
mod layering;
mod nvml;
