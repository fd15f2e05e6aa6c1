//! How busy workers were (§5.4): samples of their machines in steps of time.

use rusqlite::params;
use serde_json::{Value, json};

use super::super::call::{Call, integer, required};
use super::super::doc;
use super::super::wire::{Answer, Refusal};

/// From, to and step of a report, in seconds (§5.4).
fn span(call: &Call) -> Result<(i64, i64, i64), Refusal> {
    let number = |key| -> Result<i64, Refusal> {
        let value = call.value(key).ok_or_else(|| required(key))?;
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        let seconds = value.as_f64().map(|number| number as i64);
        integer(value).or(seconds).ok_or_else(|| required(key))
    };
    Ok((
        number("from_date")?,
        number("to_date")?,
        number("interval")?.max(40),
    ))
}

/// One worker's curve: moments (s) and values.
type Curve = (String, Vec<i64>, Vec<f64>);

/// `workers.get_stats`: dates in ms, the unfinished last step left away.
pub(crate) fn get_stats(call: &Call) -> Answer {
    let (from, to, step) = span(call)?;
    let workers = json!(call.texts("worker_ids")?).to_string();
    let split = call.flag("split_by_resource")?;
    let mut by_worker: Vec<(String, Vec<Value>)> = Vec::new();
    for item in call.objects("items")? {
        let metric = doc::text(item, "key");
        let said = match doc::text(item, "aggregation") {
            "" => doc::text(item, "category"),
            word => word,
        };
        let aggregation = match said {
            word @ ("min" | "max") => word,
            _ => "avg",
        };
        let asked = |part: Option<&str>| {
            let sql = format!(
                "SELECT worker, at / ?3 * ?3 AS step, {aggregation}(value) FROM worker_samples
                 WHERE at BETWEEN ?1 AND ?2 AND metric = ?4 AND (?6 IS NULL OR part = ?6)
                   AND (?5 = '[]' OR worker IN (SELECT value FROM json_each(?5)))
                 GROUP BY worker, step HAVING step + ?3 <= ?2 ORDER BY worker, step"
            );
            curves(call, &sql, params![from, to, step, metric, workers, part])
        };
        let mut shown = asked(None)?
            .into_iter()
            .map(|(worker, dates, values)| {
                let millis: Vec<i64> = dates.iter().map(|at| at * 1000).collect();
                let stats = json!({"aggregation": aggregation, "dates": millis, "values": values});
                (worker, dates, stats)
            })
            .collect::<Vec<_>>();
        if split {
            for part in parts(call, metric, from, to)? {
                for (worker, dates, values) in asked(Some(&part))? {
                    let known = shown.iter_mut().find(|(known, _, _)| *known == worker);
                    let Some((_, all, stats)) = known else {
                        continue;
                    };
                    let series = json!({"name": part, "values": aligned(all, &dates, &values)});
                    match &mut stats["resource_series"] {
                        Value::Array(list) => list.push(series),
                        empty => *empty = json!([series]),
                    }
                }
            }
        }
        for (worker, _, stats) in shown {
            add(&mut by_worker, worker, metric, stats);
        }
    }
    let workers: Vec<Value> = by_worker
        .into_iter()
        .map(|(worker, metrics)| json!({"worker": worker, "metrics": metrics}))
        .collect();
    Ok(json!({"workers": workers}))
}

/// Adds a curve to those of its worker: a metric stands there once, with all aggregations that were asked for.
fn add(by_worker: &mut Vec<(String, Vec<Value>)>, worker: String, metric: &str, stats: Value) {
    let shown = |stats: Value| json!({"metric": metric, "stats": [stats]});
    let Some((_, metrics)) = by_worker.iter_mut().find(|(known, _)| *known == worker) else {
        by_worker.push((worker, vec![shown(stats)]));
        return;
    };
    let known = metrics.iter_mut().find(|known| known["metric"] == metric);
    match known.and_then(|known| known["stats"].as_array_mut()) {
        Some(all) => all.push(stats),
        None => metrics.push(shown(stats)),
    }
}

fn curves(call: &Call, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<Vec<Curve>, Refusal> {
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut curves: Vec<Curve> = Vec::new();
    while let Some(row) = rows.next()? {
        let (worker, at, value): (String, i64, f64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        match curves.last_mut() {
            Some((last, dates, values)) if *last == worker => {
                dates.push(at);
                values.push(value);
            }
            _ => curves.push((worker, vec![at], vec![value])),
        }
    }
    Ok(curves)
}

/// The parts (cores, GPUs) that a metric was reported for.
fn parts(call: &Call, metric: &str, from: i64, to: i64) -> Result<Vec<String>, Refusal> {
    let sql = "SELECT DISTINCT part FROM worker_samples
               WHERE at BETWEEN ?1 AND ?2 AND metric = ?3 AND part <> '' ORDER BY CAST(part AS INTEGER)";
    let mut statement = call.db.prepare_cached(sql)?;
    Ok(statement
        .query_map(params![from, to, metric], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// A part's values at the moments of the whole; nought where it has none. `dates` are in order: there may be some ten
/// thousand of them, of each of many parts.
fn aligned(all: &[i64], dates: &[i64], values: &[f64]) -> Vec<f64> {
    let at = |moment: &i64| {
        let found = dates.binary_search(moment);
        found.map_or(0.0, |place| values[place])
    };
    all.iter().map(at).collect()
}

/// `workers.get_activity_report`: workers with any sample, and with one that carried a task.
pub(crate) fn get_activity_report(call: &Call) -> Answer {
    let (from, to, step) = span(call)?;
    let count = |value: f64| -> Answer {
        let sql = "SELECT at / ?3 * ?3 AS step, count(DISTINCT worker) FROM worker_samples
                   WHERE at BETWEEN ?1 AND ?2 AND metric = 'task' AND value >= ?4
                   GROUP BY step HAVING step + ?3 <= ?2 ORDER BY step";
        let mut statement = call.db.prepare_cached(sql)?;
        let rows = statement.query_map(params![from, to, step, value], |row| {
            Ok((row.get::<_, i64>(0)? * 1000, row.get::<_, i64>(1)?))
        })?;
        let (dates, counts): (Vec<i64>, Vec<i64>) =
            rows.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        Ok(json!({"dates": dates, "counts": counts}))
    };
    Ok(json!({"total": count(0.0)?, "active": count(1.0)?}))
}

/// `workers.get_metric_keys`
pub(crate) fn get_metric_keys(call: &Call) -> Answer {
    let sql = "SELECT DISTINCT metric FROM worker_samples WHERE metric <> 'task' ORDER BY metric";
    let mut statement = call.db.prepare_cached(sql)?;
    let metrics = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    // `gpu_usage` and `gpu_memory_used` are both of the category `gpu`.
    let mut categories: Vec<(String, Vec<String>)> = Vec::new();
    for metric in metrics {
        let name = metric.split('_').next().unwrap_or_default().to_owned();
        match categories.iter_mut().find(|(known, _)| *known == name) {
            Some((_, keys)) => keys.push(metric),
            None => categories.push((name, vec![metric])),
        }
    }
    let categories: Vec<Value> = categories
        .into_iter()
        .map(|(name, keys)| json!({"name": name, "metric_keys": keys}))
        .collect();
    Ok(json!({"categories": categories}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_nought_at_the_moments_that_it_does_not_name() {
        let values = aligned(&[0, 40, 80, 120, 160], &[40, 120], &[1.5, 2.5]);
        assert_eq!(values, [0.0, 1.5, 0.0, 2.5, 0.0]);
        assert_eq!(aligned(&[0, 40], &[], &[]), [0.0, 0.0]);
    }
}
