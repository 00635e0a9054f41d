//! What a page of a listed origin does: everything, over HTTP/1.1 and over HTTP/2.

use serde_json::{Value, json};

use super::chromium::Page;
use super::pages::Pages;
use super::{LISTED_HOST, NO_RATES, Stage, number, recipient, script};

fn post(page: &Page<'_>, path: &str, body: &Value) -> Value {
    page.run(&script("post", &[path.into(), body.clone()]))
}

/// Pushes the item with this number.
fn push(page: &Page<'_>, recipient: &str, number: u64) -> Value {
    page.run(&format!("post('/push', item('{recipient}', {number}))"))
}

fn numbers(page: &Value) -> Vec<u64> {
    page["items"].as_array().unwrap().iter().map(number).collect()
}

/// Every kind of request, and what the page reads of its response.
fn use_everything(stage: &Stage) {
    let page = stage.listed_page();
    push_pull_and_ack(&page);
    wait_for_an_item(stage, &page);
    follow_a_stream(stage, &page);
    read_errors(&page);
    show_a_proof(&page);
}

fn push_pull_and_ack(page: &Page<'_>) {
    let pushed = push(page, "alice", 1);
    assert_eq!((&pushed["status"], &pushed["body"]["stored"]), (&json!(200), &json!(true)), "{pushed}");
    let batch = page.run("post('/push/batch', {items: [item('alice', 2), item('alice', 3)]})");
    assert_eq!(batch["body"]["results"].as_array().unwrap().len(), 2, "{batch}");
    let compressed = page.run("postCompressed('/push', item('alice', 4))");
    assert_eq!(compressed["body"]["stored"], true, "{compressed}");
    let pulled = post(page, "/pull", &recipient("alice"));
    assert_eq!(numbers(&pulled["body"]), [1, 2, 3, 4], "{pulled}");
    let acked = page.run("post('/ack', ack('alice', 1))");
    assert_eq!(acked["body"], json!({"deleted": 1, "missing": 0, "remaining": 3}));
    let info = page.run("get('/info')");
    assert_eq!(info["status"], 200, "{info}");
    assert!(info["body"]["version"].is_string(), "{info}");
}

fn wait_for_an_item(stage: &Stage, page: &Page<'_>) {
    page.run("globalThis.pull = post('/pull', {recipient: 'bob', wait_ms: 50_000}); 0");
    stage.await_waiting(1.0);
    assert_eq!(push(page, "bob", 7)["status"], 200);
    let pulled = page.run("pull");
    assert_eq!(numbers(&pulled["body"]), [7], "{pulled}");
    let nothing = post(page, "/pull", &json!({"recipient": "nobody", "wait_ms": 10}));
    assert_eq!(nothing["body"]["items"], json!([]), "{nothing}");
}

fn follow_a_stream(stage: &Stage, page: &Page<'_>) {
    page.run("EventReader.open('carol').then((opened) => { globalThis.events = opened; })");
    stage.await_waiting(1.0);
    for number in [1, 2] {
        push(page, "carol", number);
        let line = page.run("events.line()");
        let event: Value = serde_json::from_str(line.as_str().unwrap()).unwrap();
        assert_eq!(numbers(&event), [number], "{line}");
    }
    page.run("events.aborter.abort()");
    stage.await_waiting(0.0);
    // The same as server-sent events, which a page reads by `fetch` too.
    page.run(
        "EventReader.open('carol', 'text/event-stream').then((opened) => { globalThis.events = opened; })",
    );
    let line = page.run("events.line()");
    let event = line.as_str().unwrap().strip_prefix("data: ").unwrap_or_else(|| panic!("{line}"));
    assert_eq!(numbers(&serde_json::from_str(event).unwrap()), [1, 2]);
    page.run("events.reader.cancel()");
    stage.await_waiting(0.0);
}

fn read_errors(page: &Page<'_>) {
    for (path, body, status, code) in [
        ("/pull", json!({"recipient": ""}), 400, "invalid_input"),
        ("/pull", json!({"recipient": "x".repeat(600)}), 400, "invalid_input"),
        ("/nowhere", json!({}), 404, "not_found"),
        ("/health", json!({}), 405, "method_not_allowed"),
        ("/pull", json!({"recipient": "alice", "padding": "x".repeat(9000)}), 413, "message_too_large"),
    ] {
        let response = post(page, path, &body);
        assert_eq!((&response["status"], &response["body"]["error"]["code"]), (&json!(status), &json!(code)));
    }
}

/// A recipient with a lock needs a header that a browser asks about first.
fn show_a_proof(page: &Page<'_>) {
    page.run("lockedRecipient().then((made) => { globalThis.locked = made; })");
    let pushed = page.run("post('/push', item(locked.name, 1))");
    assert_eq!(pushed["status"], 200, "{pushed}");
    let refused = page.run("post('/pull', {recipient: locked.name})");
    assert_eq!(refused["body"]["error"]["code"], "unauthorized", "{refused}");
    let pulled = page.run("post('/pull', {recipient: locked.name}, locked.proof)");
    assert_eq!(numbers(&pulled["body"]), [1], "{pulled}");
}

#[test]
fn a_listed_page_does_everything_over_http_1() {
    let Some(stage) = Stage::with(NO_RATES) else { return };
    use_everything(&stage);
    assert_eq!(stage.outcomes("forbidden"), 0.0);
}

/// Browsers speak HTTP/2 over TLS alone. It lifts their limit of six connections to one host, so
/// more requests can wait at once.
#[test]
fn a_listed_page_does_everything_over_http_2() {
    let Some(stage) = Stage::with_tls(NO_RATES) else { return };
    use_everything(&stage);
    let page = stage.listed_page();
    page.run("globalThis.streams = []; for (let n = 0; n < 20; n++) EventReader.open('queue ' + n).then((it) => streams.push(it)); 0");
    stage.await_waiting(20.0);
    assert_eq!(push(&page, "queue 19", 1)["status"], 200);
    page.run("for (const events of streams) events.aborter.abort(); 0");
    stage.await_waiting(0.0);
    let protocols = page.protocols(stage.relay_url());
    assert!(!protocols.is_empty() && protocols.iter().all(|protocol| protocol == "h2"), "{protocols:?}");
}

#[test]
fn a_listed_page_reads_when_to_come_again() {
    let Some(stage) = Stage::with("rate_limit.max_wait_ms = 0\n") else { return };
    let page = stage.listed_page();
    let refused = page.run("pullUntilRefused(200)");
    assert_eq!(refused["status"], 429, "{refused}");
    assert_eq!(refused["body"]["error"]["code"], "rate_limited", "{refused}");
    let seconds: u64 = refused["retry_after"].as_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{refused}");
    assert!(refused["rate_limit"].as_str().unwrap().contains(";r=0;t="), "{refused}");
    assert!(refused["policy"].as_str().unwrap().contains(";q="), "{refused}");
}

/// Chromium asks its user before a page of the internet may reach a relay on the user's machine.
/// The relay has no part in that, and needs no header for it.
#[test]
fn a_listed_page_of_the_internet_needs_the_permission_of_the_browsers_user() {
    let of_the_internet =
        |pages: &Pages| Some(format!("--ip-address-space-overrides={}=public", pages.address()));
    let Some(stage) = Stage::build(NO_RATES, of_the_internet) else { return };
    let page = stage.listed_page();
    let refused = page.run("get('/info').catch(String)");
    assert_eq!(refused, "TypeError: Failed to fetch");
    stage.browser.grant("loopbackNetwork", &stage.pages.origin(LISTED_HOST));
    assert_eq!(push(&page, "alice", 1)["status"], 200);
    assert_eq!(stage.outcomes("forbidden"), 0.0);
}
