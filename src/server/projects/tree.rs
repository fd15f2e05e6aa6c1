//! Moving projects in the tree: `projects.move`, `merge`, and what a deletion would meet.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::wire::{Answer, Doc, Refusal};
use super::super::{doc, models, tasks};
use super::{find, id_of, known, named, owned_path, queues, save, with_descendants};

/// `projects.move`: under another project, or to the root.
pub(crate) fn move_to(call: &Call) -> Answer {
    let project = known(call)?;
    let place = call.text_or_none("new_location")?.unwrap_or_default();
    let basename = doc::text(&project, "basename");
    let name = if place.is_empty() {
        basename.to_owned()
    } else {
        format!("{place}/{basename}")
    };
    let (id, old) = (doc::text(&project, "id"), doc::text(&project, "name"));
    if name == old {
        return Err(Refusal::bad(
            411,
            format!("Project is already there: id={id}"),
        ));
    }
    if name.starts_with(&format!("{old}/")) {
        let text = format!("Project cannot be moved under itself: id={id}");
        return Err(Refusal::bad(412, text));
    }
    if id_of(call.db, &name)?.is_some() {
        return Err(queues::name_taken(&name));
    }
    let moved = relocate(call, &project, &name)?;
    Ok(json!({"moved": moved}))
}

/// Gives a project and all below it new names and parents; returns how many that were.
fn relocate(call: &Call, project: &Doc, name: &str) -> Result<usize, Refusal> {
    let (id, old) = (doc::text(project, "id"), doc::text(project, "name"));
    let above = match name.rsplit_once('/') {
        Some((above, _)) => {
            let above = named(call, above)?;
            let mut path = find(call.db, &above)?
                .map(|above| owned_path(&above))
                .unwrap_or_default();
            path.push(above);
            path
        }
        None => Vec::new(),
    };
    let depth = owned_path(project).len();
    let all = with_descendants(call.db, &[id])?;
    for below in &all {
        let Some(mut below) = find(call.db, below)? else {
            continue;
        };
        let rest = doc::text(&below, "name")
            .get(old.len()..)
            .unwrap_or_default();
        let renamed = format!("{name}{rest}");
        let path: Vec<String> = above
            .iter()
            .cloned()
            .chain(owned_path(&below).into_iter().skip(depth))
            .collect();
        match path.last() {
            Some(parent) => {
                below.insert("parent".into(), parent.clone().into());
            }
            None => {
                below.shift_remove("parent");
            }
        }
        below.insert("name".into(), renamed.into());
        below.insert("path".into(), path.into());
        below.insert("last_update".into(), call.now.clone().into());
        save(call.db, &below)?;
    }
    Ok(all.len())
}

/// `projects.merge`: everything goes into the destination, then the project itself goes.
pub(crate) fn merge(call: &Call) -> Answer {
    let project = known(call)?;
    let id = doc::text(&project, "id").to_owned();
    let destination = match call.text_or_none("destination_project")? {
        None | Some("") => None,
        Some(other) => Some(
            find(call.db, other)?
                .ok_or_else(|| Refusal::bad(401, format!("Invalid project id: id={other}")))?,
        ),
    };
    let into = destination.as_ref().map(|into| doc::text(into, "id"));
    if into == Some(id.as_str())
        || destination
            .as_ref()
            .is_some_and(|into| owned_path(into).contains(&id))
    {
        let text = format!("Project cannot be merged into itself or below itself: id={id}");
        return Err(Refusal::bad(413, text));
    }
    let mut moved_projects = 0;
    let mut statement = call.db.prepare(
        "SELECT id FROM projects WHERE json_extract(doc, '$.parent') = ?1 ORDER BY name",
    )?;
    let children = statement
        .query_map([&id], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    for child in children {
        let Some(child) = find(call.db, &child)? else {
            continue;
        };
        let basename = doc::text(&child, "basename");
        let name = destination.as_ref().map_or_else(
            || basename.to_owned(),
            |into| format!("{}/{basename}", doc::text(into, "name")),
        );
        if id_of(call.db, &name)?.is_some() {
            return Err(queues::name_taken(&name));
        }
        moved_projects += relocate(call, &child, &name)?;
    }
    let mut moved = 0;
    for task in entities(call, "tasks", &id)? {
        if let Some(mut task) = tasks::find(call.db, &task)? {
            place(&mut task, into);
            tasks::note_change(call, &mut task);
            tasks::save(call.db, &task)?;
            moved += 1;
        }
    }
    moved += models::change_project(call, &entities(call, "models", &id)?, into)?;
    call.db
        .execute("DELETE FROM projects WHERE id = ?1", [&id])?;
    Ok(json!({"moved_entities": moved, "moved_projects": moved_projects}))
}

fn place(document: &mut Doc, project: Option<&str>) {
    match project {
        Some(project) => {
            document.insert("project".into(), project.into());
        }
        None => {
            document.shift_remove("project");
        }
    }
}

fn entities(call: &Call, table: &str, project: &str) -> Result<Vec<String>, Refusal> {
    let mut statement = call
        .db
        .prepare(&format!("SELECT id FROM {table} WHERE project = ?1"))?;
    Ok(statement
        .query_map([project], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// The project that a `move` names: by id, or by name, made if there is none (`tasks.move`, `models.move`).
pub(in super::super) fn destination(call: &Call) -> Result<Option<String>, Refusal> {
    match (
        call.text_or_none("project")?,
        call.text_or_none("project_name")?,
    ) {
        (Some(""), None) => Ok(None),
        (Some(id), None) => match find(call.db, id)? {
            Some(_) => Ok(Some(id.to_owned())),
            None => Err(Refusal::bad(401, format!("Invalid project id: id={id}"))),
        },
        (None, Some(name)) => named(call, name).map(Some),
        _ => Err(Refusal::invalid(
            "project or project_name is required, not both",
        )),
    }
}

/// `tasks.move`
pub(crate) fn move_tasks(call: &Call) -> Answer {
    let into = destination(call)?;
    for id in call.texts_required("ids")? {
        let mut task = tasks::known(call.db, id)?;
        place(&mut task, into.as_deref());
        tasks::note_change(call, &mut task);
        tasks::save(call.db, &task)?;
    }
    Ok(json!({"project_id": into}))
}

/// `models.move`
pub(crate) fn move_models(call: &Call) -> Answer {
    let into = destination(call)?;
    let ids: Vec<String> = call
        .texts_required("ids")?
        .into_iter()
        .map(str::to_owned)
        .collect();
    for id in &ids {
        models::known(call.db, id)?;
    }
    models::change_project(call, &ids, into.as_deref())?;
    Ok(json!({"project_id": into}))
}

/// `projects.validate_delete`: what lies in a project and below it.
pub(crate) fn validate_delete(call: &Call) -> Answer {
    let project = known(call)?;
    let all = with_descendants(call.db, &[doc::text(&project, "id")])?;
    let all = json!(all).to_string();
    let count = |table: &str, archived: &str| -> Result<Value, Refusal> {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE project IN (SELECT value FROM json_each(?1)) {archived}"
        );
        let count: i64 = call
            .db
            .prepare_cached(&sql)?
            .query_row([&all], |row| row.get(0))?;
        Ok(count.into())
    };
    let kept = |table: &str| {
        let clause = format!(
            "AND NOT EXISTS (SELECT 1 FROM json_each({table}.doc, '$.system_tags') WHERE value = 'archived')"
        );
        count(table, &clause)
    };
    Ok(json!({
        "tasks": count("tasks", "")?,
        "non_archived_tasks": kept("tasks")?,
        "models": count("models", "")?,
        "non_archived_models": kept("models")?,
    }))
}
