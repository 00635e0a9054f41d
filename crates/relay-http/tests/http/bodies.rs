//! Tests of request bodies: size, type, encoding, and bodies that are refused unread.

use relay_core::Limits;
use relay_http::Options;
use serde_json::{Value, json};

use crate::support::{Response, Server, gzip, memory, options, post_head, push_of};

const EIGHT_MIB: usize = 8 * 1024 * 1024;

/// Base64 of this many zero bytes.
fn base64_of_zeros(bytes: usize) -> String {
    let padding = ["", "==", "="][bytes % 3];
    let digits = (bytes * 4).div_ceil(3);
    format!("{}{padding}", "A".repeat(digits))
}

#[test]
fn a_payload_of_exactly_the_limit_is_accepted_and_comes_back() {
    let server = Server::start();
    let payload = base64_of_zeros(EIGHT_MIB);
    let mut client = server.connect();
    assert_eq!(
        client.post("/push", &push_of("alice", 0, &payload).to_string()).ok()["queue_bytes"],
        EIGHT_MIB
    );
    let page = client.post("/pull", r#"{"recipient":"alice"}"#).ok();
    assert!(page["items"][0]["ciphertext_b64"] == payload.as_str());
    let refused = client.post("/push", &push_of("alice", 1, &base64_of_zeros(EIGHT_MIB + 1)).to_string());
    assert_eq!(refused.assert_error(413, "message_too_large"), json!({"limit": EIGHT_MIB}));
    client.post("/pull", r#"{"recipient":"nobody"}"#).ok();
}

#[test]
fn a_page_has_at_least_one_item_and_no_more_than_fit() {
    let server = Server::with(memory(Limits { page_bytes_max: 10, ..Limits::default() }), options());
    for index in 0..3 {
        server.post("/push", &push_of("alice", index, &base64_of_zeros(20))).ok();
    }
    let page = server.post("/pull", &json!({"recipient": "alice"})).ok();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["remaining_estimate"]), (1, &json!(2)));
}

#[test]
fn a_body_too_large_is_refused_before_it_is_read() {
    let server = Server::start();
    for (path, limit) in [("/push", EIGHT_MIB), ("/pull", 8 * 1024), ("/ack", 2 * 1024 * 1024)] {
        let mut client = server.connect();
        client.send(post_head(path, "", 100 * EIGHT_MIB));
        let response = client.response();
        assert_eq!(response.assert_error(413, "message_too_large"), json!({"limit": limit}));
        assert!(response.closes());
    }
}

#[test]
fn a_client_that_still_sends_can_read_its_refusal() {
    let server = Server::start();
    let body = vec![b' '; 15 * 1024 * 1024];
    let refused = [
        ("/push", "", 413),
        ("/nope", "", 404),
        ("/health", "", 405),
        ("/push", "content-type: x/y\r\n", 415),
    ];
    for (path, headers, status) in refused {
        let mut client = server.connect();
        let response = client.post_with(path, headers, &body);
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.closes());
        client.assert_closed();
    }
}

#[test]
fn a_chunked_body_is_read_up_to_the_limit() {
    let server = Server::start();
    let head = "POST /push HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = server.connect();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    let (one, two) = body.split_at(body.len() / 2);
    client.send(format!("{head}{:x}\r\n{one}\r\n{:x};ext=1\r\n{two}\r\n0\r\n\r\n", one.len(), two.len()));
    client.response().ok();
    client.send(head);
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x0010_0000));
    for _ in 0..15 {
        client.try_send(chunk.as_bytes());
    }
    client.response().assert_error(413, "message_too_large");
}

#[test]
fn a_small_message_limit_still_allows_large_acks() {
    let options = Options { limits: Limits { message_bytes_max: 10, ..Limits::default() }, ..options() };
    let server = Server::with(memory(Limits { message_bytes_max: 10, ..Limits::default() }), options);
    server.post("/push", &push_of("alice", 0, &base64_of_zeros(10))).ok();
    let refused = server.post("/push", &push_of("alice", 1, &base64_of_zeros(11)));
    assert_eq!(refused.assert_error(413, "message_too_large"), json!({"limit": 10}));
    let spaces = " ".repeat(2 * 1024 * 1024);
    let response = server.connect().post("/ack", &format!(r#"{{"recipient":"alice","ack":[]{spaces}}}"#));
    assert_eq!(response.assert_error(413, "message_too_large"), json!({"limit": 2 * 1024 * 1024}));
    let response =
        server.connect().post("/ack", &format!(r#"{{"recipient":"alice","ack":[]{}}}"#, &spaces[100..]));
    response.ok();
}

#[test]
fn json_may_escape_its_base64() {
    let server = Server::start();
    let payload = "/".repeat(4 * 1024 * 1024);
    let slashes = push_of("alice", 0, &payload).to_string();
    server.connect().post("/push", &slashes.replace('/', "\\/")).ok();
    let page = server.post("/pull", &json!({"recipient": "alice"})).ok();
    assert!(page["items"][0]["ciphertext_b64"] == payload.as_str());
}

#[test]
fn a_body_may_be_gzip() {
    let server = Server::start();
    let mut client = server.connect();
    for (index, headers) in
        ["content-encoding: gzip\r\n", "Content-Encoding: X-GZip\r\n", "content-encoding: identity, gzip\r\n"]
            .into_iter()
            .enumerate()
    {
        let body = gzip(push_of("alice", u32::try_from(index).unwrap(), "aGVsbG8=").to_string().as_bytes());
        assert_eq!(client.post_with("/push", headers, &body).ok()["stored"], true);
    }
    let two_members = [gzip(b"{\"recipient\":"), gzip(b"\"alice\"}")].concat();
    let response = client.post_with("/pull", "content-encoding: gzip\r\n", &two_members);
    assert_eq!(response.ok()["items"].as_array().unwrap().len(), 3);
    assert_eq!(response.header("content-encoding"), None);
}

#[test]
fn the_limit_counts_unpacked_bytes() {
    let server = Server::start();
    let post = |body: &[u8]| server.connect().post_with("/push", "content-encoding: gzip\r\n", body);
    let bomb = gzip(&vec![b' '; 15 * 1024 * 1024]);
    assert!(bomb.len() < 100 * 1024);
    assert_eq!(post(&bomb).assert_error(413, "message_too_large"), json!({"limit": EIGHT_MIB}));
    let largest = push_of("alice", 0, &base64_of_zeros(EIGHT_MIB)).to_string();
    post(&gzip(largest.as_bytes())).ok();
}

#[test]
fn invalid_gzip_is_a_bad_request() {
    let server = Server::start();
    let packed = gzip(br#"{"recipient":"alice"}"#);
    let mut damaged = packed.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    for body in [&b"{\"recipient\":\"alice\"}"[..], &packed[..packed.len() - 1], &damaged, b""] {
        let response = server.connect().post_with("/pull", "content-encoding: gzip\r\n", body);
        response.assert_error(400, "invalid_input");
    }
}

#[test]
fn only_json_is_read() {
    let server = Server::start();
    let mut client = server.connect();
    let mut post = |headers: &str| client.post_with("/pull", headers, br#"{"recipient":"alice"}"#);
    for headers in [
        "",
        "content-type: application/json\r\n",
        "Content-Type: APPLICATION/JSON;charset=\"utf-8\"\r\n",
        "content-type: application/vnd.relay.v1+json\r\n",
        "content-encoding: identity\r\n",
    ] {
        post(headers).ok();
    }
    for headers in [
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: application/octet-stream\r\n",
        "content-type: \r\n",
    ] {
        post(headers).assert_error(415, "unsupported_media_type");
    }
    for headers in ["content-encoding: br\r\n", "content-encoding: gzip, gzip\r\n"] {
        let response: Response = post(headers);
        response.assert_error(415, "unsupported_media_type");
        assert_eq!(response.header("accept-encoding"), Some("gzip"));
    }
}

#[test]
fn a_client_with_expect_gets_a_100() {
    let server = Server::start();
    let mut client = server.connect();
    let body = r#"{"recipient":"alice"}"#;
    client.send(post_head("/pull", "expect: 100-continue\r\n", body.len()));
    assert_eq!(client.response_without_body().status, 100);
    client.send(body);
    assert_eq!(client.response().ok()["items"], Value::Array(Vec::new()));
}
