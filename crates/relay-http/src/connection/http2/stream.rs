//! One HTTP/2 stream: a request, its body and its response. A client that does not open its window
//! counts as one that does not read its response (see [`Pace`]).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use actix_http::Request;
use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::timeout_at;

use super::budget::StreamShare;
use super::head;
use super::io::{Meter, Unanswered};
use crate::api::format::Format;
use crate::connection::in_flight_request::InFlightRequest;
use crate::connection::pace::Pace;
use crate::connection::state::ConnectionState;
use crate::monotonic;

/// What serving a request needs besides the request.
pub(super) struct StreamContext {
    /// The grace period of [`Pace`].
    pub(super) grace: Duration,
    pub(super) meter: Meter,
    /// Held until the response is sent.
    pub(super) _share: StreamShare,
}

/// Serves a request until the last frame of its response is sent, or until its client cancels it.
pub(super) async fn serve<C, F>(
    connection: &Rc<ConnectionState>,
    call: &C,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    context: StreamContext,
) where
    C: Fn(Request) -> F,
    F: Future<Output = Option<HttpResponse>>,
{
    let is_head = request.method() == http::Method::HEAD;
    let response = match head::translate(request, connection.peer()) {
        Ok(request) => {
            context.meter.served();
            let responding = pin!(call(request));
            match select(responding, poll_fn(|cx| respond.poll_reset(cx))).await {
                Either::Left((Some(response), _)) => response,
                // The client has cancelled the request, or no response will come.
                Either::Left((None, _)) | Either::Right(_) => {
                    return respond.send_reset(Reason::REFUSED_STREAM);
                }
            }
        }
        Err(error) => {
            let answer = error.into_api_response(Format::Json, None);
            answer.into_response(InFlightRequest::begin(connection, None, None)).map_into_boxed_body()
        }
    };
    // A client that has gone needs no response.
    let _ = send(response, &mut respond, is_head, &context).await;
}

/// Sends a response. Its request stays in flight until the last frame is sent: until then `h2` may
/// hold a part of it in memory, for example because the client shrinks its window.
async fn send(
    response: HttpResponse,
    respond: &mut SendResponse<Bytes>,
    is_head: bool,
    context: &StreamContext,
) -> Result<(), h2::Error> {
    let unanswered = context.meter.watch(respond.stream_id().as_u32());
    let (head, body, bytes) = translate(response);
    let mut body = pin!(body);
    let has_body = !is_head && bytes != Some(0);
    let mut stream = respond.send_response(head, !has_body)?;
    let mut pace = Pace::begin(context.grace, monotonic::now());
    if has_body {
        match bytes {
            Some(bytes) => send_body(&mut stream, body.as_mut(), bytes, &mut pace).await?,
            None => send_events(&mut stream, body.as_mut(), &unanswered, &mut pace).await?,
        }
    }
    if timeout_at(pace.deadline(), unanswered.ended()).await.is_err() {
        stream.send_reset(Reason::CANCEL);
    }
    Ok(())
}

/// Passes a body to `h2` as the client opens its window. Stops if the client is too slow.
async fn send_body(
    stream: &mut SendStream<Bytes>,
    mut body: Pin<&mut BoxBody>,
    mut bytes_left: u64,
    pace: &mut Pace,
) -> Result<(), h2::Error> {
    while let Some(Ok(piece)) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
        bytes_left = bytes_left.saturating_sub(piece.len() as u64);
        if !send_piece(stream, piece, bytes_left == 0, pace).await? {
            break;
        }
    }
    Ok(())
}

/// Passes a body without an end to `h2`, until it ends after all. When the body has to wait, it is
/// asked again only after everything is sent, so it knows then that this is so. Its waits do not
/// count as time of the client.
async fn send_events(
    stream: &mut SendStream<Bytes>,
    mut body: Pin<&mut BoxBody>,
    unanswered: &Unanswered,
    pace: &mut Pace,
) -> Result<(), h2::Error> {
    let mut passed_bytes = 0;
    loop {
        let mut next = pin!(poll_fn(|cx| body.as_mut().poll_next(cx)));
        let piece = match next.as_mut().now_or_never() {
            Some(piece) => piece,
            None => {
                if timeout_at(pace.deadline(), unanswered.sent(passed_bytes)).await.is_err() {
                    stream.send_reset(Reason::CANCEL);
                    return Ok(());
                }
                let pause = monotonic::now();
                let Either::Left((piece, _)) = select(next, poll_fn(|cx| stream.poll_reset(cx))).await else {
                    // The client has cancelled the request.
                    return Ok(());
                };
                pace.resume(pause, monotonic::now());
                piece
            }
        };
        let Some(Ok(piece)) = piece else { return stream.send_data(Bytes::new(), true) };
        passed_bytes += piece.len() as u64;
        if !send_piece(stream, piece, false, pace).await? {
            stream.send_reset(Reason::CANCEL);
            return Ok(());
        }
    }
}

/// Passes a piece of a body to `h2` as the client opens its window. Returns false if the client is
/// too slow, or has cancelled the request.
async fn send_piece(
    stream: &mut SendStream<Bytes>,
    mut piece: Bytes,
    is_last: bool,
    pace: &mut Pace,
) -> Result<bool, h2::Error> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let window = timeout_at(pace.deadline(), poll_fn(|cx| stream.poll_capacity(cx))).await;
        let Some(window) = window.ok().flatten().transpose()? else { return Ok(false) };
        let part = piece.split_to(window.min(piece.len()));
        let part_bytes = part.len();
        stream.send_data(part, is_last && piece.is_empty())?;
        pace.advance(part_bytes, monotonic::now());
    }
    Ok(true)
}

/// The head of the response for `h2`, its body, and the length of the body, if it is known.
fn translate(response: HttpResponse) -> (http::Response<()>, BoxBody, Option<u64>) {
    let (response, body) = response.into_parts();
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(response.status().as_u16()).unwrap_or_default();
    *head.version_mut() = http::Version::HTTP_2;
    let bytes = match body.size() {
        BodySize::Sized(bytes) => {
            head.headers_mut().insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(bytes));
            Some(bytes)
        }
        BodySize::None => Some(0),
        BodySize::Stream => None,
    };
    for (name, value) in response.headers() {
        let name = http::HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value.as_bytes())) {
            head.headers_mut().append(name, value);
        }
    }
    (head, body, bytes)
}
