//! Reading reports back: curves, plots, debug samples, events by type (§2.6).

use std::collections::HashMap;

use rusqlite::params;
use serde_json::{Value, json};

use super::super::wire::{Answer, Doc, Refusal};
use super::super::{doc, tasks};
use super::{
    Call, IMAGE, PLOT, SCALAR, check_task, event_of, iso_of_millis, rounded, scroll, series,
};

/// Metric and variant.
type Name = (String, String);
/// Place on the axis, and value.
type Point = (i64, f64);

/// Points of a curve when nothing else is said.
const SAMPLES: i64 = 5000;
/// Events of one answer, at most.
const LARGEST: i64 = 10_000;

// ---- curves ----

/// `events.scalar_metrics_iter_histogram`
pub(crate) fn histogram(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    asked_curves(call, task)
}

/// `events.multi_task_scalar_metrics_iter_histogram`: `{metric: {variant: {task: {name, x, y}}}}`.
pub(crate) fn multi_task_histogram(call: &Call) -> Answer {
    let mut all = Doc::new();
    for id in call.texts_required("tasks")? {
        let task = tasks::known(call.db, id)?;
        let Value::Object(metrics) = asked_curves(call, id)? else {
            continue;
        };
        for (metric, variants) in metrics {
            let Value::Object(variants) = variants else {
                continue;
            };
            for (variant, mut curve) in variants {
                curve["name"] = task["name"].clone();
                doc::object_at(doc::object_at(&mut all, &metric), &variant)
                    .insert(id.to_owned(), curve);
            }
        }
    }
    Ok(json!({"metrics": all}))
}

/// Curves as the request wants them.
fn asked_curves(call: &Call, task: &str) -> Answer {
    let key = call.text_or_none("key")?.unwrap_or("iter");
    if !["iter", "timestamp", "iso_time"].contains(&key) {
        return Err(Refusal::invalid(format_args!("unknown key: {key}")));
    }
    let samples = call.int("samples")?.unwrap_or(SAMPLES).clamp(1, LARGEST);
    curves(call, task, key, samples)
}

/// All curves of a task over an axis: `{metric: {variant: {name, x, y}}}`.
pub(in super::super) fn curves(call: &Call, task: &str, key: &str, samples: i64) -> Answer {
    let wanted = Wanted::read(call)?;
    let order = if key == "iter" { "iter" } else { "at" };
    let sql = format!(
        "SELECT metric, variant, iter, at, value FROM reports
         WHERE task = ?1 AND type = ?2 AND value IS NOT NULL ORDER BY metric, variant, {order}"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let mut rows = statement.query([task, SCALAR])?;
    let mut points: Vec<(Name, Vec<Point>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let name: Name = (row.get(0)?, row.get(1)?);
        let (iter, at, value): (i64, i64, f64) = (row.get(2)?, row.get(3)?, row.get(4)?);
        if series::is_single(iter) || !wanted.has(&name.0, &name.1) {
            continue;
        }
        let point = (if key == "iter" { iter } else { at }, value);
        match points.last_mut() {
            Some((last, curve)) if *last == name => curve.push(point),
            _ => points.push((name, vec![point])),
        }
    }
    let mut all = Doc::new();
    for ((metric, variant), curve) in points {
        let (x, y): (Vec<i64>, Vec<f64>) = sampled(&curve, samples).into_iter().unzip();
        let x = if key == "iso_time" {
            json!(x.into_iter().map(iso_of_millis).collect::<Vec<_>>())
        } else {
            json!(x)
        };
        let shown = json!({"name": variant, "x": x, "y": y});
        doc::object_at(&mut all, &metric).insert(variant, shown);
    }
    Ok(all.into())
}

/// At most `samples` points: the means of equal stretches of the axis.
fn sampled(curve: &[Point], samples: i64) -> Vec<Point> {
    let (Some((first, _)), Some((last, _))) = (curve.first(), curve.last()) else {
        return Vec::new();
    };
    if i64::try_from(curve.len()).is_ok_and(|points| points <= samples) {
        return curve.iter().map(|(x, y)| (*x, rounded(*y))).collect();
    }
    let stretch = (last.abs_diff(*first) / samples.unsigned_abs() + 1).max(1);
    let mut means: Vec<Point> = Vec::new();
    let mut current = None;
    let mut sum = (0.0, 0_u32);
    for (x, y) in curve {
        let number = x.abs_diff(*first) / stretch;
        if current != Some(number) {
            current = Some(number);
            sum = (0.0, 0);
            means.push((*x, 0.0));
        }
        sum = (sum.0 + y, sum.1 + 1);
        if let Some(mean) = means.last_mut() {
            mean.1 = rounded(sum.0 / f64::from(sum.1));
        }
    }
    means
}

/// Which metrics and variants are asked for: `metrics: [{metric, variants?}]`; nothing said means all.
#[derive(Default)]
struct Wanted(Option<HashMap<String, Vec<String>>>);

impl Wanted {
    fn read(call: &Call) -> Result<Self, Refusal> {
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

    fn has(&self, metric: &str, variant: &str) -> bool {
        let Some(wanted) = &self.0 else { return true };
        wanted.get(metric).is_some_and(|variants| {
            variants.is_empty() || variants.iter().any(|name| name == variant)
        })
    }
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

// ---- plots ----

/// `events.get_task_plots`
pub(crate) fn task_plots(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let plots = latest(
        call,
        task,
        PLOT,
        call.int("iters")?.unwrap_or(1),
        &Wanted::read(call)?,
    )?;
    let total = plots.len();
    let from = usize::try_from(scroll(call)?).unwrap_or(0);
    let page: Vec<Doc> = plots.into_iter().skip(from).take(1000).collect();
    let mut answer = json!({"plots": page, "returned": page.len(), "total": total});
    if !call.flag("no_scroll")? {
        answer["scroll_id"] = (from + page.len()).to_string().into();
    }
    Ok(answer)
}

/// `events.get_multi_task_plots`: `{metric: {variant: {task: {iter: {name, plots}}}}}`.
pub(crate) fn multi_task_plots(call: &Call) -> Answer {
    let mut all = Doc::new();
    let mut returned = 0;
    let wanted = Wanted::read(call)?;
    for id in call.texts_required("tasks")? {
        let task = tasks::known(call.db, id)?;
        for plot in latest(call, id, PLOT, call.int("iters")?.unwrap_or(1), &wanted)? {
            let (metric, variant) = (
                doc::text(&plot, "metric").to_owned(),
                doc::text(&plot, "variant").to_owned(),
            );
            let iter = super::int_at(&plot, "iter").to_string();
            let of_task = doc::object_at(
                doc::object_at(doc::object_at(&mut all, &metric), &variant),
                id,
            );
            let slot = doc::object_at(of_task, &iter);
            slot.insert("name".into(), task["name"].clone());
            if let Value::Array(plots) = slot.entry("plots").or_insert_with(|| json!([])) {
                plots.push(plot.into());
            }
            returned += 1;
        }
    }
    let mut answer = json!({"plots": all, "returned": returned, "total": returned});
    if !call.flag("no_scroll")? {
        answer["scroll_id"] = "".into();
    }
    Ok(answer)
}

/// Events of a type: of each metric and variant the newest `iters` iterations.
fn latest(
    call: &Call,
    task: &str,
    kind: &str,
    iters: i64,
    wanted: &Wanted,
) -> Result<Vec<Doc>, Refusal> {
    let sql = "SELECT * FROM (
                   SELECT *, dense_rank() OVER (PARTITION BY metric, variant ORDER BY iter DESC) AS age
                   FROM reports WHERE task = ?1 AND type = ?2
               ) WHERE age <= ?3 ORDER BY iter DESC, metric, variant, id LIMIT ?4";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query(params![task, kind, iters.max(1), LARGEST])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let event = event_of(row)?;
        if wanted.has(doc::text(&event, "metric"), doc::text(&event, "variant")) {
            events.push(event);
        }
    }
    Ok(events)
}

// ---- debug samples ----

/// `events.debug_images`: by task, newest iterations first; `scroll_id` continues with older ones.
pub(crate) fn debug_images(call: &Call) -> Answer {
    let iters = call.int("iters")?.unwrap_or(1).max(1);
    // The scroll is the number of iterations that were already given; a refresh starts again.
    let skip = if call.flag("refresh")? {
        0
    } else {
        scroll(call)?
    };
    let mut order: Vec<String> = Vec::new();
    let mut asked: HashMap<String, HashMap<String, Vec<String>>> = HashMap::new();
    for item in call.objects("metrics")? {
        let task = doc::text(item, "task").to_owned();
        if !asked.contains_key(&task) {
            order.push(task.clone());
        }
        let metrics = asked.entry(task).or_default();
        let metric = doc::text(item, "metric");
        if !metric.is_empty() {
            metrics.insert(metric.to_owned(), owned(doc::strings(item, "variants")));
        }
    }
    let mut shown = Vec::new();
    for task in order {
        check_task(call, &task)?;
        let metrics = asked.remove(&task).unwrap_or_default();
        let wanted = Wanted((!metrics.is_empty()).then_some(metrics));
        let iterations = iterations(call, &task, &wanted, skip, iters)?;
        shown.push(json!({"task": task, "iterations": iterations}));
    }
    Ok(json!({"metrics": shown, "scroll_id": (skip + iters).to_string()}))
}

fn iterations(
    call: &Call,
    task: &str,
    wanted: &Wanted,
    skip: i64,
    count: i64,
) -> Result<Vec<Value>, Refusal> {
    let sql = "SELECT * FROM reports WHERE task = ?1 AND type = ?2 ORDER BY iter DESC, metric, variant, id";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([task, IMAGE])?;
    let mut all: Vec<(i64, Vec<Doc>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let event = event_of(row)?;
        if !wanted.has(doc::text(&event, "metric"), doc::text(&event, "variant")) {
            continue;
        }
        let iter: i64 = row.get("iter")?;
        let full = i64::try_from(all.len()).is_ok_and(|have| have >= skip + count);
        match all.last_mut() {
            Some((last, events)) if *last == iter => events.push(event),
            _ if full => break,
            _ => all.push((iter, vec![event])),
        }
    }
    let skip = usize::try_from(skip).unwrap_or(0);
    Ok(all
        .into_iter()
        .skip(skip)
        .map(|(iter, events)| json!({"iter": iter, "events": events}))
        .collect())
}

// ---- all events of a type ----

/// `events.get_task_events`
pub(crate) fn task_events(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let size = call.int("batch_size")?.unwrap_or(500).clamp(1, LARGEST);
    let from = scroll(call)?;
    let direction = if call.text_or_none("order")? == Some("desc") {
        "DESC"
    } else {
        ""
    };
    let kind = call.text_or_none("event_type")?.unwrap_or("");
    let (events, total): (Vec<Value>, i64) = if kind == super::LOG {
        let sql = format!(
            "SELECT doc FROM log WHERE task = ?1 ORDER BY at {direction}, id {direction} LIMIT ?2 OFFSET ?3"
        );
        let events = super::log::read(call, &sql, params![task, size, from])?;
        let total =
            call.db
                .query_row("SELECT count(*) FROM log WHERE task = ?1", [task], |row| {
                    row.get(0)
                })?;
        (events, total)
    } else {
        let sql = format!(
            "SELECT * FROM reports WHERE task = ?1 AND (?2 = '' OR type = ?2)
             ORDER BY iter {direction}, id {direction} LIMIT ?3 OFFSET ?4"
        );
        let mut statement = call.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params![task, kind, size, from])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(event_of(row)?.into());
        }
        let total = call.db.query_row(
            "SELECT count(*) FROM reports WHERE task = ?1 AND (?2 = '' OR type = ?2)",
            [task, kind],
            |row| row.get(0),
        )?;
        (events, total)
    };
    let next = from.saturating_add(i64::try_from(events.len()).unwrap_or(0));
    Ok(
        json!({"events": events, "returned": events.len(), "total": total, "scroll_id": next.to_string()}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_curve_is_given_whole_and_a_long_one_as_means() {
        let curve: Vec<(i64, f64)> = (0..10).map(|x| (x, x as f64)).collect();
        assert_eq!(sampled(&curve, 10), curve);
        assert_eq!(sampled(&curve, 2), [(0, 2.0), (5, 7.0)]);
    }
}
