//! Tests of `[log]`: what the access log says of requests, and what it never says.

use relay_tests::{Process, pull_body, push_body};
use serde_json::{Value, json};

use crate::PROGRAM;

/// The lines of the access log of a relay in a process of its own, after some requests.
fn lines(settings: &[(&str, &str)]) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let common = [("RELAY__STORAGE__KIND", "memory"), ("RELAY__RATE_LIMIT__TRUSTED_PROXIES", "127.0.0.1")];
    let environment = [common.as_slice(), settings].concat();
    let mut process = Process::start_logging(PROGRAM, &["--log-format", "json"], &environment, &log).unwrap();
    let mut client = process.connect().unwrap();
    let push = push_body("alice-who-is-secret", 1, b"payload-that-is-secret").to_string();
    let headers = [("x-forwarded-for", "192.0.2.77"), ("content-type", "application/json")];
    assert_eq!(client.post_bytes("/push", &headers, push.as_bytes()).unwrap().status, 200);
    assert_eq!(client.post("/pull", &pull_body("alice-who-is-secret", None, None)).unwrap().status, 200);
    assert_eq!(client.get("/path-that-is-secret?query-that-is-secret").unwrap().status, 404);
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_a_while().unwrap().code(), Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
    parsed.filter(|line: &Value| line["target"] == "relay_access").collect()
}

#[test]
pub(super) fn access() {
    assert_eq!(lines(&[]), Vec::<Value>::new());
    // The proxy names the client, also without a rate limit.
    for (addresses, shown, limited) in
        [("truncated", "192.0.2.0/24", "true"), ("full", "192.0.2.77", "false")]
    {
        let lines = lines(&[
            ("RELAY__LOG__ACCESS", "on"),
            ("RELAY__LOG__ACCESS_ADDRESSES", addresses),
            ("RELAY__RATE_LIMIT__ENABLED", limited),
        ]);
        let [push, pull, other] = lines.as_slice() else { panic!("{lines:?}") };
        for (line, method, path, status, code) in [
            (push, "POST", "/push", 200, "ok"),
            (pull, "POST", "/pull", 200, "ok"),
            (other, "GET", "other", 404, "not_found"),
        ] {
            let found =
                ["method", "path", "status", "code", "version", "tls"].map(|field| line[field].clone());
            let expected = json!([method, path, status, code, "1.1", false]);
            assert_eq!(json!(found), expected, "{line}");
            assert!(line["bytes_out"].as_u64().unwrap() > 0, "{line}");
            assert!(line["duration_us"].is_u64(), "{line}");
            assert_eq!(line["request"].as_str().unwrap().len(), 32, "{line}");
        }
        assert_eq!(push["address"], shown);
        assert!(push["bytes_in"].as_u64().unwrap() > 100, "{push}");
        assert_eq!(other["bytes_in"], 0);
    }
}
