//! Writes a page as JSON.

use std::collections::VecDeque;

use ::base64::Engine as _;
use bytes::Bytes;
use relay_core::{Item, Page, Recipient};

use crate::api::base64::STANDARD;

/// The initial capacity for an item without its payload. Few items need more.
const ITEM_TEXT_BYTES: usize = 320;

const PAGE_TEXT_BYTES: usize = 128;

/// The size of a payload in JSON.
pub(super) const fn encoded_bytes(payload_bytes: usize) -> usize {
    payload_bytes.div_ceil(3) * 4
}

/// Appends a payload, or a part of one.
pub(super) fn append_base64(json: &mut Vec<u8>, payload: &[u8]) {
    let begin = json.len();
    json.resize(begin + encoded_bytes(payload.len()), 0);
    let (_, target) = json.split_at_mut(begin);
    STANDARD.encode_slice(payload, target).expect("the slice has the length of the encoded payload");
}

/// The page without the payloads, and the payloads with their offsets.
pub(super) fn write_page(
    recipient: &Recipient,
    cursor: Option<&str>,
    page: Page,
) -> (Vec<u8>, VecDeque<(usize, Bytes)>) {
    let mut begin = br#"{"recipient":"#.to_vec();
    push_quoted(&mut begin, recipient.as_str());
    begin.extend_from_slice(br#","message_id":""#);
    let mut text = Vec::with_capacity(PAGE_TEXT_BYTES + page.items.len() * (ITEM_TEXT_BYTES + begin.len()));
    let mut payloads = VecDeque::with_capacity(page.items.len());
    text.extend_from_slice(br#"{"items":["#);
    for (number, item) in page.items.into_iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&begin);
        payloads.push_back(write_item(&mut text, item));
    }
    text.extend_from_slice(br#"],"next_cursor":"#);
    match cursor {
        // Base64url needs no escapes.
        Some(cursor) => text.extend_from_slice(format!(r#""{cursor}""#).as_bytes()),
        None => text.extend_from_slice(b"null"),
    }
    push_number(&mut text, br#","remaining_estimate":"#, page.remaining);
    text.push(b'}');
    (text, payloads)
}

/// Writes an item from its message id on. Returns the payload and its offset.
fn write_item(text: &mut Vec<u8>, item: Item<Bytes>) -> (usize, Bytes) {
    text.extend_from_slice(item.message_id.encode(&mut [0; 36]).as_bytes());
    text.extend_from_slice(br#"","ciphertext_b64":""#);
    let offset = text.len();
    text.extend_from_slice(br#"","meta":{"kind":"#);
    push_quoted(text, item.kind.as_str());
    push_number(text, br#","total_len":"#, item.total_len);
    push_number(text, br#","chunk_index":"#, item.chunk.index().into());
    push_number(text, br#","chunk_count":"#, item.chunk.count().into());
    push_number(text, br#","sent_ms":"#, item.sent_ms);
    push_number(text, br#"},"arrival_ms":"#, item.arrival.as_ms());
    push_number(text, br#","deadline_ms":"#, item.deadline.as_ms());
    text.push(b'}');
    (offset, item.body)
}

fn push_quoted(text: &mut Vec<u8>, string: &str) {
    serde_json::to_writer(text, string).expect("writing to a vector does not fail");
}

fn push_number(text: &mut Vec<u8>, name: &[u8], number: u64) {
    text.extend_from_slice(name);
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
