//! The `projects` service: a tree by `/` in the names (`protocol.md` §2.2).
//!
//! ```text
//! mod.rs    rows, make, read, delete      tree.rs    move, merge, what a deletion would meet
//! facets.rs what the tasks and models of projects use: tags, parameters, metrics
//! ```

pub(crate) mod facets;
pub(crate) mod tree;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::auth::COMPANY;
use super::call::Call;
use super::query::{self, Hidden, Query};
use super::tasks::remove;
use super::wire::{Answer, Doc, Refusal, new_id};
use super::{doc, models, queues, tasks};

/// The deepest path that is made.
const DEEPEST: usize = 10;

// ---- rows ----

fn save(db: &Connection, project: &Doc) -> Result<(), Refusal> {
    let hidden = doc::strings(project, "system_tags").contains(&"hidden");
    db.prepare_cached(
        "INSERT INTO projects (id, name, doc, hidden) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, doc = excluded.doc, hidden = excluded.hidden",
    )?
    .execute(params![doc::text(project, "id"), doc::text(project, "name"), serde_json::to_string(project)?, hidden])?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: &str) -> Result<Option<Doc>, Refusal> {
    query::one(db, "SELECT doc FROM projects WHERE id = ?1", id)
}

fn known(call: &Call) -> Result<Doc, Refusal> {
    let id = call.text("project")?;
    find(call.db, id)?.ok_or_else(|| Refusal::unknown_id(401, "Invalid project id", id, COMPANY))
}

fn id_of(db: &Connection, name: &str) -> Result<Option<String>, Refusal> {
    Ok(db
        .prepare_cached("SELECT id FROM projects WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

/// The project of that name, made with its parents if there is none.
pub(super) fn named(call: &Call, name: &str) -> Result<String, Refusal> {
    let name = plain(name)?;
    match id_of(call.db, &name)? {
        Some(id) => Ok(id),
        None => insert(call, &name, Doc::new()),
    }
}

/// A name as it is stored: its parts without blanks around them.
fn plain(name: &str) -> Result<String, Refusal> {
    let parts: Vec<&str> = name.split('/').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) || parts.len() > DEEPEST {
        return Err(Refusal::invalid(format_args!(
            "project name {name:?} must have 1 to {DEEPEST} parts, none of them empty"
        )));
    }
    Ok(parts.join("/"))
}

/// Makes a project; the name is plain and free.
fn insert(call: &Call, name: &str, members: Doc) -> Result<String, Refusal> {
    let mut path = Vec::new();
    if let Some((parent, _)) = name.rsplit_once('/') {
        let id = named(call, parent)?;
        path = find(call.db, &id)?
            .map(|parent| owned_path(&parent))
            .unwrap_or_default();
        path.push(id);
    }
    let id = new_id();
    let basename = name.rsplit('/').next().unwrap_or(name);
    let mut project = Doc::new();
    for (key, value) in [
        ("id", json!(id)),
        ("company", json!(COMPANY)),
        ("user", json!(call.user())),
        ("name", json!(name)),
        ("basename", json!(basename)),
        ("description", json!("")),
        ("created", json!(call.now)),
        ("tags", json!([])),
        ("system_tags", json!([])),
        ("last_update", json!(call.now)),
        ("featured", json!(9999)),
    ] {
        project.insert(key.into(), value);
    }
    project.extend(members);
    if let Some(parent) = path.last() {
        project.insert("parent".into(), parent.clone().into());
    }
    project.insert("path".into(), path.into());
    save(call.db, &project)?;
    Ok(id)
}

fn owned_path(project: &Doc) -> Vec<String> {
    doc::strings(project, "path")
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// The projects and all below them.
pub(super) fn with_descendants(db: &Connection, ids: &[&str]) -> Result<Vec<String>, Refusal> {
    let sql = "SELECT below.id FROM projects AS above, projects AS below
               WHERE above.id IN (SELECT value FROM json_each(?1))
                 AND (below.id = above.id OR substr(below.name, 1, length(above.name) + 1) = above.name || '/')";
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement
        .query_map([json!(ids).to_string()], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

fn members(call: &Call) -> Result<Doc, Refusal> {
    let mut members = Doc::new();
    let texts = ["description", "default_output_destination"];
    call.copy_texts(&texts, &mut members)?;
    query::copy_tags(call, &mut members)?;
    Ok(members)
}

// ---- endpoints ----

/// `projects.create`
pub(crate) fn create(call: &Call) -> Answer {
    let name = plain(call.text("name")?)?;
    if id_of(call.db, &name)?.is_some() {
        return Err(queues::name_taken(&name));
    }
    Ok(json!({"id": insert(call, &name, members(call)?)?}))
}

/// `projects.get_by_id`
pub(crate) fn get_by_id(call: &Call) -> Answer {
    Ok(json!({"project": known(call)?}))
}

/// `projects.get_all`, `projects.get_all_ex`
pub(crate) fn get_all(call: &Call) -> Answer {
    let (query, found) = select(call)?;
    let projects: Vec<Doc> = found
        .into_iter()
        .map(|project| query.cut(project))
        .collect();
    let returned = projects.len();
    Ok(query.paged(json!({"projects": projects}), returned))
}

/// `projects.get_all_ex`: with the id in any case, and numbers of tasks if asked for.
pub(crate) fn get_all_ex(call: &Call) -> Answer {
    let (query, found) = select(call)?;
    let with_stats = call.flag("include_stats")?;
    let mut projects = Vec::new();
    for mut project in found {
        if with_stats {
            let stats = stats(call.db, doc::text(&project, "id"))?;
            project.insert("stats".into(), stats);
        }
        project.insert("company".into(), json!({"id": COMPANY}));
        projects.push(query.cut_with_id(project));
    }
    let returned = projects.len();
    Ok(query.paged(json!({"projects": projects}), returned))
}

fn select<'a>(call: &Call<'a>) -> Result<(Query<'a>, Vec<Doc>), Refusal> {
    let mut query = Query::read(call, &["tags", "system_tags", "parent"])?;
    if call.flag("shallow_search")? {
        query.only(|project| !project.contains_key("parent"));
    }
    let hidden = if query.search_hidden || !query.ids.is_empty() {
        Hidden::Shown
    } else {
        Hidden::LeftOut
    };
    let found = query.run(call.db, "projects", hidden, &[])?;
    Ok((query, found))
}

fn stats(db: &Connection, id: &str) -> Answer {
    let sql = "SELECT status, count(*) FROM tasks WHERE project = ?1 GROUP BY status";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let (mut counts, mut total) = (Doc::new(), 0);
    while let Some(row) = rows.next()? {
        let count: i64 = row.get(1)?;
        total += count;
        counts.insert(row.get(0)?, count.into());
    }
    Ok(json!({"active": {"total_tasks": total, "status_count": counts}}))
}

/// `projects.update`
pub(crate) fn update(call: &Call) -> Answer {
    let mut project = known(call)?;
    let mut fields = members(call)?;
    if let Some(name) = call.text_or_none("name")? {
        let name = plain(name)?;
        rename(call, &project, &name)?;
        let basename = name.rsplit('/').next().unwrap_or(&name);
        fields.insert("basename".into(), basename.into());
        fields.insert("name".into(), name.into());
    }
    project.extend(fields.clone());
    project.insert("last_update".into(), call.now.clone().into());
    save(call.db, &project)?;
    Ok(json!({"updated": 1, "fields": fields}))
}

/// Renames what lies below along with a project.
fn rename(call: &Call, project: &Doc, name: &str) -> Result<(), Refusal> {
    let (id, old) = (doc::text(project, "id"), doc::text(project, "name"));
    if id_of(call.db, name)?.is_some_and(|other| other != id) {
        return Err(queues::name_taken(name));
    }
    for below in with_descendants(call.db, &[id])? {
        let Some(mut below) = find(call.db, &below)?.filter(|below| doc::text(below, "id") != id)
        else {
            continue;
        };
        let renamed = format!("{name}{}", &doc::text(&below, "name")[old.len()..]);
        below.insert("name".into(), renamed.into());
        save(call.db, &below)?;
    }
    Ok(())
}

/// `projects.delete`: tasks stay without a project, unless their deletion is asked for; queue entries stay (§4).
pub(crate) fn delete(call: &Call) -> Answer {
    let project = known(call)?;
    let id = doc::text(&project, "id");
    let (force, contents) = (call.flag("force")?, call.flag("delete_contents")?);
    let all = with_descendants(call.db, &[id])?;
    let mut statement = call.db.prepare_cached(
        "SELECT id FROM tasks WHERE project IN (SELECT value FROM json_each(?1)) ORDER BY created",
    )?;
    let ids = statement
        .query_map([json!(all).to_string()], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    drop(statement);
    if !ids.is_empty() && !force {
        return Err(Refusal::bad(
            402,
            format!("Project has associated tasks (use force=true to delete): id={id}"),
        ));
    }
    let mut deleted_models = 0;
    let mut urls = json!({"model_urls": [], "artifact_urls": [], "event_urls": []});
    for task in &ids {
        let Some(mut task) = tasks::find(call.db, task)? else {
            continue;
        };
        if contents {
            let own = remove::urls_of(call, &task)?;
            for (key, list) in own.as_object().into_iter().flatten() {
                if let (Value::Array(all), Value::Array(list)) = (&mut urls[key], list) {
                    all.extend(list.iter().cloned());
                }
            }
            deleted_models +=
                remove::remove_but_entries(call, doc::text(&task, "id"), true)?.models;
        } else {
            task.shift_remove("project");
            tasks::save(call.db, &task)?;
        }
    }
    deleted_models += models::leave_projects(call.db, &all, contents)?;
    let mut deleted = 0;
    for project in &all {
        deleted += call
            .db
            .execute("DELETE FROM projects WHERE id = ?1", [project])?;
    }
    let (deleted_tasks, left) = if contents {
        (ids.len(), 0)
    } else {
        (0, ids.len())
    };
    Ok(json!({
        "deleted": deleted,
        "disassociated_tasks": left,
        "deleted_models": deleted_models,
        "deleted_tasks": deleted_tasks,
        "urls": urls,
    }))
}
