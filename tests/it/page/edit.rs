//! Changing a draft: parameters, configuration, container, source, notes; and what may not be changed says so.

use serde_json::{Value, json};

use super::world::Page;

fn found(page: &Page, id: &str) -> Value {
    page.call("tasks.get_by_id", json!({"task": id}))["task"].take()
}

/// Changes a field in the dialog that a button opens; the view then tells it.
fn change(page: &Page, button: &str, field: &str, text: &str) {
    page.press_button(button);
    page.fill(&format!("dialog {field}"), text);
    page.press_button("Save");
    page.read(text);
}

fn add_parameter(page: &Page, name: &str, value: &str) {
    page.press_button("Add parameter");
    page.fill("dialog [name=name]", name);
    page.fill("dialog [name=value]", value);
    page.press_button("Add");
}

#[test]
fn parameters_of_a_draft_are_changed_added_and_removed() {
    let page = Page::open();
    let id = page.task("draft");
    page.at(&format!("tasks/{id}/parameters"));
    page.click("[title='Edit lr']");
    page.fill("dialog [name=value]", "0.25");
    page.press_button("Save");
    page.reads("[data-parameter=\"Args/lr\"]", "0.25");
    add_parameter(&page, "seed", "7");
    page.reads("[data-parameter=\"Args/seed\"]", "7");
    page.press_button("Remove epochs");
    page.read("Removed epochs.");
    let args = found(&page, &id)["hyperparams"]["Args"].clone();
    assert_eq!(
        (
            &args["lr"]["value"],
            &args["seed"]["value"],
            &args["epochs"]
        ),
        (&json!("0.25"), &json!("7"), &Value::Null)
    );
    assert_eq!(args["lr"]["type"], "float", "an edit must keep the type");
    page.press_button("Add parameter");
    page.pick("section", "General");
    page.fill("dialog [name=name]", "note");
    page.fill("dialog [name=value]", "first");
    page.press_button("Add");
    page.reads("[data-parameter=\"General/note\"]", "first");
    page.keep("parameters");
    page.fill("[aria-label='Filter parameters']", "SEED");
    let names = "return JSON.stringify([...document.querySelectorAll('[data-parameter]')].map((one) => one.dataset.parameter))";
    page.wait(
        "what holds the word",
        &format!("{names} === '[\"Args/seed\"]'"),
        &[],
    );
    page.no_errors();
}

#[test]
fn parameters_of_a_run_are_read_only_but_for_user_properties() {
    let page = Page::open();
    let id = page.task_in("has run", "completed");
    page.at(&format!("tasks/{id}/parameters"));
    page.read("Read only");
    assert_eq!(
        page.js("return document.querySelectorAll('.editable').length"),
        0
    );
    add_parameter(&page, "verdict", "keep");
    page.reads("[data-parameter=\"properties/verdict\"]", "keep");
    assert_eq!(
        found(&page, &id)["hyperparams"]["properties"]["verdict"]["value"],
        "keep"
    );
    page.no_errors();
}

#[test]
fn container_source_packages_and_configuration_of_a_draft_are_changed() {
    let page = Page::open();
    let id = page.task("draft");
    page.call("tasks.edit_configuration", json!({"task": id, "configuration": [{"name": "model", "value": "width: 32", "type": "yaml"}]}));
    page.at(&format!("tasks/{id}/execution"));
    change(
        &page,
        "Edit: Container",
        "[name=image]",
        "registry.example/torch:2",
    );
    change(&page, "Edit: Source", "[name=branch]", "feature/wide");
    change(&page, "Edit: Packages", "[name=pip]", "torch==2.10.0");
    page.at(&format!("tasks/{id}/parameters"));
    change(
        &page,
        "Edit the configuration model",
        "[name=value]",
        "width: 64",
    );
    let task = found(&page, &id);
    assert_eq!(task["container"]["image"], "registry.example/torch:2");
    assert_eq!(
        (&task["script"]["branch"], &task["script"]["entry_point"]),
        (&json!("feature/wide"), &json!("train.py"))
    );
    assert_eq!(task["script"]["requirements"]["pip"], "torch==2.10.0");
    assert_eq!(
        (
            &task["configuration"]["model"]["value"],
            &task["configuration"]["model"]["type"]
        ),
        (&json!("width: 64"), &json!("yaml"))
    );
    page.no_errors();
}

#[test]
fn comment_and_tags_are_kept() {
    let page = Page::open();
    let id = page.task_in("noted", "completed");
    page.at(&format!("tasks/{id}"));
    change(
        &page,
        "Edit the comment",
        "[name=comment]",
        "best of the week",
    );
    page.press_button("Tag");
    page.fill("dialog [name=tag]", "paper");
    page.press_button("Add");
    page.wait("the tag", "return [...document.querySelectorAll('.tag')].some((one) => one.innerText.trim() === 'paper')", &[]);
    let task = found(&page, &id);
    assert_eq!(
        (&task["comment"], &task["tags"]),
        (&json!("best of the week"), &json!(["paper"]))
    );
    page.press_button("Remove the tag paper");
    page.wait(
        "the tag's end",
        "return !document.querySelector('.tag')",
        &[],
    );
    page.no_errors();
}
