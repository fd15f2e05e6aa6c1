//! What the tasks and models of projects use: tags, parameters, metrics, metadata; the UI offers them as filters.

use rusqlite::params;
use serde_json::{Value, json};

use super::super::call::Call;
use super::super::events;
use super::super::wire::{Answer, Refusal};
use super::with_descendants;

/// Restricts a statement over `{table}` to the projects in `?1`, a JSON list; an empty one means all.
const OF_PROJECTS: &str = "(?1 = '[]' OR project IN (SELECT value FROM json_each(?1)))";

/// The projects a request names, with those below unless it says otherwise, as a JSON list.
fn asked(call: &Call) -> Result<String, Refusal> {
    let mut named = call.texts("projects")?;
    named.extend(call.text_or_none("project")?);
    if named.is_empty() || !call.flag_or("include_subprojects", true)? {
        return Ok(json!(named).to_string());
    }
    let mut all = with_descendants(call.db, &named)?;
    // A project that does not exist must not become "all".
    all.extend(named.into_iter().map(str::to_owned));
    Ok(json!(all).to_string())
}

fn column(call: &Call, sql: &str, values: &[&str]) -> Result<Vec<String>, Refusal> {
    let mut statement = call.db.prepare_cached(sql)?;
    Ok(statement
        .query_map(rusqlite::params_from_iter(values), |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

// ---- tags ----

/// `projects.get_task_tags`
pub(crate) fn task_tags(call: &Call) -> Answer {
    tags_of(call, &["tasks"])
}

/// `projects.get_model_tags`
pub(crate) fn model_tags(call: &Call) -> Answer {
    tags_of(call, &["models"])
}

/// `organization.get_tags`: of tasks and models together.
pub(crate) fn all_tags(call: &Call) -> Answer {
    tags_of(call, &["tasks", "models"])
}

fn tags_of(call: &Call, tables: &[&str]) -> Answer {
    let projects = json!(call.texts("projects")?).to_string();
    let list = |key: &str| {
        let parts: Vec<String> = tables
            .iter()
            .map(|table| {
                format!(
                    "SELECT DISTINCT tag.value FROM {table}, json_each({table}.doc, '$.{key}') AS tag WHERE {OF_PROJECTS}"
                )
            })
            .collect();
        let sql = format!("{} ORDER BY 1", parts.join(" UNION "));
        column(call, &sql, &[&projects])
    };
    found_tags(call, list)
}

/// `projects.get_project_tags`: those of the projects themselves.
pub(crate) fn project_tags(call: &Call) -> Answer {
    let projects = json!(call.texts("projects")?).to_string();
    let list = |key: &str| {
        let sql = format!(
            "SELECT DISTINCT tag.value FROM projects, json_each(projects.doc, '$.{key}') AS tag
             WHERE ?1 = '[]' OR projects.id IN (SELECT value FROM json_each(?1)) ORDER BY 1"
        );
        column(call, &sql, &[&projects])
    };
    found_tags(call, list)
}

/// The tags that `list` finds, with those of the system if they are asked for.
fn found_tags(call: &Call, list: impl Fn(&str) -> Result<Vec<String>, Refusal>) -> Answer {
    let mut answer = json!({"tags": list("tags")?});
    if call.flag("include_system")? {
        answer["system_tags"] = json!(list("system_tags")?);
    }
    Ok(answer)
}

// ---- parameters, metadata ----

/// A page of a list: the items, how many follow, how many there are.
fn paged<T>(call: &Call, items: Vec<T>) -> Result<(Vec<T>, usize, usize), Refusal> {
    let number = |key, absent| -> Result<usize, Refusal> {
        Ok(usize::try_from(call.int(key)?.unwrap_or(absent)).unwrap_or(0))
    };
    let (page, size) = (number("page", 0)?, number("page_size", 500)?.min(500));
    let total = items.len();
    let skip = page.saturating_mul(size);
    let items: Vec<T> = items.into_iter().skip(skip).take(size).collect();
    let remaining = total.saturating_sub(skip.saturating_add(items.len()));
    Ok((items, remaining, total))
}

/// `projects.get_hyper_parameters`: sections and names in use.
pub(crate) fn hyper_parameters(call: &Call) -> Answer {
    let sql = format!(
        "SELECT DISTINCT section.key, item.key FROM tasks, json_each(tasks.doc, '$.hyperparams') AS section,
             json_each(section.value) AS item
         WHERE {OF_PROJECTS} ORDER BY 1, 2"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let found = statement
        .query_map([asked(call)?], |row| {
            Ok(json!({"section": row.get::<_, String>(0)?, "name": row.get::<_, String>(1)?}))
        })?
        .collect::<Result<Vec<Value>, _>>()?;
    let (parameters, remaining, total) = paged(call, found)?;
    Ok(json!({"parameters": parameters, "remaining": remaining, "total": total}))
}

/// `projects.get_hyperparam_values`: the values that one parameter has.
pub(crate) fn hyperparam_values(call: &Call) -> Answer {
    let (section, name) = (call.text("section")?, call.text("name")?);
    let sql = format!(
        "SELECT DISTINCT item.value ->> '$.value' FROM tasks, json_each(tasks.doc, '$.hyperparams') AS section,
             json_each(section.value) AS item
         WHERE {OF_PROJECTS} AND section.key = ?2 AND item.key = ?3 AND item.value ->> '$.value' IS NOT NULL ORDER BY 1"
    );
    let values = texts_of(call, &sql, &[&asked(call)?, section, name])?;
    Ok(json!({"total": values.len(), "values": values}))
}

/// `projects.get_model_metadata_keys`
pub(crate) fn metadata_keys(call: &Call) -> Answer {
    let sql = format!(
        "SELECT DISTINCT item.key FROM models, json_each(models.doc, '$.metadata') AS item
         WHERE {OF_PROJECTS} ORDER BY 1"
    );
    let found = texts_of(call, &sql, &[&asked(call)?])?;
    let (keys, remaining, total) = paged(call, found)?;
    Ok(json!({"keys": keys, "remaining": remaining, "total": total}))
}

/// `projects.get_model_metadata_values`
pub(crate) fn metadata_values(call: &Call) -> Answer {
    let sql = format!(
        "SELECT DISTINCT item.value ->> '$.value' FROM models, json_each(models.doc, '$.metadata') AS item
         WHERE {OF_PROJECTS} AND item.key = ?2 AND item.value ->> '$.value' IS NOT NULL ORDER BY 1"
    );
    let values = texts_of(call, &sql, &[&asked(call)?, call.text("key")?])?;
    Ok(json!({"total": values.len(), "values": values}))
}

/// Values that may be numbers in the documents, as text.
fn texts_of(call: &Call, sql: &str, values: &[&str]) -> Result<Vec<String>, Refusal> {
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Real(number) => number.to_string(),
            _ => continue,
        });
    }
    Ok(found)
}

// ---- metrics, parents ----

/// `projects.get_unique_metric_variants`
pub(crate) fn metric_variants(call: &Call) -> Answer {
    let sql = format!(
        "SELECT DISTINCT metric, variant FROM curves JOIN tasks ON tasks.id = curves.task
         WHERE {OF_PROJECTS} ORDER BY 1, 2"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let metrics = statement
        .query_map([asked(call)?], |row| {
            let (metric, variant): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(json!({
                "metric": metric,
                "metric_hash": events::md5(&metric),
                "variant": variant,
                "variant_hash": events::md5(&variant),
            }))
        })?
        .collect::<Result<Vec<Value>, _>>()?;
    Ok(json!({"metrics": metrics}))
}

/// `projects.get_task_parents`: the tasks that others name as their parent.
pub(crate) fn task_parents(call: &Call) -> Answer {
    let state = call.text_or_none("tasks_state")?.unwrap_or("active");
    let sql = format!(
        "SELECT DISTINCT above.id, above.name, above.project, projects.name
         FROM (SELECT parent, project, doc FROM tasks WHERE parent IS NOT NULL AND {OF_PROJECTS}
               AND (?2 = 'all' OR (?2 = 'archived') = EXISTS
                    (SELECT 1 FROM json_each(tasks.doc, '$.system_tags') WHERE value = 'archived'))) AS below
         JOIN tasks AS above ON above.id = below.parent
         LEFT JOIN projects ON projects.id = above.project ORDER BY above.name, above.id"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let parents = statement
        .query_map(params![asked(call)?, state], |row| {
            let mut parent =
                json!({"id": row.get::<_, String>(0)?, "name": row.get::<_, String>(1)?});
            if let (Some(id), Some(name)) = (
                row.get::<_, Option<String>>(2)?,
                row.get::<_, Option<String>>(3)?,
            ) {
                parent["project"] = json!({"id": id, "name": name});
            }
            Ok(parent)
        })?
        .collect::<Result<Vec<Value>, _>>()?;
    Ok(json!({"parents": parents}))
}
