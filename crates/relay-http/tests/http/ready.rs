//! `/ready`: whether requests are worth sending, and why not. What it tells while the server drains is in `shutdown`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_core::Limits;
use relay_http::{Options, RateLimit, Readiness, Unready};
use serde_json::json;

use crate::support::{Server, memory, options, push_of};

#[test]
fn it_tells_what_it_is_told() {
    let told = Arc::new(Mutex::new(Ok(())));
    let asked = Arc::clone(&told);
    let readiness = Readiness::new(move || *asked.lock().unwrap());
    let server = Server::with(memory(Limits::default()), Options { readiness, ..options() });
    for (why, reason) in [
        (Unready::Starting, "starting"),
        (Unready::Replaying { percent: 42 }, "replaying 42%"),
        (Unready::StorageFull, "storage_full"),
        (Unready::Draining, "draining"),
    ] {
        *told.lock().unwrap() = Err(why);
        let answer = server.get("/ready");
        assert_eq!(answer.assert_error(503, "not_ready"), json!({"reason": reason}));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(!answer.closes(), "only a drain closes connections");
        // Whether a request can be done is for the relay to say.
        server.get("/health").ok();
        server.post("/push", &push_of("alice", 0, "")).ok();
    }
    *told.lock().unwrap() = Ok(());
    assert_eq!(server.get("/ready").ok(), json!({"status": "ready"}));
}

#[test]
fn it_is_free_of_the_rate_limit() {
    let one = NonZeroU32::MIN;
    let rate_limit = RateLimit {
        per_address_rps: one,
        burst: one,
        push_rps: one,
        pull_rps: one,
        ack_rps: one,
        max_wait: Duration::ZERO,
        push_bytes_per_second: None,
        push_per_recipient_rps: None,
        exempt: Vec::new(),
        ban: Duration::from_secs(300),
        ban_threshold: one,
        ipv6_prefix: 64,
        trusted_proxies: Vec::new(),
        tracked_addresses_max: NonZeroUsize::MIN,
    };
    let server =
        Server::with(memory(Limits::default()), Options { rate_limit: Some(rate_limit), ..options() });
    let mut client = server.connect();
    let mut ask = |path: &str| client.ask(&format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n"));
    while ask("/stats").status != 429 {}
    for _ in 0..20 {
        ask("/ready").ok();
    }
}
