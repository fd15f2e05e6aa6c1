//! One row per curve: the latest, lowest, highest, first and mean value (§3.1, `last_metrics`).

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::super::wire::{Answer, Doc, Refusal};
use super::super::{doc, tasks};
use super::{Call, SCALAR, check_task, md5, rounded};

/// Iteration of a value that was reported once for the whole run (§2.6).
const SINGLE: i64 = -2_147_483_648;
/// The most curves that `last_metrics` shows (§3.1).
const MOST: i64 = 2000;

/// Takes a value in; `before` is what the same iteration said until now.
pub(super) fn add(
    db: &Connection,
    task: &str,
    event: &Doc,
    value: f64,
    iter: i64,
    before: Option<f64>,
) -> Result<(), Refusal> {
    let (metric, variant) = (doc::text(event, "metric"), doc::text(event, "variant"));
    let known: Option<(i64, f64, String)> = db
        .prepare_cached(
            "SELECT count, total, doc FROM series WHERE task = ?1 AND metric = ?2 AND variant = ?3",
        )?
        .query_row([task, metric, variant], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let (mut count, mut total, mut curve) = match known {
        Some((count, total, text)) => (count, total, serde_json::from_str(&text)?),
        None if curves(db, task)? >= MOST => return Ok(()),
        None => (0, 0.0, Doc::new()),
    };
    count += i64::from(before.is_none());
    total += value - before.unwrap_or(0.0);
    if let Some(label) = event.get("x_axis_label") {
        curve.insert("x_axis_label".into(), label.clone());
    }
    note(&mut curve, value, iter);
    db.prepare_cached(
        "INSERT INTO series (task, metric, variant, count, total, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (task, metric, variant)
         DO UPDATE SET count = excluded.count, total = excluded.total, doc = excluded.doc",
    )?
    .execute(params![task, metric, variant, count, total, serde_json::to_string(&curve)?])?;
    Ok(())
}

fn curves(db: &Connection, task: &str) -> Result<i64, Refusal> {
    Ok(db
        .prepare_cached("SELECT count(*) FROM series WHERE task = ?1")?
        .query_row([task], |row| row.get(0))?)
}

/// Updates latest, lowest, highest and first value; `iteration` is that of the latest.
fn note(curve: &mut Doc, value: f64, iter: i64) {
    let number = |curve: &Doc, key: &str| curve.get(key).and_then(Value::as_f64);
    let latest = curve.get("iteration").and_then(Value::as_i64);
    if latest.is_none_or(|latest| iter >= latest) {
        curve.insert("value".into(), json!(value));
        curve.insert("iteration".into(), iter.into());
    }
    let lower = number(curve, "min_value").is_none_or(|lowest| value < lowest);
    let higher = number(curve, "max_value").is_none_or(|highest| value > highest);
    for (better, prefix) in [(lower, "min"), (higher, "max"), (latest.is_none(), "first")] {
        if better {
            curve.insert(format!("{prefix}_value"), json!(value));
            curve.insert(format!("{prefix}_value_iteration"), iter.into());
        }
    }
}

/// `last_metrics` of a task: `{md5(metric): {md5(variant): {...}}}`.
pub(in super::super) fn last_metrics(db: &Connection, task: &str) -> Answer {
    let sql = "SELECT metric, variant, count, total, doc FROM series WHERE task = ?1";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([task])?;
    let mut all = Doc::new();
    while let Some(row) = rows.next()? {
        let (metric, variant): (String, String) = (row.get(0)?, row.get(1)?);
        let (count, total): (i64, f64) = (row.get(2)?, row.get(3)?);
        let mut curve: Doc = serde_json::from_str(&row.get::<_, String>(4)?)?;
        curve.shift_remove("iteration");
        curve.insert("count".into(), count.into());
        curve.insert(
            "mean_value".into(),
            json!((total / count.max(1) as f64 * 100.0).round() / 100.0),
        );
        let key = md5(&variant);
        let of_metric = doc::object_at(&mut all, &md5(&metric));
        curve.insert("metric".into(), metric.into());
        curve.insert("variant".into(), variant.into());
        of_metric.insert(key, curve.into());
    }
    Ok(all.into())
}

/// `events.get_task_latest_scalar_values`
pub(crate) fn latest_values(call: &Call) -> Answer {
    let task = tasks::known(call.db, call.text("task")?)?;
    let id = doc::text(&task, "id");
    let sql = "SELECT metric, variant, doc FROM series WHERE task = ?1 ORDER BY metric, variant";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let mut metrics: Vec<(String, Vec<Value>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (metric, variant): (String, String) = (row.get(0)?, row.get(1)?);
        let curve: Doc = serde_json::from_str(&row.get::<_, String>(2)?)?;
        let shown =
            json!({"name": variant, "last_value": curve["value"], "last_10_value": curve["value"]});
        match metrics.last_mut() {
            Some((name, variants)) if *name == metric => variants.push(shown),
            _ => metrics.push((metric, vec![shown])),
        }
    }
    let last: Option<i64> = call.db.query_row(
        "SELECT max(at) FROM reports WHERE task = ?1 AND type = ?2",
        [id, SCALAR],
        |row| row.get(0),
    )?;
    let metrics: Vec<Value> = metrics
        .into_iter()
        .map(|(name, variants)| json!({"name": name, "variants": variants}))
        .collect();
    Ok(json!({
        "metrics": metrics,
        "last_iter": task["last_iteration"],
        "last_timestamp": last.unwrap_or(0),
        "name": null,
        "status": task["status"],
    }))
}

/// `events.get_task_single_value_metrics`
pub(crate) fn single_values(call: &Call) -> Answer {
    let mut shown = Vec::new();
    for id in call.texts_required("tasks")? {
        check_task(call, id)?;
        let sql = "SELECT metric, variant, value, at FROM reports
                   WHERE task = ?1 AND type = ?2 AND iter = ?3 ORDER BY metric, variant";
        let mut statement = call.db.prepare_cached(sql)?;
        let rows = statement.query_map(params![id, SCALAR, SINGLE], |row| {
            Ok(json!({
                "metric": row.get::<_, String>(0)?,
                "variant": row.get::<_, String>(1)?,
                "value": row.get::<_, Option<f64>>(2)?.map(rounded),
                "timestamp": row.get::<_, i64>(3)?,
            }))
        })?;
        let values = rows.collect::<Result<Vec<_>, _>>()?;
        if !values.is_empty() {
            let name = tasks::find(call.db, id)?.map(|task| task["name"].clone());
            shown.push(json!({"task": id, "task_name": name, "values": values}));
        }
    }
    Ok(json!({"tasks": shown}))
}

/// `events.get_task_metrics`
pub(crate) fn metrics_of_type(call: &Call) -> Answer {
    let kind = call.text("event_type")?;
    let mut shown = Vec::new();
    for id in call.texts_required("tasks")? {
        let sql =
            "SELECT DISTINCT metric FROM reports WHERE task = ?1 AND type = ?2 ORDER BY metric";
        let mut statement = call.db.prepare_cached(sql)?;
        let metrics = statement
            .query_map([id, kind], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        shown.push(json!({"task": id, "metrics": metrics}));
    }
    Ok(json!({"metrics": shown}))
}

/// `events.get_multi_task_metrics`, `events.get_scalar_metrics_and_variants`: names of curves.
pub(crate) fn metrics_and_variants(call: &Call) -> Answer {
    let mut ids = call.texts("tasks")?;
    ids.extend(call.text_or_none("task")?);
    let kind = call.text_or_none("event_type")?.unwrap_or(SCALAR);
    let sql = "SELECT DISTINCT metric, variant FROM reports
               WHERE task IN (SELECT value FROM json_each(?1)) AND type = ?2 ORDER BY metric, variant";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([json!(ids).to_string().as_str(), kind])?;
    let mut metrics: Vec<(String, Vec<String>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (metric, variant): (String, String) = (row.get(0)?, row.get(1)?);
        match metrics.last_mut() {
            Some((name, variants)) if *name == metric => variants.push(variant),
            _ => metrics.push((metric, vec![variant])),
        }
    }
    let metrics: Vec<Value> = metrics
        .into_iter()
        .map(|(metric, variants)| json!({"metric": metric, "variants": variants}))
        .collect();
    Ok(json!({"metrics": metrics}))
}

/// Whether an iteration is that of a single value.
pub(super) fn is_single(iter: i64) -> bool {
    iter == SINGLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_value_is_that_of_the_highest_iteration() {
        let mut curve = Doc::new();
        for (value, iter) in [(1.0, 0), (0.25, 3), (0.5, 1)] {
            note(&mut curve, value, iter);
        }
        assert_eq!(curve["value"], 0.25);
        assert_eq!(
            (&curve["min_value_iteration"], &curve["max_value_iteration"]),
            (&json!(3), &json!(0))
        );
        assert_eq!(curve["first_value"], 1.0);
    }
}
