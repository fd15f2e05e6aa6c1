//! PURE: `pyproject.toml` and `poetry.lock` -> exactly what is to be installed here, hashes included.
//!
//! ```text
//! dependencies of the project and its groups ──▶ follow each package's own dependencies through the lock,
//!     markers judged for this Python ──▶ name==version --hash=… of each package that was reached
//! ```
//!
//! Poetry itself is not needed: its lock says everything, and uv installs it. Formats 1.0 (Poetry 1.0) to 2.1 are read.

mod package;
mod project;
mod wish;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use toml::{Table, Value};

use self::package::{Line, candidate, line};
use self::project::{is_package, wishes};
use self::wish::{Wish, of_dependency};
use super::list::package_name;
use super::marker::Facts;
use super::version::as_pep440;

/// What of the project is installed, as the arguments of `poetry install` choose it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub with: Vec<String>,
    pub without: Vec<String>,
    pub only: Vec<String>,
    pub extras: BTreeSet<String>,
    pub all_extras: bool,
    pub no_root: bool,
}

/// What a lock amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locked {
    /// Requirements with exact versions, indexes in front.
    pub list: String,
    /// What lies in the repository: files and folders, relative to the lock.
    pub local: Vec<String>,
    /// The project itself is a package to be installed.
    pub root: bool,
}

impl Choice {
    /// Reads arguments of `poetry install`; those without effect here are the second value.
    pub fn read(arguments: &[String]) -> (Self, Vec<String>) {
        let (mut choice, mut unknown) = (Self::default(), Vec::new());
        let mut words = arguments.iter().flat_map(|argument| argument.split('='));
        while let Some(word) = words.next() {
            let mut list = || -> Vec<String> {
                let value = words.next().unwrap_or_default();
                value
                    .split([',', ' '])
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            match word {
                "--with" => choice.with.extend(list()),
                "--without" => choice.without.extend(list()),
                "--only" => choice.only.extend(list()),
                "--extras" | "-E" => choice
                    .extras
                    .extend(list().iter().map(|name| package_name(name))),
                "--all-extras" => choice.all_extras = true,
                "--no-root" => choice.no_root = true,
                "--no-dev" => choice.without.push("dev".to_owned()),
                "-n" | "--no-interaction" | "-q" | "-v" | "--no-ansi" | "--sync" => {}
                other => unknown.push(other.to_owned()),
            }
        }
        (choice, unknown)
    }
}

/// What `poetry install` would install for this Python; the error is a sentence's end.
pub fn locked(project: &str, lock: &str, choice: &Choice, facts: &Facts) -> Result<Locked, String> {
    let project = read("pyproject.toml", project)?;
    let lock = read("poetry.lock", lock)?;
    let packages = lock.get("package").and_then(Value::as_array);
    let packages: Vec<&Table> = packages
        .into_iter()
        .flatten()
        .filter_map(Value::as_table)
        .collect();
    let mut wishes: VecDeque<Wish> = wishes(&project, choice, facts)?.into();
    if packages.is_empty() && !wishes.is_empty() {
        return Err("poetry.lock holds no package: run `poetry lock` and commit it".to_owned());
    }
    // Which extras of a package were followed already.
    let mut reached: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    while let Some(wish) = wishes.pop_front() {
        let found = candidate(&packages, &wish, facts).ok_or_else(|| {
            format!(
                "poetry.lock has no {} {} for this Python: run `poetry lock` and commit it",
                wish.name, wish.constraint
            )
        })?;
        let known = reached.get(&found);
        if known.is_some_and(|extras| wish.extras.is_subset(extras)) {
            continue;
        }
        let extras = known.cloned().unwrap_or_default();
        let extras: BTreeSet<String> = extras.union(&wish.extras).cloned().collect();
        if let Some(dependencies) = packages[found]
            .get("dependencies")
            .and_then(Value::as_table)
        {
            for (name, value) in dependencies {
                wishes.extend(of_dependency(name, value, &extras, facts)?);
            }
        }
        reached.insert(found, extras);
    }
    let hashes = lock
        .get("metadata")
        .and_then(|metadata| metadata.get("files"))
        .and_then(Value::as_table);
    let mut locked = Locked {
        root: !choice.no_root && is_package(&project),
        ..Locked::default()
    };
    let mut indexes = BTreeSet::new();
    let mut lines = BTreeSet::new();
    for package in reached.keys().map(|index| packages[*index]) {
        match line(package, hashes, &mut indexes)? {
            Line::Exact(line) => {
                lines.insert(line);
            }
            Line::Local(line) => locked.local.push(line),
        }
    }
    locked.list = indexes
        .into_iter()
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n");
    Ok(locked)
}

/// The dependencies of a project that has no lock, as a list to be resolved; with remarks on what has no such form.
pub fn unlocked(
    project: &str,
    choice: &Choice,
    facts: &Facts,
) -> Result<(String, Vec<String>), String> {
    let project = read("pyproject.toml", project)?;
    let (mut list, mut notes) = (String::new(), Vec::new());
    for wish in wishes(&project, choice, facts)? {
        let extras: Vec<&str> = wish.extras.iter().map(String::as_str).collect();
        let extras = if extras.is_empty() {
            String::new()
        } else {
            format!("[{}]", extras.join(","))
        };
        let constraint = as_pep440(&wish.constraint).unwrap_or_else(|| {
            notes.push(format!(
                "{} {:?} of pyproject.toml cannot be written as a requirement: any version is taken",
                wish.name, wish.constraint
            ));
            String::new()
        });
        let _ = writeln!(list, "{}{extras}{constraint}", wish.name);
    }
    Ok((list, notes))
}

fn read(name: &str, text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].lines().count());
        format!("{name} cannot be read: {} (line {line})", error.message())
    })
}

#[cfg(test)]
mod tests;
