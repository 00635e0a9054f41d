//! The request that pushes: its types, and what they mean to relay-core. The types borrow
//! from the body, so that a large payload is copied only once, when its base64 is decoded. A large
//! payload in CBOR is not copied at all.

use std::borrow::Cow;

use ::base64::Engine as _;
use bytes::Bytes;
use relay_auth::Proof;
use relay_core::{Chunk, Envelope, Kind, MessageId, Recipient, Rejection};
use serde::Deserialize;

use super::base64::{STANDARD, reason};
use super::field;
use super::format::{Encoded, Format};
use super::mistake::{Mistake, read};
use crate::api::error::ApiError;

/// Stores one item in the queue of a recipient.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PushRequest<'a> {
    /// Identifies the queue: any text of 1 to 512 bytes of UTF-8 that is not blank. The relay
    /// compares it byte for byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// A UUID in hyphenated, simple, braced or urn form, in any case.
    #[serde(borrow, deserialize_with = "field::message_id")]
    #[cfg_attr(test, schema(min_length = 32, max_length = 45))]
    message_id: Cow<'a, str>,
    /// The payload in standard base64 with padding; may be empty. After decoding, it may have at
    /// most `relay.max_message_bytes`, 8 MiB by default.
    #[serde(borrow, deserialize_with = "field::ciphertext_b64")]
    #[cfg_attr(test, schema(format = "byte"))]
    ciphertext_b64: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "field::meta")]
    meta: Meta<'a>,
    /// The secret of the send lock of this recipient, instead of a proof in the header
    /// `Authorization`.
    #[serde(borrow, default, deserialize_with = "field::proof")]
    #[cfg_attr(test, schema(min_length = 43, max_length = 86))]
    proof: Option<Cow<'a, str>>,
    /// How long the item is kept, in seconds. The upper limit, and the default, is
    /// `relay.message_ttl_seconds`, 14 days by default. The response then has `deadline_ms`.
    #[serde(default, deserialize_with = "field::ttl_seconds")]
    #[cfg_attr(test, schema(minimum = 1))]
    ttl_seconds: Option<u64>,
}

/// Stores one item in the queue of a recipient. As CBOR: the payload is a byte string, and
/// everything else is as in JSON.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct CborPushRequest<'a> {
    /// Identifies the queue: any text of 1 to 512 bytes of UTF-8 that is not blank. The relay
    /// compares it byte for byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// A UUID in hyphenated, simple, braced or urn form, in any case. It is a text string.
    #[serde(borrow, deserialize_with = "field::message_id")]
    #[cfg_attr(test, schema(min_length = 32, max_length = 45))]
    message_id: Cow<'a, str>,
    /// The payload as a byte string; may be empty. It may have at most `relay.max_message_bytes`, 8
    /// MiB by default.
    #[serde(borrow, deserialize_with = "field::ciphertext")]
    #[cfg_attr(test, schema(value_type = String, format = "binary"))]
    ciphertext: &'a [u8],
    #[serde(borrow, deserialize_with = "field::meta")]
    meta: Meta<'a>,
    /// The secret of the send lock of this recipient, instead of a proof in the header
    /// `Authorization`.
    #[serde(borrow, default, deserialize_with = "field::proof")]
    #[cfg_attr(test, schema(min_length = 43, max_length = 86))]
    proof: Option<Cow<'a, str>>,
    /// How long the item is kept, in seconds. The upper limit, and the default, is
    /// `relay.message_ttl_seconds`, 14 days by default. The response then has `deadline_ms`.
    #[serde(default, deserialize_with = "field::ttl_seconds")]
    #[cfg_attr(test, schema(minimum = 1))]
    ttl_seconds: Option<u64>,
}

/// A push in either format.
pub(super) struct Push<'a> {
    recipient: Cow<'a, str>,
    message_id: Cow<'a, str>,
    payload: Payload<'a>,
    meta: Meta<'a>,
    proof: Option<Cow<'a, str>>,
    ttl_seconds: Option<u64>,
}

/// A payload as the body has it.
enum Payload<'a> {
    Base64(Cow<'a, str>),
    Binary(&'a [u8]),
}

/// A push, and the proof that it carries itself.
#[derive(Debug)]
pub(crate) struct PushItem {
    pub(crate) envelope: Envelope,
    pub(crate) proof: Option<Proof>,
}

/// What the sender states about an item. The relay stores and returns it.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct Meta<'a> {
    /// 1 to 64 bytes of UTF-8 that are not blank, such as `opaque`, `signaling`, `attachment`.
    #[serde(borrow, deserialize_with = "field::kind")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 64))]
    kind: Cow<'a, str>,
    /// The length of the complete message in bytes. Not checked.
    #[serde(deserialize_with = "field::total_len")]
    total_len: u64,
    /// The index of this chunk within the message, from 0. Must be below `chunk_count`.
    #[serde(deserialize_with = "field::meta_chunk_index")]
    #[cfg_attr(test, schema(maximum = 4_294_967_294_u64))]
    chunk_index: u32,
    /// The number of chunks of the message.
    #[serde(deserialize_with = "field::chunk_count")]
    #[cfg_attr(test, schema(minimum = 1, maximum = 4_294_967_295_u64))]
    chunk_count: u32,
    /// The sender's clock, in ms since 1970. Not checked.
    #[serde(deserialize_with = "field::sent_ms")]
    sent_ms: u64,
}

/// Parses the body of a push with a payload of at most `payload_bytes_max`.
///
/// # Errors
/// When the encoding, a field or the size is invalid.
pub(crate) fn decode_push(body: &Encoded, payload_bytes_max: u64) -> Result<PushItem, ApiError> {
    Ok(Push::read(body.format, &body.bytes)?.into_item(body, payload_bytes_max)?)
}

impl<'a> From<PushRequest<'a>> for Push<'a> {
    fn from(request: PushRequest<'a>) -> Self {
        let PushRequest { recipient, message_id, ciphertext_b64, meta, proof, ttl_seconds } = request;
        let payload = Payload::Base64(ciphertext_b64);
        Self { recipient, message_id, payload, meta, proof, ttl_seconds }
    }
}

impl<'a> From<CborPushRequest<'a>> for Push<'a> {
    fn from(request: CborPushRequest<'a>) -> Self {
        let CborPushRequest { recipient, message_id, ciphertext, meta, proof, ttl_seconds } = request;
        let payload = Payload::Binary(ciphertext);
        Self { recipient, message_id, payload, meta, proof, ttl_seconds }
    }
}

impl<'a> Push<'a> {
    pub(super) fn read(format: Format, bytes: &'a [u8]) -> Result<Self, Mistake> {
        match format {
            Format::Json => read::<PushRequest<'_>>(format, bytes).map(Self::from),
            Format::Cbor => read::<CborPushRequest<'_>>(format, bytes).map(Self::from),
        }
    }

    /// The item of a push that is part of `body`.
    ///
    /// # Errors
    /// [`Rejection::MessageTooLarge`] for a payload over `payload_bytes_max`, which is then not
    /// decoded, and [`Rejection::InvalidInput`].
    pub(super) fn into_item(self, body: &Encoded, payload_bytes_max: u64) -> Result<PushItem, Rejection> {
        let recipient = Recipient::parse(&self.recipient)?;
        let message_id = MessageId::parse(&self.message_id)?;
        let chunk = Chunk::new(self.meta.chunk_index, self.meta.chunk_count)?;
        let kind = Kind::parse(&self.meta.kind)?;
        let ttl_ms = self.ttl_seconds.map(ttl_ms).transpose()?;
        if self.payload_bytes() > payload_bytes_max {
            return Err(Rejection::MessageTooLarge { limit: payload_bytes_max });
        }
        let payload = self.payload.decode(body)?;
        let Meta { total_len, sent_ms, .. } = self.meta;
        let proof = self.proof.map(|secret| Proof::secret(&secret));
        let envelope = Envelope { recipient, message_id, chunk, kind, total_len, sent_ms, ttl_ms, payload };
        Ok(PushItem { envelope, proof })
    }

    /// The length of the payload, if its base64 is well-formed.
    pub(super) fn payload_bytes(&self) -> u64 {
        match &self.payload {
            Payload::Base64(text) => base64_payload_bytes(text),
            Payload::Binary(bytes) => bytes.len() as u64,
        }
    }
}

impl Payload<'_> {
    fn decode(&self, body: &Encoded) -> Result<Bytes, Rejection> {
        match self {
            Self::Base64(text) => STANDARD
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(|error| Rejection::invalid("ciphertext_b64", reason(error))),
            Self::Binary(bytes) => Ok(body.keep(bytes)),
        }
    }
}

fn ttl_ms(seconds: u64) -> Result<u64, Rejection> {
    if seconds == 0 {
        return Err(Rejection::invalid("ttl_seconds", "must be at least 1"));
    }
    Ok(seconds.saturating_mul(1000))
}

/// The length of the payload that this base64 encodes, if it is well-formed.
fn base64_payload_bytes(text: &str) -> u64 {
    let padding = text.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &str = r#"{"recipient":"alice","message_id":"6F2C2F0E-8C6B-4C29-9B1F-0A6A7C9B1D11","ciphertext_b64":"aGVsbG8=",
        "meta":{"kind":"opaque","total_len":5,"chunk_index":0,"chunk_count":1,"sent_ms":7}}"#;

    fn push(json: &str) -> Result<Envelope, String> {
        let body = Encoded::new(Format::Json, json.as_bytes().to_vec());
        decode_push(&body, 5).map(|item| item.envelope).map_err(|error| error.to_string())
    }

    #[test]
    fn a_push_becomes_an_envelope() {
        let envelope = push(PUSH).unwrap();
        assert_eq!(envelope.recipient.as_str(), "alice");
        assert_eq!(envelope.message_id.to_string(), "6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11");
        assert_eq!((envelope.chunk.index(), envelope.chunk.count()), (0, 1));
        assert_eq!((envelope.kind.as_str(), envelope.total_len, envelope.sent_ms), ("opaque", 5, 7));
        assert_eq!(envelope.payload, "hello");
    }

    #[test]
    fn unknown_fields_are_ignored_and_escapes_are_decoded() {
        let json = PUSH
            .replace(r#""alice""#, r#""\u0061lice\n\ud83e\udd80""#)
            .replace(r#"aGVsbG8="#, r#"\u0061GVsbG8\u003d"#)
            .replace(r#""meta":{"#, r#""x":{"y":[1]},"x":2,"meta":{"z":null,"#);
        let envelope = push(&json).unwrap();
        assert_eq!((envelope.recipient.as_str(), &*envelope.payload), ("alice\n🦀", &b"hello"[..]));
    }

    #[test]
    fn the_error_of_an_invalid_push_names_the_field() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(PUSH.contains(from));
            let error = push(&PUSH.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        };
        check(r#""alice""#, "7", "recipient: expected a string, found a number at line 1 column 14");
        check(r#""alice""#, "null", "recipient: expected a string, found null");
        check(r#""alice""#, r#""  ""#, "recipient: must not be empty or blank");
        check(r#""recipient":"alice","#, "", "missing field `recipient`");
        check(r#""recipient""#, r#""recipient":"bob","recipient""#, "duplicate field `recipient`");
        check(r#""total_len":5"#, r#""total_len":5,"total_len":5"#, "duplicate field `total_len`");
        check("6F2C2F0E", "6F2C2F0", "message_id: not a UUID");
        check(r#""chunk_index":0"#, r#""chunk_index":1"#, "meta.chunk_index");
        check(r#""chunk_index":0"#, r#""chunk_index":-1"#, "meta.chunk_index: expected a whole number");
        check(r#""chunk_count":1"#, r#""chunk_count":0"#, "meta.chunk_count");
        check("opaque", "", "meta.kind");
        check("aGVsbG8=", "aGVsbG8", "ciphertext_b64: not standard base64");
        check("aGVsbG8=", "aGVsbG9=", "ciphertext_b64: not standard base64");
        check("aGVsbG8=", "aGVsb-8=", "ciphertext_b64: not standard base64");
        check("aGVsbG8=", "aGVs bG8=", "ciphertext_b64: not standard base64");
        check("aGVsbG8=", "aGVsbG8h", "larger than 5 bytes");
        let (_, meta) = PUSH.trim_end_matches('}').split_once(r#""meta":"#).unwrap();
        check(
            &format!("{meta}}}"),
            r#"["opaque",5,0,1,7]"#,
            "meta: expected an object, found an array at line 2 column",
        );
        check(&format!("{meta}}}"), "7", "meta: expected an object, found a number");
    }

    /// serde accepts an array in place of a struct, with the values in the order of the fields.
    #[test]
    fn an_array_is_not_accepted_as_an_object() {
        let id = "6f2c2f0e8c6b4c299b1f0a6a7c9b1d11";
        let pushed = format!(
            r#"["alice","{id}","aGVsbG8=",{{"kind":"opaque","total_len":5,"chunk_index":0,"chunk_count":1,"sent_ms":7}}]"#
        );
        assert!(decode_push(&Encoded::new(Format::Json, pushed.into()), 5).is_err());
    }

    #[test]
    fn a_ttl_is_at_least_a_second() {
        let ttl = |value: &str| push(&PUSH.replacen('{', &format!(r#"{{"ttl_seconds":{value},"#), 1));
        assert_eq!(push(PUSH).unwrap().ttl_ms, None);
        assert_eq!(ttl("null").unwrap().ttl_ms, None);
        assert_eq!(ttl("1").unwrap().ttl_ms, Some(1000));
        assert_eq!(ttl("18446744073709551615").unwrap().ttl_ms, Some(u64::MAX));
        assert_eq!(ttl("0").unwrap_err(), "ttl_seconds: must be at least 1");
        let error = ttl("1.5").unwrap_err();
        assert!(error.starts_with("ttl_seconds: expected a positive whole number"), "{error}");
    }

    #[test]
    fn the_length_of_a_payload_is_computed_without_decoding() {
        for len in 0..100 {
            let text = STANDARD.encode(vec![7; len]);
            assert_eq!(base64_payload_bytes(&text), len as u64);
        }
    }
}
