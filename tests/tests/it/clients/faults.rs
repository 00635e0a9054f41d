//! Scenarios of what goes wrong between a client and the relay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use relay_auth::{Locks, ReadLock, keygen};
use relay_tests::{Process, at_length};
use serde_json::{Value, json};

use super::driver::{Driver, Language, payload, quick};
use super::messages::Relay;
use super::proxy::{Fate, Proxy, Request};
use crate::crowds::ShippedRelay;

const HOUR_MS: i64 = 60 * 60 * 1_000;

const AUDIENCE: &str = "https://relay.example.org";

/// Pushes some messages and receives them, through whatever is at this address.
fn exchange(language: Language, url: &str, messages: u8, transport: &str) {
    let Some(mut receiver) = Driver::plain(language, url) else { return };
    let mut sender = Driver::plain(language, url).unwrap();
    receiver.deliver("alice", transport, true);
    for number in 0..messages {
        sender.push("alice", &[number]);
    }
    for number in 0..messages {
        assert_eq!(receiver.message().0, [number]);
        receiver.wait_for("acked");
    }
    assert!(receiver.is_quiet());
    receiver.close();
    sender.close();
}

pub(super) fn a_rate_limit_delays_and_loses_nothing(language: Language) {
    let limit = "[rate_limit]\nper_ip_rps = 20\nburst = 4\nmax_wait_ms = 0\nban_threshold = 10_000\n";
    let relay = ShippedRelay::with(limit);
    exchange(language, &relay.process.base_url, 20, "wait");
}

pub(super) fn a_relay_that_drains_is_asked_again(language: Language) {
    const DRAINING: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
        content-length: 54\r\n\r\n{\"error\":{\"code\":\"draining\",\"message\":\"it is stopping\"}}";
    let relay = Relay::start();
    let seen = Mutex::new(BTreeMap::<String, usize>::new());
    let proxy = Proxy::start(relay.url(), move |request| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(request.target.clone()).or_default();
        *count += 1;
        if *count <= 2 { Fate::Answer(DRAINING.into()) } else { Fate::Pass }
    });
    exchange(language, &proxy.url, 5, "wait");
}

pub(super) fn a_server_of_the_first_version_is_polled(language: Language) {
    const UNKNOWN: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let relay = Relay::start();
    // It knows three paths, and ignores fields that came later.
    let proxy = Proxy::start(relay.url(), |request: &Request| {
        if !["POST /push", "POST /pull", "POST /ack"].contains(&request.target.as_str()) {
            return Fate::Answer(UNKNOWN.into());
        }
        let Ok(Value::Object(mut body)) = serde_json::from_slice(&request.body) else { return Fate::Pass };
        for later in ["wait_ms", "tail", "ttl_seconds", "proof", "ack_before"] {
            body.remove(later);
        }
        Fate::Rewrite(Value::Object(body).to_string().into_bytes())
    });
    exchange(language, &proxy.url, 20, "wait");
    exchange(language, &proxy.url, 5, "stream");
}

pub(super) fn a_slow_link_is_used_to_its_end(language: Language) {
    let relay = Relay::start();
    let proxy = Proxy::start(relay.url(), |_| Fate::Slow(4_096));
    let Some(mut client) = Driver::plain(language, &proxy.url) else { return };
    let large = vec![5; 300_000];
    client.deliver("alice", "wait", true);
    client.push("alice", &large);
    assert!(client.message().0 == large);
    client.wait_for("acked");
    client.close();
}

/// All chunks in one request would take 0.9 seconds.
pub(super) fn a_slow_upload_goes_in_smaller_requests(language: Language) {
    let (relay, batches) = (Relay::start(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&batches);
    let proxy = Proxy::slow_upload(relay.url(), 4_096, move |request| {
        if request.target == "POST /push/batch" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Fate::Pass
    });
    let options =
        json!({"chunk_bytes": 16_384, "request_timeout_ms": 600, "wait_ms": 5_000, "ack_delay_ms": 20});
    let Some(mut sender) = Driver::open(language, &proxy.url, &options, &json!({})) else { return };
    let large = vec![5; 16 * 16_384];
    sender.push("alice", &large);
    assert!(batches.load(Ordering::SeqCst) >= 2, "not all of it in one request");
    sender.close();
    let mut receiver = Driver::plain(language, relay.url()).unwrap();
    receiver.deliver("alice", "wait", true);
    assert!(receiver.message().0 == large);
    receiver.close();
    relay.is_emptied("alice");
}

/// A page that a client does not take is asked for item by item.
pub(super) fn a_page_that_is_too_large_comes_item_by_item(language: Language) {
    const HUGE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n{";
    let relay = Relay::start();
    let proxy = Proxy::start(relay.url(), |request| {
        let body = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
        let is_whole = request.target == "POST /pull" && body["max"] != 1;
        if is_whole { Fate::Answer(HUGE.into()) } else { Fate::Pass }
    });
    let Some(mut client) = Driver::plain(language, &proxy.url) else { return };
    for number in 0..3 {
        client.push("alice", &[number]);
    }
    client.deliver("alice", "wait", true);
    for number in 0..3 {
        assert_eq!(client.message().0, [number]);
        client.wait_for("acked");
    }
    client.close();
    relay.is_emptied("alice");
}

pub(super) fn a_wrong_proof_ends_the_deliveries(language: Language) {
    let relay = Relay::start();
    let ((lock, right), (_, wrong)) = (keygen::secret_lock(&[1; 32]), keygen::secret_lock(&[2; 32]));
    let recipient = name(lock);
    let open = |secret: &str| {
        Driver::open(language, relay.url(), &quick(), &json!({"credentials": {"secret": secret}}))
    };
    let Some(mut client) = open(&wrong) else { return };
    client.push(&recipient, b"for the owner");
    client.deliver(&recipient, "wait", true);
    assert_eq!(client.wait_for("error")["code"], "forbidden");
    client.close();
    let mut client = Driver::plain(language, relay.url()).unwrap();
    client.deliver(&recipient, "wait", true);
    assert_eq!(client.wait_for("error")["code"], "unauthorized");
    client.close();
    let mut owner = open(&right).unwrap();
    owner.deliver(&recipient, "stream", true);
    assert_eq!(owner.message().0, b"for the owner");
    owner.close();
}

/// The recipient with this lock.
fn name(read: ReadLock) -> String {
    Locks { read, send: None }.to_string()
}

pub(super) fn a_clock_that_is_a_day_wrong_is_corrected_once(language: Language) {
    const DAY_MS: i64 = 24 * HOUR_MS;
    if !language.can_sign() {
        return;
    }
    let relay = ShippedRelay::with(&format!("[auth]\naudiences = [\"{AUDIENCE}\"]\n"));
    let (lock, key) = keygen::key_lock(&[9; 32]);
    let recipient = name(lock);
    for offset in [-DAY_MS, DAY_MS] {
        let more = json!({"clock_offset_ms": offset,
            "credentials": {"key": key, "audience": AUDIENCE}});
        let Some(mut client) = Driver::open(language, &relay.process.base_url, &quick(), &more) else {
            return;
        };
        client.deliver(&recipient, "wait", true);
        client.push(&recipient, b"hello");
        assert_eq!(client.message().0, b"hello");
        client.wait_for("acked");
        client.close();
    }
    // Ten days are too many to believe.
    let more = json!({"clock_offset_ms": 10 * DAY_MS,
        "credentials": {"key": key, "audience": AUDIENCE}});
    let mut client = Driver::open(language, &relay.process.base_url, &quick(), &more).unwrap();
    client.deliver(&recipient, "wait", true);
    assert_eq!(client.wait_for("error")["code"], "forbidden");
    client.close();
}

/// A relay whose clock changes back after it was believed. Another client may believe it again.
pub(super) fn a_clock_is_corrected_no_second_time(language: Language) {
    if !language.can_sign() {
        return;
    }
    let (lock, key) = keygen::key_lock(&[9; 32]);
    let recipient = name(lock);
    let relay = ShippedRelay::with(&format!("[auth]\naudiences = [\"{AUDIENCE}\"]\n"));
    let pulls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pulls);
    let now_ms = i64::try_from(1_000 * relay_tests::load::unix_seconds()).unwrap();
    let proxy = Proxy::start(&relay.process.base_url, move |request| {
        if request.target != "POST /pull" {
            return Fate::Pass;
        }
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Fate::Answer(refusal_of_clock("token_expired", now_ms + 12 * HOUR_MS).into()),
            1 => Fate::Answer(refusal_of_clock("token_not_valid_yet", now_ms).into()),
            _ => Fate::Pass,
        }
    });
    let more = json!({"credentials": {"key": key, "audience": AUDIENCE}});
    for is_first in [true, false] {
        let Some(mut client) = Driver::open(language, &proxy.url, &quick(), &more) else { return };
        client.deliver(&recipient, "wait", true);
        if is_first {
            assert_eq!(client.wait_for("error")["code"], "forbidden");
            assert_eq!(pulls.load(Ordering::SeqCst), 2);
        } else {
            client.push(&recipient, b"hello");
            assert_eq!(client.message().0, b"hello");
        }
        client.close();
    }
}

fn refusal_of_clock(reason: &str, server_ms: i64) -> String {
    let details = json!({"reason": reason, "server_ms": server_ms});
    let body = json!({"error": {"code": "forbidden", "message": "no", "details": details}}).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The answer to every other request of a path is cut, one byte later each time.
pub(super) fn an_answer_that_is_cut_at_any_byte_changes_nothing(language: Language) {
    let relay = Relay::start();
    let (seen, cuts) = (Mutex::new(BTreeMap::<String, usize>::new()), AtomicUsize::new(0));
    let proxy = Proxy::start(relay.url(), move |request| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(request.target.clone()).or_default();
        *count += 1;
        // Waits come in any number.
        if *count % 2 == 0 || request.target == "GET /info" {
            return Fate::Pass;
        }
        cuts.fetch_add(1, Ordering::SeqCst);
        Fate::Cut(*count / 2 * at_length(1, 16))
    });
    // An answer to a push or an ack has fewer bytes, with its head.
    exchange(language, &proxy.url, at_length(250, 25), "wait");
    relay.is_emptied("alice");
}

pub(super) fn a_relay_that_is_killed_again_and_again_loses_no_message(language: Language) {
    let mut relay = Relay::start();
    let url = relay.url().to_owned();
    let address = url.trim_start_matches("http://").to_owned();
    let Some(mut receiver) = Driver::plain(language, &url) else { return };
    let mut sender = Driver::plain(language, &url).unwrap();
    receiver.deliver("alice", "wait", true);
    let kills = at_length(50, 3);
    let (mut begun, mut pushed) = (0_u32, BTreeSet::new());
    for _ in 0..kills {
        for _ in 0..20 {
            sender.begin_push("alice", &begun.to_be_bytes(), &json!({}));
            begun += 1;
        }
        thread::sleep(Duration::from_millis(fastrand::u64(1..60)));
        relay.process.kill().unwrap();
        thread::sleep(Duration::from_millis(fastrand::u64(1..100)));
        relay.process =
            Process::start_on(crate::PROGRAM, relay.directory.path(), &["--address", &address]).unwrap();
    }
    while pushed.len() < begun as usize {
        pushed.insert(sender.wait_for("pushed")["id"].as_u64().unwrap());
    }
    relay.is_emptied("alice");
    receiver.is_quiet();
    sender.close();
    let mut events = receiver.events();
    events.extend(receiver.close());
    let (mut first_times, mut acked) = (Vec::new(), BTreeSet::new());
    for event in &events {
        let id = event["message_id"].as_str().unwrap_or_default();
        match event["event"].as_str().unwrap() {
            "message" => {
                assert!(!acked.contains(id), "a message came again after its ack was answered");
                let number = u32::from_be_bytes(payload(event).try_into().unwrap());
                if !first_times.contains(&number) {
                    first_times.push(number);
                }
            }
            "acked" => drop(acked.insert(id)),
            other => panic!("{other}"),
        }
    }
    assert!(first_times.is_sorted(), "{first_times:?}");
    assert_eq!(first_times.len(), begun as usize, "{language:?}: each message came");
}
