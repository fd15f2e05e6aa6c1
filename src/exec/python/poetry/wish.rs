//! PURE: a dependency as it is written, by PEP 508 or by Poetry -> what is wanted, if anything is for this Python.

use std::collections::BTreeSet;

use toml::Value;

use crate::exec::python::list::package_name;
use crate::exec::python::marker::{Facts, holds};
use crate::exec::python::version::{Version, allows};

/// Something that is wanted: of the project, or of a package.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub name: String,
    pub constraint: String,
    pub extras: BTreeSet<String>,
}

/// A requirement as PEP 508 writes it: `name[extra] (>=1) ; marker`.
pub(super) fn of_text(
    text: &str,
    extras: &BTreeSet<String>,
    facts: &Facts,
) -> Result<Option<Wish>, String> {
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
pub(super) fn of_dependency(
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

pub(super) fn suits_python(wanted: &str, facts: &Facts) -> bool {
    let version = facts
        .get("python_full_version")
        .and_then(|version| version.parse().ok());
    version.is_none_or(|version: Version| allows(wanted, &version).unwrap_or(true))
}
