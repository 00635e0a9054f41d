//! Error responses are short and take little memory, whatever the request contains.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use relay_tests::{Client, Process};

use crate::PROGRAM;

/// Nearly the longest body that the shipped configuration allows.
const UNPACKED_BYTES: usize = 13_900_000;

const REQUESTS: usize = 6;

const RESPONSE_BYTES_MAX: usize = 2048;

/// The memory of these bodies while they are read, and of the process itself.
const MEMORY_BYTES_MAX: u64 = 400 * 1024 * 1024;

/// A few kilobytes that decompress to megabytes in place of a number. Each byte is escaped as seven
/// when quoted.
fn bomb(begin: &str, end: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(begin.as_bytes()).unwrap();
    packed.write_all(&vec![0x7f; UNPACKED_BYTES]).unwrap();
    packed.write_all(end.as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// The error codes that such a request may get.
const CODES: [&str; 3] = ["invalid_input", "message_too_large", "overloaded"];

#[test]
fn a_compressed_request_with_a_large_error_gets_a_short_response() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start_on(PROGRAM, directory.path(), &[]).unwrap();
    for (path, begin, end) in [
        ("/push", r#"{"meta":""#, r#""}"#),
        ("/ack", r#"{"recipient":"a","ack":""#, r#""}"#),
        ("/ack", r#"{"recipient":"a","ack":[{""#, r#"":1}]}"#),
    ] {
        let body = bomb(begin, end);
        assert!(body.len() < 16 * 1024, "{} bytes", body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // All requests are sent before any response is read, so that responses in memory would add
        // up.
        let mut clients: Vec<Client> = (0..REQUESTS).map(|_| process.connect().unwrap()).collect();
        for client in &mut clients {
            client.send(head.as_bytes()).unwrap();
            client.send(&body).unwrap();
        }
        let responses: Vec<_> = clients.iter_mut().map(|client| client.receive().unwrap()).collect();
        for response in &responses {
            assert!(CODES.contains(&response.code().as_str()), "{path}: {response:?}");
            assert!(
                response.body.len() <= RESPONSE_BYTES_MAX,
                "{path}: a response of {} bytes",
                response.body.len()
            );
        }
        // An ack of that size is refused unread.
        let is_read = responses.iter().any(|response| response.status == 400);
        assert_eq!(is_read, path == "/push", "{path}");
    }
    let memory_bytes = process.memory_bytes_max().unwrap();
    assert!(memory_bytes <= MEMORY_BYTES_MAX, "{memory_bytes} bytes");
}
