//! What an answer costs the process: it is short, and so is the memory behind it, whatever the
//! request holds.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use relay_tests::{Client, Process};

use crate::PROGRAM;

/// As long as a body may be with the shipped configuration, or nearly.
const UNPACKED_BYTES: usize = 13_900_000;

const REQUESTS: usize = 6;

const ANSWER_BYTES_MAX: usize = 2048;

/// What these bodies take while they are read, and what the process takes by itself.
const MEMORY_BYTES_MAX: u64 = 400 * 1024 * 1024;

/// A few kilobytes that unpack to a request with megabytes in place of a number. Each of the bytes
/// takes seven in a quotation.
fn bomb(begin: &str, end: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(begin.as_bytes()).unwrap();
    packed.write_all(&vec![0x7f; UNPACKED_BYTES]).unwrap();
    packed.write_all(end.as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// What such a request may be told.
const CODES: [&str; 3] = ["invalid_input", "message_too_large", "overloaded"];

#[test]
fn a_small_request_with_a_large_mistake_is_answered_in_short_and_takes_no_memory() {
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
        // All are sent before any answer is read: answers that wait for their reader would add up.
        let mut clients: Vec<Client> = (0..REQUESTS).map(|_| process.connect().unwrap()).collect();
        for client in &mut clients {
            client.send(head.as_bytes()).unwrap();
            client.send(&body).unwrap();
        }
        let answers: Vec<_> = clients.iter_mut().map(|client| client.receive().unwrap()).collect();
        for answer in &answers {
            assert!(CODES.contains(&answer.code().as_str()), "{path}: {answer:?}");
            assert!(
                answer.body.len() <= ANSWER_BYTES_MAX,
                "{path}: an answer of {} bytes",
                answer.body.len()
            );
        }
        // An ack of that size is refused unread.
        let is_read = answers.iter().any(|answer| answer.status == 400);
        assert_eq!(is_read, path == "/push", "{path}");
    }
    let taken = process.memory_bytes_max().unwrap();
    assert!(taken <= MEMORY_BYTES_MAX, "{taken} bytes");
}
