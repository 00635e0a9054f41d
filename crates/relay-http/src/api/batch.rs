//! A batch: a request with several pushes. A mistake in one item fails this item alone.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::cbor::RawCbor;
use super::field;
use super::format::{Encoded, Format};
use super::mistake::{Mistake, read};
use super::requests::{CborPushRequest, Push, PushItem, PushRequest};
use crate::api::error::ApiError;

/// Stores several items, also of different recipients.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct BatchRequest<'a> {
    /// The items. Those of one recipient arrive in this order.
    #[serde(borrow, deserialize_with = "field::items")]
    #[cfg_attr(test, schema(max_items = 256))]
    items: Vec<PushRequest<'a>>,
}

/// Stores several items, also of different recipients. As CBOR.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct CborBatchRequest<'a> {
    /// The items. Those of one recipient arrive in this order.
    #[serde(borrow, deserialize_with = "field::items")]
    #[cfg_attr(test, schema(max_items = 256))]
    items: Vec<CborPushRequest<'a>>,
}

/// A batch whose items are still encoded.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct RawBatch<T> {
    #[serde(deserialize_with = "field::raw_items")]
    items: Vec<T>,
}

/// Parses the body of a batch whose payloads have at most `payload_bytes_max` each, and
/// `batch_bytes_max` together. Each item has its own outcome.
///
/// # Errors
/// When the encoding is invalid as a whole, or there are too many items or bytes.
pub(crate) fn decode_batch(
    body: &Encoded,
    payload_bytes_max: u64,
    batch_bytes_max: u64,
) -> Result<Vec<Result<PushItem, ApiError>>, ApiError> {
    let items = match read_all(body) {
        Ok(items) => items.into_iter().map(Ok).collect(),
        Err(_) => read_each(body)?,
    };
    let payload_bytes = items.iter().flatten().map(Push::payload_bytes).fold(0, u64::saturating_add);
    if payload_bytes > batch_bytes_max {
        return Err(ApiError::BatchTooLarge { payload_bytes_max: batch_bytes_max });
    }
    let decode = |item: Push<'_>| Ok(item.into_item(body, payload_bytes_max)?);
    Ok(items.into_iter().map(|item| item.map_err(ApiError::from).and_then(decode)).collect())
}

fn read_all(body: &Encoded) -> Result<Vec<Push<'_>>, Mistake> {
    let Encoded { format, bytes, .. } = body;
    Ok(match format {
        Format::Json => read::<BatchRequest<'_>>(*format, bytes)?.items.into_iter().map(Push::from).collect(),
        Format::Cbor => {
            read::<CborBatchRequest<'_>>(*format, bytes)?.items.into_iter().map(Push::from).collect()
        }
    })
}

/// Parses each item on its own, to find those with a mistake.
fn read_each(body: &Encoded) -> Result<Vec<Result<Push<'_>, Mistake>>, Mistake> {
    let Encoded { format, bytes, .. } = body;
    let items: Vec<&[u8]> = match format {
        Format::Json => {
            let batch = read::<RawBatch<&RawValue>>(*format, bytes)?;
            batch.items.into_iter().map(|item| item.get().as_bytes()).collect()
        }
        Format::Cbor => read::<RawBatch<RawCbor<'_>>>(*format, bytes)?
            .items
            .into_iter()
            .map(|RawCbor(item)| item)
            .collect(),
    };
    Ok(items.into_iter().map(|item| Push::read(*format, item)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::BATCH_ITEMS_MAX;

    const ITEM: &str = r#"{"recipient":"alice","message_id":"6f2c2f0e8c6b4c299b1f0a6a7c9b1d11","ciphertext_b64":"aGVsbG8=",
        "meta":{"kind":"opaque","total_len":5,"chunk_index":0,"chunk_count":1,"sent_ms":7}}"#;

    fn batch(items: &[&str]) -> String {
        format!(r#"{{"x":[1],"items":[{}],"y":{{}}}}"#, items.join(","))
    }

    /// For each item, the recipient, or the error.
    fn decode(json: &str) -> Result<Vec<String>, String> {
        let items = decode_batch(&Encoded::new(Format::Json, json.into()), 5, 17)
            .map_err(|error| error.to_string())?;
        let shown = |item: Result<PushItem, ApiError>| match item {
            Ok(item) => item.envelope.recipient.as_str().to_owned(),
            Err(error) => error.to_string(),
        };
        Ok(items.into_iter().map(shown).collect())
    }

    #[test]
    fn each_item_is_judged_alone() {
        assert_eq!(decode(&batch(&[])), Ok(vec![]));
        let bob = ITEM.replace("alice", "bob");
        assert_eq!(decode(&batch(&[ITEM, &bob])).unwrap(), ["alice", "bob"]);
        for (bad, expected) in [
            (
                ITEM.replace(r#""alice""#, "7"),
                "recipient: expected a string, found a number at line 1 column 14",
            ),
            (ITEM.replace("6f2c", "6f2"), "message_id: not a UUID"),
            (ITEM.replace("aGVsbG8=", "aGVsbG8h"), "larger than 5 bytes"),
            (ITEM.replace(r#""recipient":"alice","#, ""), "missing field `recipient`"),
            ("null".to_owned(), "the body: expected an object, found null"),
            ("[1,[2,{}]]".to_owned(), "the body: expected an object, found an array"),
            (r#""alice""#.to_owned(), "the body: expected an object, found a string"),
        ] {
            let found = decode(&batch(&[ITEM, &bad, &bob])).unwrap();
            assert!(found[1].contains(expected), "{bad}: {}", found[1]);
            assert_eq!((&*found[0], &*found[2]), ("alice", "bob"));
        }
    }

    #[test]
    fn a_batch_that_is_wrong_as_a_whole_is_refused() {
        let check = |json: &str, expected: &str| {
            let error = decode(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        };
        check("", "EOF");
        check("[]", "the body: expected an object, found an array");
        check("{}", "missing field `items`");
        check(r#"{"items":{}}"#, "items: expected an array of at most 256 objects, found an object");
        check(r#"{"items":null}"#, "items: expected an array of at most 256 objects, found null");
        check(r#"{"items":[1,]}"#, "trailing comma");
        check(&batch(&[ITEM, "{"]), "at line");
        check(&batch(&[ITEM; 4]), "the payloads are larger than 17 bytes together");
        let many = vec!["{}"; BATCH_ITEMS_MAX + 1];
        check(&batch(&many), "items: expected an array of at most 256 objects, found more");
        assert_eq!(decode(&batch(&many[1..])).unwrap().len(), BATCH_ITEMS_MAX);
    }

    #[test]
    fn deep_nesting_fails_its_item_alone() {
        for deep in [
            "[".repeat(100_000) + &"]".repeat(100_000),
            "{\"meta\":".repeat(100_000) + "1" + &"}".repeat(100_000),
        ] {
            let found = decode(&batch(&[&deep, ITEM])).unwrap();
            assert!(found[0].len() < 200 && found[1] == "alice", "{}", found[0]);
        }
    }
}
