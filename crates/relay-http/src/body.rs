//! Reads the body of a request: never more of it than the limit, never longer than the time allows, never more of all bodies
//! together than there is room for. What the body means is its caller's business.
//!
//! The limit follows from the largest payload: its base64, a quarter of that on top because some writers of JSON escape `/`
//! and `+`, and 64 KiB for the other fields; but at least 2 MiB, which the largest ack needs.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt as _;
use relay_core::Error;
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;
use crate::monotonic;

const OTHER_FIELDS_BYTES_MAX: u64 = 64 * 1024;
const BODY_LIMIT_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// What takes longer than a moment must not hold up the other connections of its thread: parsing a body of this size takes
/// some 100 microseconds.
const OFFLOAD_BYTES: usize = 256 * 1024;

/// An answer that comes before its body is read costs the connection, unless the body is so short that reading it is cheaper.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

/// The bodies that are being read and decoded may hold this much together, or four of the largest.
const ROOM_BYTES_MIN: usize = 256 * 1024 * 1024;

const NO_ROOM_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The limits of all bodies.
#[derive(Debug)]
pub(crate) struct Limits {
    payload_bytes_max: u64,
    body_bytes_max: usize,
    time_max: Duration,
    room: Arc<AtomicUsize>,
    room_bytes_max: usize,
}

/// The room for bodies, to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    left: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// The body of one request.
pub(crate) struct Body<'a> {
    limits: &'a Limits,
    payload: Payload,
    /// As `Content-Length` tells; the framework has seen to it that there is at most one, and a number.
    promised_bytes: Option<u64>,
    deadline: Instant,
    state: Reading,
}

/// How far a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Unfinished,
    Complete,
    /// It will never be complete.
    Broken,
}

/// Body bytes in memory, and their share of the room.
struct Held {
    bytes: Vec<u8>,
    /// At least the length of `bytes`.
    share: usize,
    room: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Limits {
    /// The limits for payloads of at most `payload_bytes_max`, with `time_max` for each body.
    pub(crate) fn new(payload_bytes_max: u64, time_max: Duration) -> Self {
        let base64_bytes = payload_bytes_max.div_ceil(3).saturating_mul(4);
        let push_bytes = base64_bytes.saturating_add(base64_bytes / 4).saturating_add(OTHER_FIELDS_BYTES_MAX);
        let body_bytes_max = usize::try_from(push_bytes.max(BODY_LIMIT_BYTES_MIN)).unwrap_or(usize::MAX);
        let room_bytes_max = ROOM_BYTES_MIN.max(body_bytes_max.saturating_mul(4));
        let room = Arc::new(AtomicUsize::new(room_bytes_max));
        Self { payload_bytes_max, body_bytes_max, time_max, room, room_bytes_max }
    }

    /// The largest payload, in bytes.
    pub(crate) fn payload_bytes_max(&self) -> u64 {
        self.payload_bytes_max
    }

    /// The room that all bodies share.
    pub(crate) fn room(&self) -> Room {
        Room { left: Arc::clone(&self.room), bytes_max: self.room_bytes_max }
    }

    fn too_large(&self) -> ApiError {
        ApiError::BodyTooLarge { payload_bytes_max: self.payload_bytes_max }
    }
}

impl Room {
    /// How much of it is taken.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.bytes_max.saturating_sub(self.left.load(Ordering::Relaxed)) as u64
    }
}

impl<'a> Body<'a> {
    pub(crate) fn new(limits: &'a Limits, payload: Payload, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let state = if matches!(payload, Payload::None) { Reading::Complete } else { Reading::Unfinished };
        Self {
            limits,
            payload,
            promised_bytes: length,
            deadline: monotonic::after(monotonic::now(), limits.time_max),
            state,
        }
    }

    /// Reads the body and hands it to `decode`, in a thread of its own if that may take a while.
    ///
    /// # Errors
    /// What is wrong with the body, or what `decode` says.
    pub(crate) async fn read<T: Send + 'static>(
        &mut self,
        headers: &HeaderMap,
        decode: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        check_content_type(headers)?;
        let encoding = content_encoding(headers)?;
        let held =
            timeout_at(self.deadline, self.collect()).await.map_err(|_| ApiError::RequestTimeout)??;
        match encoding {
            Encoding::Identity if held.bytes.len() < OFFLOAD_BYTES => decode(&held.bytes),
            Encoding::Identity => offload(move || decode(&held.bytes)).await?,
            Encoding::Gzip => {
                let (body_bytes_max, too_large) = (self.limits.body_bytes_max, self.limits.too_large());
                offload(move || decode(&held.unpack(body_bytes_max, too_large)?.bytes)).await?
            }
        }
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == Reading::Complete
    }

    /// Reads what is left and forgets it, if it is known to be little. Whether that worked is in
    /// [`is_complete`](Self::is_complete).
    pub(crate) async fn discard(&mut self) {
        if self.state == Reading::Unfinished
            && self.promised_bytes.is_some_and(|bytes| bytes <= DISCARD_BYTES_MAX)
        {
            let deadline = self.deadline;
            let drain = async { while let Some(Ok(_)) = self.next().await {} };
            // Too late or not, there is an answer to be given.
            let _ = timeout_at(deadline, drain).await;
        }
    }

    async fn collect(&mut self) -> Result<Held, ApiError> {
        let body_bytes_max = self.limits.body_bytes_max;
        let promised = usize::try_from(self.promised_bytes.unwrap_or(0)).unwrap_or(usize::MAX);
        if promised > body_bytes_max {
            return Err(self.limits.too_large());
        }
        let mut held = Held::new(promised, Arc::clone(&self.limits.room))?;
        while let Some(chunk) = self.next().await {
            let chunk = chunk.map_err(|error| self.broken(&error))?;
            if held.bytes.len() + chunk.len() > body_bytes_max {
                return Err(self.limits.too_large());
            }
            held.append(&chunk)?;
        }
        Ok(held)
    }

    async fn next(&mut self) -> Option<Result<Bytes, PayloadError>> {
        let chunk = Pin::new(&mut self.payload).next().await;
        self.state = match &chunk {
            Some(Ok(_)) => Reading::Unfinished,
            Some(Err(_)) => Reading::Broken,
            None => Reading::Complete,
        };
        chunk
    }

    fn broken(&self, error: &PayloadError) -> ApiError {
        match error {
            PayloadError::Overflow => self.limits.too_large(),
            PayloadError::Incomplete(_) => ApiError::BadRequest("the body ended before its end"),
            _ => ApiError::BadRequest("the framing of the body is broken"),
        }
    }
}

impl Held {
    fn new(bytes_expected: usize, room: Arc<AtomicUsize>) -> Result<Self, ApiError> {
        let mut bytes = Vec::new();
        // What is only promised takes no room: address space is not memory before it is written to.
        bytes.try_reserve_exact(bytes_expected).map_err(|_| no_room())?;
        Ok(Self { bytes, share: 0, room })
    }

    fn append(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        self.room
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(chunk.len()))
            .map_err(|_| no_room())?;
        self.share += chunk.len();
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// What this is the gzip of.
    fn unpack(&self, bytes_max: usize, too_large: ApiError) -> Result<Self, ApiError> {
        let mut unpacked = Self::new(0, Arc::clone(&self.room))?;
        let mut decoder = MultiGzDecoder::new(&*self.bytes);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = decoder.read(&mut buffer).map_err(|_| ApiError::BadRequest("the body is no gzip"))?;
            let chunk = buffer.get(..len).unwrap_or_default();
            if chunk.is_empty() {
                return Ok(unpacked);
            }
            if unpacked.bytes.len() + chunk.len() > bytes_max {
                return Err(too_large);
            }
            unpacked.append(chunk)?;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.fetch_add(self.share, Ordering::Relaxed);
    }
}

/// What this is the gzip of, if it is one, and of no more than this.
#[cfg(feature = "fuzzing")]
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let room = Arc::new(AtomicUsize::new(bytes_max.saturating_add(packed.len())));
    let mut held = Held::new(0, room).ok()?;
    held.append(packed).ok()?;
    let mut unpacked = held.unpack(bytes_max, no_room()).ok()?;
    Some(std::mem::take(&mut unpacked.bytes))
}

/// Runs what keeps a processor busy for long in a thread that nobody else waits for.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::Internal(format!("work on a body was not finished: {error}")))
}

fn no_room() -> ApiError {
    Error::Overloaded { retry_after: NO_ROOM_RETRY_AFTER }.into()
}

/// A body without a type is taken for JSON.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    if subtype == "json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty()) {
        Ok(())
    } else {
        Err(ApiError::UnsupportedMediaType)
    }
}

fn content_encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let mut encoding = Encoding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        let names = value.to_str().map_err(|_| ApiError::UnsupportedEncoding)?.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
            let is_gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
            if !is_gzip || encoding != Encoding::Identity {
                return Err(ApiError::UnsupportedEncoding);
            }
            encoding = Encoding::Gzip;
        }
    }
    Ok(encoding)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn json_is_what_the_type_says_or_no_type_at_all() {
        let check = |values: &[&'static str], expected| {
            let result = check_content_type(&headers(CONTENT_TYPE, values));
            assert_eq!(result.is_ok(), expected, "{values:?}");
        };
        check(&[], true);
        check(&["application/json"], true);
        check(&["Application/JSON ; charset=utf-8"], true);
        check(&["application/problem+json"], true);
        check(&["application/+json"], false);
        check(&["application/jsonp"], false);
        check(&["text/json"], false);
        check(&["text/plain"], false);
        check(&[""], false);
    }

    #[test]
    fn one_gzip_is_the_only_encoding() {
        let check = |values: &[&'static str], expected: Option<Encoding>| {
            assert_eq!(content_encoding(&headers(CONTENT_ENCODING, values)).ok(), expected, "{values:?}");
        };
        check(&[], Some(Encoding::Identity));
        check(&["identity"], Some(Encoding::Identity));
        check(&["gzip"], Some(Encoding::Gzip));
        check(&["X-GZIP"], Some(Encoding::Gzip));
        check(&["identity, gzip,"], Some(Encoding::Gzip));
        check(&["gzip, gzip"], None);
        check(&["gzip", "gzip"], None);
        check(&["br"], None);
        check(&["gzip, br"], None);
    }

    #[test]
    fn the_largest_push_and_the_largest_ack_have_room() {
        let limit = |payload| Limits::new(payload, Duration::ZERO).body_bytes_max;
        let eight_mib = 8 * 1024 * 1024;
        assert_eq!(limit(eight_mib), 11_184_812 + 11_184_812 / 4 + 65_536);
        assert_eq!(limit(1), 2 * 1024 * 1024);
        assert_eq!(limit(u64::MAX), usize::MAX);
    }

    #[test]
    fn room_comes_back() {
        let room = Arc::new(AtomicUsize::new(10));
        let mut held = Held::new(0, Arc::clone(&room)).unwrap();
        held.append(&[0; 6]).unwrap();
        let mut other = Held::new(0, Arc::clone(&room)).unwrap();
        assert!(matches!(other.append(&[0; 5]), Err(ApiError::Relay(Error::Overloaded { .. }))));
        other.append(&[0; 4]).unwrap();
        drop((held, other));
        assert_eq!(room.load(Ordering::Relaxed), 10);
    }
}
