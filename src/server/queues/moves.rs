//! Moving an entry inside its queue (§2.4).

use rusqlite::params;
use serde_json::json;

use super::super::call::Call;
use super::super::wire::Answer;
use super::{not_in_queue, touch};

/// Where a move puts an entry that stands at `from` among `len`.
enum Move {
    Front,
    Back,
    By(i64),
}

fn move_task(call: &Call, to: &Move) -> Answer {
    let (queue, task) = (call.text("queue")?, call.text("task")?);
    let mut statement = call
        .db
        .prepare_cached("SELECT task FROM entries WHERE queue = ?1 ORDER BY position")?;
    let mut order = statement
        .query_map([queue], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    drop(statement);
    let from = order
        .iter()
        .position(|have| have == task)
        .ok_or_else(|| not_in_queue(queue, task))?;
    let last = order.len() - 1;
    let position = match to {
        Move::Front => 0,
        Move::Back => last,
        Move::By(steps) => from
            .saturating_add_signed(isize::try_from(*steps).unwrap_or_default())
            .min(last),
    };
    let moved = order.remove(from);
    order.insert(position, moved);
    // Only what lies between the two places changes, by way of negative positions, which are never in use.
    let (low, high) = (from.min(position), from.max(position));
    let mut statement = call
        .db
        .prepare_cached("SELECT position FROM entries WHERE queue = ?1 ORDER BY position")?;
    let places = statement
        .query_map([queue], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    drop(statement);
    let mut place = call
        .db
        .prepare_cached("UPDATE entries SET position = ?3 WHERE queue = ?1 AND task = ?2")?;
    for (task, to) in order[low..=high].iter().zip(&places[low..=high]) {
        place.execute(params![queue, task, -to])?;
    }
    for (task, to) in order[low..=high].iter().zip(&places[low..=high]) {
        place.execute(params![queue, task, to])?;
    }
    touch(call.db, queue, &call.now)?;
    Ok(json!({"position": position}))
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
