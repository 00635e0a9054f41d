//! The page of the demonstration, as a browser gets it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{command, end, run};

const RELAY: &str = "http://127.0.0.1:7000";

const PAGE: &str = include_str!("../../../../deploy/demo/index.html");

const FILES: [(&str, &str, &str); 5] = [
    ("/?relay=http://127.0.0.1:7000", "text/html", PAGE),
    ("/style.css", "text/css", include_str!("../../../../deploy/demo/style.css")),
    ("/demo.js", "text/javascript", include_str!("../../../../deploy/demo/demo.js")),
    ("/seal.js", "text/javascript", include_str!("../../../../deploy/demo/seal.js")),
    ("/relay.js", "text/javascript", include_str!("../../../../deploy/demo/relay.js")),
];

/// The head and body of the answer to a request.
fn ask(address: &str, request: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: {host}\r\ncookie: a=b\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_browser_gets_the_files_of_the_page_with_strict_headers() {
    let mut serving = command(RELAY, &["demo", "--listen", "127.0.0.1:0", "--json"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let address = said["origin"].as_str().unwrap().strip_prefix("http://").unwrap();
    assert_eq!(
        (&said["relay"], &said["url"]),
        (&json!(RELAY), &json!(format!("http://{address}/?relay={RELAY}")))
    );

    let policy =
        PAGE.split_once("Content-Security-Policy\" content=\"").unwrap().1.split_once('"').unwrap().0;
    let policy = format!("content-security-policy: {policy}; frame-ancestors 'none'");
    let strict = [
        &policy,
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ];
    for (target, kind, text) in FILES {
        let (head, body) = ask(address, &format!("GET {target}"), address);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body == text, "{target}: {head}");
        for line in strict.into_iter().chain([&*format!("content-type: {kind}; charset=utf-8")]) {
            assert!(head.lines().any(|own| own == line), "{target}: {line}: {head}");
        }
    }
    let port = address.rsplit(':').next().unwrap();
    for (request, host, status) in [
        ("HEAD /demo.js", address, "200 OK"),
        ("GET /demo.js/..", address, "404 Not Found"),
        ("POST /", address, "405 Method Not Allowed"),
        ("GET /", &format!("localhost:{port}"), "421 Misdirected Request"),
    ] {
        let (head, body) = ask(address, request, host);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {head}");
        assert!(strict.iter().all(|line| head.contains(line)) && body.len() < 100, "{request}: {head}");
    }
    let pid = serving.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(end(serving).code, 0);
}

#[test]
fn the_page_is_for_this_machine_and_for_relays_that_it_may_reach() {
    for (url, listen, text) in [
        (RELAY, "0.0.0.0:0", "loopback addresses only"),
        (RELAY, "[::]:0", "loopback addresses only"),
        ("http://192.0.2.1:7000", "127.0.0.1:0", "pages reach a relay by https://"),
    ] {
        let refused = run(url, &["demo", "--listen", listen]);
        assert!(refused.code == 2 && refused.stderr.contains(text), "{refused:?}");
    }
}

#[test]
fn people_are_told_what_the_relay_needs() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(RELAY, &["demo", "--listen", &address]);
    assert!(refused.code == 1 && refused.stderr.contains("choose another port with --listen"), "{refused:?}");
    drop(taken);
    let mut serving = command(RELAY, &["demo", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let lines = BufReader::new(serving.stdout.as_mut().unwrap()).lines().take(4);
    let lines: Vec<String> = lines.map(Result::unwrap).collect();
    serving.kill().unwrap();
    serving.wait().unwrap();
    let origin = lines[1].trim().split_once("/?relay=").unwrap().0;
    assert_eq!(lines[3], format!("  RELAY__CORS__ALLOWED_ORIGINS={origin} relay-bin"), "{lines:?}");
}
