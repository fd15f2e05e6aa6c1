//! Editing a task's members: `tasks.edit`, `update`, `update_batch`, `set_requirements`, `ping`.

use serde_json::{Value, json};

use super::super::line::Line;
use super::super::query;
use super::super::wire::Refusal;
use super::{
    Answer, Call, Doc, asked, check_project, checked_name, doc, known, note_change, refresh, rules,
    save, touch, write_members,
};

/// What an edit may say without being a sign of life of the run (§3.1): what `tasks.update` writes too.
const COSMETIC: [&str; 5] = ["name", "comment", "project", "tags", "system_tags"];

/// `tasks.edit`
pub(crate) fn edit(call: &Call) -> Answer {
    let mut task = asked(call)?;
    rules::editable(&task, &[], call.flag("force")?)?;
    let mut fields = write_members(call, &mut task)?;
    // A new task knows no such member: it is `created` (§2.3).
    if let Some(word) = call.text_or_none("status")? {
        let status = rules::parse_status(word);
        let status =
            status.ok_or_else(|| Refusal::invalid(format_args!("Invalid task status: {word}")))?;
        task.insert("status".into(), status.as_str().into());
        fields.insert("status".into(), status.as_str().into());
    }
    if fields.is_empty() {
        return Ok(json!({"updated": 0, "fields": {}}));
    }
    if fields.keys().all(|key| COSMETIC.contains(&key.as_str())) {
        note_change(call, &mut task);
    } else {
        touch(call, &mut task);
    }
    for key in ["last_change", "last_changed_by", "last_update"] {
        fields.insert(key.into(), task[key].clone());
    }
    save(call.db, &task)?;
    Ok(json!({"updated": 1, "fields": fields}))
}

/// `tasks.update`: only these few members, in any status.
pub(crate) fn update(call: &Call) -> Answer {
    let mut task = asked(call)?;
    let fields = updated(call, &mut task, &call.request.body)?;
    if fields.is_empty() {
        return Ok(json!({"updated": 0, "fields": {}}));
    }
    save(call.db, &task)?;
    Ok(json!({"updated": 1, "fields": fields}))
}

fn updated(call: &Call, task: &mut Doc, ask: &Doc) -> Result<Doc, Refusal> {
    let mut fields = Doc::new();
    for key in ["name", "comment", "status_message", "project"] {
        match ask.get(key) {
            Some(Value::String(text)) => {
                if key == "name" {
                    checked_name(text)?;
                } else if key == "project" && !text.is_empty() {
                    check_project(call, text)?;
                }
                fields.insert(key.into(), text.clone().into());
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(super::wrong(key, "a string")),
        }
    }
    for key in ["tags", "system_tags"] {
        let tags: Option<Vec<&str>> = match ask.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::String(tag)) => Some(vec![tag]),
            Some(Value::Array(tags)) => tags.iter().map(Value::as_str).collect(),
            Some(_) => None,
        };
        let tags = tags.ok_or_else(|| super::wrong(key, "a list of strings"))?;
        fields.insert(key.into(), query::tags(&tags));
    }
    if !fields.is_empty() {
        task.extend(fields.clone());
        note_change(call, task);
    }
    Ok(fields)
}

/// `tasks.update_batch`
pub(crate) fn update_batch(call: &Call) -> Answer {
    let lines = call.request.lines.as_deref().unwrap_or_default();
    if lines.is_empty() {
        return Err(Refusal::bad(17, "Batch request contains no items"));
    }
    let mut count = 0;
    for line in lines {
        let Line::Other(line) = line else { continue };
        let mut task = known(call.db, doc::text(line, "task"))?;
        if !updated(call, &mut task, line)?.is_empty() {
            save(call.db, &task)?;
            count += 1;
        }
    }
    Ok(json!({"updated": count}))
}

/// `tasks.set_requirements`: replaces the whole object; `pip` may be a string or a list.
pub(crate) fn set_requirements(call: &Call) -> Answer {
    let mut task = asked(call)?;
    let mut requirements = call
        .object("requirements")?
        .ok_or_else(|| super::super::call::required("requirements"))?
        .clone();
    requirements.retain(|_, value| !value.is_null());
    doc::set(&mut task, "script.requirements", requirements.into());
    touch(call, &mut task);
    save(call.db, &task)?;
    Ok(json!({"updated": 1, "fields": {}}))
}

/// `tasks.ping`
pub(crate) fn ping(call: &Call) -> Answer {
    let mut task = asked(call)?;
    refresh(call, &mut task);
    save(call.db, &task)?;
    Ok(json!({}))
}
