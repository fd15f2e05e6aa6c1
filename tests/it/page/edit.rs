//! Changing a draft: parameters, configuration, container, source, notes; and what may not be changed says so.

use serde_json::{Value, json};

use super::world::Page;

fn found(page: &Page, id: &str) -> Value {
    page.call("tasks.get_by_id", json!({"task": id}))["task"].take()
}

#[test]
fn parameters_of_a_draft_are_changed_added_and_removed() {
    let page = Page::open();
    let id = page.task("draft");
    page.at(&format!("tasks/{id}/parameters"));
    page.click("[data-parameter=\"Args/lr\"]");
    page.fill("dialog [name=value]", "0.25");
    page.press_button("Save");
    page.reads("[data-parameter=\"Args/lr\"]", "0.25");
    page.press_button("Add parameter");
    page.fill("dialog [name=name]", "seed");
    page.fill("dialog [name=value]", "7");
    page.press_button("Add");
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
    page.keep("parameters");
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
    page.press_button("Add parameter");
    page.fill("dialog [name=name]", "verdict");
    page.fill("dialog [name=value]", "keep");
    page.press_button("Add");
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
    page.press_button("Edit: Container");
    page.fill("dialog [name=image]", "registry.example/torch:2");
    page.press_button("Save");
    page.read("registry.example/torch:2");
    page.press_button("Edit: Source");
    page.fill("dialog [name=branch]", "feature/wide");
    page.press_button("Save");
    page.read("feature/wide");
    page.press_button("Edit: Packages");
    page.fill("dialog [name=pip]", "torch==2.10.0");
    page.press_button("Save");
    page.read("torch==2.10.0");
    page.at(&format!("tasks/{id}/parameters"));
    page.press_button("Edit the configuration model");
    page.fill("dialog [name=value]", "width: 64");
    page.press_button("Save");
    page.read("width: 64");
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
    page.press_button("Edit the comment");
    page.fill("dialog textarea", "best of the week");
    page.press_button("Save");
    page.read("best of the week");
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
