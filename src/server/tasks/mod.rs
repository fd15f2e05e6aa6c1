//! The `tasks` service (`protocol.md` §2.3): the rows, and making and reading tasks.
//!
//! ```text
//! mod.rs     rows, create, validate        status.rs    status calls and their *_many forms
//! read.rs    get_by_id, get_all and _ex    remove.rs    reset, delete, archive
//! edit.rs    edit, update, requirements    params.rs    hyperparameters, configuration, runtime
//! clone.rs   clone                         attached.rs  artifacts and models
//! steps.rs   steps of pipelines
//! ```

pub(crate) mod attached;
pub(crate) mod clone;
pub(crate) mod edit;
pub(crate) mod params;
pub(crate) mod read;
pub(crate) mod remove;
pub(crate) mod status;
mod steps;

use rusqlite::{Connection, params as values};
use serde_json::{Value, json};

use super::auth::COMPANY;
use super::call::{Call, wrong};
use super::doc;
use super::query;
use super::rules;
use super::wire::{Answer, Doc, Refusal, Version, new_id};
use super::{projects, versions};

/// Words for `type` (§3.1).
const TYPES: [&str; 12] = [
    "training",
    "testing",
    "inference",
    "data_processing",
    "application",
    "monitor",
    "controller",
    "report",
    "optimizer",
    "service",
    "qc",
    "custom",
];

// ---- rows ----

/// Writes a task's document and the columns taken from it.
pub(super) fn save(db: &Connection, task: &Doc) -> Result<(), Refusal> {
    let own = |key| Some(doc::text(task, key)).filter(|text| !text.is_empty());
    let hidden = doc::strings(task, "system_tags").contains(&"hidden");
    let row = values![
        doc::text(task, "id"),
        serde_json::to_string(task)?,
        doc::text(task, "name"),
        doc::text(task, "status"),
        doc::text(task, "type"),
        own("project"),
        own("parent"),
        own("user"),
        doc::text(task, "created"),
        doc::text(task, "last_update"),
        hidden,
    ];
    // Nearly always only the document and the date change; then the indexes over the rest need no work.
    let changed = db
        .prepare_cached(
            "UPDATE tasks SET doc = ?2, last_update = ?10 WHERE id = ?1 AND name = ?3 AND status = ?4 AND type = ?5
                 AND project IS ?6 AND parent IS ?7 AND user IS ?8 AND created = ?9 AND hidden = ?11",
        )?
        .execute(row)?;
    if changed > 0 {
        return Ok(());
    }
    db.prepare_cached(
        "INSERT INTO tasks (id, doc, name, status, type, project, parent, user, created, last_update, hidden)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET doc = excluded.doc, name = excluded.name, status = excluded.status,
             type = excluded.type, project = excluded.project, parent = excluded.parent, user = excluded.user,
             last_update = excluded.last_update, hidden = excluded.hidden",
    )?
    .execute(row)?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: &str) -> Result<Option<Doc>, Refusal> {
    query::one(db, "SELECT doc FROM tasks WHERE id = ?1", id)
}

/// The task, or 400/101.
pub(super) fn known(db: &Connection, id: &str) -> Result<Doc, Refusal> {
    find(db, id)?.ok_or_else(|| Refusal::unknown_id(101, "Invalid task id", id, COMPANY))
}

/// The task that the request names.
pub(super) fn asked(call: &Call) -> Result<Doc, Refusal> {
    known(call.db, call.text("task")?)
}

/// Notes a change of what a task is called or filed under: that is no sign of life of its run (§3.1).
pub(super) fn note_change(call: &Call, task: &mut Doc) {
    task.insert("last_change".into(), call.now.clone().into());
    task.insert("last_changed_by".into(), call.user().into());
}

/// Notes any other change that is no status call (§3.1).
pub(super) fn touch(call: &Call, task: &mut Doc) {
    note_change(call, task);
    task.insert("last_update".into(), call.now.clone().into());
}

/// Notes a sign of life of the run.
pub(super) fn refresh(call: &Call, task: &mut Doc) {
    touch(call, task);
    if let Some(seconds) = rules::active_duration(task, call.at) {
        task.insert("active_duration".into(), seconds.into());
    }
}

// ---- endpoints ----

/// `tasks.create`
pub(crate) fn create(call: &Call) -> Answer {
    let task = new_task(call)?;
    save(call.db, &task)?;
    Ok(json!({"id": task["id"]}))
}

/// `tasks.validate`
pub(crate) fn validate(call: &Call) -> Answer {
    new_task(call)?;
    Ok(json!({}))
}

fn new_task(call: &Call) -> Result<Doc, Refusal> {
    let name = call.text("name")?;
    let kind = call.text("type")?;
    let mut task = Doc::new();
    let user = call.user();
    for (key, value) in [
        ("id", json!(new_id())),
        ("company", json!(COMPANY)),
        ("user", json!(user)),
        ("name", json!(checked_name(name)?)),
        ("type", json!(checked_type(kind)?)),
        ("status", json!("created")),
        ("report_assets", json!([])),
        ("created", json!(call.now)),
        ("output", json!({})),
        ("execution", rules::new_execution()),
        ("tags", json!([])),
        ("system_tags", json!([])),
        ("script", rules::new_script()),
        ("last_iteration", json!(0)),
        ("unique_metrics", json!([])),
        ("metric_stats", json!({})),
        ("hyperparams", json!({})),
        ("configuration", json!({})),
        ("runtime", json!({})),
        ("models", json!({"input": [], "output": []})),
        ("container", json!({})),
    ] {
        task.insert(key.into(), value);
    }
    touch(call, &mut task);
    write_members(call, &mut task)?;
    Ok(task)
}

fn checked_name(name: &str) -> Result<&str, Refusal> {
    if name.trim().chars().count() < 3 {
        return Err(Refusal::invalid(
            "Task name is too short, at least 3 characters",
        ));
    }
    Ok(name)
}

fn checked_type(kind: &str) -> Result<&str, Refusal> {
    if TYPES.contains(&kind) {
        Ok(kind)
    } else {
        Err(Refusal::invalid(format_args!("Invalid task type: {kind}")))
    }
}

/// Writes what `tasks.create` and `tasks.edit` may say about a task, with the merge rules of §2.3; returns the edited
/// top-level members with their merged values.
fn write_members(call: &Call, task: &mut Doc) -> Result<Doc, Refusal> {
    let mut edited = Vec::new();
    if let Some(name) = call.text_or_none("name")? {
        task.insert("name".into(), checked_name(name)?.into());
        edited.push("name");
    }
    edited.extend(query::copy_tags(call, task)?);
    if let Some(kind) = call.text_or_none("type")? {
        task.insert("type".into(), checked_type(kind)?.into());
        edited.push("type");
    }
    edited.extend(call.copy_texts(&["comment", "report"], task)?);
    for key in ["project", "parent"] {
        match call.text_or_none(key)? {
            None => continue,
            Some("") => doc::unset(task, key),
            Some(id) => {
                if key == "project" {
                    check_project(call, id)?;
                }
                task.insert(key.into(), id.into());
            }
        }
        edited.push(key);
    }
    edited.extend(write_objects(call, task)?);
    if let Some(destination) = call.text_or_none("output_dest")? {
        if destination.is_empty() {
            doc::unset(task, "output.destination");
        } else {
            doc::set(task, "output.destination", destination.into());
        }
        edited.push("output");
    }
    Ok(doc::project(task, &edited))
}

/// Merged one level deep: script, execution, output, models. Replaced: the other objects.
fn write_objects(call: &Call, task: &mut Doc) -> Result<Vec<&'static str>, Refusal> {
    let mut edited = Vec::new();
    for key in ["models", "execution", "script", "output"] {
        if let Some(new) = call.object(key)? {
            let mut new = new.clone();
            if key == "execution" {
                normalise_artifacts(&mut new)?;
            }
            new.retain(|_, value| !value.is_null());
            doc::object_at(task, key).extend(new);
            edited.push(key);
        }
    }
    for key in ["container", "hyperparams", "configuration", "runtime"] {
        if let Some(new) = call.object(key)? {
            let mut new = new.clone();
            new.retain(|_, value| !value.is_null());
            match key {
                "hyperparams" => params::complete_sections(&mut new)?,
                "configuration" => params::complete_items(&mut new)?,
                _ => {}
            }
            task.insert(key.into(), new.into());
            edited.push(key);
        }
    }
    if call.request.version < Version(2, 13) {
        if versions::take_docker_command(task) {
            edited.push("container");
        }
        if versions::take_models(task, &call.now) {
            edited.push("models");
        }
    }
    Ok(edited)
}

fn normalise_artifacts(execution: &mut Doc) -> Result<(), Refusal> {
    let Some(Value::Array(items)) = execution.get("artifacts") else {
        return Ok(());
    };
    let mut artifacts = Vec::new();
    for item in items {
        let item = item
            .as_object()
            .ok_or_else(|| wrong("artifacts", "a list of objects"))?;
        artifacts.push(attached::artifact(item)?);
    }
    attached::sort(&mut artifacts);
    execution.insert(
        "artifacts".into(),
        artifacts.into_iter().map(Value::Object).collect(),
    );
    Ok(())
}

fn check_project(call: &Call, id: &str) -> Result<(), Refusal> {
    if projects::find(call.db, id)?.is_none() {
        return Err(Refusal::bad(
            16,
            format!("Invalid field value: project={id} does not exist"),
        ));
    }
    Ok(())
}
