//! A browser: `chromedriver` as a child, and the few calls of WebDriver that the tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a browser may take to be as good as new; one that takes longer is given up.
const RESET: Duration = Duration::from_secs(20);

/// A session in a browser of its own; it ends with the value.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    /// What the browser writes, its profile above all.
    _folder: TempDir,
}

/// The member under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    pub fn start(width: u32, height: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver does not start ({error}); install it with: apt-get install -y chromium chromium-driver")
            });
        let mut out = BufReader::new(driver.stdout.take().unwrap());
        let port = port(&mut out);
        // It goes on talking; nobody must make it wait.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            http: reqwest::Client::new(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
            _folder: folder,
        };
        let size = format!("--window-size={width},{height}");
        let mut arguments = vec![
            "--headless=new",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--lang=en-US",
            size.as_str(),
        ];
        if nix::unistd::Uid::effective().is_root() {
            arguments.push("--no-sandbox");
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            // What one test has typed into a form is offered to no other.
            "goog:chromeOptions": {"args": arguments, "prefs": {"autofill.profile_enabled": false}},
        }}});
        let started = browser.ask("POST", "/session", &wanted);
        started["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, value) = self.try_ask(method, path, body);
        assert!(status == 200, "{method} {path} {body}: {value}");
        value
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.runtime.block_on(self.send(method, path, body));
        answer.unwrap()
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> reqwest::Result<(u16, Value)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = self.http.request(method.parse().unwrap(), url);
        let request = if method == "POST" {
            request.json(body)
        } else {
            request
        };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let mut body: Value = answer.json().await?;
        Ok((status, body["value"].take()))
    }

    fn here(&self, path: &str) -> String {
        format!("/session/{}{path}", self.session)
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &self.here(path), body)
    }

    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", &self.here(path), &Value::Null)
    }

    pub fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Runs a function's body in the page; `arguments[n]` are its arguments.
    pub fn js(&self, body: &str, arguments: &[Value]) -> Value {
        self.post("/execute/sync", &json!({"script": body, "args": arguments}))
    }

    /// A command of the DevTools protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    /// The element that a function's body returns, if it returns one.
    pub fn element(&self, body: &str, arguments: &[Value]) -> Option<String> {
        self.js(body, arguments)[ELEMENT]
            .as_str()
            .map(str::to_owned)
    }

    /// Clicks an element as a mouse does: false if it moved, or something lay over it.
    pub fn try_click(&self, element: &str) -> bool {
        self.try_ask(
            "POST",
            &self.here(&format!("/element/{element}/click")),
            &json!({}),
        )
        .0 == 200
    }

    pub fn type_into(&self, element: &str, text: &str) {
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    pub fn clear(&self, element: &str) {
        self.post(&format!("/element/{element}/clear"), &json!({}));
    }

    /// Presses keys one after the other; those of `held` stay down meanwhile.
    pub fn press(&self, held: &[&str], keys: &[&str]) {
        let step = |kind: &str, key: &str| json!({"type": kind, "value": key});
        let mut steps: Vec<Value> = held.iter().map(|key| step("keyDown", key)).collect();
        for key in keys {
            steps.push(step("keyDown", key));
            steps.push(step("keyUp", key));
        }
        steps.extend(held.iter().rev().map(|key| step("keyUp", key)));
        self.post(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": steps}]}),
        );
    }

    /// Presses the mouse at the first place, moves over the others, lets go at the last.
    pub fn drag(&self, places: &[(f64, f64)]) {
        let to = |(x, y): (f64, f64)| json!({"type": "pointerMove", "duration": 40, "x": x.round(), "y": y.round(), "origin": "viewport"});
        let mut steps = vec![to(places[0]), json!({"type": "pointerDown", "button": 0})];
        steps.extend(places[1..].iter().map(|place| to(*place)));
        steps.push(json!({"type": "pointerUp", "button": 0}));
        self.mouse(&steps);
    }

    pub fn hover(&self, (x, y): (f64, f64)) {
        self.mouse(&[json!({"type": "pointerMove", "duration": 20, "x": x.round(), "y": y.round(), "origin": "viewport"})]);
    }

    fn mouse(&self, steps: &[Value]) {
        let mouse = json!({"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps});
        self.post("/actions", &json!({"actions": [mouse]}));
    }

    /// A picture of what is seen, as base64 of a PNG.
    pub fn picture(&self) -> String {
        self.get("/screenshot").as_str().unwrap().to_owned()
    }

    /// What the page's console says since the last call.
    pub fn console(&self) -> Vec<Value> {
        self.post("/se/log", &json!({"type": "browser"}))
            .as_array()
            .unwrap()
            .clone()
    }

    /// Whether it is still there.
    pub fn answers(&self) -> bool {
        self.in_time(async { self.done("GET", "/url", &Value::Null).await.map(drop) })
    }

    /// Makes it as good as new for the next test: one empty tab, and nothing kept of this server's page. False: it cannot
    /// be used any more.
    pub fn reset(&self, origin: &str) -> bool {
        self.in_time(self.start_over(origin))
    }

    fn in_time(&self, steps: impl Future<Output = Option<()>>) -> bool {
        let limited = async { tokio::time::timeout(RESET, steps).await };
        matches!(self.runtime.block_on(limited), Ok(Some(())))
    }

    /// A call of the session, if it succeeds.
    async fn done(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let (status, value) = self.send(method, &self.here(path), body).await.ok()?;
        (status == 200).then_some(value)
    }

    async fn start_over(&self, origin: &str) -> Option<()> {
        // Keys and buttons go up, and the mouse back to where it was at first.
        self.done("DELETE", "/actions", &Value::Null).await?;
        let old = self.done("GET", "/window/handles", &Value::Null).await?;
        // What is emulated, and the session's storage, end with the tab; another one in the same window has its size.
        let tab = json!({"type": "tab"});
        let tab = self.done("POST", "/window/new", &tab).await?["handle"].take();
        for handle in old.as_array()? {
            let handle = json!({"handle": handle});
            self.done("POST", "/window", &handle).await?;
            self.done("DELETE", "/window", &Value::Null).await?;
        }
        let handle = json!({"handle": tab});
        self.done("POST", "/window", &handle).await?;
        for (command, parameters) in [
            ("Page.bringToFront", json!({})),
            (
                "Storage.clearDataForOrigin",
                json!({"origin": origin, "storageTypes": "all"}),
            ),
            ("Network.clearBrowserCookies", json!({})),
            ("Network.clearBrowserCache", json!({})),
            (
                "Browser.setDownloadBehavior",
                json!({"behavior": "default"}),
            ),
        ] {
            let call = json!({"cmd": command, "params": parameters});
            self.done("POST", "/goog/cdp/execute", &call).await?;
        }
        let console = json!({"type": "browser"});
        self.done("POST", "/se/log", &console).await.map(drop)
    }
}

/// The port that chromedriver chose: "... was started successfully on port 12345."
fn port(out: &mut impl BufRead) -> u16 {
    let mut said = String::new();
    while out.read_line(&mut said).unwrap() > 0 {
        if let Some((_, rest)) = said.split_once("started successfully on port ") {
            return rest.trim().trim_end_matches('.').parse().unwrap();
        }
    }
    panic!("chromedriver ended: {said}")
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session, and its profile goes; then the driver.
        let request = format!(
            "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
            self.session
        );
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(10)));
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read(&mut [0; 512]);
        }
        // A driver that does not answer leaves its browser behind, in the same process group.
        let group = Pid::from_raw(i32::try_from(self.driver.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.driver.wait();
    }
}
