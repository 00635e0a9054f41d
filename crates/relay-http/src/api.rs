//! The JSON of the API: what stands on the wire, and its twins in relay-core's words. Nothing here
//! knows of HTTP.
//!
//! Requests borrow from the body that they were read from, so that a large payload is copied once,
//! out of its base64. Answers are written into one buffer, but for a page, which is written while
//! it is sent.

mod base64;
pub(crate) mod code;
pub(crate) mod counts;
pub(crate) mod cursor;
pub(crate) mod endpoint;
pub(crate) mod error;
mod field;
pub(crate) mod headers;
pub(crate) mod limits;
pub(crate) mod mistake;
mod page;

use std::borrow::Cow;
use std::num::NonZeroU64;

use ::base64::Engine as _;
use relay_core::{
    Ack, AckOutcome, Chunk, Envelope, ItemId, Kind, MessageId, Pull, PushOutcome, Recipient, Rejection,
};
use serde::{Deserialize, Serialize};

use self::base64::{STANDARD, reason};
use self::mistake::read;
use crate::api::counts::Counts;
use crate::api::cursor::CursorKey;
use crate::api::error::ApiError;

pub(crate) use page::PageJson;

#[cfg(feature = "fuzzing")]
pub(crate) use self::base64::STANDARD as PROCESSOR;

/// An item for a queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PushRequest<'a> {
    /// Names the queue: any text of 1 to 512 bytes of UTF-8 that is not blank, compared byte for
    /// byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// A UUID in hyphenated, simple, braced or urn form, in any case.
    #[serde(borrow, deserialize_with = "field::message_id")]
    #[cfg_attr(test, schema(min_length = 32, max_length = 45))]
    message_id: Cow<'a, str>,
    /// The payload in standard base64 with padding; may be empty. Decoded, it has at most
    /// `relay.max_message_bytes`, 8 MiB by default.
    #[serde(borrow, deserialize_with = "field::ciphertext_b64")]
    #[cfg_attr(test, schema(format = "byte"))]
    ciphertext_b64: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "field::meta")]
    meta: Meta<'a>,
}

/// What the sender says of an item. It is stored and returned.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct Meta<'a> {
    /// 1 to 64 bytes of UTF-8 that are not blank, such as `opaque`, `signaling`, `attachment`.
    #[serde(borrow, deserialize_with = "field::kind")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 64))]
    kind: Cow<'a, str>,
    /// The length of the whole message; not checked.
    #[serde(deserialize_with = "field::total_len")]
    total_len: u64,
    /// Which chunk of the message this is, from 0; below `chunk_count`.
    #[serde(deserialize_with = "field::meta_chunk_index")]
    #[cfg_attr(test, schema(maximum = 4_294_967_294_u64))]
    chunk_index: u32,
    /// How many chunks the message has.
    #[serde(deserialize_with = "field::chunk_count")]
    #[cfg_attr(test, schema(minimum = 1, maximum = 4_294_967_295_u64))]
    chunk_count: u32,
    /// The sender's clock; not checked.
    #[serde(deserialize_with = "field::sent_ms")]
    sent_ms: u64,
}

/// What became of a push.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PushResponse {
    /// Whether the item was put into the queue; it is on disk, then.
    stored: bool,
    /// True if the item is in the queue already, or was acked lately; left out otherwise.
    #[serde(skip_serializing_if = "is_false")]
    duplicate: bool,
    /// True if the one in the queue has another payload, and keeps it; left out otherwise.
    #[serde(skip_serializing_if = "is_false")]
    conflict: bool,
    /// The items in the queue after the push.
    queue_len: u64,
    /// The payload bytes in the queue after the push.
    queue_bytes: u64,
}

/// A page of a queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PullRequest<'a> {
    /// Names the queue: any text of 1 to 512 bytes of UTF-8 that is not blank, compared byte for
    /// byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// The `next_cursor` of an earlier page of the same queue, as it was given. Without one, the
    /// page begins at the front.
    #[serde(borrow, default, deserialize_with = "field::cursor")]
    cursor: Option<Cow<'a, str>>,
    /// The most items wanted; clamped to `relay.pull_batch_max`, which also holds without it.
    #[serde(default, deserialize_with = "field::max")]
    #[cfg_attr(test, schema(minimum = 1))]
    max: Option<u64>,
}

/// Items that need not be kept any longer.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct AckRequest<'a> {
    /// Names the queue: any text of 1 to 512 bytes of UTF-8 that is not blank, compared byte for
    /// byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// The items. One that is named twice counts once.
    #[serde(borrow, deserialize_with = "field::ack")]
    #[cfg_attr(test, schema(max_items = 10_000))]
    ack: Vec<AckEntry<'a>>,
}

/// The name of an item within its queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct AckEntry<'a> {
    /// A UUID in hyphenated, simple, braced or urn form, in any case.
    #[serde(borrow, deserialize_with = "field::message_id")]
    #[cfg_attr(test, schema(min_length = 32, max_length = 45))]
    message_id: Cow<'a, str>,
    /// Which chunk of the message.
    #[serde(deserialize_with = "field::chunk_index")]
    #[cfg_attr(test, schema(maximum = 4_294_967_295_u64))]
    chunk_index: u32,
}

/// What became of an ack: all of its items are gone, durably.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct AckResponse {
    /// The items that were in the queue until now.
    deleted: u64,
    /// The items that were not. Both together are the different entries of the request.
    missing: u64,
    /// The items that are left in the queue.
    remaining: u64,
}

/// The process serves.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct HealthResponse {
    /// Always `ok`.
    status: &'static str,
}

/// The relay serves, and has its store.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct ReadyResponse {
    /// Always `ready`.
    status: &'static str,
}

/// The counters since the start.
#[derive(Serialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct StatsResponse {
    /// Always `ok`.
    pub(crate) status: &'static str,
    /// How long the relay has been running.
    pub(crate) uptime_ms: u64,
    /// The counters. More may be added.
    pub(crate) metrics: Counts,
}

/// Reads the body of a push, whose payload may have at most `payload_bytes_max`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_push(json: &[u8], payload_bytes_max: u64) -> Result<Envelope, ApiError> {
    Ok(read::<PushRequest<'_>>(json)?.into_envelope(payload_bytes_max)?)
}

/// Reads the body of a pull, whose cursor was written under `cursors`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_pull(json: &[u8], cursors: &CursorKey) -> Result<Pull, ApiError> {
    Ok(read::<PullRequest<'_>>(json)?.into_pull(cursors)?)
}

/// Reads the body of an ack.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_ack(json: &[u8]) -> Result<Ack, ApiError> {
    Ok(read::<AckRequest<'_>>(json)?.try_into()?)
}

impl PushRequest<'_> {
    /// The item that is pushed.
    ///
    /// # Errors
    /// [`Rejection::MessageTooLarge`] for a payload over `payload_bytes_max`, which is not even
    /// decoded then, and [`Rejection::InvalidInput`].
    fn into_envelope(self, payload_bytes_max: u64) -> Result<Envelope, Rejection> {
        let recipient = Recipient::parse(&self.recipient)?;
        let message_id = MessageId::parse(&self.message_id)?;
        let chunk = Chunk::new(self.meta.chunk_index, self.meta.chunk_count)?;
        let kind = Kind::parse(&self.meta.kind)?;
        if base64_payload_bytes(&self.ciphertext_b64) > payload_bytes_max {
            return Err(Rejection::MessageTooLarge { limit: payload_bytes_max });
        }
        let payload = STANDARD
            .decode(self.ciphertext_b64.as_bytes())
            .map_err(|error| Rejection::invalid("ciphertext_b64", reason(error)))?
            .into();
        let Meta { total_len, sent_ms, .. } = self.meta;
        Ok(Envelope { recipient, message_id, chunk, kind, total_len, sent_ms, payload })
    }
}

impl PullRequest<'_> {
    /// The page that is asked for.
    ///
    /// # Errors
    /// [`Rejection::InvalidInput`], also for a cursor that was not written under `cursors`.
    fn into_pull(self, cursors: &CursorKey) -> Result<Pull, Rejection> {
        let recipient = Recipient::parse(&self.recipient)?;
        let after = self.cursor.map(|text| cursors.decode(&recipient, &text)).transpose()?;
        let positive =
            |max| NonZeroU64::new(max).ok_or_else(|| Rejection::invalid("max", "must be at least 1"));
        let items_max = self.max.map(positive).transpose()?;
        Ok(Pull { recipient, after, items_max })
    }
}

impl TryFrom<AckRequest<'_>> for Ack {
    type Error = Rejection;

    fn try_from(request: AckRequest<'_>) -> Result<Self, Rejection> {
        let recipient = Recipient::parse(&request.recipient)?;
        let items = request.ack.iter().map(ItemId::try_from).collect::<Result<_, _>>()?;
        Self::new(recipient, items)
    }
}

impl TryFrom<&AckEntry<'_>> for ItemId {
    type Error = Rejection;

    fn try_from(entry: &AckEntry<'_>) -> Result<Self, Rejection> {
        Ok(Self { message_id: MessageId::parse(&entry.message_id)?, chunk_index: entry.chunk_index })
    }
}

impl From<PushOutcome> for PushResponse {
    fn from(outcome: PushOutcome) -> Self {
        let (stored, conflict) = match outcome {
            PushOutcome::Stored { .. } => (true, false),
            PushOutcome::Duplicate { conflict, .. } => (false, conflict),
        };
        let usage = outcome.usage();
        Self { stored, duplicate: !stored, conflict, queue_len: usage.items, queue_bytes: usage.bytes }
    }
}

impl From<AckOutcome> for AckResponse {
    fn from(outcome: AckOutcome) -> Self {
        let AckOutcome { deleted, missing, remaining } = outcome;
        Self { deleted, missing, remaining }
    }
}

impl HealthResponse {
    pub(crate) const OK: Self = Self { status: "ok" };
}

impl ReadyResponse {
    pub(crate) const READY: Self = Self { status: "ready" };
}

/// How long the payload is that well-formed base64 stands for.
fn base64_payload_bytes(text: &str) -> u64 {
    let padding = text.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding) as u64
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &str = r#"{"recipient":"alice","message_id":"6F2C2F0E-8C6B-4C29-9B1F-0A6A7C9B1D11","ciphertext_b64":"aGVsbG8=",
        "meta":{"kind":"opaque","total_len":5,"chunk_index":0,"chunk_count":1,"sent_ms":7}}"#;

    fn push(json: &str) -> Result<Envelope, String> {
        let request = read::<PushRequest<'_>>(json.as_bytes()).map_err(|mistake| mistake.to_string())?;
        request.into_envelope(5).map_err(|rejection| rejection.to_string())
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
    fn what_is_unknown_is_ignored_and_escapes_are_read() {
        let json = PUSH
            .replace(r#""alice""#, r#""\u0061lice\n\ud83e\udd80""#)
            .replace(r#"aGVsbG8="#, r#"\u0061GVsbG8\u003d"#)
            .replace(r#""meta":{"#, r#""x":{"y":[1]},"x":2,"meta":{"z":null,"#);
        let envelope = push(&json).unwrap();
        assert_eq!((envelope.recipient.as_str(), &*envelope.payload), ("alice\n🦀", &b"hello"[..]));
    }

    #[test]
    fn a_bad_push_is_told_what_is_wrong() {
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

    /// serde takes the values of a struct from an array, in the order of its fields.
    #[test]
    fn an_array_is_no_object() {
        let id = "6f2c2f0e8c6b4c299b1f0a6a7c9b1d11";
        let pushed = format!(
            r#"["alice","{id}","aGVsbG8=",{{"kind":"opaque","total_len":5,"chunk_index":0,"chunk_count":1,"sent_ms":7}}]"#
        );
        assert!(decode_push(pushed.as_bytes(), 5).is_err());
        assert!(decode_pull(br#"["alice",null,null]"#, &CursorKey::new(&[7; 32])).is_err());
        assert!(decode_ack(br#"["alice",[]]"#).is_err());
        let entry = |entry: &str| format!(r#"{{"recipient":"alice","ack":[{entry}]}}"#);
        assert!(decode_ack(entry(&format!(r#"["{id}",3]"#)).as_bytes()).is_err());
        let entry = entry(&format!(r#"{{"message_id":"{id}","chunk_index":3}}"#));
        assert_eq!(decode_ack(entry.as_bytes()).ok().unwrap().items().len(), 1);
    }

    #[test]
    fn the_length_of_a_payload_is_known_before_it_is_decoded() {
        for len in 0..100 {
            let text = STANDARD.encode(vec![7; len]);
            assert_eq!(base64_payload_bytes(&text), len as u64);
        }
    }

    #[test]
    fn the_optional_fields_of_a_pull_may_be_left_out_or_null() {
        let pull = |json: &str| {
            let request = serde_json::from_str::<PullRequest<'_>>(json).unwrap();
            request.into_pull(&CursorKey::new(&[7; 32]))
        };
        for json in [r#"{"recipient":"alice"}"#, r#"{"recipient":"alice","cursor":null,"max":null}"#] {
            let pull = pull(json).unwrap();
            assert_eq!((pull.after, pull.items_max), (None, None));
        }
        assert_eq!(pull(r#"{"recipient":"alice","max":3}"#).unwrap().items_max, NonZeroU64::new(3));
        assert!(matches!(
            pull(r#"{"recipient":"alice","max":0}"#),
            Err(Rejection::InvalidInput { field: "max", .. })
        ));
        assert!(matches!(
            pull(r#"{"recipient":"alice","cursor":""}"#),
            Err(Rejection::InvalidInput { field: "cursor", .. })
        ));
    }

    #[test]
    fn an_ack_names_items() {
        let ack = |json: &str| Ack::try_from(serde_json::from_str::<AckRequest<'_>>(json).unwrap());
        assert!(ack(r#"{"recipient":"alice","ack":[]}"#).unwrap().items().is_empty());
        let one = r#"{"message_id":"6f2c2f0e8c6b4c299b1f0a6a7c9b1d11","chunk_index":3}"#;
        let twice = ack(&format!(r#"{{"recipient":"alice","ack":[{one},{one}]}}"#)).unwrap();
        assert_eq!(twice.items().len(), 1);
        assert!(ack(r#"{"recipient":"alice","ack":[{"message_id":"x","chunk_index":3}]}"#).is_err());
    }

    #[test]
    fn an_outcome_shows_only_what_is_so() {
        let usage = relay_core::Usage { items: 2, bytes: 9 };
        let check = |outcome, expected: &str| {
            assert_eq!(serde_json::to_string(&PushResponse::from(outcome)).unwrap(), expected);
        };
        check(PushOutcome::Stored { usage }, r#"{"stored":true,"queue_len":2,"queue_bytes":9}"#);
        check(
            PushOutcome::Duplicate { usage, conflict: false },
            r#"{"stored":false,"duplicate":true,"queue_len":2,"queue_bytes":9}"#,
        );
        check(
            PushOutcome::Duplicate { usage, conflict: true },
            r#"{"stored":false,"duplicate":true,"conflict":true,"queue_len":2,"queue_bytes":9}"#,
        );
    }
}
