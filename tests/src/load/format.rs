//! The two formats of pushes, as the pieces around names, ids and payloads.

/// How requests are written, and how their responses are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The payload is base64.
    #[default]
    Json,
    /// The payload is a byte string.
    Cbor,
}

/// What is around the names, ids and payloads of the items of one size.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) before_recipient: Vec<u8>,
    pub(super) before_message: Vec<u8>,
    pub(super) before_payload: Vec<u8>,
    /// What follows the payload.
    pub(super) meta: Vec<u8>,
}

/// The major types of CBOR (RFC 8949, section 3.1).
const NUMBER: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

impl Format {
    /// The lines of the head that name the format.
    pub(super) const fn header_lines(self) -> &'static str {
        match self {
            Self::Json => "content-type: application/json\r\n",
            Self::Cbor => "content-type: application/cbor\r\naccept: application/cbor\r\n",
        }
    }

    /// What the result of a push of a new item contains.
    pub(super) const fn stored(self) -> &'static [u8] {
        match self {
            Self::Json => br#"{"stored":true"#,
            Self::Cbor => b"\x66stored\xf5",
        }
    }

    /// The beginning of a batch of so many items.
    pub(super) fn before_items(self, count: u64) -> Vec<u8> {
        match self {
            Self::Json => br#"{"items":["#.to_vec(),
            Self::Cbor => [head(MAP, 1), text("items"), head(ARRAY, count)].concat(),
        }
    }

    /// What is between two items.
    pub(super) const fn between_items(self) -> &'static [u8] {
        match self {
            Self::Json => b",",
            Self::Cbor => b"",
        }
    }

    /// The end of a batch.
    pub(super) const fn after_items(self) -> &'static [u8] {
        match self {
            Self::Json => b"]}",
            Self::Cbor => b"",
        }
    }

    /// The pieces of pushes. `last_group` is the end of a payload's base64.
    pub(super) fn pieces(
        self,
        payload_bytes: usize,
        [name_bytes, message_bytes]: [usize; 2],
        last_group: &str,
    ) -> Pieces {
        let payload_bytes = payload_bytes as u64;
        match self {
            Self::Json => Pieces {
                before_recipient: br#"{"recipient":""#.to_vec(),
                before_message: br#"","message_id":""#.to_vec(),
                before_payload: br#"","ciphertext_b64":""#.to_vec(),
                meta: format!(
                    r#"{last_group}","meta":{{"kind":"opaque","total_len":{payload_bytes},"chunk_index":0,"chunk_count":1,"sent_ms":1700000000000}}}}"#
                )
                .into_bytes(),
            },
            Self::Cbor => Pieces {
                before_recipient: [head(MAP, 4), text("recipient"), head(TEXT, name_bytes as u64)].concat(),
                before_message: [text("message_id"), head(TEXT, message_bytes as u64)].concat(),
                before_payload: [text("ciphertext"), head(BYTES, payload_bytes)].concat(),
                meta: [
                    [text("meta"), head(MAP, 5), text("kind"), text("opaque")].concat(),
                    [text("total_len"), head(NUMBER, payload_bytes), text("chunk_index"), head(NUMBER, 0)].concat(),
                    [text("chunk_count"), head(NUMBER, 1)].concat(),
                    [text("sent_ms"), head(NUMBER, 1_700_000_000_000)].concat(),
                ]
                .concat(),
            },
        }
    }
}

/// The head of a value in CBOR, in its shortest form, as clients write it.
fn head(major: u8, argument: u64) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let (info, skipped) = match argument {
        0..24 => return vec![major << 5 | bytes[7]],
        24..0x100 => (24, 7),
        0x100..0x1_0000 => (25, 6),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 0),
    };
    [&[major << 5 | info], bytes.get(skipped..).unwrap_or_default()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [head(TEXT, text.len() as u64), text.as_bytes().to_vec()].concat()
}
