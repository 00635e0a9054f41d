//! Reads the body of a request: never more of it than its endpoint needs, never longer or more
//! slowly than the time allows, never more of all bodies together than the budget has room for.
//! What the body means is its caller's business.
//!
//! Room is taken as bytes arrive, and not by what a head claims: who sends nothing takes nothing.
//! Room that is taken by those who stop comes back soon, for what trickles is given up.
//!
//! The limit of a push follows from the largest payload: its base64, a quarter of that on top
//! because some writers of JSON escape `/` and `+`, and 64 KiB for the other fields; but at least 2
//! MiB. An ack has 2 MiB, which its most entries need, and a pull 8 KiB.

use std::future::poll_fn;
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

use crate::api::error::ApiError;
use crate::connection::in_flight_request::InFlightRequest;
use crate::connection::pace::slowest;
use crate::limits::memory_budget::{Budget, Share, no_room};
use crate::monotonic;
use crate::service::rate_limit::{Client, RateLimiter};

const OTHER_FIELDS_BYTES_MAX: u64 = 64 * 1024;
const PUSH_BYTES_MIN: u64 = 2 * 1024 * 1024;
const ACK_BYTES_MAX: usize = 2 * 1024 * 1024;
const PULL_BYTES_MAX: usize = 8 * 1024;

/// So much room a body has from the start, if it claims as much. From there on it has at most twice
/// what has arrived.
const AHEAD_BYTES: usize = 64 * 1024;

/// What takes longer than a moment must not hold up the other connections of its thread: parsing a
/// body of this size takes some 100 microseconds.
pub(crate) const OFFLOAD_BYTES: usize = 256 * 1024;

/// An answer that comes before its body is read costs the connection, unless the body is so short
/// that reading it is cheaper.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

/// A body may pause for so many parts of the time that it may take, not more: one of a client that
/// has gone, or that means ill, must not keep its room for long.
const PAUSE_PARTS: u32 = 3;

/// How long the rest of a small body is waited for when nobody wants it.
const DISCARD_TIME: Duration = Duration::from_millis(250);

/// The limits of all bodies.
#[derive(Debug)]
pub(crate) struct Limits {
    payload_bytes_max: u64,
    push_bytes_max: usize,
    time_max: Duration,
    budget: Budget,
}

/// What a body belongs to, and so how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Push,
    Pull,
    Ack,
}

/// The body of one request.
pub(crate) struct Body<'a> {
    limits: &'a Limits,
    in_flight: &'a InFlightRequest,
    payload: Payload,
    /// As `Content-Length` tells; it was seen to that there is at most one, and a number.
    promised_bytes: Option<u64>,
    /// Whose bytes these are.
    client: Client,
    /// Who counts them as they arrive.
    guard: Option<&'a RateLimiter>,
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

/// By when how much of a body has to be there.
#[derive(Clone, Copy, Debug)]
struct BodyTimeouts {
    began: Instant,
    /// How long it may pause, besides the time that its bytes may take.
    pause: Duration,
    deadline: Instant,
}

/// Body bytes in memory, and their share of the budget, which has room for what they are decoded
/// to, too.
struct Held {
    bytes: Vec<u8>,
    /// How many there will be, as the head says.
    claimed: usize,
    share: Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Limits {
    /// The limits for payloads of at most `payload_bytes_max`, with `time_max` for each body, and
    /// `budget` for all of them.
    pub(crate) fn new(payload_bytes_max: u64, time_max: Duration, budget: Budget) -> Self {
        let base64_bytes = payload_bytes_max.div_ceil(3).saturating_mul(4);
        let push_bytes = base64_bytes.saturating_add(base64_bytes / 4).saturating_add(OTHER_FIELDS_BYTES_MAX);
        let push_bytes_max = usize::try_from(push_bytes.max(PUSH_BYTES_MIN)).unwrap_or(usize::MAX);
        Self { payload_bytes_max, push_bytes_max, time_max, budget }
    }

    /// The largest payload, in bytes.
    pub(crate) fn payload_bytes_max(&self) -> u64 {
        self.payload_bytes_max
    }

    const fn bytes_max(&self, kind: BodyKind) -> usize {
        match kind {
            BodyKind::Push => self.push_bytes_max,
            BodyKind::Pull => PULL_BYTES_MAX,
            BodyKind::Ack => ACK_BYTES_MAX,
        }
    }

    fn too_large(&self, kind: BodyKind) -> ApiError {
        match kind {
            BodyKind::Push => ApiError::BodyTooLarge { payload_bytes_max: self.payload_bytes_max },
            BodyKind::Pull | BodyKind::Ack => ApiError::RequestTooLarge { bytes_max: self.bytes_max(kind) },
        }
    }

    /// The times of a body that is read from `now` on.
    fn times(&self, now: Instant) -> BodyTimeouts {
        BodyTimeouts {
            began: now,
            pause: self.time_max / PAUSE_PARTS,
            deadline: monotonic::after(now, self.time_max),
        }
    }
}

impl<'a> Body<'a> {
    pub(crate) fn new(
        limits: &'a Limits,
        payload: Payload,
        headers: &HeaderMap,
        client: Client,
        in_flight: &'a InFlightRequest,
    ) -> Self {
        let promised_bytes =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let state = if matches!(payload, Payload::None) { Reading::Complete } else { Reading::Unfinished };
        Self { limits, in_flight, payload, promised_bytes, client, guard: None, state, share: None }
    }

    /// Has the bytes counted as they arrive.
    pub(crate) fn counted_by(&mut self, guard: Option<&'a RateLimiter>) {
        self.guard = guard;
    }

    /// Whose bytes these are.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Reads the body and hands it to `decode`, in a thread of its own if that may take a while.
    ///
    /// # Errors
    /// What is wrong with the body, or what `decode` says.
    pub(crate) async fn read<T: Send + 'static>(
        &mut self,
        kind: BodyKind,
        headers: &HeaderMap,
        decode: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        check_content_type(headers)?;
        let encoding = content_encoding(headers)?;
        let held = self.collect(kind).await?;
        let (decoded, share) = match encoding {
            Encoding::Identity if held.bytes.len() < OFFLOAD_BYTES => held.decode(decode)?,
            Encoding::Identity => offload(move || held.decode(decode)).await??,
            Encoding::Gzip => {
                let (bytes_max, too_large) = (self.limits.bytes_max(kind), self.limits.too_large(kind));
                let unpacked = Held::new(self.share());
                offload(move || held.unpack(unpacked, bytes_max, too_large)?.decode(decode)).await??
            }
        };
        self.share = Some(share);
        Ok(decoded)
    }

    /// The share of what was read and decoded. It is given back with the body, unless somebody
    /// takes it.
    pub(crate) fn take_share(&mut self) -> Share {
        self.share.take().unwrap_or_else(|| self.share())
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == Reading::Complete
    }

    /// Reads what is left and forgets it, if it is known to be little and comes at once. Whether
    /// that worked is in [`is_complete`](Self::is_complete). Nobody is told to go on for this.
    pub(crate) async fn discard(&mut self) {
        let is_small = self.promised_bytes.is_some_and(|bytes| bytes <= DISCARD_BYTES_MAX);
        if self.state == Reading::Unfinished && is_small && self.in_flight.io().is_some() {
            let now = monotonic::now();
            let deadline = monotonic::after(now, DISCARD_TIME);
            let times = BodyTimeouts { deadline, ..self.limits.times(now) };
            // Too late or not, there is an answer to be given.
            while let Ok(Some(Ok(_))) = self.next_in_time(times, 0).await {}
        }
    }

    fn share(&self) -> Share {
        self.limits.budget.share(self.client.address())
    }

    async fn collect(&mut self, kind: BodyKind) -> Result<Held, ApiError> {
        let bytes_max = self.limits.bytes_max(kind);
        let promised = usize::try_from(self.promised_bytes.unwrap_or(0)).unwrap_or(usize::MAX);
        if promised > bytes_max {
            return Err(self.limits.too_large(kind));
        }
        // Who could only be sent away halfway is sent away at once.
        if !self
            .limits
            .budget
            .has_room(self.client.address(), promised.saturating_add(decoded_bytes_max(promised)))
        {
            return Err(no_room());
        }
        if let Some(io) = self.in_flight.io() {
            poll_fn(|cx| io.poll_continue(cx)).await;
        }
        let times = self.limits.times(monotonic::now());
        let mut held = Held::new(self.share());
        held.expect(promised)?;
        while let Some(chunk) = self.next_in_time(times, held.bytes.len()).await? {
            let chunk = chunk.map_err(|error| self.broken(&error, kind))?;
            if held.bytes.len() + chunk.len() > bytes_max {
                return Err(self.limits.too_large(kind));
            }
            held.append(&chunk)?;
        }
        Ok(held)
    }

    /// The next chunk, when so much has come already.
    async fn next_in_time(
        &mut self,
        times: BodyTimeouts,
        bytes: usize,
    ) -> Result<Option<Result<Bytes, PayloadError>>, ApiError> {
        let due = monotonic::after(times.began, times.pause.saturating_add(slowest(bytes)));
        let next = timeout_at(times.deadline.min(due), self.next()).await;
        next.map_err(|_| {
            // It may still come, and nobody waits for it.
            self.state = Reading::Broken;
            ApiError::RequestTimeout
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, PayloadError>> {
        let chunk = Pin::new(&mut self.payload).next().await;
        self.state = match &chunk {
            Some(Ok(bytes)) => {
                if let Some(guard) = self.guard {
                    guard.arrived(&self.client, bytes.len());
                }
                Reading::Unfinished
            }
            Some(Err(_)) => Reading::Broken,
            None => Reading::Complete,
        };
        chunk
    }

    fn broken(&self, error: &PayloadError, kind: BodyKind) -> ApiError {
        if let Some(malformed) = self.in_flight.connection().malformed() {
            return malformed.into();
        }
        match error {
            PayloadError::Overflow => self.limits.too_large(kind),
            PayloadError::Incomplete(_) => ApiError::BadRequest("the body ended before its end"),
            _ => ApiError::BadRequest("the framing of the body is broken"),
        }
    }
}

impl Held {
    const fn new(share: Share) -> Self {
        Self { bytes: Vec::new(), claimed: 0, share }
    }

    /// Gets ready for a body that claims to have so many bytes. What is more than little is taken
    /// when it arrives.
    fn expect(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.claimed = bytes;
        self.make_room(bytes.min(AHEAD_BYTES))
    }

    fn append(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let bytes = self.bytes.len() + chunk.len();
        if bytes > self.bytes.capacity() {
            // It grows to twice of what has arrived, so that it is not copied with each chunk, and
            // to no more than was claimed.
            let wanted = bytes.saturating_mul(2).max(AHEAD_BYTES);
            let wanted = if bytes <= self.claimed { wanted.min(self.claimed) } else { wanted };
            self.make_room(wanted).or_else(|_| self.make_room(bytes))?;
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// Takes room for so many bytes, and for what they are decoded to.
    fn make_room(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.share.grow_to(bytes.saturating_add(decoded_bytes_max(bytes)))?;
        let more = bytes.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(more).map_err(|_| no_room())
    }

    /// What it stands for, with the share of that.
    fn decode<T>(
        mut self,
        decode: impl FnOnce(&[u8]) -> Result<T, ApiError>,
    ) -> Result<(T, Share), ApiError> {
        if self.bytes.len() > OFFLOAD_BYTES && memchr::memchr(b'\\', &self.bytes).is_some() {
            // A text with escapes is copied once more while it is parsed.
            let (whole, decoded) = (self.bytes.len(), decoded_bytes_max(self.bytes.len()));
            self.share.grow_to(whole.saturating_mul(2).saturating_add(decoded))?;
        }
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
    let mut held = Held::new(budget.share(None));
    held.append(packed).ok()?;
    Some(held.unpack(Held::new(budget.share(None)), bytes_max, no_room()).ok()?.bytes)
}

/// Runs what keeps a processor busy for long in a thread that nobody else waits for.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::Internal(format!("work on a body was not finished: {error}")))
}

/// The most that a body of so many bytes is decoded to: the payload of a push is base64 in it.
const fn decoded_bytes_max(body_bytes: usize) -> usize {
    body_bytes / 4 * 3
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
    fn the_largest_push_has_room() {
        let limit = |payload| Limits::new(payload, Duration::ZERO, Budget::new(0)).bytes_max(BodyKind::Push);
        let eight_mib = 8 * 1024 * 1024;
        assert_eq!(limit(eight_mib), 11_184_812 + 11_184_812 / 4 + 65_536);
        assert_eq!(limit(1), 2 * 1024 * 1024);
        assert_eq!(limit(u64::MAX), usize::MAX);
    }

    #[test]
    fn room_is_taken_as_bytes_arrive() {
        let budget = Budget::new(100 * 1024 * 1024);
        let mut held = Held::new(budget.share(None));
        held.expect(10_000_000).unwrap();
        let with_decoded = |bytes: usize| bytes + decoded_bytes_max(bytes);
        assert_eq!(budget.used(), with_decoded(AHEAD_BYTES));
        for arrived in (100_000..=10_000_000).step_by(100_000) {
            held.append(&[0; 100_000]).unwrap();
            assert!(held.bytes.capacity() <= 2 * arrived && held.bytes.capacity() <= 10_000_000);
            assert_eq!(budget.used(), with_decoded(held.bytes.capacity()), "all that is held is counted");
        }
        let (decoded, share) = held.decode(|bytes| Ok(bytes.len())).unwrap();
        assert_eq!((decoded, share.bytes()), (10_000_000, 7_500_000));
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn what_claims_no_length_is_counted_too() {
        let budget = Budget::new(1_000_000);
        let _other = budget.take(None, 1).unwrap();
        let mut held = Held::new(budget.share(None));
        held.append(&[0; 40]).unwrap();
        assert!(budget.used() >= 60 + 45, "{}", budget.used());
        assert!((0..10).any(|_| held.append(&[0; 100_000]).is_err()));
        assert!(held.bytes.len() < 600_000);
    }

    #[test]
    fn a_text_that_is_copied_while_it_is_parsed_is_counted() {
        let budget = Budget::new(10 * 1024 * 1024);
        let used_for = |byte: u8| {
            let mut held = Held::new(budget.share(None));
            held.expect(1024 * 1024).unwrap();
            held.append(&vec![byte; 1024 * 1024]).unwrap();
            let mut used = 0;
            held.decode(|_| {
                used = budget.used();
                Ok(())
            })
            .unwrap();
            used
        };
        assert!(used_for(b'\\') >= used_for(b'A') + 512 * 1024);
    }

    #[test]
    fn a_gzip_is_counted_by_what_it_holds() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b' '; 100_000]).unwrap();
        let gzip = encoder.finish().unwrap();
        let unpack = |budget: &Budget| {
            let mut held = Held::new(budget.share(None));
            held.append(&gzip).unwrap();
            held.unpack(Held::new(budget.share(None)), 200_000, ApiError::NotFound)
                .map(|held| held.bytes.len())
        };
        assert_eq!(unpack(&Budget::new(1_000_000)).unwrap(), 100_000);
        assert!(unpack(&Budget::new(100_000)).is_err());
    }
}
