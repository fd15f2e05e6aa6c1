//! What hangs on a task: artifacts (§3.2) and the models it takes in and puts out.

use serde_json::{Value, json};

use super::super::call::required;
use super::super::models;
use super::super::wire::Refusal;
use super::{Answer, Call, Doc, asked, doc, rules, save, touch};
use crate::task::Status;

const RUNNING: [Status; 2] = [Status::Queued, Status::InProgress];

/// An artifact as it is stored: key and type are required, the mode is `output` unless it is said to be `input`.
pub(super) fn artifact(item: &Doc) -> Result<Doc, Refusal> {
    for key in ["key", "type"] {
        if doc::text(item, key).is_empty() {
            return Err(required(key));
        }
    }
    let mut artifact = item.clone();
    artifact.retain(|_, value| !value.is_null());
    let mode = artifact.entry("mode").or_insert_with(|| "output".into());
    if *mode != "input" && *mode != "output" {
        return Err(Refusal::invalid(format_args!(
            "Invalid artifact mode: {mode}"
        )));
    }
    Ok(artifact)
}

/// In the order of their keys.
pub(super) fn sort(artifacts: &mut [Doc]) {
    artifacts.sort_by(|a, b| {
        (doc::text(a, "key"), doc::text(a, "mode"))
            .cmp(&(doc::text(b, "key"), doc::text(b, "mode")))
    });
}

fn artifacts_of(task: &Doc) -> Vec<Doc> {
    let list = doc::get(task, "execution.artifacts")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().filter_map(Value::as_object).cloned().collect()
}

fn store(call: &Call, task: &mut Doc, artifacts: Vec<Doc>) -> Result<(), Refusal> {
    doc::set(
        task,
        "execution.artifacts",
        artifacts.into_iter().map(Value::Object).collect(),
    );
    touch(call, task);
    save(call.db, task)
}

/// `tasks.add_or_update_artifacts`
pub(crate) fn add_or_update_artifacts(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(&task, &RUNNING, call.flag("force")?)?;
    let mut artifacts = artifacts_of(&task);
    let items = call.objects("artifacts")?;
    for item in items {
        let new = artifact(item)?;
        let same = |have: &Doc| {
            ["key", "mode"]
                .iter()
                .all(|key| doc::text(have, key) == doc::text(&new, key))
        };
        artifacts.retain(|have| !same(have));
        artifacts.push(new);
    }
    sort(&mut artifacts);
    store(call, &mut task, artifacts)?;
    Ok(json!({"updated": 1}))
}

/// `tasks.delete_artifacts`
pub(crate) fn delete_artifacts(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(&task, &RUNNING, call.flag("force")?)?;
    let mut artifacts = artifacts_of(&task);
    let before = artifacts.len();
    for item in call.objects("artifacts")? {
        let mode = Some(doc::text(item, "mode"))
            .filter(|mode| !mode.is_empty())
            .unwrap_or("output");
        artifacts.retain(|have| {
            doc::text(have, "key") != doc::text(item, "key") || doc::text(have, "mode") != mode
        });
    }
    let deleted = usize::from(artifacts.len() < before);
    store(call, &mut task, artifacts)?;
    Ok(json!({"deleted": deleted}))
}

/// `tasks.add_or_update_model`
pub(crate) fn add_or_update_model(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(&task, &RUNNING, call.flag("force")?)?;
    let (name, model, kind) = (
        call.text("name")?,
        call.text("model")?,
        direction(call.text("type")?)?,
    );
    models::known(call.db, model)?;
    let mut entry = Doc::new();
    entry.insert("name".into(), name.into());
    entry.insert("model".into(), model.into());
    entry.insert("updated".into(), call.now.clone().into());
    let slot = doc::object_at(&mut task, "models")
        .entry(kind)
        .or_insert_with(|| json!([]));
    if let Value::Array(entries) = slot {
        match entries.iter_mut().find(|have| have["name"] == name) {
            Some(have) => *have = entry.into(),
            None => entries.push(entry.into()),
        }
    }
    if let Some(iteration) = call.int("iteration")? {
        let last = super::query::int_at(&task, "last_iteration").max(iteration);
        task.insert("last_iteration".into(), last.into());
    }
    touch(call, &mut task);
    save(call.db, &task)?;
    Ok(json!({"updated": 1}))
}

/// `tasks.delete_models`
pub(crate) fn delete_models(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(&task, &RUNNING, call.flag("force")?)?;
    for item in call.objects("models")? {
        let name = doc::text(item, "name").to_owned();
        let kind = direction(doc::text(item, "type"))?;
        if let Some(Value::Array(entries)) = doc::object_at(&mut task, "models").get_mut(kind) {
            entries.retain(|have| have["name"] != name.as_str());
        }
    }
    touch(call, &mut task);
    save(call.db, &task)?;
    Ok(json!({"updated": 1}))
}

fn direction(word: &str) -> Result<&str, Refusal> {
    match word {
        "input" | "output" => Ok(word),
        other => Err(Refusal::invalid(format_args!(
            "Invalid model type: {other}"
        ))),
    }
}
