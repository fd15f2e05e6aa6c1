//! What a run reported: scalars, plots, samples, artifacts.

use serde_json::{Value, json};

use super::world::Page;

fn scalar(task: &str, metric: &str, variant: &str, iter: i64, value: f64) -> Value {
    json!({"type": "training_stats_scalar", "task": task, "metric": metric, "variant": variant, "iter": iter, "value": value, "timestamp": 1_790_000_000_000_i64 + iter * 1000})
}

fn plot(task: &str, metric: &str, figure: &Value) -> Value {
    json!({"type": "plot", "task": task, "metric": metric, "variant": "v", "iter": 1, "plot_str": figure.to_string()})
}

const LINE: &str = "return document.querySelector('.chart path.line').getAttribute('d')";

#[test]
fn scalars_are_drawn_live_read_off_smoothed_and_on_a_log_scale() {
    let page = Page::open();
    let id = page.task_in("trains", "in_progress");
    let noise = |iter: i64| if iter % 2 == 0 { 0.3 } else { -0.3 };
    let mut events = Vec::new();
    for iter in 0..200 {
        events.push(scalar(
            &id,
            "loss",
            "train",
            iter,
            100.0 / (iter + 1) as f64 + 1.0 + noise(iter),
        ));
        events.push(scalar(
            &id,
            "loss",
            "validation",
            iter,
            120.0 / (iter + 1) as f64 + 1.0,
        ));
        events.push(scalar(&id, ":monitor:gpu", "gpu_0_utilization", iter, 90.0));
    }
    page.events(&events);
    page.at(&format!("tasks/{id}/scalars"));
    page.wait(
        "three curves",
        "return document.querySelectorAll('.chart path.line[d^=M]').length === 3",
        &[],
    );
    page.all_read(".chart-title", &["loss", ":monitor:gpu"]);

    // Hovering reads both curves off; so do the arrow keys.
    page.browser.hover(page.middle(".chart .canvas"));
    let tip = page.text(".chart .tip");
    assert!(
        tip.contains("iteration ") && tip.contains("train") && tip.contains("validation"),
        "{tip}"
    );
    page.js("document.querySelector('.chart .canvas').focus()");
    page.browser.press(&[], &["\u{E014}", "\u{E014}"]);
    assert!(page.text(".chart .tip").contains("iteration "));

    let plain = page.js(LINE);
    page.click("input[name=log]");
    page.wait(
        "another path on the log scale",
        "return document.querySelector('.chart path.line').getAttribute('d') !== arguments[0]",
        std::slice::from_ref(&plain),
    );
    page.click("input[name=log]");
    page.wait(
        "the first path again",
        "return document.querySelector('.chart path.line').getAttribute('d') === arguments[0]",
        std::slice::from_ref(&plain),
    );
    page.js("const slider = document.querySelector('[aria-label=Smoothing]'); slider.value = 0.9; slider.dispatchEvent(new Event('input', {bubbles: true}))");
    page.wait(
        "the curve itself, faint behind the smooth one",
        "return document.querySelectorAll('[aria-label=\"loss\"] path.line.faint').length === 2",
        &[],
    );
    page.js("const slider = document.querySelector('[aria-label=Smoothing]'); slider.value = 0; slider.dispatchEvent(new Event('input', {bubbles: true}))");

    // Dragging zooms in, a double click out.
    let (x, y) = page.middle(".chart .canvas");
    page.browser.drag(&[(x - 60.0, y), (x, y), (x + 60.0, y)]);
    page.wait(
        "a closer look",
        "return document.querySelector('.chart path.line').getAttribute('d') !== arguments[0]",
        std::slice::from_ref(&plain),
    );
    page.js("document.querySelector('.chart .canvas').dispatchEvent(new MouseEvent('dblclick'))");
    page.wait(
        "all of it",
        "return document.querySelector('.chart path.line').getAttribute('d') === arguments[0]",
        std::slice::from_ref(&plain),
    );

    page.events(&[
        scalar(&id, "accuracy", "top 1", 200, 0.5),
        scalar(&id, "loss", "train", 260, 1.0),
    ]);
    page.wait("the new points", "return document.querySelector('.chart path.line').getAttribute('d') !== arguments[0] && [...document.querySelectorAll('.chart-title')].some((one) => one.innerText === 'accuracy')", std::slice::from_ref(&plain));
    page.press_button("Clock");
    page.wait("hours on the axis", "return [...document.querySelectorAll('.axes text')].some((one) => /^\\d\\d:\\d\\d$/.test(one.textContent))", &[]);
    page.press_button("Iterations");
    page.no_errors();
}

#[test]
fn curves_are_hidden_by_their_names_and_charts_enlarged_and_found() {
    let page = Page::open();
    let id = page.task_in("trains", "in_progress");
    let begun = page.js("return Date.now()").as_i64().unwrap();
    let mut events = Vec::new();
    for iter in 0..100 {
        for (metric, variant) in [
            ("loss", "train"),
            ("loss", "validation"),
            ("accuracy", "top 1"),
        ] {
            let mut event = scalar(&id, metric, variant, iter, iter as f64);
            event["timestamp"] = (begun + iter * 1000).into();
            events.push(event);
        }
    }
    page.events(&events);
    page.at(&format!("tasks/{id}/scalars"));
    let curves = |names: &[&str]| {
        page.wait(
            &format!("the curves {names:?}"),
            "const all = [...document.querySelectorAll('[aria-label=loss] path.line[d^=M]')].map((one) => one.dataset.series).sort();
             return JSON.stringify(all) === JSON.stringify(arguments[0])",
            &[json!(names)],
        );
    };
    curves(&["train", "validation"]);
    page.click("[title='Show or hide train']");
    curves(&["validation"]);
    // The name keeps the focus, and brings the curve back by key.
    let focused = "return [document.activeElement.title, document.activeElement.getAttribute('aria-pressed')]";
    assert_eq!(page.js(focused), json!(["Show or hide train", "false"]));
    page.browser.press(&[], &["\u{E007}"]);
    curves(&["train", "validation"]);
    // Who hides the last one sees all of them again.
    page.click("[title='Show or hide validation']");
    curves(&["train"]);
    page.click("[title='Show or hide train']");
    curves(&["train", "validation"]);

    let height =
        "return document.querySelector('[aria-label=loss] .canvas').getBoundingClientRect().height";
    let small = page.js(height).as_f64().unwrap();
    page.press_button("Enlarge loss");
    let is = |what: &str, test: &str| {
        page.wait(
            what,
            &format!("{height} {test} arguments[0]"),
            &[json!(small)],
        );
    };
    is("a large chart", ">");
    page.press_button("Enlarge loss");
    is("a small chart", "===");

    page.press_button("Run time");
    page.wait("seconds since the start", "return [...document.querySelectorAll('.axes text')].some((one) => /^(1m )?\\d+s$/.test(one.textContent))", &[]);
    page.fill("[aria-label='Filter metrics']", "ACC");
    page.all_read(".chart-title", &["accuracy"]);
    page.fill("[aria-label='Filter metrics']", "nothing like this");
    page.read("No metric holds “nothing like this”.");
    page.no_errors();
}

#[test]
fn plots_are_found_by_name_and_enlarged() {
    let page = Page::open();
    let id = page.task_in("plots", "in_progress");
    let figure = json!({"data": [{"type": "bar", "x": ["a"], "y": [1]}], "layout": {}});
    page.events(&[plot(&id, "bars", &figure), plot(&id, "matrix", &figure)]);
    page.at(&format!("tasks/{id}/plots"));
    page.all_read(".plot-card .chart-title", &["bars / v", "matrix / v"]);
    page.fill("[aria-label='Filter plots']", "MAT");
    page.all_read(".plot-card .chart-title", &["matrix / v"]);
    let width = "return document.querySelector('.plot-card .canvas').getBoundingClientRect().width";
    let small = page.js(width).as_f64().unwrap();
    page.press_button("Enlarge matrix / v");
    page.wait(
        "a large plot",
        &format!("{width} > arguments[0]"),
        &[json!(small)],
    );
    page.press_button("Enlarge matrix / v");
    page.wait(
        "a small plot",
        &format!("{width} === arguments[0]"),
        &[json!(small)],
    );
    page.fill("[aria-label='Filter plots']", "nothing like this");
    page.read("No plot holds “nothing like this”.");
    page.no_errors();
}

#[test]
fn samples_of_one_metric_are_chosen() {
    let page = Page::open();
    let id = page.task_in("draws", "in_progress");
    let mut events = Vec::new();
    for metric in ["masks", "predictions"] {
        events.push(json!({"type": "training_debug_image", "task": id, "metric": metric, "variant": "v", "iter": 1, "key": "k", "url": format!("https://files.example/{metric}.bin")}));
    }
    page.events(&events);
    page.at(&format!("tasks/{id}/samples"));
    let shown = "figcaption span:first-child";
    page.wait(
        "both metrics",
        "return document.querySelectorAll('figcaption').length === 2",
        &[],
    );
    page.pick("Metric", "masks");
    page.all_read(shown, &["masks"]);
    page.pick("Metric", "predictions");
    page.all_read(shown, &["predictions"]);
    page.no_errors();
}

#[test]
fn the_usual_plots_are_drawn_and_others_can_be_read() {
    let page = Page::open();
    let id = page.task_in("plots", "in_progress");
    // Plotly 6 writes numbers as base64: 1.0, 2.0, 4.0 as little-endian doubles.
    let packed = json!({"dtype": "f8", "bdata": "AAAAAAAA8D8AAAAAAAAAQAAAAAAAABBA"});
    page.events(&[
        plot(&id, "a bars", &json!({"data": [{"type": "bar", "name": "one", "x": ["cat", "dog"], "y": [3, 5]}, {"type": "bar", "name": "two", "x": ["cat", "dog"], "y": [1, 2]}], "layout": {"xaxis": {"title": {"text": "animal"}}}})),
        plot(&id, "b confusion", &json!({"data": [{"type": "heatmap", "z": [[9, 1], [2, 8]], "x": ["cat", "dog"], "y": ["cat", "dog"]}], "layout": {"xaxis": {"title": "predicted"}}})),
        plot(&id, "c scatter", &json!({"data": [{"type": "scatter", "mode": "markers", "name": "dots", "x": [1, 2, 3], "y": [1, 4, 9]}, {"type": "scattergl", "mode": "lines", "name": "line", "x": [1, 2, 3], "y": packed}], "layout": {}})),
        plot(&id, "d histogram", &json!({"data": [{"type": "histogram", "x": [1.0, 1.1, 1.2, 2.0, 3.0, 3.1, 3.2, 3.3, 3.4], "nbinsx": 3}], "layout": {}})),
        plot(&id, "e table", &json!({"data": [{"type": "table", "header": {"values": ["name", "score"]}, "cells": {"values": [["ada", "<b>x</b>bob"], [0.5, 0.25]]}}], "layout": {}})),
        plot(&id, "f box", &json!({"data": [{"type": "box", "name": "spread", "y": [1, 2, 3, 4, 9]}], "layout": {}})),
        plot(&id, "g unknown", &json!({"data": [{"type": "sankey", "node": {"label": ["<img src=x onerror=alert(1)>"]}}], "layout": {}})),
        json!({"type": "plot", "task": id, "metric": "h broken", "variant": "v", "iter": 1, "plot_str": "{not json"}),
        plot(&id, "i space", &json!({"data": [{"type": "scatter3d", "x": [1], "y": [2], "z": [3]}], "layout": {}})),
    ]);
    page.at(&format!("tasks/{id}/plots"));
    page.read("h broken");
    let card = |name: &str, what: &str| {
        page.wait(&format!("{name}: {what}"), "const card = [...document.querySelectorAll('.plot-card')].find((one) => one.getAttribute('aria-label').startsWith(arguments[0])); card.scrollIntoView(); return card.querySelectorAll(arguments[1]).length", &[json!(name), json!(what)])
    };
    assert_eq!(card("a bars", "rect[data-tip]"), 4);
    assert_eq!(card("b confusion", "rect.cell"), 4);
    assert_eq!(card("b confusion", ".cell-text"), 4);
    assert_eq!(card("c scatter", ".dots circle"), 3);
    assert_eq!(card("c scatter", "path.line[d*=L]"), 1);
    assert_eq!(card("d histogram", "rect[data-tip]"), 3);
    assert_eq!(card("e table", "tbody tr"), 2);
    assert_eq!(card("f box", "line"), card("f box", "line"));
    page.read("Not drawn here: sankey");
    page.read("This plot cannot be drawn: it is not JSON");
    page.read("Three dimensions are shown as a table.");
    let tips = page.js("return [...document.querySelectorAll('.plot-card:nth-child(4) rect[data-tip]')].map((one) => one.dataset.tip.split('→ ')[1])");
    assert_eq!(tips, json!(["3", "1", "5"]), "counts of the histogram");
    page.press_button("JSON of g unknown / v");
    page.read("\"sankey\"");
    page.press_button("Cancel");
    page.no_errors();
}

#[test]
fn earlier_iterations_of_a_plot_are_reached() {
    let page = Page::open();
    let id = page.task_in("plots", "in_progress");
    let events: Vec<Value> = (1..=3)
        .map(|iter| {
            let mut event = plot(
                &id,
                "bars",
                &json!({"data": [{"type": "bar", "x": ["a"], "y": [iter]}], "layout": {}}),
            );
            event["iter"] = iter.into();
            event
        })
        .collect();
    page.events(&events);
    page.at(&format!("tasks/{id}/plots"));
    page.read("iteration 3");
    page.press_button("Earlier iteration of bars / v");
    page.read("iteration 2");
    page.press_button("Later iteration of bars / v");
    page.read("iteration 3");
    page.no_errors();
}

#[test]
fn samples_are_shown_by_iteration_and_foreign_schemes_are_no_links() {
    let page = Page::open();
    let id = page.task_in("draws", "in_progress");
    let png = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==").unwrap();
    let mut events = Vec::new();
    for iter in 1..=6 {
        let url = page.upload(&format!("p/draws.{id}/metrics/m/v/{iter}.png"), &png);
        events.push(json!({"type": "training_debug_image", "task": id, "metric": "predictions", "variant": "v", "iter": iter, "key": format!("{iter}.png"), "url": url}));
    }
    events.push(json!({"type": "training_debug_image", "task": id, "metric": "evil", "variant": "v", "iter": 6, "key": "k", "url": "javascript:alert(1)//x.png"}));
    page.events(&events);
    page.at(&format!("tasks/{id}/samples"));
    page.read("Iteration 6");
    page.wait("loaded pictures", "const all = [...document.querySelectorAll('.gallery img')]; return all.length === 4 && all.every((one) => one.naturalWidth === 1)", &[]);
    assert_eq!(page.js("return document.querySelectorAll('a[href^=\"javascript\"], img[src^=\"javascript\"]').length"), 0);
    page.press_button("Older iterations");
    page.read("Iteration 1");
    page.no_errors();
}

#[test]
fn artifacts_and_models_are_listed_and_downloaded() {
    let page = Page::open();
    let id = page.task_in("stores", "in_progress");
    let address = page.upload(
        &format!("p/stores.{id}/artifacts/report/report.bin"),
        b"what the run left behind",
    );
    let weights = page.upload(&format!("p/stores.{id}/models/best.pt"), b"weights");
    page.call("tasks.add_or_update_artifacts", json!({"task": id, "artifacts": [
        {"key": "report", "type": "custom", "uri": address, "content_size": 24, "hash": "ab12cd34ef56ab12cd34ef56", "timestamp": 1_790_000_000, "type_data": {"preview": "what the <i>run</i>"}},
        {"key": "elsewhere", "type": "custom", "uri": "s3://bucket/key"},
    ]}));
    let model = page.call(
        "models.create",
        json!({"name": "best", "uri": weights, "framework": "PyTorch"}),
    )["id"]
        .clone();
    page.call(
        "tasks.add_or_update_model",
        json!({"task": id, "name": "best", "type": "output", "model": model}),
    );
    page.at(&format!("tasks/{id}/files"));
    page.read("24 B");
    page.read("PyTorch");
    page.read("s3://bucket/key");
    page.press_button("Preview");
    page.read("what the <i>run</i>");

    let downloads = page.downloads();
    page.press_button("Download");
    downloads.hold("report.bin", b"what the run left behind");
    page.keep("files");
    page.no_errors();
}
