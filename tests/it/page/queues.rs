//! The order of a queue, changed by mouse and by keys; and queues themselves.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::{PATIENCE, Page};

const ALT: &str = "\u{E00A}";
const UP: &str = "\u{E013}";
const DOWN: &str = "\u{E015}";
const HOME: &str = "\u{E011}";
const END: &str = "\u{E010}";

/// A queue with tasks `a`, `b`, ... in view: its id and theirs.
fn queue_of(page: &Page, count: u8) -> (String, Vec<String>) {
    let queue = page.queue("training");
    let mut tasks = Vec::new();
    for letter in 0..count {
        let id = page.task(&format!("task {}", char::from(b'a' + letter)));
        page.call("tasks.enqueue", json!({"task": id, "queue": queue}));
        tasks.push(id);
    }
    page.at(&format!("queues/{queue}"));
    page.read("task a");
    (queue, tasks)
}

fn order(page: &Page, queue: &str, tasks: &[String]) -> String {
    let found = page.call("queues.get_by_id", json!({"queue": queue}));
    let letter = |entry: &Value| {
        tasks
            .iter()
            .position(|id| entry["task"] == json!(id))
            .map(|at| char::from(b'a' + u8::try_from(at).unwrap()))
            .unwrap()
    };
    found["queue"]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(letter)
        .collect()
}

/// The page shows an order before the server has it.
fn until_order(page: &Page, queue: &str, tasks: &[String], wanted: &str) {
    let until = Instant::now() + PATIENCE;
    let mut found = order(page, queue, tasks);
    while found != wanted && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(60));
        found = order(page, queue, tasks);
    }
    assert_eq!(found, wanted);
}

fn handle(id: &str) -> String {
    format!(".entry[data-id=\"{id}\"] .handle")
}

#[test]
fn entries_are_dragged_to_their_place() {
    let page = Page::open();
    let (queue, tasks) = queue_of(&page, 5);
    let to = |from: usize, below: usize, dy: f64| {
        let (start, (x, y)) = (
            page.middle(&handle(&tasks[from])),
            page.middle(&handle(&tasks[below])),
        );
        page.browser
            .drag(&[start, (start.0, f64::midpoint(start.1, y)), (x, y + dy)]);
    };
    to(0, 2, 6.0);
    page.all_read(
        ".entry .name",
        &["task b", "task c", "task a", "task d", "task e"],
    );
    until_order(&page, &queue, &tasks, "bcade");
    to(4, 1, -6.0);
    page.all_read(
        ".entry .name",
        &["task e", "task b", "task c", "task a", "task d"],
    );
    until_order(&page, &queue, &tasks, "ebcad");
    // Back where it was: nothing happens, and the entry keeps the focus.
    let start = page.middle(&handle(&tasks[2]));
    page.browser.drag(&[start, (start.0, start.1 + 8.0), start]);
    until_order(&page, &queue, &tasks, "ebcad");
    page.no_errors();
}

#[test]
fn a_drop_counts_from_where_the_entries_stand_by_then() {
    let page = Page::open();
    let (queue, tasks) = queue_of(&page, 4);
    // The page holds still while an entry is dragged; a worker takes the first meanwhile.
    let (start, (x, y)) = (
        page.middle(&handle(&tasks[3])),
        page.middle(&handle(&tasks[1])),
    );
    page.js("const real = window.fetch; window.fetch = (path, ...rest) => path.includes('queues.get_by_id') ? new Promise((go) => setTimeout(go, 600)).then(() => real(path, ...rest)) : real(path, ...rest)");
    page.browser
        .drag(&[start, (start.0, y + 30.0), (x, y + 6.0)]);
    page.call("queues.get_next_task", json!({"queue": queue}));
    page.all_read(".entry .name", &["task b", "task d", "task c"]);
    until_order(&page, &queue, &tasks, "bdc");
    page.no_errors();
}

#[test]
fn keys_move_the_entry_whose_handle_has_the_focus() {
    let page = Page::open();
    let (queue, tasks) = queue_of(&page, 4);
    page.js(&format!(
        "document.querySelector('{}').focus()",
        handle(&tasks[2]).replace('"', "\\\"").replace('\'', "\\'")
    ));
    for (key, wanted) in [
        (UP, "acbd"),
        (UP, "cabd"),
        (UP, "cabd"),
        (DOWN, "acbd"),
        (END, "abdc"),
        (HOME, "cabd"),
    ] {
        page.browser.press(&[ALT], &[key]);
        let names: Vec<String> = wanted
            .chars()
            .map(|letter| format!("task {letter}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        page.all_read(".entry .name", &names);
        until_order(&page, &queue, &tasks, wanted);
        page.wait(
            "the focus on the handle",
            "return document.activeElement.closest('.entry')?.dataset.id === arguments[0]",
            &[json!(tasks[2])],
        );
    }
    page.read("task c");
    assert!(
        page.js("return document.getElementById('spoken').textContent")
            .as_str()
            .unwrap()
            .contains("place 1")
    );
    page.keep("queue");
    page.no_errors();
}

#[test]
fn buttons_move_to_front_and_back_and_remove() {
    let page = Page::open();
    let (queue, tasks) = queue_of(&page, 3);
    page.press_button("Move task c to the front");
    page.all_read(".entry .name", &["task c", "task a", "task b"]);
    page.press_button("Move task a to the back");
    page.all_read(".entry .name", &["task c", "task b", "task a"]);
    page.press_button("Remove task b from the queue");
    page.all_read(".entry .name", &["task c", "task a"]);
    until_order(&page, &queue, &tasks, "ca");
    assert_eq!(page.status(&tasks[1]), "created");
    page.no_errors();
}

#[test]
fn queues_are_made_renamed_and_deleted_and_say_who_serves_them() {
    let page = Page::open();
    page.at("queues");
    page.press_button("New queue");
    page.fill("dialog [name=name]", "no");
    page.press_button("Create");
    page.wait(
        "the server's reason",
        "return document.querySelector('dialog .form-error')?.innerText.length > 3",
        &[],
    );
    page.fill("dialog [name=name]", "night shift");
    page.press_button("Create");
    page.reads(".queue-title", "night shift");
    page.read("No worker serves this queue now");
    let queue =
        page.call("queues.get_all", json!({"name": "^night shift$"}))["queues"][0]["id"].clone();
    page.call(
        "workers.register",
        json!({"worker": "yard:0", "queues": [queue]}),
    );
    page.read("Served by yard:0");
    page.press_button("Rename");
    page.fill("dialog [name=name]", "day shift");
    page.press_button("Rename");
    page.reads(".queue-title", "day shift");
    let id = page.task("left over");
    page.call("tasks.enqueue", json!({"task": id, "queue": queue}));
    page.read("left over");
    page.press_button("Delete");
    page.read("1 task waits in it");
    page.press_button("Delete");
    page.gone("day shift");
    assert_eq!(
        page.call("queues.get_all", json!({"id": [queue]}))["queues"],
        json!([])
    );
    page.no_errors();
}

#[test]
fn a_queue_with_a_thousand_entries_shows_the_first_and_more_on_demand() {
    let page = Page::open();
    let queue = page.queue("sweep");
    let tasks = page.server.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..700 {
            tasks.push(page.client.task(&format!("trial {number:03}")).await);
        }
        tasks
    });
    page.call("tasks.enqueue_many", json!({"ids": tasks, "queue": queue}));
    page.at(&format!("queues/{queue}"));
    page.read("700 tasks wait");
    assert_eq!(page.texts(".entry").len(), 100);
    page.press_button("Show more");
    page.read("trial 599");
    page.no_errors();
}
