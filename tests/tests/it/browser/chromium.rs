//! Chromium without a window, with a profile of its own, driven by its DevTools protocol over two
//! pipes: <https://chromedevtools.github.io/devtools-protocol/>. It reaches nothing but loopback,
//! every wait has a bound, and it ends with the test that started it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use relay_tests::load::now;
use relay_tests::{eventually, skip_without};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the browser may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maps the pipes of the child to the descriptors on which Chromium reads commands and writes
/// answers. `exec` makes the browser the child itself.
const START: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// One name leads to loopback, as after DNS rebinding. The others lead nowhere, so a page or the
/// browser itself reaches no other machine.
const NAMES: &str = "--host-resolver-rules=MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, \
    EXCLUDE 127.0.0.1, EXCLUDE 0.0.0.0, EXCLUDE *ffff*7f00*, EXCLUDE localhost, EXCLUDE *.localhost";

const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    // A sandbox needs rights that root and containers do not have. Only pages of the test are open.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    // Certificates of these tests are of an authority that nobody knows.
    "--ignore-certificate-errors",
    NAMES,
];

/// A running browser. Dropping it ends all of its processes.
pub(super) struct Chromium {
    child: Child,
    commands: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// What the browser has reported without being asked.
    events: RefCell<Vec<Value>>,
    last_id: Cell<u64>,
    _profile: TempDir,
}

/// A page in a tab.
pub(super) struct Page<'a> {
    browser: &'a Chromium,
    session: String,
}

impl Chromium {
    /// Starts the browser, perhaps with one more flag; `None` if it is not installed.
    pub(super) fn start(flag: Option<String>) -> Option<Self> {
        if Command::new("chromium").arg("--version").output().is_err() {
            skip_without("chromium");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let log = profile.path().join("log");
        let mut child = Command::new("sh")
            .args(["-c", START, "sh"])
            .args(FLAGS)
            .args(flag)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            // So that one signal ends the browser with all its helpers.
            .process_group(0)
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || receive(answers, &sender));
        let (events, last_id) = (RefCell::default(), Cell::default());
        let browser = Self { child, commands, messages, events, last_id, _profile: profile };
        let version = browser.try_call(None, "Browser.getVersion", &json!({}));
        assert!(version.is_some(), "{}", std::fs::read_to_string(log).unwrap());
        Some(browser)
    }

    /// Opens a page in a tab of its own and waits until it is loaded.
    pub(super) fn open(&self, url: &str) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", &attach);
        let page = Page { browser: self, session: attached["sessionId"].as_str().unwrap().to_owned() };
        for domain in ["Page.enable", "Network.enable", "Log.enable"] {
            page.call(domain, &json!({}));
        }
        let went = page.call("Page.navigate", &json!({"url": url}));
        assert_eq!(went["errorText"], Value::Null, "{url}");
        let until = now() + TIMEOUT;
        while page.events("Page.loadEventFired").is_empty() {
            let message = self.receive(until).unwrap_or_else(|| panic!("{url} is not loaded in time"));
            self.events.borrow_mut().push(message);
        }
        page
    }

    /// Lets the pages of an origin do what a user would have to allow.
    pub(super) fn grant(&self, permission: &str, origin: &str) {
        let grant = json!({"permissions": [permission], "origin": origin});
        self.call(None, "Browser.grantPermissions", &grant);
    }

    fn call(&self, session: Option<&str>, method: &str, params: &Value) -> Value {
        let answer = self.try_call(session, method, params);
        let mut answer = answer.unwrap_or_else(|| panic!("no answer to {method}: {params}"));
        assert_eq!(answer["error"], Value::Null, "{method}: {params}");
        answer["result"].take()
    }

    fn try_call(&self, session: Option<&str>, method: &str, params: &Value) -> Option<Value> {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let mut commands = self.commands.as_ref()?;
        commands.write_all(format!("{command}\0").as_bytes()).ok()?;
        let until = now() + TIMEOUT;
        loop {
            let message = self.receive(until)?;
            if message["id"] == id {
                return Some(message);
            }
            self.events.borrow_mut().push(message);
        }
    }

    /// The next message; `None` if the browser has ended or does not send one by then.
    fn receive(&self, until: Instant) -> Option<Value> {
        self.messages.recv_timeout(until.saturating_duration_since(now())).ok()
    }
}

impl Page<'_> {
    /// Runs a script, waits for its promise, and returns its value. It fails if the script does.
    pub(super) fn run(&self, script: &str) -> Value {
        let evaluate = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", &evaluate);
        let failed = || self.events("Network.loadingFailed");
        assert_eq!(answer["exceptionDetails"], Value::Null, "{script}: {:?}", failed());
        answer["result"]["value"].take()
    }

    /// Gives the window this size.
    pub(super) fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the window shows: a PNG in Base64.
    pub(super) fn screenshot(&self) -> String {
        // A tab in the background draws nothing.
        self.call("Page.bringToFront", &json!({}));
        let shot = self.call("Page.captureScreenshot", &json!({"format": "png"}));
        shot["data"].as_str().unwrap().to_owned()
    }

    /// Shows the page in light or dark colors.
    pub(super) fn use_colors(&self, colors: &str) {
        let colors = json!({"features": [{"name": "prefers-color-scheme", "value": colors}]});
        self.call("Emulation.setEmulatedMedia", &colors);
    }

    /// What the browser has complained about, such as a breach of the page's policy.
    pub(super) fn complaints(&self) -> Vec<Value> {
        self.events("Log.entryAdded")
    }

    /// The protocols of the responses that came from this origin.
    pub(super) fn protocols(&self, origin: &str) -> Vec<String> {
        let responses = self.events("Network.responseReceived").into_iter();
        let of_origin =
            responses.filter(|event| event["response"]["url"].as_str().unwrap().starts_with(origin));
        of_origin.map(|event| event["response"]["protocol"].as_str().unwrap().to_owned()).collect()
    }

    fn call(&self, method: &str, params: &Value) -> Value {
        self.browser.call(Some(&self.session), method, params)
    }

    /// The parameters of the events with this name.
    fn events(&self, method: &str) -> Vec<Value> {
        let events = self.browser.events.borrow();
        let of_page = events.iter().filter(|event| event["sessionId"] == *self.session);
        of_page.filter(|event| event["method"] == method).map(|event| event["params"].clone()).collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Without its pipe, the browser ends by itself, and reaps its helpers.
        self.commands = None;
        if eventually(|| self.child.try_wait().transpose()).is_none() {
            let group = format!("-{}", self.child.id());
            drop(Command::new("kill").args(["-s", "KILL", "--", &group]).status());
            drop(self.child.wait());
        }
    }
}

fn receive(answers: impl Read, sender: &Sender<Value>) {
    for message in BufReader::new(answers).split(0) {
        let Ok(message) = message else { return };
        if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
            return;
        }
    }
}
