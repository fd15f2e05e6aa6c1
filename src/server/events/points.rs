//! Points of curves: one small row each, and beside them one row per curve with its latest, lowest and highest value.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::{Call, Doc, Refusal, SINGLE, doc, ingest, int_at};

/// A curve while a request adds to it.
struct Curve {
    id: i64,
    count: i64,
    total: f64,
    doc: Doc,
}

/// The curves that one request adds to; written once at its end.
#[derive(Default)]
pub(super) struct Curves {
    known: HashMap<(String, String, String), Curve>,
    sources: HashMap<String, i64>,
}

impl Curves {
    /// Writes a point; what the same iteration said before is overwritten (§2.6).
    pub(super) fn add(
        &mut self,
        call: &Call,
        task: &str,
        event: &Doc,
        at: i64,
    ) -> Result<(), Refusal> {
        let named = |key| doc::text(event, key).to_owned();
        let name = (task.to_owned(), named("metric"), named("variant"));
        let source = self.source(call, event)?;
        let curve = match self.known.entry(name) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => {
                let curve = curve(call.db, empty.key())?;
                empty.insert(curve)
            }
        };
        let iter = int_at(event, "iter");
        let value = event.get("value").and_then(Value::as_f64);
        let before = "SELECT value FROM points WHERE curve = ?1 AND iter = ?2";
        let before: Option<Option<f64>> = call
            .db
            .prepare_cached(before)?
            .query_row([curve.id, iter], |row| row.get(0))
            .optional()?;
        call.db
            .prepare_cached(
                "INSERT INTO points (curve, iter, at, value, source, stored) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (curve, iter) DO UPDATE SET at = excluded.at, value = excluded.value,
                     source = excluded.source, stored = excluded.stored",
            )?
            .execute(params![curve.id, iter, at, value, source, call.at.as_millisecond()])?;
        if let Some(label) = event.get("x_axis_label").filter(|label| !label.is_null()) {
            curve.doc.insert("x_axis_label".into(), label.clone());
        }
        let before = before.flatten();
        curve.count += i64::from(value.is_some()) - i64::from(before.is_some());
        curve.total += value.unwrap_or(0.0) - before.unwrap_or(0.0);
        if let Some(value) = value {
            note(&mut curve.doc, value, iter);
        }
        Ok(())
    }

    /// Writes the curves' own rows.
    pub(super) fn store(self, call: &Call) -> Result<(), Refusal> {
        let sql = "UPDATE curves SET count = ?2, total = ?3, doc = ?4 WHERE id = ?1";
        for curve in self.known.into_values() {
            let doc = serde_json::to_string(&curve.doc)?;
            call.db.prepare_cached(sql)?.execute(params![
                curve.id,
                curve.count,
                curve.total,
                doc
            ])?;
        }
        Ok(())
    }

    /// The number of the worker that reports.
    fn source(&mut self, call: &Call, event: &Doc) -> Result<i64, Refusal> {
        let worker = match doc::text(event, "worker") {
            "" => ingest::worker(call),
            worker => worker,
        };
        if let Some(number) = self.sources.get(worker) {
            return Ok(*number);
        }
        let number = call
            .db
            .prepare_cached(
                "INSERT INTO sources (worker) VALUES (?1)
                 ON CONFLICT (worker) DO UPDATE SET worker = excluded.worker RETURNING id",
            )?
            .query_row([worker], |row| row.get(0))?;
        self.sources.insert(worker.to_owned(), number);
        Ok(number)
    }
}

/// The curve of that task, metric and variant, made if there is none.
fn curve(db: &Connection, name: &(String, String, String)) -> Result<Curve, Refusal> {
    let (task, metric, variant) = name;
    let sql =
        "SELECT id, count, total, doc FROM curves WHERE task = ?1 AND metric = ?2 AND variant = ?3";
    let known: Option<(i64, i64, f64, String)> = db
        .prepare_cached(sql)?
        .query_row([task, metric, variant], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    if let Some((id, count, total, text)) = known {
        let doc = serde_json::from_str(&text)?;
        return Ok(Curve {
            id,
            count,
            total,
            doc,
        });
    }
    let sql = "INSERT INTO curves (task, metric, variant, count, total, doc) VALUES (?1, ?2, ?3, 0, 0, '{}')";
    db.prepare_cached(sql)?.execute([task, metric, variant])?;
    Ok(Curve {
        id: db.last_insert_rowid(),
        count: 0,
        total: 0.0,
        doc: Doc::new(),
    })
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

/// Everything of a task.
pub(super) fn delete_of(db: &Connection, task: &str) -> Result<(), Refusal> {
    db.prepare_cached("DELETE FROM points WHERE curve IN (SELECT id FROM curves WHERE task = ?1)")?
        .execute([task])?;
    db.prepare_cached("DELETE FROM curves WHERE task = ?1")?
        .execute([task])?;
    Ok(())
}

/// Throws points of a task away, at most so many; how many those were. The curves' own rows stay, and values of the
/// whole run.
pub(super) fn forget(db: &Connection, task: &str, most: i64) -> Result<usize, Refusal> {
    let sql = "DELETE FROM points WHERE (curve, iter) IN (
                   SELECT points.curve, points.iter FROM curves CROSS JOIN points ON points.curve = curves.id
                   WHERE curves.task = ?1 AND points.iter <> ?2 LIMIT ?3)";
    Ok(db
        .prepare_cached(sql)?
        .execute(params![task, SINGLE, most])?)
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
