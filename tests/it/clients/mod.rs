//! The ecosystem's own programs, unmodified, as separate processes against this server. Each flow reads back through
//! the same client what it wrote; the flows themselves are Python, in `tests/clients`.
//!
//! ```text
//! test ──▶ World: one server for all tests that run at the moment
//!            └─▶ Flow: a folder, a home, a clearml.conf of its own ──▶ python flow.py … "HELD n"
//! ```
//!
//! The SDK can stand still for ever (it forks while threads run), so every child has a deadline and is ended with all
//! that it started.

mod agent;
mod old;
mod rig;
mod s57;
mod sdk;
