//! Reads the body of a request: never more of it than the limit, never longer or more slowly than the time allows, never more
//! of all bodies together than the budget has room for. What the body means is its caller's business.
//!
//! Who tells the length of a body gets room for all of it, and for what is decoded from it, before any of it is read, or is sent away:
//! so nobody is sent away halfway because too many have begun. Room that is taken by those who then send nothing comes back
//! soon, for what trickles is given up. Of a body without a length, and of what a gzip holds, only the reading can tell.
//!
//! The limit follows from the largest payload: its base64, a quarter of that on top because some writers of JSON escape `/`
//! and `+`, and 64 KiB for the other fields; but at least 2 MiB, which the largest ack needs.

use std::io::Read as _;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::budget::{Budget, Share, no_room};
use crate::error::ApiError;
use crate::monotonic;

const OTHER_FIELDS_BYTES_MAX: u64 = 64 * 1024;
const BODY_LIMIT_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// What takes longer than a moment must not hold up the other connections of its thread: parsing a body of this size takes
/// some 100 microseconds.
pub(crate) const OFFLOAD_BYTES: usize = 256 * 1024;

/// An answer that comes before its body is read costs the connection, unless the body is so short that reading it is cheaper.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

/// A body may pause for so many parts of the time that it may take, not more: one of a client that has gone, or that means ill,
/// must not keep its room for long.
const PAUSE_PARTS: u32 = 3;

/// Besides that pause, so much has to come in each second.
const BYTES_PER_SECOND_MIN: usize = 8 * 1024;

/// The limits of all bodies.
#[derive(Debug)]
pub(crate) struct Limits {
    payload_bytes_max: u64,
    body_bytes_max: usize,
    time_max: Duration,
    budget: Budget,
}

/// The body of one request.
pub(crate) struct Body<'a> {
    limits: &'a Limits,
    payload: Payload,
    /// As `Content-Length` tells; the framework has seen to it that there is at most one, and a number.
    promised_bytes: Option<u64>,
    began: Instant,
    deadline: Instant,
    state: Reading,
    /// Of what was read and decoded, once it is.
    share: Option<Share>,
}

/// How far a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Unfinished,
    Complete,
    /// It will never be complete.
    Broken,
}

/// Body bytes in memory, and their share of the budget, which has room for what they are decoded to, too.
struct Held {
    bytes: Vec<u8>,
    share: Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Limits {
    /// The limits for payloads of at most `payload_bytes_max`, with `time_max` for each body, and `budget` for all of them.
    pub(crate) fn new(payload_bytes_max: u64, time_max: Duration, budget: Budget) -> Self {
        let base64_bytes = payload_bytes_max.div_ceil(3).saturating_mul(4);
        let push_bytes = base64_bytes.saturating_add(base64_bytes / 4).saturating_add(OTHER_FIELDS_BYTES_MAX);
        let body_bytes_max = usize::try_from(push_bytes.max(BODY_LIMIT_BYTES_MIN)).unwrap_or(usize::MAX);
        Self { payload_bytes_max, body_bytes_max, time_max, budget }
    }

    /// The largest payload, in bytes.
    pub(crate) fn payload_bytes_max(&self) -> u64 {
        self.payload_bytes_max
    }

    fn too_large(&self) -> ApiError {
        ApiError::BodyTooLarge { payload_bytes_max: self.payload_bytes_max }
    }
}

impl<'a> Body<'a> {
    pub(crate) fn new(limits: &'a Limits, payload: Payload, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let state = if matches!(payload, Payload::None) { Reading::Complete } else { Reading::Unfinished };
        let began = monotonic::now();
        let deadline = monotonic::after(began, limits.time_max);
        Self { limits, payload, promised_bytes: length, began, deadline, state, share: None }
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
        let held = self.collect().await?;
        let (decoded, share) = match encoding {
            Encoding::Identity if held.bytes.len() < OFFLOAD_BYTES => held.decode(decode)?,
            Encoding::Identity => offload(move || held.decode(decode)).await??,
            Encoding::Gzip => {
                let (body_bytes_max, too_large) = (self.limits.body_bytes_max, self.limits.too_large());
                let unpacked = Held::new(&self.limits.budget);
                offload(move || held.unpack(unpacked, body_bytes_max, too_large)?.decode(decode)).await??
            }
        };
        self.share = Some(share);
        Ok(decoded)
    }

    /// The share of what was read and decoded. It is given back with the body, unless somebody takes it.
    pub(crate) fn take_share(&mut self) -> Share {
        self.share.take().unwrap_or_else(|| self.limits.budget.share())
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
            // Too late or not, there is an answer to be given.
            let mut bytes = 0;
            while let Ok(Some(Ok(chunk))) = self.next_in_time(bytes).await {
                bytes += chunk.len();
            }
        }
    }

    async fn collect(&mut self) -> Result<Held, ApiError> {
        let body_bytes_max = self.limits.body_bytes_max;
        let promised = usize::try_from(self.promised_bytes.unwrap_or(0)).unwrap_or(usize::MAX);
        if promised > body_bytes_max {
            return Err(self.limits.too_large());
        }
        let mut held = Held::new(&self.limits.budget);
        held.make_room(promised)?;
        while let Some(chunk) = self.next_in_time(held.bytes.len()).await? {
            let chunk = chunk.map_err(|error| self.broken(&error))?;
            if held.bytes.len() + chunk.len() > body_bytes_max {
                return Err(self.limits.too_large());
            }
            held.append(&chunk)?;
        }
        Ok(held)
    }

    /// The next chunk, when so much has come already.
    async fn next_in_time(&mut self, bytes: usize) -> Result<Option<Result<Bytes, PayloadError>>, ApiError> {
        let pause = self.limits.time_max / PAUSE_PARTS;
        let due = monotonic::after(self.began, pause.saturating_add(slowest(bytes)));
        let next = timeout_at(self.deadline.min(due), self.next()).await;
        next.map_err(|_| {
            // It may still come, and nobody waits for it.
            self.state = Reading::Broken;
            ApiError::RequestTimeout
        })
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
    fn new(budget: &Budget) -> Self {
        Self { bytes: Vec::new(), share: budget.share() }
    }

    /// Takes room for a body of so many bytes.
    fn make_room(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.share.grow_to(bytes.saturating_add(decoded_bytes_max(bytes)))?;
        let more = bytes.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(more).map_err(|_| no_room())
    }

    fn append(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let bytes = self.bytes.len() + chunk.len();
        if bytes > self.bytes.capacity() {
            // What was not told grows by half, so that it is not copied with each chunk.
            self.make_room(bytes + bytes / 2)?;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// What it stands for, with the share of that.
    fn decode<T>(
        mut self,
        decode: impl FnOnce(&[u8]) -> Result<T, ApiError>,
    ) -> Result<(T, Share), ApiError> {
        let decoded = decode(&self.bytes)?;
        self.share.shrink_to(decoded_bytes_max(self.bytes.len()));
        Ok((decoded, self.share))
    }

    /// What this is the gzip of.
    fn unpack(&self, mut unpacked: Self, bytes_max: usize, too_large: ApiError) -> Result<Self, ApiError> {
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

/// What this is the gzip of, if it is one, and of no more than this.
#[cfg(feature = "fuzzing")]
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let budget = Budget::new(usize::MAX);
    let mut held = Held::new(&budget);
    held.append(packed).ok()?;
    Some(held.unpack(Held::new(&budget), bytes_max, no_room()).ok()?.bytes)
}

/// Runs what keeps a processor busy for long in a thread that nobody else waits for.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::Internal(format!("work on a body was not finished: {error}")))
}

/// The most that a body of so many bytes is decoded to: the payload of a push is base64 in it. (A body that escapes characters of its
/// base64 is copied once more while it is parsed, which is not counted.)
const fn decoded_bytes_max(body_bytes: usize) -> usize {
    body_bytes / 4 * 3
}

/// How long so many bytes may take to come.
fn slowest(bytes: usize) -> Duration {
    let ms = bytes.saturating_mul(1000) / BYTES_PER_SECOND_MIN;
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
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
        let limit = |payload| Limits::new(payload, Duration::ZERO, Budget::new(0)).body_bytes_max;
        let eight_mib = 8 * 1024 * 1024;
        assert_eq!(limit(eight_mib), 11_184_812 + 11_184_812 / 4 + 65_536);
        assert_eq!(limit(1), 2 * 1024 * 1024);
        assert_eq!(limit(u64::MAX), usize::MAX);
    }

    #[test]
    fn what_is_held_is_counted_with_what_it_is_decoded_to() {
        let budget = Budget::new(1000);
        let mut told = Held::new(&budget);
        told.make_room(400).unwrap();
        assert_eq!(budget.used(), 400 + 300);
        let mut untold = Held::new(&budget);
        untold.append(&[0; 40]).unwrap();
        assert_eq!(budget.used(), 700 + 60 + 45);
        assert!(untold.append(&[0; 100]).is_err());
        told.append(&[0; 400]).unwrap();
        let (decoded, share) = told.decode(|bytes| Ok(bytes.len())).unwrap();
        assert_eq!((decoded, share.bytes()), (400, 300));
        drop((untold, share));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_gzip_is_counted_by_what_it_holds() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b' '; 100_000]).unwrap();
        let gzip = encoder.finish().unwrap();
        let unpack = |budget: &Budget| {
            let mut held = Held::new(budget);
            held.append(&gzip).unwrap();
            held.unpack(Held::new(budget), 200_000, ApiError::NotFound).map(|held| held.bytes.len())
        };
        assert_eq!(unpack(&Budget::new(1_000_000)).unwrap(), 100_000);
        assert!(unpack(&Budget::new(100_000)).is_err());
    }

    #[test]
    fn what_is_slow_is_given_the_time_that_it_takes() {
        assert_eq!(slowest(0), Duration::ZERO);
        assert_eq!(slowest(BYTES_PER_SECOND_MIN * 3 / 2), Duration::from_millis(1500));
        assert!(slowest(usize::MAX) > Duration::from_secs(1_000_000));
    }
}
