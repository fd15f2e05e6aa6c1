//! The `models` service: what a run stores for later ones (`protocol.md` §2.7).

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::auth::COMPANY;
use super::call::Call;
use super::query::{self, Hidden, Query};
use super::wire::{Answer, Doc, Refusal, new_id};
use super::{doc, tasks, versions};

// ---- rows ----

pub(super) fn save(db: &Connection, model: &Doc) -> Result<(), Refusal> {
    let own = |key| Some(doc::text(model, key)).filter(|text| !text.is_empty());
    let hidden = doc::strings(model, "system_tags").contains(&"hidden");
    db.prepare_cached(
        "INSERT INTO models (id, doc, name, uri, project, task, created, hidden)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET doc = excluded.doc, name = excluded.name, uri = excluded.uri,
             project = excluded.project, task = excluded.task, hidden = excluded.hidden",
    )?
    .execute(params![
        doc::text(model, "id"),
        serde_json::to_string(model)?,
        doc::text(model, "name"),
        own("uri"),
        own("project"),
        own("task"),
        doc::text(model, "created"),
        hidden,
    ])?;
    Ok(())
}

pub(super) fn find(db: &Connection, id: &str) -> Result<Option<Doc>, Refusal> {
    query::one(db, "SELECT doc FROM models WHERE id = ?1", id)
}

/// The model, or 400/201.
pub(super) fn known(db: &Connection, id: &str) -> Result<Doc, Refusal> {
    find(db, id)?.ok_or_else(|| Refusal::unknown_id(201, "Invalid model id", id, COMPANY))
}

fn of_task(db: &Connection, task: &str) -> Result<Vec<Doc>, Refusal> {
    let sql = "SELECT doc FROM models WHERE task = ?1 ORDER BY created";
    query::documents(db, sql, task)
}

/// Addresses of the models that a task put out.
pub(super) fn urls_of(db: &Connection, task: &str) -> Result<Vec<String>, Refusal> {
    let models = of_task(db, task)?;
    Ok(models
        .iter()
        .map(|model| doc::text(model, "uri").to_owned())
        .filter(|uri| !uri.is_empty())
        .collect())
}

/// Addresses of those of them that were not published, and so go with the task.
pub(super) fn draft_urls_of(db: &Connection, task: &str) -> Result<Vec<String>, Refusal> {
    let models = of_task(db, task)?;
    Ok(models
        .iter()
        .filter(|model| model.get("ready").and_then(Value::as_bool) != Some(true))
        .map(|model| doc::text(model, "uri").to_owned())
        .collect())
}

/// Takes away the task's models that were not published; returns their ids.
pub(super) fn delete_drafts_of(db: &Connection, task: &str) -> Result<Vec<String>, Refusal> {
    let mut deleted = Vec::new();
    for model in of_task(db, task)? {
        if model.get("ready").and_then(Value::as_bool) != Some(true) {
            let id = doc::text(&model, "id").to_owned();
            db.execute("DELETE FROM models WHERE id = ?1", [&id])?;
            deleted.push(id);
        }
    }
    Ok(deleted)
}

/// The models that stay do not name the deleted task any more.
pub(super) fn forget_task(db: &Connection, task: &str) -> Result<usize, Refusal> {
    let models = of_task(db, task)?;
    for mut model in models.clone() {
        model.shift_remove("task");
        save(db, &model)?;
    }
    Ok(models.len())
}

/// The models of deleted projects go as well, or stay without a project; returns how many went.
pub(super) fn leave_projects(
    db: &Connection,
    projects: &[String],
    delete: bool,
) -> Result<usize, Refusal> {
    let all = json!(projects).to_string();
    let of_them = "project IN (SELECT value FROM json_each(?1))";
    if delete {
        return Ok(db.execute(&format!("DELETE FROM models WHERE {of_them}"), [all])?);
    }
    let sql = format!(
        "UPDATE models SET project = NULL, doc = json_remove(doc, '$.project') WHERE {of_them}"
    );
    db.execute(&sql, [all])?;
    Ok(0)
}

/// Puts models into another project, or into none; returns how many.
pub(super) fn change_project(
    call: &Call,
    ids: &[String],
    project: Option<&str>,
) -> Result<usize, Refusal> {
    let mut moved = 0;
    for id in ids {
        let Some(mut model) = find(call.db, id)? else {
            continue;
        };
        match project {
            Some(project) => {
                model.insert("project".into(), project.into());
            }
            None => {
                model.shift_remove("project");
            }
        }
        touch(call, &mut model);
        save(call.db, &model)?;
        moved += 1;
    }
    Ok(moved)
}

/// Id of the model that a task put out last.
fn last_output(task: &Doc) -> Option<&str> {
    let outputs = doc::get(task, "models.output")?.as_array()?;
    outputs.last()?["model"].as_str()
}

/// Publishing a task publishes its last output model (§2.3).
pub(super) fn publish_last_output(call: &Call, task: &Doc) -> Result<(), Refusal> {
    let last = last_output(task);
    if let Some(mut model) = last.map(|id| find(call.db, id)).transpose()?.flatten() {
        model.insert("ready".into(), true.into());
        touch(call, &mut model);
        save(call.db, &model)?;
    }
    Ok(())
}

pub(super) fn touch(call: &Call, model: &mut Doc) {
    model.insert("last_update".into(), call.now.clone().into());
    model.insert("last_change".into(), call.now.clone().into());
    model.insert("last_changed_by".into(), call.user().into());
}

/// What `create`, `edit` and `update` may say.
fn members(call: &Call) -> Result<Doc, Refusal> {
    let mut members = Doc::new();
    let texts = [
        "name",
        "comment",
        "uri",
        "framework",
        "parent",
        "project",
        "task",
    ];
    call.copy_texts(&texts, &mut members)?;
    query::copy_tags(call, &mut members)?;
    for key in ["labels", "design"] {
        if let Some(object) = call.object(key)? {
            members.insert(key.into(), object.clone().into());
        }
    }
    if let Some(ready) = call.value("ready") {
        members.insert("ready".into(), ready.as_bool().unwrap_or(false).into());
    }
    match call.value("metadata") {
        Some(Value::Array(items)) => {
            let mut metadata = Doc::new();
            doc::add_metadata(
                &mut metadata,
                &items
                    .iter()
                    .filter_map(Value::as_object)
                    .collect::<Vec<_>>(),
            );
            members.insert("metadata".into(), metadata.into());
        }
        Some(Value::Object(items)) => {
            members.insert("metadata".into(), items.clone().into());
        }
        _ => {}
    }
    Ok(members)
}

fn new_model(call: &Call, members: Doc) -> Result<String, Refusal> {
    let id = new_id();
    let mut model = Doc::new();
    for (key, value) in [
        ("id", json!(id)),
        ("name", json!("")),
        ("company", json!(COMPANY)),
        ("user", json!(call.user())),
        ("created", json!(call.now)),
        ("tags", json!([])),
        ("system_tags", json!([])),
        ("labels", json!({})),
        ("design", json!({})),
        ("ready", json!(false)),
        ("metadata", json!({})),
        ("stats", json!({})),
    ] {
        model.insert(key.into(), value);
    }
    model.extend(members);
    touch(call, &mut model);
    save(call.db, &model)?;
    Ok(id)
}

// ---- endpoints ----

/// `models.create`
pub(crate) fn create(call: &Call) -> Answer {
    call.text("uri")?;
    call.text("name")?;
    Ok(json!({"id": new_model(call, members(call)?)?, "created": true}))
}

/// `models.get_by_id`
pub(crate) fn get_by_id(call: &Call) -> Answer {
    Ok(json!({"model": shown(call, known(call.db, call.text("model")?)?)}))
}

/// `models.get_by_task_id`
pub(crate) fn get_by_task_id(call: &Call) -> Answer {
    let task = tasks::known(call.db, call.text("task")?)?;
    let id = last_output(&task).ok_or_else(|| Refusal::bad(201, "The task has no output model"))?;
    Ok(json!({"model": shown(call, known(call.db, id)?)}))
}

/// A model as the caller's version knows it.
fn shown(call: &Call, mut model: Doc) -> Doc {
    versions::metadata_for(call.request.version, &mut model);
    model
}

/// `models.get_all`, `models.get_all_ex`
pub(crate) fn get_all(call: &Call) -> Answer {
    let mut query = Query::read(
        call,
        &[
            "task",
            "project",
            "framework",
            "tags",
            "system_tags",
            "user",
            "parent",
            "uri",
            "metadata.*",
        ],
    )?;
    if call.flag("include_subprojects")? {
        let projects = super::projects::with_descendants(call.db, &call.texts("project")?)?;
        if !projects.is_empty() {
            query.replace_list("project", projects);
        }
    }
    let hidden = if query.search_hidden || !query.ids.is_empty() {
        Hidden::Shown
    } else {
        Hidden::LeftOut
    };
    match call.value("ready").and_then(Value::as_bool) {
        Some(true) => query.only(|model| model.get("ready") == Some(&Value::Bool(true))),
        Some(false) => query.only(|model| model.get("ready") == Some(&Value::Bool(false))),
        None => {}
    }
    let found = query.run(call.db, "models", hidden, &["task", "project", "uri"])?;
    let models: Vec<Doc> = found
        .into_iter()
        .map(|model| query.cut_with_id(shown(call, model)))
        .collect();
    let returned = models.len();
    Ok(query.paged(json!({"models": models}), returned))
}

/// `models.edit`
pub(crate) fn edit(call: &Call) -> Answer {
    let mut model = known(call.db, call.text("model")?)?;
    let fields = members(call)?;
    advance(
        call,
        fields
            .get("task")
            .and_then(Value::as_str)
            .or(Some(doc::text(&model, "task"))),
    )?;
    if fields.is_empty() {
        return Ok(json!({"updated": 0, "fields": {}}));
    }
    model.extend(fields.clone());
    touch(call, &mut model);
    save(call.db, &model)?;
    Ok(json!({"updated": 1, "fields": fields}))
}

/// An iteration raises the task's last one (§2.7).
fn advance(call: &Call, task: Option<&str>) -> Result<(), Refusal> {
    let Some(iteration) = call.int("iteration")? else {
        return Ok(());
    };
    let Some(mut task) = task
        .map(|id| tasks::find(call.db, id))
        .transpose()?
        .flatten()
    else {
        return Ok(());
    };
    let last = query::int_at(&task, "last_iteration").max(iteration);
    task.insert("last_iteration".into(), last.into());
    tasks::refresh(call, &mut task);
    tasks::save(call.db, &task)
}

/// `models.update_for_task`
pub(crate) fn update_for_task(call: &Call) -> Answer {
    let mut task = tasks::known(call.db, call.text("task")?)?;
    let id = if let Some(id) = call.text_or_none("override_model_id")? {
        doc::text(&known(call.db, id)?, "id").to_owned()
    } else {
        let mut members = members(call)?;
        call.text("uri")?;
        members
            .entry("name")
            .or_insert_with(|| task["name"].clone());
        if let Some(project) = task.get("project") {
            members.insert("project".into(), project.clone());
        }
        new_model(call, members)?
    };
    let name = doc::text(&known(call.db, &id)?, "name").to_owned();
    let entry = json!({"name": name, "model": id, "updated": call.now});
    if let Value::Array(entries) = doc::object_at(&mut task, "models")
        .entry("output")
        .or_insert_with(|| json!([]))
    {
        entries.retain(|have| have["name"] != name.as_str());
        entries.push(entry);
    }
    tasks::touch(call, &mut task);
    tasks::save(call.db, &task)?;
    advance(call, Some(doc::text(&task, "id")))?;
    let created = call.value("override_model_id").is_none();
    Ok(json!({"id": id, "created": created, "updated": u8::from(!created), "fields": {}}))
}

/// `models.set_ready`
pub(crate) fn set_ready(call: &Call) -> Answer {
    publish_one(call, call.text("model")?).map(Value::Object)
}

/// `models.publish_many`
pub(crate) fn publish_many(call: &Call) -> Answer {
    call.many(|call, id| {
        let mut answer = publish_one(call, id)?;
        answer.insert("updated".into(), true.into());
        Ok(answer)
    })
}

fn publish_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let mut model = known(call.db, id)?;
    if model.get("ready").and_then(Value::as_bool) == Some(true) {
        let text = format!("Model is ready: company={COMPANY}, model={id}");
        return Err(Refusal::bad(203, text));
    }
    let published = publish_task(call, &model)?;
    model.insert("ready".into(), true.into());
    touch(call, &mut model);
    save(call.db, &model)?;
    let mut answer = Doc::new();
    answer.insert("updated".into(), 1.into());
    if let Some(published) = published {
        answer.insert("published_task".into(), published);
    }
    Ok(answer)
}

/// Publishes the task that made a model, unless the call says otherwise; nothing if it is published or gone.
fn publish_task(call: &Call, model: &Doc) -> Result<Option<Value>, Refusal> {
    let force = call.flag("force_publish_task")?;
    if !call.flag_or("publish_task", true)? {
        return Ok(None);
    }
    let Some(mut task) = tasks::find(call.db, doc::text(model, "task"))? else {
        return Ok(None);
    };
    if doc::text(&task, "status") == "published" {
        return Ok(None);
    }
    let data = tasks::status::publish_maker(call, &mut task, force)?;
    Ok(Some(json!({"id": task["id"], "data": data})))
}

/// `models.delete`
pub(crate) fn delete(call: &Call) -> Answer {
    delete_one(call, call.text("model")?).map(Value::Object)
}

/// `models.delete_many`
pub(crate) fn delete_many(call: &Call) -> Answer {
    call.many(delete_one)
}

fn delete_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let model = known(call.db, id)?;
    if model.get("ready").and_then(Value::as_bool) == Some(true) && !call.flag("force")? {
        return Err(Refusal::bad(
            202,
            "Model is published (use force=true to delete)",
        ));
    }
    call.db.execute("DELETE FROM models WHERE id = ?1", [id])?;
    super::events::delete_of(call.db, id)?;
    let mut answer = Doc::new();
    answer.insert("deleted".into(), true.into());
    answer.insert("url".into(), json!(model.get("uri")));
    Ok(answer)
}

/// `models.get_frameworks`: those in use.
pub(crate) fn get_frameworks(call: &Call) -> Answer {
    let sql = "SELECT DISTINCT json_extract(doc, '$.framework') AS framework FROM models
               WHERE framework IS NOT NULL AND framework <> ''
                 AND (?1 = '[]' OR project IN (SELECT value FROM json_each(?1))) ORDER BY 1";
    let mut statement = call.db.prepare_cached(sql)?;
    let frameworks = statement
        .query_map([json!(call.texts("projects")?).to_string()], |row| {
            row.get(0)
        })?
        .collect::<Result<Vec<String>, _>>()?;
    Ok(json!({"frameworks": frameworks}))
}

/// `models.add_or_update_metadata`
pub(crate) fn add_or_update_metadata(call: &Call) -> Answer {
    let mut model = known(call.db, call.text("model")?)?;
    let items = call.objects("metadata")?;
    let replace = call.flag("replace_metadata")?;
    let metadata = doc::object_at(&mut model, "metadata");
    if replace {
        metadata.clear();
    }
    doc::add_metadata(metadata, &items);
    touch(call, &mut model);
    save(call.db, &model)?;
    Ok(json!({"updated": 1}))
}

/// `models.delete_metadata`
pub(crate) fn delete_metadata(call: &Call) -> Answer {
    let mut model = known(call.db, call.text("model")?)?;
    let metadata = doc::object_at(&mut model, "metadata");
    for key in call.texts_required("keys")? {
        metadata.shift_remove(key);
    }
    touch(call, &mut model);
    save(call.db, &model)?;
    Ok(json!({"updated": 1}))
}

/// `models.archive_many`
pub(crate) fn archive_many(call: &Call) -> Answer {
    call.many(|call, id| set_archived(call, id, "archived"))
}

/// `models.unarchive_many`
pub(crate) fn unarchive_many(call: &Call) -> Answer {
    call.many(|call, id| set_archived(call, id, "unarchived"))
}

fn set_archived(call: &Call, id: &str, word: &str) -> Result<Doc, Refusal> {
    let mut model = known(call.db, id)?;
    let mut tags = doc::strings(&model, "system_tags");
    tags.retain(|tag| *tag != "archived");
    if word == "archived" {
        tags.push("archived");
    }
    let tags = query::tags(&tags);
    model.insert("system_tags".into(), tags);
    touch(call, &mut model);
    save(call.db, &model)?;
    let mut answer = Doc::new();
    answer.insert(word.into(), true.into());
    Ok(answer)
}
