//! A page, the response to a pull. A page may contain megabytes of payload, so it is never in
//! memory in one piece. What is around the payloads is written at once. The payloads are encoded in
//! pieces while the response is sent, directly from the store's bytes.

mod cbor;
mod json;

use std::collections::VecDeque;

use bytes::Bytes;
use relay_core::{Page, Recipient};

use crate::api::cursor::CursorKey;
use crate::api::format::Format;

/// The size of a piece. It takes microseconds to encode, and is still in the nearest cache of the
/// processor when the framework copies it to its buffer.
const PIECE_BYTES: usize = 16 * 1024;

/// A page that is being sent.
#[derive(Debug)]
pub(crate) struct EncodedPage {
    format: Format,
    /// The page without the payloads.
    text: Vec<u8>,
    /// How many bytes of `text` are taken.
    taken: usize,
    /// The remaining payloads, each with its offset in `text`.
    payloads: VecDeque<(usize, Bytes)>,
    bytes_left: usize,
}

impl EncodedPage {
    /// A page of `recipient`'s queue, with a cursor under the key `cursors`.
    pub(crate) fn new(format: Format, cursors: &CursorKey, recipient: &Recipient, page: Page) -> Self {
        let cursor = page.next.map(|seq| cursors.encode(recipient, seq));
        let (text, payloads) = match format {
            Format::Json => json::write_page(recipient, cursor.as_deref(), page),
            Format::Cbor => cbor::write_page(recipient, cursor.as_deref(), page),
        };
        let encoded = payloads.iter().map(|(_, payload)| match format {
            Format::Json => json::encoded_bytes(payload.len()),
            Format::Cbor => payload.len(),
        });
        let bytes_left = text.len() + encoded.sum::<usize>();
        Self { format, text, taken: 0, payloads, bytes_left }
    }

    /// How the page is written.
    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// The number of bytes that are not taken yet.
    pub(crate) const fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Takes the next piece, until there is none.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let piece = self.shared_piece().unwrap_or_else(|| self.written_piece().into());
        self.bytes_left = self.bytes_left.saturating_sub(piece.len());
        (!piece.is_empty()).then_some(piece)
    }

    /// A piece in the middle of a large payload, which needs no copy in CBOR.
    fn shared_piece(&mut self) -> Option<Bytes> {
        let (offset, payload) = self.payloads.front_mut()?;
        let is_whole = *offset == self.taken && payload.len() >= PIECE_BYTES;
        (is_whole && self.format == Format::Cbor).then(|| payload.split_to(PIECE_BYTES))
    }

    fn written_piece(&mut self) -> Vec<u8> {
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
            let free = PIECE_BYTES.saturating_sub(piece.len());
            let capacity = match self.format {
                // Groups of three bytes have no padding, so more base64 may follow them.
                Format::Json => free / 4 * 3,
                Format::Cbor => free,
            };
            let part = payload.split_to(payload.len().min(capacity));
            match self.format {
                Format::Json => json::append_base64(&mut piece, &part),
                Format::Cbor => piece.extend_from_slice(&part),
            }
            if !payload.is_empty() {
                break;
            }
            self.payloads.pop_front();
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use ::base64::Engine as _;
    use relay_core::{Chunk, Item, Kind, MessageId, Seq, Timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::base64::STANDARD;

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

    fn encode(recipient: &Recipient, page: Page) -> Vec<u8> {
        encode_as(Format::Json, recipient, page)
    }

    /// The complete page. Checks `bytes_left` on the way.
    fn encode_as(format: Format, recipient: &Recipient, page: Page) -> Vec<u8> {
        let mut rest = EncodedPage::new(format, &cursors(), recipient, page);
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
