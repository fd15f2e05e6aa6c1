//! Shell scripts beside the task's code: what they say, how people call them, which shell runs them. When they run:
//! [`super::setup`], [`super::post`].

use std::path::PathBuf;

use super::configuration;
use super::failure::Failure;
use super::python::find_program;
use crate::config::agent::Agent;

/// One script.
pub struct Script {
    pub text: String,
    /// How people call it.
    pub whose: String,
    /// Shells that run it, the best first.
    shells: &'static [&'static str],
    /// What to do about an image that has none of them.
    without_shell: String,
}

impl Script {
    /// One of the binding, with its name and the field that it stands in.
    pub fn of_binding(text: &str, name: &str, field: &str) -> Self {
        Self {
            text: text.to_owned(),
            whose: format!("the {name} of the binding"),
            shells: &["sh"],
            without_shell: format!("use an image with /bin/sh, or remove {field} from the binding"),
        }
    }

    /// One of `clearml.conf`, if this key holds one. People write them for bash, as docker mode of agents runs them.
    pub fn of_conf(agent: &Agent, key: &str) -> Option<Self> {
        Some(Self {
            text: configuration::shell_script(agent, key)?,
            whose: format!("{key} of clearml.conf"),
            shells: &["bash", "sh"],
            without_shell: "use an image with bash or sh, or remove it from clearml.conf"
                .to_owned(),
        })
    }

    /// The task's own, if it brings one; for bash, too.
    pub fn of_task(text: &str) -> Option<Self> {
        (!text.trim().is_empty()).then(|| Self {
            text: text.to_owned(),
            whose: "the setup script of the task's container".to_owned(),
            shells: &["bash", "sh"],
            without_shell: "use an image with bash or sh, or remove the setup script from the task"
                .to_owned(),
        })
    }

    /// The shell that runs it, of those on this `PATH`.
    pub fn shell(&self, path: &str) -> Result<PathBuf, Failure> {
        let mut shells = self.shells.iter();
        let found = shells.find_map(|shell| find_program(shell, path));
        found.ok_or_else(|| {
            let whose = &self.whose;
            Failure::new(format!("{whose} cannot be run: the image has no shell"))
                .hint(self.without_shell.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_shell_is_told_with_what_to_do() {
        let script = Script::of_binding("true", "post script", "environment.postScript");
        assert!(script.shell("/bin:/usr/bin").is_ok());
        assert_eq!(
            script.shell("/proc").unwrap_err().to_string(),
            "the post script of the binding cannot be run: the image has no shell; hint: use an image with /bin/sh, or \
             remove environment.postScript from the binding"
        );
        assert!(Script::of_task(" \n").is_none());
    }
}
