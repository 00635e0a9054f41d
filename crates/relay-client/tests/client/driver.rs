//! The driver as a process, against a scripted relay: every command, and every event.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::support::{Fake, PATIENCE, refusal};

/// A running driver. It is killed when it is dropped.
struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    events: mpsc::Receiver<String>,
}

impl Driver {
    fn open(url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_relay-client-driver"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut driver = Self { child, input, events };
        driver.command(&json!({"op": "open", "url": url, "options": {"wait_ms": 500}, "credentials": null}));
        assert_eq!(driver.event(), json!({"event": "opened"}));
        driver
    }

    fn command(&mut self, command: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    fn event(&self) -> Value {
        serde_json::from_str(&self.events.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    fn ends(&mut self) {
        assert_eq!(self.event(), json!({"event": "closed"}));
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_is_pushed_is_delivered_and_acked() {
    let fake = Fake::start();
    let mut driver = Driver::open(&fake.url);
    let id = "00000000-0000-4000-8000-000000000001";
    driver.command(
        &json!({"op": "push", "id": 1, "recipient": "alice", "payload_b64": "aGVsbG8=", "message_id": id}),
    );
    assert_eq!(driver.event(), json!({"event": "pushed", "id": 1, "message_id": id}));
    driver.command(&json!({"op": "deliver", "recipient": "alice", "transport": "wait"}));
    let message = json!({"event": "message", "message_id": id, "kind": "opaque", "payload_b64": "aGVsbG8="});
    assert_eq!(driver.event(), message);
    driver.command(&json!({"op": "ack", "message_id": id}));
    assert_eq!(driver.event(), json!({"event": "acked", "message_id": id}));
    driver.command(&json!({"op": "close"}));
    driver.ends();
}

#[test]
fn digests_skips_failures_and_errors_are_told() {
    let fake = Fake::scripted(|request| match (&*request.path, request.body["recipient"].as_str()) {
        ("/push", _) => refusal(413, "message_too_large", json!({"limit": 1})),
        ("/pull", Some("bob")) => refusal(401, "unauthorized", json!({"reason": "no_proof"})),
        _ => None,
    });
    fake.arrive(1, 3, 2, 5, b"nonsense");
    fake.arrive_alone(2, b"hello");
    let mut driver = Driver::open(&fake.url);
    driver.command(&json!({"op": "push", "id": "x", "recipient": "alice", "payload_b64": ""}));
    assert_eq!(driver.event(), json!({"event": "failed", "id": "x", "code": "message_too_large"}));
    driver.command(
        &json!({"op": "deliver", "recipient": "alice", "transport": "wait", "auto_ack": true, "digest": true}),
    );
    let skipped = driver.event();
    assert_eq!((&skipped["event"], &skipped["reason"]), (&json!("skipped"), &json!("malformed")));
    let message = driver.event();
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!((&message["sha256"], &message["bytes"]), (&json!(digest), &json!(5)));
    assert_eq!(driver.event()["event"], "acked");
    driver.command(&json!({"op": "deliver", "recipient": "bob", "transport": "wait", "auto_ack": true}));
    let error = driver.event();
    assert_eq!((error["event"].as_str(), error["code"].as_str()), (Some("error"), Some("unauthorized")));
    driver.input = None;
    driver.ends();
}
