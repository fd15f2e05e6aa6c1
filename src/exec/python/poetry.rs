//! PURE: `pyproject.toml` and `poetry.lock` -> exactly what is to be installed here, hashes included.
//!
//! ```text
//! dependencies of the project and its groups ──▶ follow each package's own dependencies through the lock,
//!     markers judged for this Python ──▶ name==version --hash=… of each package that was reached
//! ```
//!
//! Poetry itself is not needed: its lock says everything, and uv installs it. Formats 1.0 (Poetry 1.0) to 2.1 are read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use toml::{Table, Value};

use super::list::package_name;
use super::marker::{Facts, holds};
use super::version::{Version, allows, as_pep440};

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

/// Something that is wanted: of the project, or of a package.
#[derive(Debug, Clone)]
struct Wish {
    name: String,
    constraint: String,
    extras: BTreeSet<String>,
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

/// What the project asks for by itself.
fn wishes(project: &Table, choice: &Choice, facts: &Facts) -> Result<Vec<Wish>, String> {
    let poetry = project.get("tool").and_then(|tool| tool.get("poetry"));
    let mut wishes = Vec::new();
    let main = choice.only.is_empty() || choice.only.iter().any(|group| group == "main");
    let extras = if choice.all_extras {
        all_extras(project, poetry)
    } else {
        choice.extras.clone()
    };
    if main {
        let of_project = project
            .get("project")
            .and_then(|project| project.get("dependencies"));
        for written in of_project.and_then(Value::as_array).into_iter().flatten() {
            wishes.extend(of_text(
                written.as_str().unwrap_or_default(),
                &extras,
                facts,
            )?);
        }
        if let Some(optional) = project
            .get("project")
            .and_then(|project| project.get("optional-dependencies"))
            .and_then(Value::as_table)
        {
            for (_, list) in optional
                .iter()
                .filter(|(name, _)| extras.contains(&package_name(name)))
            {
                for written in list.as_array().into_iter().flatten() {
                    wishes.extend(of_text(
                        written.as_str().unwrap_or_default(),
                        &extras,
                        facts,
                    )?);
                }
            }
        }
        let table = poetry
            .and_then(|poetry| poetry.get("dependencies"))
            .and_then(Value::as_table);
        let chosen = chosen_by_extras(poetry, &extras);
        for (name, value) in table
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != "python")
        {
            let optional = value
                .get("optional")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            if !optional || chosen.contains(&package_name(name)) {
                wishes.extend(of_dependency(name, value, &extras, facts)?);
            }
        }
    }
    for (group, table) in groups(project, poetry) {
        let optional = table.1;
        let asked = choice.with.contains(&group) || choice.only.contains(&group);
        if choice.without.contains(&group) || (!choice.only.is_empty() || optional) && !asked {
            continue;
        }
        for (name, value) in table.0 {
            match value {
                Value::String(text) if name.is_empty() => {
                    wishes.extend(of_text(&text, &extras, facts)?);
                }
                value => wishes.extend(of_dependency(&name, &value, &extras, facts)?),
            }
        }
    }
    Ok(wishes)
}

/// The groups of a project: their dependencies, and whether they have to be asked for.
type Group = (Vec<(String, Value)>, bool);

fn groups(project: &Table, poetry: Option<&Value>) -> Vec<(String, Group)> {
    let pairs = |table: &Table| {
        table
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let mut groups = Vec::new();
    if let Some(dev) = poetry
        .and_then(|poetry| poetry.get("dev-dependencies"))
        .and_then(Value::as_table)
    {
        groups.push(("dev".to_owned(), (pairs(dev), false)));
    }
    let of_poetry = poetry
        .and_then(|poetry| poetry.get("group"))
        .and_then(Value::as_table);
    for (name, group) in of_poetry.into_iter().flatten() {
        let optional = group
            .get("optional")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        if let Some(table) = group.get("dependencies").and_then(Value::as_table) {
            groups.push((name.clone(), (pairs(table), optional)));
        }
    }
    let of_project = project.get("dependency-groups").and_then(Value::as_table);
    for (name, list) in of_project.into_iter().flatten() {
        let lines = list
            .as_array()
            .into_iter()
            .flatten()
            .filter(|value| value.is_str());
        groups.push((
            name.clone(),
            (
                lines.map(|value| (String::new(), value.clone())).collect(),
                false,
            ),
        ));
    }
    groups
}

fn all_extras(project: &Table, poetry: Option<&Value>) -> BTreeSet<String> {
    let of_poetry = poetry.and_then(|poetry| poetry.get("extras"));
    let of_project = project
        .get("project")
        .and_then(|project| project.get("optional-dependencies"));
    [of_poetry, of_project]
        .into_iter()
        .flatten()
        .filter_map(Value::as_table)
        .flat_map(|table| {
            table
                .keys()
                .map(|name| package_name(name))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The optional packages that the chosen extras name.
fn chosen_by_extras(poetry: Option<&Value>, extras: &BTreeSet<String>) -> BTreeSet<String> {
    let table = poetry
        .and_then(|poetry| poetry.get("extras"))
        .and_then(Value::as_table);
    table
        .into_iter()
        .flatten()
        .filter(|(name, _)| extras.contains(&package_name(name)))
        .flat_map(|(_, list)| list.as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(package_name))
        .collect()
}

/// A requirement as PEP 508 writes it: `name[extra] (>=1) ; marker`.
fn of_text(text: &str, extras: &BTreeSet<String>, facts: &Facts) -> Result<Option<Wish>, String> {
    let (text, marker) = text.split_once(';').unwrap_or((text, ""));
    if !marker.trim().is_empty() && !judged(marker, facts, extras)? {
        return Ok(None);
    }
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut own = BTreeSet::new();
    rest = rest.trim_start();
    if let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        own.extend(inside.split(',').map(|extra| package_name(extra.trim())));
        rest = after;
    }
    let rest = rest.trim().trim_start_matches('(').trim_end_matches(')');
    let constraint = if rest.starts_with('@') { "" } else { rest };
    Ok(Some(Wish {
        name: package_name(name),
        constraint: constraint.trim().to_owned(),
        extras: own,
    }))
}

fn judged(marker: &str, facts: &Facts, extras: &BTreeSet<String>) -> Result<bool, String> {
    holds(marker, facts, extras).ok_or_else(|| format!("the marker {marker:?} cannot be read"))
}

/// A dependency as Poetry writes it: a constraint, a table, or a list of tables for different markers.
fn of_dependency(
    name: &str,
    value: &Value,
    extras: &BTreeSet<String>,
    facts: &Facts,
) -> Result<Vec<Wish>, String> {
    let wish = |constraint: &str, extras: BTreeSet<String>| Wish {
        name: package_name(name),
        constraint: constraint.to_owned(),
        extras,
    };
    match value {
        Value::String(constraint) => Ok(vec![wish(constraint, BTreeSet::new())]),
        Value::Array(several) => {
            let mut wishes = Vec::new();
            for value in several {
                wishes.extend(of_dependency(name, value, extras, facts)?);
            }
            Ok(wishes)
        }
        Value::Table(table) => {
            let text = |key: &str| table.get(key).and_then(Value::as_str);
            if let Some(marker) = text("markers")
                && !judged(marker, facts, extras)?
            {
                return Ok(Vec::new());
            }
            if let Some(platform) = text("platform")
                && facts.get("sys_platform").is_some_and(|own| own != platform)
            {
                return Ok(Vec::new());
            }
            if let Some(python) = text("python")
                && !suits_python(python, facts)
            {
                return Ok(Vec::new());
            }
            let of_list = table.get("extras").and_then(Value::as_array);
            let own = of_list
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(package_name);
            Ok(vec![wish(text("version").unwrap_or("*"), own.collect())])
        }
        _ => Ok(Vec::new()),
    }
}

fn suits_python(wanted: &str, facts: &Facts) -> bool {
    let version = facts
        .get("python_full_version")
        .and_then(|version| version.parse().ok());
    version.is_none_or(|version: Version| allows(wanted, &version).unwrap_or(true))
}

/// The locked package that a wish means.
fn candidate(packages: &[&Table], wish: &Wish, facts: &Facts) -> Option<usize> {
    let named = packages.iter().enumerate().filter(|(_, package)| {
        package
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| package_name(name) == wish.name)
    });
    let fits = |package: &Table| {
        let text = |key: &str| package.get(key).and_then(Value::as_str);
        let python = text("python-versions").is_none_or(|python| suits_python(python, facts));
        let marker = match package.get("markers") {
            Some(Value::String(marker)) => holds(marker, facts, &BTreeSet::new()).unwrap_or(true),
            Some(Value::Table(markers)) => markers
                .values()
                .filter_map(Value::as_str)
                .any(|marker| holds(marker, facts, &BTreeSet::new()).unwrap_or(true)),
            _ => true,
        };
        let version = text("version").and_then(|version| version.parse::<Version>().ok());
        let version =
            version.is_none_or(|version| allows(&wish.constraint, &version).unwrap_or(true));
        (python && marker, version)
    };
    let mut usable: Vec<(usize, bool)> = named
        .map(|(index, package)| (index, fits(package)))
        .filter(|(_, (here, _))| *here)
        .map(|(index, (_, version))| (index, version))
        .collect();
    // A lock was checked when it was written: a constraint only chooses between several entries of one name.
    usable.sort_by_key(|(_, version)| !version);
    usable.first().map(|(index, _)| *index)
}

enum Line {
    Exact(String),
    Local(String),
}

fn line(
    package: &Table,
    hashes: Option<&Table>,
    indexes: &mut BTreeSet<String>,
) -> Result<Line, String> {
    let text = |key: &str| package.get(key).and_then(Value::as_str);
    let (Some(name), Some(version)) = (text("name"), text("version")) else {
        return Err("poetry.lock has a package without name or version".to_owned());
    };
    if let Some(source) = package.get("source") {
        let of = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
        let subdirectory = match of("subdirectory") {
            "" => String::new(),
            folder => format!("#subdirectory={folder}"),
        };
        match of("type") {
            "git" => {
                let (url, commit) = (of("url"), of("resolved_reference"));
                let url = if url.contains("://") {
                    url.to_owned()
                } else {
                    format!("ssh://{}", url.replacen(':', "/", 1))
                };
                return Ok(Line::Exact(format!(
                    "{name} @ git+{url}@{commit}{subdirectory}"
                )));
            }
            "url" => return Ok(Line::Exact(format!("{name} @ {}{subdirectory}", of("url")))),
            "file" => return Ok(Line::Local(of("url").to_owned())),
            "directory" => {
                let editable = package
                    .get("develop")
                    .and_then(Value::as_bool)
                    .unwrap_or(false);
                let flag = if editable { "-e " } else { "" };
                return Ok(Line::Local(format!("{flag}{}", of("url"))));
            }
            "legacy" => {
                indexes.insert(format!("--extra-index-url {}", of("url")));
            }
            _ => {}
        }
    }
    let files = package
        .get("files")
        .or_else(|| hashes.and_then(|table| table.get(name)))
        .and_then(Value::as_array);
    let mut line = format!("{name}=={version}");
    for hash in files
        .into_iter()
        .flatten()
        .filter_map(|file| file.get("hash")?.as_str())
    {
        let _ = write!(line, " --hash={hash}");
    }
    Ok(Line::Exact(line))
}

/// Whether `poetry install` installs the project itself.
fn is_package(project: &Table) -> bool {
    let poetry = project.get("tool").and_then(|tool| tool.get("poetry"));
    let mode = poetry
        .and_then(|poetry| poetry.get("package-mode"))
        .and_then(Value::as_bool);
    mode != Some(false) && project.contains_key("build-system")
}

#[cfg(test)]
mod tests;
