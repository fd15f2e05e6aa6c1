//! Ways between the views: the page's head, tabs, links, and the keys that lead along them; the colours of all.

use serde_json::json;

use super::world::Page;

const ENTER: &str = "\u{E007}";
const ESCAPE: &str = "\u{E00C}";

/// Presses a tab of a task: its part is shown, and the tab keeps the focus.
fn shows(page: &Page, tab: &str) {
    page.press_button(tab);
    page.wait(
        tab,
        "return document.querySelector('.panel')?.getAttribute('aria-label') === arguments[0]
            && document.activeElement.matches('.tab[aria-current]') && document.activeElement.innerText === arguments[0]",
        &[json!(tab)],
    );
}

#[test]
fn the_head_and_the_tabs_lead_to_every_view() {
    let page = Page::open();
    let id = page.task("looked at");
    page.press_button("Queues");
    page.see(".view.queues");
    page.press_button("Workers");
    page.see(".view.workers");
    page.press_button("Tasks");
    page.see(".view.tasks .filters");
    page.press_button("looked at");
    page.reads(".title h1", "looked at");
    shows(&page, "Log");
    shows(&page, "Scalars");
    shows(&page, "Plots");
    shows(&page, "Samples");
    shows(&page, "Files");
    shows(&page, "Parameters");
    shows(&page, "Execution");
    shows(&page, "Overview");
    page.press_button("trainyard");
    page.see(".view.tasks .filters");

    page.at("tasks/00000000000000000000000000000000");
    page.read("it is not there, or no longer");
    page.press_button("All tasks");
    page.read("looked at");
    page.at(&format!("compare?tasks={id}"));
    page.read("Nothing to compare");
    page.press_button("All tasks");
    page.read("looked at");

    page.js("document.querySelector('.skip').focus()");
    page.press_button("Skip to content");
    assert_eq!(page.js("return document.activeElement.id"), "main");
    page.no_errors();
}

#[test]
fn keys_of_a_task_and_of_queues_do_what_their_list_says() {
    let page = Page::open();
    let id = page.task("by keys");
    page.at(&format!("tasks/{id}"));
    let tab = |key: &str, name: &str| {
        page.browser.press(&[], &[key]);
        page.reads(".tab[aria-current]", name);
    };
    page.reads(".tab[aria-current]", "Overview");
    tab("2", "Log");
    tab("]", "Scalars");
    tab("[", "Log");
    tab("8", "Execution");
    tab("]", "Overview");

    page.browser.press(&[], &["c"]);
    page.reads("dialog h2", "Clone task");
    page.browser.press(&[], &[ESCAPE]);
    page.gone("Clone task");

    // A menu holds the view's keys back, shows where it is, and gives the focus back.
    page.press_button("More actions");
    page.see("[role=menuitem]");
    page.browser.press(&[], &["c", "\u{E015}"]);
    assert_eq!(
        page.js("return [document.activeElement === document.querySelectorAll('[role=menuitem]')[1], document.querySelector('dialog')]"),
        json!([true, null])
    );
    page.browser.press(&[], &[ESCAPE]);
    page.wait(
        "the focus on the button",
        "return document.activeElement.getAttribute('aria-label') === 'More actions'",
        &[],
    );

    page.browser.press(&[], &["g", "w"]);
    page.see(".view.workers");
    page.browser.press(&[], &["g", "q"]);
    page.see(".queue-title");
    page.browser.press(&[], &["n"]);
    page.reads("dialog h2", "New queue");
    page.browser.press(&[], &["n", "i", "g", "h", "t", ENTER]);
    page.reads(".queue-title", "night");

    page.press_button("Keyboard shortcuts");
    page.read("Tab and Shift+Tab reach everything");
    page.press_button("Close");
    page.wait(
        "the list's end",
        "return !document.querySelector('dialog')",
        &[],
    );
    page.no_errors();
}

#[test]
fn the_colours_button_goes_from_the_systems_colours_to_light_to_dark_and_back() {
    let page = Page::open();
    let system = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    page.browser.devtools("Emulation.setEmulatedMedia", &system);
    let ground = || page.js("return getComputedStyle(document.body).backgroundColor");
    let chosen = |theme: &str| {
        page.wait(
            &format!("the colours {theme:?}"),
            "return (document.documentElement.dataset.theme ?? 'auto') === arguments[0] && (localStorage.getItem('trainyard.theme') ?? 'auto') === arguments[0]",
            &[json!(theme)],
        );
    };
    chosen("auto");
    let dark = ground();
    page.press_button("Colours: as the system has it");
    chosen("light");
    assert_ne!(ground(), dark);
    page.press_button("Colours: light");
    chosen("dark");
    assert_eq!(ground(), dark);
    page.press_button("Colours: dark");
    chosen("auto");
    page.see("[aria-label='Colours: as the system has it']");
    page.no_errors();
}
