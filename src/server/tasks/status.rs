//! The status calls, alone and as `*_many`: what `rules` decides is written here (§2.3, §3.4, §4).

use serde_json::{Value, json};

use super::super::auth::COMPANY;
use super::super::rules::{Ask, StatusChange, TakeOut};
use super::super::wire::{Refusal, Version};
use super::super::{models, queues, workers};
use super::{Answer, Call, Doc, doc, find, known, rules, save, steps};
use crate::task::Status;

/// Writes a change and takes the entries out that it names; returns `fields` of the answer and the number of entries.
pub(super) fn write(
    call: &Call,
    task: &mut Doc,
    change: &StatusChange,
) -> Result<(Doc, usize), Refusal> {
    let fields = change.apply(task, &call.now, call.user());
    let removed = remove_entries(call, task, change.take_out)?;
    save(call.db, task)?;
    Ok((fields, removed))
}

fn remove_entries(call: &Call, task: &Doc, which: TakeOut) -> Result<usize, Refusal> {
    let id = doc::text(task, "id");
    match which {
        TakeOut::Nothing => Ok(0),
        TakeOut::OwnQueue => Ok(usize::from(queues::take_out(
            call,
            doc::text(task, "execution.queue"),
            id,
        )?)),
        TakeOut::EveryQueue => queues::take_out_of_all(call, id, None),
    }
}

fn written(call: &Call, task: &mut Doc, change: &StatusChange) -> Result<Doc, Refusal> {
    let (fields, _) = write(call, task, change)?;
    Ok(answer(1, fields))
}

fn answer(updated: u8, fields: Doc) -> Doc {
    let mut answer = Doc::new();
    answer.insert("updated".into(), updated.into());
    answer.insert("fields".into(), fields.into());
    answer
}

/// One status call on one task.
type One = fn(&Call, &str) -> Result<Doc, Refusal>;

fn single(call: &Call, one: One) -> Answer {
    one(call, call.text("task")?).map(Value::Object)
}

/// The `*_many` form: of what is done about entries it tells only whether it was.
fn many(call: &Call, one: One) -> Answer {
    call.many(|call, id| {
        let mut result = one(call, id)?;
        for flag in ["queued", "dequeued"] {
            let done = match result.get(flag) {
                Some(Value::Number(_)) => true,
                Some(Value::Object(entries)) => entries.contains_key("removed"),
                _ => continue,
            };
            result.insert(flag.into(), done.into());
        }
        result.shift_remove("events");
        Ok(result)
    })
}

macro_rules! status_calls {
    ($($(#[$doc:meta])* $single:ident, $many:ident => $one:path;)*) => {
        $(
            $(#[$doc])*
            pub(crate) fn $single(call: &Call) -> Answer {
                single(call, $one)
            }
            /// The same for many.
            pub(crate) fn $many(call: &Call) -> Answer {
                many(call, $one)
            }
        )*
    };
}

status_calls! {
    /// `tasks.enqueue`
    enqueue, enqueue_many => enqueue_one;
    /// `tasks.dequeue`
    dequeue, dequeue_many => dequeue_one;
    /// `tasks.started`
    started, started_many => started_one;
    /// `tasks.stop`
    stop, stop_many => stop_one;
    /// `tasks.stopped`
    stopped, stopped_many => stopped_one;
    /// `tasks.failed`
    failed, failed_many => failed_one;
    /// `tasks.completed`
    completed, completed_many => completed_one;
    /// `tasks.close`
    close, close_many => close_one;
    /// `tasks.publish`
    publish, publish_many => publish_one;
    /// `tasks.reset`
    reset, reset_many => super::remove::reset_one;
    /// `tasks.delete`
    delete, delete_many => super::remove::delete_one;
}

fn enqueue_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let task = known(call.db, id)?;
    let queue = match (
        call.text_or_none("queue")?,
        call.text_or_none("queue_name")?,
    ) {
        (Some(_), Some(_)) => {
            return Err(Refusal::invalid("queue and queue_name exclude each other"));
        }
        (Some(queue), None) => queue.to_owned(),
        (None, Some(name)) => queues::named(call.db, name, &call.now)?,
        (None, None) => queues::default_queue(call.db)?.0,
    };
    into_queue(call, task, &queue, &call.status_ask()?)
}

/// Puts a task at the end of a queue, and takes it out of all others.
pub(crate) fn into_queue(
    call: &Call,
    mut task: Doc,
    queue: &str,
    ask: &Ask,
) -> Result<Doc, Refusal> {
    let id = doc::text(&task, "id").to_owned();
    let recorded = call.flag_or("update_execution_queue", true)? || !call.plays(Version(2, 31));
    let change = rules::enqueue(&task, recorded.then_some(queue), ask)?;
    // The real server changes the status first and takes it back; what that leaves on the task is part of its answer.
    if let Err(refusal) = queues::append(call, queue, &id) {
        let change = rules::failed_enqueue(&task);
        write(call, &mut task, &change)?;
        return Err(refusal.keeping_writes());
    }
    let mut result = written(call, &mut task, &change)?;
    queues::take_out_of_all(call, &id, Some(queue))?;
    result.insert("queued".into(), 1.into());
    if call.flag("verify_watched_queue")? {
        result.insert(
            "queue_watched".into(),
            workers::is_watched(call, queue)?.into(),
        );
    }
    Ok(result)
}

fn dequeue_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let new_status = match call.text_or_none("new_status")? {
        None => None,
        Some(word) => Some(
            rules::parse_status(word)
                .ok_or_else(|| Refusal::invalid(format_args!("Invalid task status: {word}")))?,
        ),
    };
    let everywhere = call.flag("remove_from_all_queues")?;
    let Some(mut task) = find(call.db, id)? else {
        queues::take_out_of_all(call, id, None)?;
        return Ok(dequeued(answer(0, Doc::new())));
    };
    remove_entries(
        call,
        &task,
        if everywhere {
            TakeOut::EveryQueue
        } else {
            TakeOut::OwnQueue
        },
    )?;
    match rules::dequeue(&task, new_status, &call.status_ask()?) {
        Some(change) => written(call, &mut task, &change).map(dequeued),
        None => Ok(dequeued(answer(0, Doc::new()))),
    }
}

fn dequeued(mut answer: Doc) -> Doc {
    answer.insert("dequeued".into(), 1.into());
    answer
}

fn started_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    // This call alone has a code of its own for a task that is not there (§1.8).
    let mut task = find(call.db, id)?
        .ok_or_else(|| Refusal::unknown_id(10, "Invalid object id", id, COMPANY))?;
    let change = rules::started(&task, &call.status_ask()?, &call.now)?;
    let mut result = written(call, &mut task, &change)?;
    result.insert("started".into(), 1.into());
    Ok(result)
}

fn stop_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let mut task = known(call.db, id)?;
    let ask = call.status_ask()?;
    let forced = Ask {
        force: true,
        ..ask.clone()
    };
    for mut step in steps::asked_for(call, &task)? {
        stop_task(call, &mut step, &forced)?;
    }
    stop_task(call, &mut task, &ask)
}

fn stop_task(call: &Call, task: &mut Doc, ask: &Ask) -> Result<Doc, Refusal> {
    let change = rules::stop(task, ask, &call.request.caller.name, call.at)?;
    written(call, task, &change)
}

fn ended(call: &Call, id: &str, to: Status) -> Result<Doc, Refusal> {
    let mut task = known(call.db, id)?;
    let change = rules::ended(&task, to, &call.status_ask()?, &call.now)?;
    written(call, &mut task, &change)
}

fn stopped_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    ended(call, id, Status::Stopped)
}

fn failed_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    ended(call, id, Status::Failed)
}

fn completed_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let mut result = ended(call, id, Status::Completed)?;
    let mut published = 0;
    if call.flag("publish")? {
        publish_one(call, id)?;
        published = 1;
    }
    result.insert("published".into(), published.into());
    Ok(result)
}

fn close_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let mut task = known(call.db, id)?;
    let change = rules::close(&task, &call.status_ask()?)?;
    written(call, &mut task, &change)
}

fn publish_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let mut task = known(call.db, id)?;
    let change = rules::publish(&task, &call.status_ask()?, &call.now)?;
    if call.flag_or("publish_model", true)? {
        models::publish_last_output(call, &task)?;
    }
    written(call, &mut task, &change)
}

/// Publishes the task whose model is published (`models.set_ready`): its models are not looked at.
pub(crate) fn publish_maker(call: &Call, task: &mut Doc, force: bool) -> Result<Doc, Refusal> {
    let ask = Ask {
        force,
        ..Ask::default()
    };
    let change = rules::publish(task, &ask, &call.now)?;
    written(call, task, &change)
}

/// `tasks.archive`
pub(crate) fn archive(call: &Call) -> Answer {
    let ids = call.texts_required("tasks")?;
    for id in &ids {
        archive_one(call, id)?;
    }
    Ok(json!({"archived": ids.len()}))
}

/// `tasks.archive_many`
pub(crate) fn archive_many(call: &Call) -> Answer {
    many(call, archive_one)
}

fn archive_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let task = known(call.db, id)?;
    let ask = call.status_ask()?;
    let steps = steps::asked_for(call, &task)?;
    for mut task in steps.into_iter().chain([task]) {
        let change = rules::archive(&task, &ask);
        set_archived(&mut task, true);
        write(call, &mut task, &change)?;
    }
    Ok(archived())
}

/// `tasks.unarchive_many`
pub(crate) fn unarchive_many(call: &Call) -> Answer {
    many(call, unarchive_one)
}

/// `tasks.unarchive`
pub(crate) fn unarchive(call: &Call) -> Answer {
    let ids = call.texts_required("tasks")?;
    for id in &ids {
        unarchive_one(call, id)?;
    }
    Ok(json!({"unarchived": ids.len()}))
}

fn unarchive_one(call: &Call, id: &str) -> Result<Doc, Refusal> {
    let task = known(call.db, id)?;
    let steps = steps::asked_for(call, &task)?;
    for mut task in steps.into_iter().chain([task]) {
        set_archived(&mut task, false);
        super::note_change(call, &mut task);
        save(call.db, &task)?;
    }
    let mut answer = Doc::new();
    answer.insert("unarchived".into(), true.into());
    Ok(answer)
}

fn archived() -> Doc {
    let mut answer = Doc::new();
    answer.insert("archived".into(), true.into());
    answer
}

fn set_archived(task: &mut Doc, archived: bool) {
    let mut tags = doc::strings(task, "system_tags");
    tags.retain(|tag| *tag != "archived");
    if archived {
        tags.push("archived");
    }
    let tags = super::query::tags(&tags);
    task.insert("system_tags".into(), tags);
}
