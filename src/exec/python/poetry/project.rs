//! PURE: `pyproject.toml` -> what the project wants, with the groups and extras that were chosen.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::Choice;
use super::wish::{Wish, of_dependency, of_text};
use crate::exec::python::list::package_name;
use crate::exec::python::marker::Facts;

/// What the project asks for by itself.
pub(super) fn wishes(project: &Table, choice: &Choice, facts: &Facts) -> Result<Vec<Wish>, String> {
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

/// Whether `poetry install` installs the project itself.
pub(super) fn is_package(project: &Table) -> bool {
    let poetry = project.get("tool").and_then(|tool| tool.get("poetry"));
    let mode = poetry
        .and_then(|poetry| poetry.get("package-mode"))
        .and_then(Value::as_bool);
    mode != Some(false) && project.contains_key("build-system")
}
