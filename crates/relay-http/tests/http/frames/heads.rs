//! Tests of heads that are too large or ambiguous. The first frame announces the bounds.

use serde_json::json;

use super::wire::*;
use crate::support::push_of;

/// Sends a request with this head and returns the response.
fn ask(world: &Http2Server, flags: u8, fields: &[u8], body: &[u8]) -> Http2Response {
    let mut connection = world.open();
    assert!(connection.send(&frame(HEADERS, END_HEADERS | flags, 1, fields)));
    if flags & END_STREAM == 0 {
        assert!(connection.send(&frame(DATA, END_STREAM, 1, body)));
    }
    connection.response(1)
}

#[test]
fn the_first_frame_announces_the_bounds() {
    let world = Http2Server::new();
    let first = world.open().read().unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    let value_of = |id: u16| {
        let mut settings = first.payload.chunks(6);
        let setting = settings.find(|setting| setting[..2] == id.to_be_bytes()).unwrap();
        u32::from_be_bytes(setting[2..].try_into().unwrap())
    };
    assert_eq!((value_of(STREAMS_MAX), value_of(HEAD_MAX)), (128, 32 * 1024));
    assert!(value_of(INITIAL_WINDOW) <= 256 * 1024);
}

#[test]
fn a_head_of_more_than_32_kib_or_96_fields_is_431() {
    let world = Http2Server::new();
    let value = "v".repeat(100);
    let large: Vec<u8> = (0..90).flat_map(|_| field("x", &value)).collect();
    assert_eq!(ask(&world, END_STREAM, &[head("GET", "/health"), large].concat(), b"").status, 200);
    let fields = |count: usize| [head("GET", "/health"), field("x", "y").repeat(count)].concat();
    assert_eq!(ask(&world, END_STREAM, &fields(96), b"").status, 200);
    ask(&world, END_STREAM, &fields(97), b"").assert_error(431, "headers_too_large");
    ask(&world, END_STREAM, &fields(300), b"").assert_error(431, "headers_too_large");
    // Fields beyond the size are not kept, so the response can only report the size.
    let long = |count: usize| [head("GET", "/health"), field("x", &"v".repeat(120)).repeat(count)].concat();
    let split = |fields: Vec<u8>| -> Vec<u8> {
        let last = fields.len().div_ceil(16_000) - 1;
        let pieces = fields.chunks(16_000).enumerate();
        let frames = pieces.flat_map(|(at, piece)| {
            let end = if at == last { END_HEADERS } else { 0 };
            let (kind, flags) = if at == 0 { (HEADERS, END_STREAM | end) } else { (CONTINUATION, end) };
            frame(kind, flags, 1, piece)
        });
        frames.collect()
    };
    let mut connection = world.open();
    assert!(connection.send(&split(long(240))));
    assert_eq!(connection.end(), End::Answered(431));
    assert!(connection.send(&get(3)));
    assert_eq!(connection.response(3).status, 200, "the connection goes on");
    world.assert_refused("30,000 fields", &[split([head("GET", "/health"), vec![0x90; 30_000]].concat())]);
}

fn pseudo(method: &str, scheme: &str, authority: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", "/push")];
    fields.map(|(name, value)| field(name, value)).concat()
}

#[test]
fn ambiguous_requests_are_refused() {
    let world = Http2Server::new();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    let length = body.len().to_string();
    let good = pseudo("POST", "https", "localhost");
    let check = |what: &str, fields: Vec<u8>| {
        let response = ask(&world, 0, &fields, body.as_bytes());
        assert_eq!(response.status, 400, "{what}");
        response.assert_error(400, "invalid_input");
        world.assert_serves(what);
    };
    let content_length = field("content-length", &length);
    check("the same length twice", [&good[..], &content_length, &content_length].concat());
    check("two hosts", [&good[..], &field("host", "localhost").repeat(2)].concat());
    check(
        "two hosts that differ",
        [&good[..], &field("host", "localhost"), &field("host", "other")].concat(),
    );
    check("another host", [&good[..], &field("host", "other")].concat());
    check("another port", [&good[..], &field("host", "localhost:1")].concat());
    check("a host with a user", pseudo("POST", "https", "user@localhost"));
    check("another scheme", pseudo("POST", "ftp", "localhost"));
    let fields = [field(":method", "POST"), field(":scheme", "https"), field(":path", "/push")].concat();
    check("no host", fields.clone());
    check("an empty host", [&fields[..], &field("host", "")].concat());
    assert_eq!(world.server.metrics.counts().push_stored, 0);
    let response =
        ask(&world, 0, &[&good[..], &field("host", "LOCALHOST"), &content_length].concat(), body.as_bytes());
    assert_eq!(response.status, 200, "{:?}", String::from_utf8_lossy(&response.body));
}

#[test]
fn contradictory_requests_end_their_stream() {
    let world = Http2Server::new();
    let body = push_of("alice", 0, "aGVsbG8=").to_string();
    let length = body.len().to_string();
    let (good, content_length) = (pseudo("POST", "https", "localhost"), field("content-length", &length));
    for (what, fields) in [
        ("two lengths", [&good[..], &content_length, &field("content-length", "1")].concat()),
        ("a list of lengths", [&good[..], &field("content-length", &format!("{length}, {length}"))].concat()),
        ("a tunnel", [field(":method", "CONNECT"), field(":authority", "localhost:1")].concat()),
        ("a tunnel to a path", pseudo("CONNECT", "https", "localhost")),
        (
            "another protocol",
            [pseudo("CONNECT", "https", "localhost"), field(":protocol", "websocket")].concat(),
        ),
        ("a host that is none", pseudo("POST", "https", "a b")),
        ("an upgrade", [&good[..], &field("upgrade", "websocket")].concat()),
        ("an empty authority", pseudo("POST", "https", "")),
    ] {
        let frames = [frame(HEADERS, END_HEADERS, 1, &fields), frame(DATA, END_STREAM, 1, body.as_bytes())];
        world.assert_refused(what, &frames);
    }
    assert_eq!(world.server.metrics.counts().push_stored, 0);
}

/// The framework's own response in this case has no form in HTTP/2.
#[test]
fn a_response_before_the_body_keeps_the_connection_open() {
    let world = Http2Server::new();
    let mut connection = world.open();
    let push = |stream: u32, fields: &[u8]| unfinished_push(stream, fields);
    assert!(connection.send(&push(1, &field("content-type", "text/plain"))));
    connection.response(1).assert_error(415, "unsupported_media_type");
    assert!(connection.send(&push(3, &field("content-length", "99999999"))));
    connection.response(3).assert_error(413, "message_too_large");
    assert!(connection.send(&frame(HEADERS, END_HEADERS, 5, &head("POST", "/nope"))));
    connection.response(5).assert_error(404, "not_found");
    // Frames that were already sent are no error.
    assert!(connection.send(&frame(DATA, 0, 5, &[b'x'; 16_384]).repeat(8)));
    assert!(connection.send(&post(7, "/pull", &json!({"recipient": "alice"}))));
    assert_eq!(connection.response(7).status, 200);
}

/// The proof is read over HTTP/2 as over HTTP/1.1, also split or repeated.
#[test]
fn a_locked_recipient_opens_to_its_secret_only() {
    let world = Http2Server::new();
    let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let body = json!({"recipient": "sha256:MAnwSaLYK_Lpzqa_RV50Oonc9OCE9FWdzfIl0vbSFBQ"}).to_string();
    let pull = |proofs: &[&str]| {
        let proofs: Vec<u8> = proofs.iter().flat_map(|proof| field("authorization", proof)).collect();
        ask(&world, 0, &[head("POST", "/pull"), proofs].concat(), body.as_bytes())
    };
    let proof = format!("Bearer {secret}");
    assert_eq!(pull(&[&proof]).status, 200);
    pull(&[]).assert_error(401, "unauthorized");
    pull(&[&proof, &proof]).assert_error(401, "unauthorized");
    pull(&[&proof.replace("AAEC", "AAED")]).assert_error(403, "forbidden");
}
