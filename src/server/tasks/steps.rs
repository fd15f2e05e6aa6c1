//! Steps of pipelines: the tasks whose parent is a controller. They go along with it where the caller asks for that
//! (§2.3, `include_pipeline_steps`).

use super::super::wire::{Refusal, Version};
use super::{Call, Doc, doc, query};

/// The steps that a request wants to take along; a task of another type has none.
pub(super) fn asked_for(call: &Call, task: &Doc) -> Result<Vec<Doc>, Refusal> {
    if !call.flag("include_pipeline_steps")? || !call.plays(Version(2, 30)) {
        return Ok(Vec::new());
    }
    of(call, task)
}

/// All steps of a controller.
pub(super) fn of(call: &Call, task: &Doc) -> Result<Vec<Doc>, Refusal> {
    if doc::text(task, "type") != "controller" {
        return Ok(Vec::new());
    }
    let sql = "SELECT doc FROM tasks WHERE parent = ?1 ORDER BY created, id";
    query::documents(call.db, sql, doc::text(task, "id"))
}
