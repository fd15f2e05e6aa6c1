//! `tasks.update_tags` and `models.update_tags`: tags put on many at once, and taken off.

use serde_json::json;

use super::call::Call;
use super::wire::{Answer, Doc, Refusal};
use super::{doc, models, query, tasks};

/// `tasks.update_tags`
pub(crate) fn of_tasks(call: &Call) -> Answer {
    update(
        call,
        |id| tasks::find(call.db, id),
        |task| {
            tasks::note_change(call, task);
            tasks::save(call.db, task)
        },
    )
}

/// `models.update_tags`
pub(crate) fn of_models(call: &Call) -> Answer {
    update(
        call,
        |id| models::find(call.db, id),
        |model| {
            models::touch(call, model);
            models::save(call.db, model)
        },
    )
}

/// Counts each object once for what is put on and once for what is taken off; unknown ids are left out.
fn update(
    call: &Call,
    find: impl Fn(&str) -> Result<Option<Doc>, Refusal>,
    save: impl Fn(&mut Doc) -> Result<(), Refusal>,
) -> Answer {
    let ids = call.texts_required("ids")?;
    let (add, remove) = (call.texts("add_tags")?, call.texts("remove_tags")?);
    if ids.is_empty() {
        return Err(Refusal::invalid("No entity ids provided for editing tags"));
    }
    if add.is_empty() && remove.is_empty() {
        return Err(Refusal::invalid(
            "Either add tags or remove tags should be provided",
        ));
    }
    let steps = usize::from(!add.is_empty()) + usize::from(!remove.is_empty());
    let mut updated = 0;
    for id in ids {
        let Some(mut object) = find(id)? else {
            continue;
        };
        let mut tags = doc::strings(&object, "tags");
        tags.extend(&add);
        tags.retain(|tag| !remove.contains(tag));
        let tags = query::tags(&tags);
        object.insert("tags".into(), tags);
        save(&mut object)?;
        updated += steps;
    }
    Ok(json!({"updated": updated}))
}
