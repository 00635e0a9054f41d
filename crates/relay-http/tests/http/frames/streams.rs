//! Tests of concurrent requests: of one connection, of one address, of all. Streams beyond the
//! bound are refused and can be retried; requests in progress are not affected.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_http::{Options, Peers, RateLimit};

use super::wire::*;
use crate::support::options;

/// How long an ended request may still be counted.
const SOON: Duration = Duration::from_secs(10);

/// The most concurrent streams of one connection.
const STREAMS_OF_CONNECTION: u32 = 128;

/// The most concurrent streams of one address, with small heads.
const STREAMS_OF_ADDRESS: usize = 1280;

/// A push without its body, on the nth stream.
fn nth_push(number: u32) -> Vec<u8> {
    unfinished_push(2 * number + 1, &field("content-length", "2"))
}

/// Begins as many pushes as allowed on each connection. Returns how many are in progress and how
/// many were refused.
fn fill(connections: &mut [Http2Connection], fields: &[u8], levels: &dyn Fn() -> Levels) -> (usize, usize) {
    let frames: Vec<u8> = (0..STREAMS_OF_CONNECTION)
        .flat_map(|number| unfinished_push(2 * number + 1, &[&field("content-length", "2"), fields].concat()))
        .collect();
    for connection in connections.iter_mut() {
        assert!(connection.send(&frames));
        connection.be_patient_for(Duration::from_millis(50));
    }
    let mut refused = 0;
    let is_settled = || {
        for connection in connections.iter_mut() {
            let end = connection.until(|frame| {
                if frame.kind == RST_STREAM {
                    assert_eq!(frame.error(), REFUSED_STREAM);
                    refused += 1;
                }
                None::<()>
            });
            assert_eq!(end, Err(End::Silent));
        }
        refused + in_progress(levels) == connections.len() * STREAMS_OF_CONNECTION as usize
    };
    assert!(eventually(SOON, is_settled), "{:?}", levels());
    (in_progress(levels), refused)
}

fn in_progress(levels: &dyn Fn() -> Levels) -> usize {
    let requests = levels().requests;
    (0..).find(|count: &u32| f64::from(*count) >= requests).unwrap() as usize
}

/// A rate limit that is never reached. With it, the server distinguishes addresses.
pub(super) fn unreached_limit() -> Option<RateLimit> {
    let many = NonZeroU32::new(1_000_000).unwrap();
    Some(RateLimit {
        per_address_rps: many,
        burst: many,
        push_rps: many,
        pull_rps: many,
        ack_rps: many,
        max_wait: Duration::ZERO,
        push_bytes_per_second: None,
        push_items_per_second: None,
        push_per_recipient_rps: None,
        per_name_rps: many,
        names_per_address: 64,
        ban: Duration::ZERO,
        ban_threshold: NonZeroU32::MIN,
        ipv6_prefix: 64,
        trusted_proxies: Peers::default(),
        exempt: Vec::new(),
        tracked_addresses_max: NonZeroUsize::new(1000).unwrap(),
    })
}

#[test]
fn the_129th_stream_is_refused_and_the_others_work() {
    let world = Http2Server::new();
    let levels = world.levels();
    let mut connection = world.open();
    let frames: Vec<u8> = (0..=STREAMS_OF_CONNECTION).flat_map(nth_push).collect();
    assert!(connection.send(&frames));
    let refused = connection.until(|frame| (frame.kind == RST_STREAM).then(|| (frame.stream, frame.error())));
    assert_eq!(refused, Ok((2 * STREAMS_OF_CONNECTION + 1, REFUSED_STREAM)));
    assert!(eventually(SOON, || levels().requests == f64::from(STREAMS_OF_CONNECTION)), "{:?}", levels());
    for number in 0..STREAMS_OF_CONNECTION {
        assert!(connection.send(&frame(DATA, END_STREAM, 2 * number + 1, b"{}")));
        connection.response(2 * number + 1).assert_error(400, "invalid_input");
    }
    assert!(connection.send(&get(2 * STREAMS_OF_CONNECTION + 3)));
    assert_eq!(connection.response(2 * STREAMS_OF_CONNECTION + 3).status, 200);
    drop(connection);
    assert!(
        eventually(SOON, || levels() == Levels { connections: 0.0, requests: 0.0, bytes: 0.0 }),
        "{:?}",
        levels()
    );
}

#[test]
fn the_streams_of_one_address_are_bounded_and_others_have_theirs() {
    let world = Http2Server::with(Options { rate_limit: unreached_limit(), ..options() });
    let levels = world.levels();
    let mut connections: Vec<_> = (0..20).map(|_| world.open()).collect();
    assert_eq!(
        fill(&mut connections, &[], &levels),
        (STREAMS_OF_ADDRESS, 20 * STREAMS_OF_CONNECTION as usize - STREAMS_OF_ADDRESS)
    );
    let mut other = world.connect_from([127, 0, 0, 2]).with_preface(&[]);
    assert!(other.send(&get(1)));
    assert_eq!(other.response(1).status, 200);
    drop((connections, other));
    let is_empty = || levels() == Levels { connections: 0.0, requests: 0.0, bytes: 0.0 };
    assert!(eventually(SOON, is_empty), "{:?}", levels());
    assert_eq!(fill(&mut [world.open()], &[], &levels).1, 0, "what was held comes back");
}

#[test]
fn large_heads_allow_fewer_streams() {
    let world = Http2Server::with(Options { rate_limit: unreached_limit(), ..options() });
    let large: Vec<u8> = (0..80).flat_map(|_| field("x", &"v".repeat(120))).collect();
    let mut connections: Vec<_> = (0..10).map(|_| world.open()).collect();
    let (held, refused) = fill(&mut connections, &large, &world.levels());
    assert!((300..500).contains(&held) && refused > 500, "{held} heads of 10 KB");
}
