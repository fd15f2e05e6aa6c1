//! Reading plots and debug samples back: of each metric and variant the newest iterations (§2.6).

use std::collections::HashMap;

use rusqlite::params;
use serde_json::{Value, json};

use super::super::doc;
use super::super::wire::{Answer, Doc, Refusal, Version};
use super::curves::{Wanted, owned};
use super::{Call, IMAGE, LARGEST, PLOT, check_task, check_tasks, event_of, name_of, scroll};

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
    for id in check_tasks(call)? {
        let name = name_of(call, id)?;
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
            slot.insert("name".into(), name.clone());
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

/// `events.debug_images` before 2.7: of one task the newest iterations, before 1.8 those of each metric and variant.
pub(crate) fn images_of_task(call: &Call) -> Answer {
    let task = call.text("task")?;
    check_task(call, task)?;
    let iters = call.int("iters")?.unwrap_or(1).clamp(1, LARGEST);
    let all = Wanted::default();
    let images: Vec<Value> = if call.request.version < Version(1, 8) {
        let images = latest(call, task, IMAGE, iters, &all)?;
        images.into_iter().map(Value::Object).collect()
    } else {
        let mut iterations = iterations(call, task, IMAGE, &all, (0, iters))?;
        let events = iterations.iter_mut().map(|iter| iter["events"].take());
        events
            .flat_map(|events| match events {
                Value::Array(events) => events,
                _ => Vec::new(),
            })
            .collect()
    };
    let sql = "SELECT count(*) FROM reports WHERE task = ?1 AND type = ?2";
    let total: i64 = call
        .db
        .prepare_cached(sql)?
        .query_row([task, IMAGE], |row| row.get(0))?;
    let from = usize::try_from(scroll(call)?).unwrap_or(0);
    let page: Vec<Value> = images.into_iter().skip(from).collect();
    let (returned, next) = (page.len(), (from + page.len()).to_string());
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
    let mut shown = Vec::new();
    for task in order {
        check_task(call, &task)?;
        let metrics = asked.remove(&task).unwrap_or_default();
        let wanted = Wanted((!metrics.is_empty()).then_some(metrics));
        let iterations = iterations(call, &task, kind, &wanted, (skip, iters))?;
        shown.push(json!({"task": task, "iterations": iterations}));
    }
    Ok(json!({"metrics": shown, "scroll_id": skip.saturating_add(iters).to_string()}))
}

fn iterations(
    call: &Call,
    task: &str,
    kind: &str,
    wanted: &Wanted,
    (skip, count): (i64, i64),
) -> Result<Vec<Value>, Refusal> {
    let sql = "SELECT * FROM reports WHERE task = ?1 AND type = ?2 ORDER BY iter DESC, metric, variant, id";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([task, kind])?;
    let mut all: Vec<(i64, Vec<Doc>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let event = event_of(row)?;
        if !wanted.has(doc::text(&event, "metric"), doc::text(&event, "variant")) {
            continue;
        }
        let iter: i64 = row.get("iter")?;
        let have = i64::try_from(all.len()).unwrap_or(i64::MAX);
        let full = have >= skip.saturating_add(count);
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
