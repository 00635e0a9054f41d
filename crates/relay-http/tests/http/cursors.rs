//! Cursors reveal nothing without the key. A client that pushes to its own queue between the pushes
//! of others must not be able to count those, neither from its cursors nor with forged ones.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_core::Limits;
use relay_http::{CursorKey, Options};
use serde_json::json;
use siphasher::sip::SipHasher24;

use crate::support::{Server, memory, options, post_head, push_of};

/// How many items others push before each of mallory's items.
const OTHERS: [u32; 6] = [0, 7, 0, 2, 30, 1];

fn start() -> Server {
    Server::with(memory(Limits { page_items_max: 1, ..Limits::default() }), options())
}

/// The cursor after each item of mallory's queue except the last.
fn cursors_of_mallory(server: &Server) -> Vec<String> {
    let mut cursors: Vec<String> = Vec::new();
    loop {
        let page = server.post("/pull", &json!({"recipient": "mallory", "cursor": cursors.last()})).ok();
        match page["next_cursor"].as_str() {
            Some(cursor) => cursors.push(cursor.to_owned()),
            None => return cursors,
        }
    }
}

/// Every number in the bytes: of each width, at each offset, in both byte orders.
fn readings(bytes: &[u8]) -> Vec<u128> {
    (1..=16)
        .flat_map(|width| bytes.windows(width))
        .flat_map(|window| {
            let number = |bytes: &mut dyn Iterator<Item = &u8>| {
                bytes.fold(0, |sum, byte| sum << 8 | u128::from(*byte))
            };
            [number(&mut window.iter()), number(&mut window.iter().rev())]
        })
        .collect()
}

#[test]
fn cursors_do_not_count_the_pushes_of_others() {
    let server = start();
    let mut index = 0..;
    for others in OTHERS {
        for _ in 0..others {
            server.post("/push", &push_of("bob", index.next().unwrap(), "")).ok();
        }
        server.post("/push", &push_of("mallory", index.next().unwrap(), "")).ok();
    }
    server.post("/push", &push_of("mallory", index.next().unwrap(), "")).ok();
    let cursors = cursors_of_mallory(&server);
    assert_eq!(cursors.len(), OTHERS.len());
    let numbers: Vec<_> =
        cursors.iter().map(|text| readings(&URL_SAFE_NO_PAD.decode(text).unwrap())).collect();
    let gaps: Vec<u128> = OTHERS.iter().skip(1).map(|others| u128::from(others + 1)).collect();
    for offset in 0..numbers[0].len() {
        let steps: Vec<u128> =
            numbers.windows(2).map(|pair| pair[1][offset].wrapping_sub(pair[0][offset])).collect();
        assert_ne!(steps, gaps, "the numbers at {offset} count the pushes of others");
    }
    // The same item always has the same cursor, so repeated pulls reveal nothing either.
    assert_eq!(cursors_of_mallory(&server), cursors);
}

/// A cursor in an unencrypted format, which anybody could forge.
fn unencrypted_cursor(recipient: &str, number: u64) -> String {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(recipient.as_bytes());
    hasher.write(&number.to_be_bytes());
    let bytes = [&[1][..], &number.to_be_bytes(), &hasher.finish().to_be_bytes()].concat();
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn a_forged_cursor_is_refused() {
    let server = start();
    for index in 0..3 {
        server.post("/push", &push_of("mallory", index, "")).ok();
    }
    let own = cursors_of_mallory(&server).remove(0);
    let bytes = URL_SAFE_NO_PAD.decode(&own).unwrap();
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        URL_SAFE_NO_PAD.encode(bytes)
    });
    // A binary search for the newest item would use such numbers.
    let guessed = (0..64)
        .map(|bit| 1 << bit)
        .chain(0..64)
        .chain([u64::MAX])
        .map(|number| unencrypted_cursor("mallory", number));
    let other_relay = Server::with(
        memory(Limits { page_items_max: 1, ..Limits::default() }),
        Options { cursor_key: CursorKey::random().unwrap(), ..options() },
    );
    for index in 0..3 {
        other_relay.post("/push", &push_of("mallory", index, "")).ok();
    }
    let foreign = cursors_of_mallory(&other_relay);
    let mut client = server.connect();
    for cursor in flipped.chain(guessed).chain(foreign) {
        let body = json!({"recipient": "mallory", "cursor": cursor});
        let waiting = json!({"recipient": "mallory", "cursor": cursor, "wait_ms": 55_000, "tail": true});
        let ack = json!({"recipient": "mallory", "ack": [], "ack_before": cursor});
        for (path, body) in [("/pull", &body), ("/pull", &waiting), ("/stream", &body), ("/ack", &ack)] {
            let field = if path == "/ack" { "ack_before" } else { "cursor" };
            let body = body.to_string();
            let head = post_head(path, "content-type: application/json\r\n", body.len());
            let response = client.ask(&(head + &body));
            assert_eq!(response.assert_error(400, "invalid_input"), json!({"field": field}), "{cursor}");
        }
    }
    assert_eq!(
        server.post("/pull", &json!({"recipient": "mallory", "cursor": own})).ok()["items"][0]["meta"]["chunk_index"],
        1
    );
    let acked = server.post("/ack", &json!({"recipient": "mallory", "ack_before": own})).ok();
    assert_eq!(acked, json!({"deleted": 1, "missing": 0, "remaining": 2}));
}
