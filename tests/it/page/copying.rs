//! What the page puts on the clipboard, and what it says where the browser does not let it.

use serde_json::{Value, json};

use super::world::Page;

/// Takes what the page copies, in place of the clipboard, for which a browser may ask whoever sits before it.
const CLIPBOARD: &str =
    "Object.defineProperty(navigator, 'clipboard', {configurable: true, value: {
    writeText: async (text) => { globalThis.copied = text; }}});";

/// As over plain HTTP: scripts have no clipboard, and what is selected can be copied or not.
fn without_clipboard(page: &Page, may_copy: bool) {
    page.browser.js(
        "Object.defineProperty(navigator, 'clipboard', {configurable: true, value: undefined});
         document.execCommand = (what) => {
             globalThis.copied = `${what}: ${document.activeElement.value}`;
             return arguments[0];
         };",
        &[json!(may_copy)],
    );
}

fn copied(page: &Page, text: &str) {
    page.wait(
        "what is copied",
        "return globalThis.copied === arguments[0]",
        &[json!(text)],
    );
}

fn plot(task: &str) -> (Value, String) {
    let figure = json!({"data": [{"type": "bar", "x": ["cat"], "y": [3]}], "layout": {}});
    let event = json!({"type": "plot", "task": task, "metric": "bars", "variant": "v", "iter": 1, "plot_str": figure.to_string()});
    (event, serde_json::to_string_pretty(&figure).unwrap())
}

#[test]
fn each_button_copies_what_it_names() {
    let page = Page::open();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let hash = "ab12cd34ef56ab12cd34ef56";
    let long = "width: 32\n".repeat(20_001);
    let diff = "diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+new\n";
    let script = json!({"repository": "https://git.example/lab/code.git", "version_num": commit, "entry_point": "train.py", "diff": diff,
        "requirements": {"pip": "torch==2.9.1\n", "org_pip": "torch\n"}});
    let id = page.made(
        "tasks.create",
        json!({"name": "copied", "type": "training", "script": script}),
    );
    page.call(
        "tasks.edit_configuration",
        json!({"task": id, "configuration": [{"name": "model", "value": long, "type": "yaml"}]}),
    );
    page.call(
        "tasks.add_or_update_artifacts",
        json!({"task": id, "artifacts": [
        {"key": "elsewhere", "type": "custom", "uri": "s3://bucket/key", "hash": hash}]}),
    );
    let (event, figure) = plot(&id);
    page.events(&[event]);
    page.js(CLIPBOARD);

    page.at(&format!("tasks/{id}"));
    page.click("[title='Copy id']");
    copied(&page, &id);
    page.read("Copied id.");
    page.at(&format!("tasks/{id}/execution"));
    page.click("[title='Copy the commit']");
    copied(&page, commit);
    page.press_button("Copy the changes");
    copied(&page, diff);
    page.press_button("Copy the packages");
    copied(&page, "torch==2.9.1\n");
    page.read("Copied the packages.");
    page.press_button("Copy the packages as first asked for");
    copied(&page, "torch\n");
    page.at(&format!("tasks/{id}/files"));
    page.click("[title='Copy the hash']");
    copied(&page, hash);
    page.press_button("Copy the address");
    copied(&page, "s3://bucket/key");
    page.at(&format!("tasks/{id}/parameters"));
    page.press_button("Copy the whole text");
    copied(&page, &long);
    page.at(&format!("tasks/{id}/plots"));
    page.press_button("JSON of bars / v");
    page.press_button("Copy");
    copied(&page, &figure);
    page.read("Copied the JSON of bars / v.");
    page.no_errors();
}

#[test]
fn copying_works_over_plain_http_and_a_refusal_is_told() {
    let page = Page::open();
    let id = page.task("copied");
    let (event, figure) = plot(&id);
    page.events(&[event]);
    page.at(&format!("tasks/{id}"));
    page.reads(".title h1", "copied");

    without_clipboard(&page, false);
    page.click("[title='Copy id']");
    page.read("Could not copy id: the browser does not allow it");
    assert!(
        !page.text("#messages").contains("Copied"),
        "it says both that it has copied and that it could not"
    );
    // An error stays until somebody has read it.
    page.press_button("Dismiss");
    page.gone("Could not copy id");

    without_clipboard(&page, true);
    page.click("[title='Copy id']");
    copied(&page, &format!("copy: {id}"));
    page.read("Copied id.");
    assert_eq!(
        page.js("return document.activeElement.title"),
        "Copy id",
        "the button must keep the focus"
    );
    page.at(&format!("tasks/{id}/plots"));
    page.press_button("JSON of bars / v");
    page.press_button("Copy");
    copied(&page, &format!("copy: {figure}"));
    page.no_errors();
}
