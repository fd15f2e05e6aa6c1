//! Is the image there: asks an image registry for a manifest before a task is taken.
//!
//! ```text
//! "host/name:tag" ──Reference──▶ Registry::look ──HEAD, GET manifest──▶ Finding
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

pub use answers::{Answer, Answers};
pub use keyring::Keyring;
pub use reference::Reference;
pub use registry::{Finding, Platform, Registry, SetupError};
