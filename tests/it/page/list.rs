//! The list of tasks: search, filters, order, pages, live changes, and what is done to several at once.

use serde_json::json;

use super::world::Page;

#[test]
fn search_state_and_order_narrow_the_list_and_stand_in_the_address() {
    let page = Page::open();
    for (name, state) in [
        ("alpha one", "completed"),
        ("beta two", "failed"),
        ("alpha three", "created"),
        ("100% [odd] (name)", "stopped"),
    ] {
        page.task_in(name, state);
    }
    page.js("location.reload()");
    page.click(".list th.c-name .sort");
    page.all_read(
        ".list tbody .name",
        &["100% [odd] (name)", "alpha one", "alpha three", "beta two"],
    );
    page.fill("[aria-label='Search tasks']", "alpha");
    page.all_read(".list tbody .name", &["alpha one", "alpha three"]);
    page.press_button("Completed");
    page.all_read(".list tbody .name", &["alpha one"]);
    let address = page.js("return location.hash").as_str().unwrap().to_owned();
    assert!(
        address.contains("search=alpha")
            && address.contains("status=completed")
            && address.contains("order=name"),
        "{address}"
    );

    // The address alone brings the same list back, and a search is words, not a pattern.
    page.js("location.reload()");
    page.all_read(".list tbody .name", &["alpha one"]);
    page.press_button("Clear filters");
    page.fill(".filters .search", "[odd] (");
    page.all_read(".list tbody .name", &["100% [odd] (name)"]);
    page.fill(".filters .search", "nothing like this");
    page.read("No task fits the search and filters.");
    page.no_errors();
}

#[test]
fn a_change_on_the_server_appears_without_drawing_the_row_anew() {
    let page = Page::open();
    let id = page.task("watched");
    page.reads(".list tbody .state", "Draft");
    page.js("const row = document.querySelector('.list tbody tr'); row.marked = true; row.querySelector('.name').focus()");
    page.call("tasks.started", json!({"task": id}));
    page.reads(".list tbody .state", "Running");
    let second = page.task("newcomer");
    page.read("newcomer");
    let kept = page.js("return document.querySelector('tr[data-id=\"' + document.activeElement.closest('tr').dataset.id + '\"]').marked === true");
    assert_eq!(kept, true, "the row was drawn anew");
    page.call("tasks.delete", json!({"task": second, "force": true}));
    page.gone("newcomer");
    page.no_errors();
}

#[test]
fn long_lists_come_in_pages() {
    let page = Page::open();
    page.server.block_on(async {
        for number in 0..120 {
            page.client
                .call(
                    "tasks.create",
                    json!({"name": format!("task {number:03}"), "type": "testing"}),
                )
                .await;
        }
    });
    page.at("tasks?order=name");
    page.read("task 049");
    assert_eq!(page.texts(".list tbody .name").len(), 50);
    page.browser.press(&[], &["]"]);
    page.read("task 050");
    page.gone("task 049");
    page.press_button("Next page");
    page.read("task 119");
    assert_eq!(page.texts(".list tbody .name").len(), 20);
    page.read("101–120 of 120");
    page.browser.press(&[], &["["]);
    page.read("task 050");
    page.no_errors();
}

#[test]
fn several_tasks_are_chosen_and_acted_on_at_once_and_refusals_are_told() {
    let page = Page::open();
    let running = page.task_in("one that runs", "in_progress");
    let waiting = page.task_in("one that waits", "queued");
    let done = page.task_in("one that is done", "completed");
    page.read("one that is done");
    for id in [&running, &waiting] {
        page.click(&format!("tr[data-id=\"{id}\"] input"));
    }
    page.read("2 tasks chosen");
    page.click(".selection .button:has(.icon-stop)");
    page.press_button("Abort");
    page.gone("2 tasks chosen");
    assert_eq!(
        (page.status(&running), page.status(&waiting)),
        ("stopped".into(), "stopped".into())
    );

    // Between choosing and confirming another one publishes the task: the server's reason is shown, in the dialog.
    page.click(&format!("tr[data-id=\"{done}\"] input"));
    page.click(".selection .button:has(.icon-reset)");
    page.see("dialog h2");
    page.call("tasks.publish", json!({"task": done}));
    page.press_button("Reset");
    page.wait("the server's reason", "return document.querySelector('dialog .form-error')?.innerText.includes('one that is done')", &[]);
    page.press_button("Cancel");
    assert_eq!(page.status(&done), "published");
    page.no_errors();
}

/// Ticks two tasks and presses the button with this picture in the bar of what is chosen.
fn choose_and_press(page: &Page, ids: &[String; 2], picture: &str) {
    for id in ids {
        page.click(&format!("tr[data-id=\"{id}\"] input"));
    }
    page.read("2 tasks chosen");
    page.click(&format!(".selection .button:has(.icon-{picture})"));
}

#[test]
fn two_chosen_drafts_go_into_a_queue_and_out_of_it() {
    let page = Page::open();
    let ids = ["one draft", "another draft"].map(|name| page.task(name));
    let queue = page.call("queues.get_default", json!({}))["id"].clone();
    let entries = || {
        let found = page.call("queues.get_by_id", json!({"queue": queue}));
        let entries = found["queue"]["entries"].as_array().unwrap().clone();
        let mut tasks: Vec<String> = entries
            .iter()
            .map(|entry| entry["task"].as_str().unwrap().to_owned())
            .collect();
        tasks.sort();
        tasks
    };
    page.all_read(".list tbody .state", &["Draft", "Draft"]);
    choose_and_press(&page, &ids, "play");
    page.see("dialog select");
    page.press_button("Enqueue");
    page.gone("2 tasks chosen");
    page.all_read(".list tbody .state", &["Queued", "Queued"]);
    let mut both = ids.to_vec();
    both.sort();
    assert_eq!(entries(), both);

    choose_and_press(&page, &ids, "queue");
    page.gone("2 tasks chosen");
    page.all_read(".list tbody .state", &["Draft", "Draft"]);
    assert_eq!(ids.each_ref().map(|id| page.status(id)), ["created"; 2]);
    assert!(entries().is_empty());
    page.no_errors();
}

#[test]
fn two_chosen_tasks_are_published_archived_and_deleted() {
    let page = Page::open();
    let ids = ["good run", "better run"].map(|name| page.task_in(name, "completed"));
    page.all_read(".list tbody .state", &["Completed", "Completed"]);
    choose_and_press(&page, &ids, "check");
    page.see("dialog h2");
    page.press_button("Publish");
    page.gone("2 tasks chosen");
    page.all_read(".list tbody .state", &["Published", "Published"]);
    assert_eq!(ids.each_ref().map(|id| page.status(id)), ["published"; 2]);

    choose_and_press(&page, &ids, "box");
    page.read("No tasks yet");
    let ask = json!({"id": ids, "only_fields": ["system_tags"], "system_tags": ["archived"]});
    let archived = page.call("tasks.get_all", ask)["tasks"].clone();
    assert_eq!(archived.as_array().unwrap().len(), 2, "{archived}");

    page.press_button("Archived");
    page.all_read(".list tbody .state", &["Published", "Published"]);
    choose_and_press(&page, &ids, "trash");
    page.see("dialog h2");
    page.read("running or published, and deleted all the same");
    page.press_button("Delete");
    page.read("Deleted 2 tasks.");
    page.read("No task fits the search and filters.");
    let left = page.call("tasks.get_all", json!({"id": ids}))["tasks"].clone();
    assert_eq!(left, json!([]));
    page.no_errors();
}

#[test]
fn two_chosen_tasks_are_reset() {
    let page = Page::open();
    let ids = ["failed run", "another one"].map(|name| page.task_in(name, "failed"));
    for id in &ids {
        page.events(&[json!({"type": "log", "task": id, "msg": "Traceback"})]);
    }
    page.all_read(".list tbody .state", &["Failed", "Failed"]);
    choose_and_press(&page, &ids, "reset");
    page.read("They become drafts again.");
    page.press_button("Reset");
    page.gone("2 tasks chosen");
    page.all_read(".list tbody .state", &["Draft", "Draft"]);
    for id in &ids {
        assert_eq!(page.status(id), "created");
        let log = page.call("events.get_task_log", json!({"task": id}));
        assert_eq!(log["total"], 0, "{log}");
    }
    page.no_errors();
}

#[test]
fn two_chosen_tasks_are_taken_out_of_the_archive() {
    let page = Page::open();
    let ids = ["old run", "older run"].map(|name| page.task(name));
    page.call("tasks.archive_many", json!({"ids": ids}));
    page.press_button("Archived");
    page.all_read(".list tbody .state", &["Draft", "Draft"]);
    choose_and_press(&page, &ids, "box");
    page.read("No task fits the search and filters.");
    page.press_button("Clear filters");
    page.all_read(".list tbody .state", &["Draft", "Draft"]);
    let ask = json!({"id": ids, "only_fields": ["id"], "system_tags": ["-archived"]});
    let back = page.call("tasks.get_all", ask)["tasks"].clone();
    assert_eq!(back.as_array().unwrap().len(), 2, "{back}");
    page.no_errors();
}

#[test]
fn metrics_become_columns_and_chosen_tasks_are_compared() {
    let page = Page::open();
    let mut ids = Vec::new();
    for (name, last) in [("worse", 0.75), ("better", 0.25)] {
        let id = page.task_in(name, "in_progress");
        let events: Vec<_> = (0..20).map(|at| json!({"type": "training_stats_scalar", "task": id, "metric": "loss", "variant": "val", "iter": at, "value": last + f64::from(19 - at)})).collect();
        page.events(&events);
        ids.push(id);
    }
    page.call("tasks.edit_hyper_params", json!({"task": ids[1], "force": true, "hyperparams": [{"section": "Args", "name": "lr", "value": "0.5"}]}));
    page.read("better");
    page.press_button("Metric");
    page.press_button("loss / val");
    page.read("loss / val");
    page.read("0.25");
    page.click("th.c-metric .sort");
    page.all_read(".list tbody .name", &["worse", "better"]);
    page.click("th.c-metric .sort");
    page.all_read(".list tbody .name", &["better", "worse"]);

    page.click("thead input[type=checkbox]");
    page.press_button("Compare");
    page.read("Parameters that differ");
    page.read("Args / lr");
    page.wait(
        "two curves",
        "return document.querySelectorAll('.chart path.line[d^=M]').length === 2",
        &[],
    );
    assert!(
        !page.text(".compare .card").contains("epochs"),
        "a parameter that is the same"
    );
    page.keep("compare");
    page.no_errors();
}
