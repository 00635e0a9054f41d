//! Locked recipients over sockets: who may read and send, and what others learn. relay-auth's tests
//! have the whole table of proofs.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use relay_auth::{Digest, PlainNames, Settings};
use relay_core::Limits;
use relay_core::testing::ManualClock;
use relay_http::{Auth, Options};
use serde_json::{Value, json};

use crate::metrics::Admin;
use crate::support::{Client, MESSAGE_ID, Response, Server, memory, options, post_head, push_of};

const AUDIENCE: &str = "https://relay.example.org";

fn locked(plain_names: PlainNames) -> Options {
    let settings = Settings { plain_names, audiences: vec![AUDIENCE.to_owned()], ..Settings::default() };
    Options { auth: Auth { settings, clock: Arc::new(ManualClock::new()) }, ..options() }
}

/// Options with locks and open plain names.
pub(crate) fn locked_to_reader() -> Options {
    locked(PlainNames::Open)
}

fn server() -> Server {
    Server::with(memory(Limits { queue_items_max: 2, ..Limits::default() }), locked(PlainNames::Open))
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn name_of(secret: u8) -> String {
    format!("sha256:{}", encode(Digest::of_read_secret(&[secret; 32]).as_bytes()))
}

pub(crate) fn bearer(proof: &str) -> String {
    format!("authorization: Bearer {proof}\r\n")
}

pub(crate) fn secret(byte: u8) -> String {
    bearer(&encode([byte; 32]))
}

pub(crate) fn post(client: &mut Client, path: &str, headers: &str, body: &Value) -> Response {
    let headers = format!("content-type: application/json\r\n{headers}");
    client.post_with(path, &headers, body.to_string().as_bytes())
}

/// The requests that only the reader may send.
fn reads(name: &str) -> [(&'static str, Value); 2] {
    let ack = json!([{"message_id": MESSAGE_ID, "chunk_index": 0}]);
    [("/pull", json!({"recipient": name})), ("/ack", json!({"recipient": name, "ack": ack}))]
}

fn assert_refused(response: &Response, status: u16, code: &str, reason: &str) {
    response.assert_error(status, code);
    let details = response.json()["error"]["details"].clone();
    assert_eq!(details["reason"], reason, "{response:?}");
    assert_eq!(details["server_ms"], ManualClock::START.as_ms());
    assert_eq!(status == 401, response.head.to_lowercase().contains("\r\nwww-authenticate: bearer\r\n"));
}

/// The recipient of the key with this number.
pub(crate) fn key_name(number: u8) -> String {
    format!("ed25519:{}", encode(SigningKey::from_bytes(&[number; 32]).verifying_key().as_bytes()))
}

/// A token for the recipient of one key, signed by another.
pub(crate) fn token_of(number: u8, signer: u8) -> String {
    token(&key_name(number), signer, ManualClock::START.as_ms() / 1000)
}

fn token(name: &str, signer: u8, from: u64) -> String {
    let claims = json!({"iss": name, "aud": AUDIENCE, "iat": from, "exp": from + 600});
    let header = encode(r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#);
    let signed = format!("{header}.{}", encode(claims.to_string()));
    let signature = SigningKey::from_bytes(&[signer; 32]).sign(signed.as_bytes());
    bearer(&format!("{signed}.{}", encode(signature.to_bytes())))
}

#[test]
fn only_the_secret_reads_a_locked_queue() {
    let server = server();
    let mut client = server.connect();
    let name = name_of(1);
    let pushed = client.post("/push", &push_of(&name, 0, "aGVsbG8=").to_string()).ok();
    assert_eq!(
        (&pushed["stored"], &pushed["queue_len"], &pushed["queue_bytes"]),
        (&json!(true), &json!(0), &json!(0))
    );
    for (path, body) in reads(&name) {
        assert_refused(&post(&mut client, path, "", &body), 401, "unauthorized", "no_proof");
        assert_refused(&post(&mut client, path, &secret(2), &body), 403, "forbidden", "wrong_proof");
        let basic = post(&mut client, path, "authorization: Basic YTpi\r\n", &body);
        assert_refused(&basic, 401, "unauthorized", "malformed_proof");
        let several = post(&mut client, path, &secret(1).repeat(2), &body);
        assert_refused(&several, 401, "unauthorized", "malformed_proof");
        let target = format!("{path}?access_token={}", encode([1; 32]));
        client.send(post_head(&target, "content-type: application/json\r\n", body.to_string().len()));
        client.send(body.to_string());
        assert_refused(&client.response(), 401, "unauthorized", "no_proof");
    }
    let [(pull, pull_body), (ack, ack_body)] = reads(&name);
    let page = post(&mut client, pull, &secret(1), &pull_body).ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(post(&mut client, ack, &secret(1), &ack_body).ok()["deleted"], 1);
}

#[test]
fn a_key_reads_with_a_token() {
    let server = server();
    let mut client = server.connect();
    let name = key_name(3);
    let token = |from: u64| token(&name, 3, from);
    let now = ManualClock::START.as_ms() / 1000;
    client.post("/push", &push_of(&name, 0, "aGVsbG8=").to_string()).ok();
    let pull = json!({"recipient": name});
    assert_refused(&post(&mut client, "/pull", &token(now - 700), &pull), 403, "forbidden", "token_expired");
    assert_refused(
        &post(&mut client, "/pull", &token(now + 700), &pull),
        403,
        "forbidden",
        "token_not_valid_yet",
    );
    assert_eq!(post(&mut client, "/pull", &token(now), &pull).ok()["items"].as_array().unwrap().len(), 1);
}

#[test]
fn a_name_has_one_spelling() {
    let mut client = server().connect();
    let name = name_of(1);
    for wrong in
        [format!("{name}="), name[..49].to_owned(), format!("{name}+sha256:x"), "ed25519:".to_owned()]
    {
        for (path, body) in reads(&wrong).into_iter().chain([("/push", push_of(&wrong, 0, ""))]) {
            let response = post(&mut client, path, &secret(1), &body);
            response.assert_error(400, "invalid_input");
            assert_eq!(response.json()["error"]["details"], json!({"field": "recipient"}), "{path}");
        }
    }
    for plain in [name.to_uppercase(), format!("bob+{name}")] {
        client.post("/push", &push_of(&plain, 0, "").to_string()).ok();
        client.post("/pull", &json!({"recipient": plain}).to_string()).ok();
    }
}

#[test]
fn a_send_lock_keeps_others_from_pushing() {
    let server = server();
    let mut client = server.connect();
    let name = format!("{}+sha256:{}", name_of(1), encode(Digest::of_send_secret(&[2; 32]).as_bytes()));
    let push = push_of(&name, 0, "aGVsbG8=");
    assert_refused(&post(&mut client, "/push", "", &push), 401, "unauthorized", "no_proof");
    assert_refused(&post(&mut client, "/push", &secret(1), &push), 403, "forbidden", "wrong_proof");
    assert_eq!(post(&mut client, "/push", &secret(2), &push).ok()["stored"], true);
    let pull = json!({"recipient": name});
    assert_refused(&post(&mut client, "/pull", &secret(2), &pull), 403, "forbidden", "wrong_proof");
    post(&mut client, "/pull", &secret(1), &pull).ok();
}

#[test]
fn a_sender_does_not_learn_how_full_a_locked_queue_is() {
    let server = server();
    let mut client = server.connect();
    let name = name_of(1);
    for (index, payload) in [(0, "aGVsbG8="), (0, "aGVsbG8="), (0, "d29ybGQ="), (1, "aGVsbG8=")] {
        let pushed = client.post("/push", &push_of(&name, index, payload).to_string()).ok();
        assert_eq!((&pushed["queue_len"], &pushed["queue_bytes"]), (&json!(0), &json!(0)));
        assert!(pushed.get("conflict").is_none(), "it would show whether the item is still queued: {pushed}");
    }
    let full = client.post("/push", &push_of(&name, 2, "aGVsbG8=").to_string());
    full.assert_error(409, "quota_exceeded");
    assert_eq!(full.json()["error"]["details"], json!({"reason": "count", "limit": 2}));
    // The reader may.
    let again = post(&mut client, "/push", &secret(1), &push_of(&name, 0, "aGVsbG8="));
    assert_eq!(again.ok()["queue_len"], 2);
    let full = post(&mut client, "/push", &secret(1), &push_of(&name, 2, "aGVsbG8="));
    assert_eq!(full.json()["error"]["details"]["used"], 2);
}

/// Whether a queue exists shows in nothing that a stranger gets.
#[test]
fn refusals_are_the_same_for_queues_that_exist_and_others() {
    let server = server();
    let mut client = server.connect();
    client.post("/push", &push_of(&name_of(1), 0, "aGVsbG8=").to_string()).ok();
    for headers in [String::new(), secret(9), bearer("a.b.c")] {
        let [existing, missing] = [1, 2].map(|byte| {
            reads(&name_of(byte)).map(|(path, body)| {
                let Response { status, head, body } = post(&mut client, path, &headers, &body);
                let head: Vec<_> =
                    head.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
                (status, head, body)
            })
        });
        assert_eq!(existing, missing, "{headers}");
    }
}

#[test]
fn plain_names_can_be_closed() {
    let open = server();
    let basic = "authorization: Basic YTpi\r\n";
    let pull = json!({"recipient": "bob"});
    post(&mut open.connect(), "/pull", basic, &pull).ok();
    let closed = Server::with(memory(Limits::default()), locked(PlainNames::Deny));
    let mut client = closed.connect();
    for (path, body) in reads("bob").into_iter().chain([("/push", push_of("bob", 0, ""))]) {
        assert_refused(&post(&mut client, path, &secret(1), &body), 403, "forbidden", "plain_names_denied");
    }
    client.post("/push", &push_of(&name_of(1), 0, "aGVsbG8=").to_string()).ok();
    post(&mut client, "/pull", &secret(1), &json!({"recipient": name_of(1)})).ok();
}

#[test]
fn refusals_are_counted_by_reason_and_never_by_name() {
    let relay = memory(Limits::default());
    let server = Server::with(Arc::clone(&relay), locked(PlainNames::Open));
    let admin = Admin::start(&relay, &server.metrics);
    let mut client = server.connect();
    let pull = json!({"recipient": name_of(1)});
    post(&mut client, "/pull", "", &pull);
    post(&mut client, "/pull", "", &pull);
    post(&mut client, "/pull", &secret(2), &pull);
    let text = admin.get("/metrics").body;
    for line in [
        "relay_auth_refusals_total{reason=\"no_proof\"} 2\n",
        "relay_auth_refusals_total{reason=\"wrong_proof\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains(&name_of(1)) && !text.contains("sha256"), "{text}");
}
