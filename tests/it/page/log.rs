//! The log: live, coloured, searched, and as long as it may be.

use serde_json::{Value, json};

use super::world::Page;

/// `count` lines of a task, one a second, from a moment on.
fn lines(task: &str, from: i64, count: i64) -> Vec<Value> {
    (from..from + count)
        .map(|number| json!({"type": "log", "task": task, "level": "info", "timestamp": 1_790_000_000_000_i64 + number * 1000, "msg": format!("line {number} of many")}))
        .collect()
}

#[test]
fn new_lines_appear_as_they_arrive_with_their_colours() {
    let page = Page::open();
    let id = page.task_in("talks", "in_progress");
    page.at(&format!("tasks/{id}/log"));
    page.read("No output yet");
    page.events(&[json!({"type": "log", "task": id, "timestamp": 1_790_000_000_000_i64, "msg": "\u{1b}[31mred\u{1b}[0m \u{1b}[1mbold\u{1b}[0m \u{1b}[38;2;10;200;30mgreenish\u{1b}[0m \u{1b}]0;title\u{7}end\nsecond line\n"})]);
    page.read("second line");
    let colours = page.js(
        "const of = (text) => [...document.querySelectorAll('.line span')].find((one) => one.textContent === text);
         return [of('red').className, of('bold').className, of('greenish').style.color, document.querySelector('.line').innerText]",
    );
    assert_eq!(
        colours,
        json!([
            "ansi-fg-red",
            "ansi-bold",
            "rgb(10, 200, 30)",
            "red bold greenish end"
        ])
    );
    // A progress bar leaves its last state; the same moment may bring more lines later.
    page.events(&[json!({"type": "log", "task": id, "timestamp": 1_790_000_000_000_i64, "msg": "10%\r50%\r100%"})]);
    page.read("100%");
    page.events(&lines(&id, 10, 3));
    page.read("line 12 of many");
    let all = page.texts(".line");
    assert_eq!(
        all.iter().filter(|line| line.contains("100%")).count(),
        1,
        "{all:?}"
    );
    assert_eq!(all.len(), 6, "{all:?}");
    page.no_errors();
}

#[test]
fn following_ends_by_scrolling_up_and_begins_again() {
    let page = Page::open();
    let id = page.task_in("talks much", "in_progress");
    page.events(&lines(&id, 0, 400));
    page.at(&format!("tasks/{id}/log"));
    page.read("line 399 of many");
    let at_end = "const log = document.querySelector('.log'); return log.scrollHeight - log.scrollTop - log.clientHeight < 5";
    page.wait("the end in view", at_end, &[]);
    page.js("document.querySelector('.log').scrollTop = 2000");
    page.wait("the end of following", "return [...document.querySelectorAll('button')].find((one) => one.textContent === 'Follow').getAttribute('aria-pressed') === 'false'", &[]);
    page.events(&lines(&id, 400, 5));
    page.read("line 404 of many");
    assert_eq!(
        page.js(at_end),
        false,
        "the view jumped away from what is read"
    );
    page.press_button("Follow");
    page.wait("the end in view", at_end, &[]);
    page.events(&lines(&id, 405, 5));
    page.read("line 409 of many");
    page.wait("the end in view", at_end, &[]);
    page.no_errors();
}

#[test]
fn who_follows_is_at_the_newest_line_however_many_have_come() {
    let page = Page::open();
    let id = page.task_in("talks fast", "in_progress");
    page.events(&lines(&id, 0, 400));
    page.at(&format!("tasks/{id}/log"));
    page.read("line 399 of many");
    page.events(&lines(&id, 400, 20_000));
    page.read("line 20399 of many");
    let held = page.texts(".line").len();
    assert!(
        held <= 1000,
        "all lines on the way were read, {held} are held"
    );
    page.wait(
        "the end in view",
        "const log = document.querySelector('.log'); return log.scrollHeight - log.scrollTop - log.clientHeight < 5",
        &[],
    );
    page.no_errors();
}

#[test]
fn what_comes_after_a_moment_that_fills_a_page_is_shown() {
    let page = Page::open();
    let id = page.task_in("talks at once", "in_progress");
    let mut all = lines(&id, 0, 700);
    let moment = all[0]["timestamp"].clone();
    for line in &mut all {
        line["timestamp"] = moment.clone();
    }
    page.events(&all);
    page.at(&format!("tasks/{id}/log"));
    page.read("line 699 of many");
    page.events(&lines(&id, 700, 3));
    page.read("line 702 of many");
    assert_eq!(page.texts(".line").len(), 703);
    page.no_errors();
}

#[test]
fn a_long_log_is_read_by_pages_and_never_held_whole() {
    let page = Page::open();
    let id = page.task_in("long", "completed");
    page.events(&lines(&id, 0, 20_000));
    page.at(&format!("tasks/{id}/log"));
    page.read("line 19999 of many");
    assert!(page.texts(".line").len() <= 1000);
    // Upwards, page by page: the window keeps its size, and each line stands once and in order.
    page.wait(
        "four pages let go of at the end",
        "document.querySelector('.log').scrollTop = 0;
         const last = [...document.querySelectorAll('.line')].at(-1);
         return Number(last.textContent.split(' ')[1]) < 18000",
        &[],
    );
    let numbers: Vec<i64> = page
        .texts(".line")
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(numbers.len() <= 7000, "{} lines are held", numbers.len());
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "lines are missing or twice"
    );
    page.press_button("To the first line");
    page.read("line 0 of many");
    page.browser.press(&[], &["\u{E010}"]);
    page.read("line 19999 of many");
    page.keep("log");
    page.no_errors();
}

#[test]
fn a_search_reads_the_whole_log_and_leads_to_the_line() {
    let page = Page::open();
    let id = page.task_in("searched", "completed");
    let mut all = lines(&id, 0, 12_000);
    all[1234]["msg"] = json!("the \u{1b}[31mNeedle\u{1b}[0m <b>in</b> the hay");
    page.events(&all);
    page.at(&format!("tasks/{id}/log"));
    page.read("line 11999 of many");
    page.fill(".search-box input", "needle <b>");
    page.read("1 line in 12,000 of 12,000 events");
    page.click(".results ol button");
    page.wait("the line in view", "const row = document.querySelector('.line.found'); const box = row?.getBoundingClientRect(); return row?.textContent.includes('Needle') && box.top > 0 && box.bottom < innerHeight", &[]);
    page.read("line 1233 of many");
    page.fill(".search-box input", "not in there");
    page.read("No line holds “not in there”");
    page.no_errors();
}

const FOLLOWS: &str = "return [...document.querySelectorAll('button')].find((one) => one.textContent === 'Follow').getAttribute('aria-pressed') === 'true'";

#[test]
fn keys_lead_to_the_ends_of_the_log_and_times_stand_beside_it() {
    let page = Page::open();
    let id = page.task_in("read", "completed");
    page.events(&lines(&id, 0, 1_500));
    page.at(&format!("tasks/{id}/log"));
    page.read("line 1499 of many");
    // By then the page knows of its own scrolling, which is no wish to follow.
    page.js(
        "requestAnimationFrame(() => requestAnimationFrame(() => { globalThis.drawn = true; }))",
    );
    page.wait("the next frames", "return globalThis.drawn === true", &[]);
    page.wait("the newest line to be followed", FOLLOWS, &[]);
    page.browser.press(&[], &["f"]);
    assert_eq!(page.js(FOLLOWS), false);
    page.browser.press(&[], &["\u{E011}"]);
    page.read("line 0 of many");
    page.gone("line 1499 of many");
    page.browser.press(&[], &["f"]);
    page.read("line 1499 of many");
    assert_eq!(page.js(FOLLOWS), true);

    let time =
        "return parseFloat(getComputedStyle(document.querySelector('.line')).paddingLeft) > 80";
    assert_eq!(page.js(time), false);
    page.press_button("With times");
    page.wait("a time beside each line", time, &[]);
    page.press_button("Text");
    assert_eq!(page.js(time), false);
    page.no_errors();
}

#[test]
fn a_search_is_stopped_and_its_results_closed() {
    let page = Page::open();
    let id = page.task_in("searched", "completed");
    page.events(&lines(&id, 0, 12_000));
    page.at(&format!("tasks/{id}/log"));
    page.read("line 11999 of many");
    // What a search asks for after the newest lines comes only once it is let go.
    page.js("const real = window.fetch;
         const held = new Promise((go) => { globalThis.letGo = go; });
         window.fetch = async (path, ...rest) => {
             if (rest[0].body.includes('\"batch_size\":10000') && rest[0].body.includes('from_timestamp')) await held;
             return real(path, ...rest);
         };");
    let found = "1 line in 10,000 of 12,000 events";
    page.fill("[aria-label='Find in the log']", "line 11998 of");
    page.read(found);
    page.press_button("Stop");
    page.js("globalThis.letGo()");
    page.gone("Stop");
    assert_eq!(page.text(".results [role=status]"), found);
    page.press_button("Close the results");
    page.gone(found);
    page.no_errors();
}

#[test]
fn what_the_server_refuses_is_told_and_the_log_appears_once_it_is_granted() {
    let page = Page::open();
    let id = page.task_in("refused", "completed");
    page.events(&lines(&id, 0, 3));
    page.js(
        "globalThis.refused = true; const real = window.fetch;
         window.fetch = async (path, ...rest) => globalThis.refused && path.includes('get_task_log')
             ? new Response(JSON.stringify({meta: {result_code: 400, result_subcode: 1, result_msg: 'not today'}}), {status: 400})
             : real(path, ...rest);",
    );
    page.at(&format!("tasks/{id}/log"));
    page.read("The log cannot be read: not today");
    page.js("globalThis.refused = false");
    page.read("line 2 of many");
    page.gone("not today");
    page.no_errors();
}

#[test]
fn the_whole_log_is_downloaded_as_text() {
    let page = Page::open();
    let id = page.task_in("kept: a run", "completed");
    page.events(&lines(&id, 0, 12_000));
    page.at(&format!("tasks/{id}/log"));
    page.read("line 11999 of many");
    let downloads = page.downloads();
    page.press_button("Download");
    let all: Vec<String> = (0..12_000)
        .map(|number| format!("line {number} of many\n"))
        .collect();
    downloads.hold("kept_a_run.log", all.concat().as_bytes());
    page.no_errors();
}
