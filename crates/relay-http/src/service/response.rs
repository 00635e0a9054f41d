//! What a request is answered with, before and while it is sent. It decides nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use bytes::Bytes;
use relay_ratelimit::Level;
use serde::Serialize;

use crate::api::PageJson;
use crate::api::code::Code;
use crate::api::headers::{RATE_LIMIT, whole_seconds};
use crate::connection::in_flight_request::InFlightRequest;
use crate::limits::memory_budget::Share;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Nothing that the relay says is for a cache.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// An answer: always JSON.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    status: StatusCode,
    /// What is wrong, if it is an error's.
    code: Option<Code>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Content,
    is_last: bool,
    share: Option<Share>,
}

/// What is still to be sent of a body.
#[derive(Debug)]
enum Content {
    Nothing,
    Written(Bytes),
    /// It is written while it is sent.
    Page(PageJson),
}

/// The body of an answer on its way. The request counts as in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    body: Content,
    _in_flight: InFlightRequest,
}

impl ApiResponse {
    /// An answer of this value.
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let body =
            serde_json::to_vec(value).expect("the API's own types have string keys and no failing parts");
        Self::raw(status, body)
    }

    /// The answer 200 of this value.
    pub(crate) fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// The answer 204, which tells the methods.
    pub(crate) fn no_content(allow: &'static str) -> Self {
        let mut answer = Self::new(StatusCode::NO_CONTENT, Content::Nothing);
        answer.set_header(ALLOW, HeaderValue::from_static(allow));
        answer
    }

    /// An answer of JSON that is written already.
    pub(crate) fn raw(status: StatusCode, json: impl Into<Bytes>) -> Self {
        Self::new(status, Content::Written(json.into()))
    }

    /// The answer 200 of a page, which is counted by `share` until it is sent.
    pub(crate) fn page(page: PageJson, share: Share) -> Self {
        Self { share: Some(share), ..Self::new(StatusCode::OK, Content::Page(page)) }
    }

    const fn new(status: StatusCode, body: Content) -> Self {
        Self { status, code: None, headers: Vec::new(), body, is_last: false, share: None }
    }

    pub(crate) fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.push((name, value));
    }

    /// Tells what is left of the rate of its client.
    pub(crate) fn set_rate_limit(&mut self, level: &Level) {
        let Level { bucket, remaining, reset, .. } = *level;
        let text = format!("\"{bucket}\";r={remaining};t={}", whole_seconds(reset));
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            self.set_header(RATE_LIMIT, value);
        }
    }

    /// Makes it the answer of an error.
    pub(crate) fn set_code(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// What is wrong, if it is an error's.
    pub(crate) const fn code(&self) -> Option<Code> {
        self.code
    }

    /// Makes it the last answer of its connection.
    pub(crate) fn close(&mut self) {
        self.is_last = true;
    }

    /// The answer in the framework's words.
    pub(crate) fn into_response(self, mut in_flight: InFlightRequest) -> HttpResponse<ResponseBody> {
        in_flight.counted_by(self.share);
        let sending = ResponseBody { body: self.body, _in_flight: in_flight };
        let mut response = HttpResponse::with_body(self.status, sending);
        if !matches!(response.body().body, Content::Nothing) {
            response.headers_mut().insert(CONTENT_TYPE, JSON);
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

    /// The answer as bytes of HTTP/1.1, for where the framework cannot send it. It is the last one
    /// of its connection.
    pub(crate) fn into_http1(mut self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\r\n",
            self.status.as_u16(),
            self.body.bytes_left()
        )
        .into_bytes();
        while let Some(piece) = self.body.next_piece() {
            head.extend_from_slice(&piece);
        }
        head
    }
}

impl Content {
    const fn bytes_left(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Written(json) => json.len(),
            Self::Page(page) => page.bytes_left(),
        }
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        match self {
            Self::Nothing => None,
            Self::Written(json) => Some(std::mem::take(json)).filter(|json| !json.is_empty()),
            Self::Page(page) => page.next_piece(),
        }
    }
}

impl MessageBody for ResponseBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        match &self.body {
            Content::Nothing => BodySize::None,
            body => BodySize::Sized(body.bytes_left() as u64),
        }
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.get_mut().body.next_piece().map(Ok))
    }
}
