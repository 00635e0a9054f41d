//! Tests of `relay-bin health` against relays and against what is none.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use relay_tests::Process;
use relay_tests::process::{ADMIN_ADDRESS, ProcessOutput};

use super::text;
use crate::PROGRAM;
use crate::tls::pki::{Authority, TlsFiles};

/// Runs `health` for a relay with this address.
fn health(address: &str, arguments: &[&str], admin: &str) -> ProcessOutput {
    let all = [&["health", "--address", address], arguments].concat();
    Process::run(PROGRAM, &all, &[(ADMIN_ADDRESS, admin)]).unwrap()
}

#[track_caller]
fn assert_healthy(ended: &ProcessOutput, line: &str) {
    assert_eq!((ended.stderr.as_str(), ended.stdout.trim_end()), ("", line));
    assert_eq!(ended.status.code(), Some(0));
}

#[track_caller]
fn assert_unhealthy(ended: &ProcessOutput, line: &str) {
    assert_eq!((ended.stdout.as_str(), ended.stderr.trim_end()), ("", line));
    assert_eq!(ended.status.code(), Some(1));
}

/// Starts a relay in the directory of `address`, or on this address.
fn start(directory: &tempfile::TempDir, address: &str) -> Process {
    let store = directory.path().join("store");
    Process::start(PROGRAM, &["--address", address, "--storage-path", text(&store)]).unwrap()
}

#[test]
fn a_relay_is_asked_on_its_port() {
    let directory = tempfile::tempdir().unwrap();
    let process = start(&directory, "0.0.0.0:0");
    let address = process.base_url.strip_prefix("http://").unwrap().to_owned();
    assert_healthy(&health(&address, &[], ""), &format!("http://{address} answered 200 to /health"));
    assert_healthy(&health(&address, &["--ready"], ""), &format!("http://{address} answered 200 to /ready"));
    drop(process);
    // No other test uses this address, so nobody else gets the port.
    let mut process = start(&directory, "127.86.1.1:0");
    let address = process.base_url.strip_prefix("http://").unwrap().to_owned();
    process.kill().unwrap();
    let expected = format!("no answer from http://{address}: Connection refused (os error 111)");
    assert_unhealthy(&health(&address, &[], ""), &expected);
}

#[test]
fn a_relay_is_asked_on_its_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("relay.sock").display());
    let process = start(&directory, &address);
    assert_healthy(&health(&address, &["--ready"], ""), &format!("{address} answered 200 to /ready"));
    drop(process);
    let expected = format!("no answer from {address}: Connection refused (os error 111)");
    assert_unhealthy(&health(&address, &[], ""), &expected);
}

#[test]
fn a_relay_with_tls_is_asked_whatever_its_certificate() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.expired_identity());
    let config = files.add("relay.toml", &format!("storage.kind = \"memory\"\n{}", files.lines()));
    let mut process = Process::start(PROGRAM, &["--config", text(&config)]).unwrap();
    let address = process.base_url.strip_prefix("https://").unwrap().to_owned();
    let ask = || health(&address, &["--config", text(&config)], "");
    assert_healthy(&ask(), &format!("https://{address} answered 200 to /health"));

    // The relay has not read the new files yet.
    files.replace(&authority.identity());
    assert_healthy(&ask(), &format!("https://{address} answered 200 to /health"));
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn the_admin_address_is_asked_first_and_its_refusal_is_shown() {
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = admin.local_addr().unwrap().to_string();
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n{\"error\":{\"details\":{\"reason\":\"starting\"}}}",
        b"220 mail.example.org ESMTP\r\n",
    ];
    let responder = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = admin.accept().unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n"));
            stream.write_all(answer).unwrap();
        }
        // The third connection gets no answer.
        admin
    });
    for line in [
        "503 Service Unavailable {\"error\":{\"details\":{\"reason\":\"starting\"}}}",
        "something that is not HTTP/1.1",
    ] {
        let expected = format!("http://{address} answered {line}");
        assert_unhealthy(&health("127.0.0.1:1", &["--ready"], &address), &expected);
    }
    let _admin = responder.join().unwrap();
    let expected = format!("no answer from http://{address}: it took too long");
    assert_unhealthy(&health("127.0.0.1:1", &["--ready"], &address), &expected);
}
