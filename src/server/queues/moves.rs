//! Moving an entry inside its queue (§2.4).

use rusqlite::{OptionalExtension as _, params};
use serde_json::json;

use super::super::call::Call;
use super::super::wire::{Answer, Refusal};
use super::{not_in_queue, touch};

/// Far from any place that is in use.
const UNUSED: i64 = -1 << 60;

/// Where a move puts an entry that stands at `from` among `len`.
enum Move {
    Front,
    Back,
    By(i64),
}

fn move_task(call: &Call, to: &Move) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    let sql = "SELECT position FROM entries WHERE queue = ?1 AND task = ?2";
    let from: i64 = call
        .db
        .prepare_cached(sql)?
        .query_row([queue, task], |row| row.get(0))
        .optional()?
        .ok_or_else(|| not_in_queue(queue, task))?;
    match to {
        Move::Front => put(call, queue, task, "SELECT min(position) - 1")?,
        Move::Back => put(call, queue, task, "SELECT max(position) + 1")?,
        Move::By(steps) => shift(call, queue, from, *steps)?,
    }
    touch(call.db, queue, &call.now)?;
    let sql = "SELECT count(*) FROM entries WHERE queue = ?1
               AND position < (SELECT position FROM entries WHERE queue = ?1 AND task = ?2)";
    let position: i64 = call
        .db
        .prepare_cached(sql)?
        .query_row([queue, task], |row| row.get(0))?;
    Ok(json!({"position": position}))
}

/// Puts an entry at one end; the others stay where they are.
fn put(call: &Call, queue: &str, task: &str, end: &str) -> Result<(), Refusal> {
    let sql = format!(
        "UPDATE entries SET position = ({end} FROM entries WHERE queue = ?1) WHERE queue = ?1 AND task = ?2"
    );
    call.db.prepare_cached(&sql)?.execute([queue, task])?;
    Ok(())
}

/// Moves the entry at `from` by some steps, towards the head if they are negative. Only what lies between the two
/// places changes, by way of places that are never in use.
fn shift(call: &Call, queue: &str, from: i64, steps: i64) -> Result<(), Refusal> {
    let sql = if steps < 0 {
        "SELECT task, position FROM entries WHERE queue = ?1 AND position <= ?2 ORDER BY position DESC LIMIT ?3"
    } else {
        "SELECT task, position FROM entries WHERE queue = ?1 AND position >= ?2 ORDER BY position LIMIT ?3"
    };
    let count = steps.saturating_abs().saturating_add(1);
    let mut statement = call.db.prepare_cached(sql)?;
    let between = statement
        .query_map(params![queue, from, count], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<Vec<(String, i64)>, _>>()?;
    drop(statement);
    let (mut tasks, places): (Vec<String>, Vec<i64>) = between.into_iter().unzip();
    tasks.rotate_left(1);
    let mut place = call
        .db
        .prepare_cached("UPDATE entries SET position = ?3 WHERE queue = ?1 AND task = ?2")?;
    for aside in [UNUSED, 0] {
        for (task, to) in tasks.iter().zip(&places) {
            place.execute(params![queue, task, aside + to])?;
        }
    }
    Ok(())
}

/// `queues.move_task_to_front`
pub(crate) fn move_to_front(call: &Call) -> Answer {
    move_task(call, &Move::Front)
}

/// `queues.move_task_to_back`
pub(crate) fn move_to_back(call: &Call) -> Answer {
    move_task(call, &Move::Back)
}

/// `queues.move_task_forward`: towards the head.
pub(crate) fn move_forward(call: &Call) -> Answer {
    move_task(call, &Move::By(-call.int("count")?.unwrap_or(1).max(0)))
}

/// `queues.move_task_backward`
pub(crate) fn move_backward(call: &Call) -> Answer {
    move_task(call, &Move::By(call.int("count")?.unwrap_or(1).max(0)))
}
