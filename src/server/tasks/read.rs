//! Reading tasks: one by its id, or a list by a query (§1.13).

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::json;

use super::super::auth::{COMPANY, COMPANY_NAME};
use super::super::query::{Hidden, Query};
use super::super::{doc, events, projects, versions};
use super::{Answer, Call, Doc, Refusal, find};

/// Filters that are columns, and those that are not.
const LISTS: [&str; 12] = [
    "status",
    "type",
    "project",
    "tags",
    "system_tags",
    "user",
    "parent",
    "hyperparams.*",
    "runtime.*",
    "execution.queue",
    "models.input.model",
    "models.output.model",
];
const COLUMNS: [&str; 5] = ["status", "type", "project", "user", "parent"];

/// `tasks.get_by_id`
pub(crate) fn get_by_id(call: &Call) -> Answer {
    let id = call.text("task")?;
    let mut task = find(call.db, id)?
        .ok_or_else(|| Refusal::bad(101, format!("Invalid task id: ids=({id})")))?;
    complete(call, &mut task)?;
    task.shift_remove("enqueue_status");
    Ok(json!({"task": task}))
}

/// Adds what is stored beside the document, in the shape the client's version knows.
fn complete(call: &Call, task: &mut Doc) -> Result<(), Refusal> {
    let metrics = events::series::last_metrics(call.db, doc::text(task, "id"))?;
    task.insert("last_metrics".into(), metrics);
    versions::task_for(call.request.version, task);
    Ok(())
}

/// `tasks.get_all`
pub(crate) fn get_all(call: &Call) -> Answer {
    let (query, tasks) = select(call)?;
    let tasks: Vec<Doc> = tasks.into_iter().map(|task| query.cut(task)).collect();
    let returned = tasks.len();
    Ok(query.paged(json!({"tasks": tasks}), returned))
}

/// `tasks.get_all_ex`, `tasks.get_by_id_ex`: the id in any case, and objects in place of ids.
pub(crate) fn get_all_ex(call: &Call) -> Answer {
    let (mut query, tasks) = select(call)?;
    // Whoever asks for a part of a joined object gets its id with it.
    let joined = ["project", "user", "parent", "company", "execution.queue"];
    for (object, id) in joined.iter().zip([
        "project.id",
        "user.id",
        "parent.id",
        "company.id",
        "execution.queue.id",
    ]) {
        if query.only_fields.iter().any(|field| {
            field
                .strip_prefix(object)
                .is_some_and(|rest| rest.starts_with('.'))
        }) {
            query.only_fields.push(id);
        }
    }
    let mut names = HashMap::new();
    let mut shown = Vec::new();
    for mut task in tasks {
        join(call, &mut task, &mut names)?;
        shown.push(query.cut_with_id(task));
    }
    let returned = shown.len();
    Ok(query.paged(json!({"tasks": shown}), returned))
}

fn select<'a>(call: &Call<'a>) -> Result<(Query<'a>, Vec<Doc>), Refusal> {
    let mut query = Query::read(call, &LISTS)?;
    if call.flag("include_subprojects")? {
        let projects = projects::with_descendants(call.db, &call.texts("project")?)?;
        if !projects.is_empty() {
            query.replace_list("project", projects);
        }
    }
    let hidden = if query.search_hidden || !query.ids.is_empty() {
        Hidden::Shown
    } else {
        Hidden::LeftOut
    };
    let ordered_by_metrics = query.sorts_by("last_metrics");
    let mut tasks = query.run_with(call.db, "tasks", hidden, &COLUMNS, |task| {
        if ordered_by_metrics {
            complete(call, task)
        } else {
            Ok(())
        }
    })?;
    for task in &mut tasks {
        if !ordered_by_metrics && query.shows("last_metrics") {
            complete(call, task)?;
        } else {
            versions::task_for(call.request.version, task);
        }
        if query.only_fields.is_empty() {
            task.shift_remove("enqueue_status");
        }
    }
    Ok((query, tasks))
}

fn join(
    call: &Call,
    task: &mut Doc,
    names: &mut HashMap<String, Option<String>>,
) -> Result<(), Refusal> {
    for (path, table) in [
        ("project", "projects"),
        ("user", "users"),
        ("parent", "tasks"),
        ("execution.queue", "queues"),
    ] {
        let id = doc::text(task, path).to_owned();
        if id.is_empty() {
            continue;
        }
        let name = if let Some(name) = names.get(&id) {
            name.clone()
        } else {
            let name = name_of(call.db, table, &id)?;
            names.insert(id.clone(), name.clone());
            name
        };
        let mut object = Doc::new();
        object.insert("id".into(), id.into());
        if let Some(name) = name {
            object.insert("name".into(), name.into());
        }
        doc::set(task, path, object.into());
    }
    task.insert(
        "company".into(),
        json!({"id": COMPANY, "name": COMPANY_NAME}),
    );
    Ok(())
}

pub(crate) fn name_of(db: &Connection, table: &str, id: &str) -> Result<Option<String>, Refusal> {
    let sql = format!("SELECT name FROM {table} WHERE id = ?1");
    Ok(db
        .prepare_cached(&sql)?
        .query_row([id], |row| row.get(0))
        .optional()?)
}

/// `tasks.get_types`
pub(crate) fn get_types(call: &Call) -> Answer {
    let projects = call.texts("projects")?;
    let sql = "SELECT DISTINCT type FROM tasks
               WHERE ?1 = '[]' OR project IN (SELECT value FROM json_each(?1)) ORDER BY type";
    let mut statement = call.db.prepare_cached(sql)?;
    let types = statement.query_map([json!(projects).to_string()], |row| row.get(0))?;
    Ok(json!({"types": types.collect::<Result<Vec<String>, _>>()?}))
}
