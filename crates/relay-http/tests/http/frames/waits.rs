//! Tests of pulls that wait for an item over HTTP/2, where one connection carries many.

use std::num::NonZeroUsize;

use relay_http::Options;
use serde_json::json;

use super::streams::unreached_limit;
use super::wire::*;
use crate::metrics::Admin;
use crate::support::{memory, options};

/// A pull that waits longer than the test takes.
fn wait(stream: u32, recipient: &str) -> Vec<u8> {
    post(stream, "/pull", &json!({"recipient": recipient, "wait_ms": 50_000}))
}

#[test]
fn waits_share_a_connection_and_a_cancelled_one_frees_its_place() {
    const PLACES: u32 = 20;
    let relay = memory(relay_core::Limits::default());
    let places = NonZeroUsize::new(PLACES as usize).unwrap();
    let server = Http2Server::of(
        std::sync::Arc::clone(&relay),
        Options { connections_per_address_max: places, rate_limit: unreached_limit(), ..options() },
    );
    let admin = Admin::start(&relay, &server.server.metrics);
    let mut connection = server.open();
    let stream = |number: u32| 2 * number + 1;
    for number in 0..PLACES {
        assert!(connection.send(&wait(stream(number), &format!("queue {number}"))));
    }
    admin.await_waiting(PLACES);

    assert!(connection.send(&wait(stream(PLACES), "one too many")));
    assert_eq!(connection.response(stream(PLACES)).status, 429);
    assert!(connection.send(&reset(stream(0))));
    admin.await_waiting(PLACES - 1);
    assert!(connection.send(&wait(stream(PLACES + 1), "alice")));
    admin.await_waiting(PLACES);

    assert_eq!(server.push(7, "aGVsbG8="), 200);
    let response = connection.response(stream(PLACES + 1));
    assert_eq!(response.status, 200);
    let page: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(page["items"][0]["meta"]["chunk_index"], 7);
    drop(connection);
    admin.await_waiting(0);
}
