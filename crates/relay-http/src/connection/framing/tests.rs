//! Accepted and refused requests, in one piece and in many.

use super::*;
use crate::api::limits::{FIELDS_MAX, HEAD_BYTES_MAX};

/// Reads the input in pieces of `piece` bytes, and returns what is passed on.
fn read(input: &[u8], piece: usize) -> Result<Vec<u8>, Malformed> {
    let (mut framing, mut waiting, mut passed_on) = (Framing::new(), Vec::new(), Vec::new());
    for bytes in input.chunks(piece) {
        waiting.extend_from_slice(bytes);
        let read = framing.read(&mut waiting)?;
        passed_on.extend(waiting.drain(..read));
    }
    Ok(passed_on)
}

/// Reads the input in pieces of every size up to 40 bytes, and in one piece.
fn check(input: &[u8], expected: Result<&[u8], ()>) {
    for piece in (1..=input.len().min(40)).chain([input.len()]) {
        let read = read(input, piece);
        let shown = String::from_utf8_lossy(input);
        assert_eq!(read.as_deref().map_err(|_| ()), expected, "{shown:?} in pieces of {piece}");
    }
}

fn passes(input: &str) {
    check(input.as_bytes(), Ok(input.as_bytes()));
}

fn is_refused(input: &str) {
    check(input.as_bytes(), Err(()));
}

#[test]
fn well_formed_requests_pass_unchanged() {
    passes("GET /health HTTP/1.1\r\nhost: relay\r\n\r\n");
    passes("GET /health HTTP/1.0\r\n\r\n");
    passes("\r\nGET /health HTTP/1.1\r\nHost: relay:7000\r\n\r\n");
    passes("OPTIONS * HTTP/1.1\r\nhost: [::1]:7000\r\n\r\n");
    passes("GET http://relay/health HTTP/1.1\r\nhost: relay\r\nx:\r\ny: \u{e9}\t\r\n\r\n");
    passes("POST /pull HTTP/1.1\r\nhost: relay\r\nContent-Length: 5\r\n\r\nhello");
    passes(
        "POST /pull HTTP/1.1\r\nhost: relay\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n",
    );
    passes(
        "POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n1;x=y;z\r\na\r\n0;\r\n\r\n",
    );
    passes("POST /pull HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n000\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn the_next_request_waits_until_the_first_is_answered() {
    let one = b"POST /pull HTTP/1.1\r\nhost: relay\r\ncontent-length: 2\r\n\r\n{}";
    let mut input = one.repeat(2);
    let mut framing = Framing::new();
    assert_eq!(framing.read(&mut input), Ok(one.len()));
    assert!(framing.is_complete());
    assert_eq!(framing.read(&mut input[one.len()..]), Ok(0));
    framing.next_request();
    assert_eq!(framing.read(&mut input[one.len()..]), Ok(one.len()));
}

#[test]
fn ambiguous_fields_are_refused() {
    let head = |fields: &str| format!("POST /pull HTTP/1.1\r\nhost: relay\r\n{fields}\r\n\r\n");
    for fields in [
        "x: y\ntransfer-encoding: chunked",
        "x: a\rb",
        "x: a\0b",
        "x: a\u{7f}b",
        "x : y",
        " x: y",
        "x: y\r\n z",
        "no colon",
        ": y",
        "h\u{e9}: y",
        "host: relay",
        "content-length: 1\r\ncontent-length: 1",
        "content-length: 1, 1",
        "content-length: +1",
        "content-length: 0x1",
        "content-length: ",
        "content-length: 18446744073709551616",
        "content-length: 1\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: identity",
        "transfer-encoding: \u{b}chunked",
        "upgrade: websocket",
        "upgrade: x\r\nupgrade: h2c, WebSocket/13",
    ] {
        is_refused(&head(fields));
    }
}

#[test]
fn malformed_request_lines_and_hosts_are_refused() {
    for line in [
        "GET /health",
        "GET /health HTTP/1.1 ",
        "GET  /health HTTP/1.1",
        "GET /hea lth HTTP/1.1",
        "GET\t/health HTTP/1.1",
        "GET /health HTTP/1.2",
        "GET /health http/1.1",
        "GET health HTTP/1.1",
        "GET /#x HTTP/1.1",
        "GET ftp://relay/ HTTP/1.1",
        "GET http://other/ HTTP/1.1",
        "GET http://a@relay/ HTTP/1.1",
        "CONNECT relay:80 HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "",
        "\r\n",
    ] {
        is_refused(&format!("{line}\r\nhost: relay\r\n\r\n"));
    }
    for host in ["", "a b", "a@b", "a/b", "[::1", "a:b", "a:123456", "[g]"] {
        is_refused(&format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    }
    is_refused("GET / HTTP/1.1\r\n\r\n");
    is_refused("GET / HTTP/1.1\nhost: relay\n\n");
    is_refused("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n");
}

#[test]
fn ambiguous_chunked_bodies_are_refused() {
    for body in [
        "0\r\n\n",
        "0\n\r\n",
        "\r\n",
        "g\r\n",
        "+1\r\na\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "1;x=\"\r\n",
        "1;x y\r\na\r\n",
        "1;x\ny\r\na\r\n",
        ";x\r\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "2\r\na\r\n0\r\n\r\n",
        "00000000000000000\r\n\r\n",
        "ffffffffffffffff\r\n",
        "0\r\ncontent-length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nx: a\0b\r\n\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\n folded\r\n\r\n",
    ] {
        is_refused(&format!("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n{body}"));
    }
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(65));
    is_refused(&format!("POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n{long}"));
    let endless = "x: y\r\n".repeat(10_000);
    is_refused(&format!(
        "POST / HTTP/1.1\r\nhost: relay\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{endless}"
    ));
}

#[test]
fn the_size_of_a_head_is_limited() {
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nhost: relay\r\n{}\r\n", "x: y\r\n".repeat(count));
    passes(&fields(FIELDS_MAX - 1));
    assert_eq!(read(fields(FIELDS_MAX).as_bytes(), 1000), Err(Malformed::HeadTooLarge));
    let long = |bytes: usize| {
        let begin = "GET / HTTP/1.1\r\nhost: relay\r\nx: ";
        format!("{begin}{}\r\n\r\n", "y".repeat(bytes - begin.len() - 4))
    };
    assert!(read(long(HEAD_BYTES_MAX).as_bytes(), 4096).is_ok());
    for piece in [1024, 4096, 100_000] {
        assert_eq!(read(long(HEAD_BYTES_MAX + 1).as_bytes(), piece), Err(Malformed::HeadTooLarge));
    }
    assert_eq!(read(&vec![b'x'; HEAD_BYTES_MAX + 1], 4096), Err(Malformed::HeadTooLarge));
}

#[test]
fn an_expectation_is_noted_and_hidden_from_the_framework() {
    let request = |fields: &str| format!("POST / HTTP/1.1\r\nhost: relay\r\n{fields}\r\n\r\n").into_bytes();
    let mut input = request("Expect: 100-Continue\r\ncontent-length: 5");
    let mut framing = Framing::new();
    assert_eq!(framing.read(&mut input), Ok(input.len()));
    assert!(!String::from_utf8(input).unwrap().to_ascii_lowercase().contains("expect"));
    assert!(framing.take_awaits_continue() && !framing.take_awaits_continue());
    let mut list = request("expect: 100-continue, x\r\ncontent-length: 5");
    Framing::new().read(&mut list).unwrap();
    assert!(
        !String::from_utf8(list).unwrap().contains("expect"),
        "the framework would send 100 Continue at once"
    );
    for without in ["expect: 100-continue", "expect: 200-ok\r\ncontent-length: 5", "content-length: 5"] {
        let mut framing = Framing::new();
        framing.read(&mut request(without)).unwrap();
        assert!(!framing.take_awaits_continue(), "{without}");
    }
}
