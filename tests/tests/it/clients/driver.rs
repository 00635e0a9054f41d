//! A client as a process, which reads commands and writes events as lines of JSON.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use relay_tests::process::memory_bytes_of;
use relay_tests::skip_without;
use serde_json::{Value, json};

/// Far longer than any event takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    TypeScript,
    Python,
}

/// A running client. It is killed when it is dropped.
pub(super) struct Driver {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    /// What came while something else was waited for.
    kept: VecDeque<Value>,
    pushes: u64,
}

impl Language {
    pub(super) const ALL: [Self; 3] = [Self::Rust, Self::TypeScript, Self::Python];

    /// How the client is started; `None`, with a word, if this machine cannot.
    fn command(self) -> Option<Command> {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("clients");
        let missing = |what: &str| {
            skip_without(what);
            None
        };
        match self {
            Self::Rust => Some(Command::new(env!("CARGO_BIN_EXE_client-under-test"))),
            Self::TypeScript => {
                let directory = clients.join("typescript");
                if !directory.join("dist/index.js").exists() {
                    return missing("built TypeScript client (npm ci && npm run build)");
                }
                let mut command = Command::new("node");
                command.arg(directory.join("test/driver.mjs"));
                Some(command)
            }
            Self::Python => {
                let python = python()?;
                let directory = clients.join("python");
                let mut command = Command::new(python);
                command.arg(directory.join("tests/driver.py")).env("PYTHONPATH", directory.join("src"));
                Some(command)
            }
        }
    }

    /// Whether this machine has this client. Says so if not.
    pub(super) fn is_here(self) -> bool {
        self.command().is_some()
    }

    /// Whether this client can sign tokens here.
    pub(super) fn can_sign(self) -> bool {
        if self != Self::Python {
            return true;
        }
        let Some(python) = python() else { return false };
        let imported =
            Command::new(python).args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
        let can = imported.is_ok_and(|status| status.success());
        if !can {
            skip_without("python3 with the package cryptography");
        }
        can
    }
}

/// Python, from `PYTHON` if that is set.
pub(super) fn python() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the choice of an interpreter is an environment variable")]
    let python = std::env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let version = "import sys; sys.exit(sys.version_info < (3, 10))";
    let is_there = Command::new(&python).args(["-c", version]).status().is_ok_and(|status| status.success());
    if !is_there {
        skip_without("python3 (3.10 or later)");
    }
    is_there.then_some(python)
}

impl Driver {
    /// `None` if this machine has no such client.
    pub(super) fn open(language: Language, url: &str, options: &Value, more: &Value) -> Option<Self> {
        let mut command = language.command()?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut driver = Self { child, stdin, events, kept: VecDeque::new(), pushes: 0 };
        let mut opening = json!({"op": "open", "url": url, "options": options, "credentials": null});
        opening.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        driver.send(&opening);
        driver.wait_for("opened");
        Some(driver)
    }

    /// Options for quick tests, and no credentials.
    pub(super) fn plain(language: Language, url: &str) -> Option<Self> {
        Self::open(language, url, &quick(), &json!({}))
    }

    pub(super) fn send(&mut self, command: &Value) {
        let line = format!("{command}\n");
        self.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    pub(super) fn deliver(&mut self, recipient: &str, transport: &str, auto_ack: bool) {
        self.send(&json!({"op": "deliver", "recipient": recipient, "transport": transport,
            "auto_ack": auto_ack, "digest": false}));
    }

    /// Begins a push. Returns its number.
    pub(super) fn begin_push(&mut self, recipient: &str, payload: &[u8], more: &Value) -> u64 {
        self.pushes += 1;
        let mut push = json!({"op": "push", "id": self.pushes, "recipient": recipient,
            "payload_b64": BASE64_STANDARD.encode(payload)});
        push.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.send(&push);
        self.pushes
    }

    /// Pushes, which must succeed. Returns the message id.
    pub(super) fn push(&mut self, recipient: &str, payload: &[u8]) -> String {
        self.push_with(recipient, payload, &json!({}))
    }

    pub(super) fn push_with(&mut self, recipient: &str, payload: &[u8], more: &Value) -> String {
        let id = self.begin_push(recipient, payload, more);
        let event = self.wait(|event| event["id"] == id);
        assert_eq!(event["event"], "pushed", "{event}");
        event["message_id"].as_str().unwrap().to_owned()
    }

    /// The next event of a kind. Others are kept.
    pub(super) fn wait_for(&mut self, kind: &str) -> Value {
        self.wait(|event| event["event"] == kind)
    }

    fn wait(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.kept.iter().position(&is_it) {
            return self.kept.remove(index).unwrap();
        }
        loop {
            let event =
                self.event(PATIENCE).unwrap_or_else(|| panic!("nothing came; before: {:?}", self.kept));
            if is_it(&event) {
                return event;
            }
            self.kept.push_back(event);
        }
    }

    fn event(&mut self, patience: Duration) -> Option<Value> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the client has ended: {:?}; before: {:?}", self.child.wait(), self.kept)
            }
        }
    }

    /// The payload of the next message, and its id.
    pub(super) fn message(&mut self) -> (Vec<u8>, String) {
        let event = self.wait_for("message");
        (payload(&event), event["message_id"].as_str().unwrap().to_owned())
    }

    /// Whether no message comes for a while.
    pub(super) fn is_quiet(&mut self) -> bool {
        while let Some(event) = self.event(Duration::from_millis(700)) {
            self.kept.push_back(event);
        }
        self.kept.iter().all(|event| event["event"] != "message")
    }

    /// All events that have come and were not waited for.
    pub(super) fn events(&mut self) -> Vec<Value> {
        self.kept.extend(self.events.try_iter());
        self.kept.drain(..).collect()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        memory_bytes_of(self.child.id()).unwrap()
    }

    /// Ends the client, which confirms its acks first. Returns the remaining events.
    pub(super) fn close(mut self) -> Vec<Value> {
        self.send(&json!({"op": "close"}));
        self.wait_for("closed");
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
        self.events()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Options for quick tests.
pub(super) fn quick() -> Value {
    json!({"chunk_bytes": 65_536, "poll_interval_ms": 100, "wait_ms": 5_000, "ack_delay_ms": 20})
}

pub(super) fn payload(event: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(event["payload_b64"].as_str().unwrap()).unwrap()
}
