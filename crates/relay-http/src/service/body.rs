//! Reads the body of a request within bounds of size, time and memory.
//!
//! It takes memory from the budget as bytes arrive, not by the declared size, so a client that
//! sends nothing takes nothing. A client that stops sending loses its memory soon, because bodies
//! that trickle time out.

mod growth;
mod gzip;
mod headers;
pub(crate) mod limits;
mod timeouts;

use std::future::poll_fn;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{ACCEPT, CONTENT_LENGTH, HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::StreamExt as _;
use relay_auth::CertifiedNames;
use tokio::time::{Instant, timeout_at};

use crate::api::error::ApiError;
use crate::api::format::{Encoded, Format};
use crate::connection::in_flight_request::InFlightRequest;
use crate::connection::state::ConnectionState;
use crate::limits::memory_budget::{Share, overloaded};
use crate::monotonic;
use crate::service::client::Client;
use crate::service::offload::{OFFLOAD_BYTES, offload};
use crate::service::rate_limit::RateLimiter;
use crate::service::request_id::RequestId;

use growth::{BodyBuffer, with_decoded};
#[cfg(feature = "fuzzing")]
pub(crate) use gzip::unpack;
use headers::{Encoding, content_encoding, content_format};
use limits::{BodyKind, BodyLimits};
use timeouts::{BodyTimeouts, discard_due};

/// A response that precedes its body costs the connection, unless the body is so short that reading
/// it is cheaper.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;

/// The body of one request.
pub(super) struct Body<'a> {
    limits: &'a BodyLimits,
    in_flight: &'a InFlightRequest,
    headers: &'a HeaderMap,
    payload: Payload,
    /// The `Content-Length`. There is at most one, and it is a number: the framing checks that.
    declared_bytes: Option<u64>,
    accepted: Format,
    client: Client,
    id: RequestId,
    /// Counts the bytes as they arrive.
    rate_limiter: Option<&'a RateLimiter>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Unfinished,
    Complete,
    /// The body will never be complete.
    Broken,
}

impl<'a> Body<'a> {
    pub(super) fn new(
        limits: &'a BodyLimits,
        payload: Payload,
        headers: &'a HeaderMap,
        client: Client,
        in_flight: &'a InFlightRequest,
        id: RequestId,
    ) -> Self {
        let declared_bytes =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let is_empty = matches!(payload, Payload::None);
        Self {
            limits,
            in_flight,
            headers,
            payload,
            declared_bytes,
            accepted: Format::accepted(headers.get_all(ACCEPT).map(HeaderValue::as_bytes)),
            client,
            id,
            rate_limiter: None,
            progress: if is_empty { Progress::Complete } else { Progress::Unfinished },
        }
    }

    /// Makes `rate_limiter` count the bytes as they arrive.
    pub(super) fn count_with(&mut self, rate_limiter: Option<&'a RateLimiter>) {
        self.rate_limiter = rate_limiter;
    }

    /// The headers of the request.
    pub(super) const fn headers(&self) -> &HeaderMap {
        self.headers
    }

    /// The format that the client wants for the response.
    pub(super) const fn accepted(&self) -> Format {
        self.accepted
    }

    /// Identifies the request in the log.
    pub(super) const fn id(&self) -> RequestId {
        self.id
    }

    /// The connection of the request.
    pub(super) fn connection(&self) -> &ConnectionState {
        self.in_flight.connection()
    }

    /// The names in the certificate of the connection.
    pub(super) fn certified_names(&self) -> &CertifiedNames {
        self.in_flight.connection().certified_names()
    }

    /// Takes the client out, when the whole body is read.
    pub(super) fn take_client(&mut self) -> Client {
        std::mem::take(&mut self.client)
    }

    /// The client that sends the body.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Reads the body and decodes it, on a blocking thread if that can take long. Returns the share
    /// of the budget that the result takes.
    ///
    /// # Errors
    /// If the body is malformed, too large or too slow, if the budget is exhausted, or if `decode`
    /// fails.
    pub(super) async fn read<T: Send + 'static>(
        &mut self,
        kind: BodyKind,
        decode: impl FnOnce(&Encoded) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Share), ApiError> {
        let format = content_format(self.headers)?;
        let encoding = content_encoding(self.headers)?;
        let buffer = self.collect(kind, format).await?;
        match encoding {
            Encoding::Identity if buffer.bytes().len() < OFFLOAD_BYTES => buffer.decode(decode),
            Encoding::Identity => offload(move || buffer.decode(decode)).await?,
            Encoding::Gzip => {
                let bytes_max = self.limits.bytes_max(kind, format);
                let too_large = self.limits.too_large(kind, format);
                let unpacked = self.new_buffer(format);
                let (decoded, unpacked_bytes) = offload(move || {
                    let packed_bytes = buffer.bytes().len();
                    let unpacked = gzip::decompress(buffer.bytes(), unpacked, bytes_max, too_large);
                    let bytes = unpacked.as_ref().map_or(bytes_max, |unpacked| unpacked.bytes().len());
                    let decoded = unpacked.and_then(|unpacked| unpacked.decode(decode));
                    (decoded, bytes.saturating_sub(packed_bytes))
                })
                .await?;
                // The packed bytes are charged already.
                if let Some(rate_limiter) = self.rate_limiter {
                    rate_limiter.charge_bytes(&self.client, unpacked_bytes);
                }
                decoded
            }
        }
    }

    /// Whether the body was read to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// Reads and drops the rest of a small HTTP/1.1 body, if it arrives at once. It does not send
    /// `100 Continue`. Afterwards [`is_complete`](Self::is_complete) says whether that worked.
    pub(super) async fn discard(&mut self) {
        let is_small = self.declared_bytes.is_some_and(|bytes| bytes <= DISCARD_BYTES_MAX);
        if self.progress == Progress::Unfinished && is_small && self.in_flight.io().is_some() {
            let due = discard_due(self.limits.time_max, monotonic::now());
            // On a timeout, the caller still sends its response.
            while let Ok(Some(Ok(_))) = self.next_until(due).await {}
        }
    }

    fn new_buffer(&self, format: Format) -> BodyBuffer {
        BodyBuffer::new(format, self.limits.budget.share(self.client.address()))
    }

    async fn collect(&mut self, kind: BodyKind, format: Format) -> Result<BodyBuffer, ApiError> {
        let bytes_max = self.limits.bytes_max(kind, format);
        let declared = usize::try_from(self.declared_bytes.unwrap_or(0)).unwrap_or(usize::MAX);
        if declared > bytes_max {
            return Err(self.limits.too_large(kind, format));
        }
        // A body that does not fit is refused now, not in the middle.
        if !self.limits.budget.would_fit(self.client.address(), with_decoded(format, declared)) {
            return Err(overloaded());
        }
        if let Some(io) = self.in_flight.io() {
            poll_fn(|cx| io.poll_continue(cx)).await;
        }
        let timeouts = BodyTimeouts::new(self.limits.time_max, monotonic::now());
        let mut buffer = self.new_buffer(format);
        buffer.expect(declared)?;
        while let Some(chunk) = self.next_until(timeouts.next_due(buffer.bytes().len())).await? {
            let chunk = chunk.map_err(|error| self.read_error(&error, kind, format))?;
            if buffer.bytes().len() + chunk.len() > bytes_max {
                return Err(self.limits.too_large(kind, format));
            }
            buffer.append(&chunk)?;
        }
        Ok(buffer)
    }

    async fn next_until(&mut self, due: Instant) -> Result<Option<Result<Bytes, PayloadError>>, ApiError> {
        timeout_at(due, self.next()).await.map_err(|_| {
            self.progress = Progress::Broken;
            ApiError::RequestTimeout
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, PayloadError>> {
        let chunk = Pin::new(&mut self.payload).next().await;
        self.progress = match &chunk {
            Some(Ok(bytes)) => {
                if let Some(access) = self.in_flight.access() {
                    access.add_received(bytes.len());
                }
                if let Some(rate_limiter) = self.rate_limiter {
                    rate_limiter.charge_bytes(&self.client, bytes.len());
                }
                Progress::Unfinished
            }
            Some(Err(_)) => Progress::Broken,
            None => Progress::Complete,
        };
        chunk
    }

    fn read_error(&self, error: &PayloadError, kind: BodyKind, format: Format) -> ApiError {
        if let Some(malformed) = self.in_flight.connection().malformed() {
            return malformed.into();
        }
        match error {
            PayloadError::Overflow => self.limits.too_large(kind, format),
            PayloadError::Incomplete(_) => ApiError::BadRequest("the body is shorter than declared"),
            _ => ApiError::BadRequest("the framing of the body is malformed"),
        }
    }
}
