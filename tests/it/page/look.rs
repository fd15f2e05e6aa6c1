//! How the page looks and who can use it: light and dark, narrow windows, keyboards, names, hostile texts.

use serde_json::{Value, json};

use super::world::Page;

const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";
const ESCAPE: &str = "\u{E00C}";
const HOSTILE: &str =
    "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";

/// A task with something in each of its tabs.
fn full_task(page: &Page, name: &str) -> String {
    let id = page.task_in(name, "in_progress");
    let mut events = vec![json!({"type": "log", "task": id, "msg": "one line"})];
    for iter in 0..60 {
        let x = f64::from(iter);
        events.push(json!({"type": "training_stats_scalar", "task": id, "metric": "loss", "variant": "train", "iter": iter, "value": 2.0 / (x + 1.0)}));
        events.push(json!({"type": "training_stats_scalar", "task": id, "metric": "loss", "variant": "validation", "iter": iter, "value": 2.4 / (x + 1.0)}));
        events.push(json!({"type": "training_stats_scalar", "task": id, "metric": "accuracy", "variant": "top 1", "iter": iter, "value": x / 60.0}));
    }
    let matrix = json!({"data": [{"type": "heatmap", "z": [[9, 1, 0], [2, 8, 1], [0, 1, 7]], "x": ["cat", "dog", "cow"], "y": ["cat", "dog", "cow"]}], "layout": {}});
    events.push(json!({"type": "plot", "task": id, "metric": "confusion", "variant": "v", "iter": 1, "plot_str": matrix.to_string()}));
    page.events(&events);
    id
}

/// Every view: the tabs of a task, the list of tasks, this view of queues, the workers.
fn places(task: &str, queues: &str) -> Vec<String> {
    let tabs = [
        "",
        "/log",
        "/scalars",
        "/plots",
        "/samples",
        "/files",
        "/parameters",
        "/execution",
    ];
    let tabs = tabs.iter().map(|tab| format!("tasks/{task}{tab}"));
    let lists = ["tasks", queues, "workers"].map(str::to_owned);
    tabs.chain(lists).collect()
}

/// Contrast of text and ground of some elements, as WCAG counts it.
const CONTRAST: &str = "
    const numbers = (colour) => {
        const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((one) => one / 255).map((one) => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
        .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = numbers(getComputedStyle(at).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return numbers(getComputedStyle(document.documentElement).backgroundColor);
    };
    const low = [];
    for (const element of document.querySelectorAll('a, button, .state, .hint, .name, td, th, dt, dd, h1, h2, .tag, .fact, .chip, label, p')) {
        if (!element.checkVisibility() || !element.innerText?.trim() || element.disabled || element.closest('[disabled]')) continue;
        const [a, b] = [light(numbers(getComputedStyle(element).color)), light(ground(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push(`${element.className || element.tagName} “${element.innerText.slice(0, 30)}” ${ratio.toFixed(2)}`);
    }
    return [...new Set(low)];";

#[test]
fn every_view_can_be_read_in_light_and_dark_and_the_switch_overrules_the_system() {
    let page = Page::open();
    let id = full_task(&page, "unet on cityscapes");
    page.task_in("failed one", "failed");
    page.task_in("waits", "queued");
    for theme in ["light", "dark"] {
        let system = json!({"features": [{"name": "prefers-color-scheme", "value": theme}, {"name": "prefers-reduced-motion", "value": "reduce"}]});
        page.browser.devtools("Emulation.setEmulatedMedia", &system);
        let views = [
            ("tasks", "tasks".to_owned(), "unet on cityscapes"),
            ("overview", format!("tasks/{id}"), "Latest values"),
            ("log-live", format!("tasks/{id}/log"), "one line"),
            ("scalars", format!("tasks/{id}/scalars"), "accuracy"),
            ("plots", format!("tasks/{id}/plots"), "confusion / v"),
            ("execution", format!("tasks/{id}/execution"), "train.py"),
            ("queues", "queues".to_owned(), "waits"),
        ];
        for (name, place, text) in views {
            page.at(&place);
            page.read(text);
            if name == "scalars" {
                page.wait(
                    "curves",
                    "return document.querySelectorAll('.chart path.line[d^=M]').length === 3",
                    &[],
                );
            }
            let low = page.js(CONTRAST);
            assert_eq!(low, json!([]), "{name} in {theme}: too little contrast");
            page.keep(&format!("{name}-{theme}"));
        }
    }
    let ground = "return getComputedStyle(document.body).backgroundColor";
    let dark = page.js(ground);
    page.browser.press(&[], &["d"]);
    page.wait(
        "the light page",
        "return getComputedStyle(document.body).backgroundColor !== arguments[0]",
        std::slice::from_ref(&dark),
    );
    page.js("location.reload()");
    page.see(".brand");
    assert_ne!(page.js(ground), dark, "the choice must outlive a reload");
    page.browser.press(&[], &["d", "d"]);
    page.no_errors();
}

#[test]
fn a_narrow_window_needs_no_scrolling_sideways() {
    let page = Page::open();
    let id = full_task(
        &page,
        "a task with quite a long name that has to break somewhere_without_any_space_in_it_at_all",
    );
    page.task_in("waits", "queued");
    page.browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        &json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false}),
    );
    for place in places(&id, "queues") {
        page.at(&place);
        page.wait("the view", "return document.querySelector('.view .panel, .view .filters, .entries, .view .empty') !== null", &[]);
        page.wait(
            &format!("{place} within the window"),
            "return document.documentElement.scrollWidth <= innerWidth",
            &[],
        );
        let beyond = page.js("return [...document.querySelectorAll('main *')].filter((one) => one.checkVisibility() && !one.closest('.scroller, .tabs, .queue-list, pre, .log, svg, .unseen') && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.className || one.tagName)");
        assert_eq!(beyond, json!([]), "{place}");
    }
    page.keep("narrow");
    page.no_errors();
}

#[test]
fn the_page_is_used_by_keyboard_alone() {
    let page = Page::open();
    let id = page.task("by keyboard");
    page.read("by keyboard");
    // From the list into the task, by the keys of the list.
    page.browser.press(&[], &["j", ENTER]);
    page.reads(".title h1", "by keyboard");
    // Tab reaches the skip link first, then everything that can be used, and each of it shows that it has the focus.
    page.js("document.querySelector('.skip').focus()");
    let mut reached: Vec<String> = Vec::new();
    for _ in 0..40 {
        page.browser.press(&[], &[TAB]);
        let found = page.js(
            "const one = document.activeElement; if (one === document.body) return null;
             const style = getComputedStyle(one);
             return [(one.getAttribute('aria-label') || one.textContent).trim(), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]",
        );
        if found.is_null() {
            break;
        }
        assert_eq!(
            found[1], true,
            "{} has the focus and does not show it",
            found[0]
        );
        reached.push(found[0].as_str().unwrap().to_owned());
    }
    for wanted in [
        "Tasks",
        "Queues",
        "Workers",
        "Sign out",
        "Enqueue",
        "Clone",
        "More actions",
        "Scalars",
        "Execution",
    ] {
        assert!(
            reached.iter().any(|name| name == wanted),
            "Tab does not reach {wanted}: {reached:?}"
        );
    }
    // Enqueue by its key, in a dialog that holds the focus and gives it back.
    page.browser.press(&[], &["e"]);
    page.see("dialog h2");
    assert_eq!(
        page.js("return document.activeElement.closest('dialog') !== null"),
        true
    );
    page.browser.press(&[], &[ESCAPE]);
    page.wait(
        "the dialog's end",
        "return !document.querySelector('dialog')",
        &[],
    );
    page.browser.press(&[], &["e"]);
    page.see("dialog h2");
    page.browser.press(&[], &[TAB, TAB, TAB, ENTER]);
    page.reads(".title .state", "Queued");
    assert_eq!(page.status(&id), "queued");
    page.browser.press(&[], &["a"]);
    page.see("dialog h2");
    page.browser.press(&[], &[TAB, ENTER]);
    page.reads(".title .state", "Aborted");
    // The keys are listed, and typing in a field is no shortcut.
    page.browser.press(&[], &["?"]);
    page.read("Keyboard shortcuts");
    page.read("Enqueue");
    page.browser.press(&[], &[ESCAPE]);
    page.browser.press(&[], &["g", "q"]);
    page.see(".queue-title");
    page.browser.press(&[], &["g", "t"]);
    page.see(".filters .search");
    page.browser.press(&[], &["/"]);
    page.browser.press(&[], &["g", "q", "?"]);
    page.wait(
        "typed letters",
        "return document.querySelector('.search').value === 'gq?'",
        &[],
    );
    page.no_errors();
}

#[test]
fn every_control_has_a_name_and_pictures_have_words() {
    let page = Page::open();
    let id = full_task(&page, "named");
    page.call(
        "workers.status_report",
        json!({"worker": "w:0", "timestamp": 1, "machine_stats": {"cpu_usage": [5.0]}}),
    );
    page.task_in("waits", "queued");
    for place in [
        "tasks".to_owned(),
        format!("tasks/{id}"),
        format!("tasks/{id}/log"),
        format!("tasks/{id}/scalars"),
        format!("tasks/{id}/plots"),
        format!("tasks/{id}/parameters"),
        "queues".to_owned(),
        "workers".to_owned(),
    ] {
        page.at(&place);
        page.wait(
            "the view",
            "return document.querySelectorAll('main button, main input').length > 1",
            &[],
        );
        let nameless = page.js(
            "const name = (one) => one.getAttribute('aria-label') || one.textContent.trim() || one.title || one.closest('label')?.textContent.trim() || one.alt;
             return [...document.querySelectorAll('button, a, input, select, textarea, [tabindex=\"0\"], img:not([alt])')].filter((one) => one.checkVisibility() && !name(one)).map((one) => one.outerHTML.slice(0, 120))",
        );
        assert_eq!(nameless, json!([]), "{place}");
        assert_eq!(
            page.js("return document.querySelectorAll('h1').length"),
            1,
            "{place} has one heading of the first rank"
        );
    }
    page.no_errors();
}

#[test]
fn what_users_wrote_never_becomes_code() {
    let page = Page::open();
    page.js("document.title = 'mine'");
    let parameters = json!({HOSTILE: {HOSTILE: {"section": HOSTILE, "name": HOSTILE, "value": HOSTILE, "type": HOSTILE, "description": HOSTILE}}});
    let ask = json!({
        "name": HOSTILE, "type": "training", "comment": HOSTILE, "tags": [HOSTILE], "hyperparams": parameters,
        "configuration": {HOSTILE: {"name": HOSTILE, "value": HOSTILE, "type": HOSTILE}},
        "script": {"repository": "javascript:alert(1)", "entry_point": HOSTILE, "diff": HOSTILE, "branch": HOSTILE, "requirements": {"pip": HOSTILE}},
        "container": {"image": HOSTILE, "arguments": HOSTILE}, "runtime": {"hostname": HOSTILE, "CLI": HOSTILE},
    });
    let id = page.made("tasks.create", ask);
    let project = page.call(
        "projects.create",
        json!({"name": HOSTILE.replace('/', "-")}),
    )["id"]
        .clone();
    page.call("tasks.update", json!({"task": id, "project": project}));
    let queue = page.queue(HOSTILE);
    page.call("tasks.enqueue", json!({"task": id, "queue": queue}));
    page.call(
        "workers.register",
        json!({"worker": HOSTILE, "queues": [queue]}),
    );
    let figure = json!({"data": [{"type": "bar", "name": HOSTILE, "x": [HOSTILE], "y": [1]}, {"type": HOSTILE}], "layout": {"title": {"text": HOSTILE}, "images": [{"source": "javascript:alert(1)"}, {"source": "data:text/html,<script>1</script>"}]}});
    page.events(&[
        json!({"type": "log", "task": id, "msg": HOSTILE, "level": HOSTILE}),
        json!({"type": "training_stats_scalar", "task": id, "metric": HOSTILE, "variant": HOSTILE, "iter": 1, "value": 1}),
        json!({"type": "plot", "task": id, "metric": HOSTILE, "variant": HOSTILE, "iter": 1, "plot_str": figure.to_string()}),
        json!({"type": "training_debug_image", "task": id, "metric": HOSTILE, "variant": HOSTILE, "iter": 1, "key": "k", "url": "javascript:alert(1)"}),
    ]);
    page.call("tasks.started", json!({"task": id}));
    page.call("tasks.add_or_update_artifacts", json!({"task": id, "artifacts": [{"key": HOSTILE, "type": HOSTILE, "uri": "javascript:alert(1)", "type_data": {"preview": HOSTILE}}]}));
    page.call(
        "tasks.failed",
        json!({"task": id, "status_message": HOSTILE, "status_reason": HOSTILE}),
    );
    for place in places(&id, &format!("queues/{queue}")) {
        page.at(&place);
        page.read("onerror=");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let markup = page.js("return [...document.querySelectorAll('main img, main script, main b')].filter((one) => one.getAttribute('src') === 'x' || one.tagName !== 'IMG').length");
        assert_eq!(markup, 0, "{place}");
        assert_eq!(page.js("return document.querySelectorAll('[href^=\"javascript:\"], [src^=\"javascript:\"]').length"), 0, "{place}");
        let title: Value = page.js("return document.title");
        assert_ne!(title, "taken", "{place}");
    }
    page.no_errors();
}
