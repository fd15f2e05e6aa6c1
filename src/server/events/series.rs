//! One row per curve: the latest, lowest, highest, first and mean value (§3.1, `last_metrics`); and the names of what
//! was reported.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::super::wire::{Answer, Doc, Refusal};
use super::super::{doc, tasks};
use super::{Call, IMAGE, PLOT, SCALAR, SINGLE, VECTOR, check_task, check_tasks, md5, name_of};

/// The most curves that `last_metrics` shows (§3.1).
const MOST: i64 = 2000;

/// `last_metrics` of a task: `{md5(metric): {md5(variant): {...}}}`.
pub(in super::super) fn last_metrics(db: &Connection, task: &str) -> Answer {
    let sql = "SELECT metric, variant, count, total, doc FROM curves
               WHERE task = ?1 AND count > 0 ORDER BY id LIMIT ?2";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params![task, MOST])?;
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
    let sql = "SELECT id, metric, variant, doc FROM curves
               WHERE task = ?1 AND count > 0 ORDER BY metric, variant";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let mut metrics: Vec<(String, Vec<Value>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (curve, metric, variant): (i64, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let last: Doc = serde_json::from_str(&row.get::<_, String>(3)?)?;
        let shown = json!({
            "name": variant,
            "last_value": last.get("value"),
            "last_10_value": mean_of_last(call.db, curve)?,
        });
        match metrics.last_mut() {
            Some((name, variants)) if *name == metric => variants.push(shown),
            _ => metrics.push((metric, vec![shown])),
        }
    }
    let sql = "SELECT max(at) FROM points WHERE curve IN (SELECT id FROM curves WHERE task = ?1)";
    let last: Option<i64> = call
        .db
        .prepare_cached(sql)?
        .query_row([id], |row| row.get(0))?;
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

/// The mean of the ten latest values of a curve.
fn mean_of_last(db: &Connection, curve: i64) -> Result<Option<f64>, Refusal> {
    let sql = "SELECT avg(value) FROM (SELECT value FROM points
               WHERE curve = ?1 AND value IS NOT NULL ORDER BY iter DESC LIMIT 10)";
    Ok(db
        .prepare_cached(sql)?
        .query_row([curve], |row| row.get(0))?)
}

/// `events.get_task_single_value_metrics`
pub(crate) fn single_values(call: &Call) -> Answer {
    let mut shown = Vec::new();
    for id in check_tasks(call)? {
        let sql = "SELECT metric, variant, value, at FROM curves JOIN points ON curve = id
                   WHERE task = ?1 AND iter = ?2 ORDER BY metric, variant";
        let mut statement = call.db.prepare_cached(sql)?;
        let rows = statement.query_map(params![id, SINGLE], |row| {
            Ok(json!({
                "metric": row.get::<_, String>(0)?,
                "variant": row.get::<_, String>(1)?,
                "value": row.get::<_, Option<f64>>(2)?,
                "timestamp": row.get::<_, i64>(3)?,
            }))
        })?;
        let values = rows.collect::<Result<Vec<_>, _>>()?;
        if !values.is_empty() {
            let name = name_of(call, id)?;
            shown.push(json!({"task": id, "task_name": name, "values": values}));
        }
    }
    Ok(json!({"tasks": shown}))
}

/// `events.get_task_metrics`
pub(crate) fn metrics_of_type(call: &Call) -> Answer {
    let kind = call.text("event_type")?;
    let mut shown = Vec::new();
    for id in check_tasks(call)? {
        let metrics = named(call, &[id], kind)?;
        let metrics: Vec<String> = metrics.into_iter().map(|(metric, _)| metric).collect();
        shown.push(json!({"task": id, "metrics": metrics}));
    }
    Ok(json!({"metrics": shown}))
}

/// Metric and variant of all that the tasks reported of a kind, in order.
pub(in super::super) fn names(
    db: &Connection,
    tasks: &[&str],
    kind: &str,
) -> Result<Vec<(String, String)>, Refusal> {
    let sql = if kind == SCALAR {
        // A curve whose points were thrown away is a row of `last_metrics` alone.
        "SELECT DISTINCT metric, variant FROM curves
         WHERE task IN (SELECT value FROM json_each(?1)) AND ?2 <> ''
             AND EXISTS (SELECT 1 FROM points WHERE points.curve = curves.id) ORDER BY metric, variant"
    } else {
        "SELECT DISTINCT metric, variant FROM reports
         WHERE task IN (SELECT value FROM json_each(?1)) AND type = ?2 ORDER BY metric, variant"
    };
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement
        .query_map([json!(tasks).to_string().as_str(), kind], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?)
}

/// Metrics with their variants, in order.
fn named(call: &Call, ids: &[&str], kind: &str) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    let mut metrics: Vec<(String, Vec<String>)> = Vec::new();
    for (metric, variant) in names(call.db, ids, kind)? {
        match metrics.last_mut() {
            Some((name, variants)) if *name == metric => variants.push(variant),
            _ => metrics.push((metric, vec![variant])),
        }
    }
    Ok(metrics)
}

/// `events.get_multi_task_metrics`: as a list, over all tasks.
pub(crate) fn metrics_of_tasks(call: &Call) -> Answer {
    let ids = check_tasks(call)?;
    let kinds = match call.text_or_none("event_type")? {
        None | Some("" | "all") => vec![SCALAR, VECTOR, IMAGE, PLOT],
        Some(kind) => vec![kind],
    };
    let mut metrics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for kind in kinds {
        for (metric, variant) in names(call.db, &ids, kind)? {
            metrics.entry(metric).or_default().insert(variant);
        }
    }
    let metrics: Vec<Value> = metrics
        .into_iter()
        .map(|(metric, variants)| json!({"metric": metric, "variants": variants}))
        .collect();
    Ok(json!({"metrics": metrics}))
}

/// `events.get_scalar_metrics_and_variants`: `{metric: [variant]}`.
pub(crate) fn scalars_and_variants(call: &Call) -> Answer {
    of_one(call, SCALAR)
}

/// `events.get_vector_metrics_and_variants`
pub(crate) fn vectors_and_variants(call: &Call) -> Answer {
    of_one(call, VECTOR)
}

fn of_one(call: &Call, kind: &str) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let metrics: Doc = named(call, &[task], kind)?
        .into_iter()
        .map(|(metric, variants)| (metric, json!(variants)))
        .collect();
    Ok(json!({"metrics": metrics}))
}
