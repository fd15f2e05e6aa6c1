//! What the list of tasks is narrowed and ordered by: its choices, states, columns and pages.

use std::time::{Duration, Instant};

use serde_json::json;
use trainyard::server::accounts::{self, Role};

use super::world::{PATIENCE, Page};
use crate::server_world::Client;

/// Calls the API as a new user of this name.
fn user(page: &Page, name: &str) -> Client {
    let pair = accounts::add(page.server.data.path(), name, Role::User, None).unwrap();
    let client = Client::by_keys(&page.server.url, (pair.access_key, pair.secret_key));
    // The server looks for new users every few seconds.
    let until = Instant::now() + PATIENCE;
    let me = "users.get_current_user";
    while page.server.block_on(client.raw(me, json!({}))).0 != 200 {
        assert!(Instant::now() < until, "{name} is not known");
        std::thread::sleep(Duration::from_millis(100));
    }
    client
}

const NAMES: &str = ".list tbody .name";

#[test]
fn project_tag_and_user_narrow_the_list() {
    let page = Page::open();
    let ada = user(&page, "ada");
    page.server.block_on(ada.task("of ada"));
    page.task("plain");
    for (task, project) in [("seen", "vision"), ("seen below", "vision/cars")] {
        let project = page.made("projects.create", json!({"name": project}));
        let change = json!({"task": page.task(task), "project": project});
        page.call("tasks.update", change);
    }
    let tagged = json!({"task": page.task("tagged"), "tags": ["paper"]});
    page.call("tasks.update", tagged);
    page.at("tasks?order=name");
    let all = ["of ada", "plain", "seen", "seen below", "tagged"];
    page.all_read(NAMES, &all);

    page.pick("Project", "vision");
    page.all_read(NAMES, &["seen", "seen below"]);
    page.pick("Project", "vision/cars");
    page.all_read(NAMES, &["seen below"]);
    page.pick("Project", "All projects");
    page.pick("Tag", "paper");
    page.all_read(NAMES, &["tagged"]);
    page.pick("Tag", "All tags");
    page.pick("User", "ada");
    page.all_read(NAMES, &["of ada"]);
    page.press_button("Clear filters");
    page.all_read(NAMES, &all);
    page.wait(
        "selects without a choice",
        "return [...document.querySelectorAll('.filters select')].every((one) => one.value === '')",
        &[],
    );

    // A row's project is a link to its tasks; the address says so, and the choice shows it.
    page.press_button("vision/cars");
    page.all_read(NAMES, &["seen below"]);
    page.wait(
        "the project as the choice",
        "return document.querySelector('select[aria-label=Project]').selectedOptions[0].text === 'vision/cars'",
        &[],
    );
    page.no_errors();
}

#[test]
fn each_state_narrows_the_list() {
    let page = Page::open();
    let states = [
        "created",
        "queued",
        "in_progress",
        "stopped",
        "failed",
        "completed",
    ];
    for state in states {
        page.task_in(state, state);
    }
    let published = page.task_in("published", "completed");
    page.call("tasks.publish", json!({"task": published}));
    page.read("in_progress");
    let only = |chip: &str, state: &str| {
        page.press_button(chip);
        page.all_read(NAMES, &[state]);
        page.press_button(chip);
    };
    only("Draft", "created");
    only("Queued", "queued");
    only("Running", "in_progress");
    only("Aborted", "stopped");
    only("Failed", "failed");
    only("Completed", "completed");
    only("Published", "published");
    page.press_button("Draft");
    page.press_button("Failed");
    page.wait(
        "drafts and failed tasks",
        "return document.querySelectorAll('.list tbody .name').length === 2",
        &[],
    );
    page.no_errors();
}

/// Presses the title of a column: the list is in that order, and the title keeps the focus.
fn sorts_by(page: &Page, column: &str, way: &str) {
    page.press_button(column);
    page.wait(
        &format!("the order by {column}, {way}"),
        "const head = document.activeElement?.closest('th');
         return head?.innerText.trim() === arguments[0] && head.getAttribute('aria-sort') === arguments[1]",
        &[json!(column), json!(way)],
    );
}

#[test]
fn each_column_sorts_the_list() {
    let page = Page::open();
    // In each column that is looked at, the order is another.
    for (name, iteration) in [("bbb", 30), ("aaa", 20), ("ccc", 10)] {
        let id = page.task_in(name, "in_progress");
        let event = json!({"type": "training_stats_scalar", "task": id, "metric": "loss", "variant": "v", "iter": iteration, "value": 1});
        page.events(&[event]);
    }
    page.read("30");
    sorts_by(&page, "Task", "ascending");
    page.all_read(NAMES, &["aaa", "bbb", "ccc"]);
    sorts_by(&page, "Task", "descending");
    page.all_read(NAMES, &["ccc", "bbb", "aaa"]);
    sorts_by(&page, "Iteration", "descending");
    page.all_read(NAMES, &["bbb", "aaa", "ccc"]);
    sorts_by(&page, "Started", "descending");
    page.all_read(NAMES, &["ccc", "aaa", "bbb"]);
    sorts_by(&page, "State", "ascending");
    sorts_by(&page, "User", "ascending");
    sorts_by(&page, "Ran", "descending");
    sorts_by(&page, "Updated", "descending");
    page.no_errors();
}

#[test]
fn a_column_of_a_metric_is_added_and_removed() {
    let page = Page::open();
    page.press_button("Metric");
    page.read("There is no task to take metrics from.");
    let id = page.task_in("measured", "in_progress");
    page.events(&[json!({"type": "training_stats_scalar", "task": id, "metric": "loss", "variant": "val", "iter": 1, "value": 0.25})]);
    page.reads(".list tbody .name", "measured");
    page.press_button("Metric");
    page.press_button("loss / val");
    page.reads(".list tbody .c-metric", "0.25");
    page.press_button("Metric");
    page.read("The tasks shown have no further metrics.");
    page.press_button("Remove the column loss / val");
    page.wait(
        "the column's end",
        "return !document.querySelector('.c-metric') && !location.hash.includes('metric')",
        &[],
    );
    page.no_errors();
}

#[test]
fn pages_are_turned_back_and_the_list_is_found_again_from_beyond_its_end() {
    let page = Page::open();
    page.server.block_on(async {
        for number in 0..60 {
            page.client.task(&format!("task {number:03}")).await;
        }
    });
    page.at("tasks?order=name&page=2");
    page.read("51–60 of 60");
    page.press_button("Previous page");
    page.read("task 000");
    page.gone("task 059");
    // The button that can do no more keeps the focus.
    let focused = "const one = document.activeElement; return one.getAttribute('aria-label') === 'Previous page' && one.getAttribute('aria-disabled') === 'true'";
    page.wait("the focus on the button", focused, &[]);

    page.at("tasks?order=name&search=task&page=9");
    page.read("The list ends before this page");
    page.press_button("First page");
    page.read("task 000");
    assert_eq!(page.texts(NAMES).len(), 50);
    page.no_errors();
}

#[test]
fn tasks_are_chosen_by_their_boxes_all_at_once_and_by_key() {
    let page = Page::open();
    page.task("first");
    page.task("second");
    page.at("tasks?order=name");
    page.all_read(NAMES, &["first", "second"]);
    page.click("[aria-label='Choose second']");
    page.read("1 task chosen");
    page.press_button("Choose none");
    page.gone("1 task chosen");
    assert_eq!(
        page.js("return document.querySelectorAll('.list input:checked').length"),
        0
    );

    page.click("[aria-label='Choose all on this page']");
    page.read("2 tasks chosen");
    page.click("[aria-label='Choose all on this page']");
    page.gone("2 tasks chosen");

    // Down, down, up: the first of them.
    page.browser.press(&[], &["j", "j", "k", "x"]);
    page.read("1 task chosen");
    assert_eq!(
        page.js("return document.querySelector('.list tbody tr input').checked"),
        true
    );
    page.no_errors();
}
