//! The page for people in headless Chromium, in front of a server that holds much: 10,000 queued tasks, and one with 1
//! million lines and 100,000 points. The page itself takes the time, until what it shows has been painted.

use serde_json::{Value, json};

use super::{Line, figure, filled, large_task, start};
use crate::page::world::Page;
use crate::server_world::Program;

/// How often each thing is done.
const RUNS: usize = 5;
/// Pages of the log that are read one after the other: more than the page holds at once.
const PAGES: usize = 15;

/// Notes in each new document when the first tasks of the list have been painted, counted from the begin of its loading.
const FIRST_TASKS: &str = "(() => {
    const noted = () => { globalThis.drawn = performance.now(); };
    const look = () => requestAnimationFrame(document.querySelector('.list tbody tr') ? noted : look);
    requestAnimationFrame(look);
})();";

/// KiB of all answers that the list of tasks needs, once they are there, as they went over the wire.
const SENT: &str = "
    const all = performance.getEntries().filter((one) => one.transferSize > 0);
    const needed = ['tasks.get_all_ex', 'projects.get_all', 'projects.get_task_tags', 'users.get_all_ex'];
    if (!needed.every((name) => all.some((one) => one.name.endsWith(`/${name}`)))) return null;
    return all.reduce((sum, one) => sum + one.transferSize, 0) / 1024;";

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Opens the page as a browser does that has not seen it before, several times: seconds until the first tasks are
/// there, and KiB that were sent.
fn opened(page: &Page<Program>) -> (Vec<f64>, Vec<f64>) {
    let open = || {
        page.browser
            .devtools("Network.clearBrowserCache", &json!({}));
        page.load(&page.server.url);
        let drawn = page.wait("the first tasks", "return globalThis.drawn", &[]);
        let sent = page.wait("answers for the list", SENT, &[]);
        (number(&drawn) / 1000.0, number(&sent))
    };
    (0..RUNS).map(|_| open()).unzip()
}

/// Seconds from what statements do until an expression that they make true has been painted.
fn painted(page: &Page<Program>, act: &str, seen: &str) -> f64 {
    page.js(&format!(
        "globalThis.took = 0;
         const begun = performance.now();
         {act};
         const noted = () => {{ globalThis.took = performance.now() - begun; }};
         const look = () => requestAnimationFrame({seen} ? noted : look);
         requestAnimationFrame(look);"
    ));
    number(&page.wait(seen, "return globalThis.took", &[])) / 1000.0
}

/// The same for the way from the list to a place, each time in a page that has just been loaded.
fn reached(page: &Page<Program>, place: &str, seen: &str) -> Vec<f64> {
    let reach = || {
        page.load(&page.server.url);
        page.see(".list tbody tr");
        painted(page, &format!("location.hash = '#/{place}'"), seen)
    };
    (0..RUNS).map(|_| reach()).collect()
}

/// Seconds that each older page of the log takes whose newest lines are in view.
fn older(page: &Page<Program>) -> Vec<f64> {
    let scroll = "const first = document.querySelector('.log .line').textContent;
         document.querySelector('.log').scrollTop = 0";
    let seen = "document.querySelector('.log .line').textContent !== first";
    (0..PAGES).map(|_| painted(page, scroll, seen)).collect()
}

#[test]
fn the_page_with_much_to_show() {
    let data = tempfile::tempdir().expect("a folder");
    let server = start(data.path());
    filled(&server, "long", 10_000);
    let (task, _) = large_task(&mut Line::open(&server));
    let client = server.client();
    let page = Page::signed_in(server, client);

    let script = json!({"source": FIRST_TASKS});
    page.browser
        .devtools("Page.addScriptToEvaluateOnNewDocument", &script);
    let (first_tasks, sent) = opened(&page);
    page.browser.devtools("Network.enable", &json!({}));
    let elsewhere = |headers: Value| {
        let headers = json!({"headers": headers});
        page.browser
            .devtools("Network.setExtraHTTPHeaders", &headers);
    };
    elsewhere(json!({"X-Forwarded-For": "192.0.2.1"}));
    let (_, packed) = opened(&page);
    elsewhere(json!({}));

    let curve = "document.querySelector('.chart path.line[d^=M]')";
    let scalars = reached(&page, &format!("tasks/{task}/scalars"), curve);
    let newest = "document.querySelector('.log-page:last-child .line:last-child')?.textContent.startsWith('step 999999:')";
    let log = reached(&page, &format!("tasks/{task}/log"), newest);
    let older = older(&page);
    page.no_errors();

    let second = |what: &str, goal: f64, values: &[f64]| {
        figure(&format!("page: {what}"), "s", goal, values);
    };
    second(
        "opened until the first of 10,000 tasks are drawn",
        1.0,
        &first_tasks,
    );
    second(
        "task of 1 million lines opened until its newest are drawn",
        1.0,
        &log,
    );
    second(
        "its 100,000 points opened until they are drawn",
        1.0,
        &scalars,
    );
    second(
        "one page further back in its log until that is drawn",
        0.5,
        &older,
    );
    for (whom, values) in [("this machine", sent), ("another machine", packed)] {
        figure(
            &format!("page: sent to a browser on {whom} at its first opening"),
            "KiB",
            300.0,
            &values,
        );
    }
}
