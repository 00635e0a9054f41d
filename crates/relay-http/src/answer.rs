//! What a request is answered with, before and while it is sent. It decides nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use bytes::Bytes;
use serde::Serialize;

use crate::api::PageJson;
use crate::budget::Share;
use crate::code::Code;
use crate::line::Busy;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer: always JSON.
#[derive(Debug)]
pub(crate) struct Answer {
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
    Written(Bytes),
    /// It is written while it is sent.
    Page(PageJson),
}

/// The body of an answer on its way. The request counts as in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct Sending {
    body: Content,
    _busy: Busy,
    _share: Option<Share>,
}

impl Answer {
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
    pub(crate) fn into_response(self, busy: Busy) -> HttpResponse<Sending> {
        let sending = Sending { body: self.body, _busy: busy, _share: self.share };
        let mut response = HttpResponse::with_body(self.status, sending);
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        if self.is_last {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    /// The answer as bytes of HTTP/1.1, for where the framework cannot send it. It is the last one of its connection.
    pub(crate) fn into_http1(mut self) -> Vec<u8> {
        let reason = self.status.canonical_reason().unwrap_or_default();
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-length: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n",
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
            Self::Written(json) => json.len(),
            Self::Page(page) => page.bytes_left(),
        }
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        match self {
            Self::Written(json) => Some(std::mem::take(json)).filter(|json| !json.is_empty()),
            Self::Page(page) => page.next_piece(),
        }
    }
}

impl MessageBody for Sending {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.body.bytes_left() as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.get_mut().body.next_piece().map(Ok))
    }
}
