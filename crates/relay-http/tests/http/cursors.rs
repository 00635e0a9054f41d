//! What a cursor tells somebody who has no key: nothing. Whoever pushes to a queue of his own
//! between the pushes of others must not be able to count them, neither by looking at his cursors
//! nor by asking with ones that he has made up.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use relay_core::Limits;
use relay_http::{CursorKey, Options};
use serde_json::json;
use siphasher::sip::SipHasher24;

use crate::support::{Server, memory, options, post_head, push_of};

/// How many items others push before each of mallory's own.
const OTHERS: [u32; 6] = [0, 7, 0, 2, 30, 1];

fn start() -> Server {
    Server::with(memory(Limits { page_items_max: 1, ..Limits::default() }), options())
}

/// The cursor behind each item of mallory's queue but the last.
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

/// Every number that stands in the bytes: of each width, at each place, in either order of bytes.
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
    let read: Vec<_> = cursors.iter().map(|text| readings(&URL_SAFE_NO_PAD.decode(text).unwrap())).collect();
    let gaps: Vec<u128> = OTHERS.iter().skip(1).map(|others| u128::from(others + 1)).collect();
    for place in 0..read[0].len() {
        let steps: Vec<u128> =
            read.windows(2).map(|pair| pair[1][place].wrapping_sub(pair[0][place])).collect();
        assert_ne!(steps, gaps, "the numbers at {place} count what others push");
    }
    // The same item has the same cursor, so that asking again tells nothing either.
    assert_eq!(cursors_of_mallory(&server), cursors);
}

/// A cursor as everybody could make it as long as it had its number in clear.
fn clear(recipient: &str, number: u64) -> String {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(recipient.as_bytes());
    hasher.write(&number.to_be_bytes());
    let bytes = [&[1][..], &number.to_be_bytes(), &hasher.finish().to_be_bytes()].concat();
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn no_cursor_can_be_made_up() {
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
    // A binary search would ask with such numbers whether anything follows.
    let guessed =
        (0..64).map(|bit| 1 << bit).chain(0..64).chain([u64::MAX]).map(|number| clear("mallory", number));
    let of_another_relay = Server::with(
        memory(Limits { page_items_max: 1, ..Limits::default() }),
        Options { cursor_key: CursorKey::random().unwrap(), ..options() },
    );
    for index in 0..3 {
        of_another_relay.post("/push", &push_of("mallory", index, "")).ok();
    }
    let foreign = cursors_of_mallory(&of_another_relay);
    let mut client = server.connect();
    for cursor in flipped.chain(guessed).chain(foreign) {
        let body = json!({"recipient": "mallory", "cursor": cursor}).to_string();
        let head = post_head("/pull", "content-type: application/json\r\n", body.len());
        let answer = client.ask(&(head + &body));
        assert_eq!(answer.assert_error(400, "invalid_input"), json!({"field": "cursor"}), "{cursor}");
    }
    server.post("/pull", &json!({"recipient": "mallory", "cursor": own})).ok();
}
