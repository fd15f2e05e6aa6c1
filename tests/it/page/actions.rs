//! What one can do with a task: each is clicked, and the API asked whether it came about.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use trainyard::server::Options;

use super::world::{PATIENCE, Page};
use crate::server_world::InProcess;

#[test]
fn a_draft_is_enqueued_into_the_chosen_queue_in_front_and_taken_out_again() {
    let page = Page::open();
    let queue = page.queue("night shift");
    let first = page.task("first in line");
    page.call("tasks.enqueue", json!({"task": first, "queue": queue}));
    let id = page.task("to be run");
    page.at(&format!("tasks/{id}"));
    page.reads(".title .state", "Draft");
    page.press_button("Enqueue");
    page.pick("queue", "night shift");
    page.click("dialog [name=front]");
    page.press_button("Enqueue");
    page.reads(".title .state", "Queued");
    let entries =
        page.call("queues.get_by_id", json!({"queue": queue}))["queue"]["entries"].clone();
    assert_eq!(
        (&entries[0]["task"], &entries[1]["task"]),
        (&json!(id), &json!(first))
    );

    page.press_menu("Dequeue");
    page.reads(".title .state", "Draft");
    assert_eq!(page.status(&id), "created");
    page.no_errors();
}

#[test]
fn a_waiting_task_moves_to_another_queue() {
    let page = Page::open();
    let queue = page.queue("night shift");
    let id = page.task_in("waits", "queued");
    page.at(&format!("tasks/{id}"));
    page.reads(".title .state", "Queued");
    // Messages go after six seconds, which may be short for who has to follow their link.
    page.js("const real = window.setTimeout; window.setTimeout = (act, wait, ...rest) => real(act, wait === 6000 ? 600000 : wait, ...rest)");
    page.press_menu("Move to another queue");
    page.pick("queue", "night shift");
    page.press_button("Enqueue");
    page.read("“waits” waits in “night shift”.");
    let entries = |queue: &str| {
        let found = page.call("queues.get_by_id", json!({"queue": queue}));
        let entries = found["queue"]["entries"].as_array().unwrap().clone();
        let tasks = entries.iter().map(|entry| entry["task"].clone());
        tasks.collect::<Vec<_>>()
    };
    let default = page.call("queues.get_default", json!({}))["id"].clone();
    assert_eq!(entries(&queue), [json!(id)]);
    assert!(entries(default.as_str().unwrap()).is_empty());
    assert_eq!(page.status(&id), "queued");

    page.press_button("Open queue");
    page.reads(".queue-title", "night shift");
    page.all_read(".entry .name", &["waits"]);
    page.gone("“waits” waits in “night shift”.");
    page.no_errors();
}

#[test]
fn a_clone_is_a_draft_with_the_same_parameters() {
    let page = Page::open();
    let id = page.task_in("original", "completed");
    page.at(&format!("tasks/{id}"));
    page.press_button("Clone");
    page.fill("dialog [name=name]", "second try");
    page.fill("dialog [name=comment]", "with more data");
    page.press_button("Clone");
    page.reads(".title h1", "second try");
    page.reads(".title .state", "Draft");
    let copy = page.call(
        "tasks.get_all",
        json!({"name": "^second try$", "only_fields": ["id", "parent", "hyperparams", "status", "comment"]}),
    )["tasks"][0]
        .clone();
    assert_eq!(
        (&copy["parent"], &copy["status"]),
        (&json!(id), &json!("created"))
    );
    assert_eq!(copy["hyperparams"]["Args"]["lr"]["value"], "0.1");
    assert_eq!(copy["comment"], "with more data");
    page.no_errors();
}

#[test]
fn abort_stops_what_waits_at_once_and_tells_a_live_worker_to_stop() {
    let page = Page::open();
    let waiting = page.task_in("waits", "queued");
    page.at(&format!("tasks/{waiting}"));
    page.press_button("Abort");
    page.press_button("Abort");
    page.reads(".title .state", "Aborted");
    assert_eq!(page.status(&waiting), "stopped");

    let running = page.task_in("runs", "in_progress");
    page.call(
        "workers.status_report",
        json!({"worker": "w:0", "timestamp": 1, "task": running}),
    );
    page.at(&format!("tasks/{running}"));
    page.reads(".title .state", "Running");
    page.press_button("Abort");
    page.press_button("Abort");
    page.reads(".title .state", "Stopping");
    page.call("tasks.stopped", json!({"task": running}));
    page.reads(".title .state", "Aborted");
    page.no_errors();
}

#[test]
fn reset_asks_first_and_takes_the_log_away() {
    let page = Page::open();
    let id = page.task_in("failed run", "failed");
    page.events(&[json!({"type": "log", "task": id, "msg": "Traceback"})]);
    page.at(&format!("tasks/{id}"));
    page.read("exit code 3");
    page.press_menu("Reset");
    page.press_button("Cancel");
    assert_eq!(page.status(&id), "failed");
    page.press_menu("Reset");
    page.press_button("Reset");
    page.reads(".title .state", "Draft");
    page.at(&format!("tasks/{id}/log"));
    page.read("No output yet");
    page.no_errors();
}

#[test]
fn archived_tasks_leave_the_list_and_come_back() {
    let page = Page::open();
    let id = page.task_in("old run", "completed");
    page.at(&format!("tasks/{id}"));
    page.press_menu("Archive");
    page.read("is archived");
    page.at("tasks");
    page.read("No tasks yet");
    page.press_button("Archived");
    page.read("old run");
    page.at(&format!("tasks/{id}"));
    page.press_menu("Take out of the archive");
    page.wait(
        "the tag's end",
        "return document.querySelector('.task-head') !== null",
        &[],
    );
    page.at("tasks");
    page.read("old run");
    page.no_errors();
}

/// A task that has left an artifact: its id, and the file's place on the server.
fn with_file(page: &Page, name: &str) -> (String, String) {
    let id = page.task_in(name, "in_progress");
    let place = format!("p/{name}.{id}/artifacts/a/a.txt");
    let address = page.upload(&place, b"content");
    page.call(
        "tasks.add_or_update_artifacts",
        json!({"task": id, "artifacts": [{"key": "a", "type": "custom", "uri": address}]}),
    );
    page.call("tasks.completed", json!({"task": id}));
    (id, format!("files/{place}"))
}

/// With which status the server answers who asks for a file.
fn answer(page: &Page, file: &str) -> u16 {
    let request = page.client.request(Method::GET, file);
    page.server
        .block_on(async { request.send().await.unwrap().status().as_u16() })
}

#[test]
fn delete_takes_the_task_and_its_files() {
    let page = Page::open();
    let (id, file) = with_file(&page, "short-lived");
    page.at(&format!("tasks/{id}"));
    page.press_menu("Delete");
    page.read("This cannot be undone.");
    page.press_button("Delete");
    page.read("Deleted “short-lived” and 1 file.");
    page.see(".filters");
    assert_eq!(
        page.call("tasks.get_all", json!({"id": [id]}))["tasks"],
        json!([])
    );
    assert_eq!(answer(&page, &file), 404);
    page.no_errors();
}

#[test]
fn delete_leaves_the_files_where_that_is_unticked() {
    // The server takes what went with a task away by itself: here at its next look.
    let page = Page::open_on(InProcess::with(|data| Options {
        linger: Duration::ZERO,
        ..Options::new(data)
    }));
    let (id, kept) = with_file(&page, "short-lived");
    page.at(&format!("tasks/{id}"));
    page.press_menu("Delete");
    page.click("dialog [name=files]");
    page.press_button("Delete");
    page.read("Deleted “short-lived”.");
    page.see(".filters");
    assert_eq!(
        page.call("tasks.get_all", json!({"id": [id]}))["tasks"],
        json!([])
    );
    // A look that took another task's file away has passed over this one's.
    let (other, gone) = with_file(&page, "another");
    page.call("tasks.delete", json!({"task": other, "force": true}));
    let until = Instant::now() + PATIENCE;
    while answer(&page, &gone) != 404 {
        assert!(Instant::now() < until, "{gone} is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(answer(&page, &kept), 200);
    page.no_errors();
}

#[test]
fn publish_and_rename_reach_the_server() {
    let page = Page::open();
    let id = page.task_in("good run", "completed");
    page.at(&format!("tasks/{id}"));
    page.press_menu("Rename");
    page.fill("dialog [name=name]", "x");
    page.press_button("Rename");
    page.wait(
        "the server's refusal",
        "return document.querySelector('dialog .form-error')?.innerText.trim().length > 3",
        &[],
    );
    page.fill("dialog [name=name]", "very good run");
    page.press_button("Rename");
    page.reads(".title h1", "very good run");
    page.press_menu("Publish");
    page.press_button("Publish");
    page.reads(".title .state", "Published");
    assert_eq!(page.status(&id), "published");
    page.no_errors();
}
