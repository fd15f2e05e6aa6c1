//! `trainyard config show`: what the configuration of an agent amounts to, and where each value came from.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{print_error, print_text};
use crate::config::agent::Agent;
use crate::config::conf::Document;
use crate::config::env::{self, Environment};
use crate::exec::configuration;

/// The files that are read if none is named, in their order: the later wins.
const FILES: [&str; 3] = ["trains.conf", "jarvis.conf", "clearml.conf"];
/// A folder with further files.
const FOLDER: &str = "CLEARML_CONFIG_PATH";

/// The configuration of an agent.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print each known key with its value; secrets are masked.
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Say of each value where it came from.
    #[arg(long)]
    origin: bool,
    /// Read this file alone, instead of those in the home folder.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
}

pub(super) fn main(command: &Command) -> ExitCode {
    let Command::Show(show) = command;
    match read(show.config_file.as_deref(), &Environment::read()) {
        Ok(agent) => {
            for (key, from) in &agent.unknown {
                print_warning(&format!("{key} is no known key ({from}): it has no effect"));
            }
            print_text(&agent.show(show.origin))
        }
        Err(message) => {
            print_error(&message);
            ExitCode::FAILURE
        }
    }
}

fn print_warning(text: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr(), "warning: {text}");
}

/// Reads the files and variables of an agent.
pub(super) fn read(named: Option<&Path>, environment: &Environment) -> Result<Agent, String> {
    let named = named.map(Path::to_owned).or_else(|| {
        environment
            .alias(env::CONFIG_FILE)
            .map(|(_, path)| PathBuf::from(path))
    });
    let mut paths = if let Some(path) = named {
        vec![path]
    } else {
        let home = environment.get("HOME").unwrap_or("/");
        let there = FILES.iter().map(|name| Path::new(home).join(name));
        there.filter(|path| path.is_file()).collect()
    };
    if let Some((_, folder)) = environment.alias(FOLDER) {
        let entries = std::fs::read_dir(folder)
            .map_err(|error| format!("could not read {folder} ({FOLDER}): {error}"))?;
        let mut further: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "conf"))
            .collect();
        further.sort();
        paths.extend(further);
    }
    let mut files = Vec::new();
    for path in paths {
        let text = configuration::text(&path)
            .map_err(|error| format!("could not read {}: {error}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let document = Document::read_with(
            &text,
            &|name| environment.get(name).map(str::to_owned),
            &|name| configuration::included(&folder.join(name)),
        )
        .map_err(|error| format!("{}, {error}", path.display()))?;
        files.push((path.display().to_string(), document));
    }
    Ok(Agent::resolve(&files, environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Path, more: &[(&str, &str)]) -> Environment {
        let home = ("HOME".to_owned(), home.display().to_string());
        let more = more
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Environment::of(std::iter::once(home).chain(more))
    }

    #[test]
    fn s53_files_are_read_in_the_documented_order() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        write(
            "trains.conf",
            "agent { git_user: trains, git_host: trains }",
        );
        write("jarvis.conf", "agent { git_user: jarvis }");
        write("clearml.conf", "include \"more.inc\"\nagent.git_pass: x");
        write("more.inc", "agent { git_user: included }");
        let user = |environment: &Environment| {
            let agent = read(None, environment).unwrap();
            (
                agent.text("agent.git_user").unwrap(),
                agent.text("agent.git_host").unwrap_or_default(),
            )
        };
        assert_eq!(
            user(&environment(home.path(), &[])),
            ("included".into(), "trains".into())
        );
        let only = home.path().join("jarvis.conf").display().to_string();
        assert_eq!(
            user(&environment(
                home.path(),
                &[("TRAINS_CONFIG_FILE", only.as_str())]
            )),
            ("jarvis".into(), String::new())
        );
        let folder = home.path().join("more");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.conf"), "agent.git_user: folder").unwrap();
        let folder = folder.display().to_string();
        assert_eq!(
            user(&environment(home.path(), &[(FOLDER, folder.as_str())])).0,
            "folder"
        );
        write("clearml.conf", "agent {");
        let error = read(None, &environment(home.path(), &[])).unwrap_err();
        assert!(error.contains("clearml.conf, line 1: "), "{error}");
    }
}
