//! The image's own command in place of a task's code (`useEntrypoint` of the binding's queue).

use std::path::PathBuf;

use super::{Command, Entry, Machine, Plan, Source};
use crate::exec::failure::Failure;

impl Plan {
    /// Nothing is checked out, written or installed; these words are run, with references to variables.
    pub fn of_image(words: Vec<String>, working_dir: PathBuf, code_root: PathBuf) -> Self {
        Self {
            checkout: None,
            source: Source::None,
            working_dir,
            environment: None,
            python: None,
            command: Command {
                shell: None,
                entry: Entry::Image(words),
            },
            code_root,
            python_root: None,
            notes: vec![
                "the image's own command runs, not the task's code (useEntrypoint)".to_owned(),
            ],
        }
    }
}

/// The argument list, its program found.
pub(super) fn argv(words: &[String], machine: &Machine<'_>) -> Result<Vec<String>, Failure> {
    let mut argv: Vec<String> = words
        .iter()
        .map(|word| expand(word, machine.variable))
        .collect();
    let Some(program) = argv.first_mut() else {
        return Err(
            Failure::new("there is no command to run in place of the task's code").hint(
                "use an image with ENTRYPOINT or CMD, or give command in the binding's template",
            ),
        );
    };
    let Some(found) = (machine.program)(program.as_str()) else {
        return Err(Failure::new(format!(
            "the image's command {program} is not in the image, or may not be executed"
        ))
        .hint("check ENTRYPOINT and CMD of the image, and command of the binding's template"));
    };
    *program = found.to_string_lossy().into_owned();
    Ok(argv)
}

/// Puts values in as Kubernetes does in a container's command: `$(NAME)` is the variable, one that is unknown stays as
/// written, and `$$` is one `$`.
fn expand(word: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let reference = after
            .strip_prefix('(')
            .and_then(|reference| reference.split_once(')'));
        if let Some((name, behind)) = reference {
            match variable(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = behind;
        } else {
            expanded.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_kubernetes_reads_them() {
        let variable = |name: &str| (name == "A").then(|| "1 $(A)".to_owned());
        for (word, expected) in [
            ("plain", "plain"),
            ("$(A)", "1 $(A)"),
            ("a$(A)b$(A)", "a1 $(A)b1 $(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1 $(A)"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$A ${A} $", "$A ${A} $"),
            ("$$$$", "$$"),
            ("$()ä$ä", "$()ä$ä"),
        ] {
            assert_eq!(expand(word, &variable), expected, "{word}");
        }
    }
}
