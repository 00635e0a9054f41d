//! Responses, before and while they are sent.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::Response;
use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use actix_web::http::{ConnectionType, StatusCode};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::LocalBoxFuture;
use relay_ratelimit::Level;
use serde::Serialize;

use crate::api::EncodedPage;
use crate::api::code::Code;
use crate::api::events::EventFormat;
use crate::api::format::Format;
use crate::api::headers::{RATE_LIMIT, whole_seconds};
use crate::connection::in_flight_request::InFlightRequest;
use crate::limits::memory_budget::Share;

/// Caches must not store any response.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The events of a stream, in pieces.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Bytes>>>;

/// A response. Its body is JSON or CBOR, if it has one, or a stream of events.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    status: StatusCode,
    /// The code, if it is an error response.
    code: Option<Code>,
    headers: Vec<(HeaderName, HeaderValue)>,
    content_type: HeaderValue,
    body: Content,
    is_last: bool,
    share: Option<Share>,
}

/// The part of a body that is not sent yet.
enum Content {
    Empty,
    Value(Bytes),
    /// Encoded while it is sent.
    Page(EncodedPage),
    /// Made while it is sent, for as long as the client wants it.
    Events(Events),
    /// The whole response comes later.
    Later(LocalBoxFuture<'static, ApiResponse>),
}

/// The body of a response that is being sent. The request is in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Content,
    in_flight: InFlightRequest,
}

impl ApiResponse {
    /// A response with `value` as its body.
    pub(super) fn with(status: StatusCode, format: Format, value: &impl Serialize) -> Self {
        Self::new(status, format, Content::Value(format.encode(value).into()))
    }

    /// A response with status 200.
    pub(crate) fn ok(format: Format, value: &impl Serialize) -> Self {
        Self::with(StatusCode::OK, format, value)
    }

    /// A response with status 204 and the methods of a path.
    pub(crate) fn no_content(allow: &'static str) -> Self {
        let mut response = Self::new(StatusCode::NO_CONTENT, Format::Json, Content::Empty);
        response.set_header(ALLOW, HeaderValue::from_static(allow));
        response
    }

    /// A response with encoded JSON as its body.
    pub(super) fn raw(status: StatusCode, json: impl Into<Bytes>) -> Self {
        Self::new(status, Format::Json, Content::Value(json.into()))
    }

    /// A response with a page. `share` counts its bytes until they are sent.
    pub(super) fn page(page: EncodedPage, share: Share) -> Self {
        let format = page.format();
        Self { share: Some(share), ..Self::new(StatusCode::OK, format, Content::Page(page)) }
    }

    /// A response with a stream of events.
    pub(super) fn events(format: EventFormat, events: Events) -> Self {
        let mut response = Self::new(StatusCode::OK, format.format(), Content::Events(events));
        response.content_type = HeaderValue::from_static(format.content_type());
        // Tells proxies (nginx and others) to pass events on at once.
        response.set_header(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        response
    }

    /// A response that comes later.
    pub(super) fn later(response: LocalBoxFuture<'static, Self>) -> Self {
        Self::new(StatusCode::OK, Format::Json, Content::Later(response))
    }

    /// Whether the response comes later.
    pub(crate) const fn is_later(&self) -> bool {
        matches!(self.body, Content::Later(_))
    }

    /// The response itself, when it has come. It gets the headers that this one has.
    pub(crate) async fn resolve(mut self) -> Self {
        match std::mem::replace(&mut self.body, Content::Empty) {
            Content::Later(response) => {
                let mut response = response.await;
                let is_new = |(name, _): &(HeaderName, _)| !response.has_header(name);
                self.headers.retain(is_new);
                response.headers.append(&mut self.headers);
                response
            }
            body => Self { body, ..self },
        }
    }

    /// Counts the body with `share` until it is sent.
    #[must_use]
    pub(super) fn holding(self, share: Share) -> Self {
        Self { share: Some(share), ..self }
    }

    const fn new(status: StatusCode, format: Format, body: Content) -> Self {
        Self {
            status,
            code: None,
            headers: Vec::new(),
            content_type: HeaderValue::from_static(format.content_type()),
            body,
            is_last: false,
            share: None,
        }
    }

    pub(super) fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.push((name, value));
    }

    fn has_header(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(other, _)| other == name)
    }

    /// Adds the remaining quota of the client. A refusal tells that of its own limit.
    pub(super) fn set_rate_limit(&mut self, level: &Level) {
        if self.has_header(&RATE_LIMIT) {
            return;
        }
        let Level { bucket, remaining, reset, .. } = *level;
        let text = format!("\"{bucket}\";r={remaining};t={}", whole_seconds(reset));
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            self.set_header(RATE_LIMIT, value);
        }
    }

    /// Marks this as an error response.
    pub(super) fn set_code(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// The code, if this is an error response.
    pub(crate) const fn code(&self) -> Option<Code> {
        self.code
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether this is a stream of events.
    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self.body, Content::Events(_))
    }

    /// Sends a body of unknown length in chunks. Otherwise it ends with the connection.
    pub(crate) fn use_chunks(&mut self) {
        self.set_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }

    /// Makes this the last response of its connection.
    pub(crate) fn close(&mut self) {
        self.is_last = true;
    }

    /// The response for the public server. It ends the request when it is sent.
    pub(crate) fn into_response(mut self, mut in_flight: InFlightRequest) -> HttpResponse<ResponseBody> {
        in_flight.hold_share(self.share.take());
        self.into_framework().map_body(|_, body| ResponseBody { body, in_flight }).into()
    }

    /// The response for the admin server. It must not be a page.
    pub(crate) fn into_plain_response(self) -> Response<Bytes> {
        self.into_framework().map_body(|_, mut body| body.next_piece().unwrap_or_default())
    }

    fn into_framework(self) -> Response<Content> {
        let mut response = Response::with_body(self.status, self.body);
        if !matches!(response.body(), Content::Empty) {
            response.headers_mut().insert(CONTENT_TYPE, self.content_type);
        }
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        if self.is_last {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    /// The response as the bytes of HTTP/1.1, for a connection that the framework no longer serves.
    /// It is the last response of the connection.
    pub(crate) fn into_http1(mut self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut http = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\r\n",
            self.status.as_u16(),
            self.body.bytes_left()
        )
        .into_bytes();
        while let Some(piece) = self.body.next_piece() {
            http.extend_from_slice(&piece);
        }
        http
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Value(_) => "Value",
            Self::Page(_) => "Page",
            Self::Events(_) => "Events",
            Self::Later(_) => "Later",
        })
    }
}

impl Content {
    const fn bytes_left(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Value(value) => value.len(),
            Self::Page(page) => page.bytes_left(),
            Self::Events(_) | Self::Later(_) => 0,
        }
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        match self {
            Self::Empty => None,
            Self::Value(value) => Some(std::mem::take(value)).filter(|value| !value.is_empty()),
            Self::Page(page) => page.next_piece(),
            Self::Events(_) | Self::Later(_) => None,
        }
    }
}

impl MessageBody for ResponseBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        match &self.body {
            Content::Empty => BodySize::None,
            Content::Events(_) => BodySize::Stream,
            body => BodySize::Sized(body.bytes_left() as u64),
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let Self { body, in_flight } = self.get_mut();
        let piece = match body {
            Content::Events(events) => std::task::ready!(events.as_mut().poll_next(cx)),
            body => body.next_piece(),
        };
        if let (Some(access), Some(piece)) = (in_flight.access(), &piece) {
            access.add_sent(piece.len());
        }
        Poll::Ready(piece.map(Ok))
    }
}
