//! Throwing old metrics away (`--keep-metrics`): points of curves, plots, debug samples and vectors.
//!
//! ```text
//! tasks by their last change ──▶ a page of them, in a read ──▶ those that are due: points, then the rest, in small writes
//! ```
//!
//! The whole of a task goes, not what is old of it: half a curve would show something that never was. `last_metrics`
//! stays, and so does what was reported once for the whole run. Files of debug samples that lie here go with them.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::super::files;
use super::super::wire::{Answer, Refusal};
use super::{Call, IMAGE, SINGLE, URL, iso_of_millis, points};

/// Tasks that one read looks at.
const TASKS: i64 = 200;
/// What one write throws away at most, points or documents of other reports: other writers wait for no more.
const POINTS: i64 = 10_000;
const REPORTS: i64 = 500;
const BYTES: i64 = 8 << 20;

/// Tasks that have not changed since `?1`. Who waits or runs may go on with its curves, and what is published stays.
const DUE: &str =
    "last_update < ?1 AND status NOT IN ('queued', 'in_progress', 'publishing', 'published')";

/// How far the tasks were looked through in the order of their last change: that of the last one, and its id.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Place {
    pub(in super::super) changed: String,
    pub(in super::super) task: String,
}

/// The tasks that come next and are due, as `[id, last change, whether there is something to throw away]`. `until` is
/// in ms.
pub(in super::super) fn due(db: &Connection, place: &Place, until: i64) -> Answer {
    let sql = format!(
        "SELECT id, last_update,
                EXISTS (SELECT 1 FROM reports WHERE task = tasks.id)
                OR EXISTS (SELECT 1 FROM curves CROSS JOIN points ON points.curve = curves.id
                           WHERE curves.task = tasks.id AND points.iter <> ?2)
         FROM tasks WHERE (last_update, id) > (?3, ?4) AND {DUE} ORDER BY last_update, id LIMIT ?5"
    );
    let until = iso_of_millis(until);
    let mut statement = db.prepare_cached(&sql)?;
    let found = statement.query_map(
        params![until, SINGLE, place.changed, place.task, TASKS],
        |row| {
            let (id, changed): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(json!([id, changed, row.get::<_, bool>(2)?]))
        },
    )?;
    Ok(found.collect::<Result<Vec<Value>, _>>()?.into())
}

/// Throws a part of a task's metrics away; how many points or reports that were, none once nothing is left. A task that
/// has changed since it was found due keeps what it has.
pub(in super::super) fn some_of(call: &Call, task: &str, until: i64) -> Result<usize, Refusal> {
    if !is_due(call.db, task, until)? {
        return Ok(0);
    }
    let forgotten = points::forget(call.db, task, POINTS)?;
    if forgotten > 0 {
        return Ok(forgotten);
    }
    let (forgotten, urls) = forget_reports(call.db, task)?;
    files::doomed::doom_samples(call, task, &urls)?;
    Ok(forgotten)
}

fn is_due(db: &Connection, task: &str, until: i64) -> Result<bool, Refusal> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM tasks WHERE {DUE} AND id = ?2)");
    Ok(db
        .prepare_cached(&sql)?
        .query_row(params![iso_of_millis(until), task], |row| row.get(0))?)
}

/// Some reports of a task; how many, and the addresses of the debug samples among them.
fn forget_reports(db: &Connection, task: &str) -> Result<(usize, Vec<String>), Refusal> {
    let sql = format!(
        "SELECT id, octet_length(doc), CASE type WHEN ?2 THEN {URL} END FROM reports WHERE task = ?1 LIMIT ?3"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![task, IMAGE, REPORTS])?;
    let (mut ids, mut urls, mut bytes) = (Vec::new(), Vec::new(), 0_i64);
    while bytes < BYTES
        && let Some(row) = rows.next()?
    {
        ids.push(row.get::<_, i64>(0)?);
        bytes += row.get::<_, i64>(1)?;
        urls.extend(row.get::<_, Option<String>>(2)?);
    }
    drop(rows);
    let mut delete = db.prepare_cached("DELETE FROM reports WHERE id = ?1")?;
    for id in &ids {
        delete.execute([id])?;
    }
    Ok((ids.len(), urls))
}

#[cfg(test)]
mod tests {
    use super::super::super::schema;
    use super::*;

    /// A moment in seconds, as tasks carry it.
    fn at(seconds: i64) -> String {
        iso_of_millis(seconds * 1000)
    }

    fn task(db: &Connection, id: &str, status: &str, changed: i64) {
        db.execute(
            "INSERT INTO tasks (id, doc, name, status, type, created, last_update, hidden)
             VALUES (?1, '{}', ?1, ?2, 'training', '', ?3, 0)",
            params![id, status, at(changed)],
        )
        .unwrap();
    }

    /// A curve with a value of the whole run beside its points.
    fn curve(db: &Connection, task: &str, variant: &str, points: i64) {
        db.execute(
            "INSERT INTO curves (task, metric, variant, count, total, doc) VALUES (?1, 'm', ?2, 1, 1, '{\"value\":1.0}')",
            [task, variant],
        )
        .unwrap();
        let curve = db.last_insert_rowid();
        for iter in (0..points).chain([SINGLE]) {
            let sql = "INSERT INTO points (curve, iter, at, value, source, stored) VALUES (?1, ?2, 0, 1, 1, 0)";
            db.execute(sql, [curve, iter]).unwrap();
        }
    }

    fn report(db: &Connection, task: &str, kind: &str, iter: i64, doc: &str) {
        let sql = "INSERT INTO reports (task, type, metric, variant, iter, key, at, doc)
                   VALUES (?1, ?2, 'm', 'v', ?3, '', 0, ?4)";
        db.execute(sql, params![task, kind, iter, doc]).unwrap();
    }

    fn count(db: &Connection, sql: &str) -> i64 {
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn only_tasks_that_rest_unpublished_are_due_and_each_is_met_once_by_its_last_change() {
        let db = schema::in_memory();
        for (id, status, changed) in [
            ("queued", "queued", 1),
            ("running", "in_progress", 1),
            ("publishing", "publishing", 1),
            ("published", "published", 1),
            ("stopped", "stopped", 3),
            ("failed", "failed", 2),
            ("completed", "completed", 2),
            ("draft", "created", 4),
            ("young", "completed", 5),
        ] {
            task(&db, id, status, changed);
            assert_eq!(
                is_due(&db, id, 5000).unwrap(),
                ["stopped", "failed", "completed", "draft"].contains(&id),
                "{id}"
            );
        }
        curve(&db, "stopped", "v", 1);
        curve(&db, "completed", "v", 0);
        report(&db, "failed", "plot", 1, "{}");
        let found = due(&db, &Place::default(), 5000).unwrap();
        let expected = json!([
            ["completed", at(2), false],
            ["failed", at(2), true],
            ["stopped", at(3), true],
            ["draft", at(4), false],
        ]);
        assert_eq!(found, expected);
        let place = Place {
            changed: at(2),
            task: "completed".into(),
        };
        let rest = due(&db, &place, 4000).unwrap();
        assert_eq!(
            rest,
            json!([["failed", at(2), true], ["stopped", at(3), true]])
        );
    }

    #[test]
    fn points_go_a_few_at_a_time_and_what_stands_for_the_whole_run_stays() {
        let db = schema::in_memory();
        curve(&db, "a", "one", 5);
        curve(&db, "a", "other", 2);
        curve(&db, "b", "one", 3);
        let taken: Vec<usize> = (0..4)
            .map(|_| points::forget(&db, "a", 3).unwrap())
            .collect();
        assert_eq!(taken, [3, 3, 1, 0]);
        let left = "SELECT count(*) FROM points JOIN curves ON curves.id = curve WHERE task";
        assert_eq!(count(&db, &format!("{left} = 'a'")), 2);
        assert_eq!(count(&db, &format!("{left} = 'b'")), 4);
        let last = super::super::series::last_metrics(&db, "a").unwrap();
        let of_metric = &last[super::super::md5("m")];
        assert_eq!(of_metric[super::super::md5("one")]["value"], 1.0);
    }

    #[test]
    fn reports_go_by_their_number_and_their_bytes_and_tell_where_samples_lie() {
        let db = schema::in_memory();
        for iter in 0..=REPORTS {
            let url = if iter == 7 {
                "5".to_owned()
            } else {
                format!("\"http://x/{iter}\"")
            };
            report(&db, "a", IMAGE, iter, &format!("{{\"url\":{url}}}"));
        }
        report(&db, "b", "plot", 0, "{\"url\":\"http://x/plot\"}");
        let (number, urls) = forget_reports(&db, "a").unwrap();
        assert_eq!((number, urls.len()), (500, 500));
        assert!(
            urls.iter()
                .all(|url| url.starts_with("http://x/") || url == "5")
        );
        assert_eq!(forget_reports(&db, "a").unwrap().0, 1);
        assert_eq!(forget_reports(&db, "a").unwrap(), (0, Vec::new()));
        assert_eq!(forget_reports(&db, "b").unwrap(), (1, Vec::new()));
        let large = format!("{{\"plot_str\":\"{}\"}}", "x".repeat(5 << 20));
        for iter in 0..3 {
            report(&db, "a", "plot", iter, &large);
        }
        assert_eq!(forget_reports(&db, "a").unwrap().0, 2);
        assert_eq!(forget_reports(&db, "a").unwrap().0, 1);
    }
}
