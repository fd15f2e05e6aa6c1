//! PURE: what of the arguments of `uv sync` chooses packages of a lock.
//!
//! The lock is exported and installed by way of the shared environments, so `uv sync` itself is not run.

/// Arguments that `uv export` knows by the same name.
const ALONE: [&str; 8] = [
    "--all-extras",
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

/// Arguments for `uv export`, and those that have no effect.
pub(super) fn exported(arguments: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut known, mut without) = (Vec::new(), Vec::new());
    let mut words = arguments
        .iter()
        .flat_map(|argument| argument.split_whitespace());
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let renamed = RENAMED.iter().find(|renamed| renamed.0 == name);
        let takes_value = renamed.map_or(WITH_VALUE.contains(&name), |renamed| renamed.2);
        if renamed.is_none() && !takes_value && !ALONE.contains(&name) {
            if !ANYWAY.contains(&name) {
                without.push(word.to_owned());
            }
            continue;
        }
        known.push(renamed.map_or(name, |renamed| renamed.1).to_owned());
        if takes_value {
            known.extend(value.or_else(|| words.next()).map(str::to_owned));
        }
    }
    (known, without)
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
            let found = exported(&given);
            assert_eq!(found.0.join(" "), known, "{given:?}");
            assert_eq!(found.1.join(" "), without, "{given:?}");
        }
    }
}
