//! Pushes of items of one size to random recipients.

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

/// Writes push requests.
#[derive(Debug)]
pub(super) struct PushWriter {
    ids: ItemIds,
    /// The head without its end.
    head: Vec<u8>,
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
        let mut head = Vec::new();
        open_head("/push", ids_bytes + text_bytes + tail.len(), &mut head);
        Self {
            ids,
            head,
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
        head.extend_from_slice(BEFORE_RECIPIENT);
        self.ids.recipients().write_name(self.ids.recipient_of(item), head);
        head.extend_from_slice(BEFORE_MESSAGE);
        self.ids.write_message(item, head);
        head.extend_from_slice(BEFORE_CIPHERTEXT);
        let offset = usize::try_from(mix(item) % OFFSETS as u64).unwrap_or_default() * 4;
        request.payload = self.text.slice(offset..offset + self.text_bytes);
        request.tail = self.tail.clone();
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
