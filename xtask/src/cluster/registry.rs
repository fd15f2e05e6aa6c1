//! The image registry: Debian's `docker-registry`, its storage kept between runs.

use anyhow::Result;

use super::daemon::Daemon;
use super::layout::{self, State};
use crate::sh;

pub fn start(state: &State) -> Result<Daemon> {
    let storage = state.path("registry");
    sh::make_dir(&storage)?;
    let config = state.path("registry.yaml");
    sh::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"{}\", secret: \"one process, nothing to share it with\"}}\n",
            storage.display(),
            layout::registry()
        ),
    )?;
    let program = sh::find("docker-registry").unwrap_or_default();
    Daemon::start(
        state,
        "registry",
        program,
        sh::arguments(["serve".into(), config]),
    )
}
