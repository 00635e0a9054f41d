//! `/ready`: whether requests are worth sending, and why not. What it tells while the server drains
//! is in `shutdown`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};

use relay_core::Limits;
use relay_http::{Options, RateLimit, Readiness, Unready};
use serde_json::json;

use crate::limits::rate_limit;
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
