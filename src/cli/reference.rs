//! The reference of the command line, made from what is parsed.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// The command whose flags others take over.
const CONTROLLER: &str = "controller";

/// All commands with their flags, in Markdown.
pub fn reference() -> String {
    let root = Cli::command();
    let mut text = String::from(
        "# Command line\n\n\
         Generated from `src/cli.rs` and `src/cli/`; do not edit. `trainyard COMMAND --help` prints the same. A flag goes \
         before its variable. Those of the controller's flags stand in \
         [environment-variables.md](environment-variables.md).\n",
    );
    let shared: Vec<&Arg> = root
        .find_subcommand(CONTROLLER)
        .into_iter()
        .flat_map(Command::get_arguments)
        .collect();
    tell(&mut text, &root, "trainyard", &shared);
    text
}

fn tell(text: &mut String, command: &Command, path: &str, shared: &[&Arg]) {
    if command.is_hide_set() {
        return;
    }
    let about = sentence(command.get_long_about().or(command.get_about()));
    let _ = write!(text, "\n## `{path}`\n\n{about}\n");
    let has = |arg: &Arg| command.get_arguments().any(|own| own == arg);
    let takes_over = command.get_name() != CONTROLLER && shared.iter().all(|&arg| has(arg));
    let mut rows = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && (!takes_over || !shared.contains(arg)))
        .peekable();
    if rows.peek().is_some() {
        text.push_str("\n| flag | meaning |\n|---|---|\n");
    }
    for arg in rows {
        let _ = writeln!(text, "| {} | {} |", name(arg), meaning(arg));
    }
    if takes_over {
        let _ = writeln!(text, "\nAll flags of `trainyard {CONTROLLER}` as well.");
    }
    for command in command.get_subcommands() {
        let path = format!("{path} {}", command.get_name());
        tell(text, command, &path, shared);
    }
}

/// How it is typed, such as `-o`, `--output OUTPUT`.
fn name(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let value = match names.first() {
        Some(name) if arg.get_action().takes_values() => cell(name),
        _ => String::new(),
    };
    let value = match arg.get_num_args() {
        Some(range) if range.min_values() == 0 => format!("[{value}]"),
        _ => value,
    };
    let Some(long) = arg.get_long() else {
        return format!("`{value}`");
    };
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    let flag = format!("--{long} {value}");
    format!("{}`{}`", short.unwrap_or_default(), flag.trim_end())
}

fn meaning(arg: &Arg) -> String {
    let mut parts = vec![sentence(arg.get_long_help().or(arg.get_help()))];
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        parts.push(format!("One of {}.", values.join(", ")));
    }
    if let Some(default) = arg.get_default_values().first() {
        parts.push(format!("Default: `{}`.", default.display()));
    }
    if let Some(variable) = arg.get_env() {
        parts.push(format!("Variable: `{}`.", variable.display()));
    }
    if arg.is_required_set() {
        parts.push("Needed.".to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

/// A doc comment, whose last full stop the parser has cut off.
fn sentence(help: Option<&StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    let text = cell(text.trim());
    if text.is_empty() || text.ends_with('.') {
        text
    } else {
        text + "."
    }
}

/// A text as it may stand in a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_with_all_that_is_known_of_them() {
        let text = reference();
        for line in [
            "## `trainyard explain task`",
            "| `ID\\|FILE` | Id of the task, or a file with its document as JSON: then neither server nor cluster is asked. Needed. |",
            "| `-o`, `--output OUTPUT` | Form of the answer. One of `text`, `json`. Default: `text`. |",
            "| `--binding FILE\\|NAME` | File with a QueueBinding as YAML or JSON, or the name of one in the cluster. Needed. |",
            "All flags of `trainyard controller` as well.",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}\n{text}");
        }
        assert!(!text.contains("retire"), "hidden commands are left out");
    }
}
