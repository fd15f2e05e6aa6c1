//! `tasks.clone`: what a copy takes along, and what it starts anew (§2.3).

use serde_json::{Value, json};

use super::super::wire::{Refusal, Version, new_id};
use super::super::{projects, query, versions};
use super::{
    Answer, Call, Doc, asked, attached, check_project, checked_name, doc, params, save, touch,
};

/// Members that a copy takes along as they are.
const TAKEN: [&str; 12] = [
    "company",
    "name",
    "comment",
    "type",
    "tags",
    "system_tags",
    "project",
    "script",
    "container",
    "hyperparams",
    "configuration",
    "execution",
];

/// `tasks.clone`
pub(crate) fn clone(call: &Call) -> Answer {
    let (task, new_project) = copy(call)?;
    let mut answer = json!({"id": task["id"]});
    if let Some(project) = new_project {
        answer["new_project"] = project;
    }
    Ok(answer)
}

/// Stores a copy of the task that the request names; the copy, and the project that was named for it.
pub(crate) fn copy(call: &Call) -> Result<(Doc, Option<Value>), Refusal> {
    let source = asked(call)?;
    let mut task = Doc::new();
    task.insert("id".into(), new_id().into());
    task.insert("user".into(), call.user().into());
    task.extend(doc::project(&source, &TAKEN));
    for (key, value) in [
        ("status", json!("created")),
        ("report_assets", json!([])),
        ("created", json!(call.now)),
        ("output", json!({})),
        ("last_iteration", json!(0)),
        ("unique_metrics", json!([])),
        ("metric_stats", json!({})),
        ("runtime", json!({})),
        ("models", json!({"input": [], "output": []})),
    ] {
        task.insert(key.into(), value);
    }
    if let Some(destination) = doc::get(&source, "output.destination") {
        doc::set(&mut task, "output.destination", destination.clone());
    }
    if let Some(input) = doc::get(&source, "models.input") {
        doc::set(&mut task, "models.input", input.clone());
    }
    start_anew(&mut task);
    let parent = Some(doc::text(&source, "parent"))
        .filter(|id| !id.is_empty())
        .unwrap_or(doc::text(&source, "id"));
    task.insert("parent".into(), parent.into());
    let new_project = overrides(call, &mut task)?;
    touch(call, &mut task);
    save(call.db, &task)?;
    Ok((task, new_project))
}

/// Drops the queue, the artifacts that the source put out, and the tags that belong to its run.
fn start_anew(task: &mut Doc) {
    doc::unset(task, "execution.queue");
    if let Some(Value::Array(artifacts)) = doc::object_at(task, "execution").get_mut("artifacts") {
        artifacts.retain(|artifact| artifact["mode"] == "input");
    }
    if let Some(Value::Array(tags)) = task.get_mut("system_tags") {
        tags.retain(|tag| tag != "development" && tag != "archived");
    }
}

fn overrides(call: &Call, task: &mut Doc) -> Result<Option<Value>, Refusal> {
    for (ask, key) in [
        ("new_task_name", "name"),
        ("new_task_comment", "comment"),
        ("new_task_parent", "parent"),
    ] {
        if let Some(text) = call.text_or_none(ask)? {
            let text = if key == "name" {
                checked_name(text)?
            } else {
                text
            };
            task.insert(key.into(), text.into());
        }
    }
    for (ask, key) in [
        ("new_task_tags", "tags"),
        ("new_task_system_tags", "system_tags"),
    ] {
        if call.value(ask).is_some() {
            task.insert(key.into(), query::tags(&call.texts(ask)?));
        }
    }
    if let Some(sections) = call.object("new_task_hyperparams")? {
        let mut sections = sections.clone();
        params::complete_sections(&mut sections)?;
        task.insert("hyperparams".into(), sections.into());
    }
    if let Some(items) = call.object("new_task_configuration")? {
        let mut items = items.clone();
        params::complete_items(&mut items)?;
        task.insert("configuration".into(), items.into());
    }
    if let Some(container) = call.object("new_task_container")? {
        task.insert("container".into(), container.clone().into());
    }
    if let Some(Value::Array(models)) = call.value("new_task_input_models") {
        doc::set(task, "models.input", models.clone().into());
    }
    if let Some(execution) = call.object("execution_overrides")? {
        let mut execution = execution.clone();
        execution.retain(|key, value| !value.is_null() && key != "queue");
        if let Some(Value::Array(items)) = execution.get("artifacts") {
            let mut artifacts = items
                .iter()
                .filter_map(Value::as_object)
                .map(attached::artifact)
                .collect::<Result<Vec<_>, _>>()?;
            attached::sort(&mut artifacts);
            execution.insert(
                "artifacts".into(),
                artifacts.into_iter().map(Value::Object).collect(),
            );
        }
        doc::object_at(task, "execution").extend(execution);
        if call.request.version < Version(2, 13) {
            versions::take_docker_command(task);
            versions::take_models(task, &call.now);
        }
    }
    project(call, task)
}

fn project(call: &Call, task: &mut Doc) -> Result<Option<Value>, Refusal> {
    if let Some(id) = call.text_or_none("new_task_project")? {
        check_project(call, id)?;
        task.insert("project".into(), id.into());
    } else if let Some(name) = call.text_or_none("new_project_name")? {
        let id = projects::named(call, name)?;
        task.insert("project".into(), id.clone().into());
        return Ok(Some(json!({"id": id, "name": name})));
    }
    Ok(None)
}
