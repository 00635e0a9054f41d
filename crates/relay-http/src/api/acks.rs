//! The requests that remove items, ack and purge: their types, and what they mean to relay-core.

use std::borrow::Cow;

use relay_core::{Ack, ItemId, MessageId, Recipient, Rejection};
use serde::{Deserialize, Deserializer};

use super::field;
use super::format::Encoded;
use super::mistake::read;
use crate::api::cursor::CursorKey;
use crate::api::error::ApiError;

/// Deletes items that the recipient has received: those in `ack`, and all up to `ack_before`. At
/// least one of the two must be there.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct AckRequest<'a> {
    /// Identifies the queue: any text of 1 to 512 bytes of UTF-8 that is not blank. The relay
    /// compares it byte for byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// The items to delete. An item that is listed twice counts once.
    #[serde(borrow, default, deserialize_with = "some_entries")]
    #[cfg_attr(test, schema(max_items = 10_000))]
    ack: Option<Vec<AckEntry<'a>>>,
    /// The unchanged `next_cursor` of a page or an event of this queue. All items of that page and
    /// before it are deleted.
    #[serde(borrow, default, deserialize_with = "field::ack_before")]
    ack_before: Option<Cow<'a, str>>,
}

/// An ack of 0.0.3.
#[derive(Deserialize)]
struct AckOfEntries<'a> {
    #[serde(borrow, rename = "ack", deserialize_with = "field::ack")]
    _entries: Vec<AckEntry<'a>>,
}

/// Deletes all items of a queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PurgeRequest<'a> {
    /// Identifies the queue: any text of 1 to 512 bytes of UTF-8 that is not blank. The relay
    /// compares it byte for byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
}

/// Identifies an item within its queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
struct AckEntry<'a> {
    /// A UUID in hyphenated, simple, braced or urn form, in any case.
    #[serde(borrow, deserialize_with = "field::message_id")]
    #[cfg_attr(test, schema(min_length = 32, max_length = 45))]
    message_id: Cow<'a, str>,
    /// The index of the chunk within the message, from 0.
    #[serde(deserialize_with = "field::chunk_index")]
    #[cfg_attr(test, schema(maximum = 4_294_967_295_u64))]
    chunk_index: u32,
}

/// Parses the body of an ack. Its cursor must have been issued under the key `cursors`.
///
/// # Errors
/// When the encoding or a field is invalid.
pub(crate) fn decode_ack(body: &Encoded, cursors: &CursorKey) -> Result<Ack, ApiError> {
    let request = read::<AckRequest<'_>>(body.format, &body.bytes)?;
    if request.ack.is_none() && request.ack_before.is_none() {
        // It explains what is missing.
        read::<AckOfEntries<'_>>(body.format, &body.bytes)?;
    }
    Ok(request.into_ack(cursors)?)
}

/// Parses the body of a purge.
///
/// # Errors
/// When the encoding or the recipient is invalid.
pub(crate) fn decode_purge(body: &Encoded) -> Result<Ack, ApiError> {
    let request = read::<PurgeRequest<'_>>(body.format, &body.bytes)?;
    Ok(Ack::everything(Recipient::parse(&request.recipient)?))
}

/// Reads the entries of an ack, if there are any.
fn some_entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<AckEntry<'de>>>, D::Error> {
    field::ack(deserializer).map(Some)
}

impl AckRequest<'_> {
    fn into_ack(self, cursors: &CursorKey) -> Result<Ack, Rejection> {
        let recipient = Recipient::parse(&self.recipient)?;
        let through = self.ack_before.map(|text| cursors.decode_field("ack_before", &recipient, &text));
        let through = through.transpose()?;
        let item_id = |entry: &AckEntry<'_>| {
            Ok(ItemId { message_id: MessageId::parse(&entry.message_id)?, chunk_index: entry.chunk_index })
        };
        let items = self.ack.iter().flatten().map(item_id).collect::<Result<_, Rejection>>()?;
        let ack = Ack::new(recipient, items)?;
        Ok(match through {
            Some(through) => ack.and_through(through),
            None => ack,
        })
    }
}

#[cfg(test)]
mod tests {
    use relay_core::Seq;

    use super::*;
    use crate::api::format::Format;

    fn cursors() -> CursorKey {
        CursorKey::new(&[7; 32])
    }

    fn encoded(json: &str) -> Encoded {
        Encoded::new(Format::Json, json.as_bytes().to_vec())
    }

    fn ack(json: &str) -> Result<Ack, ApiError> {
        decode_ack(&encoded(json), &cursors())
    }

    /// serde accepts an array in place of a struct, with the values in the order of the fields.
    #[test]
    fn an_array_is_not_accepted_as_an_object() {
        let id = "6f2c2f0e8c6b4c299b1f0a6a7c9b1d11";
        assert!(ack(r#"["alice",[]]"#).is_err());
        assert!(decode_purge(&encoded(r#"["alice"]"#)).is_err());
        let entry = |entry: &str| format!(r#"{{"recipient":"alice","ack":[{entry}]}}"#);
        assert!(ack(&entry(&format!(r#"["{id}",3]"#))).is_err());
        let entry = entry(&format!(r#"{{"message_id":"{id}","chunk_index":3}}"#));
        assert_eq!(ack(&entry).ok().unwrap().items().len(), 1);
    }

    #[test]
    fn an_ack_has_entries_or_a_cursor_or_both() {
        let cursor = cursors().encode(&Recipient::parse("alice").unwrap(), Seq::new(9));
        let ack = |rest: &str| {
            let json = format!(r#"{{"recipient":"alice"{rest}}}"#).replace("CURSOR", &cursor);
            let ack = ack(&json).map_err(|error| error.to_string())?;
            Ok::<_, String>((ack.items().len(), ack.through().map(Seq::as_u64)))
        };
        let entry = r#"{"message_id":"6f2c2f0e8c6b4c299b1f0a6a7c9b1d11","chunk_index":3}"#;
        assert_eq!(ack(&format!(r#","ack":[{entry}]"#)), Ok((1, None)));
        assert_eq!(ack(&format!(r#","ack":[{entry}],"ack_before":"CURSOR""#)), Ok((1, Some(9))));
        assert_eq!(ack(r#","ack_before":"CURSOR""#), Ok((0, Some(9))));
        assert_eq!(ack(r#","ack":[],"ack_before":null"#), Ok((0, None)));
        for rest in ["", r#","ack_before":null"#] {
            let error = ack(rest).unwrap_err();
            assert!(error.contains("missing field `ack` at line 1"), "{error}");
        }
        let error = ack(r#","ack":null,"ack_before":"CURSOR""#).unwrap_err();
        assert!(error.starts_with("ack: expected an array"), "{error}");
        let error = ack(r#","ack_before":"CURSORx""#).unwrap_err();
        assert_eq!(error, "ack_before: is invalid or belongs to another recipient");
    }

    #[test]
    fn an_ack_counts_repeated_entries_once() {
        assert!(ack(r#"{"recipient":"alice","ack":[]}"#).unwrap().items().is_empty());
        let one = r#"{"message_id":"6f2c2f0e8c6b4c299b1f0a6a7c9b1d11","chunk_index":3}"#;
        let twice = ack(&format!(r#"{{"recipient":"alice","ack":[{one},{one}]}}"#)).unwrap();
        assert_eq!(twice.items().len(), 1);
        assert!(ack(r#"{"recipient":"alice","ack":[{"message_id":"x","chunk_index":3}]}"#).is_err());
    }
}
