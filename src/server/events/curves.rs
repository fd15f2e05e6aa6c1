//! Reading curves back: whole, thinned out for a picture, or as events (§2.6).

use std::collections::HashMap;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::super::doc;
use super::super::wire::{Answer, Doc, Refusal};
use super::room::Room;
use super::{
    Call, LARGEST, LOG, SCALAR, SINGLE, check_few_tasks, check_task, iso_of_millis, log, name_of,
    rounded, scroll,
};

/// Place on the axis, and value.
type Point = (i64, f64);

/// Points of a curve when nothing else is said.
const SAMPLES: i64 = 6000;
/// Curves of one answer, at most, and about how many points of all of them: if there are many, each is thinned out
/// further.
const CURVES: usize = 50_000;
const POINTS_DRAWN: usize = 500_000;
/// Points of one raw answer: usual, and at most.
const RAW: i64 = 10_000;
const LARGEST_RAW: i64 = 200_000;

/// One curve's row.
struct Curve {
    id: i64,
    metric: String,
    variant: String,
}

fn curves_of(db: &Connection, task: &str, wanted: &Wanted) -> Result<Vec<Curve>, Refusal> {
    let sql = "SELECT id, metric, variant FROM curves WHERE task = ?1 ORDER BY metric, variant";
    let mut statement = db.prepare_cached(sql)?;
    let mut curves = statement
        .query_map([task], |row| {
            Ok(Curve {
                id: row.get(0)?,
                metric: row.get(1)?,
                variant: row.get(2)?,
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    curves.retain(|curve| wanted.has(&curve.metric, &curve.variant));
    Ok(curves)
}

/// The axis that is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Axis {
    Iter,
    Timestamp,
    IsoTime,
}

impl Axis {
    fn read(call: &Call) -> Result<Self, Refusal> {
        match call.text_or_none("key")?.unwrap_or("iter") {
            "iter" => Ok(Self::Iter),
            "timestamp" => Ok(Self::Timestamp),
            "iso_time" => Ok(Self::IsoTime),
            other => Err(Refusal::invalid(format_args!("unknown key: {other}"))),
        }
    }

    fn shown(self, x: Vec<i64>) -> Value {
        if self == Self::IsoTime {
            x.into_iter().map(iso_of_millis).collect()
        } else {
            json!(x)
        }
    }
}

/// `events.scalar_metrics_iter_histogram`
pub(crate) fn histogram(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let mut all = Doc::new();
    for (_, curve, shown) in drawn(call, &[task])? {
        doc::object_at(&mut all, &curve.metric).insert(curve.variant, shown);
    }
    Ok(all.into())
}

/// `events.multi_task_scalar_metrics_iter_histogram`: `{metric: {variant: {task: {name, x, y}}}}`.
pub(crate) fn multi_task_histogram(call: &Call) -> Answer {
    let tasks = check_few_tasks(call)?;
    let names = tasks
        .iter()
        .map(|task| name_of(call, task))
        .collect::<Result<Vec<Value>, _>>()?;
    let mut all = Doc::new();
    for (number, curve, mut shown) in drawn(call, &tasks)? {
        shown["name"] = names[number].clone();
        doc::object_at(doc::object_at(&mut all, &curve.metric), &curve.variant)
            .insert(tasks[number].to_owned(), shown);
    }
    // Moved, not copied as `json!` does: it is large.
    let answer: Doc = [("metrics".to_owned(), all.into())].into_iter().collect();
    Ok(answer.into())
}

/// The curves that are asked for, with the number of their task and as they are shown.
fn drawn(call: &Call, tasks: &[&str]) -> Result<Vec<(usize, Curve, Value)>, Refusal> {
    let samples = call.int("samples")?.unwrap_or(SAMPLES).clamp(1, LARGEST);
    let (axis, wanted) = (Axis::read(call)?, Wanted::read(call)?);
    let mut asked = Vec::new();
    for (number, task) in tasks.iter().enumerate() {
        asked.extend(
            curves_of(call.db, task, &wanted)?
                .into_iter()
                .map(|curve| (number, curve)),
        );
        if asked.len() > CURVES {
            let text = format!(
                "Too many curves for one answer, more than {CURVES}: ask for fewer tasks or name metrics"
            );
            return Err(Refusal::bad(12, text));
        }
    }
    let samples = samples.min(most_samples(asked.len()));
    let mut all = Vec::with_capacity(asked.len());
    for (number, curve) in asked {
        let points = points(call.db, curve.id, axis)?;
        if points.is_empty() {
            continue;
        }
        let (x, y): (Vec<i64>, Vec<f64>) = sampled(&points, samples).into_iter().unzip();
        let shown = json!({"name": curve.variant, "x": axis.shown(x), "y": y});
        all.push((number, curve, shown));
    }
    Ok(all)
}

/// Points that each of so many curves may have in one answer.
fn most_samples(curves: usize) -> i64 {
    let each = POINTS_DRAWN / curves.max(1);
    i64::try_from(each).unwrap_or(LARGEST).max(1)
}

fn points(db: &Connection, curve: i64, axis: Axis) -> Result<Vec<Point>, Refusal> {
    let sql = match axis {
        Axis::Iter => {
            "SELECT iter, value FROM points WHERE curve = ?1 AND iter <> ?2 AND value IS NOT NULL ORDER BY iter"
        }
        _ => {
            "SELECT at, value FROM points WHERE curve = ?1 AND iter <> ?2 AND value IS NOT NULL ORDER BY iter"
        }
    };
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([curve, SINGLE])?;
    let mut points = Vec::new();
    while let Some(row) = rows.next()? {
        points.push((row.get(0)?, rounded(row.get(1)?)));
    }
    // Nearly always in order of time already.
    if !points.is_sorted_by_key(|(x, _)| *x) {
        points.sort_by_key(|(x, _)| *x);
    }
    Ok(points)
}

/// How many points [`points`] gives of a curve.
fn count_of(db: &Connection, curve: i64) -> Result<i64, Refusal> {
    let sql = "SELECT count(*) FROM points WHERE curve = ?1 AND iter <> ?2 AND value IS NOT NULL";
    Ok(db
        .prepare_cached(sql)?
        .query_row([curve, SINGLE], |row| row.get(0))?)
}

/// At most about `samples` points: the means of equal stretches of the axis, each named by where it begins. Stretches
/// begin at multiples of their length, so that a curve that grows keeps its points.
fn sampled(curve: &[Point], samples: i64) -> Vec<Point> {
    let (Some((first, _)), Some((last, _))) = (curve.first(), curve.last()) else {
        return Vec::new();
    };
    let few = i64::try_from(curve.len()).is_ok_and(|points| points <= samples);
    let range = last.saturating_sub(*first).saturating_add(1);
    let stretch = if few {
        1
    } else {
        (range / samples + i64::from(range % samples != 0)).max(1)
    };
    let mut means: Vec<Point> = Vec::new();
    let mut sum = (0.0, 0_u32);
    for (x, y) in curve {
        let begin = x.div_euclid(stretch).saturating_mul(stretch);
        if means.last().is_none_or(|(have, _)| *have != begin) {
            sum = (0.0, 0);
            means.push((begin, 0.0));
        }
        sum = (sum.0 + y, sum.1 + 1);
        if let Some(mean) = means.last_mut() {
            mean.1 = sum.0 / f64::from(sum.1);
        }
    }
    means
}

/// Which metrics and variants are asked for: `metrics: [{metric, variants?}]`; nothing said means all.
#[derive(Default)]
pub(super) struct Wanted(pub(super) Option<HashMap<String, Vec<String>>>);

impl Wanted {
    pub(super) fn read(call: &Call) -> Result<Self, Refusal> {
        if call.value("metrics").is_none() {
            return Ok(Self(None));
        }
        let mut wanted = HashMap::new();
        for item in call.objects("metrics")? {
            wanted.insert(
                doc::text(item, "metric").to_owned(),
                owned(doc::strings(item, "variants")),
            );
        }
        Ok(Self((!wanted.is_empty()).then_some(wanted)))
    }

    /// One metric, with these variants of it or all.
    fn one(metric: &str, variants: Vec<String>) -> Self {
        Self(Some(HashMap::from([(metric.to_owned(), variants)])))
    }

    pub(super) fn has(&self, metric: &str, variant: &str) -> bool {
        let Some(wanted) = &self.0 else { return true };
        wanted.get(metric).is_some_and(|variants| {
            variants.is_empty() || variants.iter().any(|name| name == variant)
        })
    }
}

pub(super) fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

// ---- raw points ----

/// `events.scalar_metrics_iter_raw`: all points of one metric, in pages: `{variants: {variant: {name, x, y}}}`.
pub(crate) fn raw(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let metric = call
        .object("metric")?
        .ok_or_else(|| super::super::call::required("metric"))?;
    let wanted = Wanted::one(
        doc::text(metric, "metric"),
        owned(doc::strings(metric, "variants")),
    );
    let axis = Axis::read(call)?;
    let size = call.int("batch_size")?.unwrap_or(RAW).clamp(1, LARGEST_RAW);
    let from = scroll(call)?;
    let counting = call.flag("count_total")?;
    let (mut total, mut returned) = (0_i64, 0_i64);
    let mut variants = Doc::new();
    for curve in curves_of(call.db, task, &wanted)? {
        if returned >= size && !counting {
            break;
        }
        // Only the curves of the page are read, the others counted.
        let (begin, count) = (total, count_of(call.db, curve.id)?);
        total += count;
        if returned >= size || total <= from {
            continue;
        }
        let skip = usize::try_from(from - begin).unwrap_or(0);
        let room = usize::try_from(size - returned).unwrap_or(0);
        let points = points(call.db, curve.id, axis)?;
        let (x, y): (Vec<i64>, Vec<f64>) = points.into_iter().skip(skip).take(room).unzip();
        returned += i64::try_from(x.len()).unwrap_or(0);
        let shown = json!({"name": curve.variant, "x": axis.shown(x), "y": y});
        variants.insert(curve.variant, shown);
    }
    Ok(json!({
        "variants": variants,
        "total": counting.then_some(total),
        "returned": returned,
        "scroll_id": from.saturating_add(returned).to_string(),
    }))
}

// ---- as events ----

/// Points as events, in the order of their iterations.
const POINTS: &str = "SELECT metric, variant, iter, at, value, worker, stored
    FROM curves JOIN points ON points.curve = curves.id JOIN sources ON sources.id = points.source
    WHERE task = ?1";

fn point_of(row: &rusqlite::Row<'_>, task: &str) -> rusqlite::Result<Value> {
    Ok(json!({
        "type": SCALAR,
        "task": task,
        "metric": row.get::<_, String>(0)?,
        "variant": row.get::<_, String>(1)?,
        "iter": row.get::<_, i64>(2)?,
        "timestamp": row.get::<_, i64>(3)?,
        "value": row.get::<_, Option<f64>>(4)?,
        "worker": row.get::<_, String>(5)?,
        "@timestamp": iso_of_millis(row.get(6)?),
        "model_event": false,
    }))
}

/// `events.get_scalar_metric_data`: the points of one metric as events, newest iteration first.
pub(crate) fn metric_data(call: &Call) -> Answer {
    let (task, metric) = (call.text("task")?, call.text("metric")?);
    check_task(call, task)?;
    let from = scroll(call)?;
    let sql = format!("{POINTS} AND metric = ?2 ORDER BY iter DESC, variant LIMIT ?3 OFFSET ?4");
    let mut statement = call.db.prepare_cached(&sql)?;
    let events = statement
        .query_map(params![task, metric, LARGEST, from], |row| {
            point_of(row, task)
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let sql =
        "SELECT count(*) FROM curves JOIN points ON curve = id WHERE task = ?1 AND metric = ?2";
    let total: i64 = call
        .db
        .prepare_cached(sql)?
        .query_row([task, metric], |row| row.get(0))?;
    let mut answer = paged(&events, total, from);
    if call.flag("no_scroll")? {
        answer["scroll_id"] = Value::Null;
    }
    Ok(answer)
}

/// `events.get_task_events`: by type; without one, everything but the log.
pub(crate) fn task_events(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let size = call.int("batch_size")?.unwrap_or(500).clamp(1, LARGEST);
    let from = scroll(call)?;
    let newest_first = call.text_or_none("order")? == Some("desc");
    let kind = call.text_or_none("event_type")?.unwrap_or("");
    if kind == LOG {
        let events = log::by_position(call.db, task, newest_first, from, size)?;
        return Ok(paged(&events, log::count(call.db, task)?, from));
    }
    let direction = if newest_first { "DESC" } else { "" };
    let (mut events, mut total) = (Vec::new(), 0);
    if kind.is_empty() || kind == SCALAR {
        let sql = format!(
            "{POINTS} ORDER BY iter {direction}, metric {direction}, variant {direction} LIMIT ?2 OFFSET ?3"
        );
        let mut statement = call.db.prepare_cached(&sql)?;
        let found = statement.query_map(params![task, size, from], |row| point_of(row, task))?;
        events = found.collect::<Result<Vec<_>, _>>()?;
        let sql = "SELECT count(*) FROM curves JOIN points ON curve = id WHERE task = ?1";
        total = call
            .db
            .prepare_cached(sql)?
            .query_row([task], |row| row.get(0))?;
    }
    if kind != SCALAR {
        // Reports follow the points.
        let left = size - i64::try_from(events.len()).unwrap_or(size);
        let skip = (from - total).max(0);
        let sql = format!(
            "SELECT id FROM reports WHERE task = ?1 AND (?2 = '' OR type = ?2)
             ORDER BY iter {direction}, id {direction} LIMIT ?3 OFFSET ?4"
        );
        let ids = call
            .db
            .prepare_cached(&sql)?
            .query_map(params![task, kind, left, skip], |row| row.get(0))?
            .collect::<Result<Vec<i64>, _>>()?;
        let reports = Room::new(ids.len()).fill(call.db, &ids)?;
        events.extend(reports.into_iter().map(Value::Object));
        let sql = "SELECT count(*) FROM reports WHERE task = ?1 AND (?2 = '' OR type = ?2)";
        total += call
            .db
            .prepare_cached(sql)?
            .query_row([task, kind], |row| row.get::<_, i64>(0))?;
    }
    Ok(paged(&events, total, from))
}

fn paged(events: &[Value], total: i64, from: i64) -> Value {
    let returned = events.len();
    let next = from.saturating_add(i64::try_from(returned).unwrap_or(0));
    json!({"events": events, "returned": returned, "total": total, "scroll_id": next.to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_curve_is_given_whole_and_a_long_one_as_means_of_stretches() {
        let curve: Vec<Point> = (0..10).map(|x| (x, x as f64)).collect();
        assert_eq!(sampled(&curve, 10), curve);
        assert_eq!(sampled(&curve, 2), [(0, 2.0), (5, 7.0)]);
        let later: Vec<Point> = (3..13).map(|x| (x, x as f64)).collect();
        assert_eq!(sampled(&later, 2), [(0, 3.5), (5, 7.0), (10, 11.0)]);
    }

    #[test]
    fn the_more_curves_are_asked_for_the_fewer_points_each_has() {
        assert!(most_samples(0) >= LARGEST && most_samples(50) >= LARGEST);
        assert_eq!(most_samples(1000), 500);
        assert!(most_samples(POINTS_DRAWN * 2) == 1 && most_samples(CURVES) >= 10);
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trouble() {
        let curve = [(i64::MIN, 1.0), (0, 2.0), (i64::MAX, 3.0)];
        assert!(sampled(&curve, 2).len() <= 3);
    }
}
