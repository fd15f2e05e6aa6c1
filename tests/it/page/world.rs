//! What a scenario of the page runs in: a server with some tasks, a browser that is signed in, and short ways to look,
//! click, type and wait.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::pool::Lent;
use crate::server_world::{Client, InProcess, multipart};

/// How long anything may take to appear.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Finds what can be seen: the innermost open dialog or menu hides the rest.
const FIND: &str = "
    const layers = [...document.querySelectorAll('dialog[open], [popover]:popover-open')];
    const root = layers.at(-1) ?? document;
    return [...root.querySelectorAll(arguments[0])].find((one) => one.checkVisibility()) ?? null;";

/// Finds a button, a link or a menu's item by its words or its label.
const NAMED: &str = "
    const layers = [...document.querySelectorAll('dialog[open], [popover]:popover-open')];
    const root = layers.at(-1) ?? document;
    return [...root.querySelectorAll('button, a, summary')].find((one) => one.checkVisibility() && !one.disabled
        && one.getAttribute('aria-disabled') !== 'true' && (one.textContent.trim() === arguments[0] || one.getAttribute('aria-label') === arguments[0])) ?? null;";

/// Finds an option of a list by the list's label or name, and its own words.
const OPTION: &str = "
    const lists = [...document.querySelectorAll('select')].filter((one) => one.checkVisibility()
        && [one.getAttribute('aria-label'), one.name].includes(arguments[0]));
    return lists.flatMap((one) => [...one.options]).find((one) => one.text === arguments[1]) ?? null;";

/// A browser in front of a server, as a rule one of this process.
pub struct Page<S = InProcess> {
    pub browser: Lent,
    pub server: S,
    pub client: Client,
}

impl Page {
    /// A browser in front of the form for signing in.
    pub fn closed() -> Self {
        let server = InProcess::start();
        let client = server.client();
        Self::in_front_of(server, client)
    }

    /// Signed in, the list of tasks in view.
    pub fn open() -> Self {
        Self::open_on(InProcess::start())
    }

    /// The same on a server with options of its own.
    pub fn open_on(server: InProcess) -> Self {
        let client = server.client();
        Self::signed_in(server, client)
    }

    // ---- the API ----

    pub fn call(&self, endpoint: &str, body: Value) -> Value {
        self.server.block_on(self.client.call(endpoint, body))
    }

    /// The id of what a call makes.
    pub fn made(&self, endpoint: &str, body: Value) -> String {
        let made = self.call(endpoint, body);
        made["id"].as_str().unwrap().to_owned()
    }

    /// The id of a new queue.
    pub fn queue(&self, name: &str) -> String {
        self.made("queues.create", json!({"name": name}))
    }

    /// A new task with a few parameters; its id.
    pub fn task(&self, name: &str) -> String {
        let parameter = |name: &str, value: &str, kind: &str| json!({"section": "Args", "name": name, "value": value, "type": kind});
        let ask = json!({
            "name": name, "type": "training",
            "script": {"repository": "https://git.example/lab/code.git", "branch": "main", "entry_point": "train.py",
                       "diff": "diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+new\n", "requirements": {"pip": "torch==2.9.1\n"}},
            "hyperparams": {"Args": {"lr": parameter("lr", "0.1", "float"), "epochs": parameter("epochs", "3", "int")}},
            "container": {"image": "python:3.11"},
        });
        self.made("tasks.create", ask)
    }

    /// A task in the state that its name says: `created`, `queued`, `in_progress`, `stopped`, `failed`, `completed`.
    pub fn task_in(&self, name: &str, state: &str) -> String {
        let id = self.task(name);
        let one = json!({"task": id});
        if state == "queued" {
            self.call(
                "tasks.enqueue",
                json!({"task": id, "queue_name": "default"}),
            );
        } else if state != "created" {
            self.call("tasks.started", one.clone());
            match state {
                "stopped" => self.call("tasks.stopped", one),
                "failed" => self.call(
                    "tasks.failed",
                    json!({"task": id, "status_message": "exit code 3"}),
                ),
                "completed" => self.call("tasks.completed", one),
                _ => Value::Null,
            };
        }
        id
    }

    pub fn status(&self, task: &str) -> String {
        let found = self.call("tasks.get_by_id", json!({"task": task}));
        found["task"]["status"].as_str().unwrap().to_owned()
    }

    pub fn events(&self, events: &[Value]) {
        for part in events.chunks(20_000) {
            self.server.block_on(self.client.report(part));
        }
    }

    pub fn upload(&self, path: &str, content: &[u8]) -> String {
        let (kind, body) = multipart(path, content);
        let request = self
            .client
            .request(reqwest::Method::POST, "files/")
            .header("Content-Type", kind)
            .body(body);
        let status = self
            .server
            .block_on(async { request.send().await.unwrap().status() });
        assert_eq!(status, 200);
        format!("{}/files/{path}", self.server.url)
    }
}

impl<S> Page<S> {
    fn in_front_of(server: S, client: Client) -> Self {
        let page = Self {
            browser: Lent::new(&client.url),
            server,
            client,
        };
        page.load(&page.client.url);
        page
    }

    /// Signed in with the client's keys on the server that it calls, the list of tasks in view.
    pub fn signed_in(server: S, client: Client) -> Self {
        let page = Self::in_front_of(server, client);
        let (key, secret) = page.client.keys.clone().unwrap();
        page.sign_in(&key, &secret);
        page.see(".filters");
        page
    }

    /// Opens an address; again if the browser gave its files up because the machine's network changed meanwhile.
    pub fn load(&self, url: &str) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE * 2 {
            self.browser.go(url);
            let until = Instant::now() + PATIENCE / 3;
            while Instant::now() < until {
                if self.js("return document.querySelector('form.signin, .view') !== null") == true {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!(
            "{url} does not show the page; its console: {:?}",
            self.browser.console()
        );
    }

    pub fn sign_in(&self, key: &str, secret: &str) {
        self.fill("[name=key]", key);
        self.fill("[name=secret]", secret);
        self.press_button("Sign in");
    }

    // ---- looking ----

    /// Goes to a place of the page: `tasks/<id>/log`.
    pub fn at(&self, place: &str) {
        self.browser.js(
            "location.hash = arguments[0]",
            &[json!(format!("#/{place}"))],
        );
    }

    /// Waits until a function's body returns something true, and returns it.
    pub fn wait(&self, what: &str, body: &str, arguments: &[Value]) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.browser.js(body, arguments);
            if !matches!(found, Value::Null | Value::Bool(false))
                && found != json!("")
                && found != json!(0)
            {
                return found;
            }
            if Instant::now() > until {
                self.keep("failed");
                let text = self.browser.js("return document.body.innerText", &[]);
                let console = self.browser.console();
                panic!(
                    "{what} did not come about; the page says: {text}; its console: {console:?}"
                );
            }
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// Waits for an element that can be seen.
    pub fn see(&self, selector: &str) -> String {
        self.wait(selector, &format!("{{ const found = (() => {{ {FIND} }}).apply(null, arguments); return found !== null; }}"), &[json!(selector)]);
        self.browser
            .element(FIND, &[json!(selector)])
            .unwrap_or_else(|| self.see(selector))
    }

    /// Waits until a text can be read somewhere.
    pub fn read(&self, text: &str) {
        self.wait(
            text,
            "return document.body.innerText.includes(arguments[0])",
            &[json!(text)],
        );
    }

    pub fn gone(&self, text: &str) {
        self.wait(
            &format!("the end of {text:?}"),
            "return !document.body.innerText.includes(arguments[0])",
            &[json!(text)],
        );
    }

    pub fn text(&self, selector: &str) -> String {
        self.see(selector);
        self.browser
            .js(
                "return document.querySelector(arguments[0])?.innerText ?? ''",
                &[json!(selector)],
            )
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until an element's text is that.
    pub fn reads(&self, selector: &str, text: &str) {
        self.wait(
            &format!("{selector} with {text:?}"),
            "return document.querySelector(arguments[0])?.innerText.trim() === arguments[1]",
            &[json!(selector), json!(text)],
        );
    }

    /// Texts of all elements.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let found = self.browser.js("return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())", &[json!(selector)]);
        serde_json::from_value(found).unwrap()
    }

    /// Waits until the texts of all elements are those.
    pub fn all_read(&self, selector: &str, wanted: &[&str]) {
        self.wait(
            &format!("{selector} with {wanted:?}"),
            "return JSON.stringify([...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())) === JSON.stringify(arguments[1])",
            &[json!(selector), json!(wanted)],
        );
    }

    // ---- acting ----

    pub fn click(&self, selector: &str) {
        self.until_clicked(selector, || self.see(selector));
    }

    /// Clicks the button, link or menu item of that name.
    pub fn press_button(&self, name: &str) {
        self.until_clicked(name, || {
            self.wait(name, &format!("{{ const found = (() => {{ {NAMED} }}).apply(null, arguments); return found !== null; }}"), &[json!(name)]);
            self.browser.element(NAMED, &[json!(name)]).unwrap_or_default()
        });
    }

    fn until_clicked(&self, what: &str, find: impl Fn() -> String) {
        let until = Instant::now() + PATIENCE;
        while !self.browser.try_click(&find()) {
            assert!(Instant::now() < until, "{what} cannot be clicked");
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// An item of the task's menu.
    pub fn press_menu(&self, item: &str) {
        self.press_button("More actions");
        self.press_button(item);
    }

    /// Chooses an option of the list with this label or name.
    pub fn pick(&self, list: &str, option: &str) {
        let arguments = [json!(list), json!(option)];
        self.until_clicked(option, || {
            self.wait(option, &format!("{{ const found = (() => {{ {OPTION} }}).apply(null, arguments); return found !== null; }}"), &arguments);
            self.browser.element(OPTION, &arguments).unwrap_or_default()
        });
    }

    /// Clears a field and types into it.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.see(selector);
        self.browser.clear(&element);
        self.browser.type_into(&element, text);
    }

    /// Middle of an element in the window.
    pub fn middle(&self, selector: &str) -> (f64, f64) {
        self.see(selector);
        let found = self.browser.js("const box = document.querySelector(arguments[0]).getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]", &[json!(selector)]);
        (found[0].as_f64().unwrap(), found[1].as_f64().unwrap())
    }

    pub fn js(&self, body: &str) -> Value {
        self.browser.js(body, &[])
    }

    // ---- keeping ----

    /// A folder into which the browser downloads from now on.
    pub fn downloads(&self) -> Downloads {
        let folder = tempfile::tempdir().unwrap();
        self.browser.devtools(
            "Browser.setDownloadBehavior",
            &json!({"behavior": "allow", "downloadPath": folder.path()}),
        );
        Downloads(folder)
    }

    /// Keeps a picture of the view under `target/page/`.
    pub fn keep(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/page");
        std::fs::create_dir_all(&folder).unwrap();
        let png = base64::engine::general_purpose::STANDARD
            .decode(self.browser.picture())
            .unwrap();
        assert!(png.len() > 4000, "the picture {name} is empty");
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// Nothing may go wrong in the page: no error of a script or of its policy. Answers of 4xx are the test's own.
    pub fn no_errors(&self) {
        let bad: Vec<Value> = self
            .browser
            .console()
            .into_iter()
            .filter(|entry| {
                let text = entry["message"].as_str().unwrap();
                // Pods that come and go on this machine change its network, and Chromium then breaks requests off.
                let known = [
                    "the server responded with a status of 4",
                    "net::ERR_NETWORK_CHANGED",
                ];
                entry["level"] == "SEVERE" && !known.iter().any(|known| text.contains(known))
            })
            .collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
}

/// What the browser has downloaded.
pub struct Downloads(TempDir);

impl Downloads {
    /// Waits until a file is there as a whole.
    pub fn hold(&self, name: &str, content: &[u8]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = std::fs::read(self.0.path().join(name)).unwrap_or_default();
            if found == content {
                return;
            }
            assert!(
                Instant::now() < until,
                "{name} was not downloaded, {} of {} bytes are there",
                found.len(),
                content.len()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
