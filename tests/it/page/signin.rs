//! Who may see the page's data: signing in, going to a link, other tabs, signing out.

use serde_json::json;

use super::world::Page;
use crate::server_world::keys;

#[test]
fn wrong_keys_are_refused_with_a_sentence_and_right_ones_open_the_list() {
    let page = Page::closed();
    let (key, secret) = keys(page.server.data.path());
    page.press_button("Sign in");
    page.read("Enter your access key.");
    page.sign_in(&key, "wrong");
    page.read("Access key and secret do not match.");
    page.sign_in(&key, &secret);
    page.read("No tasks yet");
    page.no_errors();
}

#[test]
fn the_address_that_the_sdk_prints_leads_to_the_task_after_signing_in() {
    let page = Page::closed();
    let id = page.task("printed address");
    page.events(&[json!({"type": "log", "task": id, "msg": "hello from the run"})]);
    page.load(&format!(
        "{}/projects/any/experiments/{id}/output/log",
        page.server.url
    ));
    let (key, secret) = keys(page.server.data.path());
    page.sign_in(&key, &secret);
    page.read("hello from the run");
    assert!(
        page.js("return location.hash")
            .as_str()
            .unwrap()
            .ends_with(&format!("{id}/log"))
    );
    page.no_errors();
}

#[test]
fn another_tab_is_signed_in_too_and_signing_out_ends_the_session_everywhere() {
    let page = Page::open();
    let token = page.js("return sessionStorage.getItem('trainyard.token')");
    assert!(
        page.js("return localStorage.getItem('trainyard.token')")
            .is_null()
    );
    let first = page.browser.get("/window");
    let second = page.browser.post("/window/new", &json!({"type": "tab"}));
    page.browser
        .post("/window", &json!({"handle": second["handle"]}));
    page.load(&page.server.url);
    page.see(".filters");

    page.press_button("Sign out");
    page.see("form.signin");
    page.browser.post("/window", &json!({"handle": first}));
    page.see("form.signin");
    assert!(
        page.js("return sessionStorage.getItem('trainyard.token')")
            .is_null()
    );
    let answer = page.server.block_on(async {
        let http = reqwest::Client::new().post(format!("{}/tasks.get_all", page.server.url));
        http.bearer_auth(token.as_str().unwrap())
            .json(&json!({}))
            .send()
            .await
            .unwrap()
            .status()
    });
    assert_eq!(answer, 401);
}

#[test]
fn who_stays_signed_in_is_known_to_a_new_tab_when_no_other_is_open() {
    let page = Page::closed();
    let (key, secret) = keys(page.server.data.path());
    page.click("[name=stay]");
    page.sign_in(&key, &secret);
    page.see(".filters");
    // Nobody is left whom the new tab could ask.
    page.browser.go("about:blank");
    let tab = page.browser.post("/window/new", &json!({"type": "tab"}));
    page.browser
        .post("/window", &json!({"handle": tab["handle"]}));
    page.load(&page.server.url);
    page.see(".filters");

    page.press_button("Sign out");
    page.see("form.signin");
    page.load(&page.server.url);
    page.see("form.signin");
    assert!(
        page.js("return localStorage.getItem('trainyard.token')")
            .is_null()
    );
    page.no_errors();
}

#[test]
fn a_session_that_the_server_no_longer_knows_leads_back_to_the_form() {
    let page = Page::open();
    page.js("const stale = 'x.e30.y'; sessionStorage.setItem('trainyard.token', stale); location.reload()");
    page.read("Your session has ended.");
    page.see("form.signin");
}
