//! PURE: what of the arguments of `uv sync` and `uv run` chooses packages of a lock.
//!
//! The lock is exported and installed by way of the shared environments, so neither is run. `uv run` would install what its
//! own arguments choose before it starts the task, so both choose here.

use std::collections::BTreeSet;

/// Chooses what each `--extra` would.
const ALL_EXTRAS: &str = "--all-extras";
/// Arguments that `uv export` knows by the same name.
const ALONE: [&str; 8] = [
    ALL_EXTRAS,
    "--all-groups",
    "--all-packages",
    "--dev",
    "--no-default-groups",
    "--no-dev",
    "--no-editable",
    "--only-dev",
];
/// The same, followed by a value.
const WITH_VALUE: [&str; 7] = [
    "--extra",
    "--group",
    "--no-editable-package",
    "--no-extra",
    "--no-group",
    "--only-group",
    "--package",
];
/// Arguments that have another name there, and whether a value follows.
const RENAMED: [(&str, &str, bool); 4] = [
    ("--no-install-local", "--no-emit-local", false),
    ("--no-install-package", "--no-emit-package", true),
    ("--no-install-project", "--no-emit-project", false),
    ("--no-install-workspace", "--no-emit-workspace", false),
];
/// That is so anyway.
const ANYWAY: [&str; 5] = ["--frozen", "--locked", "--no-progress", "--quiet", "-q"];
/// So is this, of `uv run` alone.
const NO_SYNC: &str = "--no-sync";

/// What the arguments of both amount to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Exported {
    /// Arguments for `uv export`.
    pub arguments: Vec<String>,
    /// Arguments of `uv sync` without effect.
    pub without_sync: Vec<String>,
    /// The same of `uv run`.
    pub without_run: Vec<String>,
}

/// Arguments for `uv export`, and those that have no effect.
pub(super) fn exported(sync: &[String], run: &[String]) -> Exported {
    let (mut choices, without_sync) = read(sync);
    let (of_run, mut without_run) = read(run);
    choices.extend(of_run);
    without_run.retain(|word| word != NO_SYNC);
    // uv takes each of them once, and no single extra beside all of them.
    let all_extras = choices.iter().any(|(name, _)| *name == ALL_EXTRAS);
    let mut seen = BTreeSet::new();
    choices.retain(|choice| {
        let is_one_of_all = all_extras && choice.0 == "--extra";
        !is_one_of_all && seen.insert(choice.clone())
    });
    Exported {
        arguments: choices
            .into_iter()
            .flat_map(|(name, value)| std::iter::once(name.to_owned()).chain(value))
            .collect(),
        without_sync,
        without_run,
    }
}

/// An argument of `uv export`, and its value.
type Choice = (&'static str, Option<String>);

/// What of one program's arguments chooses packages, and the rest.
fn read(arguments: &[String]) -> (Vec<Choice>, Vec<String>) {
    let (mut choices, mut without) = (Vec::new(), Vec::new());
    let mut words = arguments
        .iter()
        .flat_map(|argument| argument.split_whitespace());
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let alone = ALONE.iter().find(|known| **known == name);
        let with_value = WITH_VALUE.iter().find(|known| **known == name);
        let renamed = RENAMED.iter().find(|renamed| renamed.0 == name);
        let known = match (alone, with_value, renamed) {
            (Some(name), _, _) => Some((*name, false)),
            (_, Some(name), _) => Some((*name, true)),
            (_, _, Some(renamed)) => Some((renamed.1, renamed.2)),
            (None, None, None) => None,
        };
        match known {
            Some((name, false)) => choices.push((name, None)),
            Some((name, true)) => {
                choices.push((name, value.or_else(|| words.next()).map(str::to_owned)));
            }
            None if ANYWAY.contains(&name) => {}
            None => without.push(word.to_owned()),
        }
    }
    (choices, without)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chooses_packages_is_kept_and_the_rest_is_named() {
        for (given, known, without) in [
            (vec![], "", ""),
            (
                vec!["--extra", "gpu", "--no-dev"],
                "--extra gpu --no-dev",
                "",
            ),
            (
                vec!["--extra=gpu", "--group docs"],
                "--extra gpu --group docs",
                "",
            ),
            (
                vec!["--no-install-project", "--no-install-package", "x"],
                "--no-emit-project --no-emit-package x",
                "",
            ),
            (
                vec!["--no-install-local", "--no-editable-package=x"],
                "--no-emit-local --no-editable-package x",
                "",
            ),
            (
                vec!["--inexact", "--frozen", "--all-extras", "--refresh"],
                "--all-extras",
                "--inexact --refresh",
            ),
        ] {
            let given: Vec<String> = given.into_iter().map(str::to_owned).collect();
            let found = exported(&given, &[]);
            assert_eq!(found.arguments.join(" "), known, "{given:?}");
            assert_eq!(found.without_sync.join(" "), without, "{given:?}");
            assert!(found.without_run.is_empty(), "{given:?}");
        }
    }

    #[test]
    fn what_uv_run_would_install_is_chosen_too_and_nothing_twice() {
        let words = |text: &str| vec![text.to_owned()];
        for (sync, run, known, without) in [
            ("", "--extra gpu", "--extra gpu", ""),
            ("--all-extras", "--all-extras", "--all-extras", ""),
            (
                "--extra a --no-dev",
                "--no-dev --extra b --extra a",
                "--extra a --no-dev --extra b",
                "",
            ),
            ("--extra a", "--all-extras", "--all-extras", ""),
            (
                "--all-extras",
                "--extra=a --group x",
                "--all-extras --group x",
                "",
            ),
            (
                "",
                "--no-sync --frozen --with rich --env-file .env",
                "",
                "--with rich --env-file .env",
            ),
        ] {
            let found = exported(&words(sync), &words(run));
            assert_eq!(found.arguments.join(" "), known, "{sync} | {run}");
            assert_eq!(found.without_run.join(" "), without, "{sync} | {run}");
            assert!(found.without_sync.is_empty(), "{sync} | {run}");
        }
    }
}
