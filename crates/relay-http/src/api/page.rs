//! The JSON of a page, the response to a pull. A page may contain megabytes of payload, so it is
//! never in memory in one piece. The JSON around the payloads is written at once. The payloads are
//! encoded in pieces while the response is sent, directly from the store's bytes.

use std::collections::VecDeque;

use ::base64::Engine as _;
use bytes::Bytes;
use relay_core::{Item, Page, Recipient};

use super::base64::STANDARD;
use crate::api::cursor::CursorKey;

/// The size of a piece. It takes microseconds to encode, and is still in the nearest cache of the
/// processor when the framework copies it to its buffer.
const PIECE_BYTES: usize = 16 * 1024;

/// The initial capacity for an item without its payload. Few items need more.
const ITEM_TEXT_BYTES: usize = 320;

const PAGE_TEXT_BYTES: usize = 128;

/// The JSON of a page that is being sent.
#[derive(Debug)]
pub(crate) struct PageJson {
    /// The JSON without the payloads.
    text: Vec<u8>,
    /// How many bytes of `text` are taken.
    taken: usize,
    /// The remaining payloads, each with its offset in `text`.
    payloads: VecDeque<(usize, Bytes)>,
    bytes_left: usize,
}

impl PageJson {
    /// A page of `recipient`'s queue, with a cursor under the key `cursors`.
    pub(crate) fn new(cursors: &CursorKey, recipient: &Recipient, page: Page) -> Self {
        let (text, payloads) = write_page(cursors, recipient, page);
        let encoded = payloads.iter().map(|(_, payload)| encoded_bytes(payload.len()));
        let bytes_left = text.len() + encoded.sum::<usize>();
        Self { text, taken: 0, payloads, bytes_left }
    }

    /// The number of bytes that are not taken yet.
    pub(crate) const fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Takes the next piece, until there is none.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(self.bytes_left));
        loop {
            let until = self.payloads.front().map_or(self.text.len(), |(offset, _)| *offset);
            let end = until.min(self.taken + PIECE_BYTES.saturating_sub(piece.len()));
            piece.extend_from_slice(self.text.get(self.taken..end).unwrap_or_default());
            self.taken = end;
            if end < until {
                break;
            }
            let Some((_, payload)) = self.payloads.front_mut() else { break };
            // Groups of three bytes have no padding, so more base64 may follow them.
            let capacity = PIECE_BYTES.saturating_sub(piece.len()) / 4 * 3;
            if payload.len() > capacity {
                append_base64(&mut piece, &payload.split_to(capacity));
                break;
            }
            append_base64(&mut piece, payload);
            self.payloads.pop_front();
        }
        self.bytes_left = self.bytes_left.saturating_sub(piece.len());
        (!piece.is_empty()).then(|| piece.into())
    }
}

const fn encoded_bytes(payload_bytes: usize) -> usize {
    payload_bytes.div_ceil(3) * 4
}

fn append_base64(json: &mut Vec<u8>, payload: &[u8]) {
    let begin = json.len();
    json.resize(begin + encoded_bytes(payload.len()), 0);
    let (_, target) = json.split_at_mut(begin);
    STANDARD.encode_slice(payload, target).expect("the slice has the length of the encoded payload");
}

/// The JSON without the payloads, and the payloads with their offsets.
fn write_page(cursors: &CursorKey, recipient: &Recipient, page: Page) -> (Vec<u8>, VecDeque<(usize, Bytes)>) {
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
    match page.next {
        // Base64url needs no escapes.
        Some(seq) => text.extend_from_slice(format!(r#""{}""#, cursors.encode(recipient, seq)).as_bytes()),
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

#[cfg(test)]
mod tests {
    use relay_core::{Chunk, Kind, MessageId, Seq, Timestamp};
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

    fn cursors() -> CursorKey {
        CursorKey::new(&[7; 32])
    }

    /// The complete JSON. Checks `bytes_left` on the way.
    fn encode(recipient: &Recipient, page: Page) -> Vec<u8> {
        let mut rest = PageJson::new(&cursors(), recipient, page);
        let mut json = Vec::new();
        let bytes = rest.bytes_left();
        while let Some(piece) = rest.next_piece() {
            assert!(piece.len() <= PIECE_BYTES);
            json.extend_from_slice(&piece);
            assert_eq!(json.len() + rest.bytes_left(), bytes);
        }
        assert_eq!(json.len(), bytes);
        json
    }

    #[test]
    fn a_page_has_the_documented_json() {
        let recipient = Recipient::parse("al\"ice\n🦀").unwrap();
        let items = vec![item("opaque", b"hello", 1, 0), item("\"\\\u{1}", b"", 2, 1)];
        let page = Page { items, next: Some(Seq::new(2)), remaining: 3 };
        let shown: Value = serde_json::from_slice(&encode(&recipient, page)).unwrap();
        let expected_item = |kind, text, number: u64, index| {
            json!({
                "recipient": "al\"ice\n🦀", "message_id": "6f6f6f6f-6f6f-6f6f-6f6f-6f6f6f6f6f6f", "ciphertext_b64": text,
                "meta": {"kind": kind, "total_len": number, "chunk_index": index, "chunk_count": u32::MAX, "sent_ms": number},
                "arrival_ms": number, "deadline_ms": number,
            })
        };
        let expected = json!({
            "items": [expected_item("opaque", "aGVsbG8=", 1, 0), expected_item("\"\\\u{1}", "", 2, 1)],
            "next_cursor": cursors().encode(&recipient, Seq::new(2)),
            "remaining_estimate": 3,
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_empty_page_has_null_for_its_cursor() {
        let recipient = Recipient::parse("alice").unwrap();
        let page = Page { items: Vec::new(), next: None, remaining: 0 };
        assert_eq!(encode(&recipient, page), br#"{"items":[],"next_cursor":null,"remaining_estimate":0}"#);
    }

    #[test]
    fn payloads_may_span_pieces() {
        let recipient = Recipient::parse(&"\u{1}".repeat(Recipient::BYTES_MAX)).unwrap();
        let lengths = (PIECE_BYTES - 40..PIECE_BYTES + 40).chain([0, 1, 2, 3, PIECE_BYTES * 5 + 1]);
        for payload_bytes in lengths {
            let payload: Vec<u8> = (0..=250).cycle().take(payload_bytes).collect();
            let kind = "\u{1}".repeat(Kind::BYTES_MAX);
            let items = vec![item(&kind, &payload, u64::MAX, u32::MAX - 1); 3];
            let page = Page { items, next: Some(Seq::new(u64::MAX)), remaining: u64::MAX };
            let shown: Value = serde_json::from_slice(&encode(&recipient, page)).unwrap();
            for number in 0..3 {
                let text = shown["items"][number]["ciphertext_b64"].as_str().unwrap();
                assert!(STANDARD.decode(text).unwrap() == payload, "{payload_bytes} bytes");
            }
        }
    }
}
