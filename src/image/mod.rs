//! Is the image there, and what does it run: asks an image registry before a task is taken.
//!
//! ```text
//! "host/name:tag" ──Reference──▶ Registry::look ──HEAD, GET manifest──▶ Finding
//!                              Registry::command ──GET manifest, config──▶ Finding<Command>
//!                    pull secrets ──▶ Keyring ──┘   401: bearer token or basic, once
//! Question ──Answers (cache, in the background)──▶ known, or pending
//! ```
//!
//! Source: OCI distribution specification 1.1, Docker's token authentication and reference grammar. A registry is
//! untrusted: its answers are bounded in size and time, and one that limits, fails or is silent never says "no".

mod answers;
mod challenge;
mod keyring;
mod reference;
mod registry;

pub use answers::{Answer, Answers, PATIENCE};
pub use keyring::Keyring;
pub use reference::Reference;
pub use registry::{Command, Finding, Platform, Registry, SetupError};
