//! Writes the answer to a pull. It may hold megabytes of payload, so it is put together by hand: each payload goes from the
//! store's bytes into the one buffer of the answer, and the buffer never grows. It checks and decides nothing.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use relay_core::{Item, Kind, Page, Recipient};

use crate::cursor;

/// Room for an item's names and numbers, all at their longest: 107 bytes of names and marks, 36 of the message id, and four
/// numbers of 20 and two of 10 digits.
const ITEM_FRAME_BYTES_MAX: usize = 320;

/// A byte may become six, as in `\u0000`.
const KIND_BYTES_MAX: usize = Kind::BYTES_MAX * 6 + 2;

const PAGE_FRAME_BYTES_MAX: usize = 128;

/// The JSON of a page of `recipient`'s queue.
pub(crate) fn encode_page(recipient: &Recipient, page: &Page<Bytes>) -> String {
    let owner = Quoted(recipient.as_str()).to_string();
    let mut json = String::with_capacity(bytes_max(&owner, page));
    write_page(&mut json, recipient, &owner, page).expect("a string takes whatever is written to it");
    json
}

/// A JSON string.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// No answer is longer than this.
fn bytes_max(owner: &str, page: &Page<Bytes>) -> usize {
    let frame = ITEM_FRAME_BYTES_MAX + KIND_BYTES_MAX + owner.len();
    let items = page.items.iter().map(|item| frame + item.body.len().div_ceil(3) * 4);
    PAGE_FRAME_BYTES_MAX + items.sum::<usize>()
}

fn write_page(json: &mut String, recipient: &Recipient, owner: &str, page: &Page<Bytes>) -> fmt::Result {
    json.push_str(r#"{"items":["#);
    for (number, item) in page.items.iter().enumerate() {
        if number > 0 {
            json.push(',');
        }
        write_item(json, owner, item)?;
    }
    json.push_str(r#"],"next_cursor":"#);
    match page.next {
        // Base64url needs no escapes.
        Some(seq) => write!(json, r#""{}""#, cursor::encode(recipient, seq))?,
        None => json.push_str("null"),
    }
    write!(json, r#","remaining_estimate":{}}}"#, page.remaining)
}

fn write_item(json: &mut String, owner: &str, item: &Item<Bytes>) -> fmt::Result {
    write!(json, r#"{{"recipient":{owner},"message_id":"{}","ciphertext_b64":""#, item.message_id)?;
    STANDARD.encode_string(&item.body, json);
    write!(
        json,
        r#"","meta":{{"kind":{},"total_len":{},"chunk_index":{},"chunk_count":{},"sent_ms":{}}},"#,
        Quoted(item.kind.as_str()),
        item.total_len,
        item.chunk.index(),
        item.chunk.count(),
        item.sent_ms,
    )?;
    write!(json, r#""arrival_ms":{},"deadline_ms":{}}}"#, item.arrival.as_ms(), item.deadline.as_ms())
}

#[cfg(test)]
mod tests {
    use relay_core::{Chunk, MessageId, Seq, Timestamp};
    use serde_json::{Value, json};

    use super::*;

    fn item(kind: &str, payload: &[u8], number: u64, index: u32) -> Item<Bytes> {
        Item {
            seq: Seq::new(number),
            message_id: MessageId::from_bytes([0x6f; 16]),
            chunk: Chunk::new(index, u32::MAX).unwrap(),
            kind: Kind::parse(kind).unwrap(),
            total_len: number,
            sent_ms: number,
            arrival: Timestamp::from_ms(number),
            deadline: Timestamp::from_ms(number),
            payload_bytes: payload.len() as u64,
            body: Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn a_page_is_the_json_of_the_contract() {
        let recipient = Recipient::parse("al\"ice\n🦀").unwrap();
        let items = vec![item("opaque", b"hello", 1, 0), item("\"\\\u{1}", b"", 2, 1)];
        let page = Page { items, next: Some(Seq::new(2)), remaining: 3 };
        let shown: Value = serde_json::from_str(&encode_page(&recipient, &page)).unwrap();
        let expected_item = |kind, text, number: u64, index| {
            json!({
                "recipient": "al\"ice\n🦀", "message_id": "6f6f6f6f-6f6f-6f6f-6f6f-6f6f6f6f6f6f", "ciphertext_b64": text,
                "meta": {"kind": kind, "total_len": number, "chunk_index": index, "chunk_count": u32::MAX, "sent_ms": number},
                "arrival_ms": number, "deadline_ms": number,
            })
        };
        let expected = json!({
            "items": [expected_item("opaque", "aGVsbG8=", 1, 0), expected_item("\"\\\u{1}", "", 2, 1)],
            "next_cursor": cursor::encode(&recipient, Seq::new(2)),
            "remaining_estimate": 3,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_empty_page_has_null_for_its_cursor() {
        let recipient = Recipient::parse("alice").unwrap();
        let page = Page { items: Vec::new(), next: None, remaining: 0 };
        assert_eq!(
            encode_page(&recipient, &page),
            r#"{"items":[],"next_cursor":null,"remaining_estimate":0}"#
        );
    }

    #[test]
    fn the_buffer_never_grows() {
        let recipient = Recipient::parse(&"\u{1}".repeat(Recipient::BYTES_MAX)).unwrap();
        for payload_bytes in 0..7 {
            let longest =
                item(&"\u{1}".repeat(Kind::BYTES_MAX), &vec![7; payload_bytes], u64::MAX, u32::MAX - 1);
            let page = Page { items: vec![longest; 3], next: Some(Seq::new(u64::MAX)), remaining: u64::MAX };
            let owner = Quoted(recipient.as_str()).to_string();
            let json = encode_page(&recipient, &page);
            assert!(json.len() <= bytes_max(&owner, &page), "{} bytes", json.len());
        }
    }
}
