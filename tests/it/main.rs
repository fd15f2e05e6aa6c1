//! The one integration binary: pure checks over the whole crate, and scenarios on real programs.

mod generated;
mod layering;
