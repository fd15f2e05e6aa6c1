//! PURE: a package of `poetry.lock`: whether a wish means it, and the requirement that it amounts to.

use std::collections::BTreeSet;
use std::fmt::Write;

use toml::{Table, Value};

use super::wish::{Wish, suits_python};
use crate::exec::python::list::package_name;
use crate::exec::python::marker::{Facts, holds};
use crate::exec::python::version::{Version, allows};

/// The locked package that a wish means.
pub(super) fn candidate(packages: &[&Table], wish: &Wish, facts: &Facts) -> Option<usize> {
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

/// What is installed of a locked package.
pub(super) enum Line {
    Exact(String),
    Local(String),
}

/// A locked package as a requirement; an index of its own is added to `indexes`.
pub(super) fn line(
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
