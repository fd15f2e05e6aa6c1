//! Reading plots and debug samples back: of each metric and variant the newest iterations (§2.6).

use std::collections::HashMap;

use rusqlite::params;
use serde_json::{Value, json};

use super::super::doc;
use super::super::wire::{Answer, Doc, Refusal, Version};
use super::curves::{Wanted, owned};
use super::room::Room;
use super::{Call, IMAGE, LARGEST, PLOT, check_few_tasks, check_task, name_of, scroll, text_of};

/// Plots of one page.
const PAGE: usize = 1000;
/// Plots or samples that an answer chooses from.
const MOST: usize = 10_000;

// ---- plots ----

/// `events.get_task_plots`
pub(crate) fn task_plots(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let iters = call.int("iters")?.unwrap_or(1);
    let plots = latest(call, task, PLOT, iters, &Wanted::read(call)?)?;
    let from = usize::try_from(scroll(call)?).unwrap_or(0);
    let left = plots.get(from..).unwrap_or_default();
    let page = Room::new(PAGE).fill(call.db, left)?;
    let (returned, next) = (page.len(), from.saturating_add(page.len()));
    let mut answer = json!({"plots": page, "returned": returned, "total": plots.len()});
    if !call.flag("no_scroll")? {
        answer["scroll_id"] = next.to_string().into();
    }
    Ok(answer)
}

/// `events.get_multi_task_plots`: `{metric: {variant: {task: {iter: {name, plots}}}}}`.
pub(crate) fn multi_task_plots(call: &Call) -> Answer {
    let mut all = Doc::new();
    let wanted = Wanted::read(call)?;
    let iters = call.int("iters")?.unwrap_or(1);
    let from = usize::try_from(scroll(call)?).unwrap_or(0);
    // Positions in the plots of all tasks, one after the other.
    let (mut total, mut next) = (0, from);
    let mut room = Room::new(MOST);
    for id in check_few_tasks(call)? {
        let chosen = latest(call, id, PLOT, iters, &wanted)?;
        let left = chosen.get(next.saturating_sub(total)..);
        total += chosen.len();
        let plots = room.fill(call.db, left.unwrap_or_default())?;
        if plots.is_empty() {
            continue;
        }
        next += plots.len();
        let name = name_of(call, id)?;
        for plot in plots {
            put(&mut all, id, &name, plot);
        }
    }
    let mut answer = json!({"plots": all, "returned": next - from, "total": total});
    if !call.flag("no_scroll")? {
        let scroll = if next < total {
            next.to_string()
        } else {
            String::new()
        };
        answer["scroll_id"] = scroll.into();
    }
    Ok(answer)
}

/// Puts a plot under its metric, variant, task and iteration.
fn put(all: &mut Doc, task: &str, name: &Value, plot: Doc) {
    let of_metric = doc::object_at(all, doc::text(&plot, "metric"));
    let of_variant = doc::object_at(of_metric, doc::text(&plot, "variant"));
    let iter = super::int_at(&plot, "iter").to_string();
    let slot = doc::object_at(doc::object_at(of_variant, task), &iter);
    slot.insert("name".into(), name.clone());
    if let Value::Array(plots) = slot.entry("plots").or_insert_with(|| json!([])) {
        plots.push(plot.into());
    }
}

/// The reports of a kind that are to be shown, by their rows and in order: of each metric and variant the newest
/// `iters` iterations. Their documents are not looked at, they can be of any size.
fn latest(
    call: &Call,
    task: &str,
    kind: &str,
    iters: i64,
    wanted: &Wanted,
) -> Result<Vec<i64>, Refusal> {
    let sql = "SELECT id, metric, variant FROM (
                   SELECT id, metric, variant, iter,
                          dense_rank() OVER (PARTITION BY metric, variant ORDER BY iter DESC) AS age
                   FROM reports WHERE task = ?1 AND type = ?2
               ) WHERE age <= ?3 ORDER BY iter DESC, metric, variant, id";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query(params![task, kind, iters.max(1)])?;
    let mut chosen = Vec::new();
    while let Some(row) = rows.next()? {
        if !wanted.has(text_of(row, "metric")?, text_of(row, "variant")?) {
            continue;
        }
        chosen.push(row.get("id")?);
        if chosen.len() >= MOST {
            break;
        }
    }
    Ok(chosen)
}

// ---- debug samples ----

/// `events.debug_images` before 2.7: of one task the newest iterations, before 1.8 those of each metric and variant.
pub(crate) fn images_of_task(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let iters = call.int("iters")?.unwrap_or(1).clamp(1, LARGEST);
    let all = Wanted::default();
    let images = if call.request.version < Version(1, 8) {
        latest(call, task, IMAGE, iters, &all)?
    } else {
        let iterations = iterations(call, task, IMAGE, &all, (0, iters))?;
        iterations.into_iter().flat_map(|(_, ids)| ids).collect()
    };
    let sql = "SELECT count(*) FROM reports WHERE task = ?1 AND type = ?2";
    let total: i64 = call
        .db
        .prepare_cached(sql)?
        .query_row([task, IMAGE], |row| row.get(0))?;
    let from = usize::try_from(scroll(call)?).unwrap_or(0);
    let page = Room::new(MOST).fill(call.db, images.get(from..).unwrap_or_default())?;
    let returned = page.len();
    let next = from.saturating_add(returned).to_string();
    Ok(json!({
        "task": task, "images": page, "returned": returned, "total": total, "scroll_id": next,
    }))
}

/// `events.debug_images`: by task, newest iterations first; `scroll_id` continues with older ones.
pub(crate) fn debug_images(call: &Call) -> Answer {
    by_iterations(call, IMAGE)
}

/// `events.plots`: the same for plots.
pub(crate) fn plots(call: &Call) -> Answer {
    by_iterations(call, PLOT)
}

fn by_iterations(call: &Call, kind: &str) -> Answer {
    let iters = call.int("iters")?.unwrap_or(1).clamp(1, LARGEST);
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
    let mut parts = Vec::new();
    for task in order {
        check_task(call, &task)?;
        let metrics = asked.remove(&task).unwrap_or_default();
        let wanted = Wanted((!metrics.is_empty()).then_some(metrics));
        let left = iterations(call, &task, kind, &wanted, (skip, iters))?.into_iter();
        parts.push(Part {
            task,
            left,
            shown: Vec::new(),
        });
    }
    let given = fill(call, &mut parts)?;
    let all = parts.iter().all(|part| part.left.as_slice().is_empty());
    let next = skip.saturating_add(if all { iters } else { given });
    let shown: Vec<Value> = parts
        .into_iter()
        .map(|part| json!({"task": part.task, "iterations": part.shown}))
        .collect();
    Ok(json!({"metrics": shown, "scroll_id": next.to_string()}))
}

/// An iteration, and its reports by their rows.
type Iteration = (i64, Vec<i64>);

/// What an answer shows of one task.
struct Part {
    task: String,
    left: std::vec::IntoIter<Iteration>,
    shown: Vec<Value>,
}

/// Shows one iteration of each task after the other, whole, until the answer is full: the scroll counts iterations.
/// How many those were.
fn fill(call: &Call, parts: &mut [Part]) -> Result<i64, Refusal> {
    let (mut room, mut given) = (Room::new(usize::MAX), 0);
    while !room.is_full() && parts.iter().any(|part| !part.left.as_slice().is_empty()) {
        for part in parts.iter_mut() {
            if let Some((iter, ids)) = part.left.next() {
                let events = room.fill_whole(call.db, &ids)?;
                part.shown.push(json!({"iter": iter, "events": events}));
            }
        }
        given += 1;
    }
    Ok(given)
}

/// The newest iterations, `count` of them after the first `skip`.
fn iterations(
    call: &Call,
    task: &str,
    kind: &str,
    wanted: &Wanted,
    (skip, count): (i64, i64),
) -> Result<Vec<Iteration>, Refusal> {
    let sql = "SELECT id, iter, metric, variant FROM reports WHERE task = ?1 AND type = ?2
               ORDER BY iter DESC, metric, variant, id";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([task, kind])?;
    let (mut seen, mut last) = (0_i64, None);
    let mut chosen: Vec<Iteration> = Vec::new();
    while let Some(row) = rows.next()? {
        if !wanted.has(text_of(row, "metric")?, text_of(row, "variant")?) {
            continue;
        }
        let iter: i64 = row.get("iter")?;
        if last != Some(iter) {
            if seen >= skip.saturating_add(count) {
                break;
            }
            seen += 1;
            last = Some(iter);
            if seen > skip {
                chosen.push((iter, Vec::new()));
            }
        }
        if let Some((_, ids)) = chosen.last_mut() {
            ids.push(row.get("id")?);
        }
    }
    Ok(chosen)
}
