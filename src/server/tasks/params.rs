//! Hyperparameters, configuration objects and runtime properties (§2.3, §3.2).

use serde_json::{Value, json};

use super::super::call::{required, wrong};
use super::super::wire::Refusal;
use super::{Answer, Call, Doc, asked, doc, rules, save, touch};
use crate::task::Status;

const RUNNING: [Status; 2] = [Status::Queued, Status::InProgress];

/// Items of `{section: {name: item}}` know their own section and name; values are strings (§3.1).
pub(super) fn complete_sections(sections: &mut Doc) -> Result<(), Refusal> {
    for (section, items) in sections.iter_mut() {
        let items = items
            .as_object_mut()
            .ok_or_else(|| wrong("hyperparams", "an object of objects"))?;
        for (name, item) in items.iter_mut() {
            let item = item
                .as_object_mut()
                .ok_or_else(|| wrong("hyperparams", "an object of objects"))?;
            item.entry("section")
                .or_insert_with(|| section.as_str().into());
            item.entry("name").or_insert_with(|| name.as_str().into());
            item.retain(|_, value| !value.is_null());
            value_as_text(item);
        }
    }
    Ok(())
}

/// Items of `{name: item}` know their own name.
pub(super) fn complete_items(items: &mut Doc) -> Result<(), Refusal> {
    for (name, item) in items.iter_mut() {
        let item = item
            .as_object_mut()
            .ok_or_else(|| wrong("configuration", "an object of objects"))?;
        item.entry("name").or_insert_with(|| name.as_str().into());
        item.retain(|_, value| !value.is_null());
    }
    Ok(())
}

fn member<'d>(item: &'d Doc, key: &str) -> Result<&'d str, Refusal> {
    item.get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| required(key))
}

/// A hyperparameter as it is stored.
fn parameter(item: &Doc) -> Doc {
    let mut kept = doc::project(item, &["section", "name", "value", "type", "description"]);
    kept.retain(|_, value| !value.is_null());
    value_as_text(&mut kept);
    kept
}

fn value_as_text(item: &mut Doc) {
    if let Some(value) = item.get_mut("value")
        && !value.is_string()
    {
        *value = value.to_string().into();
    }
}

/// The section `properties` may be edited in any status (§2.3).
fn check_sections(task: &Doc, items: &[&Doc], force: bool) -> Result<(), Refusal> {
    let of_properties = |item: &&Doc| doc::text(item, "section") == "properties";
    // No item at all may still say that everything is replaced.
    if !items.is_empty() && items.iter().all(of_properties) {
        return Ok(());
    }
    rules::editable(task, if force { &RUNNING } else { &[] }, false)
}

fn saved(call: &Call, task: &mut Doc, key: &str) -> Answer {
    touch(call, task);
    save(call.db, task)?;
    Ok(json!({(key): 1}))
}

/// `tasks.edit_hyper_params`
pub(crate) fn edit_hyper_params(call: &Call) -> Answer {
    let mut task = asked(call)?;
    let items = call.objects("hyperparams")?;
    check_sections(&task, &items, call.flag("force")?)?;
    let all = doc::object_at(&mut task, "hyperparams");
    match call.text_or_none("replace_hyperparams")?.unwrap_or("none") {
        "all" => all.clear(),
        "section" => {
            for item in &items {
                all.shift_remove(member(item, "section")?);
            }
        }
        "none" => {}
        other => {
            return Err(Refusal::invalid(format_args!(
                "unknown replace_hyperparams: {other}"
            )));
        }
    }
    for item in items {
        let section = member(item, "section")?;
        doc::object_at(all, section)
            .insert(member(item, "name")?.to_owned(), parameter(item).into());
    }
    saved(call, &mut task, "updated")
}

/// `tasks.delete_hyper_params`
pub(crate) fn delete_hyper_params(call: &Call) -> Answer {
    let mut task = asked(call)?;
    let items = call.objects("hyperparams")?;
    check_sections(&task, &items, call.flag("force")?)?;
    let all = doc::object_at(&mut task, "hyperparams");
    for item in items {
        let section = member(item, "section")?;
        match item.get("name").and_then(Value::as_str) {
            None => {
                all.shift_remove(section);
            }
            Some(name) => {
                let left = doc::object_at(all, section);
                left.shift_remove(name);
                if left.is_empty() {
                    all.shift_remove(section);
                }
            }
        }
    }
    saved(call, &mut task, "deleted")
}

/// `tasks.get_hyper_params`
pub(crate) fn get_hyper_params(call: &Call) -> Answer {
    let mut params = Vec::new();
    for id in call.texts_required("tasks")? {
        let Some(task) = super::find(call.db, id)? else {
            continue;
        };
        let sections = task.get("hyperparams").and_then(Value::as_object);
        let items: Vec<&Value> = sections
            .into_iter()
            .flat_map(Doc::values)
            .filter_map(Value::as_object)
            .flat_map(Doc::values)
            .collect();
        params.push(json!({"task": id, "hyperparams": items}));
    }
    Ok(json!({"params": params}))
}

/// `tasks.edit_configuration`
pub(crate) fn edit_configuration(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(
        &task,
        if call.flag("force")? { &RUNNING } else { &[] },
        false,
    )?;
    let replace = call.flag("replace_configuration")?;
    let all = doc::object_at(&mut task, "configuration");
    if replace {
        all.clear();
    }
    for item in call.objects("configuration")? {
        let mut kept = doc::project(item, &["name", "value", "type", "description"]);
        kept.retain(|_, value| !value.is_null());
        all.insert(member(item, "name")?.to_owned(), kept.into());
    }
    saved(call, &mut task, "updated")
}

/// `tasks.delete_configuration`
pub(crate) fn delete_configuration(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(
        &task,
        if call.flag("force")? { &RUNNING } else { &[] },
        false,
    )?;
    let all = doc::object_at(&mut task, "configuration");
    for name in call.texts_required("configuration")? {
        all.shift_remove(name);
    }
    saved(call, &mut task, "deleted")
}

/// `tasks.get_configurations`
pub(crate) fn get_configurations(call: &Call) -> Answer {
    let names = call.texts("names")?;
    let mut configurations = Vec::new();
    for id in call.texts_required("tasks")? {
        let Some(task) = super::find(call.db, id)? else {
            continue;
        };
        let all = task.get("configuration").and_then(Value::as_object);
        let wanted = |name: &String| names.is_empty() || names.contains(&name.as_str());
        let items: Vec<&Value> = all
            .into_iter()
            .flatten()
            .filter(|(name, _)| wanted(name))
            .map(|(_, item)| item)
            .collect();
        configurations.push(json!({"task": id, "configuration": items}));
    }
    Ok(json!({"configurations": configurations}))
}

/// `tasks.get_configuration_names`: those with a value, unless all are asked for; tasks that have none are left out.
pub(crate) fn get_configuration_names(call: &Call) -> Answer {
    let skip_empty = call.flag_or("skip_empty", true)?;
    let mut configurations = Vec::new();
    for id in call.texts_required("tasks")? {
        let Some(task) = super::find(call.db, id)? else {
            continue;
        };
        let items = task.get("configuration").and_then(Value::as_object);
        let mut names: Vec<&String> = items
            .into_iter()
            .flatten()
            .filter(|(_, item)| !(skip_empty && (item["value"].is_null() || item["value"] == "")))
            .map(|(name, _)| name)
            .collect();
        if names.is_empty() {
            continue;
        }
        names.sort_unstable();
        configurations.push(json!({"task": id, "names": names}));
    }
    Ok(json!({"configurations": configurations}))
}

/// `tasks.edit_runtime`: key by key, without a read before it.
pub(crate) fn edit_runtime(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(&task, &RUNNING, call.flag("force")?)?;
    let add = call.object("add_or_update")?.cloned().unwrap_or_default();
    let remove = call.texts("remove")?;
    if add.is_empty() && remove.is_empty() {
        return Ok(json!({"updated": 0}));
    }
    let runtime = doc::object_at(&mut task, "runtime");
    runtime.extend(add);
    for key in remove {
        runtime.shift_remove(key);
    }
    saved(call, &mut task, "updated")
}
