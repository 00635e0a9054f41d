//! Tests of the log: its format, its contents, and what it must never contain.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use relay_tests::{Client, Process, ack_body, push_body};
use serde_json::Value;

use super::{recipient, text};
use crate::PROGRAM;

/// Words that only clients send, distinct so that each can be found.
const RECIPIENT: &str = "recipient-9f1c";
const PATH: &str = "path-6b02";
const CLIENT: &str = "203.0.113.77";
const PAYLOAD: &str = "payload-44d7";

/// Small limits, so that every kind of refusal occurs.
const STRICT: &str = "relay = { max_message_bytes = 100, max_messages_per_user = 2 }\n\
    server.request_timeout_seconds = 1\n\
    [rate_limit]\nper_ip_rps = 1\nburst = 60\nban_threshold = 1\nmax_wait_ms = 0\ntrusted_proxies = [\"127.0.0.1\"]\n\
    endpoints = { push_rps = 1, pull_rps = 1, ack_rps = 1 }\n";

struct LogDirectory(tempfile::TempDir);

impl LogDirectory {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        std::fs::write(directory.path("relay.toml"), STRICT).unwrap();
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a relay while `act` runs, stops it, and returns the lines of its log.
    fn log_of(&self, arguments: &[&str], filter: Option<&str>, act: impl FnOnce(&Process)) -> Vec<String> {
        let (config, store, log) = (self.path("relay.toml"), self.path("store"), self.path("log"));
        let arguments = [&["--config", text(&config), "--storage-path", text(&store)], arguments].concat();
        let environment: Vec<_> = filter.map(|filter| ("RUST_LOG", filter)).into_iter().collect();
        let mut process = Process::start_logging(PROGRAM, &arguments, &environment, &log).unwrap();
        act(&process);
        process.signal("TERM").unwrap();
        assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
        assert_eq!(process.rest_of_stdout().unwrap(), "");
        lines(&log)
    }
}

fn lines(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn lines_are_json_without_a_terminal() {
    for arguments in [[].as_slice(), &["--log-format", "auto"], &["--log-format", "json"]] {
        let mut url = String::new();
        let lines = LogDirectory::new().log_of(arguments, None, |process| url.clone_from(&process.base_url));
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["target"].is_string()));
        let serving = lines.iter().find(|line| line["message"] == "serving").expect("no line \"serving\"");
        assert_eq!((&serving["level"], &serving["url"]), (&Value::from("INFO"), &Value::from(url)));
        assert_eq!(lines.last().unwrap()["message"], "stopped");
    }
}

#[test]
fn lines_are_text_on_request() {
    let lines = LogDirectory::new().log_of(&["--log-format", "text"], None, |_| {});
    let warnings =
        ["relay_bin::program: running as root", "relay_bin::running::durable: the key file lies in"];
    let is_warning =
        |line: &String| warnings.iter().any(|warning| line.contains(&format!(" WARN {warning}")));
    let is_text = |line: &String| line.contains(" INFO ") || is_warning(line);
    assert!(lines.iter().all(|line| !line.starts_with('{') && is_text(line)), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "no colours in a file: {lines:?}");
    assert!(lines.iter().any(|line| line.contains("serving")));
}

#[test]
fn the_filter_applies() {
    assert_eq!(LogDirectory::new().log_of(&[], Some("error"), |_| {}), Vec::<String>::new());
    let debug = LogDirectory::new().log_of(&[], Some("relay_http=debug"), |process| {
        assert_eq!(process.connect().unwrap().get("/nowhere").unwrap().status, 404);
    });
    assert!(debug.iter().any(|line| line.contains("not_found")), "{debug:?}");
}

#[test]
fn an_empty_or_invalid_filter_is_ignored() {
    let count_lines = |filter, message: &str| {
        let log = LogDirectory::new().log_of(&[], Some(filter), |_| {});
        log.iter().filter(|line| line.contains(message)).count()
    };
    for filter in ["", " ", "nonsense!", "verbose", "relay_http=verbose"] {
        assert_eq!(count_lines(filter, "\"serving\""), 1, "{filter:?}");
        let odd = usize::from(!filter.trim().is_empty());
        assert_eq!(count_lines(filter, "has invalid parts"), odd, "{filter:?}");
    }
    assert_eq!(
        count_lines("error,relay_http=verbose", "relay_http=verbose"),
        1,
        "the log names the invalid directive"
    );
}

#[test]
fn malformed_http_is_not_logged() {
    for filter in ["info", "relay_http=info", "trace,actix=off", "warn"] {
        let log = LogDirectory::new().log_of(&[], Some(filter), |process| {
            for _ in 0..5 {
                let mut client = process.connect().unwrap();
                client.send(b"GARBAGE\r\n\r\n").unwrap();
                assert_eq!(client.receive().unwrap().status, 400);
            }
        });
        assert!(log.iter().all(|line| !line.contains("actix_http")), "{filter}: {log:?}");
    }
}

/// The operator must list the proxy, or know that clients send such headers themselves.
#[test]
fn an_untrusted_proxy_is_warned_about_once() {
    for (trusted, field, warned) in [
        ("[]", "x-forwarded-for: 203.0.113.77", 1),
        ("[]", "forwarded: for=203.0.113.77", 1),
        ("[]", "x-other: y", 0),
        ("[\"127.0.0.1\"]", "x-forwarded-for: 203.0.113.77", 0),
    ] {
        let directory = LogDirectory::new();
        std::fs::write(directory.path("relay.toml"), format!("rate_limit.trusted_proxies = {trusted}\n"))
            .unwrap();
        let log = directory.log_of(&[], None, |process| {
            for _ in 0..5 {
                let mut client = process.connect().unwrap();
                client.send(format!("GET /stats HTTP/1.1\r\nhost: x\r\n{field}\r\n\r\n").as_bytes()).unwrap();
                assert_eq!(client.receive().unwrap().status, 200);
            }
        });
        let count = log.iter().filter(|line| line.contains("a proxy seems to forward requests")).count();
        assert_eq!(count, warned, "{trusted}: {field}");
        assert!(log.iter().all(|line| !line.contains(CLIENT)));
    }
}

#[test]
fn a_storage_directory_that_others_can_change_is_warned_about() {
    for (mode, warned) in [(0o700, 0), (0o755, 0), (0o775, 1), (0o777, 1)] {
        let directory = LogDirectory::new();
        std::fs::create_dir(directory.path("store")).unwrap();
        std::fs::set_permissions(directory.path("store"), Permissions::from_mode(mode)).unwrap();
        let log = directory.log_of(&[], None, |_| {});
        let count =
            log.iter().filter(|line| line.contains("may be changed by others than its owner")).count();
        assert_eq!(count, warned, "{mode:o}");
    }
}

/// By default, at info, and with everything that the relay's crates log, no line reveals who talked
/// to whom.
#[test]
fn no_line_names_a_recipient_or_a_client() {
    let own =
        "relay_bin=trace,relay_core=trace,relay_http=trace,relay_ratelimit=trace,relay_store_redb=trace";
    for filter in [None, Some("info"), Some(own)] {
        let mut ports = Vec::new();
        let log = LogDirectory::new().log_of(&[], filter, |process| ports = make_traffic(&process.base_url));
        assert!(!log.is_empty());
        for line in &log {
            for word in [RECIPIENT, PATH, CLIENT, PAYLOAD] {
                assert!(!line.contains(word), "{filter:?}: {line}");
            }
            for port in &ports {
                assert!(!line.contains(&format!(":{port}")), "{filter:?}: {line}");
            }
        }
    }
}

/// A request with a traceparent is logged under its trace id, without the rest of the header; any
/// other request under an id that the relay chooses.
#[test]
fn lines_about_a_request_contain_its_trace_id() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";
    let log = LogDirectory::new().log_of(&[], Some("relay_http=debug"), |process| {
        for traceparent in [format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"), String::new()] {
            let mut client = process.connect().unwrap();
            client.send(format!("GET /{PATH} HTTP/1.1\r\nhost: x\r\n{traceparent}\r\n").as_bytes()).unwrap();
            assert_eq!(client.receive().unwrap().status, 404);
        }
    });
    let lines: Vec<Value> = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let lines_with = |message: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line["message"] == message && line["code"] == "not_found").collect()
    };
    let (refused, answered) = (lines_with("refused"), lines_with("answered"));
    let ids = [&refused[0]["request"], &refused[1]["request"]];
    let spans = [&answered[0]["span"], &answered[1]["span"]];
    assert_eq!(ids[0], TRACE);
    assert_eq!(ids, spans.map(|span| &span["request"]), "lines during a request are in a span with that id");
    assert!(spans.iter().all(|span| span["name"] == "request"));
    let generated = ids[1].as_str().unwrap();
    assert!(
        generated.len() == 32 && generated != TRACE && generated.bytes().all(|b| b.is_ascii_hexdigit()),
        "{generated}"
    );
    assert!(log.iter().all(|line| !line.contains(PARENT) && !line.contains(PATH)));
}

#[test]
fn the_response_to_a_waiting_pull_is_logged_with_its_trace_id() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let log = LogDirectory::new().log_of(&[], Some("relay_http=debug"), |process| {
        let body = r#"{"recipient":"alice","wait_ms":50}"#;
        let trace = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let headers = [("content-type", "application/json"), ("traceparent", trace.as_str())];
        let mut client = process.connect().unwrap();
        assert_eq!(client.post_bytes("/pull", &headers, body.as_bytes()).unwrap().status, 200);
    });
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let answered: Vec<_> = lines.filter(|line| line["message"] == "answered").collect();
    assert_eq!(answered.len(), 1, "{log:?}");
    assert_eq!((&answered[0]["code"], &answered[0]["span"]["request"]), (&"ok".into(), &TRACE.into()));
}

/// Sends every kind of request, and every kind of error. Returns the local ports.
fn make_traffic(base_url: &str) -> Vec<u16> {
    let mut statuses = BTreeSet::new();
    let mut ports = Vec::new();
    let mut send = |request: &[u8]| {
        let (mut client, port) = connect(base_url);
        ports.push(port);
        client.send(request).unwrap();
        statuses.insert(client.receive().unwrap().status);
    };
    let push = |message, payload: &str| push_body(RECIPIENT, message, payload.as_bytes()).to_string();
    send(&post("/push", CLIENT, &push(1, PAYLOAD)));
    send(&post("/push", CLIENT, &push(1, PAYLOAD)));
    send(&post("/push", CLIENT, &push(1, "another")));
    send(&post("/push", CLIENT, &push(2, PAYLOAD)));
    send(&post("/push", CLIENT, &push(3, PAYLOAD)));
    send(&post("/push", CLIENT, &push(4, &PAYLOAD.repeat(10))));
    send(&post("/pull", CLIENT, &recipient(RECIPIENT).to_string()));
    send(&post("/pull", CLIENT, &format!("{{\"recipient\": \"{RECIPIENT}\", \"cursor\": \"{PATH}\"}}")));
    send(&post("/pull", CLIENT, &format!("{{\"recipient\": \"{RECIPIENT}\" \"{PATH}\"")));
    send(&post("/ack", CLIENT, &ack_body(RECIPIENT, &[1, 9]).to_string()));
    send(&post(&format!("/push/{PATH}"), CLIENT, ""));
    send(format!("DELETE /push?{PATH} HTTP/1.1\r\nhost: {PATH}\r\n\r\n").as_bytes());
    send(
        format!("POST /push HTTP/1.1\r\nhost: x\r\ncontent-type: {PATH}\r\ncontent-length: 0\r\n\r\n")
            .as_bytes(),
    );
    send(format!("{PATH} {RECIPIENT}\r\n\r\n").as_bytes());
    send(format!("POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{RECIPIENT}").as_bytes());
    for _ in 0..100 {
        send(&post("/pull", CLIENT, &recipient(RECIPIENT).to_string()));
    }
    // Disconnects in the middle of a body, and in the middle of a head.
    for request in [
        format!("POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{PATH}"),
        format!("GET /{PATH}"),
    ] {
        let (mut client, port) = connect(base_url);
        client.send(request.as_bytes()).unwrap();
        ports.push(port);
    }
    assert_eq!(
        statuses,
        BTreeSet::from([200, 400, 404, 405, 408, 409, 413, 415, 429]),
        "not every status occurred"
    );
    ports
}

fn post(path: &str, client: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// A connection and its local port.
fn connect(base_url: &str) -> (Client, u16) {
    let client = Client::connect(base_url).unwrap();
    let port = client.local_address().unwrap().port();
    (client, port)
}

#[test]
fn a_closed_log_does_not_stop_the_relay() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("store");
    // The reader of the pipe is gone before the first line is written.
    let script = r#"exec "$@" 2> >(exec 0<&-; exit)"#;
    let relay = ["-c", script, "bash", PROGRAM, "--address", "127.0.0.1:0", "--storage-path", text(&path)];
    let mut process = Process::start("bash", &relay).unwrap();
    assert_eq!(process.connect().unwrap().get("/health").unwrap().status, 200);
    process.signal("TERM").unwrap();
    assert!(process.wait().unwrap().success());
}
