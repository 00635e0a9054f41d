//! Generated requests: bodies, headers, paths, and heads that are not HTTP. No response is a 5xx,
//! each body is JSON, and the relay keeps serving.

use std::io;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use relay_tests::{Client, Relay, Response, at_length, push_body};
use serde_json::{Value, json};

const THREADS: u8 = 4;

/// A generated request.
#[derive(Clone, Debug)]
struct Case {
    bytes: Vec<u8>,
    /// Head and body are complete, so there must be a response.
    complete: bool,
}

#[test]
fn malformed_requests_are_refused_in_json_and_do_no_harm() {
    let relay = Relay::with(|config| config.relay.max_message_bytes = 10_000);
    let cases = at_length(200_000, 8_000) / usize::from(THREADS);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let relay = &relay;
            scope.spawn(move || send_all(relay, seed, cases));
        }
    });
    let mut client = relay.connect().unwrap();
    assert_eq!(client.get("/health").unwrap().status, 200);
    assert_eq!(client.post("/push", &push_body("alice", 1, b"hello")).unwrap().json()["stored"], true);
}

fn send_all(relay: &Relay, seed: u8, cases: usize) {
    println!("seed {seed}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = case();
    let mut client = relay.connect().unwrap();
    for _ in 0..cases {
        let case = strategy.new_tree(&mut runner).unwrap().current();
        let response = exchange(&mut client, &case);
        let closes = |response: &Response| response.header("connection") == Some("close");
        match &response {
            Ok(response) => check(&case, response),
            Err(error) => assert!(!case.complete, "no response ({error}) to {}", show(&case)),
        }
        if !case.complete || response.as_ref().is_ok_and(closes) {
            client = relay.connect().unwrap();
        }
    }
}

fn exchange(client: &mut Client, case: &Case) -> io::Result<Response> {
    client.send(&case.bytes)?;
    if !case.complete {
        client.finish()?;
    }
    client.receive()
}

fn check(case: &Case, response: &Response) {
    let status = response.status;
    assert!((200..500).contains(&status), "{status} to {}", show(case));
    if status == 204 {
        assert!(response.header("allow").is_some() && response.body.is_empty(), "204 to {}", show(case));
        return;
    }
    assert_eq!(response.header("content-type"), Some("application/json"), "{status} to {}", show(case));
    let body: Result<Value, _> = serde_json::from_slice(&response.body);
    let body = body
        .unwrap_or_else(|error| panic!("{status} with a body that is not JSON ({error}) to {}", show(case)));
    let is_error = body["error"]["code"].is_string() && body["error"]["message"].is_string();
    assert_eq!(is_error, status >= 400, "{status} with {body} to {}", show(case));
}

fn show(case: &Case) -> String {
    String::from_utf8_lossy(&case.bytes).chars().take(2000).collect()
}

fn case() -> impl Strategy<Value = Case> {
    let framed = (method(), path(), vec(header(), 0..4), body());
    let framed = framed.prop_map(|(method, path, headers, body)| Case {
        bytes: request(&method, &path, &headers, &body),
        complete: true,
    });
    let flipped =
        (body(), vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)).prop_map(|(body, flips)| {
            let mut bytes = request(b"POST", b"/push", &[], &body);
            for (index, byte) in flips {
                *index.get_mut(&mut bytes) = byte;
            }
            Case { bytes, complete: false }
        });
    let garbage = vec(any::<u8>(), 1..300).prop_map(|bytes| Case { bytes, complete: false });
    let framing = (framing(), body()).prop_map(|(header, body)| {
        let mut bytes = b"POST /push HTTP/1.1\r\nhost: relay\r\n".to_vec();
        bytes.extend([header.as_bytes(), b"\r\n\r\n", &body].concat());
        Case { bytes, complete: false }
    });
    prop_oneof![12 => framed, 1 => flipped, 1 => garbage, 1 => framing]
}

fn request(method: &[u8], path: &[u8], headers: &[(String, Vec<u8>)], body: &[u8]) -> Vec<u8> {
    let mut bytes = [method, b" ", path, b" HTTP/1.1\r\nhost: relay\r\n"].concat();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// HEAD is excluded, since its responses have no body to check.
fn method() -> impl Strategy<Value = Vec<u8>> {
    let odd = "[!-~]{1,10}".prop_filter("HEAD has no body", |method| method != "HEAD");
    prop_oneof![8 => Just("POST".to_owned()), 2 => Just("GET".to_owned()),
        1 => prop::sample::select(vec!["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "PROPFIND"])
            .prop_map(str::to_owned),
        1 => odd]
    .prop_map(String::into_bytes)
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "/push",
        "/pull",
        "/ack",
        "/push",
        "/pull",
        "/ack",
        "/health",
        "/stats",
        "/",
        "//push",
        "/push/",
        "/push?x=1",
        "/push#x",
        "/%70ush",
        "/push%00",
        "/%",
        "/%zz",
        "*",
        "http://relay/push",
        "/../push",
        "push",
        "/push;a=b",
    ]);
    let odd = vec(any::<u8>().prop_filter("stays in its line", |byte| !b"\r\n".contains(byte)), 1..40);
    prop_oneof![9 => known.prop_map(|path| path.as_bytes().to_vec()), 1 => odd]
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop::sample::select(vec![
        "content-type",
        "content-type",
        "content-encoding",
        "accept",
        "accept-encoding",
        "x-forwarded-for",
        "forwarded",
        "authorization",
        "cookie",
        "range",
        "if-match",
        "x-odd",
        "te",
        "origin",
    ]);
    let known = prop::sample::select(vec![
        "application/json",
        "text/plain",
        "application/x+json; charset=utf-8",
        "application/json;;",
        "gzip",
        "x-gzip",
        "identity",
        "gzip, gzip",
        "br",
        "for=\"[::1]:x\"",
        "1.2.3.4, ,",
        "bytes=0-1",
        "",
        "*/*",
    ]);
    let odd = vec(any::<u8>().prop_filter("stays in its line", |byte| !b"\r\n".contains(byte)), 0..30);
    let value = prop_oneof![4 => known.prop_map(|value| value.as_bytes().to_vec()), 1 => odd];
    (name.prop_map(str::to_owned), value)
}

/// Headers that frame the body wrongly.
fn framing() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("transfer-encoding: chunked".to_owned()),
        Just("transfer-encoding: chunked\r\ncontent-length: 5".to_owned()),
        Just("transfer-encoding: gzip, chunked".to_owned()),
        Just("transfer-encoding: banana".to_owned()),
        Just("content-length: 5\r\ncontent-length: 6".to_owned()),
        Just("content-length: 99999999999999999999999".to_owned()),
        Just("expect: 100-continue\r\ncontent-length: 3".to_owned()),
        Just("connection: upgrade\r\nupgrade: h2c".to_owned()),
        "content-length: [-+ 0-9a-f]{0,6}",
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let valid = prop::sample::select(vec![valid_push(), valid_pull(), valid_ack()]);
    let replaced =
        (valid.clone(), any::<prop::sample::Index>(), json_value()).prop_map(|(mut body, field, value)| {
            let names: Vec<String> = body.as_object().unwrap().keys().cloned().collect();
            body[field.get(&names)] = value;
            body.to_string().into_bytes()
        });
    let meta = (
        prop::sample::select(vec!["kind", "total_len", "chunk_index", "chunk_count", "sent_ms"]),
        json_value(),
    )
        .prop_map(|(field, value)| {
            let mut body = valid_push();
            body["meta"][field] = value;
            body.to_string().into_bytes()
        });
    let cut = (valid.clone(), any::<prop::sample::Index>()).prop_map(|(body, at)| {
        let bytes = body.to_string().into_bytes();
        bytes[..at.index(bytes.len())].to_vec()
    });
    let special = prop::sample::select(vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        vec![b'['; 5000],
        b"{\"recipient\":\"\\ud800\"}".to_vec(),
        b"{\"recipient\":\"a\",\"recipient\":\"b\"}".to_vec(),
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(),
        vec![b'x'; 40_000],
        b"{\"a\":1e999}".to_vec(),
    ]);
    prop_oneof![
        3 => replaced, 2 => meta, 2 => cut, 2 => special,
        1 => json_value().prop_map(|value| value.to_string().into_bytes()),
        1 => vec(any::<u8>(), 0..200), 1 => valid.prop_map(|body| body.to_string().into_bytes()),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,20}".prop_map(Value::from),
        Just(Value::from("x".repeat(600))),
        "[A-Za-z0-9+/=]{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((".{0,6}", inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn valid_push() -> Value {
    push_body("alice", 7, b"hello")
}

fn valid_pull() -> Value {
    relay_tests::pull_body("alice", None, Some(3))
}

fn valid_ack() -> Value {
    relay_tests::ack_body("alice", &[7])
}
