//! Taking tasks back to their beginning, or away: `tasks.reset`, `tasks.delete`.

use serde_json::{Value, json};

use super::super::wire::Refusal;
use super::super::{events, files, models, queues};
use super::{Call, Doc, doc, known, rules, status, steps};

/// `tasks.reset` of one task.
pub(super) fn reset_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let mut task = known(call.db, id)?;
    let change = rules::reset(&task, &call.status_ask()?)?;
    // The answer counts the entry in the task's own queue alone (§2.3).
    let own = queues::take_out(call, doc::text(&task, "execution.queue"), id)?;
    doom_files(call, &task, true)?;
    rules::clear(&mut task, call.flag("clear_all")?);
    let (fields, _) = status::write(call, &mut task, &change)?;
    events::delete_of(call.db, id)?;
    let deleted_models = models::delete_drafts_of(call.db, id)?.len();
    let mut answer = Doc::new();
    answer.insert("updated".into(), 1.into());
    answer.insert("fields".into(), fields.into());
    answer.insert(
        "dequeued".into(),
        if own {
            json!({"removed": 1})
        } else {
            json!({})
        },
    );
    answer.insert("deleted_models".into(), deleted_models.into());
    answer.insert("events".into(), json!({}));
    answer.insert("urls".into(), json!({}));
    Ok(answer)
}

/// The files that only this task's run names go too, unless the caller wants to see to them.
fn doom_files(call: &Call, task: &Doc, with_models: bool) -> Result<(), Refusal> {
    if !call.flag_or("delete_external_artifacts", true)? {
        return Ok(());
    }
    let id = doc::text(task, "id");
    let mut urls = events::urls_of(call.db, id)?;
    if with_models {
        urls.extend(models::draft_urls_of(call.db, id)?);
    }
    urls.extend(output_artifacts(task).filter_map(|artifact| {
        let uri = artifact.get("uri").and_then(Value::as_str)?;
        Some(uri.to_owned())
    }));
    files::doomed::doom(call, id, &urls)
}

fn output_artifacts(task: &Doc) -> impl Iterator<Item = &Value> {
    let artifacts = doc::get(task, "execution.artifacts").and_then(Value::as_array);
    let all = artifacts.map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|artifact| artifact["mode"] != "input")
}

/// `tasks.delete` of one task.
pub(super) fn delete_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let task = known(call.db, id)?;
    rules::delete(&task, call.flag("force")?)?;
    let with_models = call.flag_or("delete_output_models", true)?;
    let urls = call
        .flag("return_file_urls")?
        .then(|| urls_of(call, &task))
        .transpose()?;
    let steps = steps::asked_for(call, &task)?;
    let mut answer = take_away(call, &task, &steps, with_models)?;
    answer.insert("urls".into(), urls.unwrap_or(Value::Null));
    Ok(answer)
}

/// A run of a pipeline with all its steps, whatever their status is (`pipelines.delete_runs`).
pub(crate) fn delete_run(call: &Call, run: &Doc) -> Result<Doc, Refusal> {
    let mut answer = take_away(call, run, &steps::of(call, run)?, true)?;
    answer.insert("urls".into(), Value::Null);
    Ok(answer)
}

/// Takes a task away, and these steps before it; the answer counts what went with the task itself (§2.3).
fn take_away(call: &Call, task: &Doc, steps: &[Doc], with_models: bool) -> Result<Doc, Refusal> {
    for step in steps {
        doom_files(call, step, with_models)?;
        remove(call, doc::text(step, "id"), with_models)?;
    }
    doom_files(call, task, with_models)?;
    let removed = remove(call, doc::text(task, "id"), with_models)?;
    let mut answer = Doc::new();
    answer.insert("deleted".into(), true.into());
    answer.insert("updated_children".into(), removed.children.into());
    answer.insert("updated_models".into(), removed.kept_models.into());
    answer.insert("deleted_models".into(), removed.models.into());
    Ok(answer)
}

/// What went with a task.
pub(crate) struct Removed {
    children: usize,
    kept_models: usize,
    pub(crate) models: usize,
}

/// Takes a task away with its entries, events and, if wanted, its drafts of models.
pub(crate) fn remove(call: &Call, id: &str, with_models: bool) -> Result<Removed, Refusal> {
    queues::take_out_of_all(call, id, None)?;
    let removed = remove_but_entries(call, id, with_models)?;
    Ok(removed)
}

/// As `remove`, but the entries stay (`projects.delete`, §4).
pub(crate) fn remove_but_entries(
    call: &Call,
    id: &str,
    with_models: bool,
) -> Result<Removed, Refusal> {
    events::delete_of(call.db, id)?;
    let models = if with_models {
        models::delete_drafts_of(call.db, id)?.len()
    } else {
        0
    };
    let kept_models = models::forget_task(call.db, id)?;
    let children = call.db.execute(
        "UPDATE tasks SET parent = NULL, doc = json_remove(doc, '$.parent') WHERE parent = ?1",
        [id],
    )?;
    call.db.execute("DELETE FROM tasks WHERE id = ?1", [id])?;
    Ok(Removed {
        children,
        kept_models,
        models,
    })
}

/// Addresses of the files that a task leaves behind.
pub(crate) fn urls_of(call: &Call, task: &Doc) -> Result<Value, Refusal> {
    let id = doc::text(task, "id");
    let artifact_urls: Vec<&Value> = output_artifacts(task)
        .map(|artifact| &artifact["uri"])
        .collect();
    Ok(json!({
        "model_urls": models::urls_of(call.db, id)?,
        "event_urls": events::urls_of(call.db, id)?,
        "artifact_urls": artifact_urls,
    }))
}
