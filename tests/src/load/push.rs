//! Pushes of items of one size to random recipients, each alone or in batches.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::names::ItemIds;
use super::request::{END_OF_HEAD, Kind, Request, open_head};
use super::scramble::mix;
use super::{Next, ResponseSummary, Workload};

/// The beginning of the response to a push of a new item.
const STORED: &[u8] = br#"{"stored":true"#;

const BEFORE_RECIPIENT: &[u8] = br#"{"recipient":""#;
const BEFORE_MESSAGE: &[u8] = br#"","message_id":""#;
const BEFORE_CIPHERTEXT: &[u8] = br#"","ciphertext_b64":""#;

/// A payload begins at one of this many offsets in the random text, in groups of four characters.
const OFFSETS: usize = 16 * 1024;

/// Pushes a range of items, one after the other.
#[derive(Debug)]
pub struct Push {
    writer: PushWriter,
    next: u64,
    end: u64,
}

/// Pushes a range of items in batches.
#[derive(Debug)]
pub struct PushBatches {
    writer: PushWriter,
    batch_items: u64,
    next: u64,
    end: u64,
}

/// Writes push requests.
#[derive(Debug)]
pub(super) struct PushWriter {
    ids: ItemIds,
    /// The head without its end.
    head: Vec<u8>,
    /// The length of an item as JSON.
    item_bytes: usize,
    /// Whether each push carries a proof of its sender.
    pub(super) has_sender_proofs: bool,
    /// Random base64 without padding, longer than one payload.
    text: Bytes,
    text_bytes: usize,
    tail: Bytes,
}

impl Push {
    /// Pushes `items`, each with `payload_bytes` of payload.
    pub fn new(ids: ItemIds, payload_bytes: usize, items: std::ops::Range<u64>) -> Self {
        Self { writer: PushWriter::new(ids, payload_bytes), next: items.start, end: items.end }
    }

    /// Each push carries a proof of its sender, who is a recipient too.
    #[must_use]
    pub const fn with_sender_proofs(mut self) -> Self {
        self.writer.has_sender_proofs = true;
        self
    }

    /// The number of the item to push next.
    pub const fn next_item(&self) -> u64 {
        self.next
    }
}

impl Workload for Push {
    fn next(&mut self, request: &mut Request) -> Next {
        if self.next >= self.end {
            return Next::End;
        }
        self.writer.write(self.next, request);
        self.next += 1;
        Next::Send
    }

    fn answered(&mut self, _: &Request, response: &ResponseSummary) -> u64 {
        stored(response)
    }
}

impl PushBatches {
    /// Pushes `items`, each with `payload_bytes` of payload, `batch_items` in a request.
    pub fn new(ids: ItemIds, payload_bytes: usize, batch_items: u64, items: std::ops::Range<u64>) -> Self {
        let writer = PushWriter::new(ids, payload_bytes);
        Self { writer, batch_items: batch_items.max(1), next: items.start, end: items.end }
    }
}

impl Workload for PushBatches {
    fn next(&mut self, request: &mut Request) -> Next {
        let end = self.next.saturating_add(self.batch_items).min(self.end);
        if self.next >= end {
            return Next::End;
        }
        self.writer.write_batch(self.next..end, request);
        self.next = end;
        Next::Send
    }

    fn answered(&mut self, _: &Request, response: &ResponseSummary) -> u64 {
        response.count(STORED)
    }
}

impl PushWriter {
    pub(super) fn new(ids: ItemIds, payload_bytes: usize) -> Self {
        let text_bytes = payload_bytes / 3 * 4;
        // The base64 of the bytes after the last full group of three.
        let last_group = STANDARD.encode(vec![0; payload_bytes % 3]);
        let tail = format!(
            r#"{last_group}","meta":{{"kind":"opaque","total_len":{payload_bytes},"chunk_index":0,"chunk_count":1,"sent_ms":1700000000000}}}}"#
        );
        let ids_bytes = BEFORE_RECIPIENT.len()
            + ids.recipients().name_bytes()
            + BEFORE_MESSAGE.len()
            + ItemIds::MESSAGE_BYTES
            + BEFORE_CIPHERTEXT.len();
        let item_bytes = ids_bytes + text_bytes + tail.len();
        let mut head = Vec::new();
        open_head("/push", item_bytes, &mut head);
        Self {
            ids,
            head,
            item_bytes,
            has_sender_proofs: false,
            text: random_text(text_bytes + OFFSETS * 4),
            text_bytes,
            tail: tail.into(),
        }
    }

    pub(super) fn write(&self, item: u64, request: &mut Request) {
        request.kind = Kind::Push;
        request.number = item;
        let head = &mut request.head;
        head.clear();
        head.extend_from_slice(&self.head);
        if self.has_sender_proofs {
            self.ids.recipients().write_proof(self.ids.sender_of(item), head);
        }
        head.extend_from_slice(END_OF_HEAD);
        self.write_ids(item, head);
        request.payload = self.payload(item);
        request.tail = self.tail.clone();
    }

    /// Writes a batch of these items.
    fn write_batch(&self, items: std::ops::Range<u64>, request: &mut Request) {
        const BEGIN: &[u8] = br#"{"items":["#;
        const END: &[u8] = b"]}";
        request.kind = Kind::Push;
        request.number = items.start;
        let count = usize::try_from(items.end - items.start).unwrap_or_default();
        let head = &mut request.head;
        // Each item but the last one is followed by a comma.
        open_head("/push/batch", BEGIN.len() + count * (self.item_bytes + 1) - 1 + END.len(), head);
        head.extend_from_slice(END_OF_HEAD);
        head.extend_from_slice(BEGIN);
        for item in items.clone() {
            if item > items.start {
                head.push(b',');
            }
            self.write_ids(item, head);
            head.extend_from_slice(&self.payload(item));
            head.extend_from_slice(&self.tail);
        }
        head.extend_from_slice(END);
        (request.payload, request.tail) = (Bytes::new(), Bytes::new());
    }

    fn write_ids(&self, item: u64, text: &mut Vec<u8>) {
        text.extend_from_slice(BEFORE_RECIPIENT);
        self.ids.recipients().write_name(self.ids.recipient_of(item), text);
        text.extend_from_slice(BEFORE_MESSAGE);
        self.ids.write_message(item, text);
        text.extend_from_slice(BEFORE_CIPHERTEXT);
    }

    /// The base64 of an item's payload, without its last group.
    fn payload(&self, item: u64) -> Bytes {
        let offset = usize::try_from(mix(item) % OFFSETS as u64).unwrap_or_default() * 4;
        self.text.slice(offset..offset + self.text_bytes)
    }
}

/// The number of items that a push stored: 0 or 1.
pub(super) fn stored(response: &ResponseSummary) -> u64 {
    u64::from(response.is_ok_with(STORED))
}

/// Base64 of random bytes; `text_bytes` is a multiple of 4.
fn random_text(text_bytes: usize) -> Bytes {
    let bytes: Vec<u8> = (0..).flat_map(|word| mix(word).to_le_bytes()).take(text_bytes / 4 * 3).collect();
    STANDARD.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Splits a request into its head and its JSON.
    fn split_request(request: &Request) -> (String, Value) {
        let bytes: Vec<u8> = request.rest(0).iter().flat_map(|part| part.to_vec()).collect();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_push_is_valid() {
        for payload_bytes in [0, 1, 2, 3, 1024, 65_536] {
            let mut push = Push::new(ItemIds::new(1, 10), payload_bytes, 5..7);
            let mut request = Request::default();
            let mut payloads = Vec::new();
            while push.next(&mut request) == Next::Send {
                let (head, body) = split_request(&request);
                assert!(head.starts_with("POST /push HTTP/1.1\r\nhost: "), "{head}");
                let json = body.to_string();
                let envelope =
                    relay_http::fuzzing::decode_push(json.as_bytes(), payload_bytes as u64).unwrap();
                assert_eq!(envelope.payload.len(), payload_bytes);
                assert_eq!(envelope.total_len, payload_bytes as u64);
                payloads.push(envelope.payload);
            }
            assert_eq!(payloads.len(), 2);
            assert_eq!(payloads[0] == payloads[1], payload_bytes < 3, "payloads differ");
        }
    }
}
