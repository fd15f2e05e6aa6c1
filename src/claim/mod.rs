//! Given the facts of one task, what is the next step? Pure: no clock, no input, no output.
//!
//! ```text
//! look, watch ──▶ Observed ──Phase::of──▶ Phase ──decide(Policy, now)──▶ Step ──▶ the controller carries it out
//! ```
//!
//! [`observed`] holds the facts, with "unknown" as a value. [`phase`] says what they mean: a total function of the
//! facts, never stored. [`decide`] answers the one next [`Step`]. [`policy`] is what the binding wants, with the quiet
//! time and the deadlines that it covers. [`order`] says which offered task goes first. The rules and the model that
//! checks them are described in `docs/claim.md`.

pub mod decide;
pub mod observed;
pub mod order;
pub mod phase;
pub mod policy;
pub mod step;
#[cfg(test)]
mod tests;

pub use decide::decide;
pub use observed::{
    By, Cause, Entry, Facts, Job, JobState, JobsFact, Observed, Presence, Reason, Stamps, TaskFact,
    TaskState, ThisPass, UserQueue,
};
pub use phase::{Phase, next_attempt};
pub use policy::{
    Admission, OnInterruption, OnPendingTimeout, Policy, QUIET_TIME, REQUEST_TIMEOUT, STEP_DEADLINE,
};
pub use step::{GiveUpReason, Settlement, Step, Why};
