//! Setup scripts, of the binding, of `clearml.conf` and of the task: they run in the task's container before the
//! environment is made; what they export reaches the task.
//!
//! ```text
//! sh -c "trap '<this program> --in-pod exports' EXIT; <script>" ──▶ exports: the shell's variables, zero bytes between
//! ```
//!
//! At the shell's end this program is started once more and writes down what it was given: no parsing of what a shell
//! prints, and no program of the image is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tokio::process::Command;

use super::failure::Failure;
use super::outcome::Exit;
use super::plan::Plan;
use super::process::{Ended, Runner};
use super::script::Script;
use super::settings::{OWN_PREFIX, Settings};
use super::small;
use super::spool::write_shared;
use super::start::{self, DEFAULT_PATH};
use crate::config::agent::Agent;
use crate::task::Task;

/// Where the variables are written to.
const EXPORTS: &str = "TRAINYARD_EXPORTS";
/// This program, as the setup script's shell finds it.
const PROGRAM: &str = "TRAINYARD_PROGRAM";
/// What the shell itself sets.
const OF_THE_SHELL: [&str; 5] = ["_", "SHLVL", "PWD", "OLDPWD", "IFS"];
/// Scripts of `clearml.conf`, in the order in which an agent runs them in a container; `init_script` is known here alone.
const OF_CONF: [&str; 4] = [
    "agent.docker_preprocess_bash_script",
    "agent.docker_init_bash_script",
    "agent.init_script",
    "agent.extra_docker_shell_script",
];
/// In the first two an agent fills in names, so that a brace of the shell is doubled there.
const FILLED_IN: usize = 2;
/// Most bytes of variables that are taken over.
const MOST: u64 = 4 << 20;

/// Writes the variables of this process to where it was told; all that `--in-pod exports` does.
pub fn write_exports() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("could not hand on the variables: {error}");
    let environment = fs::read("/proc/self/environ").map_err(failed)?;
    let target = variables(&environment)
        .remove(EXPORTS)
        .ok_or_else(|| format!("{EXPORTS} is not set"))?;
    write_shared(Path::new(&target), &environment).map_err(failed)
}

fn variables(environment: &[u8]) -> BTreeMap<String, String> {
    environment
        .split(|byte| *byte == 0)
        .filter_map(|pair| {
            let pair = String::from_utf8_lossy(pair);
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A setup script.
pub struct Setup {
    script: Script,
    /// Whether its failure is the task's.
    decides: bool,
}

/// The binding's, those of `clearml.conf`, then the task's own where the binding allows it.
pub fn of(task: &Task, settings: &Settings, agent: &Agent) -> Vec<Setup> {
    let deciding = |script| Setup {
        script,
        decides: true,
    };
    let of_binding = settings.setup_script.as_deref().map(|text| {
        deciding(Script::of_binding(
            text,
            "setup script",
            "environment.setupScript",
        ))
    });
    let of_conf = OF_CONF.iter().enumerate().filter_map(|(place, key)| {
        let mut script = Script::of_conf(agent, key)?;
        if place < FILLED_IN {
            script.text = filled_in(&script.text);
        }
        Some(Setup {
            script,
            decides: false,
        })
    });
    let own = settings
        .task_setup_allowed
        .then_some(&task.container.setup_shell_script);
    let of_task = own.and_then(|text| Script::of_task(text)).map(deciding);
    let all = of_binding.into_iter().chain(of_conf).chain(of_task);
    all.collect()
}

/// The text as an agent hands it to the shell.
fn filled_in(script: &str) -> String {
    script
        .replace("{python_single_digit}", "python3")
        .replace("{{", "{")
        .replace("}}", "}")
}

/// Runs the script; the container's variables as they are from then on, or nothing if it was interrupted.
pub async fn run(
    setup: &Setup,
    plan: &Plan,
    settings: &Settings,
    mut runner: Runner<'_>,
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let given = start::variables(plan, settings, None);
    let path = given.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let Setup { script, decides } = setup;
    let (text, whose) = (&script.text, &script.whose);
    let shell = script.shell(path)?;
    let folder = if plan.working_dir.is_dir() {
        plan.working_dir.as_path()
    } else {
        Path::new("/")
    };
    let exports = settings.layout.exports();
    let _ = fs::remove_file(&exports);
    let mut command = Command::new(shell);
    command
        .arg("-c")
        .arg(format!(
            "trap '\"${PROGRAM}\" --in-pod exports' EXIT\n{text}"
        ))
        .current_dir(folder)
        .env_clear()
        .envs(&given)
        .env(EXPORTS, &exports)
        .env(PROGRAM, settings.layout.bin().join("trainyard"));
    match runner.run(command).await {
        Ok(Ended::Itself(Exit::Code(0))) => {}
        Ok(Ended::Itself(exit)) if !decides => {
            let text = format!("{whose} ended with {}: the task goes on", exit.describe());
            if let Err(error) = runner.spool.note(&text) {
                tracing::warn!(%error, "could not write to the spool");
            }
        }
        Ok(Ended::Itself(exit)) => {
            return Err(Failure::new(format!(
                "{whose} ended with {}",
                exit.describe()
            )));
        }
        Ok(Ended::Interrupted { .. }) => return Ok(None),
        Err(error) => {
            return Err(Failure::new(format!(
                "{whose} could not be started: {error}"
            )));
        }
    }
    let Some(after) = left(&exports) else {
        // A script may end its shell in a way that no trap sees, as with `exec`.
        return Ok(Some(settings.inherited.clone()));
    };
    Ok(Some(merged(
        &settings.inherited,
        &given,
        &variables(&after),
    )))
}

/// What a script has left, which may have put other things than a file there; it is taken away.
fn left(exports: &Path) -> Option<Vec<u8>> {
    let after = small::plain_bytes(exports, MOST).ok();
    let _ = fs::remove_file(exports);
    after
}

/// The container's variables with what the script has changed of those that it was given.
fn merged(
    inherited: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let counts = |name: &str| !OF_THE_SHELL.contains(&name) && !name.starts_with(OWN_PREFIX);
    let mut merged = inherited.clone();
    for (name, value) in after {
        if counts(name) && given.get(name) != Some(value) {
            merged.insert(name.clone(), value.clone());
        }
    }
    merged.retain(|name, _| !counts(name) || after.contains_key(name) || !given.contains_key(name));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_script_changes_counts_and_the_rest_is_as_the_container_has_it() {
        let inherited = map(&[
            ("PATH", "/bin"),
            ("GONE", "1"),
            ("TRAINYARD_WORKER", "w"),
            ("HOME", "/"),
        ]);
        let given = map(&[
            ("PATH", "/bin"),
            ("GONE", "1"),
            ("HOME", "/made"),
            ("PYTHONPATH", "/code"),
        ]);
        let after = map(&[
            ("PATH", "/opt:/bin"),
            ("HOME", "/made"),
            ("PYTHONPATH", "/code"),
            ("NEW", "two\nlines"),
            ("SHLVL", "1"),
            ("TRAINYARD_ATTEMPT", "9"),
        ]);
        assert_eq!(
            merged(&inherited, &given, &after),
            map(&[
                ("PATH", "/opt:/bin"),
                ("NEW", "two\nlines"),
                ("TRAINYARD_WORKER", "w"),
                ("HOME", "/")
            ])
        );
    }

    #[test]
    fn what_an_agent_fills_in_is_filled_in() {
        assert_eq!(
            filled_in("which {python_single_digit} || for i in {{1..2}}; do echo ${{i}}; done"),
            "which python3 || for i in {1..2}; do echo ${i}; done"
        );
    }

    #[test]
    fn an_environment_is_read_with_line_ends_and_equals_signs() {
        assert_eq!(
            variables(b"A=1\nb\0B=c=d\0junk\0"),
            map(&[("A", "1\nb"), ("B", "c=d")])
        );
    }

    #[test]
    fn what_a_script_leaves_is_read_from_a_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let exports = folder.path().join("exports");
        fs::write(&exports, "A=1\0").unwrap();
        assert_eq!(left(&exports).unwrap(), b"A=1\0");
        // As a link to /dev/zero, or a pipe, of which no end is ever read.
        std::os::unix::fs::symlink("/dev/null", &exports).unwrap();
        assert_eq!(left(&exports), None);
        assert!(exports.symlink_metadata().is_err());
    }
}
