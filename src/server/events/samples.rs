//! One plot or debug sample at a time, with a way to the neighbouring ones (§2.6, as the UI's viewer walks them).
//!
//! The scroll says where the viewer stands: metric, variant and iteration, and whether it stays with its metric.

use rusqlite::params;
use serde_json::{Value, json};

use super::super::call::required;
use super::super::doc;
use super::super::wire::{Answer, Doc, Refusal};
use super::room::Room;
use super::{Call, IMAGE, PLOT, VECTOR, check_task, int_at, scroll};

/// Vectors of one answer, and their bytes: each number takes many times as much memory as text.
const VECTORS: usize = 10_000;
const VECTOR_BYTES: usize = 4 << 20;

/// `events.get_debug_image_sample`
pub(crate) fn image(call: &Call) -> Answer {
    let variant = call.text("variant")?.to_owned();
    first(call, IMAGE, Some(&variant))
}

/// `events.next_debug_image_sample`
pub(crate) fn next_image(call: &Call) -> Answer {
    next(call, IMAGE)
}

/// `events.get_plot_sample`: all plots of a metric and iteration.
pub(crate) fn plot(call: &Call) -> Answer {
    first(call, PLOT, call.text_or_none("variant")?)
}

/// `events.next_plot_sample`
pub(crate) fn next_plot(call: &Call) -> Answer {
    next(call, PLOT)
}

/// The sample that is asked for: of that iteration, or the newest before it.
fn first(call: &Call, kind: &str, variant: Option<&str>) -> Answer {
    let (task, metric) = (call.text("task")?, call.text("metric")?);
    check_task(call, task)?;
    let until = call.int("iteration")?.unwrap_or(i64::MAX);
    let stays = call.flag("navigate_current_metric")?;
    let sql = "SELECT variant, iter FROM reports WHERE task = ?1 AND type = ?2 AND metric = ?3
               AND (?4 IS NULL OR variant = ?4) AND iter <= ?5 ORDER BY iter DESC, variant LIMIT 1";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query(params![task, kind, metric, variant, until])?;
    let Some(row) = rows.next()? else {
        let scroll = place(metric, variant.unwrap_or_default(), until, stays);
        return Ok(shown(kind, Vec::new(), scroll, (None, None)));
    };
    let (variant, iter): (String, i64) = (row.get(0)?, row.get(1)?);
    at(call, kind, task, (metric, &variant, iter, stays))
}

/// The neighbour of where the scroll stands.
fn next(call: &Call, kind: &str) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let scroll: Value = serde_json::from_str(call.text("scroll_id")?)
        .map_err(|_| Refusal::bad(12, "Invalid scroll_id"))?;
    let scroll = scroll
        .as_object()
        .ok_or_else(|| Refusal::bad(12, "Invalid scroll_id"))?;
    let (metric, variant) = (doc::text(scroll, "metric"), doc::text(scroll, "variant"));
    let iter = int_at(scroll, "iter");
    let stays = scroll.get("stays").and_then(Value::as_bool) == Some(true);
    let earlier = call.flag_or("navigate_earlier", true)?;
    let by_iteration = call.flag("next_iteration")?;
    // In one iteration the samples stand in the order of their names; plots of a metric are shown together.
    let name = if kind == PLOT {
        "metric, ''"
    } else {
        "metric, variant"
    };
    let (beyond, order) = if earlier { ("<", "DESC") } else { (">", "") };
    let further = if by_iteration {
        format!("iter {beyond} ?3")
    } else {
        format!("(iter, {name}) {beyond} (?3, ?4, ?5)")
    };
    let sql = format!(
        "SELECT metric, variant, iter FROM reports WHERE task = ?1 AND type = ?2 AND {further}
         AND ?4 = ?4 AND ?5 = ?5 AND (NOT ?6 OR metric = ?4)
         ORDER BY iter {order}, metric {order}, variant {order} LIMIT 1"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let compared = if kind == PLOT { "" } else { variant };
    let mut rows = statement.query(params![task, kind, iter, metric, compared, stays])?;
    let Some(row) = rows.next()? else {
        let scroll = place(metric, variant, iter, stays);
        return Ok(shown(kind, Vec::new(), scroll, (None, None)));
    };
    let (metric, variant, iter): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    at(call, kind, task, (&metric, &variant, iter, stays))
}

fn at(
    call: &Call,
    kind: &str,
    task: &str,
    (metric, variant, iter, stays): (&str, &str, i64, bool),
) -> Answer {
    let sql = "SELECT id FROM reports WHERE task = ?1 AND type = ?2 AND metric = ?3 AND iter = ?4
               AND (?5 IS NULL OR variant = ?5) ORDER BY variant, id LIMIT 100";
    let one = (kind == IMAGE).then_some(variant);
    let ids = call
        .db
        .prepare_cached(sql)?
        .query_map(params![task, kind, metric, iter, one], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    let events = Room::new(100).fill(call.db, &ids)?;
    let sql = "SELECT min(iter), max(iter) FROM reports WHERE task = ?1 AND type = ?2
               AND (NOT ?5 OR metric = ?3) AND (?4 IS NULL OR NOT ?5 OR variant = ?4)";
    let span = call
        .db
        .prepare_cached(sql)?
        .query_row(params![task, kind, metric, one, stays], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok(shown(
        kind,
        events,
        place(metric, variant, iter, stays),
        span,
    ))
}

fn place(metric: &str, variant: &str, iter: i64, stays: bool) -> String {
    json!({"metric": metric, "variant": variant, "iter": iter, "stays": stays}).to_string()
}

fn shown(
    kind: &str,
    events: Vec<Doc>,
    scroll: String,
    (low, high): (Option<i64>, Option<i64>),
) -> Value {
    let mut answer = if kind == IMAGE {
        json!({"event": events.into_iter().next()})
    } else {
        json!({"events": events})
    };
    answer["scroll_id"] = scroll.into();
    answer["min_iteration"] = low.into();
    answer["max_iteration"] = high.into();
    answer
}

/// `events.vector_metrics_iter_histogram`: the vectors of a variant over its iterations. If there are more than one
/// answer holds, it has a `scroll_id` that continues.
pub(crate) fn vectors(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let named = |key| call.text(key).map_err(|_| required(key));
    let (metric, variant) = (named("metric")?, named("variant")?);
    let from = scroll(call)?;
    let sql =
        "SELECT id FROM reports WHERE task = ?1 AND type = ?2 AND metric = ?3 AND variant = ?4
               ORDER BY iter, key LIMIT 10001 OFFSET ?5";
    let ids = call
        .db
        .prepare_cached(sql)?
        .query_map(params![task, VECTOR, metric, variant, from], |row| {
            row.get(0)
        })?
        .collect::<Result<Vec<i64>, _>>()?;
    let (mut vectors, mut iterations) = (Vec::new(), Vec::new());
    for event in Room::of_bytes(VECTORS, VECTOR_BYTES).fill(call.db, &ids)? {
        iterations.push(int_at(&event, "iter"));
        vectors.push(event.get("value").cloned());
    }
    let next =
        (vectors.len() < ids.len()).then(|| from.saturating_add_unsigned(vectors.len() as u64));
    let mut answer = json!({
        "metric": metric,
        "variant": variant,
        "vectors": vectors,
        "iterations": iterations,
    });
    if let Some(next) = next {
        answer["scroll_id"] = next.to_string().into();
    }
    Ok(answer)
}
