//! Tests of every row of the table of errors, and of the contents of error responses.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_core::{Error, Limits, Rejection};
use relay_http::Code;
use serde_json::{Value, json};

use crate::support::{Response, Server, Stub, memory, options, push_of};

/// Sends a request to each endpoint of a relay that always fails with `error`.
fn responses_to(error: impl Fn() -> Error + Send + Sync + 'static) -> Vec<Response> {
    let server = Server::with(Arc::new(Stub(move |_: &str| Err(error()))), options());
    vec![
        server.post("/push", &push_of("alice", 0, "")),
        server.post("/pull", &json!({"recipient": "alice"})),
        server.post("/ack", &json!({"recipient": "alice", "ack": []})),
    ]
}

#[test]
fn every_error_of_a_relay_has_its_status_and_code() {
    let retry_after = Duration::from_millis(2001);
    let check = |error: fn(Duration) -> Error, status, code, seconds: Option<&str>, details: Value| {
        for response in responses_to(move || error(retry_after)) {
            assert_eq!(response.assert_error(status, code), details);
            assert_eq!(response.header("retry-after"), seconds, "{response:?}");
        }
    };
    check(|_| Rejection::invalid("max", "no").into(), 400, "invalid_input", None, json!({"field": "max"}));
    check(|_| Rejection::Unauthorized.into(), 401, "unauthorized", None, Value::Null);
    check(|_| Rejection::Forbidden.into(), 403, "forbidden", None, Value::Null);
    let too_large = |_| Rejection::MessageTooLarge { limit: 9 }.into();
    check(too_large, 413, "message_too_large", None, json!({"limit": 9}));
    check(|_| Error::storage(io::Error::other("x")), 503, "storage_error", Some("1"), Value::Null);
    check(|_| Error::StorageFull, 507, "storage_full", Some("60"), Value::Null);
    check(|retry_after| Error::Overloaded { retry_after }, 503, "overloaded", Some("3"), Value::Null);
    check(|retry_after| Error::NotReady { retry_after }, 503, "not_ready", Some("3"), Value::Null);
}

#[test]
fn a_full_queue_reports_the_limit_and_the_usage() {
    let check = |limits, details: Value| {
        let server = Server::with(memory(limits), options());
        server.post("/push", &push_of("alice", 0, "aGVsbG8=")).ok();
        let refused = server.post("/push", &push_of("alice", 1, "aGVsbG8="));
        assert_eq!(refused.assert_error(409, "quota_exceeded"), details);
    };
    check(
        Limits { queue_items_max: 1, ..Limits::default() },
        json!({"reason": "count", "limit": 1, "used": 1}),
    );
    check(
        Limits { queue_bytes_max: 9, ..Limits::default() },
        json!({"reason": "bytes", "limit": 9, "used": 5}),
    );
}

#[test]
fn texts_of_store_errors_are_not_sent() {
    for response in responses_to(|| Error::storage(io::Error::other("/secret/relay.db: bad page 7"))) {
        assert!(!response.body.contains("secret") && !response.body.contains("page"), "{response:?}");
    }
}

#[test]
fn a_panic_fails_only_one_request() {
    let server = Server::with(
        Arc::new(Stub(|endpoint| if endpoint == "push" { panic!("no") } else { Ok(()) })),
        options(),
    );
    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.post("/push", &push_of("alice", 0, "").to_string());
        response.assert_error(500, "internal_error");
        assert!(!response.body.contains("panic"));
        client.post("/pull", r#"{"recipient":"alice"}"#).ok();
    }
}

#[test]
fn an_unknown_path_is_not_found() {
    let server = Server::start();
    for path in ["/", "/push/", "//push", "/Push", "/metrics", "/push%20", "/a?/push"] {
        server.get(path).assert_error(404, "not_found");
        server.post(path, &json!({})).assert_error(404, "not_found");
    }
}

#[test]
fn a_405_lists_the_allowed_methods() {
    let server = Server::start();
    let check = |method: &str, path, allow| {
        let response = server.connect().ask(&format!("{method} {path} HTTP/1.1\r\nhost: relay\r\n\r\n"));
        response.assert_error(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some(allow), "{method} {path}");
    };
    for path in ["/push", "/pull", "/ack"] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "post", "WHATEVER"] {
            check(method, path, "POST, OPTIONS");
        }
    }
    for path in ["/health", "/ready", "/stats", "/openapi.json"] {
        for method in ["POST", "PUT", "DELETE", "get"] {
            check(method, path, "GET, HEAD, OPTIONS");
        }
    }
}

#[test]
fn options_lists_the_methods_of_every_path() {
    let server = Server::start();
    let mut client = server.connect();
    for (path, allow) in [
        ("/push", "POST, OPTIONS"),
        ("/pull", "POST, OPTIONS"),
        ("/ack", "POST, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/ready", "GET, HEAD, OPTIONS"),
        ("/stats", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
    ] {
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nhost: relay\r\n\r\n"));
        let response = client.response_without_body();
        assert_eq!((response.status, response.header("allow")), (204, Some(allow)), "{path}");
    }
    client.ask("OPTIONS /nope HTTP/1.1\r\nhost: relay\r\n\r\n").assert_error(404, "not_found");
}

#[test]
fn no_response_is_cacheable() {
    let server = Server::start();
    for path in ["/health", "/ready", "/stats", "/openapi.json", "/nope", "/push"] {
        assert_eq!(server.get(path).header("cache-control"), Some("no-store"), "{path}");
    }
    let mut client = server.connect();
    assert_eq!(client.ask("GARBAGE\r\n\r\n").header("cache-control"), Some("no-store"));
}

#[test]
fn invalid_json_is_reported_with_line_and_column() {
    let server = Server::start();
    let check = |path, body: &str, details: Value, words: &str| {
        let response = server.connect().post(path, body);
        assert_eq!(response.assert_error(400, "invalid_input"), details, "{body}");
        assert!(response.json()["error"]["message"].as_str().unwrap().contains(words), "{response:?}");
    };
    let at = |line: u32, column: u32| json!({"line": line, "column": column});
    check("/pull", "", at(1, 0), "EOF");
    check("/pull", "{", at(1, 1), "line 1 column 1");
    check("/pull", "{\n  \"recipient\": }", at(2, 16), "line 2 column 16");
    check("/pull", r#"{"recipient":"a"} x"#, at(1, 19), "trailing characters");
    check("/pull", r#"{"recipient":"a","recipient":"b"}"#, at(1, 28), "duplicate field `recipient`");
    check("/pull", r#"{"recipient":"a","max":1,"max":null}"#, at(1, 30), "duplicate field `max`");
    check(
        "/ack",
        r#"{"recipient":"a","ack":[{"message_id":"x"}]}"#,
        at(1, 42),
        "missing field `chunk_index`",
    );
    check("/ack", &format!("{{\"x\":{}", "[".repeat(10_000)), at(1, 10_005), "EOF");
    let response = server.connect().post_with("/pull", "", b"{\"recipient\":\"\xff\"}");
    response.assert_error(400, "invalid_input");
}

#[test]
fn an_invalid_value_is_reported_with_field_and_rule() {
    let server = Server::start();
    let check = |path, body: &str, (field, column): (&str, u32), words: &str| {
        let response = server.connect().post(path, body);
        let details = json!({"line": 1, "column": column, "field": field});
        assert_eq!(response.assert_error(400, "invalid_input"), details, "{body}");
        let message = format!("{field}: expected {words} at line 1 column {column}");
        assert_eq!(response.json()["error"]["message"], message);
    };
    let positive = "a positive whole number";
    check("/pull", r#"{"recipient":5}"#, ("recipient", 14), "a string, found a number");
    check("/pull", r#"{"recipient":"a","max":"1"}"#, ("max", 26), &format!("{positive}, found a string"));
    check(
        "/pull",
        r#"{"recipient":"a","max":-1}"#,
        ("max", 25),
        &format!("{positive}, found a negative number"),
    );
    check("/ack", r#"{"recipient":"a","ack":{}}"#, ("ack", 25), "an array of objects, found an object");
    let times = push_of("a", 0, "").to_string().replace(r#""sent_ms":7"#, r#""sent_ms":1e3"#);
    let column = u32::try_from(times.find("1e3").unwrap() + 3).unwrap();
    let words =
        "a whole number from 0 to 18446744073709551615, found a number with a fraction or an exponent";
    check("/push", &times, ("meta.sent_ms", column), words);
}

#[test]
fn a_byte_order_mark_is_reported() {
    let server = Server::start();
    let response = server.connect().post("/pull", "\u{feff}{\"recipient\":\"a\"}");
    assert_eq!(response.assert_error(400, "invalid_input"), json!({"line": 1, "column": 1}));
    assert!(
        response.json()["error"]["message"].as_str().unwrap().contains("byte order mark"),
        "{response:?}"
    );
}

#[test]
fn an_invalid_field_is_named() {
    let server = Server::start();
    let check = |path, body: Value, field: &str| {
        assert_eq!(server.post(path, &body).assert_error(400, "invalid_input"), json!({"field": field}));
    };
    check("/pull", json!({"recipient": " "}), "recipient");
    check("/pull", json!({"recipient": "a", "max": 0}), "max");
    check("/push", push_of("", 0, ""), "recipient");
    check("/push", push_of("a", 0, "x"), "ciphertext_b64");
    check("/push", push_of("a", 1000, ""), "meta.chunk_index");
    check("/ack", json!({"recipient": "a", "ack": [{"message_id": "x", "chunk_index": 0}]}), "message_id");
}

#[test]
fn a_recipient_may_be_any_text() {
    let server = Server::start();
    for recipient in ["a:b/c", "\"\\\u{0}", "🦀🦀", " x ", &"ä".repeat(256)] {
        server.post("/push", &push_of(recipient, 0, "")).ok();
        let page = server.post("/pull", &json!({"recipient": recipient})).ok();
        assert_eq!(page["items"][0]["recipient"], recipient);
    }
}

#[test]
fn the_codes_are_those_of_the_document() {
    let listed: BTreeSet<_> = Code::ALL.iter().map(|code| (code.as_str(), code.status())).collect();
    let contract = BTreeSet::from([
        ("invalid_input", 400),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("not_found", 404),
        ("method_not_allowed", 405),
        ("request_timeout", 408),
        ("quota_exceeded", 409),
        ("message_too_large", 413),
        ("unsupported_media_type", 415),
        ("headers_too_large", 431),
        ("rate_limited", 429),
        ("internal_error", 500),
        ("storage_error", 503),
        ("overloaded", 503),
        ("draining", 503),
        ("not_ready", 503),
        ("storage_full", 507),
    ]);
    assert_eq!(listed, contract);
}

#[test]
fn the_document_lists_every_code_with_its_status() {
    let document = include_str!("../../../../docs/api.md");
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let code = cells.next()?.trim().trim_end_matches('`');
        Some((code, cells.next()?.trim().parse::<u16>().ok()?))
    };
    let documented: BTreeSet<_> = document.lines().filter_map(row).collect();
    let listed: BTreeSet<_> = Code::ALL.iter().map(|code| (code.as_str(), code.status())).collect();
    assert_eq!(documented, listed);
}
