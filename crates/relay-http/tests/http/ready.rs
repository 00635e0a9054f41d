//! Tests of `/ready`: whether the relay is ready, and why not. `shutdown` tests it during a drain.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};

use relay_core::Limits;
use relay_http::{Options, RateLimit, Readiness, Unready};
use serde_json::json;

use crate::limits::rate_limit;
use crate::support::{Server, memory, options, push_of};

#[test]
fn ready_reports_the_readiness() {
    let state = Arc::new(Mutex::new(Ok(())));
    let shared_state = Arc::clone(&state);
    let readiness = Readiness::new(move || *shared_state.lock().unwrap());
    let server = Server::with(memory(Limits::default()), Options { readiness, ..options() });
    for (why, reason) in [
        (Unready::Starting, "starting"),
        (Unready::Replaying { percent: 42 }, "replaying 42%"),
        (Unready::StorageFull, "storage_full"),
        (Unready::Draining, "draining"),
    ] {
        *state.lock().unwrap() = Err(why);
        let response = server.get("/ready");
        assert_eq!(response.assert_error(503, "not_ready"), json!({"reason": reason}));
        assert_eq!(response.header("retry-after"), Some("1"));
        assert!(!response.closes(), "only a drain closes connections");
        // Readiness does not block other requests; the relay decides about those.
        server.get("/health").ok();
        server.post("/push", &push_of("alice", 0, "")).ok();
    }
    *state.lock().unwrap() = Ok(());
    assert_eq!(server.get("/ready").ok(), json!({"status": "ready"}));
}

#[test]
fn ready_has_no_rate_limit() {
    let limit = RateLimit {
        ban_threshold: NonZeroU32::MIN,
        tracked_addresses_max: NonZeroUsize::MIN,
        ..rate_limit(1, 1, &[])
    };
    let server = Server::with(memory(Limits::default()), Options { rate_limit: Some(limit), ..options() });
    let mut client = server.connect();
    let mut ask = |path: &str| client.ask(&format!("GET {path} HTTP/1.1\r\nhost: relay\r\n\r\n"));
    while ask("/stats").status != 429 {}
    for _ in 0..20 {
        ask("/ready").ok();
    }
}
