//! The body of an HTTP/2 request, as the framework reads it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use h2::RecvStream;

/// The body for the framework. Reading it opens the client's window again.
pub(super) fn body(stream: RecvStream) -> Payload {
    Payload::Stream { payload: Box::pin(H2Body(stream)) }
}

struct H2Body(RecvStream);

impl Stream for H2Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = match ready!(self.0.poll_data(cx)) {
            Some(Ok(piece)) => piece,
            Some(Err(_)) => return Poll::Ready(Some(Err(PayloadError::Incomplete(None)))),
            None => return Poll::Ready(None),
        };
        // This fails only when the stream has ended, which the next read reports.
        let _ = self.0.flow_control().release_capacity(piece.len());
        Poll::Ready(Some(Ok(piece)))
    }
}
