//! The requests that read a queue, pull and stream: their types, and what they mean to relay-core.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::time::Duration;

use relay_core::{Page, Pull, Recipient, Rejection, Seq};
use serde::Deserialize;

use super::field;
use super::format::Encoded;
use super::mistake::read;
use crate::api::cursor::CursorKey;
use crate::api::error::ApiError;

/// How long a stream may be silent.
const KEEPALIVE_MIN: Duration = Duration::from_secs(15);
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(30);
const KEEPALIVE_MAX: Duration = Duration::from_secs(300);

/// Requests one page of a queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(crate) struct PullRequest<'a> {
    /// Identifies the queue: any text of 1 to 512 bytes of UTF-8 that is not blank. The relay
    /// compares it byte for byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// The unchanged `next_cursor` of an earlier page of the same queue. Without a cursor, the page
    /// begins at the front of the queue.
    #[serde(borrow, default, deserialize_with = "field::cursor")]
    cursor: Option<Cow<'a, str>>,
    /// The maximum number of items. The default, and the upper limit, is `relay.pull_batch_max`.
    #[serde(default, deserialize_with = "field::max")]
    #[cfg_attr(test, schema(minimum = 1))]
    max: Option<u64>,
    /// How long to wait for an item, in milliseconds, if there is none. The upper limit is
    /// `server.pull_wait_max_ms`, 55 seconds by default. The response is an empty page if the time
    /// is over or the relay stops.
    #[serde(default, deserialize_with = "field::wait_ms")]
    wait_ms: Option<u64>,
    /// Whether the last page has a cursor as well, after which the next items will come. For an
    /// empty page it is the cursor of the request.
    #[serde(default, deserialize_with = "field::tail")]
    tail: Option<bool>,
}

/// A pull, and what its client wants besides.
#[derive(Debug)]
pub(crate) struct PageRequest {
    pub(crate) pull: Pull,
    /// How long to wait for an item.
    pub(crate) wait: Duration,
    /// Whether the last page needs a cursor, too.
    tail: bool,
}

/// Begins a stream of the items of a queue.
#[derive(Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
#[cfg_attr(test, schema(as = StreamRequest))]
pub(crate) struct StreamSettings<'a> {
    /// Identifies the queue: any text of 1 to 512 bytes of UTF-8 that is not blank. The relay
    /// compares it byte for byte.
    #[serde(borrow, deserialize_with = "field::recipient")]
    #[cfg_attr(test, schema(min_length = 1, max_length = 512))]
    recipient: Cow<'a, str>,
    /// The unchanged `next_cursor` of an event, or of a page, of the same queue. Without a cursor,
    /// the stream begins at the front of the queue.
    #[serde(borrow, default, deserialize_with = "field::cursor")]
    cursor: Option<Cow<'a, str>>,
    /// After how many milliseconds without an item the relay shows that the stream is alive. The
    /// relay raises or lowers it to a value from 15,000 to 300,000. The default is 30,000.
    #[serde(default, deserialize_with = "field::keepalive_ms")]
    keepalive_ms: Option<u64>,
}

/// A stream that a client wants.
#[derive(Debug)]
pub(crate) struct StreamRequest {
    /// The first page.
    pub(crate) pull: Pull,
    /// How long the stream may be silent.
    pub(crate) keepalive: Duration,
}

/// Parses the body of a pull. Its cursor must have been issued under the key `cursors`.
///
/// # Errors
/// When the encoding or a field is invalid.
pub(crate) fn decode_pull(body: &Encoded, cursors: &CursorKey) -> Result<PageRequest, ApiError> {
    Ok(read::<PullRequest<'_>>(body.format, &body.bytes)?.into_page_request(cursors)?)
}

/// Parses the body of a stream. Its cursor must have been issued under the key `cursors`.
///
/// # Errors
/// When the encoding or a field is invalid.
pub(crate) fn decode_stream(body: &Encoded, cursors: &CursorKey) -> Result<StreamRequest, ApiError> {
    Ok(read::<StreamSettings<'_>>(body.format, &body.bytes)?.into_stream_request(cursors)?)
}

impl PullRequest<'_> {
    fn into_page_request(self, cursors: &CursorKey) -> Result<PageRequest, Rejection> {
        let (recipient, after) = place(&self.recipient, self.cursor.as_deref(), cursors)?;
        let positive =
            |max| NonZeroU64::new(max).ok_or_else(|| Rejection::invalid("max", "must be at least 1"));
        let items_max = self.max.map(positive).transpose()?;
        let wait = Duration::from_millis(self.wait_ms.unwrap_or_default());
        let tail = self.tail.unwrap_or_default();
        Ok(PageRequest { pull: Pull { recipient, after, items_max }, wait, tail })
    }
}

impl PageRequest {
    /// The page as the client wants it.
    pub(crate) fn finish(&self, mut page: Page) -> Page {
        if self.tail {
            let last = page.items.last().map(|item| item.seq);
            page.next = page.next.or(last).or(self.pull.after);
        }
        page
    }
}

impl StreamSettings<'_> {
    fn into_stream_request(self, cursors: &CursorKey) -> Result<StreamRequest, Rejection> {
        let (recipient, after) = place(&self.recipient, self.cursor.as_deref(), cursors)?;
        let keepalive = self.keepalive_ms.map_or(KEEPALIVE_DEFAULT, Duration::from_millis);
        let keepalive = keepalive.clamp(KEEPALIVE_MIN, KEEPALIVE_MAX);
        Ok(StreamRequest { pull: Pull { recipient, after, items_max: None }, keepalive })
    }
}

/// Where to read in which queue.
fn place(
    recipient: &str,
    cursor: Option<&str>,
    cursors: &CursorKey,
) -> Result<(Recipient, Option<Seq>), Rejection> {
    let recipient = Recipient::parse(recipient)?;
    let after = cursor.map(|text| cursors.decode(&recipient, text)).transpose()?;
    Ok((recipient, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::format::Format;

    #[test]
    fn an_array_is_not_accepted_as_an_object() {
        let body = Encoded::new(Format::Json, br#"["alice",null,null]"#.to_vec());
        assert!(decode_pull(&body, &CursorKey::new(&[7; 32])).is_err());
        assert!(decode_stream(&body, &CursorKey::new(&[7; 32])).is_err());
    }

    #[test]
    fn a_keepalive_is_raised_or_lowered_to_the_bounds() {
        let keepalive = |json: &str| {
            let body = Encoded::new(Format::Json, json.into());
            decode_stream(&body, &CursorKey::new(&[7; 32])).map(|request| request.keepalive).ok()
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(keepalive(r#"{"recipient":"alice"}"#), seconds(30));
        assert_eq!(keepalive(r#"{"recipient":"alice","keepalive_ms":0}"#), seconds(15));
        assert_eq!(keepalive(r#"{"recipient":"alice","keepalive_ms":20000}"#), seconds(20));
        assert_eq!(keepalive(r#"{"recipient":"alice","keepalive_ms":18446744073709551615}"#), seconds(300));
    }

    #[test]
    fn optional_fields_of_a_pull_may_be_absent_or_null() {
        let pull = |json: &str| {
            let request = serde_json::from_str::<PullRequest<'_>>(json).unwrap();
            request.into_page_request(&CursorKey::new(&[7; 32]))
        };
        let nulls = r#"{"recipient":"alice","cursor":null,"max":null,"wait_ms":null,"tail":null}"#;
        for json in [r#"{"recipient":"alice"}"#, nulls] {
            let PageRequest { pull, wait, tail } = pull(json).unwrap();
            assert_eq!((pull.after, pull.items_max, wait, tail), (None, None, Duration::ZERO, false));
        }
        assert_eq!(pull(r#"{"recipient":"alice","max":3}"#).unwrap().pull.items_max, NonZeroU64::new(3));
        let waiting = pull(r#"{"recipient":"alice","wait_ms":18446744073709551615,"tail":true}"#).unwrap();
        assert_eq!((waiting.wait, waiting.tail), (Duration::from_millis(u64::MAX), true));
        assert!(matches!(
            pull(r#"{"recipient":"alice","max":0}"#),
            Err(Rejection::InvalidInput { field: "max", .. })
        ));
        assert!(matches!(
            pull(r#"{"recipient":"alice","cursor":""}"#),
            Err(Rejection::InvalidInput { field: "cursor", .. })
        ));
    }
}
