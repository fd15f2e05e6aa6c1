//! What has been asked of this process: flags, environment variables and `clearml.conf` → settings. Pure.
//!
//! ```text
//! flags (Raw) ─┐
//! variables ───┼─▶ resolve ──▶ Settings: typed, each value with its origin
//! clearml.conf ┘        └────▶ SettingError: every one of them, not only the first
//! ```
//!
//! What was typed ([`Raw`]) and what is meant ([`Settings`]) are two types: nothing reads the environment or a file
//! while settings are resolved, or after.

pub mod agent;
pub mod conf;
pub mod env;
mod resolve;
mod settings;

pub use settings::{
    Credentials, LogFormat, Origin, Raw, RegistrySettings, Scope, ServerSettings, Setting,
    SettingError, Settings, TaskPodSettings,
};
