//! What the page asks the server for while nothing changes.

use serde_json::{Value, json};

use super::world::Page;

/// From here on requests are counted by their endpoint, those for a whole task apart, and timers wait only for a moment.
const COUNT: &str = "
    const [real, wait] = [window.fetch, window.setTimeout];
    window.fetch = (path, ask) => {
        const whole = path === '/tasks.get_all_ex' && !ask.body.includes('only_fields');
        const what = whole ? 'whole task' : path.slice(1);
        globalThis.asked[what] = (globalThis.asked[what] ?? 0) + 1;
        return real(path, ask);
    };
    window.setTimeout = (act, delay, ...rest) => wait(act, Math.min(delay, 100), ...rest);
    globalThis.asked = {};";

/// Looks on while tasks are asked after forty times; these things must not be read each time.
fn hardly_asks_for(page: &Page, things: &[&str]) {
    page.js("globalThis.asked = {}");
    page.wait(
        "forty questions",
        "return globalThis.asked['tasks.get_all_ex'] >= 40",
        &[],
    );
    let asked = page.js("return globalThis.asked");
    for what in things {
        let times = asked[what].as_u64().unwrap_or(0);
        assert!(times < 5, "{what}: asked for {times} times of {asked}");
    }
}

fn point(task: &str, iter: i64, value: f64) -> Value {
    json!({"type": "training_stats_scalar", "task": task, "metric": "loss", "variant": "train", "iter": iter, "value": value})
}

/// Waits until so many curves are drawn.
fn curves(page: &Page, count: usize) {
    page.wait(
        &format!("{count} curves"),
        "return document.querySelectorAll('.chart path.line[d^=M]').length === arguments[0]",
        &[json!(count)],
    );
}

/// The first curve becomes another one by a new point of this task.
fn changes(page: &Page, task: &str) {
    let path = "document.querySelector('.chart path.line').getAttribute('d')";
    let before = page.js(&format!("return {path}"));
    page.events(&[point(task, 2, 9.0)]);
    page.wait(
        "the new point",
        &format!("return {path} !== arguments[0]"),
        &[before],
    );
}

#[test]
fn a_tasks_document_curves_and_plots_are_read_again_only_once_they_have_changed() {
    let page = Page::open();
    let id = page.task_in("at rest", "completed");
    let plot = |iter: i64| {
        let figure = json!({"data": [{"type": "bar", "x": ["a"], "y": [iter]}], "layout": {}});
        json!({"type": "plot", "task": id, "metric": "bars", "variant": "v", "iter": iter, "plot_str": figure.to_string()})
    };
    page.events(&[point(&id, 0, 1.0), point(&id, 1, 2.0), plot(1)]);
    page.at(&format!("tasks/{id}/scalars"));
    curves(&page, 1);
    page.js(COUNT);
    hardly_asks_for(
        &page,
        &[
            "whole task",
            "events.get_multi_task_metrics",
            "events.scalar_metrics_iter_histogram",
        ],
    );
    changes(&page, &id);

    page.at(&format!("tasks/{id}/plots"));
    page.read("iteration 1");
    hardly_asks_for(&page, &["whole task", "events.get_task_plots"]);
    page.events(&[plot(2)]);
    page.read("iteration 2");
    page.no_errors();
}

#[test]
fn compared_curves_are_read_again_only_once_a_task_has_changed() {
    let page = Page::open();
    let ids = ["this one", "that one"].map(|name| page.task_in(name, "completed"));
    for id in &ids {
        page.events(&[point(id, 0, 1.0), point(id, 1, 2.0)]);
    }
    page.at(&format!("compare?tasks={},{}", ids[0], ids[1]));
    curves(&page, 2);
    page.js(COUNT);
    hardly_asks_for(&page, &["events.multi_task_scalar_metrics_iter_histogram"]);
    changes(&page, &ids[0]);
    page.no_errors();
}
