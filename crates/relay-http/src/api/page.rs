//! The answer to a pull. It may hold megabytes of payload, so its JSON is never in one piece: what
//! stands around the payloads is written at once, and the payloads are encoded piece by piece while
//! the answer is sent, each straight from the store's bytes. A piece is small enough to be still in
//! the processor's cache when it goes to the socket. It checks and decides nothing.

use std::collections::VecDeque;

use ::base64::Engine as _;
use bytes::Bytes;
use relay_core::{Item, Page, Recipient};

use super::base64::STANDARD;
use crate::api::cursor::CursorKey;

/// What is encoded at once: some microseconds of work, little enough to be still in the nearest
/// cache when the framework copies it into its buffer for the socket.
const PIECE_BYTES: usize = 16 * 1024;

/// Room for an item's names and numbers as they mostly are; the text grows if they are longer.
const ITEM_TEXT_BYTES: usize = 320;

const PAGE_TEXT_BYTES: usize = 128;

/// The JSON of a page, not all of it written yet.
#[derive(Debug)]
pub(crate) struct PageJson {
    /// All but the payloads.
    text: Vec<u8>,
    /// How much of `text` is taken.
    taken: usize,
    /// The payloads that are not taken to the end, and where in `text` each of them belongs.
    payloads: VecDeque<(usize, Bytes)>,
    bytes_left: usize,
}

impl PageJson {
    /// The JSON of a page of `recipient`'s queue, whose cursor is written under `cursors`.
    pub(crate) fn new(cursors: &CursorKey, recipient: &Recipient, page: Page) -> Self {
        let (text, payloads) = write_page(cursors, recipient, page);
        let encoded = payloads.iter().map(|(_, payload)| encoded_bytes(payload.len()));
        let bytes_left = text.len() + encoded.sum::<usize>();
        Self { text, taken: 0, payloads, bytes_left }
    }

    /// How many bytes are still to be taken.
    pub(crate) const fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Takes the next piece, if there is one.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(self.bytes_left));
        loop {
            let until = self.payloads.front().map_or(self.text.len(), |(place, _)| *place);
            let end = until.min(self.taken + PIECE_BYTES.saturating_sub(piece.len()));
            piece.extend_from_slice(self.text.get(self.taken..end).unwrap_or_default());
            self.taken = end;
            if end < until {
                break;
            }
            let Some((_, payload)) = self.payloads.front_mut() else { break };
            // Whole groups of three bytes have no padding, so another part may follow them.
            let room = PIECE_BYTES.saturating_sub(piece.len()) / 4 * 3;
            if payload.len() > room {
                append_base64(&mut piece, &payload.split_to(room));
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
    let (_, place) = json.split_at_mut(begin);
    STANDARD.encode_slice(payload, place).expect("there is as much room as it takes");
}

/// All but the payloads, and where in it each of them belongs.
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

/// Writes an item from its message id on, and tells its payload and where that belongs.
fn write_item(text: &mut Vec<u8>, item: Item<Bytes>) -> (usize, Bytes) {
    text.extend_from_slice(item.message_id.encode(&mut [0; 36]).as_bytes());
    text.extend_from_slice(br#"","ciphertext_b64":""#);
    let place = text.len();
    text.extend_from_slice(br#"","meta":{"kind":"#);
    push_quoted(text, item.kind.as_str());
    push_number(text, br#","total_len":"#, item.total_len);
    push_number(text, br#","chunk_index":"#, item.chunk.index().into());
    push_number(text, br#","chunk_count":"#, item.chunk.count().into());
    push_number(text, br#","sent_ms":"#, item.sent_ms);
    push_number(text, br#"},"arrival_ms":"#, item.arrival.as_ms());
    push_number(text, br#","deadline_ms":"#, item.deadline.as_ms());
    text.push(b'}');
    (place, item.body)
}

fn push_quoted(text: &mut Vec<u8>, string: &str) {
    serde_json::to_writer(text, string).expect("a vector takes whatever is written to it");
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

    /// The whole JSON, whose length must be what was said before it was written.
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
    fn a_page_is_the_json_of_the_contract() {
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
    fn payloads_pass_the_ends_of_pieces() {
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
